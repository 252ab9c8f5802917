//! Sums over the last minutes, by the second.

/// Seconds kept: four bins of the trend and one to spare.
const LENGTH: u64 = 512;

/// An amount per second over the last minutes. Any window costs two look-ups.
#[derive(Clone, Debug)]
pub(super) struct History {
    /// The running total at the end of each second, in a ring.
    totals: Vec<f64>,
    /// The second that is being filled.
    second: u64,
    /// Seconds before it that are known.
    known: u64,
}

impl History {
    pub(super) fn new() -> Self {
        Self { totals: vec![0.0; LENGTH as usize], second: 0, known: 0 }
    }

    fn at(&self, second: u64) -> f64 {
        self.totals[(second % LENGTH) as usize]
    }

    /// Goes on by `seconds` and spreads `amount` over them; 0 adds to the second under way.
    pub(super) fn push(&mut self, seconds: u64, amount: f64) {
        if seconds == 0 {
            self.totals[(self.second % LENGTH) as usize] += amount;
            return;
        }
        let each = amount / seconds as f64;
        let mut total = self.at(self.second);
        // What lies further back than the ring cannot be asked for.
        let skipped = seconds.saturating_sub(LENGTH);
        total += each * skipped as f64;
        self.second += skipped;
        for _ in 0..seconds - skipped {
            total += each;
            self.second += 1;
            self.totals[(self.second % LENGTH) as usize] = total;
        }
        self.known = (self.known + seconds).min(LENGTH - 1);
    }

    /// How many seconds are known.
    pub(super) fn known(&self) -> usize {
        self.known as usize
    }

    /// The sum of `window` seconds that ended `ago` seconds before now; of fewer where fewer are known.
    pub(super) fn sum_before(&self, ago: usize, window: usize) -> f64 {
        let end = (ago as u64).min(self.known);
        let begin = end.saturating_add(window as u64).min(self.known);
        self.at(self.second - end) - self.at(self.second - begin)
    }

    /// The sum of the last `window` seconds.
    pub(super) fn sum(&self, window: usize) -> f64 {
        self.sum_before(0, window)
    }

    /// The mean per second of the last `window` seconds, of as many as are known.
    pub(super) fn mean(&self, window: usize) -> f64 {
        self.sum(window) / window.min(self.known()).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_is_spread_over_the_seconds_it_came_in() {
        let mut history = History::new();
        history.push(1, 5.0);
        history.push(4, 20.0);
        history.push(0, 1.0);
        assert_eq!(history.known(), 5);
        assert_eq!(history.sum(1), 6.0);
        assert_eq!(history.sum(2), 11.0);
        assert_eq!(history.sum_before(1, 2), 10.0);
        assert_eq!(history.sum(100), 26.0);
        assert_eq!(history.mean(100), 5.2);
    }

    proptest! {
        #[test]
        fn any_window_is_the_sum_of_its_seconds(amounts in proptest::collection::vec(0_u32..1000, 1..1500), ago in 0_usize..300, window in 1_usize..200) {
            let mut history = History::new();
            for amount in &amounts {
                history.push(1, f64::from(*amount));
            }
            let known = amounts.len().min(LENGTH as usize - 1);
            let end = amounts.len() - ago.min(known);
            let begin = amounts.len() - (ago + window).min(known);
            let expected: u32 = amounts[begin..end].iter().sum();
            prop_assert_eq!(history.sum_before(ago, window), f64::from(expected));
        }

        #[test]
        fn a_pause_of_any_length_is_survived(pause in 0_u64..u64::MAX / 4) {
            let mut history = History::new();
            history.push(pause, 100.0);
            history.push(1, 7.0);
            prop_assert!((history.sum(1) - 7.0).abs() < 1e-9);
        }
    }
}
