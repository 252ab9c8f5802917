//! InferenceModelRewrite: another model in place of the one that was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use rand::{Rng, RngExt};

/// An InferenceModelRewrite of the pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModelRewrite {
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, in seconds of Unix time.
    pub created: i64,
    /// The first that matches counts.
    pub rules: Vec<RewriteRule>,
}

/// A rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RewriteRule {
    /// The models that it is for; empty: every one.
    pub models: Vec<Arc<str>>,
    /// What is served instead.
    pub targets: Vec<Target>,
}

/// A model to be served, with its share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The model.
    pub model: Arc<str>,
    /// Its share, of the sum of all weights.
    pub weight: Option<u32>,
}

impl Target {
    /// One of `targets` by lot: in proportion to the weights, a missing one being 0; any where the sum is 0. None of none.
    pub fn draw(targets: &[Self], rng: &mut dyn Rng) -> Option<Arc<str>> {
        let weight = |target: &Self| u64::from(target.weight.unwrap_or(0));
        let sum: u64 = targets.iter().map(weight).sum();
        if sum == 0 {
            let chosen = if targets.len() > 1 { rng.random_range(0..targets.len()) } else { 0 };
            return targets.get(chosen).map(|target| target.model.clone());
        }
        let mut left = rng.random_range(0..sum);
        let chosen = targets.iter().find(|target| {
            let weight = weight(target);
            let here = left < weight;
            left = left.saturating_sub(weight);
            here
        });
        chosen.map(|target| target.model.clone())
    }
}

/// A rule with the object that it is of.
#[derive(Clone, Debug)]
struct Owned {
    rewrite: Arc<str>,
    targets: Arc<[Target]>,
}

/// Rewrites, looked up by model.
#[derive(Clone, Debug, Default)]
pub(super) struct Rewrites {
    exact: HashMap<Arc<str>, Owned>,
    generic: Option<Owned>,
}

impl Rewrites {
    /// A rule that names the model goes before one for every model; among equals the oldest object's, of one object the first.
    pub(super) fn new(mut rewrites: Vec<ModelRewrite>) -> Self {
        rewrites.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
        let mut all = Self::default();
        for ModelRewrite { name, rules, .. } in rewrites {
            for RewriteRule { models, targets } in rules {
                let rule = Owned { rewrite: name.clone(), targets: targets.into() };
                if models.is_empty() {
                    all.generic.get_or_insert_with(|| rule.clone());
                }
                for model in models {
                    all.exact.entry(model).or_insert_with(|| rule.clone());
                }
            }
        }
        all
    }

    /// The object and the target for `model`.
    pub(super) fn resolve(&self, model: &str, rng: &mut dyn Rng) -> Option<(Arc<str>, Arc<str>)> {
        let rule = self.exact.get(model).or(self.generic.as_ref())?;
        Some((rule.rewrite.clone(), Target::draw(&rule.targets, rng)?))
    }

    pub(super) fn model_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let rules = self.exact.values().chain(&self.generic);
        self.exact.keys().chain(rules.flat_map(|rule| rule.targets.iter()).map(|target| &target.model))
    }
}
