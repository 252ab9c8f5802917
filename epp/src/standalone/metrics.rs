//! What the standalone frontend counts besides what every server here does.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;

use super::upstream::Trouble;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Reason {
    reason: &'static str,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    NotSpoken,
    SlowBody,
    BrokenBody,
    TooMany,
}

impl Refused {
    const ALL: [Self; 4] = [Self::NotSpoken, Self::SlowBody, Self::BrokenBody, Self::TooMany];

    fn label(self) -> &'static str {
        match self {
            Self::NotSpoken => "not_spoken",
            Self::SlowBody => "slow_body",
            Self::BrokenBody => "broken_body",
            Self::TooMany => "too_many",
        }
    }
}

/// Counters; cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyMetrics {
    failures: Family<Reason, Counter>,
    refusals: Family<Reason, Counter>,
    comments: Counter,
}

impl ProxyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_epp_http_failures",
            "Attempts to send a request to an endpoint that brought no whole answer, by reason",
            metrics.failures.clone(),
        );
        registry.register(
            "weir_epp_http_refusals",
            "Requests of clients that are answered before anybody is asked, by reason: an upgrade or a tunnel, a body that came too \
             slowly or broke off, too many at once",
            metrics.refusals.clone(),
        );
        for refused in Refused::ALL {
            let _exposed = metrics.refusals.get_or_create(&Reason { reason: refused.label() });
        }
        registry.register(
            "weir_epp_http_comments",
            "Comments sent to clients whose streamed answer waits for an endpoint",
            metrics.comments.clone(),
        );
        for reason in Trouble::REASONS {
            let _exposed = metrics.failures.get_or_create(&Reason { reason });
        }
        metrics
    }

    pub(super) fn failed(&self, trouble: &Trouble) {
        self.failures.get_or_create(&Reason { reason: trouble.reason() }).inc();
    }

    pub(super) fn refused(&self, refused: Refused) {
        self.refusals.get_or_create(&Reason { reason: refused.label() }).inc();
    }

    pub(super) fn commented(&self) {
        self.comments.inc();
    }
}
