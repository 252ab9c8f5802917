//! Following a pools file while it changes.
//!
//! The content is read every second and compared, whatever happened to the file: edited in place, renamed over, reached through a
//! ConfigMap's symbolic links. What changed is taken once two reads a moment apart agree, so that a half-written file is not taken
//! for a shorter one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::problem::PoolsFileError;
use super::{Loaded, pools, read};
use crate::access::WantedPool;
use crate::counted::Counted;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Between two reads that must agree.
const SETTLING: Duration = Duration::from_millis(100);

/// The task that follows a pools file.
#[derive(Debug)]
pub struct PoolsFileWatcher {
    path: PathBuf,
    poll_interval: Duration,
    /// The content in force.
    good: Vec<u8>,
    /// What is there instead, if it is not good.
    bad: Option<Bad>,
    pools: watch::Sender<Arc<Vec<WantedPool>>>,
    valid: Gauge,
    reloads: Counted,
}

#[derive(Debug)]
enum Bad {
    Unreadable(String),
    Invalid {
        content: Vec<u8>,
        error: String,
        /// The same content may become good: look at it again.
        may_heal: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// A new version is in force.
    Applied,
    /// The version in force is back after one that was not good.
    Restored,
    /// A new version is not good.
    Invalid,
    /// The file is gone or cannot be read.
    Unreadable,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Applied, Self::Restored, Self::Invalid, Self::Unreadable];

    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Restored => "restored",
            Self::Invalid => "invalid",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Loaded {
    /// A task that follows the file, and its pools as they become: what [`Collector::run`](crate::Collector::run) takes.
    pub fn watch(self, registry: &mut Registry) -> (PoolsFileWatcher, watch::Receiver<Arc<Vec<WantedPool>>>) {
        let (sender, receiver) = watch::channel(self.pools);
        let valid = Gauge::<i64>::default();
        valid.set(1);
        let help = "Whether the pools file is good as it is now; 0: the last good version is in force";
        registry.register("weir_pools_file_valid", help, valid.clone());
        let help = "Changes of the pools file seen, by what came of them";
        let outcomes = Outcome::ALL.map(Outcome::label);
        let reloads = Counted::register(registry, "weir_pools_file_reloads", help, "outcome", outcomes);
        let watcher = PoolsFileWatcher {
            path: self.path,
            poll_interval: POLL_INTERVAL,
            good: self.content,
            bad: None,
            pools: sender,
            valid,
            reloads,
        };
        (watcher, receiver)
    }
}

impl PoolsFileWatcher {
    /// Looks at the file every `interval` instead of every second.
    #[must_use]
    pub fn poll_every(self, interval: Duration) -> Self {
        Self { poll_interval: interval.max(Duration::from_millis(1)), ..self }
    }

    /// Follows the file until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(self.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let follow = async {
            loop {
                ticks.tick().await;
                self.look().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow => {}
        }
    }

    pub(super) async fn look(&mut self) {
        let content = match self.read().await {
            Ok(content) => content,
            // A rename may leave nothing there for a moment.
            Err(_) => {
                sleep(SETTLING).await;
                match self.read().await {
                    Ok(content) => content,
                    Err(error) => return self.found_unreadable(&error),
                }
            }
        };
        if content == self.good {
            if self.bad.take().is_some() {
                self.count(Outcome::Restored);
                info!(file = %self.path.display(), "pools file is as it was again");
            }
            return;
        }
        if let Some(Bad::Invalid { content: known, may_heal: false, .. }) = &self.bad
            && *known == content
        {
            return;
        }
        sleep(SETTLING).await;
        if !self.read().await.is_ok_and(|again| again == content) {
            return;
        }
        let (path, bytes) = (self.path.clone(), content.clone());
        match spawn_blocking(move || pools::parse(&path, &bytes)).await {
            Ok(Ok(pools)) => self.found_good(content, pools),
            Ok(Err(error)) => self.found_invalid(content, &error),
            // Only a panic, or the end of the runtime: the last good version stays either way.
            Err(error) => warn!(file = %self.path.display(), %error, "pools file could not be looked at"),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, PoolsFileError> {
        let path = self.path.clone();
        let unreadable = |error| PoolsFileError::Unreadable { path: self.path.clone(), source: std::io::Error::other(error) };
        spawn_blocking(move || read(&path)).await.unwrap_or_else(|error| Err(unreadable(error)))
    }

    fn found_good(&mut self, content: Vec<u8>, pools: Vec<WantedPool>) {
        let endpoints: usize = pools.iter().map(|pool| pool.spec.endpoints.len()).sum();
        info!(file = %self.path.display(), pools = pools.len(), endpoints, "pools file read again");
        self.good = content;
        self.bad = None;
        self.pools.send_replace(Arc::new(pools));
        self.count(Outcome::Applied);
    }

    fn found_invalid(&mut self, content: Vec<u8>, error: &PoolsFileError) {
        let text = error.to_string();
        // Told once for each version, and where another file heals, once for each thing that is left.
        let told = matches!(&self.bad, Some(Bad::Invalid { content: known, error, .. }) if *known == content && *error == text);
        if !told {
            warn!(file = %self.path.display(), error = %text, "pools file is not good, the last good version stays");
            self.count(Outcome::Invalid);
        }
        self.bad = Some(Bad::Invalid { content, error: text, may_heal: error.may_heal() });
    }

    fn found_unreadable(&mut self, error: &PoolsFileError) {
        let text = error.to_string();
        if !matches!(&self.bad, Some(Bad::Unreadable(known)) if *known == text) {
            warn!(file = %self.path.display(), error = %text, "pools file cannot be read, the last good version stays");
            self.count(Outcome::Unreadable);
        }
        self.bad = Some(Bad::Unreadable(text));
    }

    fn count(&self, outcome: Outcome) {
        self.valid.set(match outcome {
            Outcome::Applied | Outcome::Restored => 1,
            Outcome::Invalid | Outcome::Unreadable => 0,
        });
        self.reloads.count(outcome.label());
    }
}
