//! Places requests on the endpoints of one pool: [`PoolDirector`].
//!
//! A request takes one snapshot of the pool and passes it down: candidates (ready, in the gateway's subset), what users say about
//! its model and priority, whether it is shed, then the profile. What is chosen is told at once: to the endpoint's in-flight count,
//! to the prefix index, and to whoever reads pages. A ticket undoes what lasts, whenever and however the request ends.

mod hold;
mod known_models;
mod outlook;
mod place;
mod prompts;
mod refusals;
mod roster;
mod subset;
#[cfg(test)]
mod tests;
mod ticket;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};
use weir_datastore::{Datastore, EndpointAddress, PickerLoad, PickerWriter, PoolId, PoolSnapshot, Selector};

use self::hold::Held;
pub use self::known_models::KnownModels;
use self::prompts::PromptTokens;
use self::roster::Roster;
use crate::flow::{Expectation, Gate};
use crate::inference::{Director, InferenceRequest, Pick, Refusal, Subset};
use crate::metrics::EppMetrics;
use crate::resources::Resources;
use crate::scheduling::prefix::PrefixIndex;
use crate::scheduling::{CandidateSaturation, Evidence, HealthChange, SchedulingConfig, Scratch};

/// How often what the picker says of itself is written, at most.
const PUBLISH_AT_MOST: Duration = Duration::from_millis(100);
/// How often it is written though nothing changed.
const PUBLISH_AT_LEAST: Duration = Duration::from_secs(1);

/// Is told of an endpoint, and gives what is to be told when requests begin to be in flight there and when they no longer are:
/// whoever reads its page wants to read it often meanwhile.
pub type TellActivity = Arc<dyn Fn(&PoolId, &EndpointAddress) -> Box<dyn Fn(bool) + Send + Sync> + Send + Sync>;

/// What a director is for.
#[derive(Clone, Debug)]
pub struct DirectorSettings {
    /// The pool.
    pub pool: PoolId,
    /// How it schedules, to begin with.
    pub scheduling: SchedulingConfig,
    /// Whether the gateway's subset of endpoints counts; upstream's `--disable-endpoint-subset-filter` is false here.
    pub honour_subset: bool,
    /// For how long requests share one snapshot of the pool, for each of its endpoints: [`SNAPSHOT_LASTS`]. At most 5 ms in all;
    /// with zero each takes its own.
    pub snapshot_lasts: Duration,
}

/// [`DirectorSettings::snapshot_lasts`]: 0.1 ms for 10 endpoints, 1 ms for 100.
pub const SNAPSHOT_LASTS: Duration = Duration::from_micros(10);
/// A pool of a thousand is looked at 200 times a second.
const LONGEST_LOOK: Duration = Duration::from_millis(5);

/// Places requests on the endpoints of one pool. Clones share everything.
#[derive(Clone)]
pub struct PoolDirector(Arc<Shared>);

/// The pool at one moment, and what is kept of its endpoints in the same order.
struct View {
    snapshot: PoolSnapshot,
    roster: Arc<Roster>,
    /// Nobody is shown it from then on.
    until: Instant,
}

struct Shared {
    pool: PoolId,
    honour_subset: bool,
    scheduling: ArcSwap<SchedulingConfig>,
    store: Datastore,
    resources: watch::Receiver<Arc<Resources>>,
    metrics: EppMetrics,
    tell: TellActivity,
    everything: Selector,
    roster: ArcSwap<Roster>,
    /// The last look at the pool.
    view: ArcSwapOption<View>,
    snapshot_lasts: Duration,
    /// Held while the roster is made anew.
    renewing: Mutex<()>,
    prefixes: PrefixIndex,
    seeds: Mutex<StdRng>,
    /// Earlier than every moment that is looked at.
    origin: Instant,
    arrivals: AtomicU64,
    prompts: PromptTokens,
    /// Requests that were sent to endpoints, also such that are no longer of the pool, and have not ended.
    in_flight: AtomicU64,
    /// Who waits for room, or for an endpoint.
    gate: Arc<Gate<Held>>,
    expectation: watch::Sender<Expectation>,
    /// What the servers list; requests for other models are refused.
    known_models: ArcSwap<KnownModels>,
    /// Whether any response was ever told of: where the gateway tells of none, their lack is no evidence.
    answers_seen: AtomicBool,
}

impl std::fmt::Debug for PoolDirector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PoolDirector").field("pool", &self.0.pool).finish_non_exhaustive()
    }
}

impl Director for PoolDirector {
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        Box::pin(self.0.direct(request))
    }

    fn instead(&self, request: &InferenceRequest, unreached: &[SocketAddr]) -> Vec<SocketAddr> {
        self.0.instead(request, unreached)
    }

    fn headers(&self) -> Arc<[Arc<str>]> {
        self.0.scheduling.load().headers.clone()
    }

    fn refused(&self, model: Option<&str>, refusal: &Refusal) {
        let model = model.unwrap_or_default();
        self.0.metrics.model(model, model).refused(refusal.code);
    }

    fn ready(&self) -> bool {
        self.0.store.changes(&self.0.pool).is_some()
    }
}

impl PoolDirector {
    /// A director that reads `store` and draws lots from `rng`. `now` is the earliest moment that it will look at.
    pub fn new(
        settings: DirectorSettings,
        store: Datastore,
        resources: watch::Receiver<Arc<Resources>>,
        metrics: EppMetrics,
        tell: TellActivity,
        rng: StdRng,
        now: Instant,
    ) -> Self {
        metrics.configure_models(resources.borrow().model_names());
        let DirectorSettings { pool, scheduling, honour_subset, snapshot_lasts } = settings;
        let gate = Arc::new(Gate::new(scheduling.flow.clone(), metrics.flow.clone(), now));
        Self(Arc::new(Shared {
            pool,
            honour_subset,
            scheduling: ArcSwap::from_pointee(scheduling),
            store,
            resources,
            metrics,
            tell,
            everything: Selector::everything(),
            roster: ArcSwap::default(),
            view: ArcSwapOption::default(),
            snapshot_lasts,
            renewing: Mutex::default(),
            prefixes: PrefixIndex::default(),
            seeds: Mutex::new(rng),
            origin: now,
            arrivals: AtomicU64::new(0),
            prompts: PromptTokens::default(),
            in_flight: AtomicU64::new(0),
            gate,
            expectation: watch::Sender::default(),
            known_models: ArcSwap::default(),
            answers_seen: AtomicBool::new(false),
        }))
    }

    /// Schedules by `config` from now on. What is known of endpoints stays: requests in flight, their prompts, their health; what
    /// plugins remember themselves, such as sessions, does not.
    pub fn reconfigure(&self, config: SchedulingConfig) {
        self.0.metrics.configure_plugins(&config);
        self.0.scheduling.store(Arc::new(config));
        self.0.gate.stir();
    }

    /// What is known to bring the pool its first endpoint: whoever learns of it says so here.
    pub fn expectation(&self) -> &watch::Sender<Expectation> {
        &self.0.expectation
    }

    /// From now on, requests for models that `known` does not have are refused.
    pub fn know_models(&self, known: KnownModels) {
        self.0.known_models.store(Arc::new(known));
    }

    /// Writes what the picker says of itself through the last of `writers` for its pool, at most ten times a second and at least
    /// once, until dropped, and at once when the first request waits; does what no request does: gauges, forgetting.
    pub async fn publish(&self, mut writers: mpsc::UnboundedReceiver<PickerWriter>) {
        let mut ticks = interval(PUBLISH_AT_MOST);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resources = self.0.resources.clone();
        let mut writer: Option<PickerWriter> = None;
        let mut written: Option<PickerLoad> = None;
        loop {
            let rose = tokio::select! {
                _ = ticks.tick() => false,
                () = self.0.gate.rose() => true,
            };
            while let Ok(given) = writers.try_recv() {
                if given.key().pool == self.0.pool {
                    (writer, written) = (Some(given), None);
                }
            }
            let now = Instant::now();
            if resources.has_changed().unwrap_or(false) {
                self.0.metrics.configure_models(resources.borrow_and_update().model_names());
            }
            let load = self.0.load(now);
            let due = written.is_none_or(|before| {
                PickerLoad { read_at: before.read_at, ..load } != before
                    || now.saturating_duration_since(before.read_at) >= PUBLISH_AT_LEAST
            });
            if due {
                if let Some(writer) = &mut writer {
                    writer.succeeded(load, PUBLISH_AT_LEAST);
                }
                written = Some(load);
            }
            if let Some(measured) = self.0.metrics.latencies.due(now)
                && let Some(writer) = &writer
            {
                writer.measured(&writer.key().name, measured);
            }
            if due && !rose {
                self.0.refresh(now);
            }
        }
    }
}

impl Shared {
    /// Random numbers for one request: the lock is held for one of them.
    fn lots(&self) -> StdRng {
        let seed = self.seeds.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        StdRng::seed_from_u64(seed)
    }

    /// How requests are scheduled at present.
    fn scheduling(&self) -> Guard<Arc<SchedulingConfig>> {
        self.scheduling.load()
    }

    /// The pool as it is, and what is kept of its endpoints for `scheduling`; none where there is no such pool.
    ///
    /// Requests that come close together share one look: what it costs grows with the pool, and the pages that it shows are older
    /// by far. What is in flight is no part of it.
    fn look(&self, scheduling: &Arc<SchedulingConfig>, now: Instant) -> Option<Arc<View>> {
        let shared = self.view.load_full().filter(|view| now < view.until && view.roster.is_for(scheduling));
        if shared.is_some() {
            return shared;
        }
        let view = self.look_anew(scheduling, now).map(|(snapshot, roster)| {
            let lasts = self.snapshot_lasts.saturating_mul(u32::try_from(snapshot.endpoints.len()).unwrap_or(u32::MAX));
            Arc::new(View { snapshot, roster, until: now + lasts.min(LONGEST_LOOK) })
        });
        self.view.store(view.clone());
        view
    }

    fn look_anew(&self, scheduling: &Arc<SchedulingConfig>, now: Instant) -> Option<(PoolSnapshot, Arc<Roster>)> {
        let matching = || {
            let snapshot = self.store.snapshot(&self.pool, &self.everything, now)?;
            let roster = self.roster.load_full();
            Some(if roster.is_of(&snapshot, scheduling) { Ok((snapshot, roster)) } else { Err((snapshot, roster)) })
        };
        if let Ok(same) = matching()? {
            return Some(same);
        }
        // What is seen under the lock is never older than what was seen under it before: no endpoint is forgotten by mistake.
        let _renewing = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        Some(matching()?.unwrap_or_else(|(snapshot, roster)| {
            let renewed = Arc::new(roster.renewed(&snapshot, scheduling, self));
            self.roster.store(renewed.clone());
            (snapshot, renewed)
        }))
    }

    /// What the picker says of itself.
    fn load(&self, now: Instant) -> PickerLoad {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let arrivals = self.arrivals.load(Ordering::Relaxed);
        PickerLoad {
            read_at: now,
            held: Some(self.gate.waiting() as u64),
            in_flight: Some(in_flight),
            arrivals,
            prompt_tokens: Some(self.prompts.total()),
        }
    }

    /// A request showed something of an endpoint.
    fn showed(&self, state: &roster::State, evidence: Evidence, at: Instant) {
        let name = &state.address;
        match evidence {
            Evidence::Answered | Evidence::ServerError | Evidence::Unreached => self.answers_seen.store(true, Ordering::Relaxed),
            Evidence::NoAnswer if !self.answers_seen.load(Ordering::Relaxed) => return,
            Evidence::NoAnswer | Evidence::PassedOver => {}
        }
        match state.health.showed(evidence, at) {
            HealthChange::Same => {}
            HealthChange::Ejected(lasts) => {
                self.metrics.ejected(evidence);
                let pool = &self.pool;
                let (evidence, seconds) = (evidence.label(), lasts.as_secs());
                warn!(%pool, endpoint = %name, evidence, seconds, "endpoint ejected: requests there fail; tried again after that");
            }
            HealthChange::Recovered => {
                self.metrics.recoveries.inc();
                info!(pool = %self.pool, endpoint = %name, "endpoint answers again");
            }
        }
    }

    /// What no request does: gauges, and forgetting the prompts of servers that started anew. One at a time.
    fn refresh(&self, now: Instant) {
        let scheduling = self.scheduling();
        let Some(view) = self.look(&scheduling, now) else { return };
        let View { snapshot, roster, .. } = &*view;
        for (view, member) in snapshot.endpoints.iter().zip(&roster.members) {
            if view.fresh_load().is_some_and(|page| member.state.started_anew(page)) {
                self.prefixes.empty_holder(member.state.holder);
            }
        }
        let ejected = roster.members.iter().filter(|member| member.state.health.is_ejected()).count();
        self.metrics.endpoints(ejected, roster.members.iter().filter(|member| member.address.is_none()).count());
        self.metrics.prefix_remembered(self.prefixes.len());
        self.metrics.flow.forget_idle(now);
        let saturation = Scratch::with(|scratch| {
            self.candidates(&Subset::All, snapshot, roster, &HashMap::new(), &mut scratch.candidates);
            scheduling.detector.saturation(&scratch.candidates)
        });
        self.metrics.saturated(match saturation {
            CandidateSaturation::Known(saturation) => Some(saturation),
            CandidateSaturation::NoEndpoints => Some(1.0),
            CandidateSaturation::Unknown => None,
        });
    }
}
