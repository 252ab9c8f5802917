//! What pickers tell: requests that wait for an endpoint, requests that arrived.
//!
//! Each picker has one task. It looks for weir's stream on the picker's server, and follows it; where there is none the picker is a
//! Go one, and its page is read every interval. Which of the two it is, is looked at again after every failure and every minute.
//!
//! 1. [`attribution`]: which source counts which picker, where several tell of one: pure.
//! 2. [`book`]: the writers of a pool's pickers, told by streams and pages.
//! 3. [`PickerLoop`]: the task.

mod attribution;
pub(crate) mod book;
mod metrics;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use url::Url;
use weir_datastore::picker::{PickerPageError, PickerPageReader};
use weir_datastore::stream::SILENCE;
use weir_datastore::{FailureKind, PickerKey, PickerLoad};

use self::book::Book;
pub(crate) use self::metrics::PickerMetrics;
use crate::connection::Connection;
use crate::failure::ScrapeFailure;
use crate::fetch::fetch;
use crate::schedule::Schedule;
use crate::scrape::Shared;
use crate::stream::feed::{Feeds, Heard};
use crate::stream::follow::{Ended, Found, Stream, open, stream_url};
use crate::stream::metrics::StreamMetrics;

/// How often a Go picker is looked at again, whether it has become a weir.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// The pause before a stream is opened again, doubled each time it fails to last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause; a stream that lasted longer was a good one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where a picker is, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its page; weir's stream is on the same server.
    pub(crate) page: Result<Url, ScrapeFailure>,
    pub(crate) connection: Arc<Connection>,
}

impl Target {
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.page == other.page && Arc::ptr_eq(&self.connection, &other.connection)
    }
}

/// What the tasks of all pickers share.
#[derive(Clone)]
pub(crate) struct PickerShared {
    pub(crate) scraping: Arc<Shared>,
    pub(crate) pages: PickerMetrics,
    pub(crate) streams: StreamMetrics,
    pub(crate) reader: Arc<PickerPageReader>,
    /// Between two reads of a page.
    pub(crate) interval: Duration,
}

/// One picker. Dropping the future of [`PickerLoop::run`] ends it at any time.
pub(crate) struct PickerLoop {
    pub(crate) key: PickerKey,
    pub(crate) target: watch::Receiver<Target>,
    pub(crate) book: Arc<Book>,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) schedule: Schedule,
    pub(crate) shared: PickerShared,
}

/// What a picker is known to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Nothing was had from it yet, or it failed since.
    Unknown,
    /// A Go picker; to be looked at again.
    Page { look_again: Instant },
    /// A weir, heard last then.
    Weir { heard_at: Instant },
}

impl Kind {
    /// Whether to look for a stream at `now`.
    fn looks_for_stream(self, now: Instant) -> bool {
        match self {
            Self::Unknown | Self::Weir { .. } => true,
            Self::Page { look_again } => now >= look_again,
        }
    }

    /// Whether what the picker told last no longer counts at `now`.
    fn is_silent(self, now: Instant) -> bool {
        !matches!(self, Self::Weir { heard_at } if now.saturating_duration_since(heard_at) < SILENCE)
    }
}

/// What is remembered from one attempt to the next.
struct Memory {
    kind: Kind,
    /// Failures in a row, as far as the pause before the next attempt goes.
    failures: u32,
    /// When the present run of failures was logged.
    failing_since: Option<Instant>,
}

impl PickerLoop {
    pub(crate) async fn run(self) {
        let mut targets = self.target.clone();
        loop {
            let target = targets.borrow_and_update().clone();
            tokio::select! {
                () = self.attempts(&target) => {}
                changed = targets.changed() => if changed.is_err() {
                    // The picker is being removed.
                    std::future::pending::<()>().await;
                },
            }
        }
    }

    /// Reads the picker at `target`, for ever.
    async fn attempts(&self, target: &Target) {
        let mut memory = Memory { kind: Kind::Unknown, failures: 0, failing_since: None };
        let mut due = Instant::now();
        loop {
            sleep_until(due).await;
            due = self.attempt(target, &mut memory).await;
        }
    }

    /// One read of a page, or one stream from its beginning to its end; when the next attempt is due.
    async fn attempt(&self, target: &Target, memory: &mut Memory) -> Instant {
        let begun_at = Instant::now();
        let was_weir = matches!(memory.kind, Kind::Weir { .. });
        if memory.kind.looks_for_stream(begun_at) {
            match self.open(target).await {
                Ok(Found::Stream(stream)) => return self.follow(target, *stream, memory).await,
                Ok(Found::NoStream) => {
                    if was_weir {
                        self.shared.streams.reconnected(Ended::NOT_OPENED);
                    }
                    let look_again = begun_at + LOOK_AGAIN.mul_f64(1.0 - jitter(&self.key, 0));
                    memory.kind = Kind::Page { look_again };
                }
                Err(failure) => {
                    self.shared.pages.failed(failure.kind);
                    if was_weir {
                        self.shared.streams.reconnected(Ended::NOT_OPENED);
                    }
                    return self.failed(&failure, memory, begun_at);
                }
            }
        }
        let asked_at = Instant::now();
        let read = self.read(target, asked_at).await;
        let now = Instant::now();
        match read {
            Ok(load) => {
                self.shared.pages.succeeded();
                self.book.read(&self.key.name, load, self.shared.interval, now);
                self.recovered(memory, now);
                memory.failures = 0;
                self.schedule.after_success(asked_at, now).at
            }
            Err(failure) => {
                self.shared.pages.failed(failure.kind);
                memory.kind = Kind::Unknown;
                self.failed(&failure, memory, asked_at)
            }
        }
    }

    async fn open(&self, target: &Target) -> Result<Found, ScrapeFailure> {
        let page = target.page.as_ref().map_err(ScrapeFailure::clone)?;
        let url = stream_url(page, &self.key.pool);
        let current = target.connection.current();
        let ready = current.as_ref().as_ref().map_err(|error| ScrapeFailure::new(FailureKind::Tls, url.as_str(), error))?;
        let scraping = &self.shared.scraping;
        open(ready, &url, &self.key.pool, scraping.timeout, scraping.bodies.limit(), &self.shared.streams).await
    }

    async fn read(&self, target: &Target, asked_at: Instant) -> Result<PickerLoad, ScrapeFailure> {
        let url = target.page.as_ref().map_err(ScrapeFailure::clone)?;
        let bodies = &self.shared.scraping.bodies;
        let page = fetch(&target.connection, url, bodies, self.shared.scraping.timeout).await?;
        let read = self.shared.reader.read(&page.bytes, page.format, &self.key.pool.name, asked_at);
        let read = read.map_err(|error| page_failure(&page.url, &error));
        bodies.end(page.bytes);
        read
    }

    /// Follows `stream` to its end.
    async fn follow(&self, target: &Target, mut stream: Stream, memory: &mut Memory) -> Instant {
        let begun_at = Instant::now();
        let mut complained = false;
        let ended = loop {
            let (frame, now) = match stream.next().await {
                Ok(heard) => heard,
                Err(ended) => break ended,
            };
            // Held requests first: they are what somebody waits for.
            self.book.told(&self.key.name, &frame.pickers, now);
            if !self.book.measured(&self.key.name, frame.latencies, now) && !std::mem::replace(&mut complained, true) {
                warn!(pool = %self.key.pool, picker = %self.key.name, "latencies of the stream are not used, they cannot be true: update the older of the two weirs");
            }
            if !matches!(memory.kind, Kind::Weir { .. }) {
                info!(pool = %self.key.pool, picker = %self.key.name, "following the picker's stream");
            }
            memory.kind = Kind::Weir { heard_at: now };
            self.recovered(memory, now);
            for endpoint in frame.endpoints {
                match endpoint.into_load(now) {
                    Ok((address, load, interval)) => self.feeds.leave(&address, Heard { load, interval, heard_at: now }),
                    Err(error) => {
                        self.shared.streams.refused_endpoints.inc();
                        if !std::mem::replace(&mut complained, true) {
                            warn!(pool = %self.key.pool, picker = %self.key.name, %error, "an endpoint of the stream is not used, this weir reads it itself");
                        }
                    }
                }
            }
        };
        drop(stream);
        let now = Instant::now();
        self.shared.streams.reconnected(ended.reason());
        if now.saturating_duration_since(begun_at) > LONGEST_PAUSE {
            memory.failures = 0;
        }
        if ended == Ended::Closed {
            // As it does when its connection gets old.
            debug!(pool = %self.key.pool, picker = %self.key.name, "the picker's stream was closed");
            return self.pause(memory, now, now);
        }
        let url = target.page.as_ref().map(|page| stream_url(page, &self.key.pool).to_string()).unwrap_or_default();
        let what = format!("{ended}; weir reads the pool's endpoints itself until the stream is back");
        self.failed(&ScrapeFailure::new(ended.kind(), &url, &what), memory, now)
    }

    /// Writes down a failed attempt that was begun at `begun_at`; when the next one is due.
    fn failed(&self, failure: &ScrapeFailure, memory: &mut Memory, begun_at: Instant) -> Instant {
        let now = Instant::now();
        // What a stream told counts for a while after its end.
        if memory.kind.is_silent(now) {
            self.book.failed(&self.key.name, failure.kind, &failure.message, now);
        }
        if memory.failing_since.is_none() {
            memory.failing_since = Some(now);
            let kind = failure.kind.label();
            warn!(pool = %self.key.pool, picker = %self.key.name, kind, error = %failure.message, "picker cannot be read");
        }
        self.pause(memory, begun_at, now)
    }

    fn pause(&self, memory: &mut Memory, begun_at: Instant, now: Instant) -> Instant {
        memory.failures = memory.failures.saturating_add(1);
        match memory.kind {
            Kind::Weir { .. } => now + pause(&self.key, memory.failures),
            _ => self.schedule.after_failure(begun_at, now, memory.failures),
        }
    }

    fn recovered(&self, memory: &mut Memory, now: Instant) {
        if let Some(since) = memory.failing_since.take() {
            let seconds = (now - since).as_secs_f64();
            info!(pool = %self.key.pool, picker = %self.key.name, seconds, "picker can be read again");
        }
    }
}

/// The pause before a stream is opened again that has failed `failures` times in a row.
fn pause(key: &PickerKey, failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(1.0 - jitter(key, failures))
}

/// Up to a quarter, another one for each picker and each attempt: what broke together does not come back together.
fn jitter(key: &PickerKey, attempt: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (key, attempt).hash(&mut hasher);
    // The upper 32 bits are exact as a fraction.
    (hasher.finish() >> 32) as f64 / (1_u64 << 32) as f64 / 4.0
}

fn page_failure(url: &Url, error: &PickerPageError) -> ScrapeFailure {
    match error {
        PickerPageError::Page(error) => ScrapeFailure::of_page(url, &error.clone().into()),
        PickerPageError::NotAPicker { .. } => ScrapeFailure::new(FailureKind::NoEngine, url.as_str(), &error.to_string()),
        PickerPageError::Invalid { .. } => ScrapeFailure::new(FailureKind::NotMetrics, url.as_str(), &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use weir_datastore::PoolId;

    use super::*;

    fn key(name: &str) -> PickerKey {
        PickerKey { pool: PoolId::new("default", "p"), name: name.into() }
    }

    #[test]
    fn a_go_picker_is_looked_at_again_after_a_minute_and_after_a_failure() {
        let now = Instant::now();
        let page = Kind::Page { look_again: now + LOOK_AGAIN };
        assert!(Kind::Unknown.looks_for_stream(now) && Kind::Weir { heard_at: now }.looks_for_stream(now));
        assert!(!page.looks_for_stream(now + LOOK_AGAIN - Duration::from_millis(1)));
        assert!(page.looks_for_stream(now + LOOK_AGAIN));
    }

    #[test]
    fn only_what_a_stream_told_outlasts_a_failure_and_not_for_long() {
        let now = Instant::now();
        assert!(Kind::Unknown.is_silent(now) && Kind::Page { look_again: now }.is_silent(now));
        assert!(!Kind::Weir { heard_at: now }.is_silent(now + SILENCE - Duration::from_millis(1)));
        assert!(Kind::Weir { heard_at: now }.is_silent(now + SILENCE));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        for name in ["a", "b", "c"] {
            let key = key(name);
            for failures in 1..40 {
                let full = (FIRST_PAUSE * (1 << (failures - 1).min(10))).min(LONGEST_PAUSE);
                let paused = pause(&key, failures);
                assert!(paused <= full && paused >= full.mul_f64(0.75), "{failures}: {paused:?}");
            }
            assert!(pause(&key, u32::MAX) <= LONGEST_PAUSE);
        }
        assert_ne!(pause(&key("a"), 9), pause(&key("b"), 9));
    }
}
