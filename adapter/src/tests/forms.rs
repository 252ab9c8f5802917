//! One answer in its several forms: Table, protobuf, YAML.

use super::*;
use crate::protobuf::tests::text;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const KUBECTL: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
const TOTAL: &str = "inference_pool_total_queue_size";
const PODS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/inference_pod_queue_size";

fn two_pools() -> Bench {
    let mut bench = Bench::new();
    for (id, address, waiting) in [("default/a", "10.0.0.1:80", 1), ("default/b", "10.0.0.2:80", 2)] {
        bench.pool(id, &[address]).shows(address, 0, waiting, 0.0);
    }
    bench
}

async fn accept(bench: &Bench, path: &str, accept: &str) -> Reply {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{API}/namespaces/default/{path}") };
    bench.send("GET", &path, &[("accept", accept)]).await
}

const COLUMNS: &str = concat!(
    r#"{"name":"Pool","type":"string","format":"name","description":"What the value is of; of what was made of several pools, none.","priority":0},"#,
    r#"{"name":"Metric","type":"string","format":"","description":"The metric as it was asked for.","priority":0},"#,
    r#"{"name":"Value","type":"string","format":"","description":"A Kubernetes quantity: 850m is 0.85.","priority":0},"#,
    r#"{"name":"Age","type":"string","format":"","description":"How old the oldest page is that the value is made of.","priority":0},"#,
    r#"{"name":"Namespace","type":"string","format":"","description":"Where it is.","priority":1}"#,
);

#[tokio::test(start_paused = true)]
async fn a_table_is_what_kubectl_prints() {
    let bench = two_pools();
    tokio::time::advance(Duration::from_millis(1500)).await;
    let row = |version: &str, pool: &str, value: u32| {
        format!(
            r#"{{"cells":["{pool}","inference_pool_total_queue_size","{value}","1s","default"],"object":{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/{version}","metadata":{{"name":"{pool}","namespace":"default","labels":{{"name":"{pool}","namespace":"default"}}}}}}}}"#
        )
    };
    let table = |version: &str, rows: &str| {
        format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{{}},\"columnDefinitions\":[{COLUMNS}],\"rows\":[{rows}]}}\n"
        )
    };
    for (accepted, version) in [(KUBECTL, "v1"), (TABLE, "v1"), ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", "v1beta1")] {
        let reply = accept(&bench, TOTAL, accepted).await;
        assert_eq!(reply.body, table(version, &[row(version, "a", 1), row(version, "b", 2)].join(",")));
        assert_eq!(
            (reply.code, &reply.headers["content-type"]),
            (StatusCode::OK, &http::HeaderValue::from_static("application/json"))
        );
    }
    let reply = accept(&bench, &format!("{TOTAL}?labelSelector=name%3Da&includeObject=None&limit=500"), KUBECTL).await;
    assert_eq!(reply.body, table("v1", r#"{"cells":["a","inference_pool_total_queue_size","1","1s","default"]}"#));
    let reply = accept(&bench, &format!("{TOTAL}?labelSelector=reducer%3DREDUCE_SUM"), TABLE).await;
    assert!(reply.body.contains(r#""cells":["","inference_pool_total_queue_size","3","1s","default"]"#), "{}", reply.body);
}

#[tokio::test(start_paused = true)]
async fn a_table_of_objects_names_their_kind() {
    let bench = two_pools();
    let custom = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default";
    for (path, start, row) in [
        (
            PODS.to_owned(),
            "Pod",
            r#"["10.0.0.1:80","inference_pod_queue_size","1","0s","default"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"10.0.0.1:80","namespace":"default"}}"#,
        ),
        (
            format!("{custom}/inferencepools/b/{TOTAL}"),
            "Pool",
            r#"["b","inference_pool_total_queue_size","2","0s","default"],"object":{"#,
        ),
        (
            format!("{custom}/metrics/{TOTAL}"),
            "Name",
            r#"["default","inference_pool_total_queue_size","3","0s",""],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"default"}}"#,
        ),
    ] {
        let reply = accept(&bench, &path, KUBECTL).await;
        assert!(reply.body.contains(&format!("\"columnDefinitions\":[{{\"name\":\"{start}\",")), "{}", reply.body);
        assert!(reply.body.contains(row), "{}", reply.body);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_a_status_for_whoever_wants_a_table() {
    let reply = accept(&two_pools(), "inference_pool_saturation?labelSelector=name%3Dx", KUBECTL).await;
    let message = "the server could not find the metric inference_pool_saturation for the selector \"name=x\" in namespace default: the \
                   pools in namespace default are a, b";
    assert_failure(&reply, 404, "NotFound", message);
}

#[tokio::test(start_paused = true)]
async fn the_controller_manager_gets_protobuf() {
    let bench = two_pools();
    let accepted = "application/vnd.kubernetes.protobuf, */*";
    let reply = accept(&bench, &format!("{TOTAL}?labelSelector=name%3Db"), accepted).await;
    assert_eq!(reply.code, StatusCode::OK);
    assert_eq!(reply.headers["content-type"], "application/vnd.kubernetes.protobuf");
    for (path, expected) in [
        (&[1, 1][..], "external.metrics.k8s.io/v1beta1"),
        (&[1, 2], "ExternalMetricValueList"),
        (&[2, 2, 1], TOTAL),
        (&[2, 2, 2, 1], "name"),
        (&[2, 2, 2, 2], "b"),
        (&[2, 2, 3, 1], "1767225660"),
        (&[2, 2, 5, 1], "2"),
    ] {
        assert_eq!(text(&reply.bytes, path), expected, "{path:?}");
    }
    let pods = accept(&bench, PODS, accepted).await;
    assert_eq!((&*text(&pods.bytes, &[2, 2, 1, 1]), &*text(&pods.bytes, &[2, 2, 1, 3])), ("Pod", "10.0.0.1:80"));
    let failure = accept(&bench, "nothing", accepted).await;
    assert_eq!(failure.code, StatusCode::NOT_FOUND);
    assert_eq!(failure.headers["content-type"], "application/vnd.kubernetes.protobuf");
    assert_eq!((&*text(&failure.bytes, &[1, 2]), &*text(&failure.bytes, &[2, 4])), ("Status", "NotFound"));
    assert!(text(&failure.bytes, &[2, 3]).starts_with("the server could not find the metric nothing for inference pools"));
}

#[tokio::test(start_paused = true)]
async fn yaml_is_the_same_object() {
    let bench = two_pools();
    let reply = accept(&bench, &format!("{TOTAL}?labelSelector=name%3Da"), "application/yaml").await;
    assert_eq!(reply.headers["content-type"], "application/yaml");
    assert_eq!(
        reply.body,
        "apiVersion: external.metrics.k8s.io/v1beta1\nitems:\n- metricLabels:\n    name: a\n    namespace: default\n  \
         metricName: inference_pool_total_queue_size\n  timestamp: \"2026-01-01T00:01:00Z\"\n  value: \"1\"\nkind: ExternalMetricValueList\n\
         metadata: {}\n"
    );
    for path in [TOTAL, PODS, "nothing", "/nowhere"] {
        let yaml = accept(&bench, path, "application/yaml").await;
        let json = accept(&bench, path, "application/json").await;
        let read: serde_json::Value = serde_saphyr::from_str(&yaml.body).unwrap();
        assert_eq!((yaml.code, read), (json.code, serde_json::from_str(&json.body).unwrap()), "{path}");
    }
}
