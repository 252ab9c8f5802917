//! What users say about a pool's requests: objectives, rewrites, models, of whichever group counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::core::DynamicObject;
use tokio::sync::watch;
use weir_k8s::{FieldProblem, InferenceModel, InferenceModelRewrite, InferenceObjective, RequestResource};

use super::follow::Change;
use super::problems::Problem;

/// The objects of the scope that speak of requests, each kind by namespace and name. Objects of all pools are there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestRules {
    /// InferenceObjectives.
    pub objectives: Vec<Arc<InferenceObjective>>,
    /// InferenceModelRewrites.
    pub rewrites: Vec<Arc<InferenceModelRewrite>>,
    /// InferenceModels.
    pub models: Vec<Arc<InferenceModel>>,
}

/// One good object.
#[derive(Clone, Debug)]
enum Rule {
    Objective(Arc<InferenceObjective>),
    Rewrite(Arc<InferenceModelRewrite>),
    Model(Arc<InferenceModel>),
}

impl RequestRules {
    /// Adds the object that is of `resource`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, resource: RequestResource, object: &DynamicObject) -> Result<(), Vec<FieldProblem>> {
        self.insert(Rule::read(resource, object)?);
        Ok(())
    }

    fn insert(&mut self, rule: Rule) {
        match rule {
            Rule::Objective(objective) => self.objectives.push(objective),
            Rule::Rewrite(rewrite) => self.rewrites.push(rewrite),
            Rule::Model(model) => self.models.push(model),
        }
    }
}

impl Rule {
    fn read(resource: RequestResource, object: &DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        match resource {
            RequestResource::ObjectiveLlmd | RequestResource::Objective => {
                InferenceObjective::read(object).map(|objective| Self::Objective(Arc::new(objective)))
            }
            RequestResource::RewriteLlmd | RequestResource::Rewrite => {
                InferenceModelRewrite::read(object).map(|rewrite| Self::Rewrite(Arc::new(rewrite)))
            }
            RequestResource::Model => InferenceModel::read(object).map(|model| Self::Model(Arc::new(model))),
        }
    }
}

/// An object as a watch tells of it.
#[derive(Debug)]
pub(super) struct RuleFacts {
    key: (Arc<str>, Arc<str>),
    uid: Arc<str>,
    read: Result<Rule, Vec<FieldProblem>>,
}

impl RuleFacts {
    pub(super) fn of(resource: RequestResource, object: &DynamicObject) -> Self {
        let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
        let metadata = &object.metadata;
        Self {
            key: (text(&metadata.namespace), text(&metadata.name)),
            uid: text(&metadata.uid),
            read: Rule::read(resource, object),
        }
    }
}

#[derive(Debug)]
struct Entry {
    uid: Arc<str>,
    /// The last version of it that was good.
    good: Option<Rule>,
    /// What of the present version is wrong.
    problems: Vec<FieldProblem>,
}

/// The objects of one resource.
#[derive(Debug, Default)]
struct Kind {
    known: BTreeMap<(Arc<str>, Arc<str>), Entry>,
    /// Whether there was any answer, a refusal among them.
    answered: bool,
    listed: bool,
    /// Answers in a row that it is not served.
    absences: u32,
}

/// The objects of the scope.
#[derive(Debug)]
pub(super) struct Rules {
    kinds: BTreeMap<RequestResource, Kind>,
    changed: bool,
    handed_over: watch::Sender<Arc<RequestRules>>,
}

impl Rules {
    /// None that are followed yet; of `resources` an answer is waited for.
    pub(super) fn new(resources: &[RequestResource], handed_over: watch::Sender<Arc<RequestRules>>) -> Self {
        let kinds = resources.iter().map(|resource| (*resource, Kind::default())).collect();
        Self { kinds, changed: false, handed_over }
    }

    /// Whether each resource was listed, or is known not to be served or readable.
    pub(super) fn answered(&self) -> bool {
        self.kinds.values().all(|kind| kind.answered)
    }

    pub(super) fn sizes(&self) -> impl Iterator<Item = (RequestResource, usize)> {
        self.kinds.iter().map(|(resource, kind)| (*resource, kind.known.len()))
    }

    pub(super) fn apply(&mut self, resource: RequestResource, change: Change<RuleFacts>) {
        let kind = self.kinds.entry(resource).or_default();
        kind.answered = true;
        self.changed = true;
        if !matches!(change, Change::Absent) {
            kind.absences = 0;
        }
        match change {
            Change::All(all) => {
                let mut before = std::mem::take(&mut kind.known);
                kind.listed = true;
                for facts in all {
                    let old = before.remove(&facts.key);
                    kind.known.insert(facts.key.clone(), Entry::of(facts, old));
                }
            }
            Change::Applied(facts) => {
                let old = kind.known.remove(&facts.key);
                kind.known.insert(facts.key.clone(), Entry::of(facts, old));
            }
            Change::Deleted(facts) => drop(kind.known.remove(&facts.key)),
            Change::Absent => {
                kind.absences = kind.absences.saturating_add(1);
                // Said once it may be an API server that has just begun.
                if kind.absences > 1 {
                    kind.known.clear();
                    kind.listed = false;
                }
            }
            // What was known last stays.
            Change::Forbidden => {}
        }
    }

    /// Hands all over if anything has changed; everything that is wrong with the objects that count.
    pub(super) fn publish(&mut self) -> Option<BTreeSet<Problem>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut rules = RequestRules::default();
        let mut problems = BTreeSet::new();
        for (resource, kind) in self.kinds.iter().filter(|(resource, _)| self.counts(**resource)) {
            for ((namespace, name), entry) in &kind.known {
                entry.good.iter().cloned().for_each(|rule| rules.insert(rule));
                let way = if entry.good.is_some() { "the last good version stays" } else { "it is left out" };
                problems.extend(entry.problems.iter().map(|problem| Problem {
                    code: None,
                    object: format!("{} {namespace}/{name} ({})", resource.kind(), resource.name()),
                    field: problem.field.clone(),
                    message: format!("{}; {way}", problem.message),
                }));
            }
        }
        self.handed_over.send_if_modified(|known| {
            let changed = **known != rules;
            if changed {
                *known = Arc::new(rules);
            }
            changed
        });
        Some(problems)
    }

    /// The objects of the older group count where the newer one is not served.
    fn counts(&self, resource: RequestResource) -> bool {
        let listed = |resource| self.kinds.get(&resource).is_some_and(|kind| kind.listed);
        match resource {
            RequestResource::Objective => !listed(RequestResource::ObjectiveLlmd),
            RequestResource::Rewrite => !listed(RequestResource::RewriteLlmd),
            RequestResource::ObjectiveLlmd | RequestResource::RewriteLlmd | RequestResource::Model => true,
        }
    }
}

impl Entry {
    /// What becomes of `old` by `facts`.
    fn of(facts: RuleFacts, old: Option<Self>) -> Self {
        let RuleFacts { uid, read, .. } = facts;
        match read {
            Ok(rule) => Self { uid, good: Some(rule), problems: Vec::new() },
            // Of the same object, not of a namesake before it.
            Err(problems) => Self { good: old.filter(|old| old.uid == uid).and_then(|old| old.good), uid, problems },
        }
    }
}
