//! An outcome for people: a table and a chart in the terminal, and one HTML file.

mod html;
mod terminal;

pub use html::html;
pub use terminal::{chart, summary};

use crate::outcome::{Outcome, Stretch};

/// Puts the stretches into at most `columns` groups, one after the other.
fn grouped(series: &[Stretch], columns: usize) -> Vec<&[Stretch]> {
    let each = series.len().div_ceil(columns.max(1)).max(1);
    series.chunks(each).collect()
}

/// Requests in time of those that arrived; `None` when none did.
fn in_slo(group: &[Stretch]) -> Option<f64> {
    let arrived: u32 = group.iter().map(|stretch| stretch.arrived).sum();
    let in_slo: u32 = group.iter().map(|stretch| stretch.in_slo).sum();
    (arrived > 0).then(|| f64::from(in_slo.min(arrived)) / f64::from(arrived))
}

/// The highest 95th percentile; without any, but with requests, nothing was answered.
fn ttft(group: &[Stretch]) -> Option<f64> {
    group.iter().filter_map(|stretch| stretch.ttft_p95).reduce(f64::max)
}

fn most_pods(outcomes: &[&Outcome]) -> u32 {
    outcomes.iter().map(|outcome| outcome.peak.max(outcome.needed_peak)).max().unwrap_or(1).max(1)
}
