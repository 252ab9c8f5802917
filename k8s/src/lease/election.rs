//! Who leads, as far as one candidate can tell: pure, with both clocks as arguments.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use tokio::time::Instant;

use super::LeaseSettings;

/// A holder that asks for longer is believed for this long: a number that somebody mistyped must not block for years.
const LONGEST_TERM: Duration = Duration::from_secs(3600);

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Proposal {
    /// There is no Lease: create this one.
    Create(Box<Lease>),
    /// Replace the Lease by this one, which carries the version that was seen.
    Replace(Box<Lease>),
    /// Another holds it, and has been heard of lately.
    Wait {
        /// Who.
        holder: String,
    },
}

/// One candidate's view of the Lease.
///
/// The times in the object are other machines' clocks and are never compared: a holder is gone when its record has not changed
/// for its duration *by the own monotonic clock*, counted from when the record was first seen.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    name: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    seen: Option<Lease>,
    record: LeaseSpec,
    record_since: Option<Instant>,
    term_end: Option<Instant>,
}

impl Election {
    pub(super) fn new(settings: &LeaseSettings) -> Self {
        Self {
            identity: settings.identity.clone(),
            name: settings.name.clone(),
            lease_duration: settings.lease_duration,
            renew_deadline: settings.renew_deadline,
            seen: None,
            record: LeaseSpec::default(),
            record_since: None,
            term_end: None,
        }
    }

    /// When the leadership of this candidate ends unless it renews; none while it does not lead.
    pub(super) fn term_end(&self) -> Option<Instant> {
        self.term_end
    }

    /// Whether a write can be tried without a look: while leading, the last answer tells the version.
    pub(super) fn knows_version(&self) -> bool {
        self.term_end.is_some() && self.seen.is_some()
    }

    /// The Lease as it was read; none: it does not exist.
    pub(super) fn see(&mut self, lease: Option<Lease>, now: Instant) {
        let record = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if self.record_since.is_none() || record != self.record {
            self.record_since = Some(now);
        }
        let is_taken = lease.is_some() && record.holder_identity.as_deref() != Some(&self.identity);
        self.record = record;
        self.seen = lease;
        if is_taken {
            self.term_end = None;
        }
    }

    /// A proposal that was sent at `sent` was accepted, with this answer.
    ///
    /// The term counts from before the request left: others count from when they saw it, which is later.
    pub(super) fn won(&mut self, lease: Lease, sent: Instant) {
        self.see(Some(lease), sent);
        if self.record.holder_identity.as_deref() == Some(&self.identity) {
            self.term_end = Some(sent + self.renew_deadline);
        }
    }

    /// The version is not current any more: look before the next write.
    pub(super) fn outdated(&mut self) {
        self.seen = None;
    }

    /// Ends the own term when it is over. Whether it was.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.term_end.is_some_and(|end| end <= now);
        if is_over {
            self.resign();
        }
        is_over
    }

    /// Leads no more.
    pub(super) fn resign(&mut self) {
        self.term_end = None;
    }

    /// What to do, after a look or while the version is known.
    pub(super) fn propose(&self, now: Instant, wall: Timestamp) -> Proposal {
        let Some(seen) = &self.seen else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            return Proposal::Create(Box::new(Lease { metadata, spec: Some(self.taken(wall, 0)) }));
        };
        let holder = self.record.holder_identity.as_deref().unwrap_or_default();
        let spec = if holder == self.identity {
            LeaseSpec { renew_time: Some(MicroTime(wall)), lease_duration_seconds: self.seconds(), ..self.record.clone() }
        } else if holder.is_empty() || self.is_gone(now) {
            // A hostile count of transitions starts anew rather than wrap.
            self.taken(wall, self.record.lease_transitions.and_then(|count| count.checked_add(1)).unwrap_or(0).max(0))
        } else {
            return Proposal::Wait { holder: holder.to_owned() };
        };
        Proposal::Replace(Box::new(Lease { metadata: seen.metadata.clone(), spec: Some(spec) }))
    }

    /// The Lease without a holder, so that the next takes it at once; none when it is not the own.
    pub(super) fn release(&self, wall: Timestamp) -> Option<Lease> {
        let seen = self.seen.as_ref()?;
        if self.record.holder_identity.as_deref() != Some(&self.identity) {
            return None;
        }
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            acquire_time: None,
            renew_time: Some(MicroTime(wall)),
            ..self.record.clone()
        };
        Some(Lease { metadata: seen.metadata.clone(), spec: Some(spec) })
    }

    fn taken(&self, wall: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: self.seconds(),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    fn seconds(&self) -> Option<i32> {
        i32::try_from(self.lease_duration.as_secs()).ok()
    }

    /// Whether the holder's record has stood unchanged for as long as it says it lasts, and for at least the own duration.
    fn is_gone(&self, now: Instant) -> bool {
        let said = self.record.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let duration = Duration::from_secs(said).min(LONGEST_TERM).max(self.lease_duration);
        self.record_since.is_some_and(|since| now.saturating_duration_since(since) >= duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn election() -> Election {
        Election::new(&LeaseSettings::new("ns", "lock", "me"))
    }

    fn held_by(holder: &str, renewed: i64, seconds: i32) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { name: Some("lock".into()), resource_version: Some("7".into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    fn wall() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_absent_lease_is_created_and_an_empty_one_taken() {
        let mut election = election();
        let now = Instant::now();
        election.see(None, now);
        let Proposal::Create(lease) = election.propose(now, wall()) else { panic!() };
        let spec = lease.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("me"), Some(15)));
        for holder in [None, Some(String::new())] {
            let mut empty = held_by("", 0, 1);
            empty.spec.as_mut().unwrap().holder_identity = holder;
            election.see(Some(empty), now);
            let Proposal::Replace(lease) = election.propose(now, wall()) else { panic!() };
            assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"), "guarded by the version that was seen");
            assert_eq!(lease.spec.unwrap().lease_transitions, Some(4));
        }
    }

    #[test]
    fn a_holder_is_gone_when_nothing_changed_for_its_duration_whatever_the_times_in_it_say() {
        // The holder's clock stands a day behind, at the own time, or ten years ahead.
        for renewed in [1_000_000 - 86_400, 1_000_000, 1_300_000_000] {
            let mut election = election();
            let start = Instant::now();
            election.see(Some(held_by("other", renewed, 15)), start);
            election.see(Some(held_by("other", renewed, 15)), start + seconds(14));
            assert_eq!(election.propose(start + seconds(14), wall()), Proposal::Wait { holder: "other".into() });
            assert!(matches!(election.propose(start + seconds(15), wall()), Proposal::Replace(_)));
            // Any change of the record shows that it lives, also a step back.
            election.see(Some(held_by("other", renewed - 5, 15)), start + seconds(15));
            assert_eq!(election.propose(start + seconds(29), wall()), Proposal::Wait { holder: "other".into() });
        }
    }

    #[test]
    fn what_a_hostile_holder_asks_for_is_bounded() {
        let start = Instant::now();
        for (asked, waits) in [(0, 15), (-5, 15), (1, 15), (60, 60), (i32::MAX, 3600)] {
            let mut election = election();
            election.see(Some(held_by("other", 0, asked)), start);
            assert!(matches!(election.propose(start + seconds(waits - 1), wall()), Proposal::Wait { .. }), "{asked}");
            assert!(matches!(election.propose(start + seconds(waits), wall()), Proposal::Replace(_)), "{asked}");
        }
        let mut election = election();
        let mut odd = held_by("", 0, 1);
        odd.spec.as_mut().unwrap().lease_transitions = Some(i32::MAX);
        election.see(Some(odd), start);
        let Proposal::Replace(lease) = election.propose(start, wall()) else { panic!() };
        assert_eq!(lease.spec.unwrap().lease_transitions, Some(0));
    }

    #[test]
    fn the_own_term_counts_from_before_the_request_left_and_ends_before_another_may_begin() {
        let mut election = election();
        let sent = Instant::now();
        election.won(held_by("me", 0, 15), sent);
        assert_eq!(election.term_end(), Some(sent + seconds(10)));
        let mut other = Election::new(&LeaseSettings::new("ns", "lock", "other"));
        other.see(Some(held_by("me", 0, 15)), sent);
        for after in 0..30 {
            let now = sent + seconds(after);
            election.expire(now);
            let may_begin = matches!(other.propose(now, wall()), Proposal::Replace(_));
            assert!(!(may_begin && election.term_end().is_some()), "both at {after} s");
        }
        assert!(election.term_end().is_none());
    }

    #[test]
    fn a_stolen_lease_ends_the_term_at_once_and_a_deleted_one_is_made_again() {
        let mut election = election();
        let now = Instant::now();
        election.won(held_by("me", 0, 15), now);
        assert!(election.knows_version());
        election.see(None, now);
        assert!(election.term_end().is_some() && matches!(election.propose(now, wall()), Proposal::Create(_)));
        election.won(held_by("me", 1, 15), now);
        election.see(Some(held_by("thief", 2, 15)), now);
        assert!(election.term_end().is_none() && election.release(wall()).is_none());
        assert_eq!(election.propose(now, wall()), Proposal::Wait { holder: "thief".into() });
    }

    #[test]
    fn releasing_leaves_nobody_and_keeps_what_others_wrote() {
        let mut election = election();
        let mut lease = held_by("me", 0, 15);
        lease.metadata.annotations = Some([("theirs".to_owned(), "stays".to_owned())].into());
        election.won(lease, Instant::now());
        let released = election.release(wall()).unwrap();
        assert_eq!(released.metadata.annotations.unwrap()["theirs"], "stays");
        let spec = released.spec.unwrap();
        assert_eq!((spec.holder_identity, spec.lease_duration_seconds, spec.lease_transitions), (None, Some(1), Some(3)));
    }
}
