//! An autoscaler's arithmetic with the numbers of this moment, line by line, and a pool's numbers. Pure.
//!
//! The arithmetic is the controller's own ([`weir_hpa`]); what it remembers between its turns cannot be seen from outside, so a
//! stabilisation window is taken as if the present size had just been recommended, and the text says so.

mod autoscaler;
mod pool;
mod spec;

#[cfg(test)]
mod tests;

use std::time::Duration;

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
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Explanation {
    /// For people, a line each.
    pub lines: Vec<String>,
    /// Replicas after the autoscaler's next turn; none where nothing decides, or it is no autoscaler's explanation.
    pub next: Option<u32>,
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
