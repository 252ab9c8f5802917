//! What arrives: requests with their times and tokens, from a shape or from a trace.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model_size::ModelSize;

/// Longest prompt and answer that is drawn.
pub const LONGEST: u32 = 32_768;
/// Most requests of one load.
pub const MOST_REQUESTS: usize = 10_000_000;
/// Longest load, in seconds: a week.
pub const LONGEST_LOAD: f64 = 7.0 * 86_400.0;
/// Spread (σ of the logarithm) of drawn prompts and answers.
const PROMPT_SPREAD: f64 = 0.5;
const OUTPUT_SPREAD: f64 = 0.7;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Seconds since the start.
    pub at: f64,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens of the answer.
    pub output: u32,
}

/// A load, in the order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// How it is called.
    pub name: String,
    /// How long it is looked at, in seconds.
    pub seconds: f64,
    /// The requests.
    pub arrivals: Vec<Arrival>,
}

/// A load by name. Sizes are in replicas that would be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// 2, and from the 20th minute on 8: an hour.
    Step,
    /// From 1 to 8 in 50 minutes, 10 minutes before and after.
    Ramp,
    /// Between 1 and 8 and back in three hours.
    Diurnal,
    /// 2 and 6 by turns, for 240 and 90 s in the mean: an hour.
    Bursts,
    /// 1, and 10 for three minutes from the 20th on: an hour.
    Flash,
    /// 1.5; prompts are eight times as long from the 20th to the 50th minute of an hour.
    LongPrompts,
    /// Nothing, and 1.5 from the second minute of an hour on.
    FromZero,
    /// From 4 to nothing in 20 minutes of an hour.
    ToZero,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Step, Self::Ramp, Self::Diurnal, Self::Bursts, Self::Flash, Self::LongPrompts, Self::FromZero, Self::ToZero];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Ramp => "ramp",
            Self::Diurnal => "diurnal",
            Self::Bursts => "bursts",
            Self::Flash => "flash",
            Self::LongPrompts => "long-prompts",
            Self::FromZero => "from-zero",
            Self::ToZero => "to-zero",
        }
    }

    /// The one of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name() == name)
    }

    /// Whether it begins or ends with nothing, so that the pool may go to zero.
    pub fn has_zero(self) -> bool {
        matches!(self, Self::FromZero | Self::ToZero)
    }

    /// How long it is looked at, in seconds.
    pub fn seconds(self) -> f64 {
        match self {
            Self::Ramp => 4200.0,
            Self::Diurnal => 10_800.0,
            _ => 3600.0,
        }
    }

    fn peak(self) -> f64 {
        match self {
            Self::Step | Self::Ramp | Self::Diurnal => 8.0,
            Self::Bursts => 6.0,
            Self::Flash => 10.0,
            Self::LongPrompts | Self::FromZero => 1.5,
            Self::ToZero => 4.0,
        }
    }

    /// The load in full replicas at a time; bursts are drawn beside.
    fn level(self, at: f64, high: bool) -> f64 {
        match self {
            Self::Step => {
                if at < 1200.0 {
                    2.0
                } else {
                    8.0
                }
            }
            Self::Ramp => 1.0 + 7.0 * ((at - 600.0) / 3000.0).clamp(0.0, 1.0),
            Self::Diurnal => 4.5 - 3.5 * (at / 10_800.0 * std::f64::consts::TAU).cos(),
            Self::Bursts => {
                if high {
                    6.0
                } else {
                    2.0
                }
            }
            Self::Flash => {
                if (1200.0..1380.0).contains(&at) {
                    10.0
                } else {
                    1.0
                }
            }
            Self::LongPrompts => 1.5,
            Self::FromZero => {
                if at < 120.0 {
                    0.0
                } else {
                    1.5
                }
            }
            Self::ToZero => 4.0 * (1.0 - at / 1200.0).max(0.0),
        }
    }

    fn prompt_factor(self, at: f64) -> f64 {
        if self == Self::LongPrompts && (1200.0..3000.0).contains(&at) { 8.0 } else { 1.0 }
    }

    /// Draws the requests that servers of `size` get, `scale` times as many as named.
    pub fn draw(self, size: &ModelSize, scale: f64, seed: u64) -> Load {
        self.draw_at(size, scale, seed, |at| at)
    }

    /// A day on which nothing of it happens: what it begins with goes on.
    pub fn draw_without(self, size: &ModelSize, scale: f64, seed: u64) -> Load {
        Load { name: format!("no {}", self.name()), ..self.draw_at(size, scale, seed, |_| 0.0) }
    }

    /// `clock`: the time at which the shape is looked at.
    fn draw_at(self, size: &ModelSize, scale: f64, seed: u64, clock: impl Fn(f64) -> f64) -> Load {
        let mut rng = StdRng::seed_from_u64(seed);
        let full_rate = size.full_rate() * scale;
        let highest = self.peak() * full_rate;
        let mut arrivals = Vec::new();
        let mut high = false;
        let mut switch_at = exponential(&mut rng, 240.0);
        let mut at = 0.0;
        while arrivals.len() < MOST_REQUESTS {
            at += exponential(&mut rng, 1.0 / highest);
            if at >= self.seconds() {
                break;
            }
            while at >= switch_at {
                high = !high && clock(1.0) > 0.0;
                switch_at += exponential(&mut rng, if high { 90.0 } else { 240.0 });
            }
            if rng.random::<f64>() * self.peak() >= self.level(clock(at), high) {
                continue;
            }
            let prompt = log_normal(&mut rng, size.prompt_tokens * self.prompt_factor(clock(at)), PROMPT_SPREAD);
            let output = log_normal(&mut rng, size.output_tokens, OUTPUT_SPREAD);
            arrivals.push(Arrival { at, prompt, output });
        }
        Load { name: self.name().to_owned(), seconds: self.seconds(), arrivals }
    }
}

impl Load {
    /// Full replicas' worth of work arriving, by the second: the mean over `window` seconds around it.
    pub fn work(&self, size: &ModelSize, window: usize) -> Vec<f64> {
        let seconds = self.seconds.ceil().max(1.0) as usize;
        let mut sums = vec![0.0; seconds + 1];
        for arrival in &self.arrivals {
            let second = (arrival.at as usize).min(seconds - 1);
            sums[second + 1] += size.profile.work(f64::from(arrival.prompt), f64::from(arrival.output));
        }
        for second in 1..=seconds {
            sums[second] += sums[second - 1];
        }
        (0..seconds)
            .map(|second| {
                let begin = second.saturating_sub(window / 2);
                let end = (second + window.div_ceil(2)).clamp(begin + 1, seconds);
                (sums[end] - sums[begin]) / (end - begin) as f64
            })
            .collect()
    }
}

fn exponential(rng: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

fn log_normal(rng: &mut StdRng, mean: f64, spread: f64) -> u32 {
    let drawn = (mean.ln() - spread * spread / 2.0 + spread * standard_normal(rng)).exp();
    (drawn.round() as u32).clamp(1, LONGEST)
}

/// A standard normal value (Box–Muller): rand's own distributions live in another crate.
pub(crate) fn standard_normal(rng: &mut StdRng) -> f64 {
    let radius: f64 = 1.0 - rng.random::<f64>();
    let angle: f64 = rng.random::<f64>() * std::f64::consts::TAU;
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_the_work_it_names() {
        let size = ModelSize::small();
        let work = Shape::Step.draw(&size, 1.0, 3).work(&size, 300);
        assert!((work[600] - 2.0).abs() < 0.1, "{}", work[600]);
        assert!((work[2400] - 8.0).abs() < 0.2, "{}", work[2400]);
        let long = Shape::LongPrompts.draw(&size, 1.0, 3).work(&size, 300);
        assert!((long[600] - 1.5).abs() < 0.1 && long[2400] > 7.0, "{} {}", long[600], long[2400]);
    }

    #[test]
    fn the_seed_decides_all() {
        let size = ModelSize::large();
        assert_eq!(Shape::Bursts.draw(&size, 1.0, 7), Shape::Bursts.draw(&size, 1.0, 7));
        assert_ne!(Shape::Bursts.draw(&size, 1.0, 7), Shape::Bursts.draw(&size, 1.0, 8));
    }

    #[test]
    fn names_lead_back() {
        for shape in Shape::ALL {
            assert_eq!(Shape::by_name(shape.name()), Some(shape));
        }
    }
}
