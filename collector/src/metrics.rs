//! What the collector says of itself.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use weir_datastore::{Unused, codes};

use crate::counted::{Counted, OK, OUTCOMES};
use crate::failure::ScrapeFailure;

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PageKind {
    /// The whole page.
    Full,
    /// The wanted series alone, instead of the whole page.
    Restricted,
    /// The wanted series alone, to be compared with the whole page.
    Trial,
}

impl PageKind {
    const ALL: [Self; 3] = [Self::Full, Self::Restricted, Self::Trial];

    fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Restricted => "restricted",
            Self::Trial => "trial",
        }
    }
}

/// A read under way, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'metrics>(&'metrics Gauge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counters of scraping. Clones share them.
/// What can be wrong with a page.
const TROUBLES: [&str; 9] = [
    codes::SERVER_PORT_REFUSED,
    codes::PAGE_UNREACHABLE,
    codes::PAGE_UNAUTHORIZED,
    codes::PAGE_FORBIDDEN,
    codes::PAGE_ABSENT,
    codes::PAGE_EMPTY,
    codes::PAGE_ENGINE_UNKNOWN,
    codes::PAGE_FAMILY_MISSING,
    codes::PAGE_STALE,
];

#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    scrapes: Counted,
    troubles: Counted,
    pages: Counted,
    concurrent: Gauge,
    pub(crate) gap: Histogram,
    pub(crate) duration: Histogram,
    pub(crate) body_bytes: Counter,
    dropped_lines: Counter,
    invalid_samples: Counter,
    duplicate_samples: Counter,
    outdated_samples: Counter,
    /// Pages that were read for their histograms of latencies.
    pub(crate) histogram_pages: Counter,
    pub(crate) refused_histograms: Counter,
    pub(crate) endpoints: Gauge,
    pub(crate) overdue: Counter,
}

impl ScrapeMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let help = "Pages asked for: whole, restricted to the wanted series, or restricted to be compared with a whole one";
        let pages = Counted::register(registry, "weir_scrape_pages", help, "kind", PageKind::ALL.map(PageKind::label));
        let troubles = "Reads of endpoints' pages that met a trouble, by its code in docs/troubleshooting.md";
        let help = "Attempts to read an endpoint's page, by outcome";
        let metrics = Self {
            scrapes: Counted::register(registry, "weir_scrapes", help, "outcome", OUTCOMES),
            troubles: Counted::register(registry, "weir_scrape_troubles", troubles, "code", TROUBLES),
            pages,
            concurrent: Gauge::default(),
            gap: Histogram::new([0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0]),
            duration: Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
            body_bytes: Counter::default(),
            dropped_lines: Counter::default(),
            invalid_samples: Counter::default(),
            duplicate_samples: Counter::default(),
            outdated_samples: Counter::default(),
            histogram_pages: Counter::default(),
            refused_histograms: Counter::default(),
            endpoints: Gauge::default(),
            overdue: Counter::default(),
        };
        let help = "Time from asking for a page until it was read or given up";
        registry.register_with_unit("weir_scrape_duration", help, Unit::Seconds, metrics.duration.clone());
        let help = "Time between two good pages of an endpoint, by when they were asked for";
        registry.register_with_unit("weir_scrape_gap", help, Unit::Seconds, metrics.gap.clone());
        registry.register("weir_scrape_concurrent", "Reads of endpoints that are under way", metrics.concurrent.clone());
        registry.register("weir_scrape_body_bytes", "Bytes of pages, decompressed", metrics.body_bytes.clone());
        let help = "Lines of pages that could not be read";
        registry.register("weir_scrape_dropped_lines", help, metrics.dropped_lines.clone());
        let help = "Samples whose value cannot be true of their signal";
        registry.register("weir_scrape_invalid_samples", help, metrics.invalid_samples.clone());
        let help = "Further samples of a series that the page already had";
        registry.register("weir_scrape_duplicate_samples", help, metrics.duplicate_samples.clone());
        let help = "Samples whose own timestamp is too old";
        registry.register("weir_scrape_outdated_samples", help, metrics.outdated_samples.clone());
        let help = "Pages that were read for their histograms of latencies too";
        registry.register("weir_scrape_latency_pages", help, metrics.histogram_pages.clone());
        let help = "Histograms of latencies whose counts or bounds cannot be true, or that are too many";
        registry.register("weir_scrape_refused_latencies", help, metrics.refused_histograms.clone());
        registry.register("weir_endpoints_watched", "Endpoints whose pages are read", metrics.endpoints.clone());
        let help = "Times at which an endpoint was due but the read before it was not over";
        registry.register("weir_scrape_overdue", help, metrics.overdue.clone());
        metrics
    }

    pub(crate) fn asked(&self, kind: PageKind) {
        self.pages.count(kind.label());
    }

    /// Counts a read as under way.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.concurrent.inc();
        UnderWay(&self.concurrent)
    }

    pub(crate) fn succeeded(&self, unused: Unused) {
        self.scrapes.count(OK);
        self.dropped_lines.inc_by(unused.dropped_lines.into());
        self.invalid_samples.inc_by(unused.invalid.into());
        self.duplicate_samples.inc_by(unused.duplicates.into());
        self.outdated_samples.inc_by(unused.outdated.into());
    }

    pub(crate) fn failed(&self, failure: &ScrapeFailure) {
        self.scrapes.count(failure.kind.label());
        self.troubled(failure.code);
    }

    /// A page was had, or not, with the trouble of that code.
    pub(crate) fn troubled(&self, code: &'static str) {
        self.troubles.count(code);
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
        metrics.failed(&ScrapeFailure::new(weir_datastore::FailureKind::TooLarge, "http://a/metrics", "too large"));
        metrics.body_bytes.inc_by(6);
        metrics.endpoints.set(7);
        metrics.overdue.inc_by(8);
        metrics.duration.observe(0.02);
        metrics.gap.observe(1.2);
        metrics.asked(PageKind::Trial);
        let first = metrics.begin();
        let _second = metrics.begin();
        drop(first);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in [
            "weir_scrapes_total{outcome=\"ok\"} 1",
            "weir_scrapes_total{outcome=\"too_large\"} 1",
            "weir_scrapes_total{outcome=\"no_engine\"} 0",
            "weir_scrape_troubles_total{code=\"page-unreachable\"} 1",
            "weir_scrape_troubles_total{code=\"page-absent\"} 0",
            "weir_scrape_duration_seconds_bucket{le=\"0.025\"} 1",
            "weir_scrape_gap_seconds_bucket{le=\"1.25\"} 1",
            "weir_scrape_gap_seconds_bucket{le=\"1.0\"} 0",
            "weir_scrape_concurrent 1",
            "weir_scrape_pages_total{kind=\"trial\"} 1",
            "weir_scrape_pages_total{kind=\"full\"} 0",
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
