//! What the plugins of a configuration need of whoever runs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_saphyr::Location;

use crate::scheduling::prefix::PrefixSettings;
use crate::scheduling::topology::{TopologyFact, TopologyLabels};
use crate::scheduling::{LabelFact, NoteBit};

/// A place in the configuration.
#[derive(Clone, Debug)]
pub(in crate::scheduling) struct Place {
    pub(super) at: Location,
    pub(super) field: String,
}

/// A plugin that another one names.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) name: Arc<str>,
    /// Its type.
    pub(super) kind: &'static str,
    pub(super) place: Place,
}

/// What the plugins of a configuration need.
#[derive(Debug, Default)]
pub(in crate::scheduling) struct Needs {
    /// What is read of endpoints' labels.
    pub(super) facts: Vec<Arc<dyn LabelFact>>,
    /// Headers that requests are to carry.
    pub(super) headers: Vec<Arc<str>>,
    /// Whether anybody asks which endpoint has the request's prefix.
    pub(super) prefix: bool,
    /// How prompts are remembered, by the parameters of a scorer.
    pub(super) prefix_settings: Option<PrefixSettings>,
    pub(super) references: Vec<Reference>,
    notes: usize,
    topology: TopologyLabels,
    topology_at: Option<usize>,
}

impl Default for Place {
    /// Nowhere.
    fn default() -> Self {
        Self { at: Location::UNKNOWN, field: String::new() }
    }
}

impl Needs {
    pub(super) fn fact(&mut self, fact: Arc<dyn LabelFact>) -> usize {
        self.facts.push(fact);
        self.facts.len() - 1
    }

    pub(super) fn header(&mut self, name: &str) -> Arc<str> {
        let name = name.trim().to_ascii_lowercase();
        if let Some(known) = self.headers.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.headers.push(name.clone());
        name
    }

    pub(super) fn note(&mut self) -> Option<NoteBit> {
        let bit = NoteBit::at(self.notes)?;
        self.notes += 1;
        Some(bit)
    }

    /// Somebody asks which endpoint has the request's prefix.
    pub(in crate::scheduling) fn prefix(&mut self) {
        self.prefix = true;
    }

    /// The position of the first of the facts of where an endpoint is.
    pub(in crate::scheduling) fn topology(&mut self) -> usize {
        if let Some(at) = self.topology_at {
            return at;
        }
        let at = self.facts.len();
        self.facts.extend(TopologyFact::of_each_level(&self.topology));
        self.topology_at = Some(at);
        at
    }

    /// The labels that say where an endpoint is, in place of those before.
    pub(in crate::scheduling) fn topology_labels(&mut self, labels: TopologyLabels) {
        if let Some(at) = self.topology_at {
            for (fact, changed) in self.facts.iter_mut().skip(at).zip(TopologyFact::of_each_level(&labels)) {
                *fact = changed;
            }
        }
        self.topology = labels;
    }
}

/// What `facts` read from `labels`, in their order.
pub(crate) fn facts_of(facts: &[Arc<dyn LabelFact>], labels: &BTreeMap<String, String>) -> Box<[u64]> {
    facts.iter().map(|fact| fact.of(labels)).collect()
}
