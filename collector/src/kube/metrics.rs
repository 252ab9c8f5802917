//! What discovery in a cluster says of itself.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::contact::Health;
use super::follow::Trouble;

/// How a watch is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WatchState {
    /// Nothing was listed yet.
    Syncing,
    /// Followed.
    Watching,
    /// The cluster does not serve the kind.
    Absent,
    /// It may not be read.
    Forbidden,
    /// Anything else; what was known last stays.
    Failing,
}

impl WatchState {
    const ALL: [Self; 5] = [Self::Syncing, Self::Watching, Self::Absent, Self::Forbidden, Self::Failing];

    fn label(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Watching => "watching",
            Self::Absent => "absent",
            Self::Forbidden => "forbidden",
            Self::Failing => "failing",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResourceLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabels {
    resource: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabels {
    resource: &'static str,
    reason: &'static str,
}

/// What came of asking for what an autoscaler scales.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TargetRead {
    /// It could be read.
    Good,
    /// There is none.
    Absent,
    /// It may not be read.
    Forbidden,
    /// Which pods it makes cannot be said.
    Broken,
    /// No answer, or another error.
    Failed,
}

impl TargetRead {
    fn label(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Absent => "absent",
            Self::Forbidden => "forbidden",
            Self::Broken => "broken",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct VerbLabels {
    resource: &'static str,
    verb: &'static str,
}

/// Counters of discovery. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct KubeMetrics {
    watches: Arc<[Arc<Health>]>,
    states: Family<StateLabels, Gauge>,
    errors: Family<ReasonLabels, Counter>,
    objects: Family<ResourceLabels, Gauge>,
    targets: Family<OutcomeLabels, Counter>,
    pub(super) problems: Gauge,
    pub(super) synced: Gauge,
    pub(super) updates: Counter,
}

impl KubeMetrics {
    pub(super) fn register(registry: &mut Registry, resources: impl Iterator<Item = &'static str>, now: Instant) -> Self {
        let requests = Family::<VerbLabels, Counter>::default();
        let health = |resource| {
            let counter = |verb| requests.get_or_create_owned(&VerbLabels { resource, verb });
            Arc::new(Health::new(resource, counter("list"), counter("watch"), now))
        };
        let metrics = Self {
            watches: resources.map(health).collect(),
            states: Family::default(),
            errors: Family::default(),
            objects: Family::default(),
            targets: Family::default(),
            problems: Gauge::default(),
            synced: Gauge::default(),
            updates: Counter::default(),
        };
        for health in metrics.watches.iter() {
            let resource = health.resource;
            metrics.state(resource, WatchState::Syncing);
            metrics.objects(resource, 0);
            for reason in Trouble::ALL.map(Trouble::label) {
                drop(metrics.errors.get_or_create(&ReasonLabels { resource, reason }));
            }
        }
        let help = "Requests to the API server that began, by kind; a second list or watch is a restart";
        registry.register("weir_kubernetes_requests", help, requests);
        let help = "How the watch of a kind is: 1 for the present state";
        registry.register("weir_kubernetes_watch_state", help, metrics.states.clone());
        registry.register("weir_kubernetes_watch_errors", "What went wrong with watches", metrics.errors.clone());
        registry.register("weir_kubernetes_objects", "Objects that are known, by kind", metrics.objects.clone());
        let help = "Reads of what autoscalers scale from zero, by what came of them";
        registry.register("weir_kubernetes_scale_target_reads", help, metrics.targets.clone());
        let help = "Things that are wrong with pools, their annotations, pods or Services now; the log names each";
        registry.register("weir_kubernetes_problems", help, metrics.problems.clone());
        let help = "Whether everything that is read was listed once";
        registry.register("weir_kubernetes_synced", help, metrics.synced.clone());
        registry.register("weir_kubernetes_updates", "Changed sets of pools handed over", metrics.updates.clone());
        registry.register_collector(Box::new(Silences(metrics.watches.clone())));
        metrics
    }

    /// The health of the watch of `resource`, which is one of those that were registered.
    pub(super) fn health(&self, resource: &'static str) -> Arc<Health> {
        let known = self.watches.iter().find(|health| health.resource == resource);
        known.cloned().unwrap_or_else(|| Arc::new(Health::new(resource, Counter::default(), Counter::default(), Instant::now())))
    }

    pub(super) fn state(&self, resource: &'static str, present: WatchState) {
        for state in WatchState::ALL {
            let labels = StateLabels { resource, state: state.label() };
            self.states.get_or_create(&labels).set(i64::from(state == present));
        }
    }

    pub(super) fn failed(&self, resource: &'static str, trouble: Trouble) {
        self.errors.get_or_create(&ReasonLabels { resource, reason: trouble.label() }).inc();
    }

    pub(super) fn target_read(&self, outcome: TargetRead) {
        self.targets.get_or_create(&OutcomeLabels { outcome: outcome.label() }).inc();
    }

    pub(super) fn objects(&self, resource: &'static str, count: usize) {
        self.objects.get_or_create(&ResourceLabels { resource }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// How long nothing was heard over each watch, when it is asked.
#[derive(Debug)]
struct Silences(Arc<[Arc<Health>]>);

impl Collector for Silences {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = Instant::now();
        let silences = Family::<ResourceLabels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for health in self.0.iter() {
            let labels = ResourceLabels { resource: health.resource };
            silences.get_or_create(&labels).set(health.silence(now).as_secs_f64());
        }
        let help = "Time since the API server was heard last over the watch of a kind, or since the start";
        let unit = Some(&Unit::Seconds);
        let descriptor = encoder.encode_descriptor("weir_kubernetes_silence", help, unit, silences.metric_type())?;
        silences.encode(descriptor)
    }
}
