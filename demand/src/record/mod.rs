//! What arrives at a pool, written to a file that `weir simulate --trace` reads.
//!
//! 1. [`RecordTarget`]: which pool, which file. 2. `lines`: turns into lines, pure. 3. `file`: where they go. 4. [`Recorder`]: a turn a
//!    second, on a task of its own: a disk that is full or slow holds nothing up but the recording.
//!
//! A line has times and lengths; what users write is nowhere in it.

mod file;
mod lines;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_datastore::{Datastore, PoolId, Selector};
use weir_hpa::required::{Cause, Traffic};

use self::file::TraceFile;
use self::lines::{Chunk, Lines};
use crate::observe::{Memory, observe};

/// Between two turns.
const TURN: Duration = Duration::from_secs(1);
/// How often a file that cannot be opened is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Which pool is recorded, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordTarget {
    /// Namespace, if given, and name of the pool; none: the only one there is.
    pool: Option<(Option<String>, String)>,
    /// The trace.
    file: PathBuf,
}

impl FromStr for RecordTarget {
    type Err = String;

    /// `FILE`, `NAME=FILE` or `NAMESPACE/NAME=FILE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            name.bytes().all(allowed) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        };
        let named = text.split_once('=').and_then(|(pool, file)| {
            let (namespace, name) = match pool.split_once('/') {
                Some((namespace, name)) => (Some(namespace), name),
                None => (None, pool),
            };
            let good = is_name(name) && namespace.is_none_or(is_name);
            good.then(|| (Some((namespace.map(str::to_owned), name.to_owned())), file))
        });
        let (pool, file) = named.unwrap_or((None, text));
        if file.is_empty() {
            return Err("a recording needs a file: FILE, or POOL=FILE where there are several pools".to_owned());
        }
        Ok(Self { pool, file: file.into() })
    }
}

impl RecordTarget {
    /// The pool that is meant, of those there are.
    fn of(&self, pools: &[PoolId]) -> Result<PoolId, String> {
        let fits = |id: &&PoolId| match &self.pool {
            None => true,
            Some((namespace, name)) => {
                *id.name == **name && namespace.as_ref().is_none_or(|namespace| *id.namespace == **namespace)
            }
        };
        let found: Vec<&PoolId> = pools.iter().filter(fits).collect();
        let wanted = self.pool.as_ref().map_or("the pool".to_owned(), |(namespace, name)| match namespace {
            Some(namespace) => format!("pool {namespace}/{name}"),
            None => format!("a pool {name}"),
        });
        match &found[..] {
            [one] => Ok((*one).clone()),
            [] => Err(format!("{wanted} is not there yet")),
            several => {
                let named: Vec<String> = several.iter().take(3).map(ToString::to_string).collect();
                let (count, named) = (several.len(), named.join(", "));
                Err(format!("there are {count} such pools ({named}, …): name one, as --record {}=FILE, once for each", several[0]))
            }
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FileLabels {
    file: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SecondsLabels {
    file: String,
    state: &'static str,
}

/// How recordings go.
#[derive(Clone, Debug, Default)]
pub struct RecordMetrics {
    recording: Family<FileLabels, Gauge>,
    requests: Family<FileLabels, Counter>,
    seconds: Family<SecondsLabels, Counter<f64, AtomicU64>>,
    failures: Family<FileLabels, Counter>,
}

impl RecordMetrics {
    /// Registers the `weir_record_…` families.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let mut family = |name, help, metric: Family<FileLabels, Counter>| registry.register(name, help, metric);
        family("weir_record_requests", "Requests written to the trace of --record", metrics.requests.clone());
        family("weir_record_failures", "Times that the trace could not be opened or written", metrics.failures.clone());
        registry.register("weir_record_active", "1 while a trace is written, else 0", metrics.recording.clone());
        registry.register(
            "weir_record_seconds",
            "Seconds of a trace, by state: known, partial (those of them in which some servers could not be read), unknown (left out), lost \
             (could not be written)",
            metrics.seconds.clone(),
        );
        metrics
    }
}

/// A recording under way.
#[derive(Debug)]
struct Open {
    pool: PoolId,
    file: TraceFile,
    lines: Lines,
    traffic: Traffic,
    memory: Memory,
}

/// Records one pool.
#[derive(Debug)]
pub struct Recorder {
    target: RecordTarget,
    metrics: RecordMetrics,
    open: Option<Open>,
    /// What went wrong last, said once.
    problem: Option<String>,
    tried: Option<Instant>,
    /// Seconds that could not be written since the last that could.
    lost: f64,
    ended: bool,
}

impl Recorder {
    /// Records what `target` says.
    pub fn new(target: RecordTarget, metrics: RecordMetrics) -> Self {
        Self { target, metrics, open: None, problem: None, tried: None, lost: 0.0, ended: false }
    }

    /// A turn each second, until `stop` or until the trace is full. `unix` is `origin` since the Unix epoch.
    pub async fn run(mut self, store: Datastore, origin: Instant, unix: Duration, stop: CancellationToken) {
        let mut ticks = interval(TURN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let store = store.clone();
            // A disk may take its time.
            let turn = tokio::task::spawn_blocking(move || {
                let now = Instant::now();
                self.turn(&store, now, unix + now.saturating_duration_since(origin), last);
                self
            });
            match turn.await {
                Ok(recorder) => self = recorder,
                Err(error) => {
                    error!(%error, "a recording has ended: its task failed");
                    return;
                }
            }
            if last || self.ended {
                return;
            }
        }
    }

    fn file_label(&self) -> FileLabels {
        FileLabels { file: self.target.file.display().to_string() }
    }

    /// One turn; `last`: what waits is written now or never.
    fn turn(&mut self, store: &Datastore, now: Instant, unix: Duration, last: bool) {
        if self.open.is_none() && !last {
            self.begin(store, now, unix);
        }
        let Some(open) = &mut self.open else { return };
        let snapshot = store.snapshot(&open.pool, &Selector::everything(), now);
        let arrived = match &snapshot {
            Some(snapshot) => open.traffic.turn(&observe(snapshot, &mut open.memory, unix)),
            None => Err(Cause::NoTopology),
        };
        let mut chunk = open.lines.turn(unix, arrived);
        if last {
            let rest = open.lines.finish();
            chunk.text.push_str(&rest.text);
            chunk.unknown += rest.unknown;
        }
        let full = open.lines.full();
        self.write(&chunk);
        if let Some(full) = full {
            info!(file = %self.target.file.display(), reason = full.words(), "the recording has ended");
            self.ended = true;
        }
        if self.ended || last {
            self.metrics.recording.get_or_create(&self.file_label()).set(0);
        }
    }

    fn begin(&mut self, store: &Datastore, now: Instant, unix: Duration) {
        self.metrics.recording.get_or_create(&self.file_label()).set(0);
        let pool = match self.target.of(&store.pool_ids()) {
            Ok(pool) => pool,
            Err(problem) => {
                self.says(problem);
                return;
            }
        };
        if self.tried.is_some_and(|tried| now.saturating_duration_since(tried) < AGAIN) {
            return;
        }
        self.tried = Some(now);
        match TraceFile::open(&self.target.file, &pool, unix) {
            Ok((mut file, opened)) => {
                let lines = Lines::new(opened.began, opened.requests, unix);
                if let Some(gap) = lines.gap(opened.last)
                    && let Err(error) = file.append(&gap)
                {
                    self.metrics.failures.get_or_create(&self.file_label()).inc();
                    self.says(error.to_string());
                    return;
                }
                self.problem = None;
                info!(file = %self.target.file.display(), %pool, requests = opened.requests, "what arrives is recorded");
                self.metrics.recording.get_or_create(&self.file_label()).set(1);
                self.open = Some(Open { pool, file, lines, traffic: Traffic::default(), memory: Memory::default() });
            }
            Err(error) => {
                self.metrics.failures.get_or_create(&self.file_label()).inc();
                self.says(error.to_string());
            }
        }
    }

    /// Says what keeps it from recording, once.
    fn says(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            warn!(file = %self.target.file.display(), problem, "nothing is recorded until that is mended; all else goes on");
            self.problem = Some(problem);
        }
    }

    fn write(&mut self, chunk: &Chunk) {
        let Some(open) = &mut self.open else { return };
        let mut text = String::new();
        if self.lost > 0.0 {
            text = format!("# {:.0} seconds before this line could not be written\n", self.lost);
        }
        text.push_str(&chunk.text);
        let label = self.target.file.display().to_string();
        let seconds = |state| self.metrics.seconds.get_or_create_owned(&SecondsLabels { file: label.clone(), state });
        let outcome = if text.is_empty() { Ok(()) } else { open.file.append(&text) };
        match outcome {
            Ok(()) => {
                seconds("known").inc_by(chunk.known);
                seconds("partial").inc_by(chunk.partial);
                seconds("unknown").inc_by(chunk.unknown);
                self.metrics.requests.get_or_create(&FileLabels { file: label.clone() }).inc_by(chunk.requests);
                // Nothing to write is no sign that it could be written.
                if !text.is_empty() {
                    if self.problem.take().is_some() {
                        info!(file = label, lost = self.lost, "the trace can be written again");
                    }
                    self.lost = 0.0;
                }
            }
            Err(error) => {
                let seconds_lost = chunk.known + chunk.unknown;
                seconds("lost").inc_by(seconds_lost);
                self.lost += seconds_lost;
                self.metrics.failures.get_or_create(&FileLabels { file: label }).inc();
                self.says(error.to_string());
            }
        }
    }
}
