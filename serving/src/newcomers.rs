//! Connections over which nothing allowed was asked yet. They make room when there are too many, the oldest first.
//!
//! Whoever opens thousands of connections and says nothing must not keep others out. A caller that is let in asks within milliseconds
//! of connecting; from then on its connection is safe, and a flood only pushes out its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio_util::sync::CancellationToken;

/// Whether something allowed was asked over a connection.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    proven: AtomicBool,
    /// Cancelled where the connection has to make room.
    pub(crate) evicted: CancellationToken,
}

impl Standing {
    /// Something allowed was asked.
    pub(crate) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// The connections that may have to make room, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    waiting: VecDeque<Weak<Standing>>,
}

impl Newcomers {
    /// A connection more, of at most `limit` at a time.
    pub(crate) fn add(&mut self, standing: &Arc<Standing>, limit: usize) {
        if self.waiting.len() >= limit.saturating_mul(2) {
            self.waiting.retain(|waiting| waiting.upgrade().is_some_and(|standing| is_newcomer(&standing)));
        }
        self.waiting.push_back(Arc::downgrade(standing));
    }

    /// Makes the oldest one go; whether there was one.
    pub(crate) fn evict_oldest(&mut self) -> bool {
        while let Some(waiting) = self.waiting.pop_front() {
            if let Some(standing) = waiting.upgrade().filter(|standing| is_newcomer(standing)) {
                standing.evicted.cancel();
                return true;
            }
        }
        false
    }
}

fn is_newcomer(standing: &Standing) -> bool {
    !standing.proven.load(Ordering::Relaxed) && !standing.evicted.is_cancelled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unproven_connection_goes_and_no_other() {
        let standings: Vec<_> = (0..4).map(|_| Arc::new(Standing::default())).collect();
        let mut newcomers = Newcomers::default();
        standings.iter().for_each(|standing| newcomers.add(standing, 4));
        standings[0].prove();
        assert!(newcomers.evict_oldest());
        let evicted = |index: usize| standings[index].evicted.is_cancelled();
        assert_eq!([evicted(0), evicted(1), evicted(2), evicted(3)], [false, true, false, false]);
        standings[2].prove();
        assert!(newcomers.evict_oldest());
        assert!(evicted(3) && !evicted(2));
        assert!(!newcomers.evict_oldest(), "nobody is left who could go");
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut newcomers = Newcomers::default();
        for _ in 0..1000 {
            newcomers.add(&Arc::new(Standing::default()), 10);
        }
        assert!(newcomers.waiting.len() <= 20, "{}", newcomers.waiting.len());
        assert!(!newcomers.evict_oldest());
    }
}
