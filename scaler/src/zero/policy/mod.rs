//! Whether a target goes to zero, is woken, or is left alone: pure, from facts of one moment.
//!
//! Unknown never scales down. Nothing wakes a zero but whoever made it. See [`decide`] for the order of the rules.

mod pool;
mod reason;
#[cfg(test)]
mod tests;

pub use pool::PoolView;
pub use reason::Reason;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_k8s::{Autoscaler, SCALER_MANAGER, ScaleTarget};

/// All that a decision follows from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'facts> {
    /// The moment.
    pub now: Instant,
    /// The autoscaler whose annotations ask.
    pub autoscaler: &'facts Autoscaler,
    /// Another autoscaler of the same target, if there is one.
    pub rival: Option<&'facts Arc<str>>,
    /// What it scales.
    pub target: &'facts ScaleTarget,
    /// The pools whose selector matches the target's pods.
    pub pools: &'facts [PoolView],
    /// Since when the target is known to be above zero; now where it is not.
    pub raised_at: Instant,
    /// Whether another target of one of the pools is above zero, or is woken before this one.
    pub others_serve: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing.
    Stay,
    /// To zero.
    Sleep,
    /// From weir's own zero to so many replicas.
    Wake(u32),
}

impl Action {
    /// The label value on the page.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Sleep => "sleep",
            Self::Wake(_) => "wake",
        }
    }

    /// The number of replicas to write, if one is.
    pub fn replicas(self) -> Option<u32> {
        match self {
            Self::Stay => None,
            Self::Sleep => Some(0),
            Self::Wake(replicas) => Some(replicas),
        }
    }
}

/// What is to be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Nothing is done, for this reason.
    pub fn stay(reason: Reason) -> Self {
        Self { action: Action::Stay, reason }
    }
}

/// Decides over one target.
///
/// 1. What is being deleted, and what KEDA scales, is left alone.
/// 2. A zero of somebody else stays. A zero of ours is left for a held request, or at once where the HPA no longer asks for it.
/// 3. Above zero, anything that speaks against zero counts before anything that speaks for it.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let (autoscaler, target) = (situation.autoscaler, situation.target);
    if autoscaler.deleting || target.deleting {
        return Decision::stay(Reason::Deleting);
    }
    if let Some(object) = &autoscaler.keda {
        return Decision::stay(if autoscaler.idle_after.is_some() { Reason::Keda(object.clone()) } else { Reason::NotAnnotated });
    }
    match target.replicas {
        0 => at_zero(situation),
        _ => above_zero(situation),
    }
}

fn at_zero(situation: &Situation<'_>) -> Decision {
    let (autoscaler, target) = (situation.autoscaler, situation.target);
    if !target.is_scaled_only_by(SCALER_MANAGER) {
        let others = target.replicas_managers.iter().filter(|manager| &*manager.name != SCALER_MANAGER);
        let managers = others.map(|manager| manager.name.clone());
        let reason = match autoscaler.idle_after {
            Some(_) => Reason::ForeignZero(managers.collect()),
            None => Reason::NotAnnotated,
        };
        return Decision::stay(reason);
    }
    // An HPA does nothing at a zero that it did not make itself, with whatever minReplicas.
    let no_longer = if autoscaler.idle_after.is_none() {
        Some("the HPA no longer has the annotation idle-after")
    } else if autoscaler.min_replicas == 0 {
        Some("minReplicas is 0 now, which the HPA does not look at before it runs")
    } else if situation.rival.is_some() {
        Some("another HPA scales the same target now")
    } else {
        None
    };
    if let Some(why) = no_longer {
        let replicas = autoscaler.min_replicas.clamp(1, autoscaler.max_replicas.max(1));
        return Decision { action: Action::Wake(replicas), reason: Reason::HandedBack(why) };
    }
    let holding = || situation.pools.iter().filter(|pool| pool.held > 0);
    let Some(first) = holding().next() else {
        return Decision::stay(if situation.pools.is_empty() { Reason::NoPool } else { Reason::Asleep });
    };
    let Some(pool) = holding().find(|pool| pool.pods == 0 && !situation.others_serve) else {
        return Decision::stay(Reason::OthersServe(first.id.clone()));
    };
    let wanted = autoscaler.wake_replicas.unwrap_or(1).max(autoscaler.min_replicas).max(1);
    let replicas = wanted.min(autoscaler.max_replicas.max(1));
    Decision { action: Action::Wake(replicas), reason: Reason::Held(pool.id.clone(), pool.held) }
}

fn above_zero(situation: &Situation<'_>) -> Decision {
    let idle_after = match &situation.autoscaler.idle_after {
        None => return Decision::stay(Reason::NotAnnotated),
        Some(Err(problem)) => return Decision::stay(Reason::BrokenAnnotation(problem.clone())),
        Some(Ok(idle_after)) => *idle_after,
    };
    if situation.autoscaler.min_replicas == 0 {
        return Decision::stay(Reason::MinReplicasZero);
    }
    if let Some(rival) = situation.rival {
        return Decision::stay(Reason::SecondAutoscaler(rival.clone()));
    }
    let mut shortest: Option<(&PoolView, Duration)> = None;
    for pool in situation.pools {
        if pool.held > 0 {
            return Decision::stay(Reason::Working(pool.id.clone()));
        }
        match &pool.idle {
            Err(cause) => return Decision::stay(Reason::Unknown(pool.id.clone(), cause.clone())),
            Ok(idle) if shortest.is_none_or(|(_, shortest)| *idle < shortest) => shortest = Some((pool, *idle)),
            Ok(_) => {}
        }
    }
    let Some((pool, idle)) = shortest else { return Decision::stay(Reason::NoPool) };
    // Whoever raised it, perhaps ahead of a rush, has as long as any request.
    let raised = situation.now.saturating_duration_since(situation.raised_at);
    let rested = idle.min(raised);
    match idle_after.checked_sub(rested).filter(|left| !left.is_zero()) {
        Some(_) if idle < BUSY => Decision::stay(Reason::Working(pool.id.clone())),
        Some(left) => Decision::stay(Reason::Resting(pool.id.clone(), left)),
        None => Decision { action: Action::Sleep, reason: Reason::Idle(pool.id.clone(), idle) },
    }
}

/// A pool that was idle for less is said to work: between two requests it is not news that it rests.
const BUSY: Duration = Duration::from_secs(5);
