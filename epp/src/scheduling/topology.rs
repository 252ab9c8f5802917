//! Where endpoints are, by their labels, and how near to each other: `topology-extractor`, and what filter and scorer share.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::config::Parameters;
use super::{Candidate, LabelFact, SchedulingRequest};

/// How near two endpoints are: the narrowest place that they share.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Nearness {
    /// The host.
    Host,
    /// The rack.
    Rack,
    /// The zone.
    Zone,
    /// The region.
    Region,
    /// None that anybody knows of.
    Apart,
}

/// From the narrowest to the widest, as upstream calls them.
pub(super) const LEVELS: [(&str, Nearness); 4] =
    [("host", Nearness::Host), ("rack", Nearness::Rack), ("zone", Nearness::Zone), ("region", Nearness::Region)];

/// The labels that say where an endpoint is, from the narrowest place to the widest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TopologyLabels([String; 4]);

impl Default for TopologyLabels {
    /// Upstream's.
    fn default() -> Self {
        Self(DEFAULTS.map(|(_, label)| label.to_owned()))
    }
}

/// Parameters of `topology-extractor` and their defaults.
const DEFAULTS: [(&str, &str); 4] = [
    ("hostname", "kubernetes.io/hostname"),
    ("rack", "topology.kubernetes.io/rack"),
    ("zone", "topology.kubernetes.io/zone"),
    ("region", "topology.kubernetes.io/region"),
];

impl TopologyLabels {
    pub(super) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        Self(DEFAULTS.map(|(name, label)| parameters.text(name).unwrap_or_else(|| label.to_owned())))
    }
}

/// A label's value as a number: the same for the same value, 0 where it is not there or empty.
#[derive(Debug)]
pub(super) struct TopologyFact(String);

impl TopologyFact {
    pub(super) fn of_each_level(labels: &TopologyLabels) -> [Arc<dyn LabelFact>; 4] {
        labels.0.clone().map(|label| Arc::new(Self(label)) as Arc<dyn LabelFact>)
    }
}

impl LabelFact for TopologyFact {
    fn of(&self, labels: &BTreeMap<String, String>) -> u64 {
        labels.get(&self.0).filter(|value| !value.is_empty()).map_or(0, |value| xxh64(value.as_bytes(), 0).max(1))
    }
}

/// How near `candidate` is to the request's peer, by the facts from position `first` on; none where there is no peer whose place is
/// known.
pub(super) fn nearness(request: &SchedulingRequest<'_>, candidate: &Candidate<'_>, first: usize) -> Option<Nearness> {
    let peer = request.peer?.get(first..first + LEVELS.len())?;
    if peer.iter().all(|place| *place == 0) {
        return None;
    }
    let shared = |(position, place): (usize, &u64)| *place != 0 && *place == candidate.fact(first + position);
    let level = peer.iter().enumerate().position(shared);
    Some(level.map_or(Nearness::Apart, |level| LEVELS[level].1))
}
