//! An autoscaler's arithmetic with the numbers of this moment, line by line, and a pool's numbers. Pure.
//!
//! The arithmetic is the controller's own ([`weir_hpa`]). What it remembers between its turns cannot be read; what status and Events
//! tell of it is taken (`memory`), the turn is computed for everything that this leaves open, and where that makes a difference the
//! prediction says which.

mod autoscaler;
mod lines;
mod memory;
mod pool;
mod prediction;
mod spec;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

/// What the metrics API answered for one metric of an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Its values, or its error.
    pub reading: weir_hpa::MetricReading,
    /// How old the oldest of them is; none where the API does not say.
    pub age: Option<Duration>,
}

/// An explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Of what: `Kind namespace/name`.
    pub object: String,
    /// For people, a line each.
    pub lines: Vec<String>,
    /// What an autoscaler does in its next turn; none for what is no autoscaler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// Why nothing can be explained.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum ExplainError {
    /// There is no such object.
    #[error("there is no {kind} {path}{near}: kubectl get {} -A", kind.to_lowercase())]
    Missing {
        /// The kind.
        kind: &'static str,
        /// Namespace and name.
        path: String,
        /// What there is instead.
        near: String,
    },
    /// Nothing could be listed.
    #[error("{kind} {path} cannot be explained: {reason}")]
    Unknown {
        /// The kind.
        kind: &'static str,
        /// Namespace and name.
        path: String,
        /// Why.
        reason: String,
    },
}

pub use autoscaler::explain_autoscaler;
pub use pool::explain_pool;
pub use prediction::{MetricAnswer, Otherwise, Prediction};
