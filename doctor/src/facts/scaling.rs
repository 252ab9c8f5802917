//! Autoscalers and the APIs they ask.

use super::facts;
use super::meta::{Condition, Labels, Meta, Selector};

facts! {
    /// `autoscaling/v2` HorizontalPodAutoscaler.
    Autoscaler { metadata: Meta, spec: AutoscalerSpec, status: AutoscalerStatus, }
    AutoscalerSpec {
        scale_target_ref: TargetReference,
        min_replicas: i64,
        max_replicas: i64,
        metrics: Vec<Metric>,
        behavior: Behavior,
    }
    TargetReference { api_version: String, kind: String, name: String, }
    Metric { r#type: String, external: MetricSource, object: MetricSource, pods: MetricSource, }
    MetricSource { metric: MetricIdentifier, target: MetricTarget, described_object: TargetReference, current: MetricTarget, }
    MetricIdentifier { name: String, selector: Selector, }
    MetricTarget { r#type: String, value: Quantity, average_value: Quantity, }
    Behavior { scale_up: Rules, scale_down: Rules, }
    Rules { stabilization_window_seconds: i64, select_policy: String, policies: Vec<Policy>, tolerance: Quantity, }
    Policy { r#type: String, value: i64, period_seconds: i64, }
    AutoscalerStatus {
        current_replicas: i64,
        desired_replicas: i64,
        last_scale_time: String,
        current_metrics: Vec<Metric>,
        conditions: Vec<Condition>,
    }

    /// `keda.sh` ScaledObject.
    ScaledObject { metadata: Meta, spec: ScaledObjectSpec, status: ScaledObjectStatus, }
    ScaledObjectSpec { scale_target_ref: TargetReference, min_replica_count: i64, max_replica_count: i64, }
    ScaledObjectStatus { hpa_name: String, conditions: Vec<Condition>, }

    /// `apiregistration.k8s.io` APIService.
    ApiService { metadata: Meta, spec: ApiServiceSpec, status: ApiServiceStatus, }
    ApiServiceSpec { group: String, version: String, service: ServiceReference, }
    ServiceReference { namespace: String, name: String, port: i64, }
    ApiServiceStatus { conditions: Vec<Condition>, }
}

/// A quantity: `600m`, `10`; files may have it as a number.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum Quantity {
    /// As Kubernetes writes it.
    Text(String),
    /// As people write it in YAML.
    Number(f64),
}

impl Quantity {
    /// In thousandths, as the HPA counts; none where it is no quantity.
    pub(crate) fn milli(&self) -> Option<i64> {
        let text = match self {
            Self::Number(number) => return weir_hpa::milli(*number),
            Self::Text(text) => text.trim(),
        };
        let number_end = text.find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let number: f64 = number.parse().ok()?;
        let factor = match suffix {
            "" => 1.0,
            "m" => 1e-3,
            "u" => 1e-6,
            "n" => 1e-9,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "Ki" => 1024.0,
            "Mi" => 1024.0 * 1024.0,
            "Gi" => 1024.0 * 1024.0 * 1024.0,
            exponent => 10_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
        };
        weir_hpa::milli(number * factor)
    }

    /// As a number.
    pub(crate) fn number(&self) -> Option<f64> {
        self.milli().map(|milli| milli as f64 / 1000.0)
    }
}

impl Metric {
    /// What it is read from, whichever type it is.
    pub(crate) fn source(&self) -> Option<&MetricSource> {
        self.external.as_ref().or(self.object.as_ref()).or(self.pods.as_ref())
    }

    /// Its name; GKE's spelling `prometheus.googleapis.com|NAME|gauge` is the same metric.
    pub(crate) fn name(&self) -> Option<&str> {
        let name = self.source()?.metric.as_ref()?.name.as_deref()?;
        match name.split('|').collect::<Vec<_>>()[..] {
            ["prometheus.googleapis.com", inner, _] => Some(inner),
            _ => Some(name),
        }
    }

    /// The labels its selector demands.
    pub(crate) fn selector_labels(&self) -> Option<&Labels> {
        self.source()?.metric.as_ref()?.selector.as_ref()?.match_labels.as_ref()
    }

    /// The pool it is of: `name`, in one of the spellings that weir takes.
    pub(crate) fn pool(&self) -> Option<&str> {
        if let Some(described) = self.object.as_ref().and_then(|object| object.described_object.as_ref()) {
            return (described.kind.as_deref() == Some("InferencePool")).then_some(described.name.as_deref()?);
        }
        let labels = self.selector_labels()?;
        POOL_KEYS.iter().find_map(|key| labels.get(*key)).map(String::as_str)
    }
}

/// Selector keys that name a pool.
pub(crate) const POOL_KEYS: [&str; 4] = ["name", "pool", "inference_pool", "metric.labels.name"];
