//! What a leader's work holds on to: whether it leads, and that a write ends when the term does.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why a write was not made, or not to its end.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NotLeading {
    /// Another replica leads, or this one is shutting down: nothing was written.
    #[error("this replica does not lead: nothing was written")]
    Before,
    /// The leadership ended during the write: whether it was made is not known.
    #[error("the leadership ended during the write: whether it was made is not known")]
    During,
    /// No answer in the time that a write may take: whether it was made is not known.
    #[error("no answer in the time that a leader's write may take: whether it was made is not known")]
    TooLong,
}

/// Tells whether this process leads, and guards its writes.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The end of the term, by the monotonic clock.
    pub(super) term: watch::Receiver<Option<Instant>>,
    pub(super) writes: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) longest_write: Duration,
}

impl Leader {
    /// Leads for ever, of its own: for a process that is known to be the only one, and for tests.
    pub fn always() -> Self {
        // A century.
        Self::alone(Some(Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600)))
    }

    /// Never leads: for tests.
    pub fn never() -> Self {
        Self::alone(None)
    }

    fn alone(end: Option<Instant>) -> Self {
        Self {
            term: watch::channel(end).1,
            writes: TaskTracker::new(),
            stop: CancellationToken::new(),
            longest_write: Duration::from_secs(5),
        }
    }

    /// Whether this process leads now. Judged by the clock too: a process that was stalled past its term does not lead, even
    /// before it has noticed.
    pub fn leads(&self) -> bool {
        !self.stop.is_cancelled() && self.term.borrow().is_some_and(|end| Instant::now() < end)
    }

    /// Waits until [`Leader::leads`] is no longer `was`, and gives what it is then. Never more after the end of the election.
    pub async fn changed(&mut self, was: bool) -> bool {
        let mut is_over = false;
        loop {
            let leads = self.leads();
            if leads != was {
                return leads;
            }
            let end = if leads { *self.term.borrow_and_update() } else { None };
            tokio::select! {
                changed = self.term.changed(), if !is_over => is_over = changed.is_err(),
                () = self.stop.cancelled(), if leads => {}
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Makes a write only while leading, dropped at the end of the term and after the time between the renew deadline and the end
    /// of the lease: so it has ended before another replica may begin. A shutdown lets it finish.
    ///
    /// # Errors
    /// [`NotLeading`], which tells whether anything can have been written.
    pub async fn write<T>(&self, write: impl Future<Output = T>) -> Result<T, NotLeading> {
        // Before the look at the term: a release that follows waits for it.
        let _counted = self.writes.token();
        if !self.leads() {
            return Err(NotLeading::Before);
        }
        let mut term = self.term.clone();
        let mut write = pin!(timeout(self.longest_write, write));
        loop {
            let Some(end) = *term.borrow_and_update() else { return Err(NotLeading::During) };
            tokio::select! {
                biased;
                () = sleep_until(end) => if *term.borrow() == Some(end) {
                    return Err(NotLeading::During);
                },
                // When the election's task is gone nothing renews the term, which still stands.
                Ok(()) = term.changed() => {}
                done = write.as_mut() => return done.map_err(|_elapsed| NotLeading::TooLong),
            }
        }
    }
}
