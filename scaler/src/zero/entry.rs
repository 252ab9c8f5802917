//! What is remembered of one autoscaler and its target.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_k8s::{Autoscaler, SCALER_MANAGER, ScaleTarget};

use crate::zero::budget::back_off;
use crate::zero::policy::{Action, Decision, Reason};
use crate::zero::targets::TargetError;

/// How often a target is looked at while nothing is to be done about it.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How soon again after the API server did not answer.
const SOON: Duration = Duration::from_secs(1);
/// Not knowing is news once it has lasted: a picker that is replaced is not.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// One autoscaler and its target.
pub(crate) struct Entry {
    pub(crate) autoscaler: Arc<Autoscaler>,
    /// As read last.
    pub(crate) target: Option<Arc<ScaleTarget>>,
    /// Why it could not be read, where reading it again does not help.
    pub(crate) unreadable: Option<TargetError>,
    read_at: Option<Instant>,
    /// Since when it is known to be above zero.
    above_since: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    /// What the last failed write met with.
    failure: Option<&'static str>,
    /// What it is at, and since when.
    state: Option<(&'static str, Instant)>,
    told: Option<Reason>,
}

impl Entry {
    pub(crate) fn new(autoscaler: Arc<Autoscaler>) -> Self {
        Self {
            autoscaler,
            target: None,
            unreadable: None,
            read_at: None,
            above_since: None,
            failures: 0,
            not_before: None,
            failure: None,
            state: None,
            told: None,
        }
    }

    /// The same target, asked about by a changed autoscaler.
    pub(crate) fn changed(&mut self, autoscaler: Arc<Autoscaler>) {
        self.autoscaler = autoscaler;
        self.look_again();
    }

    /// What was read counts no longer.
    pub(crate) fn look_again(&mut self) {
        self.read_at = None;
        self.not_before = None;
    }

    /// Whether its annotations ask for anything.
    pub(crate) fn asks(&self) -> bool {
        self.autoscaler.idle_after.is_some()
    }

    /// Whether the target is to be read: now and then, or once where nothing is asked for.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let Some(read_at) = self.read_at else { return true };
        self.asks() && now.saturating_duration_since(read_at) >= LOOK_EVERY
    }

    /// The target was read, or could not be.
    pub(crate) fn read(&mut self, outcome: Result<ScaleTarget, TargetError>, now: Instant) {
        self.read_at = Some(now);
        match outcome {
            Ok(target) => {
                self.above_since = (target.replicas > 0).then(|| self.above_since.unwrap_or(now));
                self.target = Some(Arc::new(target));
                self.unreadable = None;
            }
            // What was known stays, until the API server is back; it is looked at again soon.
            Err(TargetError::Unreachable(_)) => self.read_at = now.checked_sub(LOOK_EVERY.saturating_sub(SOON)),
            Err(error) => {
                self.target = None;
                self.unreadable = Some(error);
            }
        }
    }

    /// Since when the target is above zero.
    pub(crate) fn raised_at(&self, now: Instant) -> Instant {
        self.above_since.unwrap_or(now)
    }

    /// Whether the last known of its target is a zero of ours.
    pub(crate) fn is_asleep(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.replicas == 0 && target.is_scaled_only_by(SCALER_MANAGER))
    }

    /// Whether it may be written now.
    pub(crate) fn may_act(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// Whether the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The target was written: what it is now is to be read.
    pub(crate) fn wrote(&mut self, decision: &Decision, now: Instant) {
        self.failures = 0;
        self.failure = None;
        self.not_before = None;
        self.read_at = None;
        self.above_since = matches!(decision.action, Action::Wake(_)).then_some(now);
        self.told = Some(decision.reason.clone());
        self.state = Some((decision.reason.label(), now));
    }

    /// The target would have been written.
    pub(crate) fn dry_run(&mut self, decision: &Decision, now: Instant) -> bool {
        self.not_before = Some(now + LOOK_EVERY);
        let before = self.told.replace(decision.reason.clone());
        self.state = Some((decision.reason.label(), now));
        before.is_none_or(|before| before.label() != decision.reason.label())
    }

    /// The write failed; whether that is news.
    pub(crate) fn failed(&mut self, error: &TargetError, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + back_off(self.failures));
        self.failure.replace(error.label()) != Some(error.label())
    }

    /// Waits a little before it is tried again.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.not_before = Some(now + back_off(2));
    }

    /// What it is at.
    pub(crate) fn state(&self) -> Option<&'static str> {
        self.state.map(|(label, _)| label)
    }

    /// It stays, for `reason`: whether that is to be told, and whether people were warned before.
    pub(crate) fn stays(&mut self, reason: &Reason, now: Instant) -> Option<Option<Reason>> {
        let label = reason.label();
        let since = match self.state {
            Some((same, since)) if same == label => since,
            _ => now,
        };
        self.state = Some((label, since));
        let is_told = self.told.as_ref().is_some_and(|told| told.label() == label);
        let too_early = label == "unknown" && now.saturating_duration_since(since) < UNKNOWN_FOR;
        if is_told || too_early {
            return None;
        }
        Some(self.told.replace(reason.clone()))
    }
}

#[cfg(test)]
mod tests {
    use weir_datastore::PoolId;

    use super::*;
    use crate::zero::testing::{self, autoscaler};

    fn entry() -> Entry {
        Entry::new(Arc::new(autoscaler()))
    }

    fn target(replicas: u32) -> ScaleTarget {
        testing::target(replicas, Vec::new())
    }

    #[test]
    fn what_stays_is_told_once_and_not_knowing_once_it_has_lasted() {
        let (mut entry, start) = (entry(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(entry.stays(&Reason::NoPool, at(0)), Some(None));
        assert_eq!(entry.stays(&Reason::NoPool, at(1)), None);
        let unknown = |cause: &str| Reason::Unknown(PoolId::new("n", "p"), cause.to_owned());
        assert_eq!(entry.stays(&unknown("refused"), at(2)), None);
        assert_eq!(entry.stays(&unknown("timed out"), at(11)), None);
        assert_eq!(entry.stays(&unknown("timed out"), at(12)), Some(Some(Reason::NoPool)));
        assert_eq!(entry.stays(&unknown("refused"), at(60)), None);
        assert_eq!(entry.state(), Some("unknown"));
    }

    #[test]
    fn it_is_above_zero_since_it_was_seen_to_be() {
        let (mut entry, start) = (entry(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(entry.is_due(at(0)));
        entry.read(Ok(target(1)), at(0));
        entry.read(Ok(target(3)), at(20));
        assert_eq!(entry.raised_at(at(30)), at(0));
        entry.read(Ok(target(0)), at(40));
        assert_eq!(entry.raised_at(at(41)), at(41));
        entry.read(Ok(target(1)), at(50));
        assert_eq!(entry.raised_at(at(60)), at(50));
        // An API server that is away changes nothing of it, and is asked again soon.
        entry.read(Err(TargetError::Unreachable("gone".into())), at(70));
        assert!(entry.target.is_some() && !entry.is_due(at(70)) && entry.is_due(at(71)));
        entry.read(Err(TargetError::Absent("d".into())), at(80));
        assert!(entry.target.is_none() && entry.unreadable.is_some() && !entry.is_due(at(94)) && entry.is_due(at(95)));
    }

    #[test]
    fn a_failure_is_news_once_and_waits_longer_each_time() {
        let (mut entry, now) = (entry(), Instant::now());
        let forbidden = TargetError::Forbidden { what: "d".into(), done: "scaled", namespace: "n".into(), rule: "{}".into() };
        assert!(entry.failed(&forbidden, now) && !entry.failed(&forbidden, now));
        assert!(!entry.may_act(now) && entry.may_act(now + Duration::from_millis(500)));
        assert!(entry.failed(&TargetError::Unreachable("gone".into()), now));
        let decision = Decision { action: Action::Wake(2), reason: Reason::Held(PoolId::new("n", "p"), 1) };
        entry.wrote(&decision, now);
        assert!(!entry.is_failing() && entry.may_act(now) && entry.is_due(now) && entry.raised_at(now) == now);
    }
}
