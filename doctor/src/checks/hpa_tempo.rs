//! Behaviour that does not fit the time a server takes to start.

use std::time::Duration;

use super::hpa_metric::metrics;
use crate::facts::Facts;
use crate::facts::scaling::{Autoscaler, Rules};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path, shown};

pub(crate) static FLAPS: Check = Check {
    code: "hpa-flaps",
    title: "Replicas are taken away faster than they come back",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "The scale-down window is shorter than a server takes to start: a short lull costs a replica that the next minute wants again, \
            and waits for. The window should be longer than the start, which is measured here.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers", "pools", "pods"],
    run: flaps,
};

pub(crate) static OVERSHOOTS: Check = Check {
    code: "hpa-overshoots",
    title: "Scaling up on a queue overshoots while servers start",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "A queue grows for as long as the new servers start, and each turn of the HPA asks for more because of it: far more replicas \
            come than the demand needs. Count what runs, too (`inference_pool_total_inflight_requests`), or add replicas no faster than \
            once in the time that a server takes to start, which is measured here.",
    elsewhere: Elsewhere::Outside("a metrics request does not tell the autoscaler's spec."),
    needs: &["autoscalers", "pools", "pods"],
    run: overshoots,
};

/// Starts faster than this are no trouble.
const SLOW: Duration = Duration::from_secs(90);
/// The controller's own window where the object has none.
const DEFAULT_DOWN_WINDOW: u64 = 300;

/// Autoscalers with the measured start of the pool's servers.
fn with_start(facts: &Facts) -> impl Iterator<Item = (&Autoscaler, Duration, String)> {
    facts.autoscalers.iter().filter_map(|autoscaler| {
        let pool = facts.pool_of_autoscaler(autoscaler)?;
        Some((autoscaler, facts.start_time(pool).filter(|start| *start > SLOW)?, path(pool)))
    })
}

fn flaps(facts: &Facts) -> Vec<Finding> {
    let found = with_start(facts).filter_map(|(autoscaler, start, pool)| {
        let rules = autoscaler.spec.as_ref()?.behavior.as_ref().and_then(|behavior| behavior.scale_down.as_ref());
        if rules.and_then(|rules| rules.select_policy.as_deref()) == Some("Disabled") {
            return None;
        }
        let window = rules.and_then(|rules| rules.stabilization_window_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = window.unwrap_or(DEFAULT_DOWN_WINDOW);
        if seconds >= start.as_secs() {
            return None;
        }
        let said = if window.is_some() { "" } else { " (the default)" };
        let finding = Finding::new(
            "HorizontalPodAutoscaler",
            meta(autoscaler.metadata.as_ref()).path(),
            "takes replicas away faster than they come back",
        )
        .evidence(format!(
            "scaleDown.stabilizationWindowSeconds is {seconds}{said}; a server of the pool takes at least {} to start",
            shown(start)
        ))
        .remedy(format!("behavior.scaleDown.stabilizationWindowSeconds: {}", (start.as_secs() * 2).clamp(600, 3600)));
        Some(finding.pool(pool))
    });
    found.collect()
}

/// By how much the policies let `replicas` grow within `time`: the factor, at one turn of the HPA in 15 s.
fn growth(rules: Option<&Rules>, replicas: f64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    let Some(policies) = rules.and_then(|rules| rules.policies.as_ref()).filter(|policies| !policies.is_empty()) else {
        // Twice, or four pods more, each turn.
        return Some(f64::INFINITY);
    };
    let limits = policies.iter().map(|policy| {
        let (value, period) = (policy.value? as f64, policy.period_seconds? as f64);
        if period <= 0.0 {
            return None;
        }
        let periods = (seconds / period).ceil().max(1.0);
        match policy.r#type.as_deref()? {
            "Pods" => Some((replicas + value * periods) / replicas),
            "Percent" => Some((1.0 + value / 100.0).powf(periods)),
            _ => None,
        }
    });
    let limits: Vec<f64> = limits.collect::<Option<_>>()?;
    match rules.and_then(|rules| rules.select_policy.as_deref()) {
        Some("Disabled") => Some(1.0),
        Some("Min") => limits.into_iter().reduce(f64::min),
        _ => limits.into_iter().reduce(f64::max),
    }
}

fn overshoots(facts: &Facts) -> Vec<Finding> {
    let found = with_start(facts).filter_map(|(autoscaler, start, pool)| {
        let spec = autoscaler.spec.as_ref()?;
        // Only where a queue alone decides: a metric that counts running requests as well does not grow while servers start.
        let mut names = metrics(autoscaler).map(|metric| metric.name());
        let queue = names.next()??;
        if !queue.ends_with("queue_size") && queue != "inference_pool_held_requests" || names.next().is_some() {
            return None;
        }
        let behavior = spec.behavior.as_ref().and_then(|behavior| behavior.scale_up.as_ref());
        let window = behavior.and_then(|rules| rules.stabilization_window_seconds).and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        if window >= start.as_secs() {
            return None;
        }
        let replicas = autoscaler.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(1).max(1) as f64;
        let factor = growth(behavior, replicas, start)?;
        if factor <= 4.0 || spec.max_replicas.is_none_or(|max| max as f64 <= 4.0 * replicas) {
            return None;
        }
        let factor = if factor.is_finite() && factor < 1000.0 { format!("{factor:.0} times") } else { "any number of times".to_owned() };
        let finding = Finding::new("HorizontalPodAutoscaler", meta(autoscaler.metadata.as_ref()).path(), "adds far more replicas than are needed while the first ones start")
            .evidence(format!("it scales on {queue} alone, a server takes at least {} to start, and the policies let it grow {factor} in that time", shown(start)))
            .remedy(format!("metric.name: inference_pool_total_inflight_requests; or behavior.scaleUp.policies: [{{type: Percent, value: 100, periodSeconds: {}}}]", start.as_secs().clamp(15, 1800)));
        Some(finding.pool(pool))
    });
    found.collect()
}
