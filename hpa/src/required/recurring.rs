//! Bursts that come again and again: after two of them their level is kept for a while, since what takes minutes to start is there too
//! late for each of them.

use std::collections::VecDeque;

use super::constants::{BURST_AT_LEAST, BURST_SECONDS, BURST_SHARE};

/// Most bursts that are remembered.
const MOST_BURSTS: usize = 16;

/// Remembers the peaks of the last [`BURST_SECONDS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Recurring {
    rising: bool,
    /// The highest since it rises, or the lowest since it falls.
    extreme: Option<f64>,
    peaks: VecDeque<(f64, f64)>,
}

/// How far a level must move from its extreme to have turned.
fn far(extreme: f64) -> f64 {
    (BURST_SHARE * extreme).max(BURST_AT_LEAST)
}

impl Recurring {
    /// The level that two bursts of the last while had; 0 with fewer.
    pub(super) fn advance(&mut self, now: f64, level: f64) -> f64 {
        let extreme = self.extreme.get_or_insert(level);
        if self.rising {
            *extreme = extreme.max(level);
            if level <= *extreme - far(*extreme) {
                self.peaks.push_back((now, *extreme));
                (self.rising, self.extreme) = (false, Some(level));
            }
        } else {
            *extreme = extreme.min(level);
            if level >= *extreme + far(*extreme) {
                (self.rising, self.extreme) = (true, Some(level));
            }
        }
        while self.peaks.front().is_some_and(|(at, _)| now - at > BURST_SECONDS) || self.peaks.len() > MOST_BURSTS {
            self.peaks.pop_front();
        }
        let mut levels: Vec<f64> = self.peaks.iter().map(|(_, level)| *level).collect();
        levels.sort_by(f64::total_cmp);
        levels.len().checked_sub(2).map_or(0.0, |index| levels[index])
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs through levels that last for so many seconds each; the last answer.
    fn after(stretches: &[(u32, f64)]) -> f64 {
        let mut recurring = Recurring::default();
        let (mut now, mut answer) = (0.0, 0.0);
        for (seconds, level) in stretches {
            for _ in 0..*seconds {
                now += 1.0;
                answer = recurring.advance(now, *level);
            }
        }
        answer
    }

    #[test]
    fn two_bursts_are_kept_and_one_is_not() {
        assert_eq!(after(&[(300, 2.0), (60, 6.0), (300, 2.0)]), 0.0);
        assert_eq!(after(&[(300, 2.0), (60, 6.0), (300, 2.0), (60, 7.0), (300, 2.0)]), 6.0);
    }

    #[test]
    fn they_are_forgotten_when_they_stop() {
        assert_eq!(after(&[(300, 2.0), (60, 6.0), (300, 2.0), (60, 7.0), (2500, 2.0)]), 0.0);
    }

    #[test]
    fn steps_ramps_and_noise_are_no_bursts() {
        assert_eq!(after(&[(300, 2.0), (600, 8.0), (600, 2.0)]), 0.0);
        let ramp: Vec<(u32, f64)> = (0..800).map(|index| (1, f64::from(index) / 100.0)).collect();
        assert_eq!(after(&ramp), 0.0);
        let noise: Vec<(u32, f64)> = (0..2000).map(|index| (1, if index % 7 < 3 { 4.0 } else { 4.9 })).collect();
        assert_eq!(after(&noise), 0.0);
    }
}
