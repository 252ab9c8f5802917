//! Which request of a flow is next.

mod edf;
mod fcfs;
mod slo_deadline;

use std::time::Duration;

use tokio::time::Instant;

use super::Entry;
pub(crate) use slo_deadline::{HEADERS as SLO_HEADERS, slo_of};

/// An ordering policy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ordering {
    /// `fcfs-ordering-policy`: as they came.
    #[default]
    Fcfs,
    /// `edf-ordering-policy`: by the end of their time in the queue; who has no such end comes last.
    Edf,
    /// `slo-deadline-ordering-policy`: by when the first token is due, as a header says; who has no such header comes last.
    SloDeadline,
}

/// Where a request stands: by its deadline, then by its number. Less is earlier.
pub(super) type Key = (Deadline, u64);

/// When a request is due.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Deadline {
    At(Instant),
    Never,
}

impl Ordering {
    /// As it is configured.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Fcfs => "fcfs-ordering-policy",
            Self::Edf => "edf-ordering-policy",
            Self::SloDeadline => "slo-deadline-ordering-policy",
        }
    }

    /// When `entry`, which begins to wait at `now` and may for `ttl`, is due.
    pub(super) fn deadline(self, entry: &Entry, now: Instant, ttl: Option<Duration>) -> Deadline {
        match self {
            Self::Fcfs => fcfs::deadline(),
            Self::Edf => edf::deadline(now, ttl),
            Self::SloDeadline => slo_deadline::deadline(entry),
        }
    }
}
