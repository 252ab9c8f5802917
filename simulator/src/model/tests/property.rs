//! Whatever is submitted, stepped and aborted: blocks add up, limits hold, every request ends exactly once.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Action {
    Submit {
        prompt: u32,
        output: u32,
        prefix: u64,
        adapter: Option<usize>,
    },
    Step,
    /// Aborts the request submitted as this number, modulo their count, ended or not.
    Abort(usize),
    /// Aborts it between a step's start and its end.
    AbortWithinStep(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let submit = (0u32..200, 0u32..120, 0u64..3, prop::option::of(0usize..3))
        .prop_map(|(prompt, output, prefix, adapter)| Action::Submit { prompt, output, prefix, adapter });
    let action = prop_oneof![
        4 => submit,
        8 => Just(Action::Step),
        1 => any::<usize>().prop_map(Action::Abort),
        1 => any::<usize>().prop_map(Action::AbortWithinStep),
    ];
    prop::collection::vec(action, 1..150)
}

fn profiles() -> impl Strategy<Value = ServerProfile> {
    (1u32..6, 4u32..30, 1u32..80, 0u32..8, 0.0f64..0.3).prop_map(|(max_num_seqs, kv_blocks, batched, waiting_limit, jitter)| {
        ServerProfile {
            max_num_seqs,
            kv_blocks,
            max_num_batched_tokens: batched,
            max_model_len: kv_blocks * 16,
            waiting_limit,
            jitter,
            prefix_cache_blocks: 20,
            max_loras: 2,
            ..ServerProfile::small_demo()
        }
    })
}

/// Counts the ends of each request.
#[derive(Default)]
struct Ledger {
    submitted: Vec<RequestId>,
    output: HashMap<RequestId, u32>,
    tokens: HashMap<RequestId, u32>,
    ends: HashMap<RequestId, u32>,
}

impl Ledger {
    fn record(&mut self, outcome: &StepOutcome) {
        for id in &outcome.preempted {
            assert!(!outcome.tokens.contains(id), "who is thrown out is not back in the same step");
        }
        for id in &outcome.tokens {
            assert!(!self.ends.contains_key(id), "a token after the end");
            *self.tokens.entry(*id).or_default() += 1;
        }
        for end in &outcome.finished {
            *self.ends.entry(end.id).or_default() += 1;
            assert_eq!(self.tokens[&end.id], self.output[&end.id], "it ends with its last token");
        }
    }

    fn abort(&mut self, bench: &mut Bench, choice: usize) {
        if self.submitted.is_empty() {
            return;
        }
        let id = self.submitted[choice % self.submitted.len()];
        let had_ended = self.ends.contains_key(&id);
        assert_eq!(bench.model.abort(id, bench.now), !had_ended);
        if !had_ended {
            *self.ends.entry(id).or_default() += 1;
        }
    }
}

fn check(model: &Model) {
    let profile = &model.profile;
    let held: u32 = model.running.iter().map(|sequence| sequence.blocks).sum();
    assert_eq!(held, model.used_blocks, "blocks are held by running sequences only");
    assert!(model.used_blocks <= profile.kv_blocks);
    assert!(model.running.len() <= profile.max_num_seqs as usize);
    for sequence in &model.running {
        assert!(sequence.blocks >= profile.blocks_for(sequence.computed), "every computed token has a place");
        assert!(sequence.generated < sequence.request.output_tokens);
    }
    for sequence in &model.waiting {
        assert_eq!((sequence.blocks, sequence.computed, sequence.scheduled), (0, 0, 0));
    }
    // Only the preempted may wait beyond the limit.
    let new = model.waiting.iter().filter(|sequence| sequence.preempted == 0).count();
    assert!(new <= profile.waiting_limit as usize);
    assert!(model.prefix_cache.len() <= profile.prefix_cache_blocks as usize);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_request_ends_exactly_once(profile in profiles(), actions in actions()) {
        let mut bench = Bench::new(profile);
        let mut ledger = Ledger::default();
        for action in actions {
            match action {
                Action::Submit { prompt, output, prefix, adapter } => {
                    let prefix = (0..u64::from(prompt / 16)).map(|block| prefix * 1000 + block).collect();
                    let request = Request { prefix, adapter, ..Request::new(prompt, output) };
                    if let Ok(id) = bench.model.submit(request, bench.now) {
                        ledger.submitted.push(id);
                        ledger.output.insert(id, output.max(1));
                    }
                }
                Action::Step => {
                    if let Some(outcome) = bench.step() {
                        prop_assert!(!outcome.tokens.is_empty() || bench.model.last_step.context_tokens > 0, "a step does something");
                        ledger.record(&outcome);
                    }
                }
                Action::Abort(choice) => ledger.abort(&mut bench, choice),
                Action::AbortWithinStep(choice) => {
                    let duration = bench.model.start_step(bench.now, &mut bench.rng);
                    ledger.abort(&mut bench, choice);
                    if let Some(duration) = duration {
                        bench.now += duration;
                        let outcome = bench.model.finish_step(bench.now).expect("it was started");
                        ledger.record(&outcome);
                    }
                }
            }
            check(&bench.model);
        }
        let mut steps = 0;
        while let Some(outcome) = bench.step() {
            ledger.record(&outcome);
            check(&bench.model);
            steps += 1;
            prop_assert!(steps < 100_000, "it never ends");
        }
        prop_assert!(bench.model.is_idle());
        prop_assert_eq!(bench.model.used_blocks, 0);
        for id in &ledger.submitted {
            prop_assert_eq!(ledger.ends.get(id), Some(&1));
        }
        let statistics = bench.model.view().statistics;
        let ended = statistics.finished_stop + statistics.finished_length + statistics.aborted;
        prop_assert_eq!(ended, ledger.submitted.len() as u64);
        prop_assert_eq!(statistics.generation_tokens, ledger.tokens.values().map(|tokens| u64::from(*tokens)).sum::<u64>());
    }
}
