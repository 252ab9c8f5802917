//! The client of one watch: when the API server was heard last, and bounds on waiting for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, sleep_until, timeout};
use tower::{BoxError, service_fn};

/// The time in which an answer must begin.
const ANSWER: Duration = Duration::from_secs(20);
/// The largest page of a list, in bytes: 500 objects, few of which are near the 1.5 MB that an object can have.
const LARGEST_LIST: usize = 256 * 1024 * 1024;
/// Watches begin so far apart: a server that ends each at once is not asked in a circle.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// When the API server was heard over one watch.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) resource: &'static str,
    pub(super) lists: Counter,
    pub(super) watches: Counter,
    heard: Mutex<Instant>,
    /// When the next watch may begin.
    next_watch: Mutex<Instant>,
}

impl Health {
    /// Counts from `now`, though nothing was heard yet.
    pub(super) fn new(resource: &'static str, lists: Counter, watches: Counter, now: Instant) -> Self {
        Self { resource, lists, watches, heard: Mutex::new(now), next_watch: Mutex::new(now) }
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn heard(&self, now: Instant) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// When a watch that is wanted at `now` may begin.
    fn may_watch(&self, now: Instant) -> Instant {
        let mut next = self.next_watch.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.max(*next);
        *next = at + WATCH_PAUSE;
        at
    }
}

/// `client`, for the requests of one watch.
pub(super) fn observed(client: Client, health: Arc<Health>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, health) = (client.clone(), health.clone());
        async move {
            let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
            if watches {
                sleep_until(health.may_watch(Instant::now())).await;
                health.watches.inc();
            } else {
                health.lists.inc();
            }
            let no_answer = |_| format!("no answer within {ANSWER:?}: is the API server overloaded, is a proxy in between?");
            let response = timeout(ANSWER, client.send(request)).await.map_err(no_answer)??;
            let good = response.status().is_success();
            let hear = move || {
                if good {
                    health.heard(Instant::now());
                }
            };
            hear();
            let largest = if watches { usize::MAX } else { LARGEST_LIST };
            Ok::<_, BoxError>(response.map(|body| {
                Limited::new(body, largest).map_frame(move |frame| {
                    hear();
                    frame
                })
            }))
        }
    });
    Client::new(service, namespace)
}
