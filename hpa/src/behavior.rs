//! From a raw proposal to the size that is set: stabilisation over past proposals, then rate policies,
//! then minimum and maximum.
//!
//! Order and edge rules are the controller's. Without `behavior` a past proposal counts while its age
//! is at most the window; with it, while its age is below the window. Both are kept, since a
//! simulation with round numbers meets the edge all the time.

use std::time::Duration;

use crate::spec::{Behavior, HpaSpec, PolicyKind, ScalingPolicy, ScalingRules, SelectPolicy};

/// Which stabilisation window changed the proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stabilized {
    /// Growing was held back to the lowest recent proposal.
    Up,
    /// Shrinking was held back to the highest recent proposal.
    Down,
}

/// Which limit cut the stabilised proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// None.
    WithinRange,
    /// `minReplicas`.
    TooFewReplicas,
    /// `maxReplicas`.
    TooManyReplicas,
    /// Growing faster than the policies (or max(2 × current, 4) without behaviour) allow.
    ScaleUpLimit,
    /// Shrinking faster than the policies allow.
    ScaleDownLimit,
}

/// A proposal after this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Normalized {
    pub(crate) after_windows: i64,
    pub(crate) stabilized: Option<Stabilized>,
    pub(crate) desired: i64,
    pub(crate) limit: Limit,
}

/// A size change, for rate policies.
#[derive(Debug, Clone, Copy)]
struct ScaleEvent {
    at: Duration,
    pods: i64,
}

/// What the controller remembers about one HPA between turns. Bounded: entries older than every
/// window or period are dropped or their slots reused.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    recommendations: Vec<(Duration, i64)>,
    seeded: bool,
    scale_ups: Vec<ScaleEvent>,
    scale_downs: Vec<ScaleEvent>,
}

/// What is known from outside of the controller's memory of one HPA; times from the caller's epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Sizes that were recommended, and when.
    pub recommendations: Vec<(Duration, u32)>,
    /// Changes of size that the HPA made, from and to, and when.
    pub rescales: Vec<(Duration, u32, u32)>,
}

impl History {
    /// A memory that has begun.
    pub(crate) fn of(memory: &Memory, spec: &HpaSpec) -> Self {
        let recommendations = memory.recommendations.iter().map(|(at, replicas)| (*at, i64::from(*replicas))).collect();
        let mut history = Self { recommendations, seeded: true, ..Self::default() };
        let mut rescales = memory.rescales.clone();
        rescales.sort_by_key(|(at, _, _)| *at);
        for (at, from, to) in rescales {
            history.record_scale(at, spec, i64::from(from), i64::from(to));
        }
        history
    }

    /// The first turn counts the size it finds as a proposal, so that a restarted controller does
    /// not shrink at once.
    pub(crate) fn seed(&mut self, now: Duration, current: i64) {
        if !self.seeded {
            self.seeded = true;
            self.recommendations.push((now, current));
        }
    }

    /// Applies windows, policies and bounds to a proposal of this turn, and remembers it.
    pub(crate) fn normalize(&mut self, now: Duration, spec: &HpaSpec, current: i64, proposed: i64) -> Normalized {
        match &spec.behavior {
            None => self.normalize_plainly(now, spec, current, proposed),
            Some(behavior) => self.normalize_with(behavior, now, spec, current, proposed),
        }
    }

    fn normalize_plainly(&mut self, now: Duration, spec: &HpaSpec, current: i64, proposed: i64) -> Normalized {
        let window = spec.downscale_stabilization;
        self.recommendations.retain(|(at, _)| now.saturating_sub(*at) <= window);
        let highest = self.recommendations.iter().map(|(_, replicas)| *replicas);
        let after_windows = highest.fold(proposed, i64::max);
        self.recommendations.push((now, proposed));

        let minimum = i64::from(spec.min_replicas);
        let maximum = i64::from(spec.max_replicas);
        let rate_limit = (2 * current).max(4);
        let (desired, limit) = if after_windows < minimum {
            (minimum, Limit::TooFewReplicas)
        } else if maximum > rate_limit && after_windows > rate_limit {
            (rate_limit, Limit::ScaleUpLimit)
        } else if after_windows > maximum {
            (maximum, Limit::TooManyReplicas)
        } else {
            (after_windows, Limit::WithinRange)
        };
        Normalized { after_windows, stabilized: (after_windows != proposed).then_some(Stabilized::Down), desired, limit }
    }

    fn normalize_with(&mut self, behavior: &Behavior, now: Duration, spec: &HpaSpec, current: i64, proposed: i64) -> Normalized {
        let up_window = window_of(&behavior.scale_up, Duration::ZERO);
        let down_window = window_of(&behavior.scale_down, spec.downscale_stabilization);
        let mut lowest = proposed;
        let mut highest = proposed;
        for (at, replicas) in &self.recommendations {
            let age = now.saturating_sub(*at);
            if age < up_window {
                lowest = lowest.min(*replicas);
            }
            if age < down_window {
                highest = highest.max(*replicas);
            }
        }
        let longest = up_window.max(down_window);
        self.recommendations.retain(|(at, _)| now.saturating_sub(*at) <= longest);
        self.recommendations.push((now, proposed));

        // Not `clamp`: it would panic if an odd clock ever put lowest above highest.
        let after_windows = current.max(lowest).min(highest);
        let direction = if proposed >= current { Stabilized::Up } else { Stabilized::Down };
        let (desired, limit) = self.limit_rate(behavior, now, spec, current, after_windows);
        Normalized { after_windows, stabilized: (after_windows != proposed).then_some(direction), desired, limit }
    }

    fn limit_rate(&self, behavior: &Behavior, now: Duration, spec: &HpaSpec, current: i64, wanted: i64) -> (i64, Limit) {
        let minimum = i64::from(spec.min_replicas);
        let maximum = i64::from(spec.max_replicas);
        if wanted > current {
            // Never below the size now: what was added too fast is not taken back.
            let rate_limit = self.scale_up_limit(&behavior.scale_up, now, current).max(current);
            let (ceiling, limit) =
                if maximum > rate_limit { (rate_limit, Limit::ScaleUpLimit) } else { (maximum, Limit::TooManyReplicas) };
            if wanted > ceiling {
                return (ceiling, limit);
            }
        } else if wanted < current {
            let rate_limit = self.scale_down_limit(&behavior.scale_down, now, current).min(current);
            let (floor, limit) =
                if minimum < rate_limit { (rate_limit, Limit::ScaleDownLimit) } else { (minimum, Limit::TooFewReplicas) };
            if wanted < floor {
                return (floor, limit);
            }
        }
        (wanted, Limit::WithinRange)
    }

    fn scale_up_limit(&self, rules: &ScalingRules, now: Duration, current: i64) -> i64 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.replicas_at_period_start(policy, now, current);
            let value = i64::from(policy.value);
            match policy.kind {
                PolicyKind::Pods => start.saturating_add(value),
                // Rounded up, or one pod could never become two.
                PolicyKind::Percent => (start as f64 * (1.0 + value as f64 / 100.0)).ceil() as i64,
            }
        });
        match rules.select_policy {
            SelectPolicy::Disabled => current,
            SelectPolicy::Max => limits.max().unwrap_or(current),
            SelectPolicy::Min => limits.min().unwrap_or(current),
        }
    }

    fn scale_down_limit(&self, rules: &ScalingRules, now: Duration, current: i64) -> i64 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.replicas_at_period_start(policy, now, current);
            let value = i64::from(policy.value);
            match policy.kind {
                PolicyKind::Pods => start.saturating_sub(value),
                // The cast cuts towards zero.
                PolicyKind::Percent => (start as f64 * (1.0 - value as f64 / 100.0)) as i64,
            }
        });
        match rules.select_policy {
            SelectPolicy::Disabled => current,
            SelectPolicy::Max => limits.min().unwrap_or(current),
            SelectPolicy::Min => limits.max().unwrap_or(current),
        }
    }

    fn replicas_at_period_start(&self, policy: &ScalingPolicy, now: Duration, current: i64) -> i64 {
        let period = Duration::from_secs(u64::from(policy.period_seconds));
        let changed = |events: &[ScaleEvent]| -> i64 {
            events.iter().filter(|event| now.saturating_sub(event.at) < period).map(|event| event.pods).sum()
        };
        current - changed(&self.scale_ups) + changed(&self.scale_downs)
    }

    /// Remembers a size change for the rate policies. Without `behavior` nothing is remembered.
    pub(crate) fn record_scale(&mut self, now: Duration, spec: &HpaSpec, from: i64, to: i64) {
        let Some(behavior) = &spec.behavior else {
            return;
        };
        let (events, rules) =
            if to > from { (&mut self.scale_ups, &behavior.scale_up) } else { (&mut self.scale_downs, &behavior.scale_down) };
        let longest = rules.policies.iter().map(|policy| u64::from(policy.period_seconds)).max().unwrap_or(0);
        let longest = Duration::from_secs(longest);
        let event = ScaleEvent { at: now, pods: (to - from).abs() };
        // As the controller does, an event outlives its own direction's periods until its slot is
        // taken: a longer period of the other direction still sees it.
        let outdated = events.iter().rposition(|old| now.saturating_sub(old.at) > longest);
        match outdated {
            Some(slot) => events[slot] = event,
            None => events.push(event),
        }
    }
}

fn window_of(rules: &ScalingRules, default: Duration) -> Duration {
    rules.stabilization_window_seconds.map_or(default, |seconds| Duration::from_secs(u64::from(seconds)))
}
