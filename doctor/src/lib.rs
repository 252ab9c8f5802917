//! What is wrong with an inference pool, its gateway, its metrics or its autoscaler, and what mends it.
//!
//! 1. [`Facts`]: what is known of a cluster, no more than the checks look at; [`gather`](Gatherer) reads it off a cluster, and it can be
//!    written to a file and read again.
//! 2. [`CHECKS`]: one table of checks, each a pure function from facts to [`Finding`]s.
//! 3. [`examine`]: all checks over some facts; [`Examination`] says what was found and what could not be looked at.
//! 4. [`report`]: the same for people and for programs; `documentation`: the table as a page.
//!
//! 5. [`explain_autoscaler`], [`explain_pool`]: an autoscaler's arithmetic with the numbers of this moment, and a pool's.
//!
//! What is not known is never taken for what is not there: a check that lacks a fact says nothing, and the examination says so.

mod checks;
mod documentation;
mod explain;
mod facts;
mod finding;
mod gather;
mod look;
pub mod report;

#[cfg(test)]
mod tests;

pub use checks::{CHECKS, examine};
pub use documentation::documentation;
pub use explain::{ExplainError, Explanation, MetricAnswer, Otherwise, Prediction, Reading, explain_autoscaler, explain_pool};
pub use facts::{FORMAT, Facts, LARGEST, RecordError};
pub use finding::{Check, Elsewhere, Examination, Family, Finding, NotKnown, Severity};
pub use gather::{GatherError, GatherOptions, Gatherer};
