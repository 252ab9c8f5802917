//! The days before: what is asked for at this time of day, so that pods are there when it comes.
//!
//! Kept are the tokens a second of at most three whole days, by five minutes. Of these days the second highest counts, so two days must
//! agree, and no more is ever asked for than was needed on one of them. A today that had not half of their demand in the last half
//! hour is no such day.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::constants::{AHEAD_SECONDS, AHEAD_STARTS, DAY_BIN_SECONDS, DAY_BINS, DAYS, FOLLOWS, FOLLOWS_SECONDS};
use super::cost::Costs;

/// Tokens a second of a bin: of prompts, and generated.
type Tokens = (u32, u32);

/// One day, as it is kept and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Day {
    /// Days since 1970-01-01 (UTC).
    pub day: u64,
    /// Highest two-minute means of prompt and generated tokens a second, by five minutes; null where nothing was measured.
    pub tokens: Vec<Option<Tokens>>,
}

impl Day {
    fn new(day: u64) -> Self {
        Self { day, tokens: vec![None; DAY_BINS] }
    }

    /// The dearest of the bins, some of which may lie in the next day of the same kind.
    fn dearest(&self, first: u64, bins: u64, costs: Costs) -> Option<f64> {
        let of = |bin: u64| self.tokens.get((bin % DAY_BINS as u64) as usize).copied().flatten();
        (first..first + bins.min(DAY_BINS as u64)).filter_map(of).map(|tokens| work(tokens, costs)).reduce(f64::max)
    }

    fn is_whole(&self) -> bool {
        self.tokens.len() == DAY_BINS && self.tokens.iter().flatten().count() * 10 >= DAY_BINS * 9
    }
}

fn work((prompt, generated): Tokens, costs: Costs) -> f64 {
    costs.work(f64::from(prompt), f64::from(generated))
}

/// The last days and today.
#[derive(Clone, Debug, Default)]
pub(super) struct Daily {
    days: VecDeque<Day>,
    today: Option<Day>,
}

impl Daily {
    pub(super) fn days(&self) -> Vec<Day> {
        self.days.iter().cloned().collect()
    }

    pub(super) fn set(&mut self, days: Vec<Day>) {
        self.days = days.into_iter().filter(Day::is_whole).collect();
        while self.days.len() > DAYS {
            self.days.pop_front();
        }
        // What was seen of today goes on, where another process kept the days before.
        let last = self.days.back().map(|day| day.day);
        self.today = self.today.take().filter(|today| last.is_none_or(|last| last < today.day));
    }

    /// Notes what is asked for now, in tokens a second.
    pub(super) fn record(&mut self, now: Duration, prompt: f64, generated: f64) {
        let day = now.as_secs() / 86_400;
        if self.today.as_ref().is_none_or(|today| today.day != day)
            && let Some(before) = self.today.replace(Day::new(day))
            && before.is_whole()
        {
            self.days.push_back(before);
            if self.days.len() > DAYS {
                self.days.pop_front();
            }
        }
        let Some(today) = &mut self.today else { return };
        let bin = (now.as_secs() % 86_400 / DAY_BIN_SECONDS) as usize;
        let (p, g) = today.tokens[bin].unwrap_or_default();
        // The casts saturate.
        today.tokens[bin] = Some((p.max(prompt.round() as u32), g.max(generated.round() as u32)));
    }

    /// The work, in replicas, that the days before had between now and when a pod asked for now is ready. `None` with fewer than two
    /// days, or when today is not like them.
    pub(super) fn ahead(&self, now: Duration, start: f64, costs: Costs) -> Option<f64> {
        let lead = AHEAD_STARTS * start + AHEAD_SECONDS;
        let first = now.as_secs() % 86_400 / DAY_BIN_SECONDS;
        let last = (now.as_secs() % 86_400 + lead as u64) / DAY_BIN_SECONDS;
        let expected = self.second_highest(first, last - first + 1, costs)?;
        self.is_followed(now, costs).then_some(expected)
    }

    fn second_highest(&self, first: u64, bins: u64, costs: Costs) -> Option<f64> {
        let mut works: Vec<f64> = self.days.iter().filter_map(|day| day.dearest(first, bins, costs)).collect();
        works.sort_by(f64::total_cmp);
        works.len().checked_sub(2).map(|index| works[index])
    }

    /// Whether today had at least half of what these days had in the last half hour, as far as it was seen.
    fn is_followed(&self, now: Duration, costs: Costs) -> bool {
        let Some(today) = &self.today else { return true };
        let bin = now.as_secs() % 86_400 / DAY_BIN_SECONDS;
        let (mut had, mut expected) = (0.0, 0.0);
        for bin in bin.saturating_sub(FOLLOWS_SECONDS / DAY_BIN_SECONDS)..bin {
            let (Some(tokens), Some(usual)) = (today.tokens[bin as usize], self.second_highest(bin, 1, costs)) else { continue };
            had += work(tokens, costs);
            expected += usual;
        }
        had >= FOLLOWS * expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs { prompt: 0.0, token: 0.001 };

    fn at(day: u64, hour: f64) -> Duration {
        Duration::from_secs_f64(day as f64 * 86_400.0 + hour * 3600.0)
    }

    /// Days with 8,000 tokens a second from nine to ten and 2,000 else.
    fn with_days(count: u64) -> Daily {
        let mut daily = Daily::default();
        for day in 0..=count {
            for bin in 0..DAY_BINS as u64 {
                if day == count {
                    break;
                }
                let hour = bin as f64 / 12.0;
                daily.record(at(day, hour), 0.0, if (9.0..10.0).contains(&hour) { 8000.0 } else { 2000.0 });
            }
        }
        daily.record(at(count, 0.0), 0.0, 2000.0);
        daily
    }

    #[test]
    fn two_days_must_agree() {
        assert_eq!(with_days(1).ahead(at(1, 9.0), 300.0, COSTS), None);
        assert_eq!(with_days(2).ahead(at(2, 9.0), 300.0, COSTS), Some(8.0));
        let mut odd = with_days(2);
        odd.days[0].tokens[12 * 15] = Some((0, 100_000));
        assert_eq!(odd.ahead(at(2, 15.0), 300.0, COSTS), Some(2.0));
    }

    #[test]
    fn it_looks_one_start_ahead_and_no_further() {
        let daily = with_days(3);
        assert_eq!(daily.ahead(at(3, 8.92), 300.0, COSTS), Some(8.0));
        assert_eq!(daily.ahead(at(3, 8.70), 300.0, COSTS), Some(2.0));
        assert_eq!(daily.ahead(at(3, 10.1), 300.0, COSTS), Some(2.0));
        assert_eq!(daily.ahead(at(3, 23.99), 3600.0, COSTS), Some(2.0), "over midnight");
    }

    #[test]
    fn a_day_without_the_demand_is_not_such_a_day() {
        let mut daily = with_days(2);
        for minute in 0..40 {
            daily.record(at(2, 9.0 + f64::from(minute) / 60.0), 0.0, 500.0);
        }
        assert_eq!(daily.ahead(at(2, 9.67), 300.0, COSTS), None);
    }

    #[test]
    fn no_more_than_three_whole_days_are_kept() {
        let daily = with_days(9);
        assert_eq!(daily.days().iter().map(|day| day.day).collect::<Vec<_>>(), [6, 7, 8]);
        let mut broken = Daily::default();
        broken.set(vec![Day { day: 1, tokens: vec![Some((1, 1)); 7] }]);
        assert!(broken.days().is_empty());
    }
}
