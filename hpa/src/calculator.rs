//! One metric and its reading → the replicas it asks for.
//!
//! Everything is done in `f64` in the order the controller does it, so that results agree to the last
//! replica where binary fractions decide; only casts differ: ours saturate.

use std::collections::BTreeMap;

use crate::proposal::{MetricError, Proposal, Rule};
use crate::replicas::{MetricReading, Replicas};
use crate::spec::{MetricSource, MetricSpec, Target, Tolerances};

/// What every formula needs besides the metric.
pub(crate) struct Surroundings<'a> {
    pub(crate) current: &'a Replicas,
    pub(crate) tolerances: Tolerances,
}

/// What a metric asks for.
pub(crate) fn propose(
    metric: &MetricSpec,
    reading: Option<&MetricReading>,
    surroundings: &Surroundings<'_>,
) -> Result<Proposal, MetricError> {
    if let Some(MetricReading::Error(text)) = reading {
        return Err(MetricError::Api(text.clone()));
    }
    match (&metric.source, reading) {
        (MetricSource::External, Some(MetricReading::Items(items))) => {
            if items.is_empty() {
                return Err(MetricError::NoItems);
            }
            match metric.target {
                Target::Value(target) => value(sum_capped(items), target, surroundings),
                Target::AverageValue(target) => Ok(average(sum_for_average(items), target, surroundings)),
            }
        }
        (MetricSource::Object { .. }, Some(MetricReading::Items(items))) => {
            let [usage] = items[..] else {
                return Err(MetricError::NotExactlyOne(items.len()));
            };
            match metric.target {
                Target::Value(target) => value(usage, target, surroundings),
                Target::AverageValue(target) => Ok(average(usage, target, surroundings)),
            }
        }
        (MetricSource::Pods, Some(MetricReading::PerPod(samples))) => pods_average(samples, metric.target.milli(), surroundings),
        _ => Err(MetricError::NoReading),
    }
}

/// Rounds up to replicas; NaN is 0 and the ends of `int32` are caps.
fn replicas_from(value: f64) -> i32 {
    value.ceil() as i32
}

/// An `int32` of the wire.
fn on_the_wire(replicas: u32) -> i32 {
    i32::try_from(replicas).unwrap_or(i32::MAX)
}

/// Sum of items for `Value`, capped at both ends.
fn sum_capped(items: &[i64]) -> i64 {
    items.iter().fold(0_i64, |sum, item| sum.saturating_add(*item))
}

/// Sum of items for `AverageValue`. The controller takes any sum below zero for an overflow and caps
/// it at the top: a negative item may thus ask for the maximum.
fn sum_for_average(items: &[i64]) -> i64 {
    let mut sum = 0_i64;
    for item in items {
        match sum.checked_add(*item) {
            Some(next) if next >= 0 => sum = next,
            _ => return i64::MAX,
        }
    }
    sum
}

/// External and Object with `Value`.
fn value(usage: i64, target: i64, surroundings: &Surroundings<'_>) -> Result<Proposal, MetricError> {
    let current = surroundings.current;
    let ratio = usage as f64 / target as f64;
    let (replicas, rule) = if current.spec == 0 {
        (replicas_from(ratio), Rule::FromZero)
    } else if surroundings.tolerances.contains(ratio) {
        (on_the_wire(current.spec), Rule::WithinTolerance)
    } else if current.pods.listed() == 0 {
        return Err(MetricError::NoPods);
    } else {
        let ready = current.pods.ready();
        (replicas_from(ratio * ready as f64), Rule::RatioTimesPods { pods: ready as i64 })
    };
    Ok(Proposal { replicas, usage_milli: usage, target: Target::Value(target), ratio, rule, status_milli: Some(usage) })
}

/// External and Object with `AverageValue`: the size now enters only through the dead band.
fn average(usage: i64, target: i64, surroundings: &Surroundings<'_>) -> Proposal {
    let status = surroundings.current.status;
    // At zero status replicas this is infinite or NaN, and so outside every tolerance.
    let ratio = usage as f64 / (target as f64 * f64::from(status));
    let (replicas, rule) = if surroundings.tolerances.contains(ratio) {
        (on_the_wire(status), Rule::WithinTolerance)
    } else {
        (replicas_from(usage as f64 / target as f64), Rule::UsageOverTarget)
    };
    let status_milli = (status != 0).then(|| (usage as f64 / f64::from(status)).ceil() as i64);
    Proposal { replicas, usage_milli: usage, target: Target::AverageValue(target), ratio, rule, status_milli }
}

/// Pods: the mean over samples, recounted with assumptions where pods have none.
fn pods_average(values: &BTreeMap<String, i64>, target: i64, surroundings: &Surroundings<'_>) -> Result<Proposal, MetricError> {
    let current = surroundings.current;
    if values.is_empty() {
        return Err(MetricError::NoPodItems);
    }
    if current.pods.listed() == 0 {
        return Err(MetricError::NoPods);
    }
    let grouped = current.pods.group(values);
    if grouped.samples == 0 {
        return Err(MetricError::NoUsableSamples);
    }

    let keep = on_the_wire(current.spec);
    let (usage, ratio) = mean_and_ratio(grouped.total, grouped.samples, target);
    let proposal = |replicas, rule| Proposal {
        replicas,
        usage_milli: usage,
        target: Target::AverageValue(target),
        ratio,
        rule,
        status_milli: Some(usage),
    };

    let pending = if ratio > 1.0 { grouped.pending } else { 0 };
    let missing = grouped.missing;
    if pending == 0 && missing == 0 {
        if surroundings.tolerances.contains(ratio) {
            return Ok(proposal(keep, Rule::WithinTolerance));
        }
        let pods = grouped.measured_pods;
        let replicas = replicas_from(ratio * pods as f64);
        return Ok(proposal(replicas, Rule::RatioTimesPods { pods }));
    }

    let mut total = grouped.total;
    let mut pods = grouped.samples + pending;
    if ratio < 1.0 {
        total += i128::from(target) * i128::from(missing);
        pods += missing;
    } else if ratio > 1.0 {
        pods += missing;
    }
    let (_, recounted) = mean_and_ratio(total, pods, target);
    let replicas = replicas_from(recounted * pods as f64);
    let ratio_turned = (ratio < 1.0 && recounted > 1.0) || (ratio > 1.0 && recounted < 1.0);
    let replicas_turned = (recounted < 1.0 && replicas > keep) || (recounted > 1.0 && replicas < keep);
    if surroundings.tolerances.contains(recounted) || ratio_turned || replicas_turned {
        return Ok(proposal(keep, Rule::RecountKeeps { missing, pending }));
    }
    Ok(proposal(replicas, Rule::Recounted { missing, pending, pods }))
}

/// The mean in whole milli-units (cut towards zero, as integer division does) and its ratio.
fn mean_and_ratio(total: i128, count: i64, target: i64) -> (i64, f64) {
    let mean = total / i128::from(count);
    let usage = i64::try_from(mean).unwrap_or(if mean < 0 { i64::MIN } else { i64::MAX });
    (usage, usage as f64 / target as f64)
}
