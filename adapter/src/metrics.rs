//! What the adapter tells of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use weir_datastore::codes;

/// Counters and histograms of the adapter.
#[derive(Clone, Debug)]
pub(crate) struct AdapterMetrics {
    external_requests: Family<ExternalLabels, Counter>,
    custom_requests: Family<CustomLabels, Counter>,
    troubles: Family<[(&'static str, &'static str); 1], Counter>,
    freshness: Family<FreshnessLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ExternalLabels {
    /// The catalog's name: a caller's would be unbounded.
    metric: &'static str,
    code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CustomLabels {
    /// What the metric describes, as discovery names it.
    resource: &'static str,
    metric: &'static str,
    code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FreshnessLabels {
    group: &'static str,
}

impl AdapterMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            external_requests: Family::default(),
            custom_requests: Family::default(),
            troubles: Family::default(),
            // The buckets of the Go adapters, so that their dashboards work.
            freshness: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 1.364, 20))),
        };
        registry.register(
            "weir_external_metric_requests",
            "Requests for external metrics by metric (`unknown`: none of the catalog) and HTTP status",
            metrics.external_requests.clone(),
        );
        registry.register(
            "weir_custom_metric_requests",
            "Requests for custom metrics by described resource, metric (`unknown`: none of it) and HTTP status",
            metrics.custom_requests.clone(),
        );
        for code in [codes::HPA_METRIC_FAILED, codes::HPA_METRIC_MISSPELT, codes::HPA_SELECTS_NO_POOL] {
            drop(metrics.troubles.get_or_create(&[("code", code)]));
        }
        registry.register(
            "weir_metric_troubles",
            "Requests for metrics that an autoscaler got no value for, by the code in docs/troubleshooting.md",
            metrics.troubles.clone(),
        );
        registry.register_with_unit(
            "metrics_apiserver_metric_freshness",
            "Age of the values given out",
            Unit::Seconds,
            metrics.freshness.clone(),
        );
        metrics
    }

    /// A request for the external `metric` (none: not in the catalog) was answered with `code`.
    pub(crate) fn external_requested(&self, metric: Option<&'static str>, code: u16) {
        self.external_requests.get_or_create(&ExternalLabels { metric: metric.unwrap_or(UNKNOWN), code }).inc();
    }

    /// A request for `metric` (none: there is no such one) of `resource` was answered with `code`.
    pub(crate) fn custom_requested(&self, resource: &'static str, metric: Option<&'static str>, code: u16) {
        self.custom_requests.get_or_create(&CustomLabels { resource, metric: metric.unwrap_or(UNKNOWN), code }).inc();
    }

    /// A request was in vain, for something that is to be mended.
    pub(crate) fn troubled(&self, code: &'static str) {
        self.troubles.get_or_create(&[("code", code)]).inc();
    }

    /// A value of `group` as old as `seconds` was given out.
    pub(crate) fn gave(&self, group: &'static str, seconds: f64) {
        self.freshness.get_or_create(&FreshnessLabels { group }).observe(seconds);
    }
}

/// The metric of a request for none that is known.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_names_that_dashboards_know() {
        let mut registry = Registry::default();
        let metrics = AdapterMetrics::register(&mut registry);
        metrics.external_requested(Some("inference_pool_saturation"), 200);
        metrics.external_requested(None, 404);
        metrics.external_requested(None, 404);
        metrics.gave("external.metrics.k8s.io", 0.5);
        metrics.gave("external.metrics.k8s.io", 1.2);
        metrics.gave("custom.metrics.k8s.io", 0.1);
        metrics.custom_requested("pods", Some("inference_pod_queue_size"), 200);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            r#"weir_external_metric_requests_total{metric="inference_pool_saturation",code="200"} 1"#,
            r#"weir_external_metric_requests_total{metric="unknown",code="404"} 2"#,
            r#"metrics_apiserver_metric_freshness_seconds_sum{group="external.metrics.k8s.io"} 1.7"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="1.0",group="external.metrics.k8s.io"} 1"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="1.364",group="external.metrics.k8s.io"} 2"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="+Inf",group="external.metrics.k8s.io"} 2"#,
            r#"metrics_apiserver_metric_freshness_seconds_count{group="custom.metrics.k8s.io"} 1"#,
            r#"weir_custom_metric_requests_total{resource="pods",metric="inference_pod_queue_size",code="200"} 1"#,
        ] {
            assert!(page.lines().any(|written| written == line), "{line}\n{page}");
        }
        // 20 bounds and +Inf, for two groups.
        assert_eq!(page.matches("_seconds_bucket{").count(), 42, "{page}");
    }
}
