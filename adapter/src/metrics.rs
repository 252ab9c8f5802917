//! What the adapter tells of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::GROUP;

/// Counters and histograms of the adapter.
#[derive(Clone, Debug)]
pub(crate) struct AdapterMetrics {
    requests: Family<RequestLabels, Counter>,
    freshness: Family<FreshnessLabels, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    /// The catalog's name: a caller's would be unbounded.
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
            requests: Family::default(),
            // The buckets of the Go adapters, so that their dashboards work.
            freshness: Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 1.364, 20))),
        };
        registry.register(
            "weir_external_metric_requests",
            "Requests for external metrics by metric (`unknown`: none of the catalog) and HTTP status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "metrics_apiserver_metric_freshness",
            "Age of the values given out",
            Unit::Seconds,
            metrics.freshness.clone(),
        );
        metrics
    }

    /// A request for `metric` (none: not in the catalog) was answered with `code`.
    pub(crate) fn requested(&self, metric: Option<&'static str>, code: u16) {
        self.requests.get_or_create(&RequestLabels { metric: metric.unwrap_or("unknown"), code }).inc();
    }

    /// A value as old as `seconds` was given out.
    pub(crate) fn gave(&self, seconds: f64) {
        self.freshness.get_or_create(&FreshnessLabels { group: GROUP.group }).observe(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_names_that_dashboards_know() {
        let mut registry = Registry::default();
        let metrics = AdapterMetrics::register(&mut registry);
        metrics.requested(Some("inference_pool_saturation"), 200);
        metrics.requested(None, 404);
        metrics.requested(None, 404);
        metrics.gave(0.5);
        metrics.gave(1.2);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            r#"weir_external_metric_requests_total{metric="inference_pool_saturation",code="200"} 1"#,
            r#"weir_external_metric_requests_total{metric="unknown",code="404"} 2"#,
            r#"metrics_apiserver_metric_freshness_seconds_sum{group="external.metrics.k8s.io"} 1.7"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="1.0",group="external.metrics.k8s.io"} 1"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="1.364",group="external.metrics.k8s.io"} 2"#,
            r#"metrics_apiserver_metric_freshness_seconds_bucket{le="+Inf",group="external.metrics.k8s.io"} 2"#,
        ] {
            assert!(page.lines().any(|written| written == line), "{line}\n{page}");
        }
        // 20 bounds and +Inf.
        assert_eq!(page.matches("_seconds_bucket{").count(), 21, "{page}");
    }
}
