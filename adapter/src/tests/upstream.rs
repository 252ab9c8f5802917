//! What other adapters' tests demand, by their names: custom-metrics-apiserver, its test adapter, the Stackdriver adapter, the
//! aggregation layer.

use std::future::ready;
use std::sync::Mutex;

use weir_serving::Caller;

use super::*;
use crate::{Authorizer, Permission, SharedAuthorizer};

const TOTAL: &str = "inference_pool_total_queue_size";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta1";

fn two_pools(config: AdapterConfig) -> Bench {
    let mut bench = Bench::with(config);
    for (id, address, waiting) in [
        ("default/a", "10.0.0.1:80", 1),
        ("default/b", "10.0.0.2:80", 2),
        ("other/c", "10.0.0.3:80", 3),
        ("third/d", "10.0.0.4:80", 4),
    ] {
        bench.pool(id, &[address]).shows(address, 0, waiting, 0.0);
    }
    bench
}

async fn code(bench: &Bench, path: &str) -> u16 {
    bench.send("GET", path, &[]).await.code.as_u16()
}

fn message(reply: &Reply) -> String {
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    body["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn custom_metrics_apiserver_paths() {
    let bench = two_pools(AdapterConfig::default());
    for (path, expected) in [
        // Wrong prefix, missing storage, leaves.
        (format!("/wrong{CUSTOM}/namespaces/default/pods/*/inference_pod_queue_size"), 404),
        ("/apis/custom.metrics.k8s.io/v1beta1/foo".into(), 404),
        (format!("{CUSTOM}/nodes/foo"), 404),
        (format!("{CUSTOM}/namespaces/default/pods/bar"), 404),
        (format!("{CUSTOM}/namespaces/default"), 404),
        // No object outside of a namespace has a metric here.
        (format!("{CUSTOM}/nodes/*/{TOTAL}"), 404),
        (format!("{CUSTOM}/pods/*/inference_pod_queue_size"), 404),
        (format!("{CUSTOM}/inferencepools.inference.networking.k8s.io/a/{TOTAL}"), 404),
        (format!("{CUSTOM}/namespaces/default/{TOTAL}"), 400),
        (format!("{CUSTOM}/namespaces/default/metrics/{TOTAL}"), 200),
        (format!("{CUSTOM}/namespaces/default/pods/*/inference_pod_queue_size"), 200),
        (format!("{CUSTOM}/namespaces/default/pods/10.0.0.1:80/inference_pod_queue_size"), 200),
        // External: the root, no name, slashes.
        (format!("{API}/{TOTAL}"), 404),
        (format!("{API}/namespaces/default"), 404),
        (format!("{API}/namespaces/default/"), 404),
        (format!("{API}/namespaces/default/a/b"), 404),
        (format!("{API}/namespaces/default/{TOTAL}"), 200),
    ] {
        assert_eq!(code(&bench, &path).await, expected, "{path}");
    }
    let reply = bench.send("GET", &format!("{CUSTOM}/nodes/*/{TOTAL}"), &[]).await;
    let text = format!(
        "the server could not find the metric {TOTAL} for nodes *: there are metrics of inferencepools.inference.networking.k8s.io and of pods \
         in a namespace, and of the namespace"
    );
    assert_failure(&reply, 404, "NotFound", &text);
    let reply = bench.send("GET", &format!("{CUSTOM}/namespaces/default/{TOTAL}"), &[]).await;
    assert!(message(&reply).starts_with("invalid request path"), "{}", reply.body);
}

#[tokio::test(start_paused = true)]
async fn custom_metrics_apiserver_external_two_series_and_a_selector_for_one() {
    let bench = two_pools(AdapterConfig::default());
    assert_eq!(bench.values(TOTAL, "").await, "a 1, b 2");
    assert_eq!(bench.values(TOTAL, "name=a").await, "a 1");
    // Where that adapter answers 200 without items for a name it does not know, this one says so.
    assert!(bench.values("other-external-metric", "").await.starts_with("404 "));
}

#[tokio::test(start_paused = true)]
async fn custom_metrics_apiserver_freshness_histogram_per_group() {
    let bench = two_pools(AdapterConfig::default());
    assert_eq!(code(&bench, &format!("{API}/namespaces/default/{TOTAL}")).await, 200);
    assert_eq!(code(&bench, &format!("{CUSTOM}/namespaces/default/pods/*/inference_pod_queue_size")).await, 200);
    assert_eq!(code(&bench, &format!("{CUSTOM}/namespaces/default/metrics/{TOTAL}")).await, 200);
    let page = bench.page();
    for line in [
        r#"metrics_apiserver_metric_freshness_seconds_count{group="external.metrics.k8s.io"} 2"#,
        r#"metrics_apiserver_metric_freshness_seconds_count{group="custom.metrics.k8s.io"} 3"#,
    ] {
        assert!(page.contains(line), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn custom_metrics_apiserver_pod_is_pods() {
    let bench = two_pools(AdapterConfig::default());
    let of = async |resource: &str| {
        bench.send("GET", &format!("{CUSTOM}/namespaces/default/{resource}/*/inference_pod_queue_size"), &[]).await.body
    };
    assert_eq!(of("pod").await, of("pods").await);
    assert!(of("pods").await.contains("\"name\":\"10.0.0.2:80\""));
}

#[tokio::test(start_paused = true)]
async fn test_adapter_custom_miss_404_and_a_selector_miss_skips_the_object() {
    let bench = two_pools(AdapterConfig::default());
    let pools = format!("{CUSTOM}/namespaces/default/inferencepools");
    assert_eq!(code(&bench, &format!("{pools}/nobody/{TOTAL}")).await, 404);
    let reply = bench.send("GET", &format!("{pools}/*/{TOTAL}?metricLabelSelector=name%3Da"), &[]).await;
    assert!(reply.body.contains("\"name\":\"a\"") && !reply.body.contains("\"name\":\"b\""), "{}", reply.body);
}

#[tokio::test(start_paused = true)]
async fn stackdriver_name_pipe_decode() {
    let bench = two_pools(AdapterConfig::default());
    for name in [
        "prometheus.googleapis.com%7Cinference_pool_total_queue_size%7Cgauge",
        "prometheus.googleapis.com|inference_pool_total_queue_size|unknown",
    ] {
        assert!(bench.metric(name).await.body.contains("\"metricLabels\":{\"metric.labels.name\":\"a\",\"name\":\"a\""), "{name}");
    }
    assert_eq!(
        bench.metric("prometheus.googleapis.com%7Cinference_pool_total_queue_size%7Csummary").await.code,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(start_paused = true)]
async fn stackdriver_allowed_and_forbidden_label_keys() {
    let bench = two_pools(AdapterConfig::default());
    for key in [
        "metric.labels.name",
        "metric.labels.namespace",
        "resource.labels.namespace",
        "resource.labels.cluster",
        "resource.labels.location",
        "resource.labels.project_id",
        "resource.type",
    ] {
        assert_eq!(bench.values(TOTAL, key).await, "a 1, b 2", "{key}");
        assert_eq!(
            bench.values(TOTAL, &format!("!{key}")).await,
            format!("400 \"Label selector with operator DoesNotExist is not allowed: leave !{key} out\""),
        );
    }
    for key in
        ["metadata.user_labels.app", "metadata.system_labels.region", "metric.labels.engine", "resource.labels.instance", "foo"]
    {
        let answer = bench.values(TOTAL, key).await;
        assert!(answer.starts_with(&format!("400 \"Metric label: \\\"{key}\\\" is not allowed")), "{answer}");
    }
    assert!(bench.values(TOTAL, "!metadata.user_labels.app").await.contains("DoesNotExist is not allowed"));
}

#[tokio::test(start_paused = true)]
async fn stackdriver_reducer_ok_unknown_multi_and_other_operators() {
    let bench = two_pools(AdapterConfig::default());
    for (selector, expected) in [
        ("reducer=REDUCE_SUM", "- 3"),
        ("reducer==REDUCE_MAX,metric.labels.name=b", "b 2"),
        ("reducer=REDUCE_NONSENSE", "400 "),
        ("reducer in (REDUCE_SUM,REDUCE_MAX)", "400 "),
        ("reducer!=REDUCE_SUM", "400 "),
        ("reducer", "400 "),
        ("!reducer", "400 "),
        ("reducer=REDUCE_STDDEV", "501 \"Operation: \\\"REDUCE_STDDEV\\\" is not implemented"),
    ] {
        let answer = bench.values(TOTAL, selector).await;
        assert!(answer.starts_with(expected), "{selector}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn stackdriver_project_is_a_constant_here() {
    let resource = crate::ResourceLabels { project_id: Some("mine".into()), ..crate::ResourceLabels::default() };
    let bench = two_pools(AdapterConfig { resource, ..AdapterConfig::default() });
    assert_eq!(bench.values(TOTAL, "resource.labels.project_id=mine,name=a").await, "a 1");
    assert_eq!(
        bench.values(TOTAL, "resource.labels.project_id=other").await,
        "404 \"the server could not find the metric inference_pool_total_queue_size for the selector \\\"resource.labels.project_id=other\\\" \
         in namespace default: \\\"resource.labels.project_id=other\\\" does not hold here, where it is \\\"mine\\\"\""
    );
}

#[tokio::test(start_paused = true)]
async fn aggregator_asks_without_rights_and_gets_discovery_at_once() {
    // No pool, no endpoint: the check of the aggregation layer never depends on data.
    let bench = Bench::new();
    for version in ["external.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2"] {
        let reply = bench.send("GET", &format!("/apis/{version}"), &[]).await;
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        assert!(!body["resources"].as_array().unwrap().is_empty(), "{version}");
    }
}

/// Who asked for what, and one namespace that nobody may read.
#[derive(Default)]
struct Reviews {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authorizer for Reviews {
    fn may_read<'a>(&'a self, caller: &'a Caller, namespace: &'a str, metric: &'a str) -> Permission<'a> {
        let groups = caller.groups.join("+");
        self.asked.lock().unwrap().push(format!("{} ({groups}) {namespace} {metric}", caller.name));
        Box::pin(ready(namespace != "third"))
    }
}

#[tokio::test(start_paused = true)]
async fn another_namespace_is_authorised_for_its_caller() {
    let reviews = Reviews::default();
    let asked = reviews.asked.clone();
    let config =
        AdapterConfig { allow_cross_namespace: true, authorizer: SharedAuthorizer::new(reviews), ..AdapterConfig::default() };
    let bench = two_pools(config);
    assert_eq!(bench.values(TOTAL, "namespace in (default,other)").await, "a 1, b 2, c 3");
    assert_eq!(bench.values(TOTAL, "name=a").await, "a 1");
    let all = format!("system:anonymous (system:unauthenticated) other {TOTAL}");
    assert_eq!(*asked.lock().unwrap(), [all]);

    let details = format!("\"details\":{{\"group\":\"external.metrics.k8s.io\",\"kind\":\"{TOTAL}\"}},");
    let denied = |scope: &str| {
        format!(
            "{TOTAL}.external.metrics.k8s.io is forbidden: User \"a &lt;b&gt;\" cannot list resource \"{TOTAL}\" in API group \
             \"external.metrics.k8s.io\" in {scope}"
        )
    };
    for (selector, scope) in [
        ("namespace%3Dthird", "the namespace \"third\""),
        ("namespace+in+(third,other),name%3Da", "the namespace \"third\""),
        ("namespace%21%3Ddefault", "all the namespaces that \"namespace!=default\" matches"),
    ] {
        let mut request = Request::builder()
            .uri(format!("{API}/namespaces/default/{TOTAL}?labelSelector={selector}"))
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(Caller::new("a <b>", ["g".to_owned()]));
        let response = bench.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let reply = Reply { code: parts.status, headers: parts.headers, body: String::from_utf8(bytes.clone()).unwrap(), bytes };
        // Escaped once more as a JSON string: `&` and `<` need none.
        assert_failure_about(&reply, 403, "Forbidden", &denied(scope), &details);
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    }
    assert!(asked.lock().unwrap().contains(&format!("a <b> (g) third {TOTAL}")));
}

#[tokio::test(start_paused = true)]
async fn without_leave_nobody_is_asked() {
    let reviews = Reviews::default();
    let asked = reviews.asked.clone();
    let bench = two_pools(AdapterConfig { authorizer: SharedAuthorizer::new(reviews), ..AdapterConfig::default() });
    assert!(bench.values(TOTAL, "namespace=other").await.starts_with("403 "));
    assert_eq!(bench.values(TOTAL, "namespace=default").await, "a 1, b 2");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn too_many_namespaces_are_refused() {
    let bench = two_pools(AdapterConfig { allow_cross_namespace: true, ..AdapterConfig::default() });
    let names = (0..33).map(|number| format!("n{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(
        bench.values(TOTAL, &format!("namespace in ({names})")).await,
        "400 \"the selector names 33 namespaces, at most 32 are looked at: select fewer at a time\""
    );
}
