//! Callers by bearer token: the API server is asked whose it is (TokenReview).

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{hmac, rand::SystemRandom};
use http::{header, request::Parts};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Client;
use tokio::time::Instant;

use super::{
    decisions::{Decisions, Key},
    review::{ReviewError, ReviewKind, Reviewer},
};
use crate::{Authenticator, Caller, Decision, RequestDeadline, ServeError, ServingMetrics, Verdict, bearer_tokens::bearer};

/// How tokens are reviewed. The defaults are those of Kubernetes' API server library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenReviewSettings {
    /// How long a decision holds, whichever it is, 10 s: so long is a revoked token still accepted.
    pub keep: Duration,
    /// Time for the API server to answer, 10 s; never more than nine tenths of what the request has left.
    pub timeout: Duration,
    /// Whom a token must be meant for; none means the API server itself.
    pub audiences: Vec<String>,
    /// Decisions remembered, 4096.
    pub capacity: u64,
    /// Reviews waiting for the API server at once, 256; more fail at once.
    pub in_flight: usize,
}

impl Default for TokenReviewSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { keep: seconds(10), timeout: seconds(10), audiences: Vec::new(), capacity: 4096, in_flight: 256 }
    }
}

/// Accepts `Authorization: Bearer TOKEN` where the API server does. Ask it after [`crate::BearerTokens`]: what is not
/// known there is sent to the API server.
pub struct TokenReviews {
    reviewer: Reviewer,
    decisions: Decisions<Option<Caller>>,
    settings: TokenReviewSettings,
    /// Tokens are remembered by their keyed digest: a dump of memory tells none.
    key: hmac::Key,
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenReviews").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TokenReviews {
    /// Asks through `client`.
    ///
    /// # Errors
    /// [`ServeError::Setting`] when the system has no random numbers.
    pub fn new(client: Client, settings: TokenReviewSettings, metrics: &ServingMetrics) -> Result<Self, ServeError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| ServeError::Setting { setting: "token reviews", problem: "the system gives no random numbers".into() })?;
        let reviewer = Reviewer::new(client, ReviewKind::Token, settings.in_flight, metrics.reviews());
        Ok(Self { reviewer, decisions: Decisions::new(settings.capacity, settings.keep), settings, key })
    }

    async fn judge(&self, request: &Parts) -> Verdict {
        let mut headers = request.headers.get_all(header::AUTHORIZATION).iter();
        let Some(token) = headers.next().and_then(|value| bearer(value.as_bytes())) else {
            return Verdict::NoOpinion;
        };
        if headers.next().is_some() {
            return Verdict::Rejected("several authorization headers");
        }
        let Ok(token) = std::str::from_utf8(token) else {
            return Verdict::Rejected("the bearer token is no text");
        };
        let now = Instant::now();
        let latest = now + self.settings.timeout;
        let until = request.extensions.get::<RequestDeadline>().map_or(latest, |deadline| latest.min(deadline.to_wait(now)));
        let keep = self.settings.keep;
        let decided = self.decisions.get(self.digest(token), until, |_| keep, self.ask(token, until)).await;
        self.reviewer.metrics().cached(ReviewKind::Token, !decided.fresh);
        match decided.outcome {
            Ok(Some(caller)) => Verdict::Accepted(caller),
            Ok(None) => Verdict::Rejected("the API server does not accept the bearer token"),
            Err(error) => {
                tracing::debug!(%error, "token review failed");
                Verdict::Rejected("the bearer token could not be reviewed")
            }
        }
    }

    /// Lengths go in, so that no two questions look alike.
    fn digest(&self, token: &str) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        for text in std::iter::once(token).chain(self.settings.audiences.iter().map(String::as_str)) {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    async fn ask(&self, token: &str, until: Instant) -> Result<Option<Caller>, ReviewError> {
        let audiences = (!self.settings.audiences.is_empty()).then(|| self.settings.audiences.clone());
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
        let answer = self.reviewer.review(&TokenReview { spec, ..TokenReview::default() }, until).await?;
        Ok(self.read(answer))
    }

    fn read(&self, answer: TokenReview) -> Option<Caller> {
        let status = answer.status?;
        if status.authenticated != Some(true) || status.error.is_some_and(|error| !error.is_empty()) {
            return None;
        }
        // An API server that does not know audiences speaks of itself only.
        let meant = status.audiences.unwrap_or_default();
        let wanted = &self.settings.audiences;
        if !wanted.is_empty() && !meant.iter().any(|audience| wanted.contains(audience)) {
            return None;
        }
        caller(status.user?)
    }
}

fn caller(user: UserInfo) -> Option<Caller> {
    let name = user.username.filter(|name| !name.is_empty())?;
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    let caller = Caller::new(name, user.groups.unwrap_or_default());
    Some(caller.with_uid(user.uid.filter(|uid| !uid.is_empty())).with_extra(extra))
}

impl Authenticator for TokenReviews {
    fn name(&self) -> &'static str {
        "token review"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, _now: SystemTime) -> Decision<'a> {
        Box::pin(self.judge(request))
    }

    fn needs_confidentiality(&self) -> bool {
        true
    }
}
