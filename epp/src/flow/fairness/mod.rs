//! Which flow of a band is next.

mod global_strict;
mod round_robin;

use std::fmt::Debug;
use std::sync::Arc;

use super::ordering::Key;

/// A fairness policy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fairness {
    /// `global-strict-fairness-policy`: flows do not count, the ordering decides over all of them.
    #[default]
    GlobalStrict,
    /// `round-robin-fairness-policy`: a request of each flow in turn.
    RoundRobin,
}

impl Fairness {
    /// As it is configured.
    pub fn kind(self) -> &'static str {
        match self {
            Self::GlobalStrict => "global-strict-fairness-policy",
            Self::RoundRobin => "round-robin-fairness-policy",
        }
    }

    /// An empty line.
    pub(super) fn line(self) -> Box<dyn Line> {
        match self {
            Self::GlobalStrict => Box::<global_strict::GlobalStrict>::default(),
            Self::RoundRobin => Box::<round_robin::RoundRobin>::default(),
        }
    }
}

/// The requests of one band in one lane.
pub(super) trait Line: Debug + Send {
    /// Adds a request.
    fn add(&mut self, flow: &Arc<str>, key: Key);
    /// Takes one out.
    fn remove(&mut self, flow: &Arc<str>, key: Key);
    /// The next, where `last` is the flow whose turn it was last in the band; none where the line is empty.
    fn head(&self, last: Option<&Arc<str>>) -> Option<Head>;
}

/// Who is next in a line. Of several lines of a band the least one is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Head {
    /// Whether the flow comes after the turn has begun anew, and the flow; where flows count.
    pub(super) turn: Option<(bool, Arc<str>)>,
    pub(super) key: Key,
}
