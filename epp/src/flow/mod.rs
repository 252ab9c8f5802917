//! Flow control: requests that wait in the picker for room, or for an endpoint.
//!
//! In reading order:
//!
//! 1. [`FlowSettings`]: limits, times, policies; [`HoldEmpty`]: whether requests wait for a pool without endpoints.
//! 2. [`Outcome`]: how a wait ends, and what the caller is told.
//! 3. [`Queue`]: who waits and whose turn it is; pure. Bands by priority, within a band flows by fairness id, within a flow items by
//!    an ordering. What may only go to the same endpoints waits in one lane: a lane that is full holds up no other.
//! 4. [`Fairness`], [`Ordering`], [`UsageLimit`]: the policies, one file each.
//! 5. `Gate`: the queue between the requests that come and the one dispatcher that places them.

mod fairness;
mod gate;
mod ordering;
mod outcome;
mod queue;
mod settings;
#[cfg(test)]
mod tests;
mod usage;

pub use fairness::Fairness;
pub(crate) use gate::Gate;
pub use ordering::Ordering;
pub(crate) use ordering::{SLO_HEADERS, slo_of};
pub use outcome::Outcome;
pub(crate) use outcome::RETRY_NO_ENDPOINTS;
pub use queue::{Entry, Id, Queue, Queued};
pub use settings::{BandSettings, Expectation, FlowSettings, HoldEmpty};
pub use usage::{Holdback, HoldbackDomain, UsageLimit};
