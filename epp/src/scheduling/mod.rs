//! Which endpoint takes a request: filters, scorers and a picker over the candidates of one snapshot.
//!
//! Pure: clock and random numbers are arguments. In reading order:
//!
//! 1. [`Candidate`] and [`Load`]: what a plugin sees of an endpoint; [`InFlight`]: what was sent there since its last page;
//!    [`Health`]: whether it is kept out after failures.
//! 2. [`Filter`], [`Scorer`], [`Picker`]: the three kinds of plugin, one file each in [`filters`], [`scorers`], [`pickers`].
//! 3. [`Profile`]: plugins in their order, run over the candidates.
//! 4. [`prefix`]: which endpoint has which prompts in its cache; [`SaturationDetector`]: how full the candidates are.
//! 5. [`config`]: an EndpointPickerConfig to a [`SchedulingConfig`].

mod candidate;
pub mod config;
pub mod filters;
mod health;
mod in_flight;
pub mod pickers;
mod plugin;
pub mod prefix;
mod profile;
mod saturation;
pub mod scorers;
#[cfg(test)]
pub(crate) mod testing;

pub use candidate::{Candidate, Load, SchedulingRequest};
pub use config::SchedulingConfig;
pub use health::{Evidence, Health, HealthChange};
pub use in_flight::InFlight;
pub use plugin::{ExtensionPoint, Filter, Observer, Picker, PluginName, Scorer, Unobserved};
pub use profile::{Cycle, Named, Profile, Selected, Weighted};
pub use saturation::{CandidateSaturation, SaturationDetector};
