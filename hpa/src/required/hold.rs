//! The highest level of the last minutes, and the step from a level to whole pods.

use std::collections::VecDeque;

use super::constants::{HOLD_BY_AUTOSCALER, HOLD_LONGEST, HOLD_STARTS, MOST_REPLICAS, ROUNDING};

/// Remembers the highest level: at most one entry a second over [`HOLD_LONGEST`], and only falling ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    falling: VecDeque<(f64, f64)>,
}

/// For how many seconds the highest level is remembered, with pods that start in `start` seconds.
pub(super) fn hold_seconds(start: f64) -> f64 {
    (HOLD_STARTS * start - HOLD_BY_AUTOSCALER).clamp(0.0, HOLD_LONGEST)
}

impl Hold {
    /// The highest of this level and those of the last `seconds`.
    pub(super) fn highest(&mut self, now: f64, level: f64, seconds: f64) -> f64 {
        while self.falling.back().is_some_and(|(_, earlier)| *earlier <= level) {
            self.falling.pop_back();
        }
        self.falling.push_back((now, level));
        while self.falling.front().is_some_and(|(at, _)| now - at > seconds) || self.falling.len() > HOLD_LONGEST as usize + 1 {
            self.falling.pop_front();
        }
        self.falling.front().map_or(level, |(_, highest)| *highest)
    }

    pub(super) fn clear(&mut self) {
        self.falling.clear();
    }
}

/// Whole pods for a level, given those that are there or coming: it must be clearly past a whole number.
pub(super) fn whole(level: f64, present: u32) -> u32 {
    // The casts saturate, and the level is finite.
    let level = level.clamp(0.0, MOST_REPLICAS);
    let up = (level - ROUNDING).ceil().max(0.0) as u32;
    let down = (level + ROUNDING).ceil() as u32;
    if up > present {
        up
    } else if down < present {
        down
    } else {
        present
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_near_a_whole_number_moves_nothing() {
        assert_eq!(whole(3.05, 3), 3);
        assert_eq!(whole(3.05, 4), 4);
        assert_eq!(whole(3.2, 3), 4);
        assert_eq!(whole(2.85, 4), 3);
        assert_eq!(whole(2.95, 4), 4);
        assert_eq!(whole(0.0, 0), 0);
    }

    #[test]
    fn slow_pods_are_given_up_late() {
        assert_eq!(hold_seconds(120.0), 0.0);
        assert_eq!(hold_seconds(300.0), 150.0);
        assert_eq!(hold_seconds(480.0), 420.0);
        assert_eq!(hold_seconds(36_000.0), 1200.0);
    }

    proptest! {
        #[test]
        fn whole_pods_are_stable_and_near(level in 0.0_f64..100.0, present in 0_u32..100) {
            let pods = whole(level, present);
            prop_assert_eq!(whole(level, pods), pods);
            prop_assert!((f64::from(pods) - level).abs() <= 1.0 + ROUNDING + 1e-9);
        }

        #[test]
        fn the_highest_is_that_of_the_window(levels in proptest::collection::vec(0_u32..50, 1..200), window in 0_u32..60) {
            let mut hold = Hold::default();
            for (second, level) in levels.iter().enumerate() {
                let got = hold.highest(second as f64, f64::from(*level), f64::from(window));
                let expected = levels[second.saturating_sub(window as usize)..=second].iter().max().unwrap();
                prop_assert_eq!(got, f64::from(*expected));
            }
        }
    }
}
