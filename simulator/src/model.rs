//! The queueing model of one replica: no I/O, no clock, no random numbers of its own.
//!
//! A FIFO queue in front of a batch that advances in steps, as vLLM's V1 engine does. Each step decodes one token for every running
//! sequence and spends what is left of `max_num_batched_tokens` on prompts (chunked prefill), oldest first. Its duration is
//!
//! ```text
//! load(running) × jitter × (fixed + computed prompt tokens × prefill_time_per_token)
//! fixed = max(inter_token_latency if anything decodes, prefill_overhead if a prompt starts)
//! ```
//!
//! so that a lone request sees exactly `prefill_overhead + prompt × prefill_time_per_token`, then `inter_token_latency` per token, and a
//! prompt that joins a batch slows it by its tokens. Time is a `Duration` since any start the caller likes; it should not run backwards.

use std::collections::VecDeque;
use std::time::Duration;

mod histogram;
pub mod prefix;
mod request;
mod statistics;
mod step;
#[cfg(test)]
mod tests;

use prefix::PrefixCache;
use rand::Rng;

use crate::profile::{ProfileError, ServerProfile};
pub use histogram::{Bounds, Histogram};
pub use request::{FinishReason, Finished, Request, RequestId, StepOutcome, SubmitError};
pub use statistics::Statistics;
use step::StepUnderWay;

/// One replica.
#[derive(Clone, Debug)]
pub struct Model {
    profile: ServerProfile,
    /// Names of the LoRA adapters; a request's `adapter` is an index into it.
    adapters: Vec<String>,
    waiting: VecDeque<Sequence>,
    /// In the order of admission: the last is the newest.
    running: Vec<Sequence>,
    used_blocks: u32,
    prefix_cache: PrefixCache,
    statistics: Statistics,
    step: Option<StepUnderWay>,
    last_step: Iteration,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Sequence {
    id: RequestId,
    request: Request,
    arrived_at: Duration,
    first_scheduled_at: Option<Duration>,
    first_token_at: Option<Duration>,
    last_token_at: Option<Duration>,
    /// Output tokens so far.
    generated: u32,
    /// Tokens whose keys and values are in its blocks.
    computed: u32,
    blocks: u32,
    /// Computing its prompt (and, after a preemption, what it had said), not yet decoding.
    prefilling: bool,
    /// Tokens being computed for it in the step under way.
    scheduled: u32,
    /// Prompt tokens found in the prefix cache when it was first scheduled.
    cached_tokens: u32,
    /// How often it was thrown out.
    preempted: u32,
}

impl Sequence {
    /// Tokens that must be in the cache before the next one can come out.
    fn tokens(&self) -> u32 {
        self.request.prompt_tokens + self.generated
    }
}

/// The shape of a finished step; all 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Iteration {
    /// Which step it was, from 1.
    pub number: u64,
    /// How long it took.
    pub duration: Duration,
    /// Sequences whose prompts it computed.
    pub context_requests: u32,
    /// Sequences that decoded.
    pub generation_requests: u32,
    /// Prompt tokens it computed.
    pub context_tokens: u32,
    /// Blocks in use when it ended.
    pub used_blocks: u32,
    /// Sequences running when it ended.
    pub running: u32,
    /// Requests waiting when it ended.
    pub waiting: u32,
}

/// A replica at one moment: all a metrics page says.
#[derive(Clone, Debug)]
pub struct ModelView {
    /// Sequences running.
    pub running: u32,
    /// Requests waiting, the deferred included.
    pub waiting: u32,
    /// Waiting for a LoRA slot, not for capacity.
    pub waiting_deferred: u32,
    /// Waiting after having been thrown out.
    pub waiting_preempted: u32,
    /// KV blocks held by running sequences.
    pub used_blocks: u32,
    /// Share of the KV blocks held, 0 to 1.
    pub kv_cache_usage: f64,
    /// Blocks the prefix cache remembers.
    pub cached_blocks: u32,
    /// Sequences computing their prompts.
    pub prefilling: u32,
    /// Tokens of all decoding sequences.
    pub decoding_tokens: u64,
    /// The last finished step.
    pub last_step: Iteration,
    /// Everything since the start.
    pub statistics: Statistics,
    /// What the replica can do.
    pub profile: ServerProfile,
    /// Names of its LoRA adapters.
    pub adapters: Vec<String>,
}

impl Model {
    /// An idle replica. `bounds` are the histogram bounds of the page that will show it.
    pub fn new(profile: ServerProfile, adapters: Vec<String>, bounds: &Bounds) -> Result<Self, ProfileError> {
        profile.validate()?;
        Ok(Self {
            adapters,
            waiting: VecDeque::new(),
            running: Vec::new(),
            used_blocks: 0,
            prefix_cache: PrefixCache::new(profile.prefix_cache_blocks),
            statistics: Statistics::new(bounds),
            step: None,
            last_step: Iteration::default(),
            next_id: 0,
            profile,
        })
    }

    /// What the replica can do.
    pub fn profile(&self) -> &ServerProfile {
        &self.profile
    }

    /// Queues a request.
    pub fn submit(&mut self, mut request: Request, now: Duration) -> Result<RequestId, SubmitError> {
        request.prompt_tokens = request.prompt_tokens.max(1);
        request.output_tokens = request.output_tokens.max(1);
        let limit = self.profile.max_model_len;
        if request.prompt_tokens.saturating_add(request.output_tokens) > limit {
            let Request { prompt_tokens, output_tokens, .. } = request;
            return Err(SubmitError::TooLong { prompt_tokens, output_tokens, limit });
        }
        if self.waiting.len() >= self.profile.waiting_limit as usize {
            return Err(SubmitError::QueueFull { limit: self.profile.waiting_limit });
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence {
            id,
            request,
            arrived_at: now,
            first_scheduled_at: None,
            first_token_at: None,
            last_token_at: None,
            generated: 0,
            computed: 0,
            blocks: 0,
            prefilling: false,
            scheduled: 0,
            cached_tokens: 0,
            preempted: 0,
        });
        Ok(id)
    }

    /// Ends a request whose client left and frees its blocks. `false`: it is not here any more.
    pub fn abort(&mut self, id: RequestId, now: Duration) -> bool {
        let sequence = if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.running.remove(index)
        } else if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            let Some(sequence) = self.waiting.remove(index) else { return false };
            sequence
        } else {
            return false;
        };
        self.used_blocks -= sequence.blocks;
        self.record_end(&sequence, FinishReason::Abort, now);
        true
    }

    /// Whether neither a request nor a step is there.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.step.is_none()
    }

    /// The shape of the last finished step.
    pub fn last_step(&self) -> Iteration {
        self.last_step
    }

    /// One whole step from `now` to `now + duration`; `None` when there is nothing to do.
    pub fn step(&mut self, now: Duration, rng: &mut impl Rng) -> Option<StepOutcome> {
        let duration = self.start_step(now, rng)?;
        self.finish_step(now + duration)
    }

    /// The replica as it is.
    pub fn view(&self) -> ModelView {
        let active = self.active_adapters();
        let count = |sequences: usize| u32::try_from(sequences).unwrap_or(u32::MAX);
        let decoding = self.running.iter().filter(|sequence| !sequence.prefilling);
        let deferred = self.waiting.iter().filter(|sequence| self.must_wait_for_adapter(sequence, &active));
        ModelView {
            running: count(self.running.len()),
            waiting: count(self.waiting.len()),
            waiting_deferred: count(deferred.count()),
            waiting_preempted: count(self.waiting.iter().filter(|sequence| sequence.preempted > 0).count()),
            used_blocks: self.used_blocks,
            kv_cache_usage: f64::from(self.used_blocks) / f64::from(self.profile.kv_blocks),
            cached_blocks: count(self.prefix_cache.len()),
            prefilling: count(self.running.iter().filter(|sequence| sequence.prefilling).count()),
            decoding_tokens: decoding.map(|sequence| u64::from(sequence.tokens())).sum(),
            last_step: self.last_step,
            statistics: self.statistics.clone(),
            profile: self.profile.clone(),
            adapters: self.adapters.clone(),
        }
    }

    fn record_end(&mut self, sequence: &Sequence, reason: FinishReason, now: Duration) {
        let room = self.profile.max_model_len - sequence.request.prompt_tokens;
        self.statistics.ended(sequence, reason, room, now);
    }
}
