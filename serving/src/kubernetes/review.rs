//! One question to the API server: a review object is posted, and comes back with its status.

use std::{fmt, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::{Client, client::Body};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::complaint::Complaint;
use crate::review_metrics::ReviewMetrics;

/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 1 << 20;
/// Characters of an answer's message that are repeated.
const LONGEST_MESSAGE: usize = 512;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReviewKind {
    Token,
    Access,
}

impl ReviewKind {
    fn path(self) -> &'static str {
        match self {
            Self::Token => "/apis/authentication.k8s.io/v1/tokenreviews",
            Self::Access => "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        }
    }

    fn resource(self) -> &'static str {
        match self {
            Self::Token => "tokenreviews",
            Self::Access => "subjectaccessreviews",
        }
    }
}

impl fmt::Display for ReviewKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.resource())
    }
}

/// Why a review has no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReviewError {
    /// The API server did not answer in time.
    #[error("no answer from the Kubernetes API server within {} ms", waited.as_millis())]
    Late {
        /// How long it was waited for.
        waited: Duration,
    },
    /// So many reviews wait for the API server already that this one was not sent.
    #[error("{limit} {resource} wait for the Kubernetes API server already")]
    Overloaded {
        /// How many may.
        limit: usize,
        /// The kind of review.
        resource: &'static str,
    },
    /// The API server did not review.
    #[error("the Kubernetes API server answered {code} to {resource}: {message}{}", hint(*code))]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The kind of review.
        resource: &'static str,
        /// What it said.
        message: String,
    },
    /// The API server could not be talked to.
    #[error("the Kubernetes API server cannot be asked for {resource}: {problem}")]
    Unreachable {
        /// The kind of review.
        resource: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// The answer is none.
    #[error("the Kubernetes API server's answer to {resource} cannot be read: {problem}")]
    Unreadable {
        /// The kind of review.
        resource: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn hint(code: u16) -> &'static str {
    match code {
        403 => " (bind the ClusterRole system:auth-delegator to weir's ServiceAccount with a ClusterRoleBinding)",
        401 => " (weir's own credentials are not accepted)",
        _ => "",
    }
}

/// Posts reviews of one kind.
pub(crate) struct Reviewer {
    client: Client,
    kind: ReviewKind,
    in_flight: usize,
    permits: Semaphore,
    metrics: ReviewMetrics,
    complaint: Complaint,
}

impl Reviewer {
    /// At most `in_flight` at once; more fail at once.
    pub(crate) fn new(client: Client, kind: ReviewKind, in_flight: usize, metrics: ReviewMetrics) -> Self {
        let in_flight = in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let complaint = Complaint::about(kind.resource());
        Self { client, kind, in_flight, permits: Semaphore::new(in_flight), metrics, complaint }
    }

    pub(crate) fn metrics(&self) -> &ReviewMetrics {
        &self.metrics
    }

    /// Posts `object` and gives it back as the API server answered it, or gives up at `until`.
    pub(crate) async fn review<K: Serialize + DeserializeOwned>(&self, object: &K, until: Instant) -> Result<K, ReviewError> {
        let started = Instant::now();
        let outcome = match self.permits.try_acquire() {
            Err(_full) => Err(ReviewError::Overloaded { limit: self.in_flight, resource: self.kind.resource() }),
            Ok(_permit) => match timeout_at(until, self.post(object)).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => Err(ReviewError::Late { waited: started.elapsed() }),
            },
        };
        self.metrics.reviewed(self.kind, code(&outcome), started.elapsed());
        match &outcome {
            Ok(_) => self.complaint.works(),
            // Tells a time that differs from request to request.
            Err(ReviewError::Late { .. }) => self.complaint.failed(&"no answer from the Kubernetes API server in time"),
            Err(error) => self.complaint.failed(error),
        }
        outcome
    }

    async fn post<K: Serialize + DeserializeOwned>(&self, object: &K) -> Result<K, ReviewError> {
        let resource = self.kind.resource();
        let unreadable = |problem: &dyn fmt::Display| ReviewError::Unreadable { resource, problem: problem.to_string() };
        let unreachable = |problem: &dyn std::error::Error| ReviewError::Unreachable { resource, problem: chain(problem) };
        let body = serde_json::to_vec(object).map_err(|error| unreadable(&error))?;
        let request = Request::post(self.kind.path())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body))
            .map_err(|error| unreadable(&error))?;
        let response = self.client.send(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        let bytes = match Limited::new(response.into_body(), LONGEST_ANSWER).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) => return Err(unreadable(&error)),
        };
        if !status.is_success() {
            return Err(ReviewError::Refused { code: status.as_u16(), resource, message: message(status, &bytes) });
        }
        serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
    }
}

/// The label of an outcome, in upstream's words where there are any.
fn code<K>(outcome: &Result<K, ReviewError>) -> &'static str {
    match outcome {
        Ok(_) => "201",
        Err(ReviewError::Late { .. }) => "timeout",
        Err(ReviewError::Overloaded { .. }) => "overloaded",
        Err(ReviewError::Unreachable { .. }) => "<error>",
        Err(ReviewError::Unreadable { .. }) => "unreadable",
        Err(ReviewError::Refused { code, .. }) => match code {
            401 => "401",
            403 => "403",
            429 => "429",
            400..500 => "4xx",
            503 => "503",
            _ => "5xx",
        },
    }
}

/// What a failure says: its Status' message, or the code alone.
fn message(code: StatusCode, body: &[u8]) -> String {
    let status: Option<kube::core::Status> = serde_json::from_slice(body).ok();
    let text = status.map(|status| status.message).filter(|message| !message.is_empty());
    let text = text.unwrap_or_else(|| code.canonical_reason().unwrap_or("no reason given").to_owned());
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_MESSAGE).collect()
}

/// An error with its causes: the outermost alone rarely says what happened.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += ": ";
            text += &cause_text;
        }
        source = cause.source();
    }
    text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
    text
}
