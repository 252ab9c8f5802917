//! When an endpoint is read: pure.
//!
//! Each endpoint has its own place in the interval, by a hash of its identity, so that a thousand endpoints are a thousand reads
//! spread over the interval and not a burst at its start. Reads are due at fixed times on that grid: a slow one does not shift the
//! next, and one that is missed is left out, never made up for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::crowd::{Crowd, Member};

/// The longest pause between two attempts to read an endpoint that fails.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The times at which one endpoint is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    origin: Instant,
    interval: Duration,
    /// Place in the interval, 0 up to but not including 1.
    phase: f64,
}

/// The schedules of one endpoint: one while it works, one while it idles. Both keep the endpoint's place in the interval, so that a
/// thousand endpoints that begin to work at one moment stay spread.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    busy: Duration,
    idle: Duration,
    origin: Instant,
    phase: f64,
    crowd: Crowd,
}

impl Pace {
    /// As [`Schedule::new`]. While too many of the `crowd` work, those that do are read less often, never less than idle ones.
    pub(crate) fn new(origin: Instant, busy: Duration, idle: Duration, identity: &impl Hash, crowd: Crowd) -> Self {
        Self { busy, idle, origin, phase: phase_of(identity), crowd }
    }

    /// The schedule of an endpoint that is at work, or not.
    pub(crate) fn at_work(&self, busy: bool) -> Schedule {
        let interval = if busy { self.busy.saturating_mul(self.crowd.stretch(self.busy)).min(self.idle) } else { self.idle };
        Schedule::at(self.origin, interval, self.phase)
    }

    /// The endpoint, to be counted among those at work.
    pub(crate) fn member(&self) -> Member {
        self.crowd.member()
    }

    /// When to read an endpoint that has just become ready, and of which nothing is known.
    pub(crate) fn hurried(&self, now: Instant) -> Instant {
        now + HURRY.mul_f64(self.phase)
    }

    /// When to read an endpoint that has just begun to work, and was last read at `asked_at`, if it was and that was good.
    pub(crate) fn woken(&self, asked_at: Option<Instant>, now: Instant) -> Instant {
        let schedule = self.at_work(true);
        asked_at.map_or_else(|| schedule.first(now), |asked_at| schedule.after_success(asked_at, now).at)
    }
}

/// Over how much time endpoints are spread that become ready at one moment.
const HURRY: Duration = Duration::from_millis(100);

/// What follows a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Next {
    /// When to read next.
    pub(crate) at: Instant,
    /// Due times that passed meanwhile.
    pub(crate) missed: u64,
}

impl Schedule {
    /// The schedule of what `identity` names. All schedules of a process share one `origin`, or they would not be spread.
    pub(crate) fn new(origin: Instant, interval: Duration, identity: &impl Hash) -> Self {
        Self::at(origin, interval, phase_of(identity))
    }

    fn at(origin: Instant, interval: Duration, phase: f64) -> Self {
        Self { origin: origin + interval.mul_f64(phase), interval, phase }
    }

    /// Between two reads.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// The first time due, at `now` or later.
    pub(crate) fn first(&self, now: Instant) -> Instant {
        let passed = self.due_until(now);
        let last = self.due(passed);
        if passed > 0 && last == now { last } else { self.due(passed + 1) }
    }

    /// What follows the page that was asked for at `asked_at` and read at `now`.
    pub(crate) fn after_success(&self, asked_at: Instant, now: Instant) -> Next {
        // After a back-off the grid may be due again at once: half an interval lies between two reads.
        let settled = self.due_until(asked_at + self.interval / 2);
        let passed = self.due_until(now).max(settled);
        Next { at: self.due(passed + 1), missed: passed - settled }
    }

    /// When to try again after `failures` failures in a row, the last of an attempt begun at `asked_at`. The first failure pauses
    /// for one interval, so that a single lost page makes no value stale; each further one doubles that, up to [`LONGEST_PAUSE`].
    /// The place in the interval shortens the pause by up to a quarter: what failed together does not come back together.
    pub(crate) fn after_failure(&self, asked_at: Instant, now: Instant, failures: u32) -> Instant {
        let doubled = self.interval.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(1.0 - self.phase / 4.0);
        (asked_at + pause).max(now + self.interval / 4)
    }

    /// How many due times there are until and including `moment`.
    fn due_until(&self, moment: Instant) -> u64 {
        match moment.checked_duration_since(self.origin) {
            Some(since) => (since.as_nanos() / self.interval.as_nanos()) as u64 + 1,
            None => 0,
        }
    }

    /// The due time number `count`, counted from 1.
    fn due(&self, count: u64) -> Instant {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(count.saturating_sub(1)));
        self.origin + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The place of `identity` in an interval.
fn phase_of(identity: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    // The upper 32 bits are exact as a fraction.
    (hasher.finish() >> 32) as f64 / (1_u64 << 32) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_thousand_endpoints_are_spread_evenly() {
        let origin = Instant::now();
        let mut per_tenth = [0; 10];
        for endpoint in 0..1000 {
            let first = Schedule::new(origin, INTERVAL, &format!("10.0.0.{endpoint}:8000")).first(origin);
            per_tenth[((first - origin).as_millis() / 100) as usize] += 1;
        }
        assert!(per_tenth.iter().all(|count| (60..=140).contains(count)), "{per_tenth:?}");
    }

    #[test]
    fn a_slow_page_does_not_shift_the_next_and_missed_times_are_left_out() {
        let origin = Instant::now();
        let schedule = Schedule { origin, interval: INTERVAL, phase: 0.5 };
        assert_eq!(schedule.first(origin), origin);
        assert_eq!(schedule.first(origin + milliseconds(1)), origin + INTERVAL);
        let quick = schedule.after_success(origin, origin + milliseconds(3));
        assert_eq!(quick, Next { at: origin + INTERVAL, missed: 0 });
        let slow = schedule.after_success(origin, origin + milliseconds(999));
        assert_eq!(slow, Next { at: origin + INTERVAL, missed: 0 });
        let late = schedule.after_success(origin, origin + milliseconds(3200));
        assert_eq!(late, Next { at: origin + 4 * INTERVAL, missed: 3 });
    }

    #[test]
    fn failures_double_the_pause_up_to_the_longest() {
        let origin = Instant::now();
        let schedule = Schedule { origin, interval: INTERVAL, phase: 0.0 };
        let pause = |failures| (schedule.after_failure(origin, origin, failures) - origin).as_secs();
        assert_eq!([1, 2, 3, 4, 5, 100, u32::MAX].map(pause), [1, 2, 4, 5, 5, 5, 5]);
        let jittered = Schedule { phase: 0.8, ..schedule };
        assert_eq!(jittered.after_failure(origin, origin, 2), origin + milliseconds(1600));
        let hung = jittered.after_failure(origin, origin + INTERVAL, 1);
        assert_eq!(hung, origin + milliseconds(1250), "no attempt follows at once on one that took all its time");
    }

    #[test]
    fn endpoints_that_begin_to_work_at_one_moment_are_read_soon_and_spread() {
        let origin = Instant::now();
        let (busy, now) = (milliseconds(50), origin + milliseconds(12_345));
        let mut per_tenth = [0; 10];
        for endpoint in 0..1000 {
            let pace = Pace::new(origin, busy, INTERVAL, &format!("10.0.0.{endpoint}:8000"), Crowd::default());
            let asked_at = pace.at_work(false).first(now - INTERVAL);
            let woken = pace.woken(Some(asked_at), now);
            assert!(woken > now && woken <= now + busy + busy / 2, "{:?}", woken - now);
            assert!(woken - asked_at >= busy / 2);
            per_tenth[(((woken - origin).as_millis() % 50) / 5) as usize] += 1;
            assert!(pace.woken(None, now) <= now + busy);
        }
        assert!(per_tenth.iter().all(|count| (60..=140).contains(count)), "{per_tenth:?}");
    }

    #[test]
    fn too_many_at_work_are_read_less_often_and_never_less_than_idle_ones() {
        let (origin, busy) = (Instant::now(), milliseconds(50));
        let crowd = Crowd::new(std::num::NonZeroU32::new(100));
        let pace = Pace::new(origin, busy, INTERVAL, &"10.0.0.1:8000", crowd.clone());
        let mut members: Vec<_> = (0..1000).map(|_| crowd.member()).collect();
        for (working, interval) in [(5, 50), (6, 100), (50, 500), (1000, 1000)] {
            members.iter_mut().take(working).for_each(|member| member.set(true));
            assert_eq!(pace.at_work(true).interval(), milliseconds(interval), "{working}");
            assert_eq!(pace.at_work(false).interval(), INTERVAL);
        }
    }

    proptest! {
        #[test]
        fn the_next_read_is_later_but_not_much(
            interval in 10_u64..1600, phase in 0.0..1.0_f64, asked in 0_u64..100_000, took in 0_u64..5_000,
        ) {
            let start = Instant::now();
            let interval = milliseconds(interval);
            let schedule = Schedule { origin: start + interval.mul_f64(phase), interval, phase };
            let (asked_at, now) = (start + milliseconds(asked), start + milliseconds(asked + took));
            let next = schedule.after_success(asked_at, now);
            prop_assert!(next.at > now);
            prop_assert!(next.at <= now.max(asked_at + interval / 2) + interval);
            prop_assert!(next.at - asked_at >= interval / 2);
            let first = schedule.first(asked_at);
            prop_assert!(first >= asked_at && first <= asked_at + 2 * interval);
        }
    }
}
