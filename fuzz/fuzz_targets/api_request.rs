//! A request to the metrics APIs: whatever path, query and Accept header, no panic, and an answer that a client of Kubernetes can
//! read: a value list, a document, or a `Status` with the code of the answer.

#![no_main]

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode, Uri, header};
use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tower::ServiceExt;
use weir_adapter::{AdapterConfig, router};
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, PoolId, PoolSpec, datastore};

/// More than any answer about one pool of one endpoint.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// The API over a pool `default/p` with one endpoint that was read once.
static API: LazyLock<Router> = LazyLock::new(|| {
    let (datastore, mut topology) = datastore();
    let endpoints = vec![EndpointSpec::standalone("10.0.0.1:8000".parse().expect("an address"))];
    let pool = PoolSpec { endpoints, ..PoolSpec::empty(PoolId::new("default", "p")) };
    let now = Instant::now();
    let page = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.5\n";
    let clock = PageClock { asked_at: now, wall_ms: 0, stale_after_ms: 5_000 };
    for mut writer in topology.replace_all(vec![pool], now).added {
        let load = PageReader::new(None, &[]).read(page, Format::Text, clock, &mut PageMemory::default());
        writer.succeeded(load.expect("a good page"), std::time::Duration::from_secs(1));
    }
    // One clock that stands still: the page stays fresh.
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    NOW.get_or_init(|| now);
    let mut config = AdapterConfig { allow_cross_namespace: true, ..AdapterConfig::default() };
    config.clock.now_instant = || *NOW.get_or_init(Instant::now);
    router(datastore, config, &mut Registry::default())
});

// The path and query on the first line, the Accept header on the second.
fuzz_target!(|text: &str| {
    let (target, accept) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(uri) = Uri::try_from(target) else { return };
    let Ok(request) = Request::get(uri).header(header::ACCEPT, accept).body(Body::empty()) else { return };
    RUNTIME.block_on(async {
        let response = match API.clone().oneshot(request).await {
            Ok(response) => response,
            Err(error) => match error {},
        };
        let code = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = to_bytes(response.into_body(), LONGEST_ANSWER).await.expect("a bounded answer");
        assert!(code != StatusCode::INTERNAL_SERVER_ERROR, "{text:?}");
        if !content_type.starts_with("application/json") || body.is_empty() {
            return;
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        if !code.is_success() && !code.is_redirection() {
            assert_eq!((&answer["kind"], &answer["code"]), (&"Status".into(), &code.as_u16().into()), "{text:?}");
        } else if let Some(items) = answer["items"].as_array().filter(|_| answer["kind"] == "ExternalMetricValueList") {
            for item in items {
                let value = item["value"].as_str().and_then(|value| value.parse::<weir_adapter::Quantity>().ok());
                assert!(value.is_some_and(|value| value.milli() >= 0), "{text:?}: {item}");
            }
        }
    });
});
