//! What one turn of the loop sees: the scale, the pods, and the answers of the metrics API.

use std::collections::BTreeMap;

/// The scale subresource and the pods under its selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// `scale.spec.replicas`: what was asked for.
    pub spec: u32,
    /// `scale.status.replicas`: what exists, ready or not.
    pub status: u32,
    /// The pods the selector lists.
    pub pods: Pods,
}

impl Replicas {
    /// A settled target: `count` asked for, existing and Ready.
    pub fn settled(count: u32) -> Self {
        Self::partly_ready(count, count)
    }

    /// `count` asked for and existing, of which `ready` are Running and Ready and the others Pending.
    pub fn partly_ready(count: u32, ready: u32) -> Self {
        Self { spec: count, status: count, pods: Pods::Counted { ready: ready.min(count), not_ready: count.saturating_sub(ready) } }
    }
}

/// Pods under the target's selector: by number, or by name where a Pods metric must match them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pods {
    /// Numbers only. For a Pods metric each sample then counts as one of the ready pods, ready pods
    /// beyond the samples as missing, and the others as Pending.
    Counted {
        /// Running and Ready.
        ready: u32,
        /// All others the selector lists.
        not_ready: u32,
    },
    /// Pods by name.
    Named(BTreeMap<String, PodState>),
}

/// What the controller looks at in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodState {
    /// `status.phase`.
    pub phase: PodPhase,
    /// Whether the condition Ready is True.
    pub ready: bool,
    /// Whether it has a deletion timestamp.
    pub terminating: bool,
}

impl PodState {
    /// Running and Ready.
    pub const READY: Self = Self { phase: PodPhase::Running, ready: true, terminating: false };
    /// Not started yet.
    pub const PENDING: Self = Self { phase: PodPhase::Pending, ready: false, terminating: false };
}

/// `status.phase`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Pending.
    Pending,
    /// Running.
    Running,
    /// Succeeded or Failed.
    Finished,
}

/// Samples of a Pods metric sorted by what their pods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupedSamples {
    /// Sum of the samples that count.
    pub(crate) total: i128,
    /// How many samples count.
    pub(crate) samples: i64,
    /// Pods neither leaving nor Pending that have a sample: what a ratio is multiplied by.
    pub(crate) measured_pods: i64,
    /// Pods neither leaving nor Pending without a sample.
    pub(crate) missing: i64,
    /// Pending pods.
    pub(crate) pending: i64,
}

impl Pods {
    /// How many pods the selector lists, in any state.
    pub fn listed(&self) -> u64 {
        match self {
            Self::Counted { ready, not_ready } => u64::from(*ready) + u64::from(*not_ready),
            Self::Named(pods) => pods.len() as u64,
        }
    }

    /// Running and Ready, a pod being deleted included: the controller does not look at that here.
    pub fn ready(&self) -> u64 {
        match self {
            Self::Counted { ready, .. } => u64::from(*ready),
            Self::Named(pods) => pods.values().filter(|pod| pod.phase == PodPhase::Running && pod.ready).count() as u64,
        }
    }

    /// Sorts the samples of a Pods metric. Readiness plays no part for these metrics, only the phase.
    pub(crate) fn group(&self, values: &BTreeMap<String, i64>) -> GroupedSamples {
        match self {
            Self::Counted { ready, not_ready } => {
                let samples = values.len() as i64;
                let measured_pods = samples.min(i64::from(*ready));
                GroupedSamples {
                    total: values.values().copied().map(i128::from).sum(),
                    samples,
                    measured_pods,
                    missing: i64::from(*ready) - measured_pods,
                    pending: i64::from(*not_ready),
                }
            }
            Self::Named(pods) => group_named(pods, values),
        }
    }
}

fn group_named(pods: &BTreeMap<String, PodState>, values: &BTreeMap<String, i64>) -> GroupedSamples {
    let is_gone = |pod: &PodState| pod.terminating || pod.phase == PodPhase::Finished;
    let mut grouped = GroupedSamples { total: 0, samples: 0, measured_pods: 0, missing: 0, pending: 0 };
    for (name, pod) in pods {
        if is_gone(pod) {
            continue;
        }
        if pod.phase == PodPhase::Pending {
            grouped.pending += 1;
        } else if values.contains_key(name) {
            grouped.measured_pods += 1;
        } else {
            grouped.missing += 1;
        }
    }
    for (name, value) in values {
        // A sample of a pod the selector does not list still enters the mean.
        let counts = pods.get(name).is_none_or(|pod| !is_gone(pod) && pod.phase != PodPhase::Pending);
        if counts {
            grouped.total += i128::from(*value);
            grouped.samples += 1;
        }
    }
    grouped
}

/// What the metrics API answered for one metric this turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricReading {
    /// Items of an External or Object metric, milli-units. External items are summed.
    Items(Vec<i64>),
    /// One item per pod of a Pods metric, milli-units.
    PerPod(BTreeMap<String, i64>),
    /// The API's error text.
    Error(String),
}

impl MetricReading {
    /// A single item.
    pub fn item(milli: i64) -> Self {
        Self::Items(vec![milli])
    }

    /// Samples by pod name.
    pub fn per_pod<N: Into<String>>(samples: impl IntoIterator<Item = (N, i64)>) -> Self {
        Self::PerPod(samples.into_iter().map(|(name, milli)| (name.into(), milli)).collect())
    }
}
