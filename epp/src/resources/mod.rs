//! What users say about requests: which priority an objective has, which model is served in place of another.
//!
//! Plain data, handed in whole over a watch channel by whoever reads it (Kubernetes objects), and pure functions on it. Objects of
//! other pools are left out before they come here.

mod model;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use rand::Rng;

pub use model::{Criticality, InferenceModel};
pub use rewrite::{ModelRewrite, RewriteRule, Target};

use crate::InferenceRequest;

/// The priority of requests that name no objective, or one that there is not.
pub const DEFAULT_PRIORITY: i32 = 0;

/// An InferenceObjective of the pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Objective {
    /// Its name, as requests name it in `x-gateway-inference-objective`.
    pub name: Arc<str>,
    /// Its priority; below 0 requests are shed while the pool is saturated.
    pub priority: i32,
}

/// All that users say about the requests of one pool.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    priorities: HashMap<Arc<str>, i32>,
    rewrites: rewrite::Rewrites,
    models: HashMap<Arc<str>, InferenceModel>,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Resolution {
    /// Its priority.
    pub priority: i32,
    /// The model to be served in place of the one that the body names.
    pub target: Option<Arc<str>>,
    /// The InferenceModelRewrite that said so.
    pub rewritten_by: Option<Arc<str>>,
}

impl Resolution {
    /// The model that is to serve `request`; absent where its body names none and nothing takes one's place.
    pub fn target_model<'a>(&'a self, request: &'a InferenceRequest) -> Option<&'a str> {
        self.target.as_deref().or(request.model.as_deref())
    }
}

impl Resources {
    /// The objects of one pool. Of several that say something about the same, the oldest counts, as upstream has it.
    pub fn new(objectives: Vec<Objective>, rewrites: Vec<ModelRewrite>, models: Vec<InferenceModel>) -> Self {
        let mut by_model: HashMap<Arc<str>, InferenceModel> = HashMap::new();
        for model in models {
            match by_model.get(&model.model_name) {
                Some(older) if older.age_order() <= model.age_order() => {}
                _ => drop(by_model.insert(model.model_name.clone(), model)),
            }
        }
        Self {
            priorities: objectives.into_iter().map(|objective| (objective.name, objective.priority)).collect(),
            rewrites: rewrite::Rewrites::new(rewrites),
            models: by_model,
        }
    }

    /// What becomes of `request`. Targets with weights are drawn by lot.
    ///
    /// The priority is the objective's that the header names, else the one that the model's criticality stands for. The target is
    /// that of the InferenceModelRewrite that matches the body's model, else the one a header asks for, else the InferenceModel's.
    pub fn resolve(&self, request: &InferenceRequest, rng: &mut dyn Rng) -> Resolution {
        let model = request.model.as_ref().and_then(|model| self.models.get(model));
        let objective = request.objective.as_ref().and_then(|name| self.priorities.get(name)).copied();
        let priority = objective.or_else(|| model.map(|model| model.criticality.priority())).unwrap_or(DEFAULT_PRIORITY);
        let Some(named) = &request.model else {
            return Resolution { priority, ..Resolution::default() };
        };
        let (target, rewritten_by) = match self.rewrites.resolve(named, rng) {
            Some((rewrite, target)) => (Some(target), Some(rewrite)),
            None => {
                let by_header = request.model_rewrite.clone();
                (by_header.or_else(|| model.and_then(|model| Target::draw(&model.targets, rng))), None)
            }
        };
        Resolution { priority, target: target.filter(|target| target != named), rewritten_by }
    }

    /// Every model name that the objects name: known names, whose number is bounded by them.
    pub fn model_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let targets = self.models.values().flat_map(|model| &model.targets).map(|target| &target.model);
        self.models.keys().chain(targets).chain(self.rewrites.model_names())
    }
}
