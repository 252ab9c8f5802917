//! What one metric asks for, with its arithmetic, or why it asks for nothing.

use std::fmt;

use crate::quantity::format_milli;
use crate::selector::LabelSelector;
use crate::spec::{MetricSource, MetricSpec, Target};

/// The answer of one metric in one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricProposal {
    /// The metric as the controller names it, such as `external metric m(nil)`.
    pub metric: String,
    /// The proposal, or what went wrong.
    pub result: Result<Proposal, MetricError>,
}

/// How many replicas a metric asks for. `Display` writes the arithmetic out.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Replicas asked for, before stabilisation and limits; below zero for negative usage.
    pub replicas: i32,
    /// The usage that was compared, milli-units: sum of items, the object's value, mean over pods.
    pub usage_milli: i64,
    /// The target, milli-units.
    pub target: Target,
    /// Usage over target; 1 is on target. For `AverageValue` the target times status replicas; not
    /// finite when there are none.
    pub ratio: f64,
    /// Which rule made the number.
    pub rule: Rule,
    /// What `status.currentMetrics` shows, milli-units. `None` at zero status replicas with
    /// `AverageValue`, where the real controller divides by zero.
    pub status_milli: Option<i64>,
}

/// The rule that turned a ratio into replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The ratio is inside the dead band: spec replicas for `Value` and Pods, *status* replicas for
    /// `AverageValue`.
    WithinTolerance,
    /// ceil(ratio × pods): ready pods, or measured pods for a Pods metric.
    RatioTimesPods {
        /// The pods multiplied by.
        pods: i64,
    },
    /// ceil(usage ÷ target), whatever the size: `AverageValue` of External and Object.
    UsageOverTarget,
    /// `Value` at zero replicas: ceil(ratio), no dead band.
    FromZero,
    /// A Pods metric recounted with assumed values for pods without sample, then ceil(ratio × pods).
    Recounted {
        /// Pods without a sample: the target when shrinking, 0 when growing.
        missing: i64,
        /// Pending pods: 0 when growing.
        pending: i64,
        /// All that entered the recount.
        pods: i64,
    },
    /// Recounting fell inside the dead band or turned the direction round: keep spec replicas.
    RecountKeeps {
        /// Pods without a sample.
        missing: i64,
        /// Pending pods.
        pending: i64,
    },
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = format_milli(self.usage_milli);
        let target = format_milli(self.target.milli());
        let kind = match self.target {
            Target::Value(_) => "Value",
            Target::AverageValue(_) => "AverageValue",
        };
        let replicas = self.replicas;
        write!(f, "usage {usage}, {kind} target {target}, ")?;
        if self.ratio.is_finite() {
            write!(f, "ratio {:.3}: ", self.ratio)?;
        } else {
            f.write_str("no ratio at zero replicas: ")?;
        }
        match self.rule {
            Rule::WithinTolerance => write!(f, "within tolerance, stays {replicas}"),
            Rule::RatioTimesPods { pods } => {
                write!(f, "ceil({:.3} x {pods} pods) = {replicas}", self.ratio)
            }
            Rule::UsageOverTarget => {
                write!(f, "ceil({usage} / {target}) = {replicas}, whatever the size now")
            }
            Rule::FromZero => write!(f, "ceil({:.3}) = {replicas} from zero", self.ratio),
            Rule::Recounted { missing, pending, pods } => {
                write!(f, "recounted over {pods} pods ({missing} without sample, {pending} pending) = {replicas}")
            }
            Rule::RecountKeeps { missing, pending } => {
                write!(f, "{missing} pods without sample and {pending} pending could turn it round, stays {replicas}")
            }
        }
    }
}

/// Why a metric proposes nothing. Each of them makes the controller hold unless another metric asks
/// for more; what to do next differs. Texts are the controller's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The metrics API answered an error, or could not be reached: look at the adapter.
    #[error("{0}")]
    Api(String),
    /// An External metric without any item: selector or name match nothing.
    #[error("no metrics returned from external metrics API")]
    NoItems,
    /// A Pods metric without any item.
    #[error("no metrics returned from custom metrics API")]
    NoPodItems,
    /// An Object metric must be one item: its selector is too wide, or matches nothing.
    #[error("the custom metrics API server returned {0} results when we asked for exactly one")]
    NotExactlyOne(usize),
    /// `Value` and Pods need pods under the selector.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// All samples of a Pods metric belong to pods that are Pending or leaving.
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoUsableSamples,
    /// The caller handed in no reading, or one of another kind.
    #[error("no reading of the right kind was handed in for this metric")]
    NoReading,
}

impl MetricError {
    /// The error as the controller puts it into the condition and event of the metric.
    pub(crate) fn in_condition(&self, spec: &MetricSpec, namespace: &str) -> String {
        let fetched = match self {
            Self::Api(_) | Self::NotExactlyOne(_) => match spec.source {
                MetricSource::External => {
                    format!("unable to fetch metrics from external metrics API: {self}")
                }
                _ => format!("unable to fetch metrics from custom metrics API: {self}"),
            },
            Self::NoItems | Self::NoPodItems | Self::NoReading => self.to_string(),
            Self::NoPods if !matches!(spec.source, MetricSource::Pods) => {
                return format!("unable to calculate ready pods: {self}");
            }
            Self::NoPods | Self::NoUsableSamples => return self.to_string(),
        };
        let name = &spec.name;
        match &spec.source {
            MetricSource::External => {
                let selector = LabelSelector::printed(spec.selector.as_ref());
                format!("unable to get external metric {namespace}/{name}/{selector}: {fetched}")
            }
            MetricSource::Object { kind, name: object } => {
                format!("unable to get metric {name} on {kind} {namespace}/{object}: {fetched}")
            }
            MetricSource::Pods => format!("unable to get metric {name}: {fetched}"),
        }
    }

    /// The error as the controller puts it into `FailedComputeMetricsReplicas`.
    pub(crate) fn in_summary(&self, spec: &MetricSpec, namespace: &str) -> String {
        let inner = self.in_condition(spec, namespace);
        let name = &spec.name;
        match (&spec.source, spec.target) {
            (MetricSource::External, Target::Value(_)) => {
                format!("failed to get {name} external metric value: failed to get external metric {name}: {inner}")
            }
            (MetricSource::External, Target::AverageValue(_)) => {
                format!("failed to get {name} external metric value: failed to get {name} external metric: {inner}")
            }
            (MetricSource::Object { .. }, Target::Value(_)) => {
                format!("failed to get object metric value: {inner}")
            }
            (MetricSource::Object { .. }, Target::AverageValue(_)) => {
                format!("failed to get object metric value: failed to get {name} object metric: {inner}")
            }
            (MetricSource::Pods, _) => format!("failed to get pods metric value: {inner}"),
        }
    }
}
