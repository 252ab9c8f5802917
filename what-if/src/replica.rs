//! One model server under continuous batching, fast enough for millions of requests.
//!
//! The same queue, batch and KV cache as `weir_simulator::Model`, without its page: sequences that decode advance together, so a step
//! costs one addition and not one per sequence, and steps in which nothing else happens are taken at once. A step lasts
//!
//! ```text
//! step = base + per sequence × running + per prompt token × prompt tokens computed in it
//! ```

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// What a replica can do. Times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaProfile {
    /// What a step takes.
    pub step: f64,
    /// What each running sequence adds to it.
    pub per_sequence: f64,
    /// What each prompt token computed in it adds.
    pub per_prompt_token: f64,
    /// Most sequences running at once.
    pub max_sequences: u32,
    /// Most tokens of one step: prompts, and one per sequence that decodes.
    pub max_step_tokens: u32,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
    /// GPUs of a replica.
    pub gpus: u32,
}

impl ReplicaProfile {
    /// Seconds of a full replica that one request takes: prompts by themselves, answers in the fullest batch that the KV cache holds.
    pub fn work(&self, prompt: f64, output: f64) -> f64 {
        let fits = self.kv_tokens as f64 / (prompt + output / 2.0).max(1.0);
        let batch = fits.clamp(1.0, f64::from(self.max_sequences));
        self.per_prompt_token * prompt + output * (self.step / batch + self.per_sequence)
    }
}

/// A request at a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// Its number in the load.
    pub(crate) id: u32,
    pub(crate) arrived: f64,
    pub(crate) prompt: u32,
    /// Tokens still to be generated.
    pub(crate) output: u32,
    /// Whether its client already has a first token (it was thrown out of the KV cache since).
    pub(crate) started: bool,
}

/// What a metrics page says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    pub(crate) kv: f64,
    pub(crate) prompt_tokens: f64,
    pub(crate) generated_tokens: f64,
    pub(crate) first_tokens: f64,
    pub(crate) completed: f64,
}

/// What a server tells of its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Happened {
    /// The first token of a request came out.
    FirstToken { id: u32, seconds: f64 },
    /// A client gave up before.
    Left { id: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Prefill {
    job: Job,
    left: u32,
    order: u64,
}

/// A sequence that decodes, by the step in which it ends.
#[derive(Clone, Copy, Debug)]
struct Decode {
    ends: u64,
    began: u64,
    order: u64,
    job: Job,
}

impl PartialEq for Decode {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decode {}

impl PartialOrd for Decode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decode {
    /// The earliest end is the greatest: a binary heap hands out the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.ends.cmp(&self.ends).then(other.order.cmp(&self.order))
    }
}

/// One replica.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    clock: f64,
    waiting: VecDeque<Job>,
    prefilling: VecDeque<Prefill>,
    decoding: BinaryHeap<Decode>,
    /// Steps in which something decoded.
    steps: u64,
    admitted: u64,
    kv_used: u64,
    prompt_tokens: u64,
    generated_tokens: u64,
    first_tokens: u64,
    completed: u64,
}

impl Replica {
    pub(crate) fn new(now: f64) -> Self {
        Self {
            clock: now,
            waiting: VecDeque::new(),
            prefilling: VecDeque::new(),
            decoding: BinaryHeap::new(),
            steps: 0,
            admitted: 0,
            kv_used: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
            first_tokens: 0,
            completed: 0,
        }
    }

    pub(crate) fn submit(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.decoding.len() + self.prefilling.len()
    }

    pub(crate) fn kv(&self, profile: &ReplicaProfile) -> f64 {
        self.kv_used as f64 / profile.kv_tokens as f64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.prefilling.is_empty() && self.decoding.is_empty()
    }

    /// Requests whose clients have no token yet.
    pub(crate) fn unstarted(&self) -> impl Iterator<Item = &Job> {
        let jobs = self.waiting.iter().chain(self.prefilling.iter().map(|prefill| &prefill.job));
        jobs.filter(|job| !job.started)
    }

    pub(crate) fn page(&self, profile: &ReplicaProfile) -> Page {
        Page {
            running: self.running() as u32,
            waiting: self.waiting.len() as u32,
            kv: self.kv(profile),
            prompt_tokens: self.prompt_tokens as f64,
            generated_tokens: self.generated_tokens as f64,
            first_tokens: self.first_tokens as f64,
            completed: self.completed as f64,
        }
    }

    /// Works until `until`; the last step may end a little later. Clients leave the queue after `patience` seconds.
    pub(crate) fn advance(&mut self, profile: &ReplicaProfile, until: f64, patience: f64, happened: &mut impl FnMut(Happened)) {
        while self.clock < until {
            while let Some(job) = self.waiting.front() {
                if job.started || self.clock - job.arrived <= patience {
                    break;
                }
                happened(Happened::Left { id: job.id });
                self.waiting.pop_front();
            }
            self.make_room(profile);
            let decoding = self.decoding.len() as u32;
            let mut budget = profile.max_step_tokens.saturating_sub(decoding);
            for prefill in &self.prefilling {
                budget = budget.saturating_sub(prefill.left);
            }
            self.admit(profile, budget);
            if !self.prefilling.is_empty() {
                self.step_with_prompts(profile, happened);
            } else if decoding > 0 {
                self.decode(profile, until);
            } else if let Some(job) = self.waiting.front() {
                // What arrives later in this stretch.
                self.clock = self.clock.max(job.arrived.min(until));
            } else {
                self.clock = until;
            }
        }
    }

    fn admit(&mut self, profile: &ReplicaProfile, mut budget: u32) {
        while budget > 0 && self.running() < profile.max_sequences as usize {
            let Some(job) = self.waiting.front() else { return };
            let decoding = self.decoding.len() as u64;
            let fits = self.kv_used + u64::from(job.prompt) + decoding < profile.kv_tokens;
            if job.arrived > self.clock || !(fits || self.running() == 0) {
                return;
            }
            let Some(job) = self.waiting.pop_front() else { return };
            self.kv_used += u64::from(job.prompt);
            budget = budget.saturating_sub(job.prompt);
            self.prefilling.push_back(Prefill { job, left: job.prompt.max(1), order: self.admitted });
            self.admitted += 1;
        }
    }

    /// Throws out the newest while the next step does not fit into the KV cache.
    fn make_room(&mut self, profile: &ReplicaProfile) {
        while self.kv_used + self.decoding.len() as u64 > profile.kv_tokens && self.running() > 1 {
            if let Some(newest) = self.prefilling.pop_back() {
                self.kv_used -= u64::from(newest.job.prompt);
                self.waiting.push_front(newest.job);
                continue;
            }
            let mut sequences = std::mem::take(&mut self.decoding).into_vec();
            let newest = sequences.iter().enumerate().max_by_key(|(_, sequence)| sequence.order).map(|(index, _)| index);
            if let Some(index) = newest {
                let out = sequences.swap_remove(index);
                let generated = (self.steps - out.began) as u32 + 1;
                self.kv_used -= u64::from(out.job.prompt + generated);
                let output = out.job.output.saturating_sub(generated).max(1);
                self.waiting.push_front(Job { prompt: out.job.prompt + generated, output, started: true, ..out.job });
            }
            self.decoding = BinaryHeap::from(sequences);
        }
    }

    /// A step that computes prompts, oldest first, beside what decodes.
    fn step_with_prompts(&mut self, profile: &ReplicaProfile, happened: &mut impl FnMut(Happened)) {
        let decoding = self.decoding.len() as u32;
        let mut budget = profile.max_step_tokens.saturating_sub(decoding).max(1);
        let mut computed = 0;
        for prefill in &mut self.prefilling {
            let chunk = prefill.left.min(budget);
            prefill.left -= chunk;
            budget -= chunk;
            computed += chunk;
            if budget == 0 {
                break;
            }
        }
        self.clock += profile.step + profile.per_sequence * self.running() as f64 + profile.per_prompt_token * f64::from(computed);
        self.after_decoding(1);
        while let Some(done) = self.prefilling.front().copied().filter(|prefill| prefill.left == 0) {
            self.prefilling.pop_front();
            self.prompt_tokens += u64::from(done.job.prompt);
            self.generated_tokens += 1;
            self.kv_used += 1;
            if !done.job.started {
                self.first_tokens += 1;
                happened(Happened::FirstToken { id: done.job.id, seconds: self.clock - done.job.arrived });
            }
            let further = u64::from(done.job.output.saturating_sub(1));
            if further == 0 {
                self.completed += 1;
                self.kv_used -= u64::from(done.job.prompt) + 1;
            } else {
                self.decoding.push(Decode { ends: self.steps + further, began: self.steps, order: done.order, job: done.job });
            }
        }
    }

    /// As many steps at once as nothing else happens in.
    fn decode(&mut self, profile: &ReplicaProfile, until: f64) {
        let Some(next) = self.decoding.peek() else { return };
        let decoding = self.decoding.len() as u64;
        let step = profile.step + profile.per_sequence * decoding as f64;
        let horizon = match self.waiting.front() {
            Some(job) if job.arrived > self.clock => until.min(job.arrived),
            _ => until,
        };
        let within = ((horizon - self.clock) / step).ceil().max(1.0) as u64;
        let room = (profile.kv_tokens.saturating_sub(self.kv_used) / decoding).max(1);
        let steps = within.min(next.ends - self.steps).min(room).max(1);
        self.clock += step * steps as f64;
        self.after_decoding(steps);
    }

    fn after_decoding(&mut self, steps: u64) {
        let decoding = self.decoding.len() as u64;
        self.steps += steps;
        self.kv_used += decoding * steps;
        self.generated_tokens += decoding * steps;
        while self.decoding.peek().is_some_and(|sequence| sequence.ends <= self.steps) {
            let Some(done) = self.decoding.pop() else { return };
            self.completed += 1;
            self.kv_used -= u64::from(done.job.prompt + done.job.output);
        }
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
