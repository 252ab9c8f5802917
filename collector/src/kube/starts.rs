//! How pods start, from the first word of one until it is ready.

use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::{PodStart, StartTimes};
use weir_k8s::Pod;

use super::pods::PodEntry;

/// Seconds by which two times that the API server tells may be wrong together.
const ROUNDING: i64 = 2;
/// In seconds.
const LONGEST_AGE: i64 = 86_400;
/// A change that tells of a pod for the first time tells of its creation, unless that was longer ago.
const JUST_CREATED: Duration = Duration::from_secs(10);

/// How `pod` starts, by what is told of it at `now` alone.
pub(super) fn start_of(pod: &Pod, now: Instant, wall: i64) -> PodStart {
    let times = StartTimes {
        created: pod.created(),
        scheduled: pod.since("PodScheduled", "True"),
        initialized: pod.since("Initialized", "True"),
        started: pod.running_since(),
        ready: pod.since("Ready", "True"),
    };
    // What other clocks say is ahead of this one is now, and nothing is older than a day.
    let age = |at: i64| Duration::from_secs(wall.saturating_sub(at).clamp(0, LONGEST_AGE).unsigned_abs());
    let ago = |at: Option<i64>| at.and_then(|at| now.checked_sub(age(at))).unwrap_or(now);
    let unready = pod.since("Ready", "False");
    // A pod that never was ready has been unready since before its containers ran.
    let was_ready = unready.zip(times.started).is_some_and(|(unready, started)| unready > started.saturating_add(ROUNDING));
    PodStart {
        times,
        began: ago(times.created),
        seen_from_creation: times.created.is_none_or(|created| age(created) <= JUST_CREATED),
        first: !was_ready,
        unready_since: (!pod.is_ready()).then(|| ago(unready.or(times.created))),
        obstacle: pod.obstacle().map(Into::into),
    }
}

impl PodEntry {
    /// What of the start stays as it was known of `old`, the same pod; `listed`: it was there before it was looked for.
    pub(super) fn follow(&mut self, old: Option<&Self>, listed: bool, restarted: bool) {
        let Some(start) = &mut self.start else { return };
        match old.map(|old| old.start.as_deref()) {
            Some(Some(old)) => {
                (start.began, start.seen_from_creation, start.first) = (old.began, old.seen_from_creation, old.first);
                match (old.unready_since, start.unready_since) {
                    (Some(since), Some(_)) => start.unready_since = Some(since),
                    // It was ready: that was the end of its start.
                    (None, _) => start.times = old.times,
                    (Some(_), None) => {}
                }
            }
            Some(None) => (start.seen_from_creation, start.first) = (false, false),
            None => {
                start.seen_from_creation &= !listed;
                // Of a pod that has started anew nobody knows whether it was ready before.
                start.first &= start.seen_from_creation || !restarted;
            }
        }
        if start.unready_since.is_none() && !(start.first && (old.is_some() || start.seen_from_creation)) {
            self.start = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::follow::Change;
    use super::super::pods::{Labels, PodFacts, Pods};
    use super::*;

    const WALL: i64 = 1_800_000_000;

    fn time(after: i64) -> String {
        jiff::Timestamp::from_second(WALL + after).unwrap().to_string()
    }

    /// A pod created at 0; `ready` and since when, and since when its container runs.
    fn pod(uid: &str, ready: (bool, i64), running: Option<i64>) -> Value {
        let state = running.map_or(json!({}), |at| json!({"running": {"startedAt": time(at)}}));
        let status = if ready.0 { "True" } else { "False" };
        json!({
            "metadata": {"namespace": "n", "name": "a", "uid": uid, "labels": {"app": "x"}, "creationTimestamp": time(0)},
            "spec": {"containers": []},
            "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": time(ready.1)}],
                       "containerStatuses": [{"name": "c", "state": state}]},
        })
    }

    struct Watch {
        pods: Pods,
        origin: Instant,
    }

    impl Watch {
        fn new() -> Self {
            Self { pods: Pods::default(), origin: Instant::now() + Duration::from_secs(100_000) }
        }

        fn facts(&self, pod: Value, after: i64) -> PodFacts {
            let now = self.origin + Duration::from_secs(after.unsigned_abs());
            PodFacts::of(serde_json::from_value(pod).unwrap(), now, WALL + after)
        }

        /// So many seconds after the creation of the pod.
        fn applied(&mut self, pod: Value, after: i64) -> Option<PodStart> {
            self.pods.apply(Change::Applied(self.facts(pod, after)));
            self.start()
        }

        fn listed(&mut self, pod: Value, after: i64) -> Option<PodStart> {
            self.pods.apply(Change::All(vec![self.facts(pod, after)]));
            self.start()
        }

        fn start(&self) -> Option<PodStart> {
            let selector = Labels::from([("app".to_owned(), "x".to_owned())]);
            let mut selected = self.pods.select("n", &selector);
            selected.next().unwrap().entry.start.as_deref().cloned()
        }

        fn at(&self, after: u64) -> Instant {
            self.origin + Duration::from_secs(after)
        }
    }

    #[test]
    fn a_start_that_is_seen_from_creation_is_followed_to_its_end_and_stays_so() {
        let mut watch = Watch::new();
        let start = watch.applied(pod("u", (false, 0), None), 1).unwrap();
        assert!(start.seen_from_creation && start.first);
        assert_eq!(start.unready_since, Some(watch.at(0)));
        // A list between, as after a watch that broke off, changes nothing of what was seen.
        let ready = watch.listed(pod("u", (true, 60), Some(5)), 61).unwrap();
        assert_eq!((ready.began, ready.seen_from_creation, ready.unready_since), (start.began, true, None));
        assert_eq!(ready.times.ready, Some(WALL + 60));
        let again = watch.applied(pod("u", (false, 90), Some(5)), 90).unwrap();
        assert_eq!((again.times, again.unready_since), (ready.times, Some(watch.at(90))));
        // Its namesake is another one.
        let other = watch.applied(pod("v", (false, 0), None), 100).unwrap();
        assert!(!other.seen_from_creation, "created 100 s before it was first told of");
    }

    #[test]
    fn a_pod_that_was_ready_before_it_was_looked_for_does_not_start() {
        let mut watch = Watch::new();
        assert_eq!(watch.listed(pod("u", (true, 60), Some(5)), 500), None);
        let unready = watch.applied(pod("u", (false, 510), Some(5)), 510).unwrap();
        assert!(!unready.first && !unready.seen_from_creation);
        assert_eq!(watch.applied(pod("u", (true, 520), Some(5)), 520), None);
        // Unready when first seen: after it was ready, by its times, or by a container that has started anew.
        let mut watch = Watch::new();
        assert!(!watch.listed(pod("u", (false, 400), Some(5)), 500).unwrap().first);
        let mut watch = Watch::new();
        let mut restarted = pod("u", (false, 400), Some(405));
        restarted["status"]["containerStatuses"][0]["restartCount"] = json!(1);
        assert!(!watch.listed(restarted, 500).unwrap().first);
        let mut watch = Watch::new();
        let waits = watch.listed(pod("u", (false, 0), Some(5)), 500).unwrap();
        assert!(waits.first && !waits.seen_from_creation);
        assert_eq!((waits.began, waits.unready_since), (watch.at(0), Some(watch.at(0))));
    }

    #[test]
    fn a_clock_ahead_or_far_behind_is_now_or_a_day() {
        for (after, expected) in [(-5_000, 0), (0, 0), (1_000_000, LONGEST_AGE.unsigned_abs())] {
            let now = Instant::now() + Duration::from_secs(1_000_000);
            let start = start_of(&serde_json::from_value(pod("u", (false, 0), None)).unwrap(), now, WALL + after);
            assert_eq!(start.began, now - Duration::from_secs(expected));
        }
    }
}
