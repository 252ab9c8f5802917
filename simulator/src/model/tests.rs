use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

mod property;

/// Exact times: no jitter, no prefix cache.
fn profile() -> ServerProfile {
    ServerProfile { jitter: 0.0, prefix_cache_blocks: 0, max_num_batched_tokens: 4096, ..ServerProfile::small_demo() }
}

/// A model with its clock and what has come out.
struct Bench {
    model: Model,
    rng: StdRng,
    now: Duration,
}

impl Bench {
    fn new(profile: ServerProfile) -> Self {
        let bounds = Bounds::vllm(profile.max_model_len);
        Self { model: Model::new(profile, Vec::new(), &bounds).unwrap(), rng: StdRng::seed_from_u64(1), now: Duration::ZERO }
    }

    fn submit(&mut self, prompt: u32, output: u32) -> RequestId {
        self.model.submit(Request::new(prompt, output), self.now).unwrap()
    }

    fn step(&mut self) -> Option<StepOutcome> {
        let outcome = self.model.step(self.now, &mut self.rng)?;
        self.now += outcome.duration;
        Some(outcome)
    }

    /// Steps until nothing is left; the ends with their times.
    fn drain(&mut self) -> Vec<(RequestId, Duration)> {
        let mut ends = Vec::new();
        while let Some(outcome) = self.step() {
            ends.extend(outcome.finished.iter().map(|end| (end.id, self.now)));
        }
        ends
    }

    fn running(&self) -> Vec<RequestId> {
        self.model.running.iter().map(|sequence| sequence.id).collect()
    }

    fn waiting(&self) -> Vec<RequestId> {
        self.model.waiting.iter().map(|sequence| sequence.id).collect()
    }
}

#[test]
fn a_lone_request_takes_prefill_plus_one_latency_per_further_token() {
    let mut bench = Bench::new(profile());
    let id = bench.submit(100, 11);
    let first = bench.step().unwrap();
    assert_eq!(first.duration, Duration::from_millis(30 + 20), "overhead + 100 × 0.2 ms");
    assert_eq!(first.tokens, [id]);
    assert_eq!(bench.drain(), [(id, Duration::from_millis(50 + 10 * 25))]);
    let statistics = bench.model.view().statistics;
    assert!((statistics.time_to_first_token[1].sum() - 0.05).abs() < 1e-9);
    assert_eq!(statistics.inter_token.count(), 10);
    assert!((statistics.time_per_output_token.sum() - 0.025).abs() < 1e-9);
    assert!((statistics.end_to_end[1].sum() - 0.3).abs() < 1e-9);
}

#[test]
fn throughput_at_the_limit_is_the_closed_form() {
    let profile = ServerProfile { waiting_limit: 1000, ..profile() };
    let slots = profile.max_num_seqs;
    let (prompt, output, rounds) = (64, 40, 20);
    let mut bench = Bench::new(profile.clone());
    for _ in 0..slots * rounds {
        bench.submit(prompt, output);
    }
    let ends = bench.drain();
    assert_eq!(ends.len(), (slots * rounds) as usize);
    // Equal requests run in equal rounds: all prompts in one step, then output - 1 decodes, all at full load (factor 2).
    let prefill = profile.prefill_overhead + profile.prefill_time_per_token * (prompt * slots);
    let round = 2 * (prefill + profile.inter_token_latency * (output - 1));
    assert_eq!(bench.now, round * rounds);
}

#[test]
fn half_the_load_costs_half_the_slowdown() {
    let profile = ServerProfile { max_num_seqs: 9, ..profile() };
    let mut bench = Bench::new(profile);
    for _ in 0..5 {
        bench.submit(16, 10);
    }
    bench.step();
    assert_eq!(bench.step().unwrap().duration, Duration::from_micros(37_500), "25 ms × 1.5");
}

#[test]
fn jitter_keeps_the_mean_and_follows_the_seed() {
    let total = |seed| {
        let mut bench = Bench::new(ServerProfile { jitter: 0.3, ..profile() });
        bench.rng = StdRng::seed_from_u64(seed);
        bench.submit(1, 2000);
        bench.drain();
        bench.now
    };
    assert_eq!(total(3), total(3));
    assert_ne!(total(3), total(4));
    let mean = total(3).as_secs_f64() / 2000.0;
    assert!((mean - 0.025).abs() < 0.0005, "{mean}");
}

#[test]
fn requests_start_and_end_in_order_of_arrival() {
    let mut bench = Bench::new(ServerProfile { max_num_seqs: 2, ..profile() });
    let ids: Vec<RequestId> = (0..7).map(|_| bench.submit(20, 5)).collect();
    bench.step();
    assert_eq!(bench.running(), ids[..2]);
    assert_eq!(bench.waiting(), ids[2..]);
    let ends: Vec<RequestId> = bench.drain().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ends, ids);
}

#[test]
fn a_request_that_does_not_fit_holds_up_those_behind_it() {
    let mut bench = Bench::new(ServerProfile { kv_blocks: 10, max_model_len: 160, ..profile() });
    let first = bench.submit(80, 2);
    let large = bench.submit(96, 2);
    let small = bench.submit(16, 2);
    bench.step();
    assert_eq!((bench.running(), bench.waiting()), (vec![first], vec![large, small]));
    bench.drain();
    assert_eq!(bench.model.view().used_blocks, 0);
}

#[test]
fn the_queue_is_bounded_and_impossible_requests_are_refused() {
    let mut bench = Bench::new(ServerProfile { waiting_limit: 2, ..profile() });
    bench.submit(1, 1);
    bench.submit(1, 1);
    let refused = |bench: &mut Bench, prompt, output| bench.model.submit(Request::new(prompt, output), Duration::ZERO).unwrap_err();
    assert_eq!(refused(&mut bench, 1, 1), SubmitError::QueueFull { limit: 2 });
    assert_eq!(refused(&mut bench, 4000, 97), SubmitError::TooLong { prompt_tokens: 4000, output_tokens: 97, limit: 4096 });
    assert!(matches!(refused(&mut bench, u32::MAX, u32::MAX), SubmitError::TooLong { .. }));
    bench.step();
    bench.submit(4000, 96);
}

#[test]
fn kv_blocks_follow_the_tokens() {
    let mut bench = Bench::new(profile());
    bench.submit(17, 20);
    let mut used = Vec::new();
    while bench.step().is_some() {
        used.push(bench.model.view().used_blocks);
    }
    // 17 tokens are two blocks; the 33rd token is written in the step that makes output 17.
    let expected: Vec<u32> = (1..=19).map(|output: u32| (17 + output - 1).div_ceil(16)).chain([0]).collect();
    assert_eq!(used, expected);
}

#[test]
fn the_newest_is_preempted_and_comes_back_first() {
    // 8 blocks: two prompts of 3 blocks, a third request that waits, growth that does not fit.
    let mut bench = Bench::new(ServerProfile { kv_blocks: 8, max_model_len: 128, ..profile() });
    let old = bench.submit(48, 60);
    let newest = bench.submit(48, 60);
    let third = bench.submit(48, 4);
    let mut preempted = Vec::new();
    while preempted.is_empty() {
        preempted = bench.step().unwrap().preempted;
    }
    assert_eq!(preempted, [newest]);
    assert_eq!((bench.running(), bench.waiting()), (vec![old], vec![newest, third]));
    let said = bench.model.waiting[0].generated;
    assert!(said > 0, "it keeps what it has said");
    let view = bench.model.view();
    assert_eq!((view.statistics.preemptions, view.waiting_preempted), (1, 1));
    let order: Vec<RequestId> = bench.drain().into_iter().map(|(id, _)| id).collect();
    assert_eq!(order.len(), 3);
    assert_eq!(order[0], old);
    let statistics = bench.model.view().statistics;
    assert_eq!(statistics.generation_tokens, 60 + 60 + 4, "nothing is said twice");
    assert_eq!(statistics.prompt_tokens, 3 * 48, "a recomputed prompt counts once");
    assert!(statistics.prefill_tokens_computed >= 4 * 48 + u64::from(said));
    assert_eq!(statistics.queue.count(), 3);
}

#[test]
fn long_prompts_are_computed_in_chunks_beside_decodes() {
    let mut bench = Bench::new(ServerProfile { max_num_batched_tokens: 100, ..profile() });
    let talking = bench.submit(10, 50);
    bench.step();
    let long = bench.submit(250, 2);
    // Each step decodes one token and computes 99 of the prompt: 99 + 99 + 52.
    for _ in 0..2 {
        assert_eq!(bench.step().unwrap().tokens, [talking]);
    }
    assert_eq!(bench.model.view().prefilling, 1);
    assert_eq!(bench.step().unwrap().tokens, [talking, long]);
    assert_eq!(bench.model.view().last_step.context_tokens, 52);
}

#[test]
fn an_aborted_request_frees_its_blocks_at_once() {
    let mut bench = Bench::new(profile());
    let running = bench.submit(100, 50);
    bench.step();
    let waiting = bench.submit(10, 10);
    assert_eq!(bench.model.view().used_blocks, 7);
    assert!(bench.model.abort(running, bench.now));
    assert!(bench.model.abort(waiting, bench.now));
    assert!(!bench.model.abort(running, bench.now), "only once");
    let view = bench.model.view();
    assert_eq!((view.running, view.waiting, view.used_blocks, view.statistics.aborted), (0, 0, 0, 2));
    assert!(bench.model.is_idle());
    assert_eq!(bench.step(), None);
}

#[test]
fn a_request_aborted_during_a_step_gets_no_token_from_it() {
    let mut bench = Bench::new(profile());
    let (leaves, stays) = (bench.submit(10, 3), bench.submit(10, 3));
    let duration = bench.model.start_step(bench.now, &mut bench.rng).unwrap();
    assert_eq!(bench.model.start_step(bench.now, &mut bench.rng), Some(duration), "the same step");
    assert!(bench.model.abort(leaves, bench.now));
    let outcome = bench.model.finish_step(bench.now + duration).unwrap();
    assert_eq!(outcome.tokens, [stays]);
    assert_eq!(bench.model.finish_step(bench.now), None);
}

#[test]
fn a_known_prefix_cuts_prefill_only() {
    let profile = ServerProfile { prefix_cache_blocks: 100, ..profile() };
    let mut bench = Bench::new(profile);
    let request = || Request { prefix: vec![11, 12, 13, 14], ..Request::new(64, 2) };
    let mut durations = Vec::new();
    for _ in 0..2 {
        bench.model.submit(request(), bench.now).unwrap();
        while let Some(outcome) = bench.step() {
            durations.push(outcome.duration);
        }
    }
    // The last block is computed again although it is known: its result is the first token.
    let milliseconds = |value: f64| Duration::from_secs_f64(value / 1000.0);
    assert_eq!(
        durations,
        [milliseconds(30.0 + 64.0 * 0.2), milliseconds(25.0), milliseconds(30.0 + 16.0 * 0.2), milliseconds(25.0)]
    );
    let statistics = bench.model.view().statistics;
    assert_eq!((statistics.prefix_queries, statistics.prefix_hits, statistics.prompt_tokens_cached), (128, 48, 48));
}

#[test]
fn adapters_beyond_the_slots_are_passed_over() {
    let profile = ServerProfile { max_loras: 1, ..profile() };
    let bounds = Bounds::vllm(profile.max_model_len);
    let mut bench = Bench::new(profile.clone());
    bench.model = Model::new(profile, vec!["a".into(), "b".into()], &bounds).unwrap();
    let mut submit = |adapter| bench.model.submit(Request { adapter, ..Request::new(10, 5) }, Duration::ZERO).unwrap();
    let (a, b, base, a_again) = (submit(Some(0)), submit(Some(1)), submit(None), submit(Some(0)));
    bench.step();
    assert_eq!((bench.running(), bench.waiting()), (vec![a, base, a_again], vec![b]));
    assert_eq!(bench.model.view().waiting_deferred, 1);
    assert_eq!(bench.drain().last().unwrap().0, b);
}
