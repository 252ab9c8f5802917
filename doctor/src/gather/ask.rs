//! One call to the API server: in its turn, within its time, no larger than agreed.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use tokio::sync::Semaphore;
use weir_k8s::told;

use super::GatherOptions;
use crate::facts::{Reason, scrub};

/// Largest answer that is read, in bytes.
const LARGEST: usize = 32 << 20;

/// Asks.
#[derive(Clone)]
pub(super) struct Asker {
    client: Client,
    deadline: Duration,
    turns: Arc<Semaphore>,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

/// Why there is no good answer.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// HTTP status; none where no answer came.
    pub(super) status: Option<u16>,
    /// Whether the time was up.
    pub(super) late: bool,
    /// For people.
    pub(super) message: String,
}

impl Problem {
    fn new(message: impl AsRef<str>) -> Self {
        Self { status: None, late: false, message: scrub::text(message.as_ref()) }
    }

    /// As the reason that nothing was listed.
    pub(super) fn reason(self, what: &str) -> Reason {
        match self.status {
            Some(404) => Reason::NotServed,
            Some(401 | 403) => Reason::Forbidden(what.to_owned()),
            _ => Reason::Failed(format!("{what}: {}", self.message)),
        }
    }
}

impl Asker {
    pub(super) fn new(client: Client, options: &GatherOptions) -> Self {
        Self { client, deadline: options.deadline, turns: Arc::new(Semaphore::new(options.concurrency.max(1))) }
    }

    /// The answer to a GET of `path`, whatever its status.
    pub(super) async fn ask(&self, path: &str, accept: &str) -> Result<Answer, Problem> {
        let request = Request::get(path).header(http::header::ACCEPT, accept).body(Body::empty());
        let request = request.map_err(|error| Problem::new(format!("{path} is no path: {error}")))?;
        // The time runs from the turn on: waiting for others is not the server's fault.
        let _turn = self.turns.acquire().await.map_err(|error| Problem::new(error.to_string()))?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| Problem::new(told(&error)))?;
            let status = response.status().as_u16();
            let content_type = response.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or("").to_owned();
            let body =
                Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| Problem::new(error.to_string()))?;
            Ok(Answer { status, content_type, body: body.to_bytes().to_vec() })
        };
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem { status: None, late: true, message: format!("no answer within {:?}", self.deadline) }),
        }
    }

    /// The text of a good answer to a GET of `path`.
    pub(super) async fn get(&self, path: &str) -> Result<String, Problem> {
        self.get_as(path, "application/json").await
    }

    /// The same in another form.
    pub(super) async fn get_as(&self, path: &str, accept: &str) -> Result<String, Problem> {
        let answer = self.ask(path, accept).await?;
        let text = String::from_utf8_lossy(&answer.body);
        if (200..300).contains(&answer.status) {
            return Ok(text.into_owned());
        }
        let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let message = status["message"].as_str().map_or_else(|| format!("HTTP status {}", answer.status), scrub::text);
        Err(Problem { status: Some(answer.status), late: false, message })
    }
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
