//! A value, or why there is none.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

/// A known value and how old it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The value, in the unit of its family.
    pub value: f64,
    /// When the oldest page was asked for that went into it.
    pub as_of: Instant,
}

/// A value, or why there is none.
pub type Measurement = Result<Measured, Unknown>;

/// Why a value is not known. Unknown never scales down, never wakes, never sheds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// There are endpoints, none of them ready.
    NoneReady {
        /// How many there are.
        endpoints: usize,
    },
    /// There are ready endpoints, none of them with a fresh page.
    NoneFresh {
        /// How many are ready.
        ready: usize,
        /// The youngest page there is, if any.
        last_read: Option<Instant>,
        /// What the last attempt at one of them met with.
        problem: Option<Arc<str>>,
    },
    /// The fresh pages do not carry the signal.
    NoSignal {
        /// Its key.
        signal: &'static str,
        /// How many fresh pages there are.
        fresh: usize,
    },
    /// Too few ready endpoints are fresh to speak for all.
    BelowHalf {
        /// Fresh ones with the signal.
        fresh: usize,
        /// Ready ones.
        ready: usize,
        /// What the last attempt at one of the others met with.
        problem: Option<Arc<str>>,
    },
    /// A picker of the pool holds requests and cannot be asked how many.
    HeldUnknown {
        /// When one last told.
        last_read: Option<Instant>,
        /// What the last attempt met with.
        problem: Option<Arc<str>>,
    },
    /// No picker of the pool is known or has told anything yet, so nobody can say what is held.
    NoPicker,
    /// No pod of the pool was seen to start yet.
    NoStart,
    /// A selector of pods was given for what counts the whole pool.
    WholePool,
    /// Nobody has computed the replicas that the pool requires.
    NotComputed,
    /// The replicas that the pool requires are not known.
    Required {
        /// Why.
        cause: Arc<str>,
    },
    /// Neither a picker nor a page has shown it.
    NotMeasured {
        /// What, in words.
        what: &'static str,
    },
    /// Too few requests to speak of the quantile.
    TooFewRequests {
        /// What of them, in words.
        what: &'static str,
        /// How many there were in the last minute.
        seen: u64,
        /// How many it takes.
        least: u64,
    },
    /// Requests wait, and no server had some waiting for long enough to show how fast it reads prompts.
    NeverBusy,
}

impl Unknown {
    /// When the value was last known, if it ever was.
    pub fn last_known(&self) -> Option<Instant> {
        match self {
            Self::NoneFresh { last_read, .. } | Self::HeldUnknown { last_read, .. } => *last_read,
            _ => None,
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = match self {
            Self::WholePool => {
                write!(formatter, "it counts the whole pool: leave the labels of pods out of the selector")?;
                &None
            }
            Self::NotComputed => {
                write!(
                    formatter,
                    "required replicas are not computed here, or not yet: weir exporter, adapter and serve do so unless started with \
                     --no-required-replicas"
                )?;
                &None
            }
            Self::Required { cause } => {
                write!(formatter, "{cause}")?;
                &None
            }
            Self::NoneReady { endpoints } => {
                write!(formatter, "none of its {endpoints} endpoints is ready")?;
                &None
            }
            Self::NoneFresh { ready, problem, .. } => {
                write!(formatter, "none of its {ready} ready endpoints has fresh metrics")?;
                problem
            }
            Self::NoSignal { signal, fresh } => {
                write!(formatter, "none of its {fresh} readable metrics pages carries {signal}")?;
                &None
            }
            Self::BelowHalf { fresh, ready, problem } => {
                write!(formatter, "only {fresh} of its {ready} ready endpoints have fresh metrics, a total needs half")?;
                problem
            }
            Self::HeldUnknown { problem, .. } => {
                write!(formatter, "its endpoint picker holds requests and cannot be read")?;
                problem
            }
            Self::NoPicker => {
                write!(formatter, "no endpoint picker of it is known that tells how many requests it holds")?;
                &None
            }
            Self::NoStart => {
                write!(formatter, "none of its pods was seen to start yet")?;
                &None
            }
            Self::NotMeasured { what } => {
                write!(
                    formatter,
                    "neither an endpoint picker nor two metrics pages of its servers have shown its {what} in the last minute"
                )?;
                &None
            }
            Self::TooFewRequests { what, seen, least } => {
                write!(
                    formatter,
                    "only {seen} requests of the last minute show their {what}, it takes {least} to speak of this quantile"
                )?;
                &None
            }
            Self::NeverBusy => {
                write!(
                    formatter,
                    "requests wait, but none of its servers had some waiting for 10 s in the last minute, so nobody knows how fast it reads prompts"
                )?;
                &None
            }
        };
        match problem {
            Some(problem) => write!(formatter, ": {problem}"),
            None => Ok(()),
        }
    }
}
