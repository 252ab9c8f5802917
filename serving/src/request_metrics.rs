//! What every server counts of its requests and connections. Names dashboards know from Kubernetes' API servers
//! where there is one; the rest begins with `weir_serving_`.

use std::{
    borrow::Cow,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime},
};

use http::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::review_metrics::ReviewMetrics;

/// Upstream's bounds, with two finer ones below for answers from memory. Seconds.
const DURATION_BOUNDS: [f64; 25] = [
    0.001, 0.0025, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];

/// How a request is counted. A handler that serves resources puts this into its response's extensions; otherwise
/// the verb is the method and the subresource the matched route, as upstream counts non-resource paths.
///
/// Values must come from configuration or code, never from the request's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLabels {
    /// `LIST`, `GET`, ….
    pub verb: &'static str,
    /// API group, `external.metrics.k8s.io`.
    pub group: &'static str,
    /// API version, `v1beta1`.
    pub version: &'static str,
    /// The resource; for metrics APIs the metric's configured name.
    pub resource: Cow<'static, str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    component: &'static str,
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: Cow<'static, str>,
    subresource: Cow<'static, str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TotalLabels {
    component: &'static str,
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: Cow<'static, str>,
    subresource: Cow<'static, str>,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    component: &'static str,
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    component: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    component: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReloadLabels {
    component: &'static str,
    subject: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AuthorityLabels {
    authority: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ComponentLabels {
    component: &'static str,
}

/// The families. One registration serves all servers of a process: each is a `component`.
#[derive(Clone, Debug)]
pub struct ServingMetrics {
    requests: Family<TotalLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    /// A gauge that only grows: upstream's counter has no `_total`, which the encoder would add.
    authentications: Family<ResultLabels, Gauge<u64, AtomicU64>>,
    panics: Family<ComponentLabels, Counter>,
    open_connections: Family<ComponentLabels, Gauge>,
    connections: Family<ResultLabels, Counter>,
    closed_connections: Family<ReasonLabels, Counter>,
    handshake_failures: Family<ReasonLabels, Counter>,
    accept_errors: Family<ComponentLabels, Counter>,
    certificate_expiry: Family<ComponentLabels, Gauge<f64, AtomicU64>>,
    authority_expiry: Family<AuthorityLabels, Gauge<f64, AtomicU64>>,
    reloads: Family<ReloadLabels, Counter>,
    reviews: ReviewMetrics,
}

impl Default for ServingMetrics {
    /// Counted, shown nowhere.
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BOUNDS)),
            in_flight: Family::default(),
            authentications: Family::default(),
            panics: Family::default(),
            open_connections: Family::default(),
            connections: Family::default(),
            closed_connections: Family::default(),
            handshake_failures: Family::default(),
            accept_errors: Family::default(),
            certificate_expiry: Family::default(),
            authority_expiry: Family::default(),
            reloads: Family::default(),
            reviews: ReviewMetrics::default(),
        }
    }
}

impl ServingMetrics {
    /// Registers the families; call it once per registry and clone the result for further servers.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "apiserver_request",
            "Requests answered, by verb, API group, version, resource and code; 499 when the client went away first",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from the request's head to the answer's head",
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being answered, health checks not counted",
            metrics.in_flight.clone(),
        );
        registry.register(
            "authentication_attempts",
            "Requests judged, by result: success, failure (no proof), error (a proof that does not hold)",
            metrics.authentications.clone(),
        );
        registry.register(
            "weir_serving_panics",
            "Requests answered with 500 because their handler panicked",
            metrics.panics.clone(),
        );
        registry.register(
            "weir_serving_open_connections",
            "Connections open, handshakes included",
            metrics.open_connections.clone(),
        );
        registry.register(
            "weir_serving_connections",
            "Connections that arrived, by result: accepted, or refused above the limit",
            metrics.connections.clone(),
        );
        registry.register(
            "weir_serving_closed_connections",
            "Connections that ended, by reason",
            metrics.closed_connections.clone(),
        );
        registry.register(
            "weir_serving_tls_handshake_failures",
            "TLS handshakes that failed, by reason",
            metrics.handshake_failures.clone(),
        );
        registry.register(
            "weir_serving_accept_errors",
            "Failures to accept a connection for want of resources, each followed by a pause",
            metrics.accept_errors.clone(),
        );
        registry.register(
            "weir_serving_certificate_expiration_timestamp_seconds",
            "Unix time at which the certificate in use ends",
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "weir_serving_authority_expiration_timestamp_seconds",
            "Unix time at which the last certificate of an authority ends: client_ca, front_proxy_ca, serving_ca",
            metrics.authority_expiry.clone(),
        );
        metrics.reviews.register(registry);
        registry.register(
            "weir_serving_reloads",
            "New contents of watched files and objects, by subject and result: loaded, or refused and the old kept",
            metrics.reloads.clone(),
        );
        metrics
    }

    pub(crate) fn count_request(&self, component: &'static str, labels: &CountedAs, code: StatusCode, took: Duration) {
        let CountedAs { labels: RequestLabels { verb, group, version, resource }, subresource } = labels.clone();
        self.requests
            .get_or_create(&TotalLabels {
                component,
                verb,
                group,
                version,
                resource: resource.clone(),
                subresource: subresource.clone(),
                code: code.as_u16(),
            })
            .inc();
        self.durations
            .get_or_create(&DurationLabels { component, verb, group, version, resource, subresource })
            .observe(took.as_secs_f64());
    }

    /// Counted in flight until the guard is dropped.
    pub(crate) fn enter(&self, component: &'static str, method: &Method) -> impl Drop + use<> {
        let reads = method.is_safe();
        let request_kind = if reads { "readOnly" } else { "mutating" };
        Raised::new(self.in_flight.get_or_create_owned(&KindLabels { component, request_kind }))
    }

    pub(crate) fn count_authentication(&self, component: &'static str, result: &'static str) {
        let labels = ResultLabels { component, result };
        self.authentications.get_or_create(&labels).inc();
    }

    pub(crate) fn count_panic(&self, component: &'static str) {
        self.panics.get_or_create(&ComponentLabels { component }).inc();
    }

    /// Counted open until the guard is dropped.
    pub(crate) fn connection_accepted(&self, component: &'static str) -> impl Drop + use<> {
        self.count_connection(component, "accepted");
        let labels = ComponentLabels { component };
        Raised::new(self.open_connections.get_or_create_owned(&labels))
    }

    pub(crate) fn connection_refused(&self, component: &'static str) {
        self.count_connection(component, "refused");
    }

    fn count_connection(&self, component: &'static str, result: &'static str) {
        let labels = ResultLabels { component, result };
        self.connections.get_or_create(&labels).inc();
    }

    pub(crate) fn connection_closed(&self, component: &'static str, reason: &'static str) {
        let labels = ReasonLabels { component, reason };
        self.closed_connections.get_or_create(&labels).inc();
    }

    pub(crate) fn handshake_failed(&self, component: &'static str, reason: &'static str) {
        let labels = ReasonLabels { component, reason };
        self.handshake_failures.get_or_create(&labels).inc();
    }

    pub(crate) fn accept_failed(&self, component: &'static str) {
        self.accept_errors.get_or_create(&ComponentLabels { component }).inc();
    }

    pub(crate) fn certificate_ends(&self, component: &'static str, not_after: SystemTime) {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.certificate_expiry.get_or_create(&ComponentLabels { component }).set(seconds.as_secs_f64());
    }

    pub(crate) fn authority_ends(&self, authority: &'static str, end: SystemTime) {
        let seconds = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.authority_expiry.get_or_create(&AuthorityLabels { authority }).set(seconds.as_secs_f64());
    }

    pub(crate) fn reviews(&self) -> ReviewMetrics {
        self.reviews.clone()
    }

    pub(crate) fn reloaded(&self, component: &'static str, subject: &'static str, result: &'static str) {
        let labels = ReloadLabels { component, subject, result };
        self.reloads.get_or_create(&labels).inc();
    }
}

/// A gauge raised by one while this exists.
struct Raised(Gauge);

impl Raised {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The labels of one request, all bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedAs {
    labels: RequestLabels,
    subresource: Cow<'static, str>,
}

impl CountedAs {
    /// Until a handler says better: by method and route.
    pub(crate) fn route(method: &Method, matched: Option<&str>) -> Self {
        Self {
            labels: RequestLabels { verb: verb(method), group: "", version: "", resource: Cow::Borrowed("") },
            subresource: matched.map_or(Cow::Borrowed("unmatched"), |path| path.to_owned().into()),
        }
    }

    pub(crate) fn resource(labels: RequestLabels) -> Self {
        Self { labels, subresource: Cow::Borrowed("") }
    }
}

/// Clients can invent methods.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_names_dashboards_know() {
        let mut registry = Registry::default();
        let metrics = ServingMetrics::register(&mut registry);
        let method = Method::from_bytes(b"INVENTED").unwrap();
        let counted = CountedAs::route(&method, Some("/metrics"));
        metrics.count_request("adapter", &counted, StatusCode::OK, Duration::from_millis(2));
        let resource = CountedAs::resource(RequestLabels {
            verb: "LIST",
            group: "external.metrics.k8s.io",
            version: "v1beta1",
            resource: "held".into(),
        });
        metrics.count_request("adapter", &resource, StatusCode::OK, Duration::ZERO);
        metrics.count_authentication("adapter", "failure");
        metrics.certificate_ends("adapter", SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        metrics.reloaded("adapter", "tokens", "refused");
        drop(metrics.enter("adapter", &Method::GET));
        let open = metrics.connection_accepted("adapter");
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        drop(open);
        for line in [
            r#"apiserver_request_total{component="adapter",verb="OTHER",group="",version="",resource="",subresource="/metrics",code="200"} 1"#,
            r#"apiserver_request_total{component="adapter",verb="LIST",group="external.metrics.k8s.io",version="v1beta1",resource="held",subresource="",code="200"} 1"#,
            r#"apiserver_request_duration_seconds_bucket{le="0.0025",component="adapter",verb="OTHER",group="",version="",resource="",subresource="/metrics"} 1"#,
            r#"apiserver_current_inflight_requests{component="adapter",request_kind="readOnly"} 0"#,
            r#"authentication_attempts{component="adapter",result="failure"} 1"#,
            r#"weir_serving_certificate_expiration_timestamp_seconds{component="adapter"} 7.0"#,
            r#"weir_serving_reloads_total{component="adapter",subject="tokens",result="refused"} 1"#,
            r#"weir_serving_open_connections{component="adapter"} 1"#,
            r#"weir_serving_connections_total{component="adapter",result="accepted"} 1"#,
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }
}
