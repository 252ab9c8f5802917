//! What the collector says of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use weir_datastore::{FailureKind, Unused};

/// The outcome of a page that was read.
const OK: &str = "ok";

const FAILURES: [FailureKind; 9] = [
    FailureKind::Connect,
    FailureKind::Tls,
    FailureKind::Timeout,
    FailureKind::Status,
    FailureKind::Redirect,
    FailureKind::TooLarge,
    FailureKind::Transfer,
    FailureKind::NotMetrics,
    FailureKind::NoEngine,
];

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

/// Counters of scraping. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    scrapes: Family<Outcome, Counter>,
    pub(crate) duration: Histogram,
    pub(crate) body_bytes: Counter,
    dropped_lines: Counter,
    invalid_samples: Counter,
    duplicate_samples: Counter,
    outdated_samples: Counter,
    pub(crate) endpoints: Gauge,
    pub(crate) overdue: Counter,
}

impl ScrapeMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            scrapes: Family::default(),
            duration: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
            body_bytes: Counter::default(),
            dropped_lines: Counter::default(),
            invalid_samples: Counter::default(),
            duplicate_samples: Counter::default(),
            outdated_samples: Counter::default(),
            endpoints: Gauge::default(),
            overdue: Counter::default(),
        };
        // All outcomes from the start: a rate over the first failure needs the zero before it.
        for outcome in FAILURES.map(FailureKind::label).into_iter().chain([OK]) {
            drop(metrics.scrapes.get_or_create(&Outcome { outcome }));
        }
        registry.register("weir_scrapes", "Attempts to read an endpoint's page, by outcome", metrics.scrapes.clone());
        let help = "Time from asking for a page until it was read or given up";
        registry.register_with_unit("weir_scrape_duration", help, Unit::Seconds, metrics.duration.clone());
        registry.register("weir_scrape_body_bytes", "Bytes of pages, decompressed", metrics.body_bytes.clone());
        let help = "Lines of pages that could not be read";
        registry.register("weir_scrape_dropped_lines", help, metrics.dropped_lines.clone());
        let help = "Samples whose value cannot be true of their signal";
        registry.register("weir_scrape_invalid_samples", help, metrics.invalid_samples.clone());
        let help = "Further samples of a series that the page already had";
        registry.register("weir_scrape_duplicate_samples", help, metrics.duplicate_samples.clone());
        let help = "Samples whose own timestamp is too old";
        registry.register("weir_scrape_outdated_samples", help, metrics.outdated_samples.clone());
        registry.register("weir_endpoints_watched", "Endpoints whose pages are read", metrics.endpoints.clone());
        let help = "Times at which an endpoint was due but the read before it was not over";
        registry.register("weir_scrape_overdue", help, metrics.overdue.clone());
        metrics
    }

    pub(crate) fn succeeded(&self, unused: Unused) {
        self.scrapes.get_or_create(&Outcome { outcome: OK }).inc();
        self.dropped_lines.inc_by(unused.dropped_lines.into());
        self.invalid_samples.inc_by(unused.invalid.into());
        self.duplicate_samples.inc_by(unused.duplicates.into());
        self.outdated_samples.inc_by(unused.outdated.into());
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        self.scrapes.get_or_create(&Outcome { outcome: kind.label() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_on_the_page_are_those_of_the_documentation() {
        let mut registry = Registry::default();
        let metrics = ScrapeMetrics::register(&mut registry);
        metrics.succeeded(Unused { dropped_lines: 2, invalid: 3, duplicates: 4, outdated: 5 });
        metrics.failed(FailureKind::TooLarge);
        metrics.body_bytes.inc_by(6);
        metrics.endpoints.set(7);
        metrics.overdue.inc_by(8);
        metrics.duration.observe(0.02);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in [
            "weir_scrapes_total{outcome=\"ok\"} 1",
            "weir_scrapes_total{outcome=\"too_large\"} 1",
            "weir_scrapes_total{outcome=\"no_engine\"} 0",
            "weir_scrape_duration_seconds_bucket{le=\"0.025\"} 1",
            "weir_scrape_body_bytes_total 6",
            "weir_scrape_dropped_lines_total 2",
            "weir_scrape_invalid_samples_total 3",
            "weir_scrape_duplicate_samples_total 4",
            "weir_scrape_outdated_samples_total 5",
            "weir_endpoints_watched 7",
            "weir_scrape_overdue_total 8",
        ] {
            assert!(page.lines().any(|on_page| on_page == line), "no `{line}` in\n{page}");
        }
    }
}
