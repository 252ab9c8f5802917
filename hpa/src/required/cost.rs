//! What a token costs, learned from replicas that are full.
//!
//! A full replica does one second of work in a second: `prompt cost × prompt tokens + token cost × generated tokens = 1`. Tokens and
//! not requests, since completions lag by a residence; and not concurrency, since that is no straight line of the load.

use super::busy::Busy;
use super::constants::{
    COST_BOUNDS, CREEP_AT_MOST, CREEP_PER_HOUR, FIRST_SAMPLE_SECONDS, LARGEST_CORRECTION, LEARNING_RATE, MEAN_WINDOW, PROMPT_SHARE,
    SAMPLE_SECONDS,
};
use super::flow::Flow;
use super::history::History;

/// Seconds of one replica per token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Per prompt token.
    pub prompt: f64,
    /// Per generated token.
    pub token: f64,
}

impl Costs {
    /// Seconds of one replica for so many tokens.
    pub fn work(&self, prompt: f64, generated: f64) -> f64 {
        self.prompt * prompt + self.token * generated
    }

    fn scaled(self, prompt: f64, token: f64) -> Self {
        let (least, most) = COST_BOUNDS;
        Self { prompt: (self.prompt * prompt).clamp(least, most), token: (self.token * token).clamp(least, most) }
    }
}

/// Learns the costs.
#[derive(Clone, Debug)]
pub(super) struct CostLearning {
    costs: Option<Costs>,
    /// Samples and busy endpoint-seconds that taught them.
    pub(super) samples: u64,
    pub(super) busy_seconds: f64,
    /// What is left of the costs after creeping, since the last evidence.
    crept: f64,
    busy: Busy,
    sum_prompt: f64,
    sum_generated: f64,
    sum_seconds: f64,
    /// Means over ready endpoints, by the second.
    prompt: History,
    generated: History,
    /// Seconds with nobody waiting.
    quiet: History,
    /// The highest rate of tokens an endpoint has done with nobody waiting, in generated tokens a second.
    pub(super) healthy: f64,
}

impl CostLearning {
    pub(super) fn new() -> Self {
        Self {
            costs: None,
            samples: 0,
            busy_seconds: 0.0,
            crept: 1.0,
            busy: Busy::default(),
            sum_prompt: 0.0,
            sum_generated: 0.0,
            sum_seconds: 0.0,
            prompt: History::new(),
            generated: History::new(),
            quiet: History::new(),
            healthy: 0.0,
        }
    }

    pub(super) fn costs(&self) -> Option<Costs> {
        self.costs
    }

    /// What an earlier process learned.
    pub(super) fn set(&mut self, costs: Option<Costs>, samples: u64, busy_seconds: f64, healthy: f64) {
        self.costs = costs.map(|costs| costs.scaled(1.0, 1.0));
        (self.samples, self.busy_seconds, self.healthy) = (samples, busy_seconds, healthy);
        self.crept = 1.0;
    }

    /// Learns from one turn. `traffic`: whether requests arrive.
    pub(super) fn advance(&mut self, slots: u64, flow: &Flow, held: f64, traffic: bool) {
        let busy = self.busy.advance(flow, held);
        let measured = flow.endpoints.iter().filter_map(|endpoint| endpoint.prompt.zip(endpoint.generated));
        let (count, prompt, generated) = measured
            .fold((0.0, 0.0, 0.0), |(count, p, g): (f64, f64, f64), (prompt, generated)| (count + 1.0, p + prompt, g + generated));
        let each = count.max(1.0);
        self.prompt.push(slots, prompt / each);
        self.generated.push(slots, generated / each);
        let waiting = held >= 1.0 || flow.endpoints.iter().any(|endpoint| endpoint.load.waiting >= 1.0);
        self.quiet.push(slots, if waiting || count == 0.0 || flow.gap { 0.0 } else { slots as f64 });
        if flow.gap {
            self.drop_sum();
            return;
        }
        let shares: Vec<(f64, f64)> = busy.iter().filter_map(|endpoint| endpoint.prompt.zip(endpoint.generated)).collect();
        if shares.is_empty() {
            self.drop_sum();
            self.learn_from_quiet(flow.seconds, traffic);
            return;
        }
        for (prompt, generated) in shares {
            self.sum_prompt += prompt;
            self.sum_generated += generated;
            self.sum_seconds += flow.seconds;
        }
        let enough = if self.costs.is_none() { FIRST_SAMPLE_SECONDS } else { SAMPLE_SECONDS };
        if self.sum_seconds >= enough {
            self.learn(self.sum_prompt / self.sum_seconds, self.sum_generated / self.sum_seconds);
            self.busy_seconds += self.sum_seconds;
            self.drop_sum();
        }
    }

    fn drop_sum(&mut self) {
        (self.sum_prompt, self.sum_generated, self.sum_seconds) = (0.0, 0.0, 0.0);
    }

    /// One sample of a full replica's tokens a second.
    fn learn(&mut self, prompt: f64, generated: f64) {
        let together = PROMPT_SHARE * prompt + generated;
        if together <= 0.0 {
            return;
        }
        self.samples += 1;
        self.crept = 1.0;
        let Some(costs) = self.costs else {
            let token = 1.0 / together;
            self.costs = Some(Costs { prompt: PROMPT_SHARE * token, token }.scaled(1.0, 1.0));
            return;
        };
        let work = costs.work(prompt, generated);
        if work <= 0.0 {
            return;
        }
        let error = (1.0 / work).clamp(1.0 / LARGEST_CORRECTION, LARGEST_CORRECTION) - 1.0;
        // The kind of token that fills the replica takes the error.
        let (by_prompt, by_token) = (costs.prompt * prompt / work, costs.token * generated / work);
        let norm = by_prompt * by_prompt + by_token * by_token;
        let step = LEARNING_RATE * error / norm;
        self.costs = Some(costs.scaled((1.0 + step * by_prompt).max(0.1), (1.0 + step * by_token).max(0.1)));
    }

    /// With nobody busy: more done than was thought possible, or slowly cheaper until somebody is busy again.
    fn learn_from_quiet(&mut self, seconds: f64, traffic: bool) {
        if self.quiet.known() >= MEAN_WINDOW && self.quiet.sum(MEAN_WINDOW) >= MEAN_WINDOW as f64 - 0.5 {
            let done = PROMPT_SHARE * self.prompt.mean(MEAN_WINDOW) + self.generated.mean(MEAN_WINDOW);
            self.healthy = self.healthy.max(done);
        }
        let Some(costs) = self.costs else { return };
        if self.prompt.known() >= MEAN_WINDOW {
            let work = costs.work(self.prompt.mean(MEAN_WINDOW), self.generated.mean(MEAN_WINDOW));
            if work > 1.0 {
                self.costs = Some(costs.scaled(1.0 / work, 1.0 / work));
                self.crept = 1.0;
                return;
            }
        }
        if traffic && self.crept > CREEP_AT_MOST {
            let less = (1.0 - CREEP_PER_HOUR).powf(seconds / 3600.0);
            self.crept *= less;
            self.costs = Some(costs.scaled(less, less));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica whose true costs are these, full of prompts and tokens in a given proportion.
    fn full(truth: Costs, prompts_per_token: f64) -> (f64, f64) {
        let generated = 1.0 / truth.work(prompts_per_token, 1.0);
        (prompts_per_token * generated, generated)
    }

    #[test]
    fn two_mixes_tell_the_two_costs_apart() {
        let truth = Costs { prompt: 5e-5, token: 9.4e-5 };
        let mut learning = CostLearning::new();
        for round in 0..400 {
            let (prompt, generated) = full(truth, if round % 2 == 0 { 2.5 } else { 20.0 });
            learning.learn(prompt, generated);
        }
        let costs = learning.costs().unwrap();
        assert!((costs.prompt / truth.prompt - 1.0).abs() < 0.01, "{costs:?}");
        assert!((costs.token / truth.token - 1.0).abs() < 0.01, "{costs:?}");
    }

    #[test]
    fn one_mix_gives_the_right_cost_of_a_request() {
        let truth = Costs { prompt: 5e-5, token: 9.4e-5 };
        let mut learning = CostLearning::new();
        for _ in 0..20 {
            let (prompt, generated) = full(truth, 2.56);
            learning.learn(prompt, generated);
        }
        let believed = learning.costs().unwrap().work(512.0, 200.0);
        assert!((believed / truth.work(512.0, 200.0) - 1.0).abs() < 0.01, "{believed}");
    }

    #[test]
    fn no_sample_leaves_the_bounds() {
        let mut learning = CostLearning::new();
        learning.learn(1e12, 1e12);
        for _ in 0..1000 {
            learning.learn(1e12, 0.0);
            learning.learn(0.0, 1e-12);
            let costs = learning.costs().unwrap();
            for cost in [costs.prompt, costs.token] {
                assert!((COST_BOUNDS.0..=COST_BOUNDS.1).contains(&cost), "{costs:?}");
            }
        }
    }
}
