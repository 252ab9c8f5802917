//! `context-length-aware`: a scorer, and a filter where that is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, Filter, LabelFact, SchedulingRequest, Scorer};

/// The most that an endpoint gets whose range the prompt is not in, and less than any gets whose range it is in.
const BEST_OUTSIDE: f64 = 0.3;

/// Prefers endpoints whose label says that they are for prompts of such a length, the narrower the better.
#[derive(Clone, Copy, Debug)]
pub struct ContextLengthAware {
    /// Position of the range among an endpoint's facts.
    pub fact: usize,
    /// Whether endpoints are taken away whose range the prompt is not in.
    pub filters: bool,
}

/// What a label says of the prompts that an endpoint is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Range {
    /// There is no label.
    Any,
    /// It is not `least-most`.
    Unreadable,
    /// Tokens, both included.
    Within(u32, u32),
}

impl Range {
    fn of_fact(fact: u64) -> Self {
        match ((fact >> 32) as u32, fact as u32) {
            (0, 0) => Self::Any,
            (least, most) if least > most => Self::Unreadable,
            (least, most) => Self::Within(least, most),
        }
    }

    fn fact(self) -> u64 {
        match self {
            Self::Any => 0,
            Self::Unreadable => 1 << 32,
            // A range up to nothing holds no prompt, as one up to a token holds none but the shortest.
            Self::Within(least, most) => u64::from(least) << 32 | u64::from(most.max(1)),
        }
    }

    fn score(self, tokens: u64) -> f64 {
        let Self::Within(least, most) = self else { return if self == Self::Any { 0.5 } else { 0.0 } };
        let (least, most) = (u64::from(least), u64::from(most));
        if (least..=most).contains(&tokens) {
            let width = (most - least) as f64;
            if width == 0.0 {
                return 1.0;
            }
            let narrow = 1.0 / (1.0 + width / 10_000.0);
            let headroom = (most - tokens) as f64 / width;
            return BEST_OUTSIDE + (0.7 * narrow + 0.3 * headroom) * (1.0 - BEST_OUTSIDE);
        }
        let distance = if tokens > most { tokens - most } else { least - tokens };
        BEST_OUTSIDE / (1.0 + distance as f64 / 1000.0)
    }

    fn holds(self, tokens: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Unreadable => false,
            Self::Within(least, most) => (u64::from(least)..=u64::from(most)).contains(&tokens),
        }
    }
}

/// Reads the label.
#[derive(Debug)]
struct RangeLabel(String);

impl LabelFact for RangeLabel {
    fn of(&self, labels: &BTreeMap<String, String>) -> u64 {
        let Some(text) = labels.get(&self.0) else { return Range::Any.fact() };
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let range = text.split_once('-').and_then(|(least, most)| Some((number(least)?, number(most)?)));
        match range.filter(|(least, most)| least <= most) {
            Some((least, most)) => Range::Within(least, most).fact(),
            None => {
                let label = &self.0;
                tracing::warn!(%label, value = %text, "a pod's label is no range of tokens: write it as 0-8192; it gets no preference");
                Range::Unreadable.fact()
            }
        }
    }
}

impl ContextLengthAware {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let label = parameters.text("label").unwrap_or_else(|| "llm-d.ai/context-length-range".to_owned());
        Self { fact: parameters.fact(Arc::new(RangeLabel(label))), filters: parameters.boolean("enableFiltering", false) }
    }

    fn range(&self, candidate: &Candidate<'_>) -> Range {
        Range::of_fact(candidate.fact(self.fact))
    }
}

impl Scorer for ContextLengthAware {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        let tokens = request.input_tokens();
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            *score = Some(self.range(candidate).score(tokens));
        }
    }
}

impl Filter for ContextLengthAware {
    fn filter(&self, request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        if self.filters {
            let tokens = request.input_tokens();
            candidates.retain(|candidate| self.range(candidate).holds(tokens));
        }
    }
}
