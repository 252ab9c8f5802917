//! What an autoscaler would have done: a load is replayed over model servers that take minutes to start, and a HorizontalPodAutoscaler
//! decides with the arithmetic of the real one ([`weir_hpa`]).
//!
//! Pure and deterministic: no clock, no I/O, a seed for all that is drawn. [`run()`] takes a [`Scenario`] (servers, load, start time) and a
//! [`Policy`], and answers an [`Outcome`].
//!
//! Not modelled: prefix caches (a new pod's is cold), retries, several kinds of GPU in one pool, prefill and decode apart, GPU quota.
//!
//! Modules in reading order: `load` (what arrives), `replica` (one server), `model_size` (calibration), `pods` (starts and removal),
//! `sample` (what metrics say), `policy` (who decides), `run` (the loop), `outcome`,
//! [`trace`] (recorded loads), [`table`], [`advice`], [`draw`] (for people).

pub mod advice;
pub mod draw;
mod load;
mod model_size;
mod outcome;
mod pods;
mod policy;
mod replica;
mod run;
mod sample;
pub mod table;
pub mod trace;

pub use load::{Arrival, LONGEST, LONGEST_LOAD, Load, MOST_REQUESTS, Shape};
pub use model_size::ModelSize;
pub use outcome::{Outcome, STRETCH, Stretch};
pub use policy::required::day_of;
pub use policy::{HpaPolicy, PolicyError, RequiredOptions};
pub use replica::ReplicaProfile;
pub use run::{Needed, Policy, Scaler, Scenario, run};
pub use sample::{Metric, PodMetric};
