//! Plain text: works in any terminal and in a log.

use std::fmt::Write as _;

use super::{grouped, in_slo, most_pods, ttft};
use crate::outcome::Outcome;

/// Rows of the chart of replicas.
const HEIGHT: u32 = 8;
/// Steps of a bar in one row, from the bottom.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One line per outcome.
pub fn summary(outcomes: &[&Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.name.chars().count()).max().unwrap_or(0).max(6);
    let of_static = outcomes.first().map_or(1.0, |first| first.gpu_hours);
    let mut text = String::new();
    writeln!(text, "{:<width$}  in SLO   TTFT p50    p95   GPU-h  of static  most pods  flaps   lost", "policy")
        .unwrap_or_default();
    for outcome in outcomes {
        writeln!(
            text,
            "{:<width$}  {:>5.1} %  {:>7.2} s {:>5.1} s  {:>6.1}  {:>7.0} %  {:>4} of {:<2}  {:>5}  {:>4.1} %",
            outcome.name,
            100.0 * outcome.in_slo_share(),
            outcome.ttft.0,
            outcome.ttft.1,
            outcome.gpu_hours,
            100.0 * outcome.gpu_hours / of_static,
            outcome.peak,
            outcome.needed_peak,
            outcome.flaps,
            100.0 * outcome.lost_share(),
        )
        .unwrap_or_default();
    }
    text
}

/// Replicas (bars: ready, dots: starting, a line: needed), time to first token and requests in time of one outcome.
pub fn chart(outcome: &Outcome, width: usize) -> String {
    let columns = width.saturating_sub(12).clamp(20, 160);
    let groups = grouped(&outcome.series, columns);
    let top = most_pods(&[outcome]);
    let mut text = format!("{}\n", outcome.name);
    for row in (0..HEIGHT).rev() {
        let (low, high) = (f64::from(top * row) / f64::from(HEIGHT), f64::from(top * (row + 1)) / f64::from(HEIGHT));
        let label = if row + 1 == HEIGHT {
            format!("{top} pods")
        } else if row == 0 {
            "0".to_owned()
        } else {
            String::new()
        };
        write!(text, "{label:>9} ┤").unwrap_or_default();
        for group in &groups {
            let most = |of: fn(&crate::outcome::Stretch) -> u32| f64::from(group.iter().map(of).max().unwrap_or(0));
            let (ready, present, needed) = (most(|s| s.ready), most(|s| s.present), most(|s| s.needed));
            let filled = ((ready - low) / (high - low)).clamp(0.0, 1.0);
            let character = if needed > low && needed <= high && ready < needed {
                '─'
            } else if filled > 0.0 {
                BARS[(filled * 8.0).round() as usize]
            } else if present > low {
                '·'
            } else {
                ' '
            };
            text.push(character);
        }
        text.push('\n');
    }
    let slo = outcome.slo;
    write!(text, "{:>9} │", "TTFT p95").unwrap_or_default();
    for group in &groups {
        // Eight steps up to four times the service level.
        let step = ttft(group).map_or(0, |seconds| (seconds / slo * 2.0).ceil().clamp(1.0, 8.0) as usize);
        text.push(BARS[step]);
    }
    writeln!(text, " █ ≥ {:.0} s", slo * 4.0).unwrap_or_default();
    write!(text, "{:>9} │", "in SLO").unwrap_or_default();
    for group in &groups {
        text.push(in_slo(group).map_or(' ', |share| BARS[(share * 8.0).round() as usize]));
    }
    writeln!(text, " █ all").unwrap_or_default();
    let minutes = outcome.series.last().map_or(0.0, |last| last.at / 60.0);
    writeln!(text, "{:>9} └{} {minutes:.0} min", "", "─".repeat(groups.len())).unwrap_or_default();
    writeln!(text, "{:>11}█ ready  · starting  ─ needed and not ready", "").unwrap_or_default();
    text
}
