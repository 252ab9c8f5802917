//! What is known, and how it is written.

use tokio::time::advance;
use weir_datastore::catalog;

use super::*;
use crate::ResourceLabels;

const KV: &str = "inference_pool_average_kv_cache_utilization";
const QUEUE: &str = "inference_pool_average_queue_size";
const TOTAL_QUEUE: &str = "inference_pool_total_queue_size";

fn llama() -> Bench {
    let mut bench = Bench::new();
    bench.pool("default/vllm-llama3", &["10.0.0.1:8000", "10.0.0.2:8000"]).shows("10.0.0.1:8000", 3, 2, 0.5).shows(
        "10.0.0.2:8000",
        1,
        0,
        0.25,
    );
    bench
}

/// Three pools in `default` with queues of 1, 2 and 3, one in `other` with 4.
fn four(config: AdapterConfig) -> Bench {
    let mut bench = Bench::with(config);
    for (id, address, waiting) in [
        ("default/a", "10.0.0.1:80", 1),
        ("default/b", "10.0.0.2:80", 2),
        ("default/7", "10.0.0.3:80", 3),
        ("other/a", "10.0.0.4:80", 4),
    ] {
        bench.pool(id, &[address]).shows(address, 0, waiting, 0.0);
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn a_mean_is_one_item_as_old_as_its_oldest_page() {
    let mut bench = llama();
    advance(Duration::from_millis(1500)).await;
    bench.shows("10.0.0.2:8000", 1, 0, 0.25);
    let reply = bench.metric(KV).await;
    let item = r#"{"metricName":"inference_pool_average_kv_cache_utilization","metricLabels":{"name":"vllm-llama3","namespace":"default"},"timestamp":"2026-01-01T00:00:59Z","value":"375m"}"#;
    assert_eq!(reply.body, list(item));
    assert_eq!(reply.code, StatusCode::OK);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(!reply.headers.contains_key("warning"));
    let page = bench.page();
    for line in [
        r#"weir_external_metric_requests_total{metric="inference_pool_average_kv_cache_utilization",code="200"} 1"#,
        r#"metrics_apiserver_metric_freshness_seconds_sum{group="external.metrics.k8s.io"} 1.5"#,
    ] {
        assert!(page.contains(line), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_example_of_gke_is_answered_in_its_own_words() {
    let path = "prometheus.googleapis.com%7Cinference_pool_average_kv_cache_utilization%7Cgauge?labelSelector=metric.labels.name%3Dvllm-llama3";
    let mut bench = llama();
    bench.pool("default/another", &[]);
    let reply = bench.metric(path).await;
    let item = r#"{"metricName":"prometheus.googleapis.com|inference_pool_average_kv_cache_utilization|gauge","metricLabels":{"metric.labels.name":"vllm-llama3","name":"vllm-llama3","namespace":"default","resource.labels.namespace":"default"},"timestamp":"2026-01-01T00:01:00Z","value":"375m"}"#;
    assert_eq!(reply.body, list(item));
    // A bare `|` is what curl sends.
    assert_eq!(bench.metric(&path.replace("%7C", "|")).await.body, list(item));
}

#[tokio::test(start_paused = true)]
async fn each_family_has_its_value() {
    let mut bench = llama();
    bench.holds(4);
    advance(Duration::from_millis(1500)).await;
    for (metric, expected) in [
        (KV, "375m"),
        (QUEUE, "1"),
        ("inference_pool_average_running_requests", "2"),
        ("inference_pool_max_kv_cache_utilization", "500m"),
        ("inference_pool_max_queue_size", "2"),
        ("inference_pool_max_running_requests", "3"),
        (TOTAL_QUEUE, "6"),
        ("inference_pool_total_running_requests", "4"),
        ("inference_pool_total_inflight_requests", "10"),
        ("inference_pool_total_kv_cache_utilization", "750m"),
        ("inference_pool_saturation", "469m"),
        ("inference_pool_held_requests", "4"),
        ("inference_pool_ready_pods", "2"),
        ("inference_pool_idle_seconds", "1500m"),
        ("inference_pool_metrics_age_seconds", "1500m"),
    ] {
        assert_eq!(bench.values(metric, "").await, format!("vllm-llama3 {expected}"), "{metric}");
    }
    let listed = bench.send("GET", API, &[]).await.body;
    assert!(catalog::FAMILIES.iter().all(|family| listed.contains(&format!("{{\"name\":\"{}\",", family.name))), "{listed}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_pods_is_exactly_zero_or_what_is_held() {
    let mut bench = Bench::new();
    bench.pool("default/empty", &[]);
    let item = |metric: &str, value: u32| {
        list(&format!(
            r#"{{"metricName":"{metric}","metricLabels":{{"name":"empty","namespace":"default"}},"timestamp":"2026-01-01T00:01:00Z","value":"{value}"}}"#
        ))
    };
    for metric in [KV, QUEUE, TOTAL_QUEUE, "inference_pool_saturation"] {
        assert_eq!(bench.metric(metric).await.body, item(metric, 0));
    }
    bench.holds(7);
    assert_eq!(bench.metric(TOTAL_QUEUE).await.body, item(TOTAL_QUEUE, 7));
    assert_eq!(bench.metric(QUEUE).await.body, item(QUEUE, 0));
    assert_eq!(bench.metric("inference_pool_saturation").await.body, item("inference_pool_saturation", 1));
}

#[tokio::test(start_paused = true)]
async fn the_least_load_is_not_zero() {
    let mut bench = Bench::new();
    bench.pool("default/a", &["10.0.0.1:80"]).shows("10.0.0.1:80", 0, 0, 0.000_01);
    assert_eq!(bench.values(KV, "").await, "a 1m");
}

#[tokio::test(start_paused = true)]
async fn totals_and_states_are_one_item_per_pool() {
    let bench = four(AdapterConfig::default());
    assert_eq!(bench.values(TOTAL_QUEUE, "").await, "7 3, a 1, b 2");
    assert_eq!(bench.values("inference_pool_ready_pods", "").await, "7 1, a 1, b 1");
    assert_eq!(bench.values("inference_pool_ready_pods", "name=b").await, "b 1");
}

#[tokio::test(start_paused = true)]
async fn every_operator_of_the_grammar_chooses_pools() {
    let bench = four(AdapterConfig::default());
    for (selector, expected) in [
        ("name=a", "a 1"),
        ("name==a", "a 1"),
        ("pool!=a", "7 3, b 2"),
        ("inference_pool in (a, b)", "a 1, b 2"),
        ("metric.labels.name notin (a,b)", "7 3"),
        ("name", "7 3, a 1, b 2"),
        ("name>6", "7 3"),
        ("name < 8", "7 3"),
        ("name,resource.labels.cluster,name!=7", "a 1, b 2"),
        ("namespace=default,name=b", "b 2"),
        ("resource.labels.namespace=default,resource.labels.cluster=c,resource.type=prometheus_target,metric.labels.name=b", "b 2"),
    ] {
        assert_eq!(bench.values(TOTAL_QUEUE, selector).await, expected, "{selector}");
    }
    assert!(bench.values(TOTAL_QUEUE, "!name").await.starts_with("404 "));
    assert_eq!(bench.values(QUEUE, "name=b").await, "b 2");
}

#[tokio::test(start_paused = true)]
async fn another_namespace_is_reached_where_that_is_allowed() {
    let bench = four(AdapterConfig { allow_cross_namespace: true, ..AdapterConfig::default() });
    assert_eq!(bench.values(TOTAL_QUEUE, "").await, "7 3, a 1, b 2");
    assert_eq!(bench.values(QUEUE, "namespace=other").await, "a 4");
    assert_eq!(bench.values(TOTAL_QUEUE, "namespace in (default,other),name=a").await, "a 1, a 4");
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=resource.labels.namespace%3Dother")).await;
    let item = r#"{"metricName":"inference_pool_average_queue_size","metricLabels":{"metric.labels.name":"a","name":"a","namespace":"other","resource.labels.namespace":"other"},"timestamp":"2026-01-01T00:01:00Z","value":"4"}"#;
    assert_eq!(reply.body, list(item));
}

#[tokio::test(start_paused = true)]
async fn a_reducer_makes_one_item_of_several_pools() {
    let bench = four(AdapterConfig::default());
    for (reducer, expected) in [
        ("REDUCE_NONE", "7 3, a 1, b 2"),
        ("REDUCE_MEAN", "- 2"),
        ("REDUCE_MIN", "- 1"),
        ("REDUCE_MAX", "- 3"),
        ("REDUCE_SUM", "- 6"),
        ("REDUCE_COUNT", "- 3"),
    ] {
        assert_eq!(bench.values(TOTAL_QUEUE, &format!("reducer={reducer}")).await, expected);
    }
    // Asked for as such, a mean of several pools has one value.
    assert_eq!(bench.values(QUEUE, "reducer=REDUCE_MAX").await, "- 3");
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=name%21%3D7,reducer%3DREDUCE_MAX,namespace")).await;
    let item = r#"{"metricName":"inference_pool_average_queue_size","metricLabels":{"namespace":"default"},"timestamp":"2026-01-01T00:01:00Z","value":"2"}"#;
    assert_eq!(reply.body, list(item));
    assert_eq!(bench.values(QUEUE, "name=a,reducer=REDUCE_SUM").await, "a 1");
    assert!(bench.page().contains(r#"_freshness_seconds_count{group="external.metrics.k8s.io"} 11"#), "{}", bench.page());
}

#[tokio::test(start_paused = true)]
async fn pod_labels_choose_endpoints() {
    let mut bench = llama();
    bench.label("10.0.0.1:8000", "weir.internal/gpu", "h100").label("10.0.0.2:8000", "slots", "8");
    for (selector, expected) in [
        ("pod.weir.internal/gpu=h100", "2"),
        ("pod.weir.internal/gpu in (h100,b200)", "2"),
        ("pod.weir.internal/gpu", "2"),
        ("pod.weir.internal/gpu!=h100", "0"),
        ("pod.weir.internal/gpu notin (h100)", "0"),
        ("!pod.weir.internal/gpu", "0"),
        ("pod.slots>7", "0"),
        ("pod.slots<7", "0"),
        ("pod.weir.internal/gpu=h100,pod.slots", "0"),
        ("name=vllm-llama3", "1"),
    ] {
        assert_eq!(bench.values(QUEUE, selector).await, format!("vllm-llama3 {expected}"), "{selector}");
    }
    assert_eq!(bench.values("inference_pool_ready_pods", "pod.slots>7").await, "vllm-llama3 1");
    assert_eq!(bench.values("inference_pool_ready_pods", "pod.slots<7").await, "vllm-llama3 0");
    let reply = bench.metric(&format!("{QUEUE}?labelSelector=pod.weir.internal/gpu%3Dh100")).await;
    let item = r#"{"metricName":"inference_pool_average_queue_size","metricLabels":{"name":"vllm-llama3","namespace":"default","pod.weir.internal/gpu":"h100"},"timestamp":"2026-01-01T00:01:00Z","value":"2"}"#;
    assert_eq!(reply.body, list(item));
}

#[tokio::test(start_paused = true)]
async fn constants_are_told_as_configured() {
    let resource = ResourceLabels { cluster: Some("prod".into()), ..ResourceLabels::default() };
    let mut bench = Bench::with(AdapterConfig { resource, ..AdapterConfig::default() });
    bench.pool("default/a", &[]);
    let reply =
        bench.metric(&format!("{QUEUE}?labelSelector=resource.labels.cluster%21%3Dtest,resource.labels.location%3Deu")).await;
    let item = r#"{"metricName":"inference_pool_average_queue_size","metricLabels":{"metric.labels.name":"a","name":"a","namespace":"default","resource.labels.cluster":"prod","resource.labels.location":"eu","resource.labels.namespace":"default"},"timestamp":"2026-01-01T00:01:00Z","value":"0"}"#;
    assert_eq!(reply.body, list(item));
}

#[tokio::test(start_paused = true)]
async fn a_small_change_of_topology_is_seen_at_once() {
    let mut bench = llama();
    assert_eq!(bench.values("inference_pool_ready_pods", "").await, "vllm-llama3 2");
    bench.change(|pool| pool.endpoints.truncate(1));
    assert_eq!(bench.values("inference_pool_ready_pods", "").await, "vllm-llama3 1");
    assert_eq!(bench.values(QUEUE, "").await, "vllm-llama3 2");
}

#[tokio::test(start_paused = true)]
async fn a_quantile_is_of_all_models_or_of_the_one_that_is_asked_for() {
    use weir_datastore::latency::{Latency, Meter};
    const TTFT: &str = "inference_pool_ttft_p90_seconds";
    let mut bench = Bench::new();
    bench.pool("default/a", &["10.0.0.1:80"]).shows("10.0.0.1:80", 1, 0, 0.5).holds(0);
    assert!(bench.values(TTFT, "name=a").await.starts_with("503 \"inference_pool_ttft_p90_seconds of pool default/a is not known"));
    let mut meter = Meter::new(Instant::now());
    (0..50).for_each(|_| meter.observe(&"org/large".into(), Latency::TimeToFirstToken, 4.0));
    (0..50).for_each(|_| meter.observe(&"small".into(), Latency::TimeToFirstToken, 0.5));
    bench.pickers[0].measured(&"picker-0".into(), meter.close(Instant::now()));
    let millis = async |selector: &str| {
        let values = bench.values(TTFT, selector).await;
        let value = values.strip_prefix("a ").unwrap_or_else(|| panic!("{values}"));
        match value.strip_suffix('m') {
            Some(millis) => millis.parse::<f64>().unwrap(),
            None => value.parse::<f64>().unwrap() * 1000.0,
        }
    };
    for (selector, expected) in [
        ("name=a", 4000.0),
        ("name=a,model=small", 500.0),
        ("name=a,model=org_large", 4000.0),
        ("metric.labels.model=small", 500.0),
    ] {
        let found = millis(selector).await;
        assert!((found / expected - 1.0).abs() < 0.04, "{selector}: {found}");
    }
    let reply = bench.metric(&format!("{TTFT}?labelSelector=model%3Dsmall")).await;
    assert!(
        reply.body.contains("\"metricLabels\":{\"model\":\"small\",\"name\":\"a\",\"namespace\":\"default\"}"),
        "{}",
        reply.body
    );
    for (metric, selector, expected) in [
        (
            TTFT,
            "model=other",
            "503 \"inference_pool_ttft_p90_seconds of pool default/a is not known: only 0 requests of the last minute",
        ),
        (TTFT, "model in (a,b)", "400 \"model in (a,b): a model is chosen once"),
        (TTFT, "model=a,model=b", "400 \"model=b: a model is chosen once"),
        (QUEUE, "model=small", "400 \"inference_pool_average_queue_size is not measured by model"),
    ] {
        let found = bench.values(metric, selector).await;
        assert!(found.starts_with(expected), "{found}");
    }
    let custom = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/inferencepools.inference.networking.k8s.io/a";
    let reply = bench.send("GET", &format!("{custom}/{TTFT}?metricLabelSelector=model%3Dsmall"), &[]).await;
    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
    assert!(body["items"][0]["value"].as_str().is_some_and(|value| value.ends_with('m')), "{}", reply.body);
}
