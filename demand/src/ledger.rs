//! All pools: a turn of each every second, and the documents in which what they learn is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_datastore::{Datastore, PoolId, RequiredOptions, RequiredWriter};
use weir_hpa::required::{Learned, Level, Options};

use crate::documents::{Document, LeftOut, MOST_BYTES, Texts, key, renewed};
use crate::metrics::DemandMetrics;
use crate::pool::{PoolDemand, chosen};

/// Between two turns.
const TURN: Duration = Duration::from_secs(1);

/// The levels of all pools. Clones share everything.
#[derive(Clone, Debug)]
pub struct Ledger {
    inner: Arc<Mutex<Inner>>,
    metrics: DemandMetrics,
}

#[derive(Debug, Default)]
struct Inner {
    /// What counts for all pools that say nothing else.
    options: RequiredOptions,
    pools: BTreeMap<PoolId, PoolDemand>,
    documents: BTreeMap<String, Document>,
    /// Where documents are kept, in words; none: nowhere.
    place: Option<String>,
    left_out: LeftOut,
}

/// What is shown of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) level: Level,
    /// Why it is not told, where it is known.
    pub(crate) reserve: Option<String>,
    /// How long ago it was computed.
    pub(crate) age: Duration,
    pub(crate) options: Options,
    pub(crate) servers: Option<String>,
    pub(crate) learned: Learned,
    /// Where that is kept, and under which key.
    pub(crate) kept: Option<(String, Option<String>)>,
    /// What was read there.
    pub(crate) document: Option<Learned>,
    pub(crate) problem: Option<String>,
}

impl Ledger {
    /// A ledger of no pools. `options` are those of pools that say nothing else.
    pub fn new(options: RequiredOptions, metrics: DemandMetrics) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { options, ..Inner::default() })), metrics }
    }

    /// A turn of every pool each second, until `stop`. `unix` is `origin` since the Unix epoch.
    pub async fn run(self, store: Datastore, mut writer: RequiredWriter, origin: Instant, unix: Duration, stop: CancellationToken) {
        let mut ticks = interval(TURN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = Instant::now();
            self.turn(&store, &mut writer, now, unix + now.saturating_duration_since(origin));
        }
    }

    /// A turn of every pool at `now`, which is `unix` since the Unix epoch. Pools that are gone are forgotten; their documents stay.
    pub fn turn(&self, store: &Datastore, writer: &mut RequiredWriter, now: Instant, unix: Duration) {
        let snapshots = store.snapshots(now);
        let mut inner = self.lock();
        let Inner { options, pools, documents, .. } = &mut *inner;
        pools.retain(|id, _| snapshots.binary_search_by(|snapshot| snapshot.id.cmp(id)).is_ok());
        for snapshot in &snapshots {
            let kept = || key(&snapshot.id).and_then(|key| documents.get(&key)?.learned.as_ref().ok());
            let pool =
                pools.entry(snapshot.id.clone()).or_insert_with(|| PoolDemand::new(chosen(snapshot.options.or(*options)), kept()));
            let before = pool.servers().map(str::to_owned);
            pool.turn(snapshot, unix, kept(), *options);
            let (level, age) = match (&pool.level, pool.reserve()) {
                (Some(Level::Known(_)), Some(reserve)) => (Err(Arc::from(reserve)), Duration::ZERO),
                (Some(Level::Known(known)), None) => (Ok(known.replicas), unix.saturating_sub(known.at)),
                (Some(Level::Unknown(cause)), _) => (Err(Arc::from(cause.to_string())), Duration::ZERO),
                (None, _) => continue,
            };
            if let (Some(before), Some(servers)) = (before, pool.servers())
                && before != servers
            {
                info!(pool = %snapshot.id, before, servers, "the pool has other servers: what they can do is learned anew");
            }
            writer.write(&snapshot.id, level, age, now);
        }
        self.metrics.pools(pools.values().filter_map(|pool| pool.level.as_ref()));
    }

    /// Says where documents are kept.
    pub(crate) fn kept_in(&self, place: String) {
        self.lock().place = Some(place);
    }

    /// Takes over what is kept now. What differs from what was known is learned from there; what is there no longer is forgotten.
    pub(crate) fn read(&self, texts: &Texts) {
        let mut inner = self.lock();
        let place = inner.place.clone().unwrap_or_default();
        let Inner { pools, documents, .. } = &mut *inner;
        let mut by_key: BTreeMap<String, (&PoolId, &mut PoolDemand)> =
            pools.iter_mut().filter_map(|(id, pool)| Some((key(id)?, (id, pool)))).collect();
        documents.retain(|key, _| {
            let stays = texts.contains_key(key);
            if !stays && let Some((id, pool)) = by_key.get_mut(key) {
                pool.forget();
                info!(pool = %id, key, "what was learned is deleted: it is learned anew");
            }
            stays
        });
        for (key, text) in texts {
            if documents.get(key).is_some_and(|known| known.text == *text) {
                continue;
            }
            let document = Document::read(text);
            match (&document.learned, by_key.get_mut(key)) {
                (Err(problem), _) => error!(
                    place,
                    key, problem, "what was learned cannot be used, and is left as it is: delete the key, and it is learned anew"
                ),
                (Ok(learned), Some((id, pool))) => {
                    pool.take_over(learned);
                    if let Some(problem) = &pool.problem {
                        warn!(pool = %id, place, key, problem, "what was learned is of other servers");
                    }
                }
                (Ok(_), None) => {}
            }
            documents.insert(key.clone(), document);
        }
        self.metrics.documents(documents.values());
    }

    /// What is to be kept instead, where something was learned since.
    pub(crate) fn to_write(&self) -> Option<Texts> {
        let mut inner = self.lock();
        let learned = inner.pools.iter().filter_map(|(id, pool)| Some((key(id)?, pool.learned()))).collect();
        let (texts, left_out) = renewed(&inner.documents, &learned, MOST_BYTES);
        if left_out != inner.left_out {
            let LeftOut { days, pools } = left_out;
            warn!(
                days,
                pools,
                most = MOST_BYTES,
                "what is learned of so many pools is more than is kept: days and pools are left out"
            );
            inner.left_out = left_out;
        }
        self.metrics.left_out(left_out);
        texts
    }

    /// `texts` were written.
    pub(crate) fn wrote(&self, texts: &Texts) {
        let mut inner = self.lock();
        let known = std::mem::take(&mut inner.documents);
        inner.documents = texts
            .iter()
            .map(|(key, text)| {
                let same = known.get(key).filter(|known| known.text == *text).cloned();
                (key.clone(), same.unwrap_or_else(|| Document::read(text)))
            })
            .collect();
        self.metrics.documents(inner.documents.values());
    }

    /// All that is known of a pool; none of a pool that is not there, or had no turn yet.
    pub(crate) fn show(&self, id: &PoolId, unix: Option<Duration>) -> Option<Shown> {
        let inner = self.lock();
        let pool = inner.pools.get(id)?;
        let key = key(id);
        let document = key.as_ref().and_then(|key| inner.documents.get(key)).map(|document| document.learned.clone());
        let (document, broken) = match document {
            Some(Ok(learned)) => (Some(learned), None),
            Some(Err(problem)) => (None, Some(problem)),
            None => (None, None),
        };
        let level = pool.level.clone()?;
        let at = match &level {
            Level::Known(known) => known.at,
            Level::Unknown(_) => pool.at,
        };
        Some(Shown {
            level,
            reserve: pool.reserve(),
            age: unix.unwrap_or(pool.at).saturating_sub(at),
            options: pool.options(),
            servers: pool.servers().map(str::to_owned),
            learned: pool.learned(),
            kept: inner.place.clone().map(|place| (place, key)),
            document,
            problem: broken.or_else(|| pool.problem.clone()),
        })
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &DemandMetrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
