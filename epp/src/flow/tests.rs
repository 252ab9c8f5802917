//! The queue against a simple model, and what it promises about fairness, memory and blocked heads.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::*;
use crate::inference::Subset;

const SECOND: Duration = Duration::from_secs(1);

fn lane(index: usize) -> Subset {
    let address = |last: usize| (IpAddr::from([10, 0, 0, last as u8]), None);
    if index == 0 { Subset::All } else { Subset::Only(vec![address(index), address(index + 1)].into()) }
}

fn entry(priority: i32, flow: &str, now: Instant) -> Entry {
    Entry { priority, flow: flow.into(), lane: Subset::All, bytes: 1, received: now, slo: None }
}

fn open(_: &Subset) -> f64 {
    0.0
}

/// A list, and every question answered by looking through all of it.
struct Model {
    settings: FlowSettings,
    items: Vec<(u64, Entry, Instant)>,
    last: BTreeMap<i32, Arc<str>>,
    empty: (bool, Instant),
}

impl Model {
    fn fits(&self, entry: &Entry) -> bool {
        let fits = |limit: Option<u64>, used: u64| limit.is_none_or(|limit| used <= limit);
        let band = self.settings.band(entry.priority);
        let sum = |all: bool| {
            let counted = self.items.iter().filter(|(_, other, _)| all || other.priority == entry.priority);
            counted.fold((1, entry.bytes), |(count, bytes), (_, other, _)| (count + 1, bytes + other.bytes))
        };
        let ((count, bytes), (in_band, bytes_in_band)) = (sum(true), sum(false));
        fits(self.settings.most_requests, count)
            && fits(self.settings.most_bytes, bytes)
            && fits(band.most_requests, in_band)
            && fits(band.most_bytes, bytes_in_band)
    }

    fn expire(&mut self, now: Instant) -> Vec<u64> {
        let ttl = if self.empty.0 { self.settings.no_endpoint_ttl } else { self.settings.ttl };
        let Some(ttl) = ttl else { return Vec::new() };
        let since = self.empty.1;
        let (gone, stay) = std::mem::take(&mut self.items).into_iter().partition(|(_, _, at)| (*at).max(since) + ttl <= now);
        self.items = stay;
        let gone: Vec<(u64, Entry, Instant)> = gone;
        self.forget();
        gone.into_iter().map(|(number, _, _)| number).collect()
    }

    /// A band without requests begins anew.
    fn forget(&mut self) {
        let items = &self.items;
        self.last.retain(|priority, _| items.iter().any(|(_, entry, _)| entry.priority == *priority));
    }

    fn next(&mut self, saturation: &dyn Fn(&Subset) -> f64) -> Option<u64> {
        let mut priorities: Vec<i32> = self.items.iter().map(|(_, entry, _)| entry.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut shut: Vec<Subset> = Vec::new();
        for priority in priorities.into_iter().rev() {
            let band = self.settings.band(priority);
            let free = |entry: &Entry| !shut.contains(&entry.lane) && saturation(&entry.lane) < 1.0;
            let last = self.last.get(&priority);
            let best = self.items.iter().filter(|(_, entry, _)| entry.priority == priority && free(entry)).min_by_key(
                |(number, entry, since)| {
                    let due = match band.ordering {
                        Ordering::Fcfs => None,
                        Ordering::Edf => self.settings.ttl.map(|ttl| *since + ttl),
                        Ordering::SloDeadline => entry.slo.map(|slo| entry.received + slo),
                    };
                    let turn = match band.fairness {
                        Fairness::GlobalStrict => None,
                        Fairness::RoundRobin => Some((last.is_some_and(|last| entry.flow <= *last), entry.flow.clone())),
                    };
                    (turn, due.is_none(), due, *number)
                },
            );
            if let Some((number, entry, _)) = best.cloned() {
                if band.fairness == Fairness::RoundRobin {
                    self.last.insert(priority, entry.flow);
                }
                self.items.retain(|(other, _, _)| *other != number);
                self.forget();
                return Some(number);
            }
            let of_band = self.items.iter().filter(|(_, entry, _)| entry.priority == priority);
            shut.extend(of_band.map(|(_, entry, _)| entry.lane.clone()));
        }
        None
    }
}

fn settings_of(rng: &mut StdRng) -> FlowSettings {
    let limit = |rng: &mut StdRng, most: u64| rng.random_bool(0.7).then(|| rng.random_range(1..most));
    let band = |rng: &mut StdRng| BandSettings {
        most_requests: limit(rng, 40),
        most_bytes: limit(rng, 400),
        fairness: [Fairness::GlobalStrict, Fairness::RoundRobin][rng.random_range(0..2)],
        ordering: [Ordering::Fcfs, Ordering::Edf, Ordering::SloDeadline][rng.random_range(0..3)],
    };
    let ttl = |rng: &mut StdRng| rng.random_bool(0.7).then(|| Duration::from_millis(rng.random_range(1..2000)));
    FlowSettings {
        while_full: true,
        most_requests: limit(rng, 80),
        most_bytes: limit(rng, 800),
        ttl: ttl(rng),
        no_endpoint_ttl: ttl(rng),
        bands: (0..3).map(|_| (rng.random_range(-2..3), band(rng))).collect(),
        default_band: band(rng),
        default_negative_band: band(rng),
        ..FlowSettings::default()
    }
}

/// Operations of all runs together; `WEIR_FLOW_OPERATIONS` asks for more.
fn operations() -> usize {
    std::env::var("WEIR_FLOW_OPERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn the_queue_does_what_a_list_would() {
    const RUN: usize = 5000;
    let start = Instant::now();
    let mut served_in_all = 0;
    for run in 0..operations().div_ceil(RUN) {
        let mut rng = StdRng::seed_from_u64(run as u64);
        let mut now = start;
        let settings = settings_of(&mut rng);
        let mut queue: Queue<u64> = Queue::new(Arc::new(settings.clone()), now);
        let mut model = Model { settings, items: Vec::new(), last: BTreeMap::new(), empty: (false, now) };
        let mut ids = BTreeMap::new();
        let mut left = HashSet::new();
        let mut entered = 0_u64;
        for _ in 0..RUN {
            now += Duration::from_millis(rng.random_range(0..20));
            match rng.random_range(0..100) {
                0..45 => {
                    let slo = rng.random_bool(0.5).then(|| Duration::from_millis(rng.random_range(0..500)));
                    let flow = ["a", "b", "c", "d"][rng.random_range(0..4)].into();
                    let (priority, bytes) = (rng.random_range(-2..4), rng.random_range(0..30));
                    let entry = Entry { priority, flow, lane: lane(rng.random_range(0..4)), bytes, received: now, slo };
                    let fits = model.fits(&entry);
                    match queue.enqueue(entry.clone(), entered, now) {
                        Ok(id) => {
                            assert!(fits, "a limit is exceeded by {entry:?}");
                            ids.insert(entered, id);
                            model.items.push((entered, entry, now));
                            entered += 1;
                        }
                        Err((outcome, value)) => {
                            assert!(!fits && value == entered, "{entry:?} was refused");
                            let expected = if model.empty.0 { Outcome::RejectedNoEndpoints } else { Outcome::RejectedCapacity };
                            assert_eq!(outcome, expected);
                        }
                    }
                }
                45..75 => {
                    let full: Vec<bool> = (0..4).map(|_| rng.random_bool(0.4)).collect();
                    let saturation = |of: &Subset| if (0..4).any(|index| full[index] && lane(index) == *of) { 1.0 } else { 0.5 };
                    let expected = model.next(&saturation);
                    let got = queue.next(&mut |lane| saturation(lane));
                    assert_eq!(got.as_ref().map(|(_, queued)| queued.value), expected);
                    if let Some((_, queued)) = got {
                        assert!(left.insert(queued.value), "served twice");
                        served_in_all += 1;
                    }
                }
                75..90 => {
                    let Some(number) = (entered > 0).then(|| rng.random_range(0..entered)) else { continue };
                    let waits = model.items.iter().any(|(other, _, _)| *other == number);
                    assert_eq!(queue.cancel(ids[&number]).map(|queued| queued.value), waits.then_some(number));
                    model.items.retain(|(other, _, _)| *other != number);
                    model.forget();
                    if waits {
                        assert!(left.insert(number));
                    }
                }
                90..97 => {
                    let expected = model.expire(now);
                    let got: Vec<u64> = queue.expire(now).into_iter().map(|(queued, _)| queued.value).collect();
                    assert_eq!(got, expected);
                    assert!(queue.next_expiry().is_none_or(|next| next > now));
                    left.extend(got);
                }
                97..99 => {
                    let empty = rng.random_bool(0.5);
                    queue.pool_is_empty(empty, now);
                    if model.empty.0 != empty {
                        model.empty = (empty, now);
                    }
                }
                _ => {
                    let (id, restored) = match queue.next(&mut open) {
                        Some((id, queued)) => (id, queued),
                        None => continue,
                    };
                    // What turn it is has changed, for the model too.
                    assert_eq!(model_took(&mut model, &restored), restored.value);
                    model.items.push((restored.value, restored.entry.clone(), restored.since));
                    model.items.sort_by_key(|(number, _, _)| *number);
                    queue.restore(id, restored);
                }
            }
            assert_eq!(queue.len(), model.items.len());
            assert_eq!(queue.bytes(), model.items.iter().map(|(_, entry, _)| entry.bytes).sum::<u64>());
        }
        let rest: Vec<u64> = queue.drain().into_iter().map(|queued| queued.value).collect();
        assert_eq!(rest, model.items.iter().map(|(number, _, _)| *number).collect::<Vec<_>>());
        left.extend(rest);
        assert_eq!(left.len() as u64, entered, "some were lost");
        assert!(queue.is_empty() && queue.bytes() == 0 && queue.highest().is_none() && queue.next(&mut open).is_none());
    }
    assert!(served_in_all > operations() / 20, "{served_in_all}");
}

/// Takes the next out of the model as the queue did; its band forgets its turn where it was the last.
fn model_took(model: &mut Model, queued: &Queued<u64>) -> u64 {
    let number = model.next(&|_| 0.0);
    assert_eq!(number, Some(queued.value));
    queued.value
}

fn queue_with(band: BandSettings) -> Queue<usize> {
    let settings = FlowSettings { while_full: true, default_band: band, ..FlowSettings::default() };
    Queue::new(Arc::new(settings), Instant::now())
}

#[test]
fn a_blocked_head_holds_up_neither_other_lanes_nor_is_it_passed_in_its_own() {
    let now = Instant::now();
    let mut queue = queue_with(BandSettings::default());
    let add = |queue: &mut Queue<usize>, priority, at: usize, value| {
        queue.enqueue(Entry { lane: lane(at), ..entry(priority, "f", now) }, value, now).unwrap();
    };
    add(&mut queue, 5, 1, 0);
    add(&mut queue, 5, 2, 1);
    add(&mut queue, 0, 1, 2);
    add(&mut queue, 0, 3, 3);
    let mut full = |of: &Subset| if *of == lane(1) { 1.0 } else { 0.0 };
    let order: Vec<usize> = std::iter::from_fn(|| queue.next(&mut full)).map(|(_, queued)| queued.value).collect();
    assert_eq!(order, [1, 3], "the lane of the blocked head is for nobody of lower priority");
    let order: Vec<usize> = std::iter::from_fn(|| queue.next(&mut open)).map(|(_, queued)| queued.value).collect();
    assert_eq!(order, [0, 2]);
}

#[test]
fn flows_take_turns_however_much_one_of_them_sends() {
    let now = Instant::now();
    for (fairness, expected) in [(Fairness::RoundRobin, ["a", "b", "c", "a", "b", "c", "a"]), (Fairness::GlobalStrict, ["a"; 7])] {
        let mut queue = queue_with(BandSettings { fairness, ..BandSettings::default() });
        for flow in std::iter::repeat_n("a", 100).chain(["b", "b", "c", "c"]) {
            queue.enqueue(entry(0, flow, now), 0, now).unwrap();
        }
        let served: Vec<Arc<str>> = (0..7).map(|_| queue.next(&mut open).unwrap().1.entry.flow).collect();
        assert_eq!(served.iter().map(|flow| &**flow).collect::<Vec<_>>(), expected, "{fairness:?}");
    }
}

#[test]
fn ten_thousand_requests_of_64_kib_against_a_limit_of_bytes() {
    const BODY: u64 = 64 << 10;
    const MOST: u64 = 256 << 20;
    let now = Instant::now();
    let fair = BandSettings { fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let settings = FlowSettings { while_full: true, most_bytes: Some(MOST), default_band: fair, ..FlowSettings::default() };
    let mut queue = Queue::new(Arc::new(settings), now);
    let mut refused = 0;
    for number in 0..10_000_usize {
        let body = bytes::Bytes::from(vec![0_u8; BODY as usize]);
        // One flow sends nine of ten.
        let flow = if number % 10 == 0 { format!("small-{}", number % 4) } else { "greedy".to_owned() };
        let entry = Entry { bytes: BODY, ..entry(i32::from(number % 2 == 0), &flow, now) };
        if let Err((outcome, _body)) = queue.enqueue(entry, body, now) {
            assert_eq!(outcome.refusal(5).reason, Some("rejected-saturated"));
            refused += 1;
        }
        assert!(queue.bytes() <= MOST);
    }
    assert_eq!((queue.len() as u64, refused), (MOST / BODY, 10_000 - (MOST / BODY) as usize));
    let waited = |queue: &Queue<bytes::Bytes>, priority| queue.band(priority).0;
    let (high, low) = (waited(&queue, 1), waited(&queue, 0));
    let served: Vec<Entry> = std::iter::from_fn(|| queue.next(&mut open)).map(|(_, queued)| queued.entry).collect();
    let priorities: Vec<i32> = served.iter().map(|entry| entry.priority).collect();
    assert!(priorities.is_sorted_by(|one, next| one >= next), "the higher band first");
    assert_eq!(served.len() as u64, high + low);
    // As long as the small flows have requests, each of them is served as often as the greedy one.
    let greedy = served.iter().take(300).filter(|entry| *entry.flow == *"greedy").count();
    assert_eq!(greedy, 100);
    assert_eq!((queue.bytes(), queue.len()), (0, 0));
}

#[test]
fn lanes_are_bounded() {
    let now = Instant::now();
    let mut queue = queue_with(BandSettings::default());
    let lane = |index: u16| Subset::Only([(IpAddr::from([10, 0, (index >> 8) as u8, index as u8]), None)].into());
    for index in 0..256 {
        queue.enqueue(Entry { lane: lane(index), ..entry(0, "f", now) }, 0, now).unwrap();
    }
    queue.enqueue(Entry { lane: lane(0), ..entry(0, "f", now) }, 0, now).unwrap();
    let (outcome, _) = queue.enqueue(Entry { lane: lane(256), ..entry(0, "f", now) }, 0, now).unwrap_err();
    assert_eq!(outcome, Outcome::RejectedCapacity);
}

#[test]
fn time_in_the_queue_begins_anew_when_the_pool_becomes_empty() {
    let start = Instant::now();
    let settings = FlowSettings { ttl: Some(10 * SECOND), no_endpoint_ttl: Some(60 * SECOND), ..FlowSettings::default() };
    let mut queue = Queue::new(Arc::new(settings), start);
    queue.enqueue(entry(0, "f", start), 1, start).unwrap();
    assert_eq!(queue.next_expiry(), Some(start + 10 * SECOND));
    queue.pool_is_empty(true, start + 9 * SECOND);
    assert_eq!(queue.next_expiry(), Some(start + 69 * SECOND));
    queue.pool_is_empty(true, start + 60 * SECOND);
    assert!(queue.expire(start + 68 * SECOND).is_empty());
    let expired = queue.expire(start + 69 * SECOND);
    let (queued, outcome) = &expired[0];
    assert_eq!((queued.value, *outcome), (1, Outcome::EvictedNoEndpoints));
    assert_eq!(outcome.refusal(5).reason, Some("rejected-no-endpoints"));
}

#[test]
fn new_settings_reorder_what_waits_and_evict_nobody() {
    let now = Instant::now();
    let mut queue = queue_with(BandSettings::default());
    for (flow, slo) in [("a", 9), ("a", 5), ("b", 7)] {
        let entry = Entry { slo: Some(slo * SECOND), ..entry(0, flow, now) };
        queue.enqueue(entry, slo as usize, now).unwrap();
    }
    let band = BandSettings {
        ordering: Ordering::SloDeadline,
        fairness: Fairness::RoundRobin,
        most_requests: Some(1),
        ..BandSettings::default()
    };
    queue.reconfigure(Arc::new(FlowSettings { default_band: band, ..FlowSettings::default() }));
    assert_eq!((queue.len(), queue.bytes(), queue.band(0)), (3, 3, (3, 3)));
    let order: Vec<usize> = std::iter::from_fn(|| queue.next(&mut open)).map(|(_, queued)| queued.value).collect();
    assert_eq!(order, [5, 7, 9]);
}

#[test]
fn ceilings_of_the_usage_limits() {
    let priorities = [10, 4, 0];
    let of = |limit: UsageLimit, saturation, turn| [0, 1, 2].map(|position| limit.ceiling(position, &priorities, saturation, turn));
    assert_eq!(of(UsageLimit::Static(0.8), 0.5, 0), [0.8; 3]);
    let by = |domain| UsageLimit::Holdback(Holdback { domain, lowest: 0.5, highest: 1.0 });
    assert_eq!(of(by(HoldbackDomain::Rank), 0.5, 0), [1.0, 0.75, 0.5]);
    assert_eq!(of(by(HoldbackDomain::Value), 0.5, 0), [1.0, 0.7, 0.5]);
    assert_eq!(by(HoldbackDomain::Rank).ceiling(0, &[3], 0.5, 0), 1.0);
    // 1 − position · 0.65 / 2: 0.675 and 0.35. The lowest has a turn in every round(0.65 / 0.35) = 2.
    assert_eq!(of(UsageLimit::SoftReflective, 0.65, 1), [1.0, 1.0, 0.0]);
    assert_eq!(of(UsageLimit::SoftReflective, 0.65, 2), [1.0, 1.0, 1.0]);
    assert_eq!(of(UsageLimit::SoftReflective, 0.9, 4), [1.0, 0.0, 0.0]);
    assert_eq!(of(UsageLimit::SoftReflective, 0.9, 9), [1.0, 1.0, 1.0]);
    assert_eq!(of(UsageLimit::SoftReflective, 1.0, 9), [1.0, 0.0, 0.0]);
    assert_eq!(UsageLimit::SoftReflective.ceiling(0, &[3], 0.9, 1), 1.0);
}
