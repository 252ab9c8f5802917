//! The loop of one endpoint: ask, read, write, wait.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Url;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::{EndpointKey, EndpointLoad, EndpointWriter, FRESH_AT_MOST};

use crate::body::Bodies;
use crate::connection::Connection;
use crate::failure::ScrapeFailure;
use crate::fetch::{fetch, parse_url};
use crate::metrics::ScrapeMetrics;
use crate::schedule::Schedule;

/// What all loops share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) bodies: Bodies,
    pub(crate) metrics: ScrapeMetrics,
}

/// One endpoint. Dropping the future of [`EndpointLoop::run`] ends it at any time and leaves nothing behind: a load is written
/// whole or not at all.
pub(crate) struct EndpointLoop {
    pub(crate) writer: EndpointWriter,
    pub(crate) reader: Arc<PageReader>,
    /// Changes when the pool is reached differently.
    pub(crate) connection: watch::Receiver<Arc<Connection>>,
    pub(crate) schedule: Schedule,
    pub(crate) shared: Arc<Shared>,
}

impl EndpointLoop {
    pub(crate) async fn run(mut self) {
        let mut place = Place::new(self.writer.key());
        let mut memory = PageMemory::default();
        let mut run = FailureRun::default();
        let mut due = self.schedule.first(Instant::now());
        loop {
            sleep_until(due).await;
            let asked_at = Instant::now();
            let outcome = self.scrape(&mut place, &mut memory, asked_at).await;
            let now = Instant::now();
            self.shared.metrics.duration.observe((now - asked_at).as_secs_f64());
            due = match outcome {
                Ok(load) => {
                    self.shared.metrics.succeeded(load.unused);
                    self.writer.succeeded(load, self.shared.interval);
                    run.ended(self.writer.key(), now);
                    let next = self.schedule.after_success(asked_at, now);
                    self.shared.metrics.overdue.inc_by(next.missed);
                    next.at
                }
                Err(failure) => {
                    self.shared.metrics.failed(failure.kind);
                    self.writer.failed(failure.kind, &failure.message, now);
                    run.goes_on(self.writer.key(), &failure, now);
                    self.schedule.after_failure(asked_at, now, run.attempts)
                }
            };
        }
    }

    async fn scrape(&self, place: &mut Place, memory: &mut PageMemory, asked_at: Instant) -> Result<EndpointLoad, ScrapeFailure> {
        let connection = self.connection.borrow().clone();
        let url = place.url()?;
        let page = match fetch(&connection, url, &self.shared.bodies, self.shared.timeout).await {
            Ok(page) => page,
            Err(failure) => {
                // The server may have been replaced by one without the redirect.
                place.redirected = None;
                return Err(failure);
            }
        };
        self.shared.metrics.body_bytes.inc_by(page.bytes.len() as u64);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock = PageClock {
            asked_at,
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
            stale_after_ms: FRESH_AT_MOST.as_millis() as i64,
        };
        let read = self.reader.read(&page.bytes, page.format, clock, memory);
        let outcome = read.map_err(|error| ScrapeFailure::of_page(&page.url, &error));
        self.shared.bodies.end(page.bytes);
        if page.url != *url {
            place.redirected = Some(page.url);
        }
        outcome
    }
}

/// Where the page is.
struct Place {
    configured: Result<Url, ScrapeFailure>,
    /// Where the server sent us last; asked directly from then on.
    redirected: Option<Url>,
}

impl Place {
    fn new(key: &EndpointKey) -> Self {
        let url = format!("{}://{}{}", key.metrics.scheme.as_str(), key.address, key.metrics.path);
        Self { configured: parse_url(&url).map(|(url, _)| url), redirected: None }
    }

    fn url(&self) -> Result<&Url, ScrapeFailure> {
        match (&self.redirected, &self.configured) {
            (Some(url), _) | (None, Ok(url)) => Ok(url),
            (None, Err(failure)) => Err(failure.clone()),
        }
    }
}

/// Failures in a row: its beginning and its end are logged, what is between is counted.
#[derive(Default)]
struct FailureRun {
    attempts: u32,
    since: Option<Instant>,
}

impl FailureRun {
    fn goes_on(&mut self, key: &EndpointKey, failure: &ScrapeFailure, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        if self.since.is_none() {
            self.since = Some(now);
            let kind = failure.kind.label();
            warn!(pool = %key.pool, address = %key.address, kind, error = %failure.message, "scrape failed");
        }
    }

    fn ended(&mut self, key: &EndpointKey, now: Instant) {
        if let Some(since) = self.since.take() {
            let seconds = (now - since).as_secs_f64();
            info!(pool = %key.pool, address = %key.address, attempts = self.attempts, seconds, "scrape recovered");
            self.attempts = 0;
        }
    }
}
