//! What the user wrote: the parts of `HorizontalPodAutoscalerSpec` (autoscaling/v2) that enter the
//! arithmetic, plus the two controller flags that do.

use std::time::Duration;

use crate::selector::LabelSelector;

/// Longest `stabilizationWindowSeconds` the API server takes.
const MAX_WINDOW_SECONDS: u32 = 3600;
/// Longest `periodSeconds` of a policy.
const MAX_PERIOD_SECONDS: u32 = 1800;
/// Replica counts are `int32` on the wire.
const MAX_REPLICAS: u32 = i32::MAX as u32;

/// One HPA. Build it with [`HpaSpec::new`], which fills the defaults, and change fields.
#[derive(Debug, Clone, PartialEq)]
pub struct HpaSpec {
    /// Namespace of the HPA; only appears in texts.
    pub namespace: String,
    /// `minReplicas`; 0 needs an Object or External metric.
    pub min_replicas: u32,
    /// `maxReplicas`.
    pub max_replicas: u32,
    /// `metrics`, at least one.
    pub metrics: Vec<MetricSpec>,
    /// `behavior`; `None` is not the same as the defaults: without it the controller keeps no scale
    /// events, and caps growth at max(2 × current, 4) per turn.
    pub behavior: Option<Behavior>,
    /// `--horizontal-pod-autoscaler-tolerance`: used for a direction whose behaviour sets none.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`: used when the scale-down rules set no
    /// window.
    pub downscale_stabilization: Duration,
}

impl HpaSpec {
    /// A spec with the controller's defaults: no behaviour, tolerance 0.1, 5 min down window.
    pub fn new(min_replicas: u32, max_replicas: u32, metrics: Vec<MetricSpec>) -> Self {
        Self {
            namespace: "default".to_owned(),
            min_replicas,
            max_replicas,
            metrics,
            behavior: None,
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
        }
    }

    /// The dead band in force, per direction (`HPAConfigurableTolerance`, on since 1.35).
    pub fn tolerances(&self) -> Tolerances {
        let of = |rules: fn(&Behavior) -> &ScalingRules| {
            self.behavior.as_ref().and_then(|behavior| rules(behavior).tolerance).unwrap_or(self.tolerance)
        };
        Tolerances { up: of(|behavior| &behavior.scale_up), down: of(|behavior| &behavior.scale_down) }
    }

    /// Whether a metric exists that can be read without pods, which scaling to zero needs.
    pub(crate) fn has_object_or_external_metric(&self) -> bool {
        self.metrics.iter().any(|metric| !matches!(metric.source, MetricSource::Pods))
    }

    /// The checks of the API server that keep the arithmetic meaningful.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.max_replicas == 0 || self.max_replicas > MAX_REPLICAS {
            return Err(SpecError::MaxReplicas(self.max_replicas));
        }
        if self.min_replicas > self.max_replicas {
            return Err(SpecError::MinAboveMax { min: self.min_replicas, max: self.max_replicas });
        }
        if self.metrics.is_empty() {
            return Err(SpecError::NoMetrics);
        }
        if self.min_replicas == 0 && !self.has_object_or_external_metric() {
            return Err(SpecError::ZeroNeedsObjectOrExternal);
        }
        for metric in &self.metrics {
            metric.validate()?;
        }
        check_tolerance("--horizontal-pod-autoscaler-tolerance", self.tolerance)?;
        if let Some(behavior) = &self.behavior {
            behavior.scale_up.validate("scaleUp")?;
            behavior.scale_down.validate("scaleDown")?;
        }
        Ok(())
    }
}

/// Dead band of the usage ratio: 1 - down ≤ ratio ≤ 1 + up means "no change".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// How far above 1 is still no reason to grow.
    pub up: f64,
    /// How far below 1 is still no reason to shrink.
    pub down: f64,
}

impl Tolerances {
    /// Whether a ratio lies inside; never for NaN.
    pub fn contains(&self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// One entry of `metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// `metric.name`.
    pub name: String,
    /// `metric.selector`.
    pub selector: Option<LabelSelector>,
    /// `type`, with what it describes.
    pub source: MetricSource,
    /// `target`.
    pub target: Target,
}

/// Which metrics API a metric comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetricSource {
    /// `external.metrics.k8s.io`: all items returned are summed.
    External,
    /// `custom.metrics.k8s.io` about one object: exactly one item.
    Object {
        /// `describedObject.kind`.
        kind: String,
        /// `describedObject.name`.
        name: String,
    },
    /// `custom.metrics.k8s.io` over the target's pods: one item per pod; `AverageValue` only.
    Pods,
}

/// `target`, in milli-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Compared as it is and multiplied by ready pods: for means and ratios.
    Value(i64),
    /// Divided by the number of pods: for totals (and for Pods metrics).
    AverageValue(i64),
}

impl Target {
    /// The target in milli-units, whichever type.
    pub fn milli(self) -> i64 {
        match self {
            Self::Value(milli) | Self::AverageValue(milli) => milli,
        }
    }
}

impl MetricSpec {
    /// An External metric without selector.
    pub fn external(name: impl Into<String>, target: Target) -> Self {
        Self { name: name.into(), selector: None, source: MetricSource::External, target }
    }

    /// An Object metric about `kind`/`object`.
    pub fn object(name: impl Into<String>, kind: impl Into<String>, object: impl Into<String>, target: Target) -> Self {
        Self { name: name.into(), selector: None, source: MetricSource::Object { kind: kind.into(), name: object.into() }, target }
    }

    /// A Pods metric; `average_milli` is its `averageValue`.
    pub fn pods(name: impl Into<String>, average_milli: i64) -> Self {
        Self { name: name.into(), selector: None, source: MetricSource::Pods, target: Target::AverageValue(average_milli) }
    }

    /// The same metric with a selector.
    #[must_use]
    pub fn with_selector(mut self, selector: LabelSelector) -> Self {
        self.selector = Some(selector);
        self
    }

    fn validate(&self) -> Result<(), SpecError> {
        if self.target.milli() <= 0 {
            return Err(SpecError::TargetNotPositive { metric: self.name.clone(), milli: self.target.milli() });
        }
        match (&self.source, self.target) {
            (MetricSource::Pods, Target::Value(_)) => Err(SpecError::PodsNeedAverageValue(self.name.clone())),
            _ => Ok(()),
        }
    }

    /// How the controller names the metric in reasons. An Object metric with `AverageValue` is
    /// called external there; the slip is kept, for operators search for that text.
    pub fn described(&self) -> String {
        match (&self.source, self.target) {
            (MetricSource::Object { kind, .. }, Target::Value(_)) => {
                format!("{kind} metric {}", self.name)
            }
            (MetricSource::Pods, _) => format!("pods metric {}", self.name),
            (MetricSource::External | MetricSource::Object { .. }, _) => {
                let selector = LabelSelector::printed(self.selector.as_ref());
                format!("external metric {}({selector})", self.name)
            }
        }
    }
}

/// `behavior`, with defaults filled in for the direction left out, as the API server does.
#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    /// `scaleUp`.
    pub scale_up: ScalingRules,
    /// `scaleDown`.
    pub scale_down: ScalingRules,
}

impl Default for Behavior {
    fn default() -> Self {
        Self { scale_up: ScalingRules::default_up(), scale_down: ScalingRules::default_down() }
    }
}

/// `HPAScalingRules` of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingRules {
    /// `stabilizationWindowSeconds`, at most 3600; `None` = 0 up, the controller's flag down.
    pub stabilization_window_seconds: Option<u32>,
    /// `selectPolicy`.
    pub select_policy: SelectPolicy,
    /// `policies`, at least one.
    pub policies: Vec<ScalingPolicy>,
    /// `tolerance`; `None` = the controller's flag.
    pub tolerance: Option<f64>,
}

impl ScalingRules {
    /// What the API server fills in for `scaleUp`: no window; the wider of 4 pods and 100 % in 15 s.
    pub fn default_up() -> Self {
        Self {
            stabilization_window_seconds: Some(0),
            select_policy: SelectPolicy::Max,
            policies: vec![ScalingPolicy::pods(4, 15), ScalingPolicy::percent(100, 15)],
            tolerance: None,
        }
    }

    /// What the API server fills in for `scaleDown`: the flag's window; 100 % in 15 s.
    pub fn default_down() -> Self {
        Self {
            stabilization_window_seconds: None,
            select_policy: SelectPolicy::Max,
            policies: vec![ScalingPolicy::percent(100, 15)],
            tolerance: None,
        }
    }

    fn validate(&self, direction: &'static str) -> Result<(), SpecError> {
        if let Some(seconds) = self.stabilization_window_seconds
            && seconds > MAX_WINDOW_SECONDS
        {
            return Err(SpecError::WindowTooLong { direction, seconds });
        }
        if self.policies.is_empty() {
            return Err(SpecError::NoPolicies { direction });
        }
        for policy in &self.policies {
            let period = policy.period_seconds;
            if period == 0 || period > MAX_PERIOD_SECONDS || policy.value == 0 {
                return Err(SpecError::Policy { direction, value: policy.value, period });
            }
        }
        match self.tolerance {
            Some(tolerance) => check_tolerance(direction, tolerance),
            None => Ok(()),
        }
    }
}

fn check_tolerance(place: &'static str, value: f64) -> Result<(), SpecError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(SpecError::Tolerance { place, value }) }
}

/// `selectPolicy`: which of several policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectPolicy {
    /// The one allowing the most change.
    #[default]
    Max,
    /// The one allowing the least change.
    Min,
    /// No change in this direction at all.
    Disabled,
}

/// One entry of `policies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// `type`.
    pub kind: PolicyKind,
    /// `value`: pods, or percent of the replicas at the start of the period.
    pub value: u32,
    /// `periodSeconds`, 1 to 1800.
    pub period_seconds: u32,
}

/// `type` of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// A number of pods.
    Pods,
    /// A share of the replicas.
    Percent,
}

impl ScalingPolicy {
    /// At most `value` pods in `period_seconds`.
    pub fn pods(value: u32, period_seconds: u32) -> Self {
        Self { kind: PolicyKind::Pods, value, period_seconds }
    }

    /// At most `value` percent in `period_seconds`.
    pub fn percent(value: u32, period_seconds: u32) -> Self {
        Self { kind: PolicyKind::Percent, value, period_seconds }
    }
}

/// Why a spec is refused. The API server refuses the same.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// `maxReplicas` is 0 or no int32.
    #[error("maxReplicas is {0}: must be between 1 and 2147483647")]
    MaxReplicas(u32),
    /// `minReplicas` above `maxReplicas`.
    #[error("minReplicas {min} is above maxReplicas {max}: lower one or raise the other")]
    MinAboveMax {
        /// `minReplicas`.
        min: u32,
        /// `maxReplicas`.
        max: u32,
    },
    /// `metrics` is empty.
    #[error("metrics is empty: name at least one External, Object or Pods metric")]
    NoMetrics,
    /// `minReplicas: 0` with Pods metrics only: without pods nothing could wake the target.
    #[error("minReplicas is 0: must specify at least one Object or External metric to support scaling to zero replicas")]
    ZeroNeedsObjectOrExternal,
    /// A target of zero or less.
    #[error("target of metric {metric} is {milli}m: must be positive")]
    TargetNotPositive {
        /// Metric name.
        metric: String,
        /// The target in milli-units.
        milli: i64,
    },
    /// A Pods metric with `Value`.
    #[error("metric {0} is of type Pods: its target must be an AverageValue")]
    PodsNeedAverageValue(String),
    /// A tolerance below 0, or not a number.
    #[error("tolerance of {place} is {value}: must be a number of at least 0")]
    Tolerance {
        /// `scaleUp`, `scaleDown` or the controller's flag.
        place: &'static str,
        /// What was given.
        value: f64,
    },
    /// A stabilisation window above an hour.
    #[error("{direction}.stabilizationWindowSeconds is {seconds}: must be at most 3600")]
    WindowTooLong {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
        /// What was given.
        seconds: u32,
    },
    /// No policies in a direction.
    #[error("{direction}.policies is empty: name at least one, or leave the rules at their default")]
    NoPolicies {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
    },
    /// A policy without value, or with a period outside 1 to 1800 s.
    #[error(
        "{direction} has a policy with value {value} and periodSeconds {period}: value must be positive, periodSeconds between 1 and 1800"
    )]
    Policy {
        /// `scaleUp` or `scaleDown`.
        direction: &'static str,
        /// `value`.
        value: u32,
        /// `periodSeconds`.
        period: u32,
    },
}
