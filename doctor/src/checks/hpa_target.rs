//! Targets that cannot do what they are for.

use weir_datastore::catalog::{self, Kind, Unit};

use super::hpa_metric::metrics;
use crate::facts::Facts;
use crate::facts::scaling::{Autoscaler, Metric, Quantity};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static MEAN_AVERAGE_VALUE: Check = Check {
    code: "hpa-mean-average-value",
    title: "A mean with target type AverageValue",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "AverageValue asks for ⌈value ÷ target⌉ replicas, whatever their number now: a mean forgets how many replicas made it. A ratio \
            of 0..1 with a target of 0.5 or more can never ask for more than 2; with a small target it jumps to the maximum. `Value` asks \
            for ⌈ready × value ÷ target⌉, which is right for a mean.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers"],
    run: mean_average_value,
};

pub(crate) static TOTAL_VALUE: Check = Check {
    code: "hpa-total-value",
    title: "A total with target type Value",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "Value multiplies by the ready replicas: a total that stays the same grows the pool step by step to its maximum. `AverageValue` \
            divides it by the replicas, which is right for a total.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers"],
    run: total_value,
};

pub(crate) static UNREACHABLE: Check = Check {
    code: "hpa-target-unreachable",
    title: "A target that the pool never reaches",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "A ratio is never above 1, and a picker with flow control sends no request to a pool that is saturated (queue 5, KV cache 0.8 \
            by default): a target above that, with the HPA's tolerance of a tenth, is never crossed, and the pool never grows. Requests \
            wait in the picker meanwhile.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers", "pools", "pickerConfigs"],
    run: unreachable,
};

/// The HPA's tolerance where its behaviour sets none.
const TOLERANCE: f64 = 0.1;

fn each_metric(facts: &Facts, told: impl Fn(&Autoscaler, &Metric, &catalog::Family) -> Option<Finding>) -> Vec<Finding> {
    let mut found = Vec::new();
    for autoscaler in facts.autoscalers.iter() {
        for metric in metrics(autoscaler) {
            // The Pods API hands out a value for each pod: its AverageValue is a mean's.
            if metric.r#type.as_deref() == Some("Pods") {
                continue;
            }
            let Some(family) = metric.name().and_then(catalog::find) else { continue };
            let Some(finding) = told(autoscaler, metric, family) else { continue };
            found.push(match facts.pool_of_autoscaler(autoscaler) {
                Some(pool) => finding.pool(path(pool)),
                None => finding,
            });
        }
    }
    found
}

fn target<'facts>(metric: &'facts Metric, kind: &str) -> Option<&'facts Quantity> {
    let target = metric.source()?.target.as_ref()?;
    let told = target.r#type.as_deref()?;
    match kind {
        "Value" if told == kind => target.value.as_ref(),
        "AverageValue" if told == kind => target.average_value.as_ref(),
        _ => None,
    }
}

fn milli_shown(quantity: &Quantity) -> String {
    quantity.milli().map_or_else(|| "?".to_owned(), weir_hpa::format_milli)
}

fn mean_average_value(facts: &Facts) -> Vec<Finding> {
    each_metric(facts, |autoscaler, metric, family| {
        let quantity = target(metric, "AverageValue").filter(|_| family.kind == Kind::Mean)?;
        let limit = match (family.unit, quantity.number()) {
            (Unit::Ratio, Some(target)) if target > 0.0 => {
                format!(": at most ⌈1 ÷ {target}⌉ = {} replicas, whatever the load", (1.0 / target).ceil())
            }
            _ => String::new(),
        };
        let finding = Finding::new(
            "HorizontalPodAutoscaler",
            meta(autoscaler.metadata.as_ref()).path(),
            "divides a mean by the replicas once more",
        );
        let finding =
            finding.evidence(format!("{} is a mean, with target AverageValue {}{limit}", family.name, milli_shown(quantity)));
        Some(finding.remedy(format!("target: {{type: Value, value: \"{}\"}}", milli_shown(quantity))))
    })
}

fn total_value(facts: &Facts) -> Vec<Finding> {
    each_metric(facts, |autoscaler, metric, family| {
        let quantity = target(metric, "Value").filter(|_| family.kind == Kind::Total)?;
        let finding = Finding::new(
            "HorizontalPodAutoscaler",
            meta(autoscaler.metadata.as_ref()).path(),
            "multiplies a total by the replicas",
        );
        let finding = finding.evidence(format!("{} is a total, with target Value {}", family.name, milli_shown(quantity)));
        Some(finding.remedy("target: {type: AverageValue, averageValue: …}: how much of it one replica is to carry"))
    })
}

fn unreachable(facts: &Facts) -> Vec<Finding> {
    each_metric(facts, |autoscaler, metric, family| {
        let quantity = target(metric, "Value").filter(|_| family.kind == Kind::Mean)?;
        let wanted = quantity.number()?;
        let behavior = autoscaler.spec.as_ref()?.behavior.as_ref();
        let tolerance = behavior.and_then(|behavior| behavior.scale_up.as_ref()?.tolerance.as_ref()?.number()).unwrap_or(TOLERANCE);
        let needed = wanted * (1.0 + tolerance);
        let pool = facts.pool_of_autoscaler(autoscaler);
        let configs = pool.map(|pool| facts.configs_of(pool)).unwrap_or_default();
        let flow_control = configs.iter().any(|config| config.feature_gates.iter().flatten().any(|gate| gate == "flowControl"));
        let threshold = |of: fn(&crate::facts::observed::Plugin) -> Option<f64>, default: f64| {
            configs.iter().flat_map(|config| config.plugins.iter().flatten()).find_map(of).unwrap_or(default)
        };
        let (limit, why) = match (family.unit, family.name) {
            (Unit::Ratio, _) if needed > 1.0 => (1.0, "a ratio is never above 1".to_owned()),
            (Unit::Ratio, _) if flow_control => {
                let limit = threshold(|plugin| plugin.kv_cache_util_threshold, 0.8);
                (limit, format!("the picker holds requests from a KV cache use of {limit} on"))
            }
            (Unit::Requests, name) if flow_control && name.ends_with("queue_size") => {
                let limit = threshold(|plugin| plugin.queue_depth_threshold, 5.0);
                (limit, format!("the picker holds requests from a queue of {limit} on"))
            }
            _ => return None,
        };
        if needed <= limit {
            return None;
        }
        let finding = Finding::new(
            "HorizontalPodAutoscaler",
            meta(autoscaler.metadata.as_ref()).path(),
            "its target is never crossed: the pool never grows",
        );
        let finding = finding
            .evidence(format!("{} must rise above {needed:.2} (target {wanted}, tolerance {tolerance}), and {why}", family.name));
        let lower = weir_hpa::milli(limit * 0.75).map_or_else(|| "?".to_owned(), weir_hpa::format_milli);
        Some(finding.remedy(format!(
            "target.value: \"{lower}\", or inference_pool_total_inflight_requests, which counts held requests, with AverageValue"
        )))
    })
}
