//! What a replica counts over its life.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Sequence;
use super::histogram::{Bounds, Histogram};
use super::request::FinishReason;

/// Most combinations of running and waiting adapters that are remembered. The real server never forgets one.
const LORA_COMBINATIONS_LIMIT: usize = 1024;

/// Counters and histograms since the start. Pairs are indexed by `streaming as usize`.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Requests that ended by themselves.
    pub finished_stop: u64,
    /// Requests that reached the client's maximum.
    pub finished_length: u64,
    /// Requests whose client left.
    pub aborted: u64,
    /// Requests that ended without an abort.
    pub completed: [u64; 2],
    /// Prompt tokens of requests that ended without an abort.
    pub completed_prompt_tokens: [u64; 2],
    /// Output tokens of requests that ended without an abort.
    pub completed_generation_tokens: [u64; 2],
    /// Sequences thrown out for lack of blocks.
    pub preemptions: u64,
    /// Their prompt tokens.
    pub preempted_prompt_tokens: u64,
    /// Their output tokens so far.
    pub preempted_generation_tokens: u64,
    /// Prompt tokens of prompts whose first token is out.
    pub prompt_tokens: u64,
    /// Those of them that came from the prefix cache.
    pub prompt_tokens_cached: u64,
    /// Output tokens.
    pub generation_tokens: u64,
    /// Prompt tokens computed, recomputation included.
    pub prefill_tokens_computed: u64,
    /// Tokens looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens found there.
    pub prefix_hits: u64,
    /// Steps that computed prompt tokens.
    pub prefill_steps: u64,
    /// Steps that only decoded.
    pub decode_steps: u64,
    /// Time spent in steps.
    pub busy: Duration,
    /// Seconds from arrival to the first token.
    pub time_to_first_token: [Histogram; 2],
    /// Seconds between a request's tokens.
    pub inter_token: Histogram,
    /// Mean seconds per output token after the first, once per request.
    pub time_per_output_token: Histogram,
    /// Seconds from arrival to the end.
    pub end_to_end: [Histogram; 2],
    /// Seconds from arrival to first being scheduled.
    pub queue: Histogram,
    /// Seconds from there to the first token.
    pub prefill: Histogram,
    /// Seconds from the first token to the last.
    pub decode: Histogram,
    /// Seconds from first being scheduled to the last token.
    pub inference: Histogram,
    /// Prompt tokens per request.
    pub request_prompt_tokens: Histogram,
    /// Output tokens per request.
    pub request_generation_tokens: Histogram,
    /// The maximum a request named, or the room it had.
    pub request_max_tokens: Histogram,
    /// Prompt tokens per request that had to be computed.
    pub request_prefill_tokens_computed: Histogram,
    /// Prompt tokens per request found in the prefix cache.
    pub request_cached_tokens: Histogram,
    /// The `n` parameter per request.
    pub request_choices: Histogram,
    /// Tokens per step.
    pub iteration_tokens: Histogram,
    /// When each combination of (running, waiting) adapters was last seen, in time since the model's start.
    pub lora_combinations: BTreeMap<(String, String), Duration>,
    blocking_first_token_is_end: bool,
}

impl Statistics {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let pair = |set| [Histogram::new(set), Histogram::new(set)];
        Self {
            finished_stop: 0,
            finished_length: 0,
            aborted: 0,
            completed: [0; 2],
            completed_prompt_tokens: [0; 2],
            completed_generation_tokens: [0; 2],
            preemptions: 0,
            preempted_prompt_tokens: 0,
            preempted_generation_tokens: 0,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            generation_tokens: 0,
            prefill_tokens_computed: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            prefill_steps: 0,
            decode_steps: 0,
            busy: Duration::ZERO,
            time_to_first_token: pair(&bounds.time_to_first_token),
            inter_token: Histogram::new(&bounds.inter_token),
            time_per_output_token: Histogram::new(&bounds.inter_token),
            end_to_end: pair(&bounds.request),
            queue: Histogram::new(&bounds.queue),
            prefill: Histogram::new(&bounds.prefill),
            decode: Histogram::new(&bounds.request),
            inference: Histogram::new(&bounds.request),
            request_prompt_tokens: Histogram::new(&bounds.tokens),
            request_generation_tokens: Histogram::new(&bounds.tokens),
            request_max_tokens: Histogram::new(&bounds.tokens),
            request_prefill_tokens_computed: Histogram::new(&bounds.tokens),
            request_cached_tokens: Histogram::new(&bounds.cached_tokens),
            request_choices: Histogram::new(&bounds.choices),
            iteration_tokens: Histogram::new(&bounds.iteration_tokens),
            lora_combinations: BTreeMap::new(),
            blocking_first_token_is_end: bounds.blocking_first_token_is_end,
        }
    }

    /// One token of `sequence` came out at `now`; its counters are those before the token.
    pub(super) fn token(&mut self, sequence: &Sequence, now: Duration) {
        self.generation_tokens += 1;
        if let Some(previous) = sequence.last_token_at {
            self.inter_token.observe(seconds_between(previous, now));
            return;
        }
        self.prompt_tokens += u64::from(sequence.request.prompt_tokens);
        self.prompt_tokens_cached += u64::from(sequence.cached_tokens);
        if sequence.request.streaming || !self.blocking_first_token_is_end {
            let streaming = usize::from(sequence.request.streaming);
            self.time_to_first_token[streaming].observe(seconds_between(sequence.arrived_at, now));
        }
    }

    pub(super) fn preempted(&mut self, sequence: &Sequence) {
        self.preemptions += 1;
        self.preempted_prompt_tokens += u64::from(sequence.request.prompt_tokens);
        self.preempted_generation_tokens += u64::from(sequence.generated);
    }

    /// `sequence` left at `now`. An aborted one is observed as far as it came.
    pub(super) fn ended(&mut self, sequence: &Sequence, reason: FinishReason, room: u32, now: Duration) {
        let request = &sequence.request;
        let streaming = usize::from(request.streaming);
        match reason {
            FinishReason::Stop => self.finished_stop += 1,
            FinishReason::Length => self.finished_length += 1,
            FinishReason::Abort => self.aborted += 1,
        }
        if reason != FinishReason::Abort {
            self.completed[streaming] += 1;
            self.completed_prompt_tokens[streaming] += u64::from(request.prompt_tokens);
            self.completed_generation_tokens[streaming] += u64::from(sequence.generated);
        }
        let end_to_end = seconds_between(sequence.arrived_at, now);
        self.end_to_end[streaming].observe(end_to_end);
        self.request_prompt_tokens.observe(f64::from(request.prompt_tokens));
        self.request_generation_tokens.observe(f64::from(sequence.generated));
        self.request_max_tokens.observe(f64::from(request.max_tokens.unwrap_or(room)));
        self.request_choices.observe(f64::from(request.choices));
        let Some(scheduled_at) = sequence.first_scheduled_at else { return };
        self.queue.observe(seconds_between(sequence.arrived_at, scheduled_at));
        let (Some(first), Some(last)) = (sequence.first_token_at, sequence.last_token_at) else { return };
        let decode = seconds_between(first, last);
        self.prefill.observe(seconds_between(scheduled_at, first));
        self.decode.observe(decode);
        self.inference.observe(seconds_between(scheduled_at, last));
        self.request_cached_tokens.observe(f64::from(sequence.cached_tokens));
        self.request_prefill_tokens_computed.observe(f64::from(request.prompt_tokens - sequence.cached_tokens));
        if sequence.generated > 1 {
            self.time_per_output_token.observe(decode / f64::from(sequence.generated - 1));
        }
        if !request.streaming && self.blocking_first_token_is_end {
            self.time_to_first_token[streaming].observe(end_to_end);
        }
    }

    pub(super) fn adapters_seen(&mut self, running: String, waiting: String, now: Duration) {
        let combination = (running, waiting);
        if !self.lora_combinations.contains_key(&combination) && self.lora_combinations.len() >= LORA_COMBINATIONS_LIMIT {
            let oldest = self.lora_combinations.iter().min_by_key(|(_, seen)| **seen).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.lora_combinations.remove(&oldest);
            }
        }
        self.lora_combinations.insert(combination, now);
    }
}

fn seconds_between(earlier: Duration, later: Duration) -> f64 {
    later.saturating_sub(earlier).as_secs_f64()
}
