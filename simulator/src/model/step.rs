//! One step: who computes what, how long it takes, what comes out.

use std::time::Duration;

use rand::Rng;

use super::{Finished, Iteration, Model, RequestId, Sequence, StepOutcome};

/// A step between its start and its end.
#[derive(Clone, Debug)]
pub(super) struct StepUnderWay {
    duration: Duration,
    preempted: Vec<RequestId>,
    context_requests: u32,
    generation_requests: u32,
    context_tokens: u32,
}

impl Model {
    /// Schedules the next step and says how long it takes; `None` when there is nothing to do.
    ///
    /// Until [`Self::finish_step`] requests may be submitted (they join the next step) and aborted (their token is lost). Called again
    /// during a step it answers the same duration.
    pub fn start_step(&mut self, now: Duration, rng: &mut impl Rng) -> Option<Duration> {
        if let Some(step) = &self.step {
            return Some(step.duration);
        }
        let mut budget = self.profile.max_num_batched_tokens;
        let preempted = self.schedule_decodes(&mut budget);
        let mut step = StepUnderWay {
            duration: Duration::ZERO,
            generation_requests: self.profile.max_num_batched_tokens - budget,
            context_requests: 0,
            context_tokens: 0,
            preempted,
        };
        for sequence in self.running.iter_mut().filter(|sequence| sequence.prefilling) {
            schedule_prefill(sequence, &mut budget, &mut step);
        }
        // What was just thrown out is at the head and needs more blocks than it gave up: it cannot come back in this step, nor anyone behind.
        let prompts_started = self.admit(now, &mut budget, &mut step);
        if step.generation_requests == 0 && step.context_requests == 0 {
            return None;
        }
        let mut seconds_fixed = Duration::ZERO;
        if step.generation_requests > 0 {
            seconds_fixed = self.profile.inter_token_latency;
        }
        if prompts_started {
            seconds_fixed = seconds_fixed.max(self.profile.prefill_overhead);
        }
        let unloaded = seconds_fixed + self.profile.prefill_time_per_token * step.context_tokens;
        let jitter = self.profile.draw_jitter(rng);
        step.duration = unloaded.mul_f64(self.profile.load(self.running.len()) * jitter);
        let duration = step.duration;
        self.step = Some(step);
        Some(duration)
    }

    /// Ends the step under way at `now`; `None` when there is none.
    pub fn finish_step(&mut self, now: Duration) -> Option<StepOutcome> {
        let step = self.step.take()?;
        let mut outcome = StepOutcome { duration: step.duration, preempted: step.preempted, ..StepOutcome::default() };
        let mut still_running = Vec::with_capacity(self.running.len());
        for mut sequence in std::mem::take(&mut self.running) {
            sequence.computed += std::mem::take(&mut sequence.scheduled);
            if sequence.computed < sequence.tokens() {
                still_running.push(sequence);
                continue;
            }
            if sequence.prefilling {
                sequence.prefilling = false;
                self.prefix_cache.remember(&sequence.request.prefix);
            }
            self.statistics.token(&sequence, now);
            sequence.generated += 1;
            sequence.first_token_at.get_or_insert(now);
            sequence.last_token_at = Some(now);
            outcome.tokens.push(sequence.id);
            if sequence.generated < sequence.request.output_tokens {
                still_running.push(sequence);
                continue;
            }
            let reason = sequence.request.finish;
            self.used_blocks -= sequence.blocks;
            outcome.finished.push(Finished { id: sequence.id, reason, cached_tokens: sequence.cached_tokens });
            self.record_end(&sequence, reason, now);
        }
        self.running = still_running;

        let statistics = &mut self.statistics;
        statistics.busy += step.duration;
        statistics.prefill_tokens_computed += u64::from(step.context_tokens);
        statistics.iteration_tokens.observe(f64::from(step.generation_requests + step.context_tokens));
        if step.context_requests > 0 {
            statistics.prefill_steps += 1;
        } else {
            statistics.decode_steps += 1;
        }
        self.last_step = Iteration {
            number: self.last_step.number + 1,
            duration: step.duration,
            context_requests: step.context_requests,
            generation_requests: step.generation_requests,
            context_tokens: step.context_tokens,
            used_blocks: self.used_blocks,
            running: u32::try_from(self.running.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
        };
        self.record_adapters(now);
        Some(outcome)
    }

    /// Gives each decoding sequence its token and, every `block_size` tokens, a block; throws out the newest while none is free.
    fn schedule_decodes(&mut self, budget: &mut u32) -> Vec<RequestId> {
        let mut preempted = Vec::new();
        let mut index = 0;
        while index < self.running.len() && *budget > 0 {
            let sequence = &self.running[index];
            if sequence.prefilling {
                index += 1;
                continue;
            }
            let missing = self.profile.blocks_for(sequence.tokens()).saturating_sub(sequence.blocks);
            if missing > self.profile.kv_blocks - self.used_blocks {
                // The newest may be this sequence itself: then it is gone from `index` on, and the loop ends.
                preempted.extend(self.preempt_newest());
                continue;
            }
            self.used_blocks += missing;
            let sequence = &mut self.running[index];
            sequence.blocks += missing;
            sequence.scheduled = 1;
            *budget -= 1;
            index += 1;
        }
        preempted
    }

    fn preempt_newest(&mut self) -> Option<RequestId> {
        let mut sequence = self.running.pop()?;
        self.statistics.preempted(&sequence);
        self.used_blocks -= std::mem::take(&mut sequence.blocks);
        sequence.computed = 0;
        sequence.scheduled = 0;
        sequence.prefilling = false;
        sequence.preempted += 1;
        let id = sequence.id;
        self.waiting.push_front(sequence);
        Some(id)
    }

    /// Moves the head of the queue into the batch while slots, blocks and tokens last; whether any was moved.
    ///
    /// Who waits for an adapter slot is passed over, as in vLLM; who waits for blocks holds up all behind it.
    fn admit(&mut self, now: Duration, budget: &mut u32, step: &mut StepUnderWay) -> bool {
        let mut active = self.active_adapters();
        let mut admitted = false;
        let mut index = 0;
        while *budget > 0 && self.running.len() < self.profile.max_num_seqs as usize {
            let Some(sequence) = self.waiting.get(index) else { break };
            if self.must_wait_for_adapter(sequence, &active) {
                index += 1;
                continue;
            }
            let blocks = self.profile.blocks_for(sequence.tokens());
            if blocks > self.profile.kv_blocks - self.used_blocks {
                break;
            }
            let Some(mut sequence) = self.waiting.remove(index) else { break };
            if let Some(adapter) = sequence.request.adapter
                && !active.contains(&adapter)
            {
                active.push(adapter);
            }
            self.used_blocks += blocks;
            sequence.blocks = blocks;
            sequence.prefilling = true;
            sequence.computed = self.look_up_prefix(&mut sequence);
            sequence.first_scheduled_at.get_or_insert(now);
            schedule_prefill(&mut sequence, budget, step);
            self.running.push(sequence);
            admitted = true;
        }
        admitted
    }

    /// Tokens of the prompt that need no computing. At least one always does: its result is the next token.
    fn look_up_prefix(&mut self, sequence: &mut Sequence) -> u32 {
        if !self.prefix_cache.is_enabled() {
            return 0;
        }
        let block_size = self.profile.block_size;
        let reusable_blocks = (sequence.request.prompt_tokens - 1) / block_size;
        let known = sequence.request.prefix.len().min(reusable_blocks as usize);
        let hits = self.prefix_cache.leading_hits(&sequence.request.prefix[..known]);
        // `hits` is at most `reusable_blocks`, a u32.
        let hit_tokens = u32::try_from(hits).unwrap_or(reusable_blocks) * block_size;
        if sequence.first_scheduled_at.is_none() {
            sequence.cached_tokens = hit_tokens;
            self.statistics.prefix_queries += u64::from(sequence.request.prompt_tokens);
            self.statistics.prefix_hits += u64::from(hit_tokens);
        }
        hit_tokens
    }

    pub(super) fn active_adapters(&self) -> Vec<usize> {
        distinct(self.running.iter().filter_map(|sequence| sequence.request.adapter))
    }

    pub(super) fn must_wait_for_adapter(&self, sequence: &Sequence, active: &[usize]) -> bool {
        let full = active.len() >= self.profile.max_loras as usize;
        full && sequence.request.adapter.is_some_and(|adapter| !active.contains(&adapter))
    }

    fn record_adapters(&mut self, now: Duration) {
        if self.adapters.is_empty() {
            return;
        }
        let waiting = distinct(self.waiting.iter().filter_map(|sequence| sequence.request.adapter));
        let names = |indexes: Vec<usize>| {
            let known: Vec<&str> = indexes.iter().filter_map(|index| self.adapters.get(*index)).map(String::as_str).collect();
            known.join(",")
        };
        let (running, waiting) = (names(self.active_adapters()), names(waiting));
        self.statistics.adapters_seen(running, waiting, now);
    }
}

fn schedule_prefill(sequence: &mut Sequence, budget: &mut u32, step: &mut StepUnderWay) {
    let chunk = (sequence.tokens() - sequence.computed).min(*budget);
    if chunk == 0 {
        return;
    }
    sequence.scheduled = chunk;
    *budget -= chunk;
    step.context_tokens += chunk;
    step.context_requests += 1;
}

fn distinct(indexes: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = Vec::new();
    for index in indexes {
        if !seen.contains(&index) {
            seen.push(index);
        }
    }
    seen
}
