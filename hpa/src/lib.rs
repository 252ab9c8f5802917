//! The HorizontalPodAutoscaler's own arithmetic, as a pure library.
//!
//! Given a spec, the replicas now and what the metrics API answered, [`Hpa::sync`] says what the
//! controller of `kube-controller-manager` (1.37) would do in one turn of its loop, and why: one
//! proposal per metric with its arithmetic, the stabilisation, the limit, the conditions and events.
//! It exists so that a doctor can explain a real HPA, a simulator can replay one, and tests can show
//! what a value served by the adapter will lead to.
//!
//! No I/O and no clock: `now` is a [`std::time::Duration`] since any epoch the caller likes (a
//! simulation starts at zero), the same epoch for all calls on one [`Hpa`]. A decision counts as
//! carried out: rate limits remember it. Quantities are milli-units (`i64`), as the controller
//! reads them; [`milli`] and [`format_milli`] convert.
//!
//! Not here, because it is no arithmetic: reading `/scale` and selectors, and Resource metrics (CPU,
//! memory), which come from `metrics.k8s.io`.
//!
//! Modules in reading order: `quantity` (milli-units), `spec` (what the user wrote), `selector`,
//! `replicas` (what the cluster shows), `calculator` (metric → `proposal`), `behavior`
//! (stabilisation and rate), `zero` (the states at zero), `condition` (words), `sync` (one turn). Apart from them, [`required`]: how
//! many replicas a pool needs, as a metric for an autoscaler to follow.

mod behavior;
mod calculator;
mod condition;
mod proposal;
mod quantity;
mod replicas;
pub mod required;
mod selector;
mod spec;
mod sync;
mod zero;

#[cfg(test)]
mod tests;

pub use behavior::{Limit, Memory, Stabilized};
pub use condition::{Condition, ConditionKind, Event, Reason};
pub use proposal::{MetricError, MetricProposal, Proposal, Rule};
pub use quantity::{format_milli, milli};
pub use replicas::{MetricReading, PodPhase, PodState, Pods, Replicas};
pub use selector::{LabelRequirement, LabelSelector};
pub use spec::{
    Behavior, HpaSpec, MetricSource, MetricSpec, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy, SpecError, Target,
    Tolerances,
};
pub use sync::{Decision, Hpa, Outcome};
