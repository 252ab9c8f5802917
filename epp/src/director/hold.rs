//! Requests that wait: placed at once where they can be, else through the gate, which one dispatcher empties.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use weir_datastore::{PoolChanges, PoolSnapshot};

use super::outlook::Outlook;
use super::place::{Admission, Arrival, Hindrance};
use super::refusals::{no_candidates, no_pool, shed};
use super::roster::Roster;
use super::{PoolDirector, Shared, View};
use crate::flow::{Entry, Outcome, slo_of};
use crate::inference::{InferenceRequest, Pick, Refusal, Subset};
use crate::scheduling::{SchedulingConfig, Scratch};

/// The flow of requests that say none: upstream's name.
const DEFAULT_FLOW: &str = "default-flow";
/// How often those who wait are looked at though nothing happens: pages grow old without a word.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);
/// How often they are looked at though pages are read and requests end all the time: upstream's tick.
const LOOK_AT_MOST: Duration = Duration::from_millis(1);
/// How long those who wait go on though nothing is known any more that would bring an endpoint: between a pod that goes and the one in
/// its place there is a moment without either.
const HOPE: Duration = Duration::from_secs(5);
/// How long who waited for the first endpoint waits for its first page, too, where a full pool keeps requests waiting.
const FIRST_PAGE: Duration = Duration::from_secs(2);
/// Requests that are placed before other tasks have a turn.
const BATCH: usize = 64;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Held {
    request: InferenceRequest,
    arrival: Arrival,
}

/// What the dispatcher remembers while some wait.
#[derive(Default)]
struct Memory {
    /// Whether the pool was seen without an endpoint.
    was_empty: bool,
    /// Until when those wait who waited for the first endpoint.
    settled_at: Option<Instant>,
    /// Since when nothing is known that would bring an endpoint.
    hopeless_since: Option<Instant>,
}

/// What comes of a look at those who wait.
struct Look {
    /// When the next look is due, though nothing happens until then.
    next: Instant,
    /// Whether more could be placed at once.
    more: bool,
}

impl PoolDirector {
    /// Places requests that wait, until `leaving`; then, and when dropped, all of them are told that the picker ends. Without it no
    /// request waits.
    pub async fn dispatch(&self, leaving: CancellationToken) {
        let shared = &self.0;
        let _opened = shared.gate.opened();
        let mut topology = shared.store.generation();
        let mut pages = shared.store.changes(&shared.pool);
        let mut memory = Memory::default();
        loop {
            if shared.gate.waiting() == 0 {
                memory = Memory::default();
                shared.gate.settle(false);
                tokio::select! {
                    () = shared.gate.stirred() => {}
                    () = leaving.cancelled() => return,
                }
                topology.mark_unchanged();
                pages = shared.store.changes(&shared.pool);
            }
            let looked_at = Instant::now();
            let look = shared.dispatch_some(&mut memory, looked_at);
            if look.more {
                tokio::task::yield_now().await;
                continue;
            }
            let often = async {
                tokio::select! {
                    () = shared.gate.stirred() => {}
                    () = written(&mut pages) => {}
                }
                sleep_until(looked_at + LOOK_AT_MOST).await;
            };
            tokio::select! {
                () = leaving.cancelled() => return,
                changed = topology.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(look.next) => {}
                () = often => continue,
            }
            // A pool that was made anew is another one.
            pages = shared.store.changes(&shared.pool);
        }
    }
}

async fn written(pages: &mut Option<PoolChanges>) {
    match pages {
        Some(pages) => pages.written().await,
        None => std::future::pending().await,
    }
}

impl Shared {
    /// Places `request`, now or once there is room.
    pub(super) async fn direct(self: &Arc<Self>, request: InferenceRequest) -> Result<Pick, Refusal> {
        let now = Instant::now();
        let mut arrival = self.arrive(&request);
        if let Some(trail) = &request.trail {
            trail.resolved(arrival.resolution.priority, arrival.resolution.target.as_ref());
        }
        if let Some(refusal) = self.known_models.load().refusal(arrival.resolution.target_model(&request)) {
            arrival.model.refused(refusal.code);
            return Err(refusal);
        }
        let hindrance = match self.place_unless_behind(&request, &mut arrival, now) {
            Ok(pick) => {
                self.rewritten(&arrival);
                return Ok(pick);
            }
            Err(hindrance) => hindrance,
        };
        let model = arrival.model.clone();
        let outcome = match hindrance {
            Hindrance::Refused(refusal) => Err(refusal),
            Hindrance::Empty(outlook) if !self.is_to_wait(&outlook) => Err(nobody(&arrival, &outlook)),
            // The future of a request that is placed at once has no room for this.
            Hindrance::Empty(outlook) => {
                self.gate.retry_empty_after(outlook.retry_after);
                Box::pin(self.wait(request, arrival, now)).await
            }
            Hindrance::Full => Box::pin(self.wait(request, arrival, now)).await,
        };
        if let Err(refusal) = &outcome {
            model.refused(refusal.code);
        }
        outcome
    }

    /// Places `request` now, unless it is to wait behind others.
    fn place_unless_behind(
        self: &Arc<Self>,
        request: &InferenceRequest,
        arrival: &mut Arrival,
        now: Instant,
    ) -> Result<Pick, Hindrance> {
        let gate = &self.gate;
        if gate.is_settling() {
            return Err(Hindrance::Full);
        }
        let scheduling = self.scheduling();
        if !scheduling.flow.while_full || !gate.is_open() {
            return self.place(request, arrival, &Admission::Shed, now);
        }
        let flow = scheduling.flow.clone();
        drop(scheduling);
        let (priority, turn) = (arrival.resolution.priority, arrival.turn);
        if gate.goes_before(priority) {
            return Err(Hindrance::Full);
        }
        let ceiling = |saturation: f64| {
            let mut priorities: Vec<i32> = flow.bands.keys().rev().copied().collect();
            let position = priorities.partition_point(|known| *known > priority);
            if priorities.get(position) != Some(&priority) {
                priorities.insert(position, priority);
            }
            flow.usage.ceiling(position, &priorities, saturation, turn)
        };
        let pick = self.place(request, arrival, &Admission::Ceiling(&ceiling), now)?;
        let series = self.metrics.flow.series(&flow_of(request), priority, &arrival.model, now);
        self.metrics.flow.ended(&series, Outcome::Dispatched, Duration::ZERO);
        Ok(pick)
    }

    async fn wait(self: &Arc<Self>, request: InferenceRequest, arrival: Arrival, now: Instant) -> Result<Pick, Refusal> {
        let flow = flow_of(&request);
        let priority = arrival.resolution.priority;
        let trail = request.trail.clone();
        if let Some(trail) = &trail {
            trail.waits(now);
        }
        let series = self.metrics.flow.series(&flow, priority, &arrival.model, now);
        let entry = Entry {
            priority,
            flow,
            lane: self.lane(&request).clone(),
            bytes: request.body_bytes as u64,
            received: request.received,
            slo: slo_of(&request),
        };
        let outcome = self.gate.enter(entry, Held { request, arrival }, series, now)?.outcome().await;
        if let Some(trail) = &trail {
            trail.waited(Instant::now());
        }
        outcome
    }

    /// The endpoints that `request` may go to.
    pub(super) fn lane<'a>(&self, request: &'a InferenceRequest) -> &'a Subset {
        if self.honour_subset { &request.subset } else { &Subset::All }
    }

    /// Looks once at those who wait, and places some of them.
    fn dispatch_some(self: &Arc<Self>, memory: &mut Memory, now: Instant) -> Look {
        let scheduling = self.scheduling().clone();
        self.gate.reconfigure(&scheduling.flow);
        let Some(view) = self.look(&scheduling, now) else {
            self.gate.refuse_all(Outcome::EvictedOther, &no_pool(), now);
            return Look { next: now + LOOK_AT_LEAST, more: false };
        };
        let View { snapshot, roster, .. } = &*view;
        let is_empty = snapshot.coverage.ready() == 0;
        let outlook = is_empty.then(|| self.outlook(&Subset::All, snapshot));
        if let Some(outlook) = &outlook {
            self.gate.retry_empty_after(outlook.retry_after);
        }
        let expiry = self.gate.expire(is_empty, now);
        let next = expiry.map_or(now + LOOK_AT_LEAST, |expiry| expiry.min(now + LOOK_AT_LEAST));
        if let Some(outlook) = outlook {
            if !std::mem::replace(&mut memory.was_empty, true) {
                info!(pool = %self.pool, "requests wait for the pool's first endpoint");
            }
            memory.settled_at = None;
            self.gate.settle(false);
            if self.is_to_wait(&outlook) {
                memory.hopeless_since = None;
            } else if now.saturating_duration_since(*memory.hopeless_since.get_or_insert(now)) >= HOPE {
                let why = outlook.why.as_deref();
                info!(pool = %self.pool, waiting = self.gate.waiting(), why, "nothing will bring the endpoint that requests wait for");
                self.gate.refuse_all(Outcome::EvictedNoEndpoints, &no_candidates(why, outlook.retry_after), now);
            }
            return Look { next, more: false };
        }
        memory.hopeless_since = None;
        if std::mem::take(&mut memory.was_empty) {
            memory.settled_at = now.checked_add(scheduling.flow.settle);
            self.gate.settle(true);
            info!(pool = %self.pool, waiting = self.gate.waiting(), "the pool has an endpoint: requests that waited for it go on");
        }
        if let Some(at) = memory.settled_at {
            // A crowd that has waited for minutes is not poured out over a server of which nothing is known yet.
            let at = if scheduling.flow.while_full && snapshot.coverage.fresh == 0 { at + FIRST_PAGE } else { at };
            if now < at {
                return Look { next: next.min(at), more: false };
            }
            memory.settled_at = None;
            self.gate.settle(false);
        }
        let more = self.place_batch(&scheduling, snapshot, roster, now);
        self.metrics.flow.looked(Instant::now().saturating_duration_since(now));
        Look { next, more }
    }

    /// Places a batch of those who wait; whether there may be more to place.
    fn place_batch(
        self: &Arc<Self>,
        scheduling: &SchedulingConfig,
        snapshot: &PoolSnapshot,
        roster: &Roster,
        now: Instant,
    ) -> bool {
        for _ in 0..BATCH {
            let turn = self.gate.next(&mut |lane| self.fullness_of(lane, scheduling, snapshot, roster));
            let Some((id, mut queued)) = turn else { return false };
            let Held { request, arrival } = &mut queued.value.what;
            // Who waited while the pool was full has its turn now; who waited for an endpoint is treated as if it came now.
            let anyhow = |_: f64| f64::INFINITY;
            let admission = if scheduling.flow.while_full { Admission::Ceiling(&anyhow) } else { Admission::Shed };
            let placed = catch_unwind(AssertUnwindSafe(|| self.place(request, arrival, &admission, now)));
            let answer = match placed {
                Ok(Ok(pick)) => {
                    self.rewritten(arrival);
                    Some(Ok(pick))
                }
                Ok(Err(Hindrance::Refused(refusal))) => Some(Err(refusal)),
                // Its endpoints went just now.
                Ok(Err(Hindrance::Full | Hindrance::Empty(_))) => {
                    self.gate.restore(id, queued);
                    return true;
                }
                Err(_panic) => {
                    error!(pool = %self.pool, "the picker panicked over a request that waited, answered 500");
                    None
                }
            };
            self.gate.answer(queued, answer, now);
        }
        true
    }

    /// How full the endpoints of `lane` are, as far as it keeps requests waiting.
    fn fullness_of(&self, lane: &Subset, scheduling: &SchedulingConfig, snapshot: &PoolSnapshot, roster: &Roster) -> f64 {
        Scratch::with(|scratch| {
            let candidates = &mut scratch.candidates;
            self.candidates(lane, snapshot, roster, &HashMap::new(), candidates);
            if candidates.is_empty() {
                f64::INFINITY
            } else if scheduling.flow.while_full {
                scheduling.detector.expected_saturation(candidates).of_lane()
            } else {
                f64::NEG_INFINITY
            }
        })
    }

    fn rewritten(&self, arrival: &Arrival) {
        if let Some(rewrite) = &arrival.resolution.rewritten_by {
            self.metrics.rewritten(rewrite, &arrival.model);
        }
    }
}

/// The flow of `request`.
fn flow_of(request: &InferenceRequest) -> Arc<str> {
    request.fairness.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| DEFAULT_FLOW.into())
}

/// What a request is told that finds no endpoint and is not to wait.
fn nobody(arrival: &Arrival, outlook: &Outlook) -> Refusal {
    if arrival.resolution.priority < 0 { shed() } else { no_candidates(outlook.why.as_deref(), outlook.retry_after) }
}
