//! Which endpoint takes a request: filters, scorers and a picker over the candidates of one snapshot.
//!
//! Pure: clock and random numbers are arguments. In reading order:
//!
//! 1. [`Candidate`] and [`Load`]: what a plugin sees of an endpoint; [`InFlight`]: what was sent there since its last page;
//!    [`Health`]: whether it is kept out after failures.
//! 2. [`Filter`], [`Scorer`], [`Picker`], [`Admitter`], [`Decider`], [`Learner`]: the kinds of plugin, one file each in [`filters`],
//!    [`scorers`], [`pickers`], [`admitters`], [`deciders`].
//! 3. [`Profile`]: plugins in their order, run over the candidates; [`handlers`]: which profiles run, and what follows.
//! 4. [`prefix`]: which endpoint has which prompts in its cache; [`TokenEstimate`]: what a request is taken for;
//!    [`SaturationDetector`]: how full the candidates are.
//! 5. [`config`]: an EndpointPickerConfig to a [`SchedulingConfig`].

pub mod admitters;
mod candidate;
pub mod config;
pub mod deciders;
pub mod filters;
pub mod handlers;
mod health;
mod in_flight;
#[cfg(test)]
mod parity;
pub mod pickers;
mod plugin;
pub mod prefix;
mod profile;
mod saturation;
pub mod scorers;
mod scratch;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
mod topology;

pub use candidate::{Candidate, EndpointMemory, Load, NoteBit, Notes, SchedulingRequest};
pub use config::SchedulingConfig;
pub use handlers::{Placement, ProfileHandler, Runs, Stage, Unplaced};
pub use health::{Evidence, Health, HealthChange};
pub use in_flight::InFlight;
pub use plugin::{Admitter, Decider, ExtensionPoint, Filter, LabelFact, Learner, Observer, Picker, PluginName, Scorer, Unobserved};
pub use profile::{Cycle, Named, Profile, Selected, Weighted};
pub use saturation::{CandidateSaturation, ConcurrencyMode, SaturationDetector};
pub use scratch::{Buffers, Scratch};
pub use tokens::{TokenEstimate, TokenInput};
pub use topology::{Nearness, TopologyLabels};
