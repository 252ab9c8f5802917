//! What was sent to an endpoint, and how much of it the endpoint's last page cannot show yet.
//!
//! A page shows the server as it was when it was asked for. What began since adds to it, what ended since is no longer there. The
//! difference is kept by time, so that the page that shows a request takes it out of the difference, and nothing counts twice.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Beginnings and ends that are kept until a page shows them. Beyond it the oldest are taken for shown: no page has come for so
/// long that the endpoint is unknown anyway.
const MOST_EVENTS: usize = 8192;

/// Requests of this picker that are in flight at one endpoint.
pub struct InFlight {
    origin: Instant,
    total: AtomicU64,
    /// Began minus ended since the page at `page`.
    unseen: AtomicI64,
    /// When the newest page was asked for, in nanoseconds since `origin`.
    page: AtomicU64,
    events: Mutex<VecDeque<(u64, i64)>>,
    tell: Box<dyn Fn(bool) + Send + Sync>,
}

impl fmt::Debug for InFlight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("InFlight").field("total", &self.total).field("unseen", &self.unseen).finish_non_exhaustive()
    }
}

impl InFlight {
    /// Nothing in flight. `tell` hears when the first request begins and when the last one ends; `origin` is earlier than any
    /// moment that will be named.
    pub fn new(origin: Instant, tell: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self {
            origin,
            total: AtomicU64::new(0),
            unseen: AtomicI64::new(0),
            page: AtomicU64::new(0),
            events: Mutex::default(),
            tell: Box::new(tell),
        }
    }

    /// Requests in flight.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// A request was sent.
    pub fn began(&self, at: Instant) {
        self.changed(at, 1);
    }

    /// A request that began has ended. To be called once for each that began.
    pub fn ended(&self, at: Instant) {
        self.changed(at, -1);
    }

    /// How many requests more are there than a page shows that was asked for at `scraped_at`; negative where some have ended.
    pub fn unseen(&self, scraped_at: Instant) -> i64 {
        let page = self.nanos(scraped_at);
        if page > self.page.load(Ordering::Acquire) {
            self.seen(page);
        }
        self.unseen.load(Ordering::Relaxed)
    }

    fn changed(&self, at: Instant, by: i64) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.total.load(Ordering::Relaxed);
        let after = before.saturating_add_signed(by);
        self.total.store(after, Ordering::Relaxed);
        let at = self.nanos(at);
        // A page that is younger than the event shows it already.
        if at >= self.page.load(Ordering::Relaxed) {
            if events.len() == MOST_EVENTS
                && let Some((_, oldest)) = events.pop_front()
            {
                self.unseen.fetch_sub(oldest, Ordering::Relaxed);
            }
            events.push_back((at, by));
            self.unseen.fetch_add(by, Ordering::Relaxed);
        }
        // Within the lock: told in the order in which it happened.
        if (before == 0) != (after == 0) {
            (self.tell)(after > 0);
        }
    }

    fn seen(&self, page: u64) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if page <= self.page.load(Ordering::Relaxed) {
            return;
        }
        while let Some((_, by)) = events.pop_front_if(|(at, _)| *at < page) {
            self.unseen.fetch_sub(by, Ordering::Relaxed);
        }
        self.page.store(page, Ordering::Release);
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(origin: Instant, millis: u64) -> Instant {
        origin + Duration::from_millis(millis)
    }

    #[test]
    fn what_began_after_the_page_adds_until_a_page_shows_it() {
        let origin = Instant::now();
        let in_flight = InFlight::new(origin, |_| ());
        in_flight.began(at(origin, 5));
        assert_eq!(in_flight.unseen(at(origin, 3)), 1, "the page is older");
        in_flight.began(at(origin, 10));
        assert_eq!(in_flight.unseen(at(origin, 7)), 1, "the first is on the page, the second not");
        assert_eq!(in_flight.unseen(at(origin, 11)), 0, "both are on the page");
        in_flight.ended(at(origin, 12));
        assert_eq!(in_flight.unseen(at(origin, 11)), -1, "the page still shows what has ended");
        assert_eq!(in_flight.unseen(at(origin, 13)), 0);
        assert_eq!(in_flight.total(), 1);
        assert_eq!(in_flight.unseen(at(origin, 4)), 0, "an older page is no news");
    }

    #[test]
    fn the_first_and_the_last_are_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let origin = Instant::now();
        let ear = told.clone();
        let in_flight = InFlight::new(origin, move |busy| ear.lock().unwrap().push(busy));
        in_flight.began(origin);
        in_flight.began(origin);
        in_flight.ended(origin);
        in_flight.ended(origin);
        assert_eq!(*told.lock().unwrap(), [true, false]);
    }

    #[test]
    fn events_that_no_page_ever_shows_are_bounded() {
        let origin = Instant::now();
        let in_flight = InFlight::new(origin, |_| ());
        (0..3 * MOST_EVENTS as u64).for_each(|millis| in_flight.began(at(origin, millis + 1)));
        assert_eq!(in_flight.events.lock().unwrap().len(), MOST_EVENTS);
        assert_eq!(in_flight.unseen(origin), MOST_EVENTS as i64);
        assert_eq!(in_flight.total(), 3 * MOST_EVENTS as u64);
    }

    proptest! {
        /// Whatever begins, ends and is read in whatever order of time: the difference is the one counted from the history.
        #[test]
        fn unseen_is_what_the_history_says(steps in prop::collection::vec((0u64..4, any::<bool>()), 1..200)) {
            let origin = Instant::now();
            let in_flight = InFlight::new(origin, |_| ());
            let (mut now, mut page, mut total) = (1, 0, 0u64);
            let mut history = Vec::new();
            for (step, begins) in steps {
                now += 1;
                match (step, begins) {
                    (0, _) => page = now,
                    (_, true) => {
                        in_flight.began(at(origin, now));
                        history.push((now, 1));
                        total += 1;
                    }
                    (_, false) if total > 0 => {
                        in_flight.ended(at(origin, now));
                        history.push((now, -1));
                        total -= 1;
                    }
                    _ => {}
                }
                let expected: i64 = history.iter().filter(|(when, _)| *when >= page).map(|(_, by)| by).sum();
                prop_assert_eq!(in_flight.unseen(at(origin, page)), expected);
                prop_assert_eq!(in_flight.total(), total);
            }
        }
    }
}
