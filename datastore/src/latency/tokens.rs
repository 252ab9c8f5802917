//! Tokens a second, off the counters that every page has anyway.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{APART, SLOTS, WINDOW};
use crate::load::{Counters, EndpointLoad};

/// The growth of one endpoint's token counters: at most 7 snapshots of 56 bytes.
#[derive(Debug, Default)]
pub struct TokenWindow {
    last: Option<Seen>,
    steps: VecDeque<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    prompt: Option<f64>,
    generation: Option<f64>,
    queues: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    from: Instant,
    to: Instant,
    prompt: Option<f64>,
    generation: Option<f64>,
    /// Whether requests waited at both ends.
    busy: bool,
}

/// How many tokens a second one endpoint handled in the minute before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenRates {
    /// When the last page of it was asked for; none before the second.
    pub as_of: Option<Instant>,
    /// Prompt tokens.
    pub prompt: Option<f64>,
    /// Tokens generated.
    pub generation: Option<f64>,
    /// Prompt tokens while requests waited in the server: what it can do, not what it was asked to.
    pub busy_prompt: Option<f64>,
}

impl TokenWindow {
    /// Learns from a page, if the last one it learnt from is long enough ago; the rates where it did. Costs one comparison otherwise.
    pub fn learn(&mut self, load: &EndpointLoad) -> Option<TokenRates> {
        let at = load.scraped_at;
        if self.last.is_some_and(|last| at.saturating_duration_since(last.at) < APART) {
            return None;
        }
        let Counters { prompt_tokens: prompt, generation_tokens: generation, .. } = load.counters;
        let queues = load.waiting.is_some_and(|waiting| waiting.value > 0.0);
        let before = self.last.replace(Seen { at, prompt, generation, queues });
        if let Some(before) = before.filter(|before| at - before.at <= WINDOW) {
            self.steps.push_back(Step {
                from: before.at,
                to: at,
                prompt: added(before.prompt, prompt),
                generation: added(before.generation, generation),
                busy: before.queues && queues,
            });
        }
        let in_window = |step: &Step| at.saturating_duration_since(step.from) <= WINDOW + APART / 2;
        while self.steps.len() > SLOTS || self.steps.front().is_some_and(|step| !in_window(step)) {
            self.steps.pop_front();
        }
        Some(TokenRates {
            as_of: self.steps.back().map(|step| step.to),
            prompt: self.rate(|step| step.prompt),
            generation: self.rate(|step| step.generation),
            busy_prompt: self.rate(|step| step.prompt.filter(|_| step.busy)),
        })
    }

    fn rate(&self, tokens: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
        let add = |sum: Option<(f64, f64)>, step: &Step| match tokens(step) {
            None => sum,
            Some(more) => {
                let (tokens, seconds) = sum.unwrap_or_default();
                Some((tokens + more, seconds + (step.to - step.from).as_secs_f64()))
            }
        };
        self.steps.iter().fold(None, add).map(|(tokens, seconds)| tokens / seconds)
    }
}

/// A counter that fell began at 0.
fn added(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    let (before, after) = (before?, after?);
    Some(if after < before { after } else { after - before })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{PageClock, PageMemory, PageReader};
    use crate::page::Format;

    fn load(at: Instant, waiting: u32, prompt: u32, generation: u32) -> EndpointLoad {
        let page = format!(
            "vllm:num_requests_waiting {waiting}\nvllm:prompt_tokens_total {prompt}\nvllm:generation_tokens_total {generation}\n"
        );
        let clock = PageClock { asked_at: at, wall_ms: 0, stale_after_ms: 2_000 };
        PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap()
    }

    #[test]
    fn rates_are_of_the_last_minute_and_busy_ones_of_when_requests_waited() {
        let start = Instant::now();
        let at = |step: u32| start + APART * step;
        let mut window = TokenWindow::default();
        let first = window.learn(&load(at(0), 0, 1000, 500)).unwrap();
        assert_eq!(first, TokenRates::default());
        assert_eq!(window.learn(&load(at(1) - Duration::from_millis(1), 0, 2000, 500)), None);
        let rates = window.learn(&load(at(1), 2, 2000, 600)).unwrap();
        assert_eq!((rates.as_of, rates.prompt, rates.generation, rates.busy_prompt), (Some(at(1)), Some(100.0), Some(10.0), None));
        let rates = window.learn(&load(at(2), 3, 5000, 600)).unwrap();
        assert_eq!((rates.prompt, rates.busy_prompt), (Some(200.0), Some(300.0)));
        let rates = window.learn(&load(at(3), 0, 400, 0)).unwrap();
        assert_eq!((rates.prompt, rates.busy_prompt), (Some((1000.0 + 3000.0 + 400.0) / 30.0), Some(300.0)), "began at 0");
        let later = (4..20).filter_map(|step| window.learn(&load(at(step), 0, 400, 0))).last().unwrap();
        assert_eq!((later.prompt, later.busy_prompt, window.steps.len()), (Some(0.0), None, SLOTS));
    }

    #[test]
    fn after_more_than_a_minute_without_pages_it_begins_anew() {
        let start = Instant::now();
        let mut window = TokenWindow::default();
        window.learn(&load(start, 0, 0, 0));
        let rates = window.learn(&load(start + Duration::from_secs(90), 0, 9000, 0)).unwrap();
        assert_eq!(rates, TokenRates::default());
    }
}
