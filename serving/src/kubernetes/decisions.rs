//! Decisions of the API server, remembered for seconds; what is asked several times at once is asked for once.

use std::{sync::Arc, time::Duration};

use moka::{future::Cache, policy::EvictionPolicy};
use tokio::time::{Instant, timeout_at};

use super::review::ReviewError;

/// What a decision is remembered by: a digest of all that was asked.
pub(crate) type Key = [u8; 32];

/// Decisions of one kind. What was remembered longest unused goes first; failures are not remembered.
pub(crate) struct Decisions<V> {
    cache: Cache<Key, Remembered<V>>,
}

#[derive(Clone)]
struct Remembered<V> {
    outcome: Result<V, Arc<ReviewError>>,
    /// By the clock that tests can pause.
    until: Instant,
}

/// A decision, and whether it was made for this request.
pub(crate) struct Decided<V> {
    pub(crate) outcome: Result<V, Arc<ReviewError>>,
    pub(crate) fresh: bool,
}

impl<V: Clone + Send + Sync + 'static> Decisions<V> {
    /// At most `capacity`, none for longer than `longest`.
    pub(crate) fn new(capacity: u64, longest: Duration) -> Self {
        // Also forgotten by the cache's own clock, so that what nobody asks for again takes no memory.
        let forgotten = longest.max(Duration::from_secs(1));
        let cache = Cache::builder().max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).time_to_live(forgotten).build();
        Self { cache }
    }

    /// What is remembered under `key`, or what `review` decides; that is remembered for as long as `keep` says. Whoever
    /// waits for the review of another gives up at `until` all the same.
    pub(crate) async fn get(
        &self,
        key: Key,
        until: Instant,
        keep: impl Fn(&V) -> Duration,
        review: impl Future<Output = Result<V, ReviewError>>,
    ) -> Decided<V> {
        let started = Instant::now();
        let decide = async {
            let outcome = review.await.map_err(Arc::new);
            let until = Instant::now() + outcome.as_ref().map_or(Duration::ZERO, keep);
            Remembered { outcome, until }
        };
        let entry = self.cache.entry(key).or_insert_with_if(decide, |remembered| remembered.until <= started);
        match timeout_at(until, entry).await {
            Ok(entry) => {
                let fresh = entry.is_fresh();
                Decided { outcome: entry.into_value().outcome, fresh }
            }
            Err(_elapsed) => Decided { outcome: Err(Arc::new(ReviewError::Late { waited: started.elapsed() })), fresh: true },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn a_decision_ends_with_its_time_and_a_failure_at_once() {
        let decisions = Decisions::new(10, TTL);
        let asked = AtomicUsize::new(0);
        let ask = async |outcome: Result<u8, ReviewError>| {
            let review = async {
                asked.fetch_add(1, Ordering::Relaxed);
                outcome
            };
            decisions.get([7; 32], soon(), |_| TTL, review).await.outcome.ok()
        };
        let failure = || Err(ReviewError::Late { waited: TTL });
        assert_eq!(ask(failure()).await, None);
        assert_eq!(ask(Ok(1)).await, Some(1), "a failure is not remembered");
        tokio::time::advance(TTL - Duration::from_millis(1)).await;
        assert_eq!(ask(Ok(2)).await, Some(1));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(ask(failure()).await, None, "an old decision does not stand in for a failure");
        assert_eq!(ask(Ok(3)).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_review_that_is_given_up_asks_anew_until_its_own_time() {
        let decisions = Decisions::<u8>::new(10, TTL);
        let first = decisions.get([7; 32], Instant::now() + Duration::from_secs(1), |_| TTL, std::future::pending());
        let second = decisions.get([7; 32], Instant::now() + Duration::from_secs(2), |_| TTL, async { Ok(5) });
        let (first, second) = tokio::join!(first, second);
        assert!(matches!(first.outcome.unwrap_err().as_ref(), ReviewError::Late { .. }));
        assert_eq!(second.outcome.unwrap(), 5);
        let third = decisions.get([8; 32], Instant::now() + Duration::from_secs(1), |_| TTL, std::future::pending());
        assert!(third.await.outcome.is_err());
    }
}
