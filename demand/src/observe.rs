//! One second of a pool: a snapshot as the level's input.
//!
//! A replica is a pod: the ranks of one count together. What nobody can read stays unknown.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::{EndpointLoad, EndpointSpec, EndpointState, EndpointView, PoolSnapshot, StartPhase, Unknown};
use weir_hpa::required::{Endpoint, Load, Picker, Pickers, Second};

/// For how long a pod is taken to have been ready whose becoming so nobody saw: its counters did not begin just now.
const LONG_READY: Duration = Duration::from_secs(3600);
/// Starts that are told of one second, at most.
const MOST_STARTS: u64 = 100;

/// Names a pod and tells it from its namesake.
type Pod = (Arc<str>, Arc<str>);

/// What is remembered of a pool from one second to the next: as much as it has pods.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Since when pods are ready; none where nobody saw them become so.
    ready: HashMap<Pod, Option<Instant>>,
    /// Starts that were seen, and the seconds they took.
    starts: (u64, f64),
}

/// What the level is to know of `snapshot`; `now` is the same moment since the Unix epoch.
pub fn observe(snapshot: &PoolSnapshot, memory: &mut Memory, now: Duration) -> Second {
    Second {
        now,
        pickers: pickers(snapshot),
        endpoints: Some(endpoints(snapshot, memory)),
        pending: pending(snapshot),
        started: started(snapshot, memory),
    }
}

fn id(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn pickers(snapshot: &PoolSnapshot) -> Pickers {
    match &snapshot.held {
        // One that never told anything holds nothing that anybody counts.
        _ if !snapshot.has_picker => Pickers::None,
        Err(Unknown::NoPicker) => Pickers::None,
        Err(_) => Pickers::Unreadable,
        Ok(_) => {
            let told = snapshot.pickers.iter().filter_map(|picker| Some((id(&picker.name), picker.status.load?)));
            let picker = |(id, load): (u64, weir_datastore::PickerLoad)| Picker {
                id,
                held: load.held.unwrap_or(0) as f64,
                arrivals: load.counted_arrivals().map(|arrivals| arrivals as f64),
                prompt_tokens: load.prompt_tokens.map(|tokens| tokens as f64),
            };
            Pickers::Read(told.map(picker).collect())
        }
    }
}

/// The ready pods.
fn endpoints(snapshot: &PoolSnapshot, memory: &mut Memory) -> Vec<Endpoint> {
    let pod = |spec: &EndpointSpec| (spec.pod.clone(), spec.pod_uid.clone());
    let mut ranks: HashMap<Pod, Vec<&EndpointView>> = HashMap::with_capacity(snapshot.endpoints.len());
    for view in &snapshot.endpoints {
        ranks.entry(pod(&view.endpoint.spec)).or_default().push(view);
    }
    // A pod that is not ready for a while does not begin anew.
    memory.ready.retain(|pod, _| ranks.contains_key(pod));
    let is_ready = |view: &&&EndpointView| view.endpoint.spec.state == EndpointState::Ready;
    let mut endpoints = Vec::with_capacity(ranks.len());
    for (pod, views) in ranks {
        let Some(first) = views.iter().find(is_ready) else { continue };
        let id = id(&pod);
        let seen = first.endpoint.start().map(|_| snapshot.taken_at);
        let since = *memory.ready.entry(pod).or_insert(seen);
        let ready_for = since.map_or(LONG_READY, |since| snapshot.taken_at.saturating_duration_since(since));
        let loads: Option<Vec<Load>> = views.iter().filter(is_ready).map(|view| load(view.fresh_load()?)).collect();
        endpoints.push(Endpoint { id, ready_for, load: loads.map(together) });
    }
    endpoints
}

/// A page; none where it does not say what runs and waits.
fn load(page: &EndpointLoad) -> Option<Load> {
    Some(Load {
        running: page.running?.value,
        waiting: page.waiting?.value,
        // A server that does not tell is never full of it.
        kv: page.kv_cache_utilization.map_or(0.0, |utilization| utilization.value),
        prompt_tokens: page.counters.prompt_tokens,
        generated_tokens: page.counters.generation_tokens,
        first_tokens: page.counters.first_tokens,
        completed: page.counters.completed,
    })
}

/// The ranks of a pod: requests and counters add, utilisations average.
fn together(ranks: Vec<Load>) -> Load {
    let count = ranks.len().max(1) as f64;
    let sum = |value: fn(&Load) -> f64| ranks.iter().map(value).sum::<f64>();
    let counter = |value: fn(&Load) -> Option<f64>| ranks.iter().map(value).sum::<Option<f64>>();
    Load {
        running: sum(|load| load.running),
        waiting: sum(|load| load.waiting),
        kv: sum(|load| load.kv) / count,
        prompt_tokens: counter(|load| load.prompt_tokens),
        generated_tokens: counter(|load| load.generated_tokens),
        first_tokens: counter(|load| load.first_tokens),
        completed: counter(|load| load.completed),
    }
}

/// Pods that will be ready, with an address or without. One that something keeps from it is no promise.
fn pending(snapshot: &PoolSnapshot) -> u32 {
    let hindered: HashSet<&str> = snapshot.hindered().map(|pod| &*pod.pod).collect();
    let mut coming: HashSet<&str> = snapshot.coming().map(|pod| &*pod.pod).collect();
    let unready = snapshot.endpoints.iter().filter(|view| view.endpoint.spec.state == EndpointState::Unready);
    coming.extend(unready.map(|view| &*view.endpoint.spec.pod).filter(|pod| !hindered.contains(pod)));
    let told = snapshot.unready.iter().filter(|pod| pod.pending).count();
    u32::try_from(coming.len() + snapshot.pending.saturating_sub(told)).unwrap_or(u32::MAX)
}

/// How long the starts took that ended since the last second: their mean, as often as there were any.
fn started(snapshot: &PoolSnapshot, memory: &mut Memory) -> Vec<Duration> {
    let all = snapshot.start_histogram(StartPhase::All);
    let (count, sum) = std::mem::replace(&mut memory.starts, (all.count(), all.sum));
    let new = all.count().saturating_sub(count);
    if new == 0 {
        return Vec::new();
    }
    let mean = Duration::try_from_secs_f64((all.sum - sum) / new as f64).unwrap_or_default();
    (0..new.min(MOST_STARTS)).map(|_| mean).collect()
}
