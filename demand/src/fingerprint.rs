//! What a pool's servers are: what is learned of them is true of such servers only.
//!
//! They are told apart by what their pages say, the engine and the models, and where discovery knows pods by the image and the devices
//! (GPUs) of the container that serves. Arguments are not read: who changes those alone deletes what was learned, or waits for it to be
//! learned anew, which begins with the first full replica.

use std::collections::{BTreeMap, BTreeSet};

use weir_datastore::{EndpointLoad, EndpointState, EndpointView, PoolSnapshot};

/// Longest name of engine and models in characters; with the image it stays below what a document may have.
const LONGEST: usize = 100;
/// Between engine and models, and what stands for image and devices.
const BETWEEN: &str = " @";

/// What most of the pool's ready endpoints are, by their last pages; none while there are none. As long as one of them still is what
/// they all were `before`, they are that: during a rollout, and where two kinds share a pool.
pub fn fingerprint(snapshot: &PoolSnapshot, before: &str) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let ready = snapshot.endpoints.iter().filter(|view| view.endpoint.spec.state == EndpointState::Ready);
    for (view, load) in ready.filter_map(|view| Some((view, view.status.load.as_deref()?))) {
        *counts.entry(servers(view, load)).or_default() += 1;
    }
    if counts.contains_key(before) {
        return Some(before.to_owned());
    }
    let most = counts.values().copied().max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(servers, _)| servers)
}

/// Whether what was learned of `kept` is true of `servers`: of the same, or it does not say of which image, as what is written by hand
/// or was learned without a cluster.
pub fn is_of(kept: &str, servers: &str) -> bool {
    kept == servers || !kept.contains(BETWEEN) && servers.split_once(BETWEEN).is_some_and(|(named, _)| named == kept)
}

fn servers(view: &EndpointView, load: &EndpointLoad) -> String {
    let models: BTreeSet<&str> = load.units.iter().filter_map(|unit| unit.model.as_deref()).collect();
    let mut name = load.engine.name().to_owned();
    for (position, model) in models.into_iter().enumerate() {
        name.push(if position == 0 { ':' } else { ',' });
        name.extend(model.chars().filter(|character| !character.is_control()).take(LONGEST));
    }
    let name: String = name.chars().take(LONGEST).collect();
    match &*view.endpoint.spec.serves_with {
        "" => name,
        serves_with => format!("{name}{BETWEEN}{:016x}", hash(serves_with)),
    }
}

/// FNV-1a: the same in every version of weir, since it is kept.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_say_of_which_image_is_true_of_all() {
        assert!(is_of("vllm:m", "vllm:m") && is_of("vllm:m", "vllm:m @0123456789abcdef"));
        assert!(!is_of("vllm:m @0123456789abcdef", "vllm:m") && !is_of("vllm:m @1", "vllm:m @2") && !is_of("vllm:n", "vllm:m @1"));
    }

    #[test]
    fn the_hash_is_that_of_its_source() {
        // Test vectors of the algorithm's authors.
        assert_eq!((hash(""), hash("a"), hash("foobar")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8));
    }
}
