//! What is counted of questions to the Kubernetes API server, in upstream's names where there are any.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::kubernetes::ReviewKind;

/// Seconds; upstream's bounds and three finer ones.
const BOUNDS: [f64; 11] = [0.005, 0.025, 0.1, 0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CacheLabels {
    review: &'static str,
    result: &'static str,
}

type Durations = Family<CodeLabels, Histogram, fn() -> Histogram>;

/// The families.
#[derive(Clone, Debug)]
pub(crate) struct ReviewMetrics {
    tokens: Family<CodeLabels, Counter>,
    token_durations: Durations,
    accesses: Family<CodeLabels, Counter>,
    access_durations: Durations,
    cached: Family<CacheLabels, Counter>,
}

impl Default for ReviewMetrics {
    fn default() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(BOUNDS);
        Self {
            tokens: Family::default(),
            token_durations: Family::new_with_constructor(durations),
            accesses: Family::default(),
            access_durations: Family::new_with_constructor(durations),
            cached: Family::default(),
        }
    }
}

impl ReviewMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_delegated_authn_request",
            "TokenReviews sent to the Kubernetes API server, by its answer's code; <error>, timeout, overloaded and unreadable where there was none",
            self.tokens.clone(),
        );
        registry.register(
            "apiserver_delegated_authn_request_duration_seconds",
            "Time from sending a TokenReview to its answer",
            self.token_durations.clone(),
        );
        registry.register(
            "apiserver_delegated_authz_request",
            "SubjectAccessReviews sent to the Kubernetes API server, by its answer's code; <error>, timeout, overloaded and unreadable where there was none",
            self.accesses.clone(),
        );
        registry.register(
            "apiserver_delegated_authz_request_duration_seconds",
            "Time from sending a SubjectAccessReview to its answer",
            self.access_durations.clone(),
        );
        registry.register(
            "weir_serving_review_decisions",
            "Decisions used, by kind of review and result: hit (remembered, or made for another request at the same time), miss",
            self.cached.clone(),
        );
    }

    pub(crate) fn reviewed(&self, kind: ReviewKind, code: &'static str, took: Duration) {
        let labels = CodeLabels { code };
        let (total, durations) = match kind {
            ReviewKind::Token => (&self.tokens, &self.token_durations),
            ReviewKind::Access => (&self.accesses, &self.access_durations),
        };
        total.get_or_create(&labels).inc();
        durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn cached(&self, kind: ReviewKind, hit: bool) {
        let review = match kind {
            ReviewKind::Token => "token",
            ReviewKind::Access => "access",
        };
        let result = if hit { "hit" } else { "miss" };
        self.cached.get_or_create(&CacheLabels { review, result }).inc();
    }
}
