//! The kinds of plugin. Each is one small trait; how to add one is in `docs/plugins.md`. The one that says which profiles run is in
//! [`super::handlers`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::candidate::{Candidate, SchedulingRequest};
use super::handlers::Placement;

/// Takes endpoints away that must not have the request.
pub trait Filter: fmt::Debug + Send + Sync {
    /// Removes candidates. What is left keeps its order unless the filter means an order.
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, rng: &mut dyn Rng);
}

/// Says how well each endpoint suits the request.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// Writes a score from 0 to 1 for each of `candidates` into `scores`, which has the same length and holds `None`.
    ///
    /// `None` is for "not known": such a candidate gets the lowest score that another one has, and so is never better than one
    /// that is known.
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]);
}

/// Chooses among the scored.
pub trait Picker: fmt::Debug + Send + Sync {
    /// How many endpoints to choose at most: the first gets the request, the others are for the gateway to fall back on.
    fn most(&self) -> usize;

    /// Appends the positions of up to `most` of `totals` to `picked`, best first, each at most once.
    fn pick(&self, totals: &[f64], most: usize, rng: &mut dyn Rng, picked: &mut Vec<usize>);
}

/// Says whether a request is to be placed at all, before anything else is asked.
pub trait Admitter: fmt::Debug + Send + Sync {
    /// Refuses the request by saying why.
    ///
    /// # Errors
    /// Why it is refused.
    fn admit(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], rng: &mut dyn Rng) -> Result<(), String>;
}

/// Says whether a stage of a request is worth an endpoint of its own.
pub trait Decider: fmt::Debug + Send + Sync {
    /// Whether it is, where `decode` was chosen to generate; none where that is not chosen yet.
    fn disaggregates(&self, request: &SchedulingRequest<'_>, decode: Option<&Candidate<'_>>) -> bool;
}

/// Learns where requests go.
pub trait Learner: fmt::Debug + Send + Sync {
    /// `request` goes there. What the response is to say besides is added to `response_headers`: name in lower case, value.
    fn placed(&self, request: &SchedulingRequest<'_>, placement: &Placement<'_>, response_headers: &mut Vec<(Arc<str>, String)>);
}

/// Reads an endpoint's labels for a plugin, once whenever the endpoints change, so that no request looks labels up.
pub trait LabelFact: fmt::Debug + Send + Sync {
    /// What the plugin wants to know: [`Candidate::facts`] has it at the position that the plugin was given.
    fn of(&self, labels: &BTreeMap<String, String>) -> u64;
}

/// Where a plugin is called: the label `extension_point` of its metric.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ExtensionPoint {
    /// A filter.
    Filter,
    /// A scorer.
    Scorer,
    /// A picker.
    Picker,
    /// An admitter.
    Admit,
    /// What learns of the choice.
    PreRequest,
}

impl ExtensionPoint {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Filter => "Filter",
            Self::Scorer => "Scorer",
            Self::Picker => "Picker",
            Self::Admit => "AdmitRequest",
            Self::PreRequest => "PreRequest",
        }
    }
}

/// A plugin's type and name, as configured.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PluginName {
    /// Its type: upstream's.
    pub kind: &'static str,
    /// Its name in the configuration; the type where none was given.
    pub name: Arc<str>,
}

impl PluginName {
    /// A plugin that has its type's name.
    pub fn of_type(kind: &'static str) -> Self {
        Self { kind, name: kind.into() }
    }
}

/// Is told how long each plugin took.
pub trait Observer {
    /// `plugin` was called at `point`.
    fn plugin_ran(&self, point: ExtensionPoint, plugin: &PluginName, took: Duration);
}

/// Wants to know nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn plugin_ran(&self, _point: ExtensionPoint, _plugin: &PluginName, _took: Duration) {}
}
