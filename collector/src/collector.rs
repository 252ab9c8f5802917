//! The owner of the topology and of every endpoint's loop.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_datastore::engine::{CustomFamily, Engine, PageReader};
use weir_datastore::picker::PickerPageReader;
use weir_datastore::{
    EndpointKey, EndpointState, EndpointWriter, FRESH_AT_MOST, PickerKey, PickerWriter, PoolId, PoolSpec, Scheme, TopologyWriter,
};

use crate::access::WantedPool;
use crate::activity::Activity;
use crate::body::Bodies;
use crate::connection::{Connection, ConnectionKey, Refreshed};
use crate::crowd::Crowd;
use crate::fetch::{DEFAULT_MAX_BODY_BYTES, DEFAULT_TIMEOUT, parse_url};
use crate::metrics::ScrapeMetrics;
use crate::picker::book::Book;
use crate::picker::{PickerLoop, PickerMetrics, PickerShared, Target};
use crate::restrict::NamesInUse;
use crate::schedule::{Pace, Schedule};
use crate::scrape::{EndpointLoop, Shared};
use crate::stream::feed::{Feed, Feeds};
use crate::stream::metrics::StreamMetrics;

/// The longest interval: three of them are how long a page counts, and no value may be older than 5 s.
const LONGEST_INTERVAL: Duration = Duration::from_millis(1600);
/// The shortest interval: below it a Python server does little but write pages.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);

/// How the collector reads endpoints.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// How often an endpoint is read while its last page showed requests, running or waiting, or [`Activity`] says that it has
    /// some: 20 ms to the idle interval. Default: 1 s.
    pub busy_interval: Duration,
    /// How many pages of endpoints at work are read a second, at most: beyond it the busy interval is stretched for all of them, up
    /// to the idle one. Default: as many as there are.
    pub most_busy_reads: Option<NonZeroU32>,
    /// How often an endpoint is read otherwise: 20 ms to 1.6 s. Default: 1 s.
    pub idle_interval: Duration,
    /// The time in which a page must have been read: at most 5 s. Default: 1 s.
    pub timeout: Duration,
    /// The largest page in bytes, packed and unpacked. Default: 16 MiB.
    pub max_body_bytes: usize,
    /// How often files of certificates and tokens are looked at. Default: 10 s.
    pub credentials_interval: Duration,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self {
            busy_interval: Duration::from_secs(1),
            most_busy_reads: None,
            idle_interval: Duration::from_secs(1),
            timeout: DEFAULT_TIMEOUT,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            credentials_interval: Duration::from_secs(10),
        }
    }
}

/// A configuration that cannot be worked with: to be corrected by whoever gave it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigError {
    /// The interval is out of bounds.
    #[error(
        "scrape interval {given:?}: it must lie between {SHORTEST_INTERVAL:?} and {LONGEST_INTERVAL:?}, for a page counts for three intervals and no value may be older than {FRESH_AT_MOST:?}"
    )]
    Interval {
        /// What was given.
        given: Duration,
    },
    /// An endpoint at work would be read less often than one that idles.
    #[error("scrape interval of busy endpoints {busy:?}: it must not be above that of idle ones, {idle:?}")]
    BusyInterval {
        /// What was given for endpoints at work.
        busy: Duration,
        /// What was given for the others.
        idle: Duration,
    },
    /// The timeout is out of bounds.
    #[error("scrape timeout {given:?}: it must be above 0 and at most {FRESH_AT_MOST:?}, beyond which a page is too old to count")]
    Timeout {
        /// What was given.
        given: Duration,
    },
    /// No page would fit.
    #[error("largest page of {given} bytes: a model server's page has 57 to 350 KB, allow at least {least}")]
    MaxBodyBytes {
        /// What was given.
        given: usize,
        /// The smallest limit.
        least: usize,
    },
    /// The path of pages is none.
    #[error("path of metrics pages: {reason}")]
    Path {
        /// What is wrong with it.
        reason: String,
    },
    /// No annotation begins like that.
    #[error("annotation prefix `{given}`: it must be a domain and `/`, as `weir.internal/`")]
    AnnotationPrefix {
        /// What was given.
        given: String,
    },
    /// The files would be read all the time.
    #[error("credentials interval {given:?}: it must be at least {least:?}")]
    CredentialsInterval {
        /// What was given.
        given: Duration,
        /// The shortest.
        least: Duration,
    },
}

impl CollectorConfig {
    /// The same, reading every endpoint every `interval`, at work or not.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { busy_interval: interval, idle_interval: interval, ..self }
    }

    fn check(&self) -> Result<(), ConfigError> {
        const LEAST_BODY: usize = 64 * 1024;
        const LEAST_CREDENTIALS: Duration = Duration::from_millis(10);
        let (busy, idle) = (self.busy_interval, self.idle_interval);
        for given in [busy, idle] {
            if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&given) {
                return Err(ConfigError::Interval { given });
            }
        }
        if busy > idle {
            return Err(ConfigError::BusyInterval { busy, idle });
        }
        if self.timeout.is_zero() || self.timeout > FRESH_AT_MOST {
            return Err(ConfigError::Timeout { given: self.timeout });
        }
        if self.max_body_bytes < LEAST_BODY {
            return Err(ConfigError::MaxBodyBytes { given: self.max_body_bytes, least: LEAST_BODY });
        }
        if self.credentials_interval < LEAST_CREDENTIALS {
            return Err(ConfigError::CredentialsInterval { given: self.credentials_interval, least: LEAST_CREDENTIALS });
        }
        Ok(())
    }
}

/// Keeps the datastore's topology as wanted, and one loop per endpoint.
pub struct Collector {
    credentials_interval: Duration,
    busy_interval: Duration,
    idle_interval: Duration,
    crowd: Crowd,
    activity: Activity,
    topology: TopologyWriter,
    shared: Arc<Shared>,
    /// All schedules count from here.
    origin: Instant,
    /// Endpoints of one kind share a reader.
    readers: HashMap<ReaderKey, Arc<PageReader>>,
    connections: HashMap<ConnectionKey, Followed>,
    pools: HashMap<PoolId, PoolState>,
    endpoints: HashMap<EndpointKey, RunningEndpoint>,
    picker_shared: PickerShared,
    pickers: HashMap<PickerKey, RunningPicker>,
    own_picker: Option<OwnPicker>,
    tasks: JoinSet<()>,
}

type ReaderKey = (Option<Engine>, Arc<[CustomFamily]>);

/// A connection, and the task that follows its files if it has any.
struct Followed {
    connection: Arc<Connection>,
    task: Option<AbortHandle>,
}

/// What the loops of one pool share.
struct PoolState {
    connection: watch::Sender<Arc<Connection>>,
    /// What streams leave for its endpoints.
    feeds: Arc<Feeds>,
    /// What its pickers told.
    book: Arc<Book>,
}

struct RunningEndpoint {
    /// Whether discovery says that it takes requests.
    ready: watch::Sender<bool>,
    task: AbortHandle,
}

/// The picker in this process.
struct OwnPicker {
    name: Arc<str>,
    writers: mpsc::UnboundedSender<PickerWriter>,
}

struct RunningPicker {
    target: watch::Sender<Target>,
    task: AbortHandle,
}

impl Collector {
    /// A collector that writes through `topology` and counts what it does in `registry`.
    ///
    /// # Errors
    /// [`ConfigError`] where `config` is out of bounds.
    pub fn new(config: CollectorConfig, topology: TopologyWriter, registry: &mut Registry) -> Result<Self, ConfigError> {
        config.check()?;
        let shared = Shared {
            timeout: config.timeout,
            bodies: Bodies::new(config.max_body_bytes),
            names: NamesInUse::default(),
            metrics: ScrapeMetrics::register(registry),
        };
        let shared = Arc::new(shared);
        let picker_shared = PickerShared {
            scraping: shared.clone(),
            pages: PickerMetrics::register(registry),
            streams: StreamMetrics::register(registry),
            reader: Arc::new(PickerPageReader::default()),
            interval: config.idle_interval,
        };
        Ok(Self {
            credentials_interval: config.credentials_interval,
            busy_interval: config.busy_interval,
            idle_interval: config.idle_interval,
            crowd: Crowd::new(config.most_busy_reads),
            activity: Activity::default(),
            topology,
            shared,
            origin: Instant::now(),
            readers: HashMap::new(),
            connections: HashMap::new(),
            pools: HashMap::new(),
            endpoints: HashMap::new(),
            picker_shared,
            pickers: HashMap::new(),
            own_picker: None,
            tasks: JoinSet::new(),
        })
    }

    /// Through which it is told which endpoints have requests in flight.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// A picker in this process, called `name`, belongs to every pool from now on. It writes what it says of itself through what
    /// comes out here: one writer for each pool, and another one for a pool that was away. What others tell of a picker with this
    /// name is passed over.
    pub fn own_picker(&mut self, name: Arc<str>) -> mpsc::UnboundedReceiver<PickerWriter> {
        let (writers, receiver) = mpsc::unbounded_channel();
        self.own_picker = Some(OwnPicker { name, writers });
        receiver
    }

    /// Reads what is `wanted`, until `shutdown`: then every task has ended. Where whoever says what is wanted goes away, the last
    /// that was wanted stays. Of two pools with one name the last counts.
    pub async fn run(mut self, mut wanted: watch::Receiver<Arc<Vec<WantedPool>>>, shutdown: CancellationToken) {
        let pools = wanted.borrow_and_update().clone();
        self.apply(&pools).await;
        let mut followed = true;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = wanted.changed(), if followed => match changed {
                    Ok(()) => {
                        let pools = wanted.borrow_and_update().clone();
                        self.apply(&pools).await;
                    }
                    Err(_) => {
                        followed = false;
                        warn!("discovery has ended, the last pools stay");
                    }
                },
                Some(ended) = self.tasks.join_next() => report_panic(ended),
            }
        }
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            report_panic(ended);
        }
        self.shared.metrics.endpoints.set(0);
    }

    async fn apply(&mut self, wanted: &[WantedPool]) {
        let specs: Vec<_> = wanted.iter().map(|pool| self.with_own_picker(pool.spec.clone())).collect();
        let sources: HashMap<_, _> = specs.iter().map(|spec| (spec.id.clone(), spec.pickers.clone())).collect();
        let wanted: HashMap<_, _> = wanted.iter().map(|pool| (&pool.spec.id, pool)).collect();
        let mut used = HashSet::new();
        let mut targets = HashMap::new();
        for (id, pool) in &wanted {
            let key = ConnectionKey { scheme: pool.spec.metrics.scheme, access: pool.access.clone() };
            let connection = self.connection(&key).await;
            used.insert(key);
            for picker in &pool.pickers {
                let page = parse_url(&picker.url);
                let scheme = page.as_ref().map_or(Scheme::Http, |(_, scheme)| *scheme);
                let key = ConnectionKey { scheme, access: picker.access.clone() };
                let target = Target { page: page.map(|(url, _)| url), connection: self.connection(&key).await };
                used.insert(key);
                targets.insert(PickerKey { pool: (*id).clone(), name: picker.name.clone() }, target);
            }
            let state = self.pools.entry((*id).clone()).or_insert_with(|| PoolState::new(connection.clone()));
            state.connection.send_if_modified(|known| {
                let changed = !Arc::ptr_eq(known, &connection);
                *known = connection;
                changed
            });
            // Before the topology changes: what a source told that goes is counted by another one first.
            state.book.configure(sources.get(*id).into_iter().flatten().flatten().cloned(), Instant::now());
        }
        let change = self.topology.replace_all(specs, Instant::now());
        for gone in &change.removed {
            if let Some(running) = self.endpoints.remove(gone) {
                running.task.abort();
            }
        }
        self.pools.retain(|id, _| wanted.contains_key(id));
        for (id, state) in &self.pools {
            let addresses = wanted.get(id).into_iter().flat_map(|pool| &pool.spec.endpoints);
            state.feeds.retain(&addresses.map(|endpoint| &endpoint.address).collect());
        }
        self.connections.retain(|key, followed| {
            let keep = used.contains(key);
            if !keep && let Some(task) = &followed.task {
                task.abort();
            }
            keep
        });
        // Each loop holds its own: what only the map holds is of no use any more.
        self.readers.retain(|_, reader| Arc::strong_count(reader) > 1);
        let (added, removed) = (change.added.len(), change.removed.len());
        let mut ready = HashSet::new();
        for pool in wanted.values() {
            for endpoint in pool.spec.endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Ready) {
                ready.insert(EndpointKey::of(&pool.spec.id, &pool.spec.metrics, endpoint));
            }
        }
        for (key, running) in &self.endpoints {
            let ready = ready.contains(key);
            running.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        }
        for writer in change.added {
            let ready = ready.contains(writer.key());
            self.start(writer, ready);
        }
        for writer in change.added_pickers {
            match (&self.own_picker, self.pools.get(&writer.key().pool)) {
                // Where nobody takes it the picker has ended, and goes stale.
                (Some(own), _) if own.name == writer.key().name => drop(own.writers.send(writer)),
                (_, Some(state)) => state.book.add(writer),
                (_, None) => {}
            }
        }
        self.apply_pickers(targets);
        self.shared.metrics.endpoints.set(i64::try_from(self.endpoints.len()).unwrap_or(i64::MAX));
        if added + removed > 0 {
            info!(pools = self.pools.len(), endpoints = self.endpoints.len(), added, removed, "endpoints changed");
        }
    }

    fn with_own_picker(&self, mut spec: PoolSpec) -> PoolSpec {
        if let Some(own) = &self.own_picker {
            let pickers = spec.pickers.get_or_insert_default();
            pickers.retain(|name| *name != own.name);
            pickers.push(own.name.clone());
        }
        spec
    }

    fn start(&mut self, writer: EndpointWriter, ready: bool) {
        let key = writer.key().clone();
        let Some(state) = self.pools.get(&key.pool) else { return };
        let reader_key = (key.metrics.engine, key.metrics.families.clone());
        let reader =
            self.readers.entry(reader_key).or_insert_with_key(|(engine, families)| Arc::new(PageReader::new(*engine, families)));
        let pace = Pace::new(self.origin, self.busy_interval, self.idle_interval, &key, self.crowd.clone());
        let activity = self.activity.endpoint(&key.pool, &key.address);
        let feed = Feed::new(state.feeds.of(&key.address), self.shared.timeout, self.picker_shared.streams.clone());
        let (reader, connection, shared) = (reader.clone(), state.connection.subscribe(), self.shared.clone());
        let (sender, ready) = watch::channel(ready);
        let reads_latencies = self.own_picker.is_none();
        let task = EndpointLoop { writer, reader, connection, pace, activity, ready, feed, reads_latencies, shared };
        self.endpoints.insert(key, RunningEndpoint { ready: sender, task: self.tasks.spawn(task.run()) });
    }

    /// Makes the pickers at `targets` all that are read.
    fn apply_pickers(&mut self, mut targets: HashMap<PickerKey, Target>) {
        self.pickers.retain(|key, running| match targets.remove(key) {
            Some(target) => {
                running.target.send_if_modified(|known| {
                    let changed = !known.is(&target);
                    *known = target;
                    changed
                });
                true
            }
            None => {
                running.task.abort();
                false
            }
        });
        for (key, target) in targets {
            let Some(state) = self.pools.get(&key.pool) else { continue };
            let (sender, target) = watch::channel(target);
            let picker = PickerLoop {
                key: key.clone(),
                target,
                book: state.book.clone(),
                feeds: state.feeds.clone(),
                schedule: Schedule::new(self.origin, self.picker_shared.interval, &key),
                shared: self.picker_shared.clone(),
            };
            self.pickers.insert(key, RunningPicker { target: sender, task: self.tasks.spawn(picker.run()) });
        }
    }

    async fn connection(&mut self, key: &ConnectionKey) -> Arc<Connection> {
        if let Some(known) = self.connections.get(key) {
            return known.connection.clone();
        }
        let (opened_key, timeout) = (key.clone(), self.shared.timeout);
        let connection = Arc::new(blocking(move || Connection::open(opened_key, timeout)).await);
        if let Err(error) = connection.current().as_ref() {
            warn!(%error, "credentials cannot be used");
        }
        // One that could not be set up is tried again: the files or the system's certificates may come.
        let follow = connection.has_files() || !connection.is_usable();
        let task = follow.then(|| self.tasks.spawn(follow_files(connection.clone(), self.credentials_interval)));
        self.connections.insert(key.clone(), Followed { connection: connection.clone(), task });
        connection
    }
}

impl PoolState {
    fn new(connection: Arc<Connection>) -> Self {
        Self { connection: watch::Sender::new(connection), feeds: Arc::default(), book: Arc::default() }
    }
}

/// Looks at a connection's files now and then; logs when something changed.
async fn follow_files(connection: Arc<Connection>, interval: Duration) {
    let mut complained = !connection.is_usable();
    loop {
        sleep(interval).await;
        let looked_at = connection.clone();
        match blocking(move || looked_at.refresh()).await {
            Refreshed::Same => complained = false,
            Refreshed::Renewed => {
                complained = false;
                info!("credentials were read again");
            }
            Refreshed::Kept(error) if !complained => {
                complained = true;
                warn!(%error, "credentials cannot be read again, the last ones stay");
            }
            Refreshed::Kept(_) | Refreshed::Unusable(_) => {}
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime goes away, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(failed) = ended
        && failed.is_panic()
    {
        error!(error = %failed, "a task of the collector has panicked: its endpoint or picker goes stale until it is removed and added again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_out_of_bounds_is_refused() {
        let check = |change: fn(&mut CollectorConfig)| {
            let mut config = CollectorConfig::default();
            change(&mut config);
            Collector::new(config, weir_datastore::datastore().1, &mut Registry::default()).map(drop)
        };
        assert_eq!(check(|_| {}), Ok(()));
        assert_eq!(check(|config| config.idle_interval = LONGEST_INTERVAL), Ok(()));
        assert_eq!(check(|config| config.busy_interval = SHORTEST_INTERVAL), Ok(()));
        let too_long = check(|config| *config = config.clone().every(Duration::from_millis(1601))).unwrap_err();
        assert!(too_long.to_string().contains("no value may be older than 5s"), "{too_long}");
        assert!(matches!(check(|config| config.busy_interval = Duration::from_millis(19)), Err(ConfigError::Interval { .. })));
        let reversed = check(|config| config.busy_interval = LONGEST_INTERVAL);
        assert!(matches!(reversed, Err(ConfigError::BusyInterval { .. })));
        assert!(matches!(check(|config| config.timeout = Duration::ZERO), Err(ConfigError::Timeout { .. })));
        assert!(matches!(check(|config| config.timeout = Duration::from_secs(6)), Err(ConfigError::Timeout { .. })));
        assert!(matches!(check(|config| config.max_body_bytes = 1), Err(ConfigError::MaxBodyBytes { .. })));
        let busy = check(|config| config.credentials_interval = Duration::ZERO);
        assert!(matches!(busy, Err(ConfigError::CredentialsInterval { .. })));
    }
}
