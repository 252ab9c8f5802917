//! The answer of a turn, with its arithmetic.

use std::fmt;
use std::time::Duration;

use super::cost::Costs;
use super::rate::Rate;

/// `inference_pool_required_replicas`, or why it is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Level {
    /// So many replicas.
    Known(Known),
    /// Nothing to be said: the API answers 503, and the autoscaler holds.
    Unknown(Cause),
}

impl Level {
    /// The replicas, where known.
    pub fn replicas(&self) -> Option<u32> {
        match self {
            Self::Known(known) => Some(known.replicas),
            Self::Unknown(_) => None,
        }
    }
}

/// Why there is no level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The first turn has no difference to an earlier one.
    #[error("no second measurement yet")]
    FirstMeasurement,
    /// Discovery has not listed the endpoints.
    #[error("the endpoints are not known")]
    NoTopology,
    /// Fewer than half of the ready endpoints can be read.
    #[error("only {readable} of {ready} ready endpoints can be read")]
    Coverage {
        /// Ready endpoints.
        ready: u32,
        /// Those with a fresh page.
        readable: u32,
    },
    /// The pool has pickers, and none can be read: what they hold is not known.
    #[error("the endpoint pickers cannot be read")]
    Pickers,
    /// Neither a picker nor the servers tell how much arrives.
    #[error("nothing tells how many requests arrive: the servers' pages have no count of first tokens")]
    Arrivals,
}

/// What the number rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Arrivals as the pickers count them, costs as learned from full replicas.
    Full,
    /// Arrivals as the servers' counters and queues show them: a burst is seen when it queues, and clients that gave up hide arrivals.
    ServersOnly,
    /// No replica was full yet: only what was seen to work is known, so it never asks for more than there are (but see the nets).
    CostsUnknown,
}

/// A level and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The value: whole replicas.
    pub replicas: u32,
    /// When it was computed; at most 5 s ago where the last turn could not.
    pub at: Duration,
    /// What it rests on.
    pub basis: Basis,
    /// Arrivals.
    pub rate: Rate,
    /// Mean tokens of a prompt, as far as known.
    pub prompt_tokens: Option<f64>,
    /// Mean tokens of an answer.
    pub output_tokens: f64,
    /// What a token costs, once learned.
    pub costs: Option<Costs>,
    /// Replicas for what arrives.
    pub base: f64,
    /// Replicas for what waits.
    pub drain: f64,
    /// Replicas for what the days before had at this time.
    pub daily: f64,
    /// The highest level of the last minutes.
    pub held: f64,
    /// Mean start time in seconds.
    pub start_seconds: f64,
    /// Whether a net raised it: all endpoints have been waiting for half a minute.
    pub net: bool,
    /// Whether nothing has been there for a minute.
    pub idle: bool,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replicas: {:.1} requests/s", self.replicas, self.rate.expected)?;
        if self.rate.rising {
            write!(f, " (rising, {:.1} now)", self.rate.measured)?;
        }
        match (self.costs, self.prompt_tokens) {
            (Some(costs), Some(prompt)) => {
                let seconds = costs.work(prompt, self.output_tokens);
                write!(f, " of {prompt:.0} + {:.0} tokens, {seconds:.3} replica-seconds each", self.output_tokens)?;
            }
            _ => write!(f, ", cost of a request not learned yet")?,
        }
        write!(f, "; base {:.2}, drain {:.2}, held {:.2}", self.base, self.drain, self.held)?;
        if self.daily > 0.0 {
            write!(f, ", at this time of day {:.2}", self.daily)?;
        }
        if self.net {
            f.write_str("; every endpoint has requests waiting")?;
        }
        if self.idle {
            f.write_str("; idle")?;
        }
        match self.basis {
            Basis::Full => Ok(()),
            Basis::ServersOnly => f.write_str("; arrivals seen at the servers only"),
            Basis::CostsUnknown => f.write_str("; no replica was full yet, so never more than there are"),
        }
    }
}
