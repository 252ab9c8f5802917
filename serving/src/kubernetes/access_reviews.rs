//! What callers may do: the API server is asked (SubjectAccessReview).

use std::{fmt, time::Duration};

use aws_lc_rs::digest;
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use tokio::time::Instant;

use super::{
    attributes::Attributes,
    decisions::{Decisions, Key},
    review::{ReviewError, ReviewKind, Reviewer},
};
use crate::{Caller, ServingMetrics, limits::MASTERS};

/// Bytes of attributes from which on a decision is not remembered.
const TOO_LONG_TO_REMEMBER: usize = 10_000;
/// Characters of the API server's reason that are repeated.
const LONGEST_REASON: usize = 512;

/// How access is reviewed. The defaults are those of Kubernetes' API server library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessReviewSettings {
    /// How long leave holds, 10 s.
    pub keep_allowed: Duration,
    /// How long a refusal holds, 10 s: so long does a new role need to take effect.
    pub keep_denied: Duration,
    /// Time for the API server to answer, 10 s; never more than nine tenths of what the request has left.
    pub timeout: Duration,
    /// Decisions remembered, 8192.
    pub capacity: u64,
    /// Reviews waiting for the API server at once, 400; more fail at once.
    pub in_flight: usize,
}

impl Default for AccessReviewSettings {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { keep_allowed: ten, keep_denied: ten, timeout: ten, capacity: 8192, in_flight: 400 }
    }
}

/// What the API server says of one action of one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessDecision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, in the authoriser's words; often empty.
    pub reason: String,
}

/// Asks the API server what callers may do.
pub struct AccessReviews {
    reviewer: Reviewer,
    decisions: Decisions<AccessDecision>,
    settings: AccessReviewSettings,
}

impl fmt::Debug for AccessReviews {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AccessReviews").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl AccessReviews {
    /// Asks through `client`.
    pub fn new(client: Client, settings: AccessReviewSettings, metrics: &ServingMetrics) -> Self {
        let longest = settings.keep_allowed.max(settings.keep_denied);
        let reviewer = Reviewer::new(client, ReviewKind::Access, settings.in_flight, metrics.reviews());
        Self { reviewer, decisions: Decisions::new(settings.capacity, longest), settings }
    }

    /// Whether `caller` may do this; `until` is the latest moment for an answer, if it is before the settings'
    /// timeout. Group `system:masters` may do everything.
    ///
    /// # Errors
    /// [`ReviewError`] when the API server did not decide.
    pub async fn review(
        &self,
        caller: &Caller,
        attributes: &Attributes,
        until: Option<Instant>,
    ) -> Result<AccessDecision, ReviewError> {
        if caller.is_in(MASTERS) {
            return Ok(AccessDecision { allowed: true, reason: String::new() });
        }
        let latest = Instant::now() + self.settings.timeout;
        let until = until.map_or(latest, |until| until.min(latest));
        let spec = spec(caller, attributes);
        if attributes.length() >= TOO_LONG_TO_REMEMBER {
            return self.ask(spec, until).await;
        }
        let keep = |decision: &AccessDecision| match decision.allowed {
            true => self.settings.keep_allowed,
            false => self.settings.keep_denied,
        };
        let decided = self.decisions.get(digest(&spec)?, until, keep, self.ask(spec, until)).await;
        self.reviewer.metrics().cached(ReviewKind::Access, !decided.fresh);
        decided.outcome.map_err(|error| (*error).clone())
    }

    async fn ask(&self, spec: SubjectAccessReviewSpec, until: Instant) -> Result<AccessDecision, ReviewError> {
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.reviewer.review(&review, until).await?.status.unwrap_or_default();
        let reason = status.reason.unwrap_or_default();
        let reason = reason.chars().filter(|letter| !letter.is_control()).take(LONGEST_REASON).collect();
        Ok(AccessDecision { allowed: status.allowed && status.denied != Some(true), reason })
    }
}

fn spec(caller: &Caller, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let (resource_attributes, non_resource_attributes) = match attributes {
        Attributes::Resource(resource) => (Some(resource.for_review()), None),
        Attributes::NonResource { path, verb } => {
            (None, Some(NonResourceAttributes { path: Some(path.clone()), verb: Some(verb.clone()) }))
        }
    };
    SubjectAccessReviewSpec {
        user: Some(caller.name.to_string()),
        uid: caller.uid.as_deref().map(String::from),
        groups: Some(caller.groups.to_vec()),
        extra: (!caller.extra.is_empty()).then(|| (*caller.extra).clone()),
        resource_attributes,
        non_resource_attributes,
    }
}

/// Everything that is asked decides: the same words in another field are another question.
fn digest(spec: &SubjectAccessReviewSpec) -> Result<Key, ReviewError> {
    let bytes = serde_json::to_vec(spec)
        .map_err(|error| ReviewError::Unreadable { resource: "subjectaccessreviews", problem: error.to_string() })?;
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
    Ok(key)
}
