//! The API as its clients see it: requests through the router, whole bodies compared.

mod custom;
mod discovery;
mod forms;
mod hostile;
mod refusals;
mod upstream;
mod values;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tower::ServiceExt;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{
    EndpointSpec, EndpointState, EndpointWriter, FailureKind, PickerLoad, PickerWriter, PoolId, PoolSpec, TopologyWriter, datastore,
};

use crate::{AdapterConfig, Clock, router};

/// The resources of the API.
const API: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// How often endpoints and pickers are read here: a page is stale after 3 s.
const INTERVAL: Duration = Duration::from_secs(1);

/// The time of day of every answer: 2026-01-01T00:01:00.5Z.
fn clock() -> Clock {
    Clock { now_instant: Instant::now, now_wall: || jiff::Timestamp::constant(1_767_225_660, 500_000_000) }
}

/// An adapter and the writers of its datastore.
struct Bench {
    router: Router,
    registry: Registry,
    topology: TopologyWriter,
    pools: Vec<PoolSpec>,
    endpoints: Vec<EndpointWriter>,
    pickers: Vec<PickerWriter>,
}

/// What came back.
#[derive(Debug)]
struct Reply {
    code: StatusCode,
    headers: HeaderMap,
    body: String,
    bytes: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        Self::with(AdapterConfig::default())
    }

    fn with(config: AdapterConfig) -> Self {
        let (datastore, topology) = datastore();
        let mut registry = Registry::default();
        let router = router(datastore, AdapterConfig { clock: clock(), ..config }, &mut registry);
        Self { router, registry, topology, pools: Vec::new(), endpoints: Vec::new(), pickers: Vec::new() }
    }

    /// Adds a pool `namespace/name` with ready endpoints at `addresses`.
    fn pool(&mut self, id: &str, addresses: &[&str]) -> &mut Self {
        let (namespace, name) = id.split_once('/').unwrap();
        let endpoint = |address: &&str| EndpointSpec::standalone(address.parse().unwrap());
        let endpoints = addresses.iter().map(endpoint).collect();
        self.pools.push(PoolSpec { endpoints, ..PoolSpec::empty(PoolId::new(namespace, name)) });
        self.publish()
    }

    /// Changes the last pool.
    fn change(&mut self, change: impl FnOnce(&mut PoolSpec)) -> &mut Self {
        change(self.pools.last_mut().unwrap());
        self.publish()
    }

    /// Gives the endpoint at `address` of the last pool a pod label.
    fn label(&mut self, address: &str, key: &str, value: &str) -> &mut Self {
        self.change(|pool| {
            let endpoint = pool.endpoints.iter_mut().find(|endpoint| endpoint.address.as_str() == address).unwrap();
            endpoint.labels = Arc::new(BTreeMap::from([(key.to_owned(), value.to_owned())]));
        })
    }

    fn unready(&mut self) -> &mut Self {
        self.change(|pool| pool.endpoints.iter_mut().for_each(|endpoint| endpoint.state = EndpointState::Unready))
    }

    fn publish(&mut self) -> &mut Self {
        let change = self.topology.replace_all(self.pools.clone(), Instant::now());
        self.endpoints.extend(change.added);
        self.pickers.extend(change.added_pickers);
        self
    }

    /// The server at `address` shows a page, in every pool it is part of.
    fn shows(&mut self, address: &str, running: u32, waiting: u32, kv_cache_utilization: f64) -> &mut Self {
        let page = format!(
            "vllm:num_requests_running{{model_name=\"m\"}} {running}\nvllm:num_requests_waiting{{model_name=\"m\"}} {waiting}\n\
             vllm:kv_cache_usage_perc{{model_name=\"m\"}} {kv_cache_utilization}\n"
        );
        let clock = PageClock { asked_at: Instant::now(), wall_ms: 0, stale_after_ms: 60_000 };
        for writer in self.endpoints.iter_mut().filter(|writer| writer.key().address.as_str() == address) {
            writer.succeeded(
                PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap(),
                INTERVAL,
            );
        }
        self
    }

    fn fails(&mut self, address: &str, message: &str) -> &mut Self {
        for writer in self.endpoints.iter_mut().filter(|writer| writer.key().address.as_str() == address) {
            writer.failed(FailureKind::Connect, message, Instant::now());
        }
        self
    }

    /// The last pool has one picker, and it holds `held` requests.
    fn holds(&mut self, held: u64) -> &mut Self {
        self.change(|pool| pool.pickers = Some(vec!["picker-0".into()]));
        let load = PickerLoad { read_at: Instant::now(), held: Some(held), in_flight: None, arrivals: held, prompt_tokens: None };
        self.pickers.last_mut().unwrap().succeeded(load, INTERVAL);
        self
    }

    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply {
            code: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            bytes: body.to_vec(),
        }
    }

    /// The answer for `metric?query` in namespace `default`.
    async fn metric(&self, metric_and_query: &str) -> Reply {
        self.send("GET", &format!("{API}/namespaces/default/{metric_and_query}"), &[]).await
    }

    /// The values of `metric` for a selector, as `name value`.
    async fn values(&self, metric: &str, selector: &str) -> String {
        let encoded = percent_encoding::utf8_percent_encode(selector, percent_encoding::NON_ALPHANUMERIC);
        let reply = self.metric(&format!("{metric}?labelSelector={encoded}")).await;
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
        let Some(items) = body["items"].as_array() else { return format!("{} {}", reply.code.as_u16(), body["message"]) };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
        let items = items.iter().map(|item| format!("{} {}", text(&item["metricLabels"]["name"]), text(&item["value"])));
        items.collect::<Vec<_>>().join(", ")
    }

    /// The page with the adapter's own metrics.
    fn page(&self) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page
    }
}

/// The body of a list with these items.
fn list(items: &str) -> String {
    format!(
        "{{\"kind\":\"ExternalMetricValueList\",\"apiVersion\":\"external.metrics.k8s.io/v1beta1\",\"metadata\":{{}},\"items\":[{items}]}}\n"
    )
}

/// Whether the reply is this failure, whole: code, reason, message, no details, and nothing that makes a client retry.
fn assert_failure(reply: &Reply, code: u16, reason: &str, message: &str) {
    assert_failure_about(reply, code, reason, message, "");
}

/// The same with `details`.
fn assert_failure_about(reply: &Reply, code: u16, reason: &str, message: &str, details: &str) {
    let message = serde_json::to_string(message).unwrap();
    let expected = format!(
        "{{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{{}},\"status\":\"Failure\",\"message\":{message},\"reason\":\"{reason}\",{details}\"code\":{code}}}\n"
    );
    assert_eq!(reply.body, expected);
    assert_eq!(reply.code.as_u16(), code);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(!reply.headers.contains_key("retry-after"));
}
