//! Whether an endpoint is kept out after failures of requests that were sent there.
//!
//! Failures in a row eject it for a time that doubles with each ejection. After that one request may try: an answer takes it back,
//! a failure ejects it again. Nothing here ejects everybody: the caller ignores ejections where they would leave nobody.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Weight of failures in a row that ejects.
const EJECT_AT: u32 = 10;
/// The first ejection.
const FIRST: Duration = Duration::from_secs(5);
/// No ejection is longer.
const LONGEST: Duration = Duration::from_secs(60);

/// What a request showed of the endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Evidence {
    /// It answered, with a status below 500.
    Answered,
    /// It answered with a status of 500 or above: five in a row eject.
    ServerError,
    /// The gateway went on to another endpoint: refused, reset or a status to be retried. Five in a row eject.
    PassedOver,
    /// The gateway answered in its place: it could not be reached, or the connection broke. Five in a row eject.
    Unreached,
    /// The request ended without an answer: a reset, or the caller had waited long enough. Ten in a row eject.
    NoAnswer,
}

impl Evidence {
    /// The label value used on the page.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ServerError => "server_error",
            Self::PassedOver => "passed_over",
            Self::Unreached => "unreached",
            Self::NoAnswer => "no_answer",
        }
    }

    fn weight(self) -> u32 {
        match self {
            Self::Answered => 0,
            Self::ServerError | Self::PassedOver | Self::Unreached => EJECT_AT / 5,
            Self::NoAnswer => EJECT_AT / 10,
        }
    }
}

/// What evidence changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HealthChange {
    /// Nothing.
    Same,
    /// It is kept out for so long.
    Ejected(Duration),
    /// It takes requests again.
    Recovered,
}

/// The health of one endpoint.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    /// Weight of the failures in a row.
    streak: AtomicU32,
    /// Ejections without an answer between them.
    ejections: AtomicU32,
    /// The end of the ejection in nanoseconds since `origin`; 0 in service.
    ejected_until: AtomicU64,
    /// Whether a request tries at present.
    trying: AtomicBool,
}

impl Health {
    /// In service. `origin` is earlier than any moment that will be named.
    pub fn new(origin: Instant) -> Self {
        Self {
            origin,
            streak: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            trying: AtomicBool::new(false),
        }
    }

    /// Whether it may be given a request at `now`: in service, or the time is over and nobody tries yet.
    pub fn admits(&self, now: Instant) -> bool {
        match self.ejected_until.load(Ordering::Relaxed) {
            0 => true,
            until => self.nanos(now) >= until && !self.trying.load(Ordering::Relaxed),
        }
    }

    /// Whether it is ejected, or has yet to show that it is back.
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.load(Ordering::Relaxed) != 0
    }

    /// A request goes there. True where it is the one that tries: [`Self::tried`] is to be called when it has ended.
    pub fn chosen(&self) -> bool {
        self.is_ejected() && !self.trying.swap(true, Ordering::Relaxed)
    }

    /// The request that tried has ended, however.
    pub fn tried(&self) {
        self.trying.store(false, Ordering::Relaxed);
    }

    /// A request showed this.
    pub fn showed(&self, evidence: Evidence, now: Instant) -> HealthChange {
        if evidence == Evidence::Answered {
            self.streak.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
            return match self.ejected_until.swap(0, Ordering::Relaxed) {
                0 => HealthChange::Same,
                _ => HealthChange::Recovered,
            };
        }
        let until = self.ejected_until.load(Ordering::Relaxed);
        let nanos = self.nanos(now);
        if until > nanos {
            // What was sent before the ejection fails after it: nothing new.
            return HealthChange::Same;
        }
        let streak = self.streak.fetch_add(evidence.weight(), Ordering::Relaxed).saturating_add(evidence.weight());
        if until == 0 && streak < EJECT_AT {
            return HealthChange::Same;
        }
        let ejections = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        let lasts = FIRST.saturating_mul(1 << ejections).min(LONGEST);
        self.streak.store(0, Ordering::Relaxed);
        self.ejected_until.store(nanos.saturating_add(lasts.as_nanos() as u64), Ordering::Relaxed);
        HealthChange::Ejected(lasts)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn five_errors_in_a_row_eject_and_an_answer_between_them_does_not() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..4 {
            assert_eq!(health.showed(Evidence::ServerError, now), HealthChange::Same);
        }
        assert_eq!(health.showed(Evidence::Answered, now), HealthChange::Same);
        for _ in 0..4 {
            assert_eq!(health.showed(Evidence::PassedOver, now), HealthChange::Same);
        }
        assert!(health.admits(now));
        assert_eq!(health.showed(Evidence::ServerError, now), HealthChange::Ejected(FIRST));
        assert!(!health.admits(now + FIRST - Duration::from_nanos(1)));
        assert!(health.admits(now + FIRST));
    }

    #[test]
    fn requests_given_up_weigh_half() {
        let now = Instant::now();
        let health = Health::new(now);
        for _ in 0..9 {
            assert_eq!(health.showed(Evidence::NoAnswer, now), HealthChange::Same);
        }
        assert_eq!(health.showed(Evidence::NoAnswer, now), HealthChange::Ejected(FIRST));
        assert_eq!(health.showed(Evidence::NoAnswer, now), HealthChange::Same, "sent before the ejection");
    }

    #[test]
    fn one_request_tries_and_decides() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(!health.chosen(), "in service nobody has to try");
        let last = (0..5).map(|_| health.showed(Evidence::ServerError, start)).last();
        assert_eq!(last, Some(HealthChange::Ejected(FIRST)));
        let mut now = start + FIRST;
        for lasts in [10, 20, 40, 60, 60] {
            assert!(health.admits(now) && health.chosen());
            assert!(!health.admits(now) && !health.chosen(), "one at a time");
            assert_eq!(health.showed(Evidence::NoAnswer, now), HealthChange::Ejected(lasts * SECOND));
            health.tried();
            assert!(!health.admits(now));
            now += lasts * SECOND;
        }
        assert!(health.chosen());
        assert_eq!(health.showed(Evidence::Answered, now), HealthChange::Recovered);
        health.tried();
        assert!(health.admits(now) && !health.is_ejected());
        assert!((0..4).all(|_| health.showed(Evidence::ServerError, now) == HealthChange::Same));
        assert_eq!(health.showed(Evidence::ServerError, now), HealthChange::Ejected(FIRST), "the count begins anew");
    }
}
