//! What comes of reading a page: when it was read, what became of each series, why there is no load.

use thiserror::Error;
use tokio::time::Instant;

use super::families::Signal;
use crate::load::EndpointLoad;
use crate::page::{PageError, PageReport};

/// When a page was read.
#[derive(Clone, Copy, Debug)]
pub struct PageClock {
    /// When the page was asked for.
    pub asked_at: Instant,
    /// The same as milliseconds since the Unix epoch, for samples that carry a timestamp of their own.
    pub wall_ms: i64,
    /// Samples whose own timestamp is older than this, in milliseconds, are left out.
    pub stale_after_ms: i64,
}

/// Why a page gives no load.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ReadError {
    /// The page cannot be used at all.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A metrics page, but not of the expected engine.
    #[error("a metrics page of {sample_lines} samples, none of them {expected}{hint}")]
    NoEngine {
        /// What was looked for, with an example.
        expected: String,
        /// What the page looks like instead, if anything.
        hint: String,
        /// Samples on the page.
        sample_lines: u32,
    },
}

/// What became of a series on the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeriesVerdict {
    /// Part of the result.
    Used,
    /// A name that a newer one on the same page replaces.
    OlderName,
    /// A part of a total that is on the page too.
    PartOfTotal,
    /// Another tensor-parallel rank that repeats the same queue.
    OtherRank,
    /// Of a process of the server that no longer updates it.
    DeadProcess,
    /// The page has the series already: the first sample counts.
    Duplicate,
    /// The value cannot be true of the signal.
    Invalid,
    /// The sample's own timestamp is older than the staleness limit.
    Outdated,
}

impl SeriesVerdict {
    /// The word used in output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::OlderName => "older name, not added",
            Self::PartOfTotal => "part of a total, not added",
            Self::OtherRank => "other rank, not added",
            Self::DeadProcess => "another process of the server, not added",
            Self::Duplicate => "duplicate, not added",
            Self::Invalid => "invalid",
            Self::Outdated => "outdated",
        }
    }
}

/// A wanted series of a page and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesUse {
    /// Line number, counted from 1.
    pub line: u32,
    /// Name and labels as written.
    pub series: String,
    /// Value as read.
    pub value: f64,
    /// The sample's own timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// What the series says.
    pub signal: Signal,
    /// What became of it.
    pub verdict: SeriesVerdict,
}

/// A page explained: for people, and for tests.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The load; absent where the page has no family of a known engine.
    pub load: Option<EndpointLoad>,
    /// How the scan went, every line looked at.
    pub report: PageReport,
    /// Each wanted series in page order.
    pub series: Vec<SeriesUse>,
}
