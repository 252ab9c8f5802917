//! InferenceModel, which InferenceObjective and InferenceModelRewrite took the place of.

use std::sync::Arc;

use super::rewrite::Target;

/// How much a model's requests matter.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Criticality {
    /// Before all others: priority 1.
    Critical,
    /// As requests that nobody says anything about: priority 0.
    #[default]
    Standard,
    /// Shed while the pool is saturated: priority −1.
    Sheddable,
}

impl Criticality {
    /// The priority that it stands for.
    pub fn priority(self) -> i32 {
        match self {
            Self::Critical => 1,
            Self::Standard => 0,
            Self::Sheddable => -1,
        }
    }
}

/// An InferenceModel of the pool (v1alpha2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InferenceModel {
    /// The object's name.
    pub name: Arc<str>,
    /// When it was created, in seconds of Unix time.
    pub created: i64,
    /// The model that requests name.
    pub model_name: Arc<str>,
    /// How much they matter; unset: standard.
    pub criticality: Criticality,
    /// What is served in its place; none: itself.
    pub targets: Vec<Target>,
}

impl InferenceModel {
    /// Orders objects from the oldest, those of one second by name.
    pub(super) fn age_order(&self) -> (i64, &str) {
        (self.created, &self.name)
    }
}
