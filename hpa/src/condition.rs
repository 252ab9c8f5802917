//! The words an operator reads: conditions and events, as the controller writes them.

use std::fmt;

use crate::behavior::{Limit, Stabilized};
use crate::spec::MetricSource;

/// A condition in `status.conditions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `type`.
    pub kind: ConditionKind,
    /// `status`: True or False.
    pub status: bool,
    /// `reason`.
    pub reason: Reason,
    /// `message`.
    pub message: String,
}

/// `type` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// Whether the scale could be read and set.
    AbleToScale,
    /// Whether metrics gave a replica count.
    ScalingActive,
    /// Whether a limit cut the proposal.
    ScalingLimited,
    /// Whether the HPA itself went to zero (1.37); the first change of size sets it.
    ScaledToZero,
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `reason` of a condition or an event, as far as the arithmetic decides it. `Display` gives the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the controller's own")]
pub enum Reason {
    SucceededGetScale,
    ReadyForNewScale,
    ScaleDownStabilized,
    ScaleUpStabilized,
    SucceededRescale,
    ValidMetricFound,
    FailedGetExternalMetric,
    FailedGetObjectMetric,
    FailedGetPodsMetric,
    ScalingDisabled,
    DesiredWithinRange,
    TooFewReplicas,
    TooManyReplicas,
    ScaleUpLimit,
    ScaleDownLimit,
    ScaledToZero,
    NotScaledToZero,
    SuccessfulRescale,
    FailedComputeMetricsReplicas,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Reason {
    /// The reason for a metric that could not be used.
    pub(crate) fn failed_get(source: &MetricSource) -> Self {
        match source {
            MetricSource::External => Self::FailedGetExternalMetric,
            MetricSource::Object { .. } => Self::FailedGetObjectMetric,
            MetricSource::Pods => Self::FailedGetPodsMetric,
        }
    }
}

/// An event about the HPA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it is of type Warning, else Normal.
    pub warning: bool,
    /// `reason`.
    pub reason: Reason,
    /// `message`.
    pub message: String,
}

impl Event {
    pub(crate) fn warning(reason: Reason, message: String) -> Self {
        Self { warning: true, reason, message }
    }

    pub(crate) fn rescaled(desired: u32, why: &str) -> Self {
        Self { warning: false, reason: Reason::SuccessfulRescale, message: format!("New size: {desired}; reason: {why}") }
    }
}

impl Condition {
    fn new(kind: ConditionKind, status: bool, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }

    pub(crate) fn scale_read() -> Self {
        Self::new(
            ConditionKind::AbleToScale,
            true,
            Reason::SucceededGetScale,
            "the HPA controller was able to get the target's current scale",
        )
    }

    pub(crate) fn windows(stabilized: Option<Stabilized>) -> Self {
        let (reason, message) = match stabilized {
            None => (Reason::ReadyForNewScale, "recommended size matches current size"),
            Some(stabilized) => (stabilized.reason(), stabilized.message()),
        };
        Self::new(ConditionKind::AbleToScale, true, reason, message)
    }

    pub(crate) fn rescaled(desired: u32) -> Self {
        Self::new(
            ConditionKind::AbleToScale,
            true,
            Reason::SucceededRescale,
            format!("the HPA controller was able to update the target scale to {desired}"),
        )
    }

    pub(crate) fn disabled() -> Self {
        Self::new(
            ConditionKind::ScalingActive,
            false,
            Reason::ScalingDisabled,
            "scaling is disabled since the replica count of the target is zero",
        )
    }

    pub(crate) fn metric_failed(source: &MetricSource, error: &str) -> Self {
        Self::new(
            ConditionKind::ScalingActive,
            false,
            Reason::failed_get(source),
            format!("the HPA was unable to compute the replica count: {error}"),
        )
    }

    pub(crate) fn metric_found(metric: &str) -> Self {
        Self::new(
            ConditionKind::ScalingActive,
            true,
            Reason::ValidMetricFound,
            format!("the HPA was able to successfully calculate a replica count from {metric}"),
        )
    }

    pub(crate) fn limited(limit: Limit) -> Self {
        Self::new(ConditionKind::ScalingLimited, limit != Limit::WithinRange, limit.reason(), limit.message())
    }

    pub(crate) fn zero(scaled_to_zero: bool) -> Self {
        let (reason, message) = if scaled_to_zero {
            (Reason::ScaledToZero, "the HPA controller scaled the workload to zero")
        } else {
            (Reason::NotScaledToZero, "the HPA controller did not scale the workload to zero")
        };
        Self::new(ConditionKind::ScaledToZero, scaled_to_zero, reason, message)
    }
}

impl Stabilized {
    fn reason(self) -> Reason {
        match self {
            Self::Up => Reason::ScaleUpStabilized,
            Self::Down => Reason::ScaleDownStabilized,
        }
    }

    /// The condition's message.
    pub fn message(self) -> &'static str {
        match self {
            Self::Up => "recent recommendations were lower than current one, applying the lowest recent recommendation",
            Self::Down => "recent recommendations were higher than current one, applying the highest recent recommendation",
        }
    }
}

impl Limit {
    fn reason(self) -> Reason {
        match self {
            Self::WithinRange => Reason::DesiredWithinRange,
            Self::TooFewReplicas => Reason::TooFewReplicas,
            Self::TooManyReplicas => Reason::TooManyReplicas,
            Self::ScaleUpLimit => Reason::ScaleUpLimit,
            Self::ScaleDownLimit => Reason::ScaleDownLimit,
        }
    }

    /// The condition's message.
    pub fn message(self) -> &'static str {
        match self {
            Self::WithinRange => "the desired count is within the acceptable range",
            Self::TooFewReplicas => "the desired replica count is less than the minimum replica count",
            Self::TooManyReplicas => "the desired replica count is more than the maximum replica count",
            Self::ScaleUpLimit => "the desired replica count is increasing faster than the maximum scale rate",
            Self::ScaleDownLimit => "the desired replica count is decreasing faster than the maximum scale rate",
        }
    }
}
