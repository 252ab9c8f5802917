//! Scale to zero and back: idle pools cost nothing, and a held request wakes them.
//!
//! A HorizontalPodAutoscaler asks for it by an annotation. Everything else follows from what the datastore knows of the pools that
//! select the target's pods, and from the target itself. Nothing is kept: the API server records, with each write to `/scale`, who
//! wrote it, and a zero under [`SCALER_MANAGER`](weir_k8s::SCALER_MANAGER) is weir's own.
//!
//! 1. [`policy`]: the decision over one target, pure.
//! 2. `autoscalers`, `targets`: HPAs followed; what they scale, read and written.
//! 3. `budget`, `entry`: how often is written; what is remembered of a target.
//! 4. [`Scaler`]: the loop of one namespace, of which only that of the [`Leader`](weir_k8s::Leader) acts.
//! 5. `telling`, [`ScalerMetrics`]: what is done, or not, and why.

mod autoscalers;
mod budget;
mod controller;
mod entry;
mod metrics;
pub mod policy;
mod targets;
mod telling;
#[cfg(test)]
mod testing;

pub use controller::{Scaler, ScalerSettings, Selectors, SharedBudget};
pub use metrics::ScalerMetrics;
