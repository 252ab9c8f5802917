use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, FailureKind, PickerLoad, PodStart, PoolSpec, StartTimes, StartingPod, datastore};

use super::*;

/// A pool of two endpoints, one of them unreachable, with a picker; and an empty pool.
async fn exporter() -> Router {
    let (store, mut topology) = datastore();
    let start = PodStart {
        times: StartTimes { created: Some(0), scheduled: Some(2), initialized: None, started: Some(40), ready: Some(90) },
        began: Instant::now(),
        seen_from_creation: true,
        first: true,
        unready_since: None,
        obstacle: None,
    };
    tokio::time::advance(Duration::from_secs(90)).await;
    let now = Instant::now();
    let stuck =
        PodStart { unready_since: Some(now), obstacle: Some("container c waits with ErrImagePull".into()), ..start.clone() };
    let mut spec = PoolSpec::empty(PoolId::new("default", "llama"));
    for (name, start) in [("started", start), ("stuck", stuck)] {
        spec.starts.push(StartingPod { pod: name.into(), uid: name.into(), pending: true, start });
    }
    for address in ["10.0.0.1:8000", "10.0.0.2:8000"] {
        spec.endpoints.push(EndpointSpec::standalone(address.parse().unwrap()));
    }
    // A pod name that would break the page if it were not escaped.
    spec.endpoints[0].pod = "a\"b\\c\nd".into();
    spec.pickers = Some(vec!["picker".into()]);
    let mut change = topology.replace_all(vec![spec, PoolSpec::empty(PoolId::new("other", "empty"))], now);
    let page =
        "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\nvllm:prompt_tokens_total x\n";
    let clock = PageClock { asked_at: now, wall_ms: 0, stale_after_ms: 2_000 };
    let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
    change.added[0].succeeded(load, Duration::from_secs(1));
    change.added[1].failed(FailureKind::Connect, "http://10.0.0.2:8000/metrics: connection refused", now);
    change.added_pickers[0].succeeded(
        PickerLoad { read_at: now, held: Some(4), in_flight: None, arrivals: 9, prompt_tokens: None },
        Duration::from_secs(1),
    );
    topology.required_writer().write(&PoolId::new("default", "llama"), Ok(2), Duration::ZERO, now);
    tokio::time::advance(Duration::from_millis(500)).await;
    let mut registry = Registry::default();
    let streams = register(&mut registry, store.clone(), 100);
    router(store, Arc::new(registry), streams)
}

async fn get(router: Router, path: &str, accept: &str) -> (StatusCode, String, String) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let (status, content_type) = (response.status(), response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, content_type, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_page_has_every_family_and_nothing_that_is_not_known() {
    let (status, content_type, page) = get(exporter().await, "/metrics", "*/*").await;
    assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
    let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
    insta::assert_snapshot!(samples.join("\n"));
    for family in weir_datastore::catalog::FAMILIES {
        assert!(
            page.contains(&format!("# HELP {} {}\n# TYPE {} gauge\n", family.name, family.help, family.name)),
            "{}",
            family.name
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_is_what_our_own_scanner_reads_in_both_formats() {
    use weir_datastore::page::{Effort, ScanLimits, Wanted, scan};
    let wanted = Wanted::new(["inference_pool_total_inflight_requests", "inference_pool_per_pod_queue_size"]);
    for (accept, format) in [("text/plain", Format::Text), ("application/openmetrics-text", Format::OpenMetrics)] {
        let (_, _, page) = get(exporter().await, "/metrics", accept).await;
        let mut samples = Vec::new();
        let report = scan(page.as_bytes(), format, &wanted, Effort::EveryLine, ScanLimits::default(), &mut samples).unwrap();
        assert_eq!(report.dropped, 0, "{page}");
        assert_eq!(samples[0].value, 12.0, "(3 + 1) x 2 + 4");
        assert_eq!(samples.last().unwrap().labels.get("model_server_pod").as_deref(), Some("a\"b\\c\nd-rank-0"));
    }
}

#[tokio::test(start_paused = true)]
async fn json_says_what_the_page_leaves_out() {
    let (status, _, body) = get(exporter().await, "/api/v1/pools/default/llama", "*/*").await;
    assert_eq!(status, StatusCode::OK);
    let pool: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(pool["coverage"]["fresh"], 1);
    assert_eq!(
        pool["metrics"]["inference_pool_average_queue_size"],
        serde_json::json!({"value": 1.0, "unit": "requests", "ageSeconds": 0.5})
    );
    let idle = pool["metrics"]["inference_pool_idle_seconds"]["unknown"].as_str().unwrap();
    assert!(idle.ends_with("connection refused"), "{idle}");
    assert_eq!(pool["endpoints"][0]["unused"]["droppedLines"], 1);
    assert_eq!(pool["endpoints"][1]["failure"]["attempts"], 1);
    assert_eq!(pool["endpoints"][1]["state"], "unreachable");

    let (status, _, body) = get(exporter().await, "/api/v1/pools", "*/*").await;
    let pools: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, pools["pools"].as_array().unwrap().len()), (StatusCode::OK, 2));

    let (status, _, body) = get(exporter().await, "/api/v1/pools/default/nope", "*/*").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body, r#"{"error":"no pool default/nope; known here: default/llama, other/empty"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_quantile_is_of_all_models_and_of_each() {
    use weir_datastore::latency::{Latency, Meter};
    let (store, mut topology) = datastore();
    let spec = PoolSpec { pickers: Some(vec!["picker".into()]), ..PoolSpec::empty(PoolId::new("default", "llama")) };
    let change = topology.replace_all(vec![spec], Instant::now());
    let mut meter = Meter::new(Instant::now());
    (0..20).for_each(|_| meter.observe(&"org/a".into(), Latency::TimeToFirstToken, 0.5));
    (0..3).for_each(|_| meter.observe(&"b".into(), Latency::TimeToFirstToken, 9.0));
    change.added_pickers[0].measured(&"picker".into(), meter.close(Instant::now()));
    let mut registry = Registry::default();
    let streams = register(&mut registry, store.clone(), 100);
    let (_, _, page) = get(router(store, Arc::new(registry), streams), "/metrics", "*/*").await;
    let labels: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("inference_pool_ttft_p50_seconds{")?.split_once('}'))
        .map(|(labels, _)| labels)
        .collect();
    assert_eq!(
        labels,
        ["name=\"llama\",namespace=\"default\"", "name=\"llama\",namespace=\"default\",model=\"org/a\""],
        "of 3 requests of b there is no quantile"
    );
}
