//! A HorizontalPodAutoscaler (autoscaling/v2) from a file, for the simulation: strict, so that a slip of the pen is told and not left out.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};
use weir_adapter::Quantity;
use weir_hpa::{Behavior, HpaSpec, MetricSource, MetricSpec, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy, Target};

/// A larger file is no HPA.
const LARGEST: u64 = 1 << 20;

/// Reads the HPA of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<HpaSpec> {
    let name = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(name)?.len();
    ensure!(size <= LARGEST, "{}: {size} bytes, more than an HPA ever has ({LARGEST})", name());
    of_text(&std::fs::read_to_string(path).with_context(name)?).with_context(name)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

fn of_text(text: &str) -> anyhow::Result<HpaSpec> {
    let located = |error: serde_saphyr::Error| anyhow::anyhow!("{}", error.without_snippet());
    let heads: Vec<Option<Head>> = serde_saphyr::from_multiple(text).map_err(located)?;
    let heads: Vec<Head> = heads.into_iter().flatten().collect();
    let [head] = &heads[..] else {
        bail!("{} objects in it: give the HorizontalPodAutoscaler a file of its own", heads.len());
    };
    let kind = format!("{}/{}", head.api_version.as_deref().unwrap_or("?"), head.kind.as_deref().unwrap_or("?"));
    ensure!(kind == "autoscaling/v2/HorizontalPodAutoscaler", "it is {kind}, expected autoscaling/v2/HorizontalPodAutoscaler");
    let object: Object = serde_saphyr::from_str(text).map_err(located)?;
    let spec = object.spec;
    let metrics = spec.metrics.into_iter().enumerate();
    let metrics = metrics.map(|(index, metric)| metric.read().with_context(|| format!("spec.metrics[{index}]")));
    let mut read = HpaSpec::new(spec.min_replicas.unwrap_or(1), spec.max_replicas, metrics.collect::<anyhow::Result<_>>()?);
    read.behavior = spec.behavior.map(BehaviorFields::read).transpose().context("spec.behavior")?;
    read.validate().context("spec")?;
    Ok(read)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    spec: SpecFields,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpecFields {
    #[serde(rename = "scaleTargetRef")]
    _scale_target_ref: Option<IgnoredAny>,
    min_replicas: Option<u32>,
    max_replicas: u32,
    #[serde(default)]
    metrics: Vec<MetricFields>,
    behavior: Option<BehaviorFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricFields {
    r#type: String,
    external: Option<SourceFields>,
    object: Option<SourceFields>,
    pods: Option<SourceFields>,
    #[serde(rename = "resource")]
    _resource: Option<IgnoredAny>,
    #[serde(rename = "containerResource")]
    _container_resource: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourceFields {
    metric: MetricName,
    described_object: Option<DescribedObject>,
    target: TargetFields,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MetricName {
    name: String,
    /// There is one pool in a simulation, so there is nothing to select.
    #[serde(rename = "selector")]
    _selector: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DescribedObject {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetFields {
    r#type: String,
    value: Option<Amount>,
    average_value: Option<Amount>,
    #[serde(rename = "averageUtilization")]
    _average_utilization: Option<IgnoredAny>,
}

impl MetricFields {
    fn read(self) -> anyhow::Result<MetricSpec> {
        let (fields, field) = match self.r#type.as_str() {
            "External" => (self.external, "external"),
            "Object" => (self.object, "object"),
            "Pods" => (self.pods, "pods"),
            other => bail!("type is {other}: a simulated pool has External, Object and Pods metrics"),
        };
        let Some(fields) = fields else { bail!("type is {}, so `{field}` must say which metric", self.r#type) };
        let source = match (field, fields.described_object) {
            ("external", _) => MetricSource::External,
            ("pods", _) => MetricSource::Pods,
            (_, Some(object)) => MetricSource::Object { kind: object.kind, name: object.name },
            (_, None) => bail!("object.describedObject is missing"),
        };
        let target = match (fields.target.r#type.as_str(), fields.target.value, fields.target.average_value) {
            ("Value", Some(Amount(milli)), None) => Target::Value(milli),
            ("AverageValue", None, Some(Amount(milli))) => Target::AverageValue(milli),
            ("Value", ..) => bail!("{field}.target.type is Value, so `value`, and no other, must be set"),
            ("AverageValue", ..) => bail!("{field}.target.type is AverageValue, so `averageValue`, and no other, must be set"),
            (other, ..) => bail!("{field}.target.type is {other}, expected Value or AverageValue"),
        };
        Ok(MetricSpec { name: fields.metric.name, selector: None, source, target })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BehaviorFields {
    scale_up: Option<RuleFields>,
    scale_down: Option<RuleFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFields {
    stabilization_window_seconds: Option<u32>,
    select_policy: Option<String>,
    policies: Option<Vec<PolicyFields>>,
    tolerance: Option<Amount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PolicyFields {
    r#type: String,
    value: u32,
    period_seconds: u32,
}

impl BehaviorFields {
    /// What is left out is filled in as the API server does.
    fn read(self) -> anyhow::Result<Behavior> {
        let rules = |fields: Option<RuleFields>, default: ScalingRules, name: &'static str| match fields {
            None => Ok(default),
            Some(fields) => fields.read(default).context(name),
        };
        Ok(Behavior {
            scale_up: rules(self.scale_up, ScalingRules::default_up(), "scaleUp")?,
            scale_down: rules(self.scale_down, ScalingRules::default_down(), "scaleDown")?,
        })
    }
}

impl RuleFields {
    fn read(self, default: ScalingRules) -> anyhow::Result<ScalingRules> {
        let select_policy = match self.select_policy.as_deref() {
            None => default.select_policy,
            Some("Max") => SelectPolicy::Max,
            Some("Min") => SelectPolicy::Min,
            Some("Disabled") => SelectPolicy::Disabled,
            Some(other) => bail!("selectPolicy is {other}, expected Max, Min or Disabled"),
        };
        let policies = match self.policies {
            None => default.policies,
            Some(policies) => policies.into_iter().map(PolicyFields::read).collect::<anyhow::Result<_>>()?,
        };
        Ok(ScalingRules {
            stabilization_window_seconds: self.stabilization_window_seconds.or(default.stabilization_window_seconds),
            select_policy,
            policies,
            tolerance: self.tolerance.map(|Amount(milli)| milli as f64 / 1000.0).or(default.tolerance),
        })
    }
}

impl PolicyFields {
    fn read(self) -> anyhow::Result<ScalingPolicy> {
        let kind = match self.r#type.as_str() {
            "Pods" => PolicyKind::Pods,
            "Percent" => PolicyKind::Percent,
            other => bail!("a policy has type {other}, expected Pods or Percent"),
        };
        Ok(ScalingPolicy { kind, value: self.value, period_seconds: self.period_seconds })
    }
}

/// A Quantity, which YAML may have as a number, in thousandths.
struct Amount(i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor)
    }
}

struct AmountVisitor;

impl Visitor<'_> for AmountVisitor {
    type Value = Amount;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a quantity such as 64, \"5\" or 600m")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Amount, E> {
        let quantity: Result<Quantity, _> = text.parse();
        quantity.map(|quantity| Amount(quantity.milli())).map_err(|error| E::custom(format!("`{}`: {error}", text.escape_debug())))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Amount, E> {
        weir_hpa::milli(number).map(Amount).ok_or_else(|| E::custom("not a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: a}
spec:
  maxReplicas: 8
  metrics:
  - type: External
    external:
      metric: {name: inference_pool_total_queue_size}
      target: {type: AverageValue, averageValue: 4}
";

    fn error(text: &str) -> String {
        format!("{:#}", of_text(text).unwrap_err())
    }

    #[test]
    fn the_examples_are_read() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hpa-examples");
        let mut count = 0;
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                read(&path).unwrap();
                count += 1;
            }
        }
        assert!(count >= 9, "{count}");
    }

    #[test]
    fn defaults_are_the_api_servers() {
        let spec = of_text(QUEUE).unwrap();
        assert_eq!((spec.min_replicas, spec.max_replicas, spec.behavior.clone()), (1, 8, None));
        assert_eq!(spec.metrics[0].target, Target::AverageValue(4000));
        let spec =
            of_text(&format!("{QUEUE}  behavior:\n    scaleDown: {{stabilizationWindowSeconds: 600, tolerance: 50m}}\n")).unwrap();
        let behavior = spec.behavior.unwrap();
        assert_eq!(behavior.scale_up, ScalingRules::default_up());
        assert_eq!((behavior.scale_down.stabilization_window_seconds, behavior.scale_down.tolerance), (Some(600), Some(0.05)));
        assert_eq!(behavior.scale_down.policies, ScalingRules::default_down().policies);
    }

    #[test]
    fn what_it_does_not_know_is_named() {
        assert!(
            error(&QUEUE.replace("maxReplicas", "maxReplica")).contains("maxReplica"),
            "{}",
            error(&QUEUE.replace("maxReplicas", "maxReplica"))
        );
        assert!(error(&QUEUE.replace("maxReplicas", "maxReplica")).contains("line 5"));
        assert_eq!(
            error(&QUEUE.replace("type: External", "type: Resource")),
            "spec.metrics[0]: type is Resource: a simulated pool has External, Object and Pods metrics"
        );
        assert!(error(&QUEUE.replace("averageValue: 4", "value: 4")).contains("so `averageValue`, and no other, must be set"));
        assert!(error(&QUEUE.replace("averageValue: 4", "averageValue: 4x")).contains("4x"));
        assert!(error(&QUEUE.replace("averageValue: 4", "averageValue: 0")).contains("must be positive"));
        assert!(error(&QUEUE.replace("autoscaling/v2", "autoscaling/v1")).contains("expected autoscaling/v2"));
        assert!(error(&format!("{QUEUE}---\n{QUEUE}")).starts_with("2 objects in it"));
        assert!(error("").starts_with("0 objects in it"));
    }
}
