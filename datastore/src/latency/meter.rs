//! What a picker measures itself, request by request.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::histogram::ByBounds;
use super::{APART, Histogram, Latency, MOST_MODELS, SLOTS};

/// The upper bound of the first bucket, in seconds.
const LOWEST: f64 = 0.0001;
/// Each bucket is 4 % wide.
const WIDTH: f64 = 1.04;
/// Buckets but for the highest: the last bound is 3,671 s.
const BUCKETS: usize = 445;

/// The bounds of a picker's buckets: 0.1 ms × 1.04ⁿ, up to an hour.
pub fn log_bounds() -> Arc<[f64]> {
    static BOUNDS: OnceLock<Arc<[f64]>> = OnceLock::new();
    BOUNDS.get_or_init(|| (0..BUCKETS).map(|place| LOWEST * WIDTH.powi(place as i32)).collect()).clone()
}

/// The bucket of `seconds`.
fn bucket(seconds: f64) -> u16 {
    let place = ((seconds / LOWEST).ln() / WIDTH.ln()).ceil();
    // Not a number, and what is below the first bound, is 0; the cast saturates.
    (place.max(0.0) as u16).min(BUCKETS as u16)
}

/// Buckets that are not empty, each with its count, by their place.
pub type Spans = Vec<(u16, u32)>;

/// What the requests of one model took, in the last minute.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelLatencies {
    /// The model that was asked for.
    pub model: Arc<str>,
    /// Time to first token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ttft: Spans,
    /// Time per output token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tpot: Spans,
    /// End to end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub e2e: Spans,
    /// In the picker, until there was an endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Spans,
    /// Prompts of which the server told the length.
    #[serde(default)]
    pub prompts: u64,
    /// Their tokens.
    #[serde(default)]
    pub prompt_tokens: u64,
}

impl ModelLatencies {
    fn spans(&self, signal: Latency) -> &Spans {
        match signal {
            Latency::TimeToFirstToken => &self.ttft,
            Latency::TimePerOutputToken => &self.tpot,
            Latency::EndToEnd => &self.e2e,
            Latency::Queue => &self.queue,
        }
    }

    /// Whether it can be true: as many buckets as there are, each once, in order.
    pub fn is_sound(&self) -> bool {
        let sound = |spans: &Spans| {
            spans.is_sorted_by(|one, other| one.0 < other.0) && spans.last().is_none_or(|last| usize::from(last.0) <= BUCKETS)
        };
        Latency::ALL.into_iter().all(|signal| sound(self.spans(signal)))
    }
}

/// What one picker measured in the last minute.
#[derive(Clone, Debug, PartialEq)]
pub struct PickerLatencies {
    /// When it was summed up.
    pub as_of: Instant,
    /// By model; at most [`MOST_MODELS`], those of the rest as `other`.
    pub models: Vec<ModelLatencies>,
}

impl PickerLatencies {
    /// The histograms of `signal`, of `model` or of all.
    pub(crate) fn add_to(&self, all: &mut ByBounds, signal: Latency, model: Option<&str>) {
        for found in self.models.iter().filter(|found| model.is_none_or(|model| *found.model == *model)) {
            let mut histogram = Histogram::empty(log_bounds());
            found.spans(signal).iter().for_each(|(place, count)| histogram.count_in(usize::from(*place), u64::from(*count)));
            all.add(&histogram);
        }
    }
}

/// The name of the models that are not told apart.
pub(crate) const OTHER: &str = "other";

/// What a picker measures of its requests: per model and signal the non-empty buckets of the last minute, in steps of 10 s.
///
/// Bounded: 33 models × 4 signals × 7 steps × at most 446 buckets of some 10 bytes, 4 MB at the very worst; 1,000 requests a minute of
/// one model take about 20 KB.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    step: Step,
    steps: VecDeque<Step>,
}

type Step = BTreeMap<Arc<str>, Measured>;

#[derive(Debug, Default)]
struct Measured {
    spans: [BTreeMap<u16, u32>; Latency::ALL.len()],
    prompts: u64,
    prompt_tokens: u64,
}

impl Meter {
    /// Nothing measured yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, step: Step::new(), steps: VecDeque::new() }
    }

    /// A request of `model` took `seconds`.
    pub fn observe(&mut self, model: &Arc<str>, signal: Latency, seconds: f64) {
        let count = self.of(model).spans[signal as usize].entry(bucket(seconds)).or_default();
        *count = count.saturating_add(1);
    }

    /// A prompt for `model` had so many tokens.
    pub fn prompt(&mut self, model: &Arc<str>, tokens: u64) {
        let measured = self.of(model);
        measured.prompts = measured.prompts.saturating_add(1);
        measured.prompt_tokens = measured.prompt_tokens.saturating_add(tokens);
    }

    fn of(&mut self, model: &Arc<str>) -> &mut Measured {
        if !self.step.contains_key(model) && self.step.len() >= MOST_MODELS {
            return self.step.entry(OTHER.into()).or_default();
        }
        self.step.entry(model.clone()).or_default()
    }

    /// When the current step ends.
    pub fn due(&self) -> Instant {
        self.began + APART
    }

    /// Ends the current step at `now`, and sums up the last minute.
    pub fn close(&mut self, now: Instant) -> PickerLatencies {
        // A picker that was held up does not call an hour a step: whatever it measured then has just ended.
        self.steps.push_back(std::mem::take(&mut self.step));
        self.began = now;
        while self.steps.len() > SLOTS {
            self.steps.pop_front();
        }
        let mut sums = Step::new();
        // The newest first: where there are too many models, those of the last steps keep their names.
        for (model, measured) in self.steps.iter().rev().flatten() {
            let known = sums.contains_key(model) || sums.len() < MOST_MODELS;
            sums.entry(if known { model.clone() } else { OTHER.into() }).or_default().add(measured);
        }
        let models = sums.into_iter().map(|(model, measured)| measured.told(model)).collect();
        PickerLatencies { as_of: now, models }
    }
}

impl Measured {
    fn add(&mut self, other: &Self) {
        for (sum, spans) in self.spans.iter_mut().zip(&other.spans) {
            for (place, more) in spans {
                let count = sum.entry(*place).or_default();
                *count = count.saturating_add(*more);
            }
        }
        self.prompts = self.prompts.saturating_add(other.prompts);
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
    }

    fn told(self, model: Arc<str>) -> ModelLatencies {
        let [ttft, tpot, e2e, queue] = self.spans.map(|spans| spans.into_iter().collect());
        ModelLatencies { model, ttft, tpot, e2e, queue, prompts: self.prompts, prompt_tokens: self.prompt_tokens }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantile(told: &PickerLatencies, model: Option<&str>, quantile: f64) -> Option<f64> {
        let mut all = ByBounds::default();
        told.add_to(&mut all, Latency::TimeToFirstToken, model);
        all.quantile(quantile, 1).map(|found| found.value)
    }

    #[test]
    fn a_minute_counts_and_no_more() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let model: Arc<str> = "m".into();
        meter.observe(&model, Latency::TimeToFirstToken, 2.0);
        meter.prompt(&model, 700);
        assert_eq!(meter.due(), start + APART);
        let told: Vec<_> = (1..8).map(|step| meter.close(start + APART * step).models.len()).collect();
        assert_eq!(told, [1, 1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn what_cannot_be_measured_has_a_bucket() {
        for (seconds, place) in [(f64::NAN, 0), (-1.0, 0), (0.0, 0), (LOWEST, 0), (f64::INFINITY, BUCKETS), (1e9, BUCKETS)] {
            assert_eq!(usize::from(bucket(seconds)), place, "{seconds}");
        }
        assert!(log_bounds()[BUCKETS - 1] > 3600.0);
    }

    #[test]
    fn models_beyond_the_limit_are_one() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for model in 0..1000 {
            meter.observe(&format!("m{model}").into(), Latency::EndToEnd, 1.0);
        }
        let told = meter.close(start + APART);
        assert_eq!(told.models.len(), MOST_MODELS + 1);
        let other = told.models.iter().find(|model| *model.model == *OTHER).unwrap();
        assert_eq!(other.e2e.iter().map(|(_, count)| count).sum::<u32>(), 1000 - MOST_MODELS as u32);
        assert!(told.models.iter().all(ModelLatencies::is_sound));
    }

    #[test]
    fn what_cannot_be_of_a_picker_is_not_sound() {
        let of = |ttft: Spans| ModelLatencies { ttft, ..ModelLatencies::default() }.is_sound();
        assert!(of(vec![(0, 1), (445, 1)]));
        assert!(!of(vec![(1, 1), (1, 1)]) && !of(vec![(2, 1), (1, 1)]) && !of(vec![(446, 1)]));
    }

    proptest! {
        #[test]
        fn a_quantile_is_the_exact_one_within_4_percent(
            values in prop::collection::vec(0.0002..900.0_f64, 10..300), wanted in 0.01..0.99_f64,
        ) {
            let start = Instant::now();
            let mut meter = Meter::new(start);
            for (place, value) in values.iter().enumerate() {
                if place == values.len() / 2 {
                    meter.close(start + APART);
                }
                meter.observe(&format!("m{}", place % 3).into(), Latency::TimeToFirstToken, *value);
            }
            let told = meter.close(start + 2 * APART);
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let exact = sorted[((wanted * values.len() as f64).ceil() as usize).max(1) - 1];
            let found = quantile(&told, None, wanted).unwrap();
            prop_assert!((found / exact).ln().abs() <= WIDTH.ln() * 1.000_001, "{found} for {exact}");
        }
    }
}
