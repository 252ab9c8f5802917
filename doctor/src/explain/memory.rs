//! What can be known from outside of the controller's memory: recommendations and changes of size.
//!
//! The controller keeps both in its process, from its start on. An HPA's status tells of its last turn, Events of the changes of the last
//! hour. From these come cases: the likely one, and what would be so if the rest were otherwise.

use std::time::Duration;

use weir_hpa::{HpaSpec, Memory, ScalingRules};

use crate::facts::Facts;
use crate::facts::meta::condition;
use crate::facts::scaling::{Autoscaler, TargetReference};
use crate::facts::workload::Event;
use crate::look::{meta, shown};

/// The controller's turn, unless it was told otherwise: `--horizontal-pod-autoscaler-sync-period`.
pub(super) const TURN: Duration = Duration::from_secs(15);

/// The present, on a clock that has hours behind it.
const NOW: Duration = Duration::from_secs(1_000_000);

/// A Deployment's Event belongs to an autoscaler's so close to it.
const TOGETHER: Duration = Duration::from_secs(5);

/// One thing that the controller may remember, and when its next turn is.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// None: nothing, it has not had a turn yet.
    pub(super) memory: Option<Memory>,
    pub(super) at: Duration,
    /// When this is so, for people.
    pub(super) when: String,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) scaled_to_zero: bool,
    pub(super) likely: Case,
    pub(super) others: Vec<Case>,
    /// Changes of size that Events tell of: how long ago, from, to.
    pub(super) rescales: Vec<(Duration, Option<u32>, u32)>,
}

impl Known {
    /// Whether the controller has not had a turn yet.
    pub(super) fn first_turn(&self) -> bool {
        self.likely.memory.is_none()
    }
}

/// What is known of the memory of `autoscaler`, whose target has `current` replicas.
pub(super) fn known(facts: &Facts, autoscaler: &Autoscaler, spec: &HpaSpec, current: u32) -> Known {
    let status = autoscaler.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let scaled_to_zero = condition(conditions, "ScaledToZero", "True").is_some();
    let first = |others| {
        let likely = Case { memory: None, at: NOW, when: String::new() };
        Known { scaled_to_zero, likely, others, rescales: Vec::new() }
    };
    let Some(last) = status.and_then(|status| status.desired_replicas).and_then(|last| u32::try_from(last).ok()) else {
        return first(Vec::new());
    };
    if conditions.is_none_or(Vec::is_empty) {
        // No turn yet: the size that is found counts as recommended.
        return first(Vec::new());
    }

    let rescales = rescales(facts, autoscaler);
    let longest = longest_period(spec);
    let last_change = status.and_then(|status| facts.ago(status.last_scale_time.as_ref()));
    let told = |ago: Duration| rescales.iter().any(|(at, from, _)| at.abs_diff(ago) <= TOGETHER && from.is_some());
    let unseen = last_change.is_some_and(|ago| ago < longest && !told(ago))
        || rescales.iter().any(|(ago, from, _)| *ago < longest && from.is_none());

    let is = |kind: &str, state: &str, reason: &str| {
        condition(conditions, kind, state).is_some_and(|condition| condition.reason.as_deref() == Some(reason))
    };
    let limit = condition(conditions, "ScalingLimited", "True").and_then(|condition| condition.reason.as_deref());
    let active = condition(conditions, "ScalingActive", "True").is_some();
    // The last turn recommended exactly the size that its status has.
    let settled = active && limit.is_none() && is("AbleToScale", "True", "ReadyForNewScale");

    let memory = |at: Duration, recommended: Option<u32>| {
        // Growing is what the metrics wanted; what was shrunk to may have been wanted long before.
        let grown = rescales.iter().filter(|(_, from, to)| from.is_some_and(|from| from < *to));
        let mut recommendations: Vec<_> = grown.map(|(ago, _, to)| (NOW.saturating_sub(*ago), *to)).collect();
        recommendations.extend(recommended.map(|replicas| (at.saturating_sub(TURN), replicas)));
        let rescales = rescales.iter().filter_map(|(ago, from, to)| Some((NOW.saturating_sub(*ago), (*from)?, *to))).collect();
        Some(Memory { recommendations, rescales })
    };
    // A change less than a turn old was the last turn's: the next one comes a turn after it. Else it comes at any moment.
    let youngest = rescales.last().map(|(ago, _, _)| *ago).filter(|ago| *ago < TURN);
    let soon = youngest.map_or(NOW, |ago| NOW + (TURN - ago));
    let likely = Case { memory: memory(soon, Some(last)), at: soon, when: String::new() };
    let later = NOW + TURN;
    let mut others = Vec::new();
    if youngest.is_none() {
        let when = format!("the turn comes only after a change of size has left its period ({})", shown(longest));
        others.push(Case { memory: memory(later, Some(last)), at: later, when });
    }
    if !settled {
        let window = longest_window(spec);
        let when = format!(
            "what was recommended before has left the window; it will have in {} at the latest, if nothing changes",
            shown(window)
        );
        others.push(Case { memory: memory(soon, None), at: soon, when });
    }
    let beyond = match limit {
        Some("ScaleUpLimit" | "TooManyReplicas") => Some(spec.max_replicas),
        Some("ScaleDownLimit" | "TooFewReplicas") => Some(spec.min_replicas),
        _ => None,
    };
    if let Some(beyond) = beyond {
        let when = "the last turn wanted more than its limits allowed, and that is still in the window".to_owned();
        others.push(Case { memory: memory(soon, Some(beyond)), at: soon, when });
    }
    if unseen {
        // All that a period can hold: as if the size had been reached in it from nothing, or from the maximum.
        for from in [spec.min_replicas.min(current), spec.max_replicas.max(current)] {
            let mut memory = memory(soon, Some(last)).unwrap_or_default();
            memory.rescales = vec![(NOW, from, current)];
            let when = "policies count what was changed before, and no Event tells how much that was".to_owned();
            others.push(Case { memory: Some(memory), at: soon, when });
        }
    }
    Known { scaled_to_zero, likely, others, rescales }
}

/// The longest period of any policy; zero without behaviour, where changes are not remembered.
fn longest_period(spec: &HpaSpec) -> Duration {
    let of = |rules: &ScalingRules| rules.policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
    let longest = spec.behavior.as_ref().map_or(0, |behavior| of(&behavior.scale_up).max(of(&behavior.scale_down)));
    Duration::from_secs(u64::from(longest))
}

/// The longer window.
fn longest_window(spec: &HpaSpec) -> Duration {
    let seconds = |rules: &ScalingRules| rules.stabilization_window_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    spec.behavior.as_ref().map_or(spec.downscale_stabilization, |behavior| {
        seconds(&behavior.scale_down).unwrap_or(spec.downscale_stabilization).max(seconds(&behavior.scale_up).unwrap_or_default())
    })
}

/// Every change of size by `autoscaler` that Events tell of, oldest first: how long ago, from, to.
fn rescales(facts: &Facts, autoscaler: &Autoscaler) -> Vec<(Duration, Option<u32>, u32)> {
    let own = meta(autoscaler.metadata.as_ref());
    let about = |event: &&Event, kind: &str, name: &str| {
        let involved = event.involved_object.as_ref();
        involved.is_some_and(|involved| {
            involved.kind.as_deref() == Some(kind)
                && involved.name.as_deref() == Some(name)
                && involved.namespace.as_deref() == Some(own.namespace())
        })
    };
    let ago = |event: &Event| facts.ago(event.last_timestamp.as_ref());
    let target: Option<&TargetReference> = autoscaler.spec.as_ref().and_then(|spec| spec.scale_target_ref.as_ref());
    let moves: Vec<(Duration, u32, u32)> = facts
        .rescales
        .iter()
        .filter(|event| target.is_some_and(|target| about(event, "Deployment", target.name.as_deref().unwrap_or(""))))
        .filter_map(|event| {
            let (from, to) = moved(event.message.as_deref()?)?;
            Some((ago(event)?, from, to))
        })
        .collect();
    let mut found: Vec<(Duration, Option<u32>, u32)> = facts
        .rescales
        .iter()
        .filter(|event| about(event, "HorizontalPodAutoscaler", own.name()))
        .filter_map(|event| {
            let to = new_size(event.message.as_deref()?)?;
            let at = ago(event)?;
            let from =
                moves.iter().find(|(other, _, size)| *size == to && other.abs_diff(at) <= TOGETHER).map(|(_, from, _)| *from);
            Some((at, from, to))
        })
        .collect();
    found.sort_by_key(|(ago, _, _)| std::cmp::Reverse(*ago));
    // What is not told of by the target follows from the change before.
    for position in 1..found.len() {
        let before = found[position - 1].2;
        found[position].1.get_or_insert(before);
    }
    found
}

/// `New size: 4; reason: …`
fn new_size(message: &str) -> Option<u32> {
    message.strip_prefix("New size: ")?.split(';').next()?.trim().parse().ok()
}

/// `Scaled up replica set chat-6d4f from 2 to 4`
fn moved(message: &str) -> Option<(u32, u32)> {
    let (before, to) = message.strip_prefix("Scaled ")?.rsplit_once(" to ")?;
    let (_, from) = before.rsplit_once(" from ")?;
    Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_sizes() {
        assert_eq!(new_size("New size: 4; reason: external metric x(nil) above target"), Some(4));
        assert_eq!(new_size("New size: many"), None);
        assert_eq!(moved("Scaled up replica set chat-6d4f from 2 to 4"), Some((2, 4)));
        assert_eq!(moved("Scaled down replica set chat-6d4f from 4 to 0"), Some((4, 0)));
        assert_eq!(moved("Scaled up replica set chat-6d4f to 4"), None);
    }
}
