//! The loop of one namespace: what is known meets the policy, and what follows is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use weir_datastore::{Datastore, PoolId, Selector};
use weir_k8s::{Autoscaler, EventRecorder, Leader, NotLeading, ScaleTarget};

use crate::zero::autoscalers::{Autoscalers, follow};
use crate::zero::budget::Budget;
use crate::zero::entry::Entry;
use crate::zero::metrics::ScalerMetrics;
use crate::zero::policy::{Action, Decision, PoolView, Reason, Situation, decide};
use crate::zero::targets::{TargetError, Targets};
use crate::zero::telling::{Telling, is_warning};

/// How often everything is looked at without news: idleness has no event.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Annotated HPAs of one namespace.
const MOST_TARGETS: usize = 256;
/// HPAs of one namespace, annotated or not.
const MOST_AUTOSCALERS: usize = 4096;
/// Requests to the API server at once.
const AT_ONCE: usize = 16;
/// How often a write is tried whose target changes under it.
const TRIES: usize = 4;
/// Rises of held requests that wait to be looked at; one more changes nothing.
const RISES: usize = 64;

/// By pool, the labels that its pods have.
pub type Selectors = BTreeMap<PoolId, Arc<BTreeMap<String, String>>>;

/// What the scaler of one namespace works with.
pub struct ScalerSettings {
    /// The namespace.
    pub namespace: String,
    /// Before the names of annotations.
    pub annotation_prefix: String,
    /// Whether what would be written is only told.
    pub dry_run: bool,
}

/// Scales the targets of one namespace to zero and back.
pub struct Scaler {
    namespace: Arc<str>,
    dry_run: bool,
    datastore: Datastore,
    /// None until pools and pods were listed.
    selectors: watch::Receiver<Option<Arc<Selectors>>>,
    autoscalers: watch::Receiver<Autoscalers>,
    targets: Targets,
    telling: Telling,
    leader: Leader,
    budget: SharedBudget,
    entries: BTreeMap<Arc<str>, Entry>,
    /// HPAs that cannot be read, as told.
    unreadable: BTreeSet<Arc<str>>,
    is_too_many_told: bool,
    follower: AbortHandle,
}

/// One budget of writes for all namespaces.
#[derive(Clone, Debug)]
pub struct SharedBudget(Arc<Mutex<Budget>>);

impl SharedBudget {
    /// A full one.
    pub fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(Budget::new(now))))
    }

    fn take(&self, wakes: bool, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(wakes, now)
    }
}

/// What became of a look at a target that was to be written.
enum Outcome {
    Written {
        from: u32,
        decision: Decision,
    },
    DryRun {
        from: u32,
        decision: Decision,
    },
    /// It is not to be written after all.
    Stays {
        target: ScaleTarget,
    },
    /// The HPA is gone: its watch says so too.
    Gone,
    Limited,
    NotLeading(NotLeading),
    Failed {
        decision: Decision,
        error: TargetError,
    },
}

impl Scaler {
    /// A scaler; its watch of HPAs begins at once.
    #[expect(clippy::too_many_arguments, reason = "each is another room's handle")]
    pub fn new(
        client: kube::Client,
        settings: ScalerSettings,
        datastore: Datastore,
        selectors: watch::Receiver<Option<Arc<Selectors>>>,
        leader: Leader,
        recorder: EventRecorder,
        budget: SharedBudget,
        metrics: ScalerMetrics,
        shutdown: CancellationToken,
    ) -> Self {
        let ScalerSettings { namespace, annotation_prefix, dry_run } = settings;
        let (found, autoscalers) = watch::channel(Autoscalers::default());
        let following = follow(client.clone(), namespace.clone(), annotation_prefix.clone(), found, metrics.clone(), shutdown);
        let follower = tokio::spawn(following).abort_handle();
        let targets = Targets::new(client, namespace.clone(), annotation_prefix);
        let namespace: Arc<str> = namespace.into();
        metrics.begin(&namespace);
        let telling = Telling { namespace: namespace.clone(), recorder, metrics };
        Self {
            namespace,
            dry_run,
            datastore,
            selectors,
            autoscalers,
            targets,
            telling,
            leader,
            budget,
            entries: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            is_too_many_told: false,
            follower,
        }
    }

    /// Whether HPAs, pools and pods of the namespace were listed: gets true once, and stays so.
    pub fn listed(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut autoscalers, mut selectors) = (self.autoscalers.clone(), self.selectors.clone());
        async move {
            let hpas = autoscalers.wait_for(|found| found.listed).await.is_ok();
            if !hpas || selectors.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Scales until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (rises, mut risen) = mpsc::channel(RISES);
        let mut followed: HashMap<PoolId, AbortHandle> = HashMap::new();
        let mut tasks = JoinSet::new();
        let mut generation = self.datastore.generation();
        let mut leader = self.leader.clone();
        let mut leads = false;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.follow_held(&mut followed, &mut tasks, &rises);
        loop {
            let mut rose = None;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                now_leads = leader.changed(leads) => {
                    leads = now_leads;
                    self.term_changed();
                }
                Some(at) = risen.recv() => rose = Some(at),
                Ok(()) = generation.changed() => self.follow_held(&mut followed, &mut tasks, &rises),
                Ok(()) = self.autoscalers.changed() => {}
                Ok(()) = self.selectors.changed() => {}
                _ = ticks.tick() => {}
            }
            let gone = self.take_in_autoscalers();
            if leads {
                self.look(rose).await;
                for entry in gone {
                    self.orphaned(entry).await;
                }
            }
        }
        self.follower.abort();
        tasks.shutdown().await;
    }

    /// One task for each pool that says when requests begin to be held.
    fn follow_held(&self, followed: &mut HashMap<PoolId, AbortHandle>, tasks: &mut JoinSet<()>, rises: &mpsc::Sender<Instant>) {
        let pools: BTreeSet<PoolId> = self.datastore.pool_ids_in(&self.namespace).into_iter().collect();
        followed.retain(|pool, task| {
            let stays = pools.contains(pool);
            if !stays {
                task.abort();
            }
            stays
        });
        for pool in pools {
            if followed.contains_key(&pool) {
                continue;
            }
            let Some(mut changes) = self.datastore.changes(&pool) else { continue };
            let rises = rises.clone();
            let task = tasks.spawn(async move {
                loop {
                    changes.held_rose().await;
                    // Where the queue is full, what waits there is as good.
                    if let Err(mpsc::error::TrySendError::Closed(_)) = rises.try_send(Instant::now()) {
                        return;
                    }
                }
            });
            followed.insert(pool, task);
        }
        while tasks.try_join_next().is_some() {}
    }

    /// Another replica may have written meanwhile, and another one tells what is.
    fn term_changed(&mut self) {
        for entry in self.entries.values_mut() {
            entry.look_again();
        }
        self.telling.metrics.states(&self.namespace, &BTreeMap::new());
    }

    /// Brings the entries up to date; what is gone comes out.
    fn take_in_autoscalers(&mut self) -> Vec<Entry> {
        let found = self.autoscalers.borrow_and_update().clone();
        if !found.listed {
            return Vec::new();
        }
        let gone: Vec<Arc<str>> =
            self.entries.keys().filter(|name| !matches!(found.known.get(*name), Some(Ok(_)))).cloned().collect();
        let mut gone: Vec<Entry> = gone.iter().filter_map(|name| self.entries.remove(name)).collect();
        self.unreadable.retain(|name| matches!(found.known.get(name), Some(Err(_))));
        for (name, read) in found.known.into_iter().take(MOST_AUTOSCALERS) {
            let autoscaler = match read {
                Ok(autoscaler) => autoscaler,
                Err(problems) => {
                    if self.unreadable.insert(name.clone()) {
                        let problem = problems.first().map(ToString::to_string).unwrap_or_default();
                        self.telling.unreadable(&name, &problem);
                    }
                    continue;
                }
            };
            match self.entries.get_mut(&name) {
                Some(same) if same.autoscaler == autoscaler => continue,
                Some(known) if known.autoscaler.uid == autoscaler.uid && known.autoscaler.target == autoscaler.target => {
                    known.changed(autoscaler.clone());
                }
                _ => gone.extend(self.entries.insert(name, Entry::new(autoscaler.clone()))),
            }
            if self.leader.leads() && autoscaler.idle_after.is_some() {
                let passed_over = autoscaler
                    .problems
                    .iter()
                    .filter(|problem| !matches!(&autoscaler.idle_after, Some(Err(broken)) if broken == *problem));
                passed_over.for_each(|problem| self.telling.problem(&autoscaler, &problem.to_string()));
            }
        }
        gone
    }

    /// Decides over every target, writes what follows, and reads what is old; then once more with what was read.
    async fn look(&mut self, rose: Option<Instant>) {
        for _ in 0..2 {
            self.act(rose).await;
            if !self.read_what_is_due().await {
                break;
            }
        }
        let mut counts = BTreeMap::new();
        for state in self.entries.values().filter(|entry| entry.asks()).filter_map(Entry::state) {
            *counts.entry(state).or_insert(0) += 1;
        }
        self.telling.metrics.states(&self.namespace, &counts);
    }

    async fn act(&mut self, rose: Option<Instant>) {
        let Some(selectors) = self.selectors.borrow().clone() else { return };
        let now = Instant::now();
        let pools = self.pools(now);
        let mut wanted = Vec::new();
        let mut decisions = Vec::new();
        let mut annotated = 0;
        for (name, entry) in &self.entries {
            annotated += usize::from(entry.asks());
            if entry.asks() && annotated > MOST_TARGETS {
                decisions.push((name.clone(), Decision::stay(Reason::TooMany(MOST_TARGETS))));
                continue;
            }
            let Some(target) = &entry.target else {
                let unreadable = entry.unreadable.as_ref().filter(|_| entry.asks());
                let stays = unreadable.map(|error| Decision::stay(Reason::UnreadableTarget(error.to_string())));
                decisions.extend(stays.map(|decision| (name.clone(), decision)));
                continue;
            };
            let surroundings = self.surroundings(name, entry, target, &selectors);
            let decision = surroundings.decide(&entry.autoscaler, target, &pools, entry.raised_at(now), now);
            match decision.action {
                Action::Stay => decisions.push((name.clone(), decision)),
                Action::Sleep | Action::Wake(_) if entry.may_act(now) => wanted.push((name.clone(), surroundings, decision)),
                Action::Sleep | Action::Wake(_) => {}
            }
        }
        self.tell_too_many(annotated);
        for (name, decision) in decisions {
            self.stays(&name, &decision, now);
        }
        let (this, selectors) = (&*self, &*selectors);
        let written = stream::iter(wanted).map(|(name, surroundings, decision)| async move {
            let outcome = this.write(&name, &surroundings, decision, selectors).await;
            (name, outcome)
        });
        let outcomes: Vec<_> = written.buffer_unordered(AT_ONCE).collect().await;
        for (name, outcome) in outcomes {
            self.ended(&name, outcome, rose);
        }
    }

    /// What stands around a target, apart from its pools' state.
    fn surroundings(&self, name: &Arc<str>, entry: &Entry, target: &ScaleTarget, selectors: &Selectors) -> Surroundings {
        let pools: Vec<PoolId> =
            selectors.iter().filter(|(_, selector)| target.is_selected_by(selector)).map(|(pool, _)| pool.clone()).collect();
        let rival = self.entries.iter().find(|(other, rival)| *other != name && rival.autoscaler.target == entry.autoscaler.target);
        let shares_a_pool = |other: &ScaleTarget| {
            pools.iter().filter_map(|pool| selectors.get(pool)).any(|selector| other.is_selected_by(selector))
        };
        let others_serve = self.entries.iter().any(|(other_name, other)| {
            let Some(other_target) = other.target.as_ref().filter(|_| other_name != name && other.asks()) else { return false };
            let is_another = other.autoscaler.target != entry.autoscaler.target;
            // Of several that sleep, the first by name is woken, unless it cannot be.
            let serves = other_target.replicas > 0 || (other.is_asleep() && other_name < name && !other.is_failing());
            is_another && serves && shares_a_pool(other_target)
        });
        Surroundings { pools, rival: rival.map(|(name, _)| name.clone()), others_serve }
    }

    fn pools(&self, now: Instant) -> BTreeMap<PoolId, PoolView> {
        let everything = Selector::everything();
        let ids = self.datastore.pool_ids_in(&self.namespace);
        let snapshots = ids.into_iter().filter_map(|id| self.datastore.snapshot(&id, &everything, now));
        snapshots.map(|snapshot| (snapshot.id.clone(), PoolView::of(&snapshot))).collect()
    }

    /// Looks at everything afresh and writes, if what follows still is what was `wanted` from what was known before.
    async fn write(&self, name: &Arc<str>, surroundings: &Surroundings, mut wanted: Decision, selectors: &Selectors) -> Outcome {
        let Some(entry) = self.entries.get(name) else { return Outcome::Gone };
        let reference = &entry.autoscaler.target;
        for _ in 0..TRIES {
            let (autoscaler, target) = tokio::join!(self.targets.autoscaler(name), self.targets.read(reference));
            let now = Instant::now();
            let (autoscaler, target) = match autoscaler.and_then(|autoscaler| Ok((autoscaler, target?))) {
                Ok((Some(autoscaler), target)) => (autoscaler, target),
                Ok((None, _)) => return Outcome::Gone,
                Err(error) => return Outcome::Failed { decision: wanted, error },
            };
            if autoscaler.uid != entry.autoscaler.uid || autoscaler.target != *reference {
                return Outcome::Gone;
            }
            let chosen = selectors.iter().filter(|(_, selector)| target.is_selected_by(selector));
            let fresh = Surroundings { pools: chosen.map(|(id, _)| id.clone()).collect(), ..surroundings.clone() };
            let decision = fresh.decide(&autoscaler, &target, &self.pools(now), entry.raised_at(now), now);
            let Some(replicas) = decision.action.replicas() else { return Outcome::Stays { target } };
            let from = target.replicas;
            if self.dry_run {
                return Outcome::DryRun { from, decision };
            }
            if !self.budget.take(decision.action != Action::Sleep, now) {
                return Outcome::Limited;
            }
            match self.leader.write(self.targets.scale(reference, &target, replicas)).await {
                Err(not_leading) => return Outcome::NotLeading(not_leading),
                Ok(Ok(())) => return Outcome::Written { from, decision },
                Ok(Err(error @ TargetError::Conflict(_))) => self.telling.metrics.wrote(&self.namespace, error.label()),
                Ok(Err(error)) => return Outcome::Failed { decision, error },
            }
            wanted = decision;
        }
        Outcome::Failed { decision: wanted, error: TargetError::Conflict(reference.to_string()) }
    }

    fn ended(&mut self, name: &Arc<str>, outcome: Outcome, rose: Option<Instant>) {
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(name) else { return };
        let telling = &self.telling;
        match outcome {
            Outcome::Written { from, decision } => {
                entry.wrote(&decision, now);
                telling.scaled(&entry.autoscaler, from, &decision, false);
                if let (Reason::Held(..), Some(rose)) = (&decision.reason, rose) {
                    telling.metrics.woke(now.saturating_duration_since(rose));
                }
            }
            Outcome::DryRun { from, decision } => {
                if entry.dry_run(&decision, now) {
                    telling.scaled(&entry.autoscaler, from, &decision, true);
                }
            }
            Outcome::Stays { target } => entry.read(Ok(target), now),
            Outcome::Gone => entry.wait(now),
            Outcome::Limited => {
                telling.metrics.wrote(&self.namespace, "limited");
                entry.wait(now);
            }
            Outcome::NotLeading(not_leading) => {
                telling.metrics.wrote(&self.namespace, "not_leading");
                warn!(hpa = format!("{}/{name}", self.namespace), error = %not_leading, "a write was not made to its end");
                entry.look_again();
                entry.wait(now);
            }
            Outcome::Failed { decision, error } => {
                telling.metrics.wrote(&self.namespace, error.label());
                if entry.failed(&error, now) {
                    telling.failed(&entry.autoscaler, &decision, &error);
                }
            }
        }
    }

    fn stays(&mut self, name: &Arc<str>, decision: &Decision, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if let Some(before) = entry.stays(&decision.reason, now) {
            if decision.reason == Reason::NotAnnotated && before.is_none() {
                return;
            }
            self.telling.stays(&entry.autoscaler, decision, before.as_ref().is_some_and(is_warning));
        }
    }

    fn tell_too_many(&mut self, annotated: usize) {
        let too_many = annotated > MOST_TARGETS || self.autoscalers.borrow().known.len() > MOST_AUTOSCALERS;
        if too_many && !self.is_too_many_told {
            warn!(
                namespace = &*self.namespace,
                annotated,
                most_annotated = MOST_TARGETS,
                most = MOST_AUTOSCALERS,
                "too many HorizontalPodAutoscalers: the first by name count, the others are passed over"
            );
        }
        self.is_too_many_told = too_many;
    }

    /// Reads the targets that are due; whether one was.
    async fn read_what_is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.entries.iter().filter(|(_, entry)| entry.is_due(now));
        let due: Vec<_> = due.map(|(name, entry)| (name.clone(), entry.autoscaler.target.clone())).collect();
        let targets = &self.targets;
        let reads = stream::iter(due).map(|(name, reference)| async move { (name, targets.read(&reference).await) });
        let read: Vec<_> = reads.buffer_unordered(AT_ONCE).collect().await;
        let any = !read.is_empty();
        for (name, outcome) in read {
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.read(outcome, Instant::now());
            }
        }
        any
    }

    /// Says so where the autoscaler of a zero of ours has gone, and no other one took its place.
    async fn orphaned(&self, entry: Entry) {
        if self.entries.values().any(|other| other.autoscaler.target == entry.autoscaler.target) {
            return;
        }
        let target = match self.targets.read(&entry.autoscaler.target).await {
            Ok(target) => Arc::new(target),
            Err(TargetError::Unreachable(_)) => match entry.target {
                Some(known) => known,
                None => return,
            },
            Err(_) => return,
        };
        if target.replicas == 0 && target.is_scaled_only_by(weir_k8s::SCALER_MANAGER) && !target.deleting {
            self.telling.orphaned(&entry.autoscaler, &target);
        }
    }
}

/// What stands around a target, apart from its pools' state.
#[derive(Clone, Debug)]
struct Surroundings {
    pools: Vec<PoolId>,
    rival: Option<Arc<str>>,
    others_serve: bool,
}

impl Surroundings {
    fn decide(
        &self,
        autoscaler: &Autoscaler,
        target: &ScaleTarget,
        pools: &BTreeMap<PoolId, PoolView>,
        raised_at: Instant,
        now: Instant,
    ) -> Decision {
        let view = |id: &PoolId| match pools.get(id) {
            Some(view) => view.clone(),
            // Known to discovery, not yet to the datastore.
            None => PoolView { id: id.clone(), held: 0, idle: Err("it was not read yet".to_owned()), pods: 0 },
        };
        let pools: Vec<PoolView> = self.pools.iter().map(view).collect();
        let (rival, others_serve) = (self.rival.as_ref(), self.others_serve);
        decide(&Situation { now, autoscaler, rival, target, pools: &pools, raised_at, others_serve })
    }
}
