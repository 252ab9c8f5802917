//! Which pods are patched now: pure, clock passed in.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

use super::pods::{Annotated, PodRecord};

/// A patch that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Due {
    /// The pod's uid.
    pub(super) uid: String,
    /// What its annotation is to be.
    pub(super) cost: i32,
    /// How urgent: a pod that became busy while its annotation says idle comes first, then the largest difference.
    urgency: (bool, u32),
}

/// What becomes of a pod's annotation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Judgement {
    /// It says what it should.
    Written,
    /// It is to be patched.
    Due,
    /// Nothing is known of the pod: its annotation stays as it is.
    Unknown,
    /// Somebody else wrote it: it is theirs.
    Foreign,
    /// No ReplicaSet owns the pod: nobody would read the annotation.
    NoReplicaSet,
}

impl Judgement {
    pub(super) const ALL: [Self; 5] = [Self::Written, Self::Due, Self::Unknown, Self::Foreign, Self::NoReplicaSet];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Due => "due",
            Self::Unknown => "unknown",
            Self::Foreign => "foreign",
            Self::NoReplicaSet => "no_replica_set",
        }
    }
}

/// What is to be done about one pod, whose cost is known or not.
pub(super) fn judge(uid: &str, pod: &PodRecord, cost: Option<i32>) -> (Judgement, Option<Due>) {
    if !pod.of_replica_set {
        return (Judgement::NoReplicaSet, None);
    }
    let current = match pod.annotated {
        Annotated::Foreign => return (Judgement::Foreign, None),
        Annotated::Absent => None,
        Annotated::Ours(cost) => cost,
    };
    let Some(cost) = cost else { return (Judgement::Unknown, None) };
    if current == Some(cost) {
        return (Judgement::Written, None);
    }
    // None counts as 0.
    let counts = current.unwrap_or(0);
    let urgency = (cost > 0 && counts <= 0, cost.abs_diff(counts));
    (Judgement::Due, Some(Due { uid: uid.to_owned(), cost, urgency }))
}

/// The most urgent first; among equals by name, so that all replicas would do the same.
pub(super) fn in_order(mut due: Vec<Due>) -> Vec<Due> {
    due.sort_by(|one, other| (Reverse(one.urgency), &one.uid).cmp(&(Reverse(other.urgency), &other.uid)));
    due
}

/// How many patches may be made.
#[derive(Debug)]
pub(super) struct Budget {
    per_minute: u32,
    left: f64,
    since: Instant,
}

impl Budget {
    /// So many a minute, of which as many may come at once.
    pub(super) fn new(per_minute: u32, now: Instant) -> Self {
        Self { per_minute, left: f64::from(per_minute), since: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let minutes = now.saturating_duration_since(self.since).as_secs_f64() / Duration::from_secs(60).as_secs_f64();
        self.since = now;
        self.left = (self.left + minutes * f64::from(self.per_minute)).min(f64::from(self.per_minute));
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(annotated: Annotated) -> PodRecord {
        PodRecord { namespace: "n".into(), name: "p".into(), annotated, of_replica_set: true }
    }

    #[test]
    fn what_is_not_known_or_not_ours_is_left() {
        let judged = |annotated, cost| judge("u", &pod(annotated), cost).0;
        assert_eq!(judged(Annotated::Absent, Some(-10)), Judgement::Due);
        assert_eq!(judged(Annotated::Ours(Some(-10)), Some(-10)), Judgement::Written);
        assert_eq!(judged(Annotated::Ours(Some(-10)), Some(20)), Judgement::Due);
        assert_eq!(judged(Annotated::Ours(None), Some(20)), Judgement::Due, "ours, but no number");
        for annotated in [Annotated::Absent, Annotated::Ours(Some(30)), Annotated::Ours(None)] {
            assert_eq!(judged(annotated, None), Judgement::Unknown);
        }
        assert_eq!(judged(Annotated::Foreign, Some(20)), Judgement::Foreign);
        let stateful = PodRecord { of_replica_set: false, ..pod(Annotated::Absent) };
        assert_eq!(judge("u", &stateful, Some(20)), (Judgement::NoReplicaSet, None));
    }

    #[test]
    fn a_pod_that_became_busy_comes_first_then_the_largest_difference() {
        let due = |uid: &str, before: i32, cost: i32| judge(uid, &pod(Annotated::Ours(Some(before))), Some(cost)).1.unwrap();
        let all = vec![due("d", 10, -10), due("c", 20, 200), due("b", -10, 10), due("a", 30, 20)];
        let order: Vec<String> = in_order(all).into_iter().map(|due| due.uid).collect();
        assert_eq!(order, ["b", "c", "d", "a"]);
    }

    proptest! {
        #[test]
        fn the_budget_holds(steps in prop::collection::vec((0..120u64, 0..100u32), 1..40), per_minute in 1..200u32) {
            let start = Instant::now();
            let mut budget = Budget::new(per_minute, start);
            let (mut at, mut taken) = (0, 0u64);
            for (seconds, wanted) in steps {
                at += seconds;
                for _ in 0..wanted {
                    taken += u64::from(budget.take(start + Duration::from_secs(at)));
                }
                prop_assert!(taken <= u64::from(per_minute) + at * u64::from(per_minute) / 60 + 1);
            }
        }

        #[test]
        fn what_is_patched_is_settled(before in prop::option::of(-10..209i32), cost in -10..209i32) {
            let annotated = before.map_or(Annotated::Absent, |cost| Annotated::Ours(Some(cost)));
            if let (Judgement::Due, Some(due)) = judge("u", &pod(annotated), Some(cost)) {
                prop_assert_eq!(judge("u", &pod(Annotated::Ours(Some(due.cost))), Some(cost)).0, Judgement::Written);
            } else {
                prop_assert_eq!(before, Some(cost));
            }
        }
    }
}
