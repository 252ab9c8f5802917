//! How long requests took, over the last minute: quantiles per pool and model.
//!
//! Two sources. A weir picker measures each request itself ([`Meter`], told as [`PickerLatencies`]). Of a pool without one, the
//! histograms on the servers' pages are read ([`LatencyReader`]) about every 10 s, and what was added between two pages is kept for a
//! minute ([`EndpointWindow`], published as [`EndpointLatencies`]). Both end as [`Histogram`]s, which merge only where their bounds
//! are equal.

mod histogram;
mod meter;
mod page;
mod tokens;
mod window;

use std::fmt;
use std::time::Duration;

pub(crate) use histogram::ByBounds;
pub use histogram::{Histogram, Quantile};
pub use meter::{Meter, ModelLatencies, PickerLatencies, Spans, log_bounds};
pub use page::{LatencyPage, LatencyReader, LatencySeries};
pub use tokens::{TokenRates, TokenWindow};
pub use window::{EndpointLatencies, EndpointWindow};

/// The time that quantiles and rates speak of.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Between two snapshots of a window.
pub const APART: Duration = Duration::from_secs(10);

/// Snapshots of which the differences make up a window.
pub(crate) const SLOTS: usize = 6;

/// A window that was closed longer ago says nothing of now: two snapshots were missed.
pub const COUNTS_FOR: Duration = Duration::from_secs(30);

/// Models of one endpoint, picker or pool that are told apart.
pub const MOST_MODELS: usize = 32;

/// What took time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Latency {
    /// From the arrival of a streaming request to the first token of its answer.
    TimeToFirstToken,
    /// From the first token to the last, per token after the first; one value per request.
    TimePerOutputToken,
    /// From the arrival of a request to the end of its answer.
    EndToEnd,
    /// In a queue: of the server by its page, of the picker by the picker.
    Queue,
}

impl Latency {
    /// All, in the order in which they are served.
    pub const ALL: [Self; 4] = [Self::TimeToFirstToken, Self::TimePerOutputToken, Self::EndToEnd, Self::Queue];

    /// As errors name it.
    pub fn words(self) -> &'static str {
        match self {
            Self::TimeToFirstToken => "time to first token",
            Self::TimePerOutputToken => "time per output token",
            Self::EndToEnd => "end-to-end latency",
            Self::Queue => "queue time",
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// Requests that it takes to speak of a quantile: one of them must lie beyond it, or the answer is only the slowest of a few. Never
/// fewer than 10: below that, one slow request moves even a median by a tenth of all of them.
pub fn least_requests(quantile: f64) -> u64 {
    // A hair less, for 1 / (1 − 0.99) is not 100 in floating point.
    ((1.0 / (1.0 - quantile) - 1e-6).ceil() as u64).max(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_lies_beyond_a_quantile() {
        assert_eq!([0.5, 0.9, 0.99].map(least_requests), [10, 10, 100]);
    }
}
