//! Which endpoints count, and how many there are of each state.

use std::time::Duration;

use tokio::time::Instant;

use crate::load::EndpointStatus;
use crate::pool::EndpointState;

/// A page is fresh for three times the interval it is read at, but at least this long.
pub const FRESH_AT_LEAST: Duration = Duration::from_secs(2);

/// No value is ever made of a page older than this.
pub const FRESH_AT_MOST: Duration = Duration::from_secs(5);

/// Whether an endpoint counts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Freshness {
    /// Ready, with a fresh page.
    Fresh,
    /// Ready; its page is too old or was never read, with no failure to show for it.
    Stale,
    /// Ready; its page is too old or was never read, and the last attempt failed.
    Unreachable,
    /// Not ready.
    Unready,
    /// Going away.
    Terminating,
}

impl Freshness {
    /// Every state, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Fresh, Self::Stale, Self::Unreachable, Self::Unready, Self::Terminating];

    /// The label value used on the page.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Unreachable => "unreachable",
            Self::Unready => "unready",
            Self::Terminating => "terminating",
        }
    }

    pub(super) fn of(state: EndpointState, status: &EndpointStatus, now: Instant) -> Self {
        match (state, &status.load) {
            (EndpointState::Unready, _) => Self::Unready,
            (EndpointState::Terminating, _) => Self::Terminating,
            (EndpointState::Ready, Some(load)) if is_fresh(load.scraped_at, status.interval, now) => Self::Fresh,
            (EndpointState::Ready, _) if status.failure.is_some() => Self::Unreachable,
            (EndpointState::Ready, _) => Self::Stale,
        }
    }
}

pub(super) fn is_fresh(read_at: Instant, interval: Duration, now: Instant) -> bool {
    now.saturating_duration_since(read_at) <= (3 * interval).clamp(FRESH_AT_LEAST, FRESH_AT_MOST)
}

/// How many endpoints are in which state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Coverage {
    /// Ready, with a fresh page.
    pub fresh: usize,
    /// Ready, page too old or never read.
    pub stale: usize,
    /// Ready, page too old or never read, last attempt failed.
    pub unreachable: usize,
    /// Not ready.
    pub unready: usize,
    /// Going away.
    pub terminating: usize,
}

impl Coverage {
    /// Endpoints that take requests, read or not.
    pub fn ready(&self) -> usize {
        self.fresh + self.stale + self.unreachable
    }

    /// Endpoints that are there to stay: all but the terminating.
    pub fn present(&self) -> usize {
        self.ready() + self.unready
    }

    /// How many are in `state`.
    pub fn count(&self, state: Freshness) -> usize {
        match state {
            Freshness::Fresh => self.fresh,
            Freshness::Stale => self.stale,
            Freshness::Unreachable => self.unreachable,
            Freshness::Unready => self.unready,
            Freshness::Terminating => self.terminating,
        }
    }

    pub(super) fn add(&mut self, state: Freshness) {
        *match state {
            Freshness::Fresh => &mut self.fresh,
            Freshness::Stale => &mut self.stale,
            Freshness::Unreachable => &mut self.unreachable,
            Freshness::Unready => &mut self.unready,
            Freshness::Terminating => &mut self.terminating,
        } += 1;
    }
}
