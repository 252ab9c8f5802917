//! The states at zero replicas (1.37: `HPAScaleToZero` on by default).
//!
//! Zero means two things: a human switched the target off, or the HPA found nothing to do. The
//! condition `ScaledToZero` tells them apart, so it is state, not only a report. That `minReplicas: 0`
//! has a metric which lives without pods is the spec's own check, and needs no second one here.

use crate::spec::HpaSpec;

/// What a turn does when the target has zero replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtZero {
    /// Someone else went to zero: leave it, read no metrics.
    Disabled,
    /// The HPA went to zero: read the metrics, they (or a minimum raised since) may wake it.
    ReadMetrics,
}

/// Decides at zero replicas.
pub(crate) fn at_zero(scaled_to_zero: bool) -> AtZero {
    if scaled_to_zero { AtZero::ReadMetrics } else { AtZero::Disabled }
}

/// A minimum raised while at zero is met at once, whatever the metrics say and the policies allow;
/// only failing metrics keep it waiting.
pub(crate) fn lift_to_minimum(spec: &HpaSpec, current: i64, desired: i64) -> i64 {
    if current == 0 { desired.max(i64::from(spec.min_replicas)) } else { desired }
}
