//! The queue between the requests that come and the one dispatcher that places them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Entry, FlowSettings, Id, Outcome, Queue, Queued, RETRY_NO_ENDPOINTS};
use crate::inference::{Pick, Refusal, Subset};
use crate::metrics::{FlowMetrics, FlowSeries};

type Answer = Result<Pick, Refusal>;

/// Where requests wait. `T` is what places one.
#[derive(Debug)]
pub(crate) struct Gate<T> {
    state: Mutex<State<T>>,
    /// Requests whose wait has not ended, for who only wants to know whether there are any.
    waiting: AtomicUsize,
    /// Whether a dispatcher runs: without one nobody is to wait.
    open: AtomicBool,
    /// Whether the pool has only just got an endpoint: whoever comes waits with the others.
    settling: AtomicBool,
    /// Seconds after which the pool is worth another try while it has no endpoint.
    retry_empty: AtomicU32,
    /// Tells the dispatcher that there may be something to do.
    stir: Notify,
    /// Tells that the first request waits.
    rose: Notify,
    metrics: FlowMetrics,
}

#[derive(Debug)]
struct State<T> {
    queue: Queue<Waiter<T>>,
    /// The picker ends.
    closed: bool,
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter<T> {
    /// What places it.
    pub(crate) what: T,
    answer: oneshot::Sender<Answer>,
    series: Arc<FlowSeries>,
}

/// A request's place in the queue. Dropping it gives the place up.
pub(crate) struct Place<'a, T> {
    gate: &'a Gate<T>,
    id: Id,
    answer: oneshot::Receiver<Answer>,
}

impl<T> Gate<T> {
    pub(crate) fn new(settings: Arc<FlowSettings>, metrics: FlowMetrics, now: Instant) -> Self {
        Self {
            state: Mutex::new(State { queue: Queue::new(settings, now), closed: false }),
            waiting: AtomicUsize::new(0),
            open: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            retry_empty: AtomicU32::new(RETRY_NO_ENDPOINTS),
            stir: Notify::new(),
            rose: Notify::new(),
            metrics,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether somebody places those who wait.
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the pool has only just got an endpoint.
    pub(crate) fn is_settling(&self) -> bool {
        self.settling.load(Ordering::Acquire)
    }

    pub(crate) fn settle(&self, settling: bool) {
        self.settling.store(settling, Ordering::Release);
    }

    /// Whoever is refused while the pool has no endpoint is told to come again after so many seconds.
    pub(crate) fn retry_empty_after(&self, seconds: u32) {
        self.retry_empty.store(seconds, Ordering::Relaxed);
    }

    fn refusal(&self, outcome: Outcome) -> Refusal {
        outcome.refusal(self.retry_empty.load(Ordering::Relaxed))
    }

    /// Whether somebody waits who goes before a new request of `priority`.
    pub(crate) fn goes_before(&self, priority: i32) -> bool {
        self.waiting() > 0 && self.state().queue.highest().is_some_and(|highest| highest >= priority)
    }

    /// Waits there until it is dropped or answered.
    ///
    /// # Errors
    /// What to tell whoever may not wait.
    pub(crate) fn enter(&self, entry: Entry, what: T, series: Arc<FlowSeries>, now: Instant) -> Result<Place<'_, T>, Refusal> {
        let began = Instant::now();
        let (bytes, told) = (entry.bytes, series.clone());
        let (answer, receiver) = oneshot::channel();
        let outcome = {
            let mut state = self.state();
            if state.closed || !self.is_open() {
                Err(Outcome::RejectedOther)
            } else {
                let entered = state.queue.enqueue(entry, Waiter { what, answer, series }, now);
                entered.map_err(|(outcome, _)| outcome).inspect(|_| {
                    told.entered(bytes);
                    if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
                        self.rose.notify_one();
                    }
                })
            }
        };
        let took = Instant::now().saturating_duration_since(began);
        match outcome {
            Ok(id) => {
                self.metrics.enqueued(&told, None, took);
                self.stir.notify_one();
                Ok(Place { gate: self, id, answer: receiver })
            }
            Err(outcome) => {
                self.metrics.enqueued(&told, Some(outcome), took);
                self.metrics.ended(&told, outcome, Duration::ZERO);
                Err(self.refusal(outcome))
            }
        }
    }

    /// Something may have made room.
    pub(crate) fn stir(&self) {
        if self.waiting() > 0 {
            self.stir.notify_one();
        }
    }

    /// Waits until there may be something to do.
    pub(crate) async fn stirred(&self) {
        self.stir.notified().await;
    }

    /// Waits until the first request waits.
    pub(crate) async fn rose(&self) {
        self.rose.notified().await;
    }

    /// Runs by `settings` from now on.
    pub(crate) fn reconfigure(&self, settings: &Arc<FlowSettings>) {
        let mut state = self.state();
        if !Arc::ptr_eq(state.queue.settings(), settings) {
            state.queue.reconfigure(settings.clone());
        }
    }

    /// Tells whether the pool has no endpoint; answers whoever has waited as long as they may. When that is next comes out.
    pub(crate) fn expire(&self, pool_is_empty: bool, now: Instant) -> Option<Instant> {
        let (expired, next) = {
            let mut state = self.state();
            state.queue.pool_is_empty(pool_is_empty, now);
            (state.queue.expire(now), state.queue.next_expiry())
        };
        for (queued, outcome) in expired {
            self.refuse(queued, outcome, self.refusal(outcome), now);
        }
        next
    }

    /// Whose turn it is: see [`Queue::next`].
    pub(crate) fn next(&self, saturation: &mut dyn FnMut(&Subset) -> f64) -> Option<(Id, Queued<Waiter<T>>)> {
        self.state().queue.next(saturation)
    }

    /// It was not its turn after all.
    pub(crate) fn restore(&self, id: Id, queued: Queued<Waiter<T>>) {
        self.state().queue.restore(id, queued);
    }

    /// Its turn came, and this became of it; none where the picker failed over it.
    pub(crate) fn answer(&self, queued: Queued<Waiter<T>>, answer: Option<Answer>, now: Instant) {
        let Queued { entry, value: Waiter { answer: sender, series, .. }, since, .. } = queued;
        self.left(&series, entry.bytes, Outcome::Dispatched, now.saturating_duration_since(since));
        if let Some(answer) = answer {
            // Whoever has gone meanwhile drops the pick, which ends it.
            drop(sender.send(answer));
        }
    }

    /// Answers everyone with `refusal`, and counts it as `outcome`.
    pub(crate) fn refuse_all(&self, outcome: Outcome, refusal: &Refusal, now: Instant) {
        let all = self.state().queue.drain();
        for queued in all {
            self.refuse(queued, outcome, refusal.clone(), now);
        }
    }

    /// A dispatcher runs until what comes out is dropped; then everyone is told that the picker ends.
    pub(crate) fn opened(self: &Arc<Self>) -> Opened<T> {
        self.open.store(true, Ordering::Release);
        Opened(self.clone())
    }

    fn refuse(&self, queued: Queued<Waiter<T>>, outcome: Outcome, refusal: Refusal, now: Instant) {
        let Queued { entry, value: Waiter { answer, series, .. }, since, .. } = queued;
        self.left(&series, entry.bytes, outcome, now.saturating_duration_since(since));
        drop(answer.send(Err(refusal)));
    }

    fn left(&self, series: &FlowSeries, bytes: u64, outcome: Outcome, waited: Duration) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        series.left(bytes);
        self.metrics.ended(series, outcome, waited);
    }
}

impl<T> Place<'_, T> {
    /// What becomes of the request.
    pub(crate) async fn outcome(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or_else(|_| Err(self.gate.refusal(Outcome::Dispatched)))
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let (gone, closed) = {
            let mut state = self.gate.state();
            (state.queue.cancel(self.id), state.closed)
        };
        if let Some(queued) = gone {
            let waited = Instant::now().saturating_duration_since(queued.since);
            let outcome = if closed { Outcome::EvictedOther } else { Outcome::EvictedContextCancelled };
            self.gate.left(&queued.value.series, queued.entry.bytes, outcome, waited);
            self.gate.stir();
        }
    }
}

/// See [`Gate::opened`].
#[derive(Debug)]
pub(crate) struct Opened<T>(Arc<Gate<T>>);

impl<T> Drop for Opened<T> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.open.store(false, Ordering::Release);
        self.0.settle(false);
        self.0.refuse_all(Outcome::EvictedOther, &self.0.refusal(Outcome::EvictedOther), Instant::now());
    }
}
