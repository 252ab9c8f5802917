//! How much arrives: a rate that follows a step at once, noise never, and a ramp ahead of time.

use super::constants::{LONG_WINDOW, SHORT_WINDOW, SIGMAS, TREND_AT_MOST, TREND_BINS, TREND_SIGMA, TREND_STEEPER};
use super::history::History;

/// The arrival rate in requests a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// What is expected while a pod starts.
    pub expected: f64,
    /// What is measured.
    pub measured: f64,
    /// Whether it has risen for long enough to be carried on.
    pub rising: bool,
}

/// The rate, given the seconds a pod needs to start.
pub(super) fn rate(arrivals: &History, start: f64) -> Rate {
    let measured = measured(arrivals);
    let carried = trend(arrivals).map_or(measured, |per_second| {
        let ahead = measured + start * per_second;
        measured.max(ahead.min(TREND_AT_MOST * measured))
    });
    Rate { expected: carried, measured, rising: carried > measured }
}

/// The steady window, unless the quick one differs by more than chance.
fn measured(arrivals: &History) -> f64 {
    let known = arrivals.known();
    if known == 0 {
        return 0.0;
    }
    let long = arrivals.sum(LONG_WINDOW).max(0.0) / LONG_WINDOW.min(known) as f64;
    let count = arrivals.sum(SHORT_WINDOW).max(0.0);
    let seconds = SHORT_WINDOW.min(known) as f64;
    let chance = SIGMAS * count.sqrt();
    let low = (count - chance) / seconds;
    let high = (count + chance) / seconds;
    if high < long { high } else { long.max(low) }
}

/// Growth in requests a second per second, where the last bins rose one after the other.
fn trend(arrivals: &History) -> Option<f64> {
    if arrivals.known() < TREND_BINS * LONG_WINDOW {
        return None;
    }
    let window = LONG_WINDOW as f64;
    let bins: [f64; TREND_BINS] = std::array::from_fn(|bin| arrivals.sum_before(bin * LONG_WINDOW, LONG_WINDOW).max(0.0) / window);
    let smallest = bins.windows(2).map(|pair| pair[0] - pair[1]).fold(f64::INFINITY, f64::min);
    let rise = smallest - TREND_SIGMA * (2.0 * bins[0] / window).sqrt();
    if rise <= 0.0 {
        return None;
    }
    let over_all = (bins[0] - bins[TREND_BINS - 1]) / ((TREND_BINS - 1) as f64 * window);
    Some(over_all.min(TREND_STEEPER * rise / window))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(per_second: impl Fn(u32) -> f64, seconds: u32) -> History {
        let mut history = History::new();
        for second in 0..seconds {
            history.push(1, per_second(second));
        }
        history
    }

    #[test]
    fn constant_traffic_is_its_own_rate() {
        let rate = rate(&filled(|_| 20.0, 600), 300.0);
        assert!((rate.measured - 20.0).abs() < 1e-9, "{rate:?}");
        assert!(!rate.rising);
    }

    #[test]
    fn a_step_shows_within_seconds_and_never_above_itself() {
        let mut history = filled(|_| 40.0, 600);
        for second in 0..600 {
            history.push(1, 160.0);
            let rate = rate(&history, 480.0);
            assert!(rate.expected <= 160.0 + 1e-6, "{second}: {rate:?}");
            if second > 20 {
                assert!(rate.measured > 140.0, "{second}: {rate:?}");
            }
        }
    }

    #[test]
    fn a_ramp_is_carried_on_by_a_third_at_most() {
        let slow = rate(&filled(|second| 22.5 + f64::from(second) * 0.0525, 900), 300.0);
        let ahead = 0.0525 * 300.0;
        assert!(slow.rising && slow.expected > slow.measured + 0.5 * ahead, "{slow:?}");
        let steep = rate(&filled(|second| f64::from(second), 900), 480.0);
        assert!((steep.expected - TREND_AT_MOST * steep.measured).abs() < 1e-6, "{steep:?}");
    }

    #[test]
    fn a_stop_is_believed_within_the_quick_window() {
        let mut history = filled(|_| 40.0, 600);
        for _ in 0..SHORT_WINDOW {
            history.push(1, 0.0);
        }
        assert_eq!(rate(&history, 300.0).expected, 0.0);
    }
}
