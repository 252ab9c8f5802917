//! Metrics of objects: pools, pods, namespaces, in both versions of the group.

use http::HeaderValue;
use tokio::time::advance;

use super::*;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
const POOLS: &str = "inferencepools.inference.networking.k8s.io";
const KV: &str = "inference_pool_average_kv_cache_utilization";
const TOTAL: &str = "inference_pool_total_queue_size";
const QUEUE: &str = "inference_pod_queue_size";

/// A pod of the last pool with these addresses, and one label.
fn pod(bench: &mut Bench, name: &str, addresses: &[&str], label: (&str, &str)) {
    bench.change(|pool| {
        for (rank, address) in (0..).zip(addresses) {
            pool.endpoints.push(EndpointSpec {
                pod: name.into(),
                pod_uid: format!("uid-{name}").into(),
                rank,
                labels: Arc::new(BTreeMap::from([(label.0.to_owned(), label.1.to_owned())])),
                ..EndpointSpec::standalone(address.parse().unwrap())
            });
        }
    });
}

/// Pool `a` with pods `a-0` (two ranks) and `a-1`, pool `b` with pod `b-0`, and `c` in another namespace.
fn pods() -> Bench {
    let mut bench = Bench::new();
    bench.pool("default/a", &[]);
    pod(&mut bench, "a-0", &["10.0.0.1:80", "10.0.0.1:81"], ("app", "a"));
    pod(&mut bench, "a-1", &["10.0.0.2:80"], ("app", "a"));
    bench.shows("10.0.0.1:80", 1, 2, 0.25).shows("10.0.0.1:81", 3, 4, 0.75).shows("10.0.0.2:80", 5, 0, 0.5);
    bench.pool("default/b", &[]);
    pod(&mut bench, "b-0", &["10.0.0.3:80"], ("app", "b"));
    bench.shows("10.0.0.3:80", 7, 8, 1.0);
    bench.pool("other/c", &[]);
    pod(&mut bench, "c-0", &["10.0.0.4:80"], ("app", "c"));
    bench.shows("10.0.0.4:80", 1, 1, 0.5);
    bench
}

async fn get(bench: &Bench, path: &str) -> Reply {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{CUSTOM}/{path}") };
    bench.send("GET", &path, &[]).await
}

/// The values as `kind/name value`, or the status and message.
async fn values(bench: &Bench, path: &str) -> String {
    let reply = get(bench, path).await;
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    let Some(items) = body["items"].as_array() else {
        return format!("{} {}", reply.code.as_u16(), body["message"].as_str().unwrap());
    };
    let item = |item: &serde_json::Value| {
        let object = &item["describedObject"];
        format!("{}/{} {}", object["kind"].as_str().unwrap(), object["name"].as_str().unwrap(), item["value"].as_str().unwrap())
    };
    items.iter().map(item).collect::<Vec<_>>().join(", ")
}

fn list(version: &str, items: &str) -> String {
    format!(
        "{{\"kind\":\"MetricValueList\",\"apiVersion\":\"custom.metrics.k8s.io/{version}\",\"metadata\":{{}},\"items\":[{items}]}}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn an_object_has_exactly_one_item_in_each_version() {
    let bench = pods();
    let path = format!("/namespaces/default/{POOLS}/a/{KV}?metricLabelSelector=name%3Da");
    let new = r#"{"describedObject":{"kind":"InferencePool","namespace":"default","name":"a","apiVersion":"inference.networking.k8s.io/v1"},"metric":{"name":"inference_pool_average_kv_cache_utilization","selector":{"matchLabels":{"name":"a"}}},"timestamp":"2026-01-01T00:01:00Z","value":"500m"}"#;
    let reply = get(&bench, &format!("/apis/custom.metrics.k8s.io/v1beta2{path}")).await;
    assert_eq!((reply.code, reply.body), (StatusCode::OK, list("v1beta2", new)));
    let old = r#"{"describedObject":{"kind":"InferencePool","namespace":"default","name":"a","apiVersion":"inference.networking.k8s.io/v1"},"metricName":"inference_pool_average_kv_cache_utilization","timestamp":"2026-01-01T00:01:00Z","value":"500m","selector":{"matchLabels":{"name":"a"}}}"#;
    assert_eq!(get(&bench, &format!("/apis/custom.metrics.k8s.io/v1beta1{path}")).await.body, list("v1beta1", old));
    let plain = get(&bench, &format!("{POOLS}/a/{KV}")).await;
    assert!(plain.body.contains(r#""selector":null"#), "{}", plain.body);
    assert!(!plain.headers.contains_key("warning"));
    let page = bench.page();
    for line in [
        r#"metrics_apiserver_metric_freshness_seconds_count{group="custom.metrics.k8s.io"} 3"#,
        r#"weir_custom_metric_requests_total{resource="inferencepools.inference.networking.k8s.io",metric="inference_pool_average_kv_cache_utilization",code="200"} 3"#,
    ] {
        assert!(page.contains(line), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn pools_are_found_by_every_name_of_their_kind() {
    let bench = pods();
    for resource in [POOLS, "inferencepools", "inferencepool", "inferencepools.inference.networking.x-k8s.io"] {
        assert_eq!(values(&bench, &format!("{resource}/a/{TOTAL}")).await, "InferencePool/a 6", "{resource}");
    }
    let before = get(&bench, &format!("inferencepools.inference.networking.x-k8s.io/a/{TOTAL}")).await.body;
    assert!(before.contains(r#""apiVersion":"inference.networking.x-k8s.io/v1alpha2""#), "{before}");
    for (path, expected) in [
        (format!("{POOLS}/*/{TOTAL}"), "InferencePool/a 6, InferencePool/b 8"),
        (format!("{POOLS}/%2A/{TOTAL}?labelSelector=name%3Db"), "InferencePool/b 8"),
        (format!("{POOLS}/*/{TOTAL}?labelSelector=name+in+(a,b,c),namespace%3Ddefault"), "InferencePool/a 6, InferencePool/b 8"),
        // A mean of several objects is one each: nobody adds them up.
        (format!("{POOLS}/*/{KV}"), "InferencePool/a 500m, InferencePool/b 1"),
        (format!("{POOLS}/*/{KV}?metricLabelSelector=name%3Da"), "InferencePool/a 500m"),
        (format!("{POOLS}/a/{TOTAL}?metricLabelSelector=pod.app%3Da,resource.labels.cluster%3Dx"), "InferencePool/a 6"),
        (
            format!("{POOLS}/a/prometheus.googleapis.com%7C{KV}%7Cgauge?metricLabelSelector=metric.labels.name%3Da"),
            "InferencePool/a 500m",
        ),
        (format!("{POOLS}/a/{TOTAL}?metricLabelSelector=reducer%3DREDUCE_COUNT"), "InferencePool/a 1"),
        // The label selector is for objects that are not named.
        (format!("{POOLS}/a/{TOTAL}?labelSelector=app%3Dx"), "InferencePool/a 6"),
    ] {
        assert_eq!(values(&bench, &path).await, expected, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn pools_that_are_not_there_are_named_among_those_that_are() {
    let bench = pods();
    let start = format!("404 the server could not find the metric {TOTAL} for {POOLS}");
    for (path, end) in [
        (format!("{POOLS}/c/{TOTAL}"), " c: the pools in namespace default are a, b"),
        (
            format!("{POOLS}/a/{TOTAL}?metricLabelSelector=name%3Db"),
            " a with metric selector name=b: the pools in namespace default are a, b",
        ),
        (format!("{POOLS}/*/{TOTAL}?labelSelector=name%3Dx"), " with selector name=x: the pools in namespace default are a, b"),
        (
            format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/empty/{POOLS}/a/{TOTAL}"),
            " a: there is no pool in namespace empty",
        ),
    ] {
        assert_eq!(values(&bench, &path).await, format!("{start}{end}"), "{path}");
    }
    assert_eq!(
        values(&bench, &format!("{POOLS}/*/{TOTAL}?labelSelector=app%3Dx")).await,
        "400 Object label: \"app\" is not allowed: the labels of InferencePools are not read, the allowed keys of labelSelector are name \
         and namespace"
    );
}

#[tokio::test(start_paused = true)]
async fn metrics_of_pods_combine_their_ranks_by_meaning() {
    let bench = pods();
    for (metric, expected) in [
        ("inference_pod_running_requests", "Pod/a-0 4, Pod/a-1 5, Pod/b-0 7"),
        (QUEUE, "Pod/a-0 6, Pod/a-1 0, Pod/b-0 8"),
        ("inference_pool_per_pod_queue_size", "Pod/a-0 6, Pod/a-1 0, Pod/b-0 8"),
        ("inference_pod_kv_cache_utilization", "Pod/a-0 500m, Pod/a-1 500m, Pod/b-0 1"),
        ("prometheus.googleapis.com%7Cvllm:num_requests_waiting%7Cgauge", "Pod/a-0 6, Pod/a-1 0, Pod/b-0 8"),
    ] {
        assert_eq!(values(&bench, &format!("pods/%2A/{metric}")).await, expected, "{metric}");
    }
    for (path, expected) in [
        (format!("pods/*/{QUEUE}?labelSelector=app%3Da"), "Pod/a-0 6, Pod/a-1 0"),
        (format!("pods/*/{QUEUE}?labelSelector=app+in+%28b%2Cx%29%2C%21old"), "Pod/b-0 8"),
        (format!("pods/*/{QUEUE}?metricLabelSelector=name%3Db"), "Pod/b-0 8"),
        (format!("pods/*/{QUEUE}?labelSelector=app&metricLabelSelector=pod.app%3Da"), "Pod/a-0 6, Pod/a-1 0"),
        (format!("pods/a-0/{QUEUE}"), "Pod/a-0 6"),
        (format!("pod/a-1/{QUEUE}?labelSelector=app%3Dx"), "Pod/a-1 0"),
    ] {
        assert_eq!(values(&bench, &path).await, expected, "{path}");
    }
    let item = r#"{"describedObject":{"kind":"Pod","namespace":"default","name":"b-0","apiVersion":"v1"},"metric":{"name":"inference_pod_queue_size","selector":null},"timestamp":"2026-01-01T00:01:00Z","value":"8"}"#;
    assert_eq!(get(&bench, &format!("pods/b-0/{QUEUE}")).await.body, list("v1beta2", item));
}

#[tokio::test(start_paused = true)]
async fn pods_without_a_whole_value_are_left_out_and_counted() {
    let mut bench = pods();
    advance(Duration::from_secs(4)).await;
    // One rank of a-0 is fresh again, and b-0: a part of a pod is no value of it.
    bench
        .shows("10.0.0.1:80", 1, 2, 0.25)
        .shows("10.0.0.3:80", 7, 8, 1.0)
        .fails("10.0.0.1:81", "10.0.0.1:81 refused the connection");
    let reply = get(&bench, &format!("pods/*/{QUEUE}")).await;
    assert_eq!(
        reply.headers["warning"],
        HeaderValue::from_static("299 - \"2 of 3 pods are left out: they are not ready or their metrics not fresh\"")
    );
    assert_eq!(values(&bench, &format!("pods/*/{QUEUE}")).await, "Pod/b-0 8");
    let since = "; last known at 2026-01-01T00:01:00Z, 0 s ago";
    assert_eq!(
        values(&bench, &format!("pods/a-0/{QUEUE}")).await,
        format!(
            "503 {QUEUE} of pods a-0 is not known: none of 1 ready pods has fresh metrics with it: 10.0.0.1:81 refused the connection{since}"
        )
    );
    assert_eq!(
        values(&bench, &format!("pods/*/{QUEUE}?labelSelector=app%3Da")).await,
        format!(
            "503 {QUEUE} of pods with selector app=a is not known: none of 2 ready pods has fresh metrics with it: 10.0.0.1:81 refused the \
             connection{since}"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_not_ready_have_no_value() {
    let mut bench = Bench::new();
    bench.pool("default/a", &[]);
    pod(&mut bench, "a-0", &["10.0.0.1:80"], ("app", "a"));
    bench.shows("10.0.0.1:80", 1, 2, 0.25).unready();
    assert_eq!(
        values(&bench, &format!("pods/*/{QUEUE}")).await,
        format!("503 {QUEUE} of pods is not known: none of 1 pods is ready; last known at 2026-01-01T00:01:00Z, 0 s ago")
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_two_pools_is_one_pod() {
    let mut bench = Bench::new();
    for pool in ["default/a", "default/b"] {
        bench.pool(pool, &[]);
        pod(&mut bench, "p", &["10.0.0.1:80"], ("app", "a"));
    }
    bench.shows("10.0.0.1:80", 1, 2, 0.25);
    assert_eq!(values(&bench, &format!("pods/*/{QUEUE}")).await, "Pod/p 2");
    assert_eq!(values(&bench, &format!("pods/p/{QUEUE}?metricLabelSelector=name%3Db")).await, "Pod/p 2");
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_not_found() {
    let bench = pods();
    let pools = "no such pod is an endpoint of a pool, the pools looked at are a, b";
    for (path, of) in [
        (format!("pods/nobody/{QUEUE}"), " nobody"),
        (format!("pods/c-0/{QUEUE}"), " c-0"),
        (format!("pods/*/{QUEUE}?labelSelector=app%3Dx"), " with selector app=x"),
    ] {
        let expected = format!("404 the server could not find the metric {QUEUE} for pods{of}: {pools}");
        assert_eq!(values(&bench, &path).await, expected, "{path}");
    }
    assert_eq!(
        values(&bench, &format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/empty/pods/*/{QUEUE}")).await,
        format!("404 the server could not find the metric {QUEUE} for pods: there is no pool in namespace empty")
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_has_one_value_of_all_its_pools() {
    let bench = pods();
    let item = r#"{"describedObject":{"kind":"Namespace","name":"default","apiVersion":"v1"},"metric":{"name":"inference_pool_total_queue_size","selector":null},"timestamp":"2026-01-01T00:01:00Z","value":"14"}"#;
    assert_eq!(get(&bench, &format!("metrics/{TOTAL}")).await.body, list("v1beta2", item));
    for (path, expected) in [
        (format!("metrics/{TOTAL}?metricLabelSelector=name%3Da"), "Namespace/default 6"),
        (format!("metrics/{TOTAL}?metricLabelSelector=reducer%3DREDUCE_MAX"), "Namespace/default 8"),
        (format!("metrics/{TOTAL}?metricLabelSelector=reducer%3DREDUCE_NONE"), "Namespace/default 14"),
        (format!("metrics/{KV}?metricLabelSelector=name%3Da"), "Namespace/default 500m"),
        (format!("metrics/{KV}?metricLabelSelector=reducer%3DREDUCE_MEAN"), "Namespace/default 750m"),
        (
            format!("metrics/{KV}"),
            "400 inference_pool_average_kv_cache_utilization of 2 pools (a, b) is no one value for namespaces default: choose one with the \
             metric's selector name=POOL, or say how they become one with reducer=REDUCE_MAX",
        ),
        (
            format!("metrics/{TOTAL}?metricLabelSelector=name%3Dx"),
            "404 the server could not find the metric inference_pool_total_queue_size for namespaces default with metric selector name=x: \
             the pools in namespace default are a, b",
        ),
    ] {
        assert_eq!(values(&bench, &path).await, expected, "{path}");
    }
    assert_eq!(
        values(&bench, &format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/other/metrics/{KV}")).await,
        "Namespace/other 500m"
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_known_where_all_its_pools_are() {
    let mut bench = pods();
    advance(Duration::from_secs(4)).await;
    bench.shows("10.0.0.3:80", 7, 8, 1.0);
    let cause = "none of its 3 ready endpoints has fresh metrics; last known at 2026-01-01T00:00:56Z, 4 s ago";
    assert_eq!(
        values(&bench, &format!("metrics/{TOTAL}")).await,
        format!("503 inference_pool_total_queue_size of pool default/a is not known: {cause}")
    );
    // Several objects are each for itself; one alone is an error.
    let reply = get(&bench, &format!("{POOLS}/*/{TOTAL}")).await;
    assert_eq!(reply.headers["warning"], HeaderValue::from_static("299 - \"1 of 2 pools are left out: their value is not known\""));
    assert_eq!(values(&bench, &format!("{POOLS}/*/{TOTAL}")).await, "InferencePool/b 8");
    assert_eq!(
        values(&bench, &format!("{POOLS}/a/{TOTAL}")).await,
        format!("503 inference_pool_total_queue_size of pool default/a is not known: {cause}")
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_metrics_say_what_there_is() {
    let bench = pods();
    let end = "list all with kubectl get --raw /apis/custom.metrics.k8s.io/v1beta2";
    for (path, expected) in [
        (
            "pods/*/inference_pod_queue".to_owned(),
            "the server could not find the metric inference_pod_queue for pods, near it are inference_pod_queue_size",
        ),
        (
            format!("pods/a-0/{TOTAL}"),
            "the server could not find the metric inference_pool_total_queue_size for pods a-0, it is one of \
             inferencepools.inference.networking.k8s.io",
        ),
        (
            format!("{POOLS}/a/{QUEUE}"),
            "the server could not find the metric inference_pod_queue_size for inferencepools.inference.networking.k8s.io a, it is one of \
             pods",
        ),
        ("metrics/foo".to_owned(), "the server could not find the metric foo for namespaces default"),
    ] {
        let text = values(&bench, &path).await;
        assert!(text.starts_with(&format!("404 {expected}")) && text.ends_with(end), "{path}: {text}");
    }
    let page = bench.page();
    assert!(page.contains(r#"{resource="namespaces",metric="unknown",code="404"} 1"#), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_selector_is_the_callers_mistake() {
    let bench = pods();
    for (path, expected) in [
        (
            format!("pods/*/{QUEUE}?metricLabelSelector=a+b"),
            "400 unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (format!("pods/*/{QUEUE}?labelSelector=a%3Db%2C"), "400 found '', expected: identifier after ','"),
        (format!("{POOLS}/*/{TOTAL}?labelSelector=%3Db"), "400 found '=', expected: !, identifier, or 'end of string'"),
        (
            format!("{POOLS}/a/{TOTAL}?metricLabelSelector=%21metric.labels.name"),
            "400 Label selector with operator DoesNotExist is not allowed: leave !metric.labels.name out",
        ),
        (format!("{POOLS}/a/{TOTAL}?metricLabelSelector=name%3E1"), "400 \"gt\" isn't supported in label selectors: name>1"),
        (
            format!("{POOLS}/a/{TOTAL}?fieldSelector=metadata.name%3Db"),
            "400 fieldSelector metadata.name doesn't match requested name",
        ),
        (
            format!("{POOLS}/a/{TOTAL}?fieldSelector=status.phase%3Da"),
            "400 fieldSelector metadata.name doesn't match requested name",
        ),
        (
            format!("{POOLS}/a/{TOTAL}?fieldSelector=metadata.name%21%3Da"),
            "400 fieldSelector metadata.name doesn't match requested name",
        ),
        (format!("{POOLS}/a/{TOTAL}?fieldSelector=metadata.name%3Da"), "InferencePool/a 6"),
        (format!("{POOLS}/a/{TOTAL}?fieldSelector=metadata.name%3D%3Da"), "InferencePool/a 6"),
        (format!("{POOLS}/a/{TOTAL}?fieldSelector="), "InferencePool/a 6"),
    ] {
        assert_eq!(values(&bench, &path).await, expected, "{path}");
    }
    let label = values(&bench, &format!("{POOLS}/a/{TOTAL}?metricLabelSelector=engine%3Dx")).await;
    assert!(label.starts_with("400 Metric label: \"engine\" is not allowed: the allowed ones are name, pool, "), "{label}");
}

#[tokio::test(start_paused = true)]
async fn only_reading_of_objects_is_possible() {
    let bench = pods();
    let details =
        "\"details\":{\"group\":\"custom.metrics.k8s.io\",\"kind\":\"pods/inference_pod_queue_size.custom.metrics.k8s.io\"},";
    for (verb, query) in [("POST", ""), ("DELETE", ""), ("GET", "?watch=true")] {
        let reply = bench.send(verb, &format!("{CUSTOM}/pods/*/{QUEUE}{query}"), &[]).await;
        let verb = if verb == "GET" { "watch" } else { verb };
        let message =
            format!("{verb} is not supported on resources of kind \"pods/inference_pod_queue_size.custom.metrics.k8s.io\"");
        assert_failure_about(&reply, 405, "MethodNotAllowed", &message, details);
    }
    let head = bench.send("HEAD", &format!("{CUSTOM}/pods/*/{QUEUE}"), &[]).await;
    assert_eq!((head.code, &*head.body), (StatusCode::OK, ""));
}
