//! The loop of one endpoint: ask, read, write, wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use weir_datastore::engine::PageReader;
use weir_datastore::{EndpointKey, EndpointLoad, EndpointWriter, codes};

use crate::activity::EndpointActivity;
use crate::asking::{Asking, Told, Turn};
use crate::body::Bodies;
use crate::connection::Connection;
use crate::failure::ScrapeFailure;
use crate::metrics::ScrapeMetrics;
use crate::restrict::NamesInUse;
use crate::schedule::Pace;
use crate::stream::feed::Feed;

/// What all loops share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) timeout: Duration,
    pub(crate) bodies: Bodies,
    pub(crate) names: NamesInUse,
    pub(crate) metrics: ScrapeMetrics,
}

/// One endpoint. Dropping the future of [`EndpointLoop::run`] ends it at any time and leaves nothing behind: a load is written
/// whole or not at all.
pub(crate) struct EndpointLoop {
    pub(crate) writer: EndpointWriter,
    pub(crate) reader: Arc<PageReader>,
    /// Changes when the pool is reached differently.
    pub(crate) connection: watch::Receiver<Arc<Connection>>,
    pub(crate) pace: Pace,
    /// What others know of it.
    pub(crate) activity: EndpointActivity,
    /// Whether discovery says that it takes requests.
    pub(crate) ready: watch::Receiver<bool>,
    /// What other weirs tell of it: while they do, it is not read here.
    pub(crate) feed: Feed,
    /// Whether nobody in this process measures the pool's requests: then the servers' histograms may be wanted.
    pub(crate) reads_latencies: bool,
    pub(crate) shared: Arc<Shared>,
}

impl EndpointLoop {
    pub(crate) async fn run(mut self) {
        let mut asking = Asking::new(self.writer.key());
        let mut told = self.activity.follow();
        let mut run = FailureRun::default();
        let mut lacks = Lacks::default();
        let mut member = self.pace.member();
        // Whether the last good page showed requests, and when it was asked for.
        let mut works = false;
        let mut last_good: Option<Instant> = None;
        let mut wait = Wait {
            until: self.pace.at_work(self.activity.get()).first(Instant::now()),
            asked_at: None,
            may_wake: true,
            may_hurry: true,
        };
        loop {
            let heard = tokio::select! {
                biased;
                heard = self.feed.next() => Some(heard),
                () = wait.over(&self.pace, &mut told, &mut self.ready) => None,
            };
            if let Some(heard) = heard {
                let now = Instant::now();
                if let Some(until) = self.feed.take(&heard, &mut self.writer, now) {
                    (works, last_good) = (shows_requests(&heard.load), None);
                    // What is fed is not read.
                    member.set(false);
                    run.ended(self.writer.key(), now);
                    wait = Wait { until, asked_at: None, may_wake: false, may_hurry: false };
                }
                continue;
            }
            let asked_at = Instant::now();
            self.feed.asking();
            let connection = self.connection.borrow().clone();
            let shared = self.shared.clone();
            let latencies = self.reads_latencies && self.writer.wants_latencies(asked_at);
            let turn = Turn { key: self.writer.key(), reader: &self.reader, connection: &connection, shared: &shared, latencies };
            let outcome = {
                let _under_way = shared.metrics.begin();
                asking.turn(&turn).await
            };
            let now = Instant::now();
            shared.metrics.duration.observe((now - asked_at).as_secs_f64());
            wait = match outcome {
                Ok(Told { load, latencies, trial }) => {
                    shared.metrics.succeeded(load.unused);
                    lacks.told(self.writer.key(), &load, &shared.metrics);
                    if let Some(before) = last_good.replace(load.scraped_at) {
                        shared.metrics.gap.observe((load.scraped_at - before).as_secs_f64());
                    }
                    works = shows_requests(&load);
                    // What is told from here on is news.
                    told.mark_unchanged();
                    let busy = works || self.activity.get();
                    member.set(busy);
                    if let Some(latencies) = latencies {
                        self.writer.latencies(latencies, load.scraped_at);
                    }
                    self.writer.succeeded(load, self.pace.at_work(busy).interval());
                    run.ended(self.writer.key(), now);
                    if let Some(trial) = trial {
                        let turn = Turn {
                            key: self.writer.key(),
                            reader: &self.reader,
                            connection: &connection,
                            shared: &shared,
                            latencies: false,
                        };
                        asking.try_restricted(&turn, trial).await;
                    }
                    let next = self.pace.at_work(busy).after_success(asked_at, Instant::now());
                    shared.metrics.overdue.inc_by(next.missed);
                    Wait { until: next.at, asked_at: Some(asked_at), may_wake: !busy, may_hurry: false }
                }
                Err(failure) => {
                    shared.metrics.failed(&failure);
                    self.writer.failed(failure.kind, &failure.message, now);
                    run.goes_on(self.writer.key(), &failure, now);
                    member.set(false);
                    let schedule = self.pace.at_work(works || self.activity.get());
                    let until = schedule.after_failure(asked_at, now, run.attempts);
                    // An endpoint that fails is left alone, whoever wants it to work; until it says itself that it is ready.
                    Wait { until, asked_at: Some(asked_at), may_wake: false, may_hurry: true }
                }
            };
        }
    }
}

fn shows_requests(load: &EndpointLoad) -> bool {
    [load.running, load.waiting].into_iter().flatten().any(|requests| requests.value > 0.0)
}

/// What lies before the next read.
struct Wait {
    until: Instant,
    /// When the endpoint was last read.
    asked_at: Option<Instant>,
    /// Whether the endpoint is read sooner once it is told to be at work.
    may_wake: bool,
    /// Whether it has not told anything yet, and is read at once when it becomes ready: until then its pool's totals are unknown.
    may_hurry: bool,
}

impl Wait {
    /// Nothing is lost where the future is dropped.
    async fn over(&mut self, pace: &Pace, told: &mut watch::Receiver<bool>, ready: &mut watch::Receiver<bool>) {
        while self.may_wake || self.may_hurry {
            tokio::select! {
                () = sleep_until(self.until) => return,
                changed = ready.changed(), if self.may_hurry => {
                    let became_ready = changed.is_ok() && *ready.borrow_and_update();
                    if became_ready {
                        self.until = self.until.min(pace.hurried(Instant::now()));
                    }
                    // The sender goes when the endpoint goes, and this loop with it.
                    self.may_hurry = changed.is_ok() && !became_ready;
                }
                changed = told.changed(), if self.may_wake => {
                    // It idled before, so it works now, or did: a request that ended at once may be one that failed.
                    if changed.is_ok() {
                        self.until = self.until.min(pace.woken(self.asked_at, Instant::now()));
                    }
                    // Whoever tells cannot go away: the loop holds the cell too.
                    self.may_wake = false;
                }
            }
        }
        sleep_until(self.until).await;
    }
}

/// What good pages lack, or have of long ago: logged when it changes, counted with each page.
#[derive(Default)]
struct Lacks(Option<&'static str>);

impl Lacks {
    fn told(&mut self, key: &EndpointKey, load: &EndpointLoad, metrics: &ScrapeMetrics) {
        let missing = load.lacks();
        let code = match (load.unused.outdated, missing.is_empty()) {
            (0, true) => None,
            (0, false) => Some(codes::PAGE_FAMILY_MISSING),
            _ => Some(codes::PAGE_STALE),
        };
        code.into_iter().for_each(|code| metrics.troubled(code));
        if code == self.0 {
            return;
        }
        self.0 = code;
        match code {
            Some(code) => warn!(
                pool = %key.pool, address = %key.address, code, engine = load.engine.name(), missing = missing.join(", "),
                outdated = load.unused.outdated, "a page does not tell all: what it lacks is unknown, not zero"
            ),
            None => info!(pool = %key.pool, address = %key.address, "the page tells all again"),
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
            warn!(pool = %key.pool, address = %key.address, code = failure.code, kind, error = %failure.message, "scrape failed");
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
