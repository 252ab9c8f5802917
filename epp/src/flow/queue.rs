//! Who waits, and whose turn it is. Pure: the clock is an argument.
//!
//! Every operation takes logarithmic time in what waits, times the lanes for [`Queue::next`]. Bands, lanes and flows are there
//! only while something waits in them, so that the limits bound the memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fairness::{Head, Line};
use super::ordering::{Deadline, Key};
use super::{FlowSettings, Outcome};
use crate::inference::Subset;

/// Lanes at once: gateways send the same few subsets over and over.
const MOST_LANES: usize = 256;

/// Names a request that waits. Later ones are greater.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id(u64);

/// What the queue knows of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its band.
    pub priority: i32,
    /// Its flow: the fairness id.
    pub flow: Arc<str>,
    /// Its lane: where it may go.
    pub lane: Subset,
    /// Bytes of its body.
    pub bytes: u64,
    /// When it came.
    pub received: Instant,
    /// How long after that its first token is due, if it says so.
    pub slo: Option<Duration>,
}

/// A request that waits, or has waited.
#[derive(Debug)]
pub struct Queued<T> {
    /// What the queue knows of it.
    pub entry: Entry,
    /// What is to be done with it.
    pub value: T,
    /// Since when it waits.
    pub since: Instant,
    deadline: Deadline,
}

/// The requests of one priority.
#[derive(Debug, Default)]
struct Band {
    lanes: BTreeMap<Subset, Box<dyn Line>>,
    /// The flow whose turn it was last.
    last: Option<Arc<str>>,
    requests: u64,
    bytes: u64,
}

/// Requests that wait.
#[derive(Debug)]
pub struct Queue<T> {
    settings: Arc<FlowSettings>,
    /// By number, which is the order in which they came.
    items: BTreeMap<u64, Queued<T>>,
    bands: BTreeMap<i32, Band>,
    /// Requests in each lane, over all bands.
    lanes: BTreeMap<Subset, u64>,
    /// Of the bands with settings of their own or requests, the highest first.
    priorities: Vec<i32>,
    bytes: u64,
    number: u64,
    /// Calls of [`Queue::next`].
    turn: u64,
    /// Whether the pool has no endpoint, and since when that is so, or not so.
    empty: (bool, Instant),
}

impl<T> Queue<T> {
    /// An empty queue.
    pub fn new(settings: Arc<FlowSettings>, now: Instant) -> Self {
        let mut queue = Self {
            settings,
            items: BTreeMap::new(),
            bands: BTreeMap::new(),
            lanes: BTreeMap::new(),
            priorities: Vec::new(),
            bytes: 0,
            number: 0,
            turn: 0,
            empty: (false, now),
        };
        queue.list_priorities();
        queue
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of their bodies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Requests that wait in the band of `priority`, and their bytes.
    pub fn band(&self, priority: i32) -> (u64, u64) {
        self.bands.get(&priority).map_or((0, 0), |band| (band.requests, band.bytes))
    }

    /// The highest priority that waits.
    pub fn highest(&self) -> Option<i32> {
        self.bands.last_key_value().map(|(priority, _)| *priority)
    }

    /// What it runs by.
    pub fn settings(&self) -> &Arc<FlowSettings> {
        &self.settings
    }

    /// Adds a request that begins to wait at `now`, or hands it back where a limit is reached.
    ///
    /// # Errors
    /// Why it cannot wait, and what was to be done with it.
    pub fn enqueue(&mut self, entry: Entry, value: T, now: Instant) -> Result<Id, (Outcome, T)> {
        if !self.has_room(&entry) {
            let outcome = if self.empty.0 { Outcome::RejectedNoEndpoints } else { Outcome::RejectedCapacity };
            return Err((outcome, value));
        }
        let deadline = self.settings.band(entry.priority).ordering.deadline(&entry, now, self.settings.ttl);
        let number = self.number;
        self.number += 1;
        self.add(number, Queued { entry, value, since: now, deadline });
        Ok(Id(number))
    }

    /// Puts back what [`Self::next`] gave, at its old place and whatever the limits.
    pub fn restore(&mut self, Id(number): Id, queued: Queued<T>) {
        self.add(number, queued);
    }

    /// Takes out a request; none where it waits no more.
    pub fn cancel(&mut self, Id(number): Id) -> Option<Queued<T>> {
        self.remove(number)
    }

    /// Tells whether the pool has no endpoint: times in the queue are others then.
    pub fn pool_is_empty(&mut self, empty: bool, now: Instant) {
        if self.empty.0 != empty {
            self.empty = (empty, now);
        }
    }

    /// When the next request has waited as long as it may.
    pub fn next_expiry(&self) -> Option<Instant> {
        let (_, oldest) = self.items.first_key_value()?;
        self.expiry(oldest)
    }

    /// Takes out all that have waited as long as they may.
    pub fn expire(&mut self, now: Instant) -> Vec<(Queued<T>, Outcome)> {
        let outcome = if self.empty.0 { Outcome::EvictedNoEndpoints } else { Outcome::EvictedTtl };
        let mut expired = Vec::new();
        // All may wait equally long, so the oldest are first.
        while let Some((number, oldest)) = self.items.first_key_value()
            && self.expiry(oldest).is_some_and(|end| end <= now)
        {
            let number = *number;
            expired.extend(self.remove(number).map(|queued| (queued, outcome)));
        }
        expired
    }

    /// Takes out the request whose turn it is; none where every lane in which some wait is too full for them.
    ///
    /// `saturation` tells how full the endpoints of a lane are: 1 is full, infinite where there are none, below 0 where nobody knows.
    pub fn next(&mut self, saturation: &mut dyn FnMut(&Subset) -> f64) -> Option<(Id, Queued<T>)> {
        self.turn += 1;
        let mut known: BTreeMap<&Subset, f64> = BTreeMap::new();
        let mut shut: Vec<&Subset> = Vec::new();
        let mut found: Option<(i32, Head)> = None;
        for (priority, band) in self.bands.iter().rev() {
            let position = self.priorities.iter().position(|known| known == priority).unwrap_or(0);
            let mut best: Option<Head> = None;
            for (lane, line) in &band.lanes {
                if shut.contains(&lane) {
                    continue;
                }
                let full = *known.entry(lane).or_insert_with(|| saturation(lane));
                if full >= self.settings.usage.ceiling(position, &self.priorities, full, self.turn) {
                    // Nobody of lower priority is to take the room that this one waits for.
                    shut.push(lane);
                    continue;
                }
                let head = line.head(band.last.as_ref());
                best = best.into_iter().chain(head).min();
            }
            if let Some(head) = best {
                found = Some((*priority, head));
                break;
            }
        }
        let (priority, Head { turn, key: (_, number) }) = found?;
        if let Some(band) = self.bands.get_mut(&priority) {
            band.last = turn.map(|(_, flow)| flow);
        }
        self.remove(number).map(|queued| (Id(number), queued))
    }

    /// Takes out everything, as it came.
    pub fn drain(&mut self) -> Vec<Queued<T>> {
        self.bands.clear();
        self.lanes.clear();
        self.bytes = 0;
        self.list_priorities();
        std::mem::take(&mut self.items).into_values().collect()
    }

    /// Runs by `settings` from now on. What waits goes on waiting, above new limits too.
    pub fn reconfigure(&mut self, settings: Arc<FlowSettings>) {
        self.settings = settings;
        let items = std::mem::take(&mut self.items);
        drop(self.drain());
        for (number, mut queued) in items {
            let ordering = self.settings.band(queued.entry.priority).ordering;
            queued.deadline = ordering.deadline(&queued.entry, queued.since, self.settings.ttl);
            self.add(number, queued);
        }
    }

    fn expiry(&self, queued: &Queued<T>) -> Option<Instant> {
        let (empty, since) = self.empty;
        let ttl = if empty { self.settings.no_endpoint_ttl } else { self.settings.ttl }?;
        queued.since.max(since).checked_add(ttl)
    }

    fn has_room(&self, entry: &Entry) -> bool {
        let fits = |limit: Option<u64>, used: u64, more: u64| limit.is_none_or(|limit| used.saturating_add(more) <= limit);
        let band = self.settings.band(entry.priority);
        let (requests, bytes) = self.band(entry.priority);
        fits(self.settings.most_requests, self.items.len() as u64, 1)
            && fits(self.settings.most_bytes, self.bytes, entry.bytes)
            && fits(band.most_requests, requests, 1)
            && fits(band.most_bytes, bytes, entry.bytes)
            && (self.lanes.len() < MOST_LANES || self.lanes.contains_key(&entry.lane))
    }

    fn add(&mut self, number: u64, queued: Queued<T>) {
        let Entry { priority, flow, lane, bytes, .. } = &queued.entry;
        let fairness = self.settings.band(*priority).fairness;
        let new = !self.bands.contains_key(priority);
        let band = self.bands.entry(*priority).or_default();
        band.requests += 1;
        band.bytes += bytes;
        band.lanes.entry(lane.clone()).or_insert_with(|| fairness.line()).add(flow, key(number, &queued));
        *self.lanes.entry(lane.clone()).or_default() += 1;
        self.bytes += bytes;
        self.items.insert(number, queued);
        if new {
            self.list_priorities();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Queued<T>> {
        let queued = self.items.remove(&number)?;
        let Entry { priority, flow, lane, bytes, .. } = &queued.entry;
        self.bytes -= bytes;
        if let Some(others) = self.lanes.get_mut(lane) {
            *others -= 1;
            if *others == 0 {
                self.lanes.remove(lane);
            }
        }
        if let Some(band) = self.bands.get_mut(priority) {
            band.requests -= 1;
            band.bytes -= bytes;
            if let Some(line) = band.lanes.get_mut(lane) {
                line.remove(flow, key(number, &queued));
                if line.head(None).is_none() {
                    band.lanes.remove(lane);
                }
            }
            if band.requests == 0 {
                self.bands.remove(priority);
                self.list_priorities();
            }
        }
        Some(queued)
    }

    fn list_priorities(&mut self) {
        let mut priorities: Vec<i32> = self.settings.bands.keys().chain(self.bands.keys()).copied().collect();
        priorities.sort_unstable_by(|one, other| other.cmp(one));
        priorities.dedup();
        self.priorities = priorities;
    }
}

fn key<T>(number: u64, queued: &Queued<T>) -> Key {
    (queued.deadline, number)
}
