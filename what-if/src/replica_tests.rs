use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use weir_simulator::model::{Bounds, Request};
use weir_simulator::{Model, ServerProfile};

use super::*;
use crate::load::{Arrival, Shape};
use crate::model_size::ModelSize;

fn jobs(arrivals: &[Arrival]) -> impl Iterator<Item = Job> + '_ {
    arrivals.iter().enumerate().map(|(id, arrival)| Job {
        id: id as u32,
        arrived: arrival.at,
        prompt: arrival.prompt,
        output: arrival.output,
        started: false,
    })
}

/// Times to first token of a replica that gets these requests, by request; `None` where a client left.
fn first_tokens(profile: &ReplicaProfile, arrivals: &[Arrival], seconds: f64) -> Vec<Option<f64>> {
    let mut replica = Replica::new(0.0);
    let mut times = vec![None; arrivals.len()];
    let mut next = jobs(arrivals).peekable();
    let mut until = 0.0;
    while until < seconds {
        until += 0.1;
        while let Some(job) = next.next_if(|job| job.arrived < until) {
            replica.submit(job);
        }
        replica.advance(profile, until, 1e9, &mut |event| {
            if let Happened::FirstToken { id, seconds } = event {
                times[id as usize] = Some(seconds);
            }
        });
    }
    times
}

/// The same by the simulator's own model, step by step.
fn by_the_model(profile: &ReplicaProfile, arrivals: &[Arrival], seconds: f64) -> Vec<Option<f64>> {
    let latency = Duration::from_secs_f64(profile.step);
    let server = ServerProfile {
        max_num_seqs: profile.max_sequences,
        kv_blocks: u32::try_from(profile.kv_tokens).unwrap(),
        block_size: 1,
        max_num_batched_tokens: profile.max_step_tokens,
        max_model_len: u32::try_from(profile.kv_tokens).unwrap().min(65_536),
        waiting_limit: u32::MAX,
        prefill_overhead: latency,
        prefill_time_per_token: Duration::from_secs_f64(profile.per_prompt_token),
        inter_token_latency: latency,
        time_factor_under_load: 1.0,
        jitter: 0.0,
        prefix_cache_blocks: 0,
        ..ServerProfile::llama_8b_h100()
    };
    let bounds = Bounds::vllm(server.max_model_len);
    let mut model = Model::new(server, Vec::new(), &bounds).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut now = Duration::ZERO;
    let mut next = 0;
    let mut times = vec![None; arrivals.len()];
    let mut ids = std::collections::HashMap::new();
    while now.as_secs_f64() < seconds {
        while let Some(arrival) = arrivals.get(next).filter(|arrival| arrival.at <= now.as_secs_f64()) {
            ids.insert(model.submit(Request::new(arrival.prompt, arrival.output), now).unwrap(), next);
            next += 1;
        }
        let Some(duration) = model.start_step(now, &mut rng) else {
            let Some(arrival) = arrivals.get(next) else { break };
            now = Duration::from_secs_f64(arrival.at + 1e-6);
            continue;
        };
        now += duration;
        for id in model.finish_step(now).unwrap().tokens {
            let index = ids[&id];
            times[index].get_or_insert(now.as_secs_f64() - arrivals[index].at);
        }
    }
    times
}

fn drawn(size: &ModelSize, replicas: f64, seconds: f64, seed: u64) -> Vec<Arrival> {
    // The shape that is constant at one and a half replicas, from its second minute on.
    let load = Shape::FromZero.draw(size, replicas / 1.5, seed);
    load.arrivals
        .into_iter()
        .map(|arrival| Arrival { at: arrival.at - 120.0, ..arrival })
        .filter(|arrival| arrival.at < seconds)
        .collect()
}

fn mean(times: &[Option<f64>]) -> f64 {
    times.iter().flatten().sum::<f64>() / times.iter().flatten().count() as f64
}

/// The fast replica is the simulator's model without its page: the same requests have the same first tokens, light and overloaded, with
/// long prompts and with a KV cache so small that sequences are thrown out.
#[test]
fn it_does_what_the_simulators_model_does() {
    for size in [ModelSize::small(), ModelSize::large()] {
        for (load, kv_share) in [(0.5, 1.0), (1.2, 1.0), (0.8, 0.1)] {
            let base = &size.profile;
            let profile = ReplicaProfile {
                // The model's steps grow by a factor with the batch, so that part is left out of both.
                per_sequence: 0.0,
                kv_tokens: (base.kv_tokens as f64 * kv_share) as u64,
                ..base.clone()
            };
            let arrivals = drawn(&size, load, 120.0, 5);
            let (fast, full) = (first_tokens(&profile, &arrivals, 200.0), by_the_model(&profile, &arrivals, 200.0));
            let answered = |times: &[Option<f64>]| times.iter().flatten().count() as f64;
            let what = format!("{} at {load}, KV {kv_share}: {} and {} s", size.name, mean(&fast), mean(&full));
            assert!((answered(&fast) / answered(&full) - 1.0).abs() < 0.02, "{what}");
            assert!((mean(&fast) / mean(&full) - 1.0).abs() < 0.15 || (mean(&fast) - mean(&full)).abs() < 0.02, "{what}");
        }
    }
}

/// The calibration: 33, 45, 66 and 81 % of the slots at 0.7, 0.8, 0.9 and 0.95 of the full rate.
#[test]
fn both_sizes_run_as_many_as_measured() {
    for size in [ModelSize::small(), ModelSize::large()] {
        assert!((size.full_rate() / if size.profile.gpus == 1 { 22.5 } else { 4.5 } - 1.0).abs() < 0.02, "{}", size.full_rate());
        for (load, slots) in [(0.7, 0.33), (0.8, 0.45), (0.9, 0.66)] {
            let mut replica = Replica::new(0.0);
            let mut next = drawn(&size, load, 3000.0, 3);
            next.reverse();
            let (mut sum, mut count, mut until, mut id) = (0.0, 0.0, 0.0, 0);
            while until < 3000.0 {
                until += 0.1;
                while let Some(arrival) = next.pop_if(|arrival| arrival.at < until) {
                    replica.submit(Job { id, arrived: arrival.at, prompt: arrival.prompt, output: arrival.output, started: false });
                    id += 1;
                }
                replica.advance(&size.profile, until, 1e9, &mut |_| {});
                if until > 600.0 {
                    sum += replica.running() as f64;
                    count += 1.0;
                }
            }
            let share = sum / count / f64::from(size.profile.max_sequences);
            assert!((share / slots - 1.0).abs() < 0.2, "{} at {load}: {share}", size.name);
        }
    }
}

proptest! {
    /// Nothing is lost and nothing stays: all are answered, and the counters add up.
    #[test]
    fn all_that_comes_is_answered(
        requests in proptest::collection::vec((0.0_f64..30.0, 1_u32..3000, 1_u32..600), 1..120),
        kv_tokens in 4000_u64..40_000,
        max_sequences in 1_u32..64,
        max_step_tokens in 64_u32..4096,
    ) {
        let profile = ReplicaProfile { kv_tokens, max_sequences, max_step_tokens, ..ModelSize::small().profile };
        let mut arrivals: Vec<Arrival> = requests.iter().map(|(at, prompt, output)| Arrival { at: *at, prompt: *prompt, output: *output }).collect();
        arrivals.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut replica = Replica::new(0.0);
        for job in jobs(&arrivals) {
            replica.submit(job);
        }
        let mut first = 0;
        replica.advance(&profile, 100_000.0, 1e9, &mut |_| first += 1);
        let page = replica.page(&profile);
        prop_assert!(replica.is_empty());
        prop_assert_eq!(first, arrivals.len());
        prop_assert_eq!((page.kv, page.running, page.waiting), (0.0, 0, 0));
        prop_assert_eq!(page.completed, arrivals.len() as f64);
        let output: f64 = arrivals.iter().map(|arrival| f64::from(arrival.output)).sum();
        prop_assert!(page.generated_tokens >= output);
    }

    /// Clients leave the queue in the order in which they came.
    #[test]
    fn clients_leave_when_their_patience_ends(count in 300_u32..600) {
        let size = ModelSize::small();
        let mut replica = Replica::new(0.0);
        for id in 0..count {
            replica.submit(Job { id, arrived: 0.0, prompt: 512, output: 5000, started: false });
        }
        let mut left = Vec::new();
        replica.advance(&size.profile, 60.0, 30.0, &mut |event| {
            if let Happened::Left { id } = event {
                left.push(id);
            }
        });
        prop_assert_eq!(left, (256..count).collect::<Vec<_>>());
    }
}
