//! What a pool's servers are: what is learned of them is true of such servers only.
//!
//! Discovery reads neither images nor arguments nor kinds of GPU, so servers are told apart by what their pages say: the engine and the
//! models. Who changes the GPU under a model deletes what was learned, or waits for it to be learned anew, which begins with the first
//! full replica.

use std::collections::{BTreeMap, BTreeSet};

use weir_datastore::{EndpointLoad, EndpointState, PoolSnapshot};

/// Longest name in characters.
const LONGEST: usize = 120;

/// Engine and models of most of the pool's ready endpoints, by their last pages; none while there are none. As long as one of them still is
/// what they all were `before`, they are that: during a rollout, and where two kinds share a pool.
pub fn fingerprint(snapshot: &PoolSnapshot, before: &str) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let ready = snapshot.endpoints.iter().filter(|view| view.endpoint.spec.state == EndpointState::Ready);
    for load in ready.filter_map(|view| view.status.load.as_deref()) {
        *counts.entry(servers(load)).or_default() += 1;
    }
    if counts.contains_key(before) {
        return Some(before.to_owned());
    }
    let most = counts.values().copied().max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(servers, _)| servers)
}

fn servers(load: &EndpointLoad) -> String {
    let models: BTreeSet<&str> = load.units.iter().filter_map(|unit| unit.model.as_deref()).collect();
    let mut name = load.engine.name().to_owned();
    for (position, model) in models.into_iter().enumerate() {
        name.push(if position == 0 { ':' } else { ',' });
        name.extend(model.chars().filter(|character| !character.is_control()).take(LONGEST));
    }
    name.chars().take(LONGEST).collect()
}
