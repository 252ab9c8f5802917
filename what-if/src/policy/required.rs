//! `inference_pool_required_replicas` of the simulated pool.

use std::time::Duration;

use weir_hpa::required::{Day, Endpoint, Learned, Load, Options, Picker, Pickers, RequiredReplicas, Second, constants};

use crate::load::Load as Arrivals;
use crate::sample::PoolSample;

/// A simulation begins at nine in the morning of this day (UTC, since 1970).
const DAY: u64 = 20_000;
const MORNING: u64 = 9 * 3600;

/// How the metric is computed.
#[derive(Clone, Debug, Default)]
pub struct RequiredOptions {
    /// The metric's own options.
    pub options: Options,
    /// Whether the picker tells arrivals and prompt tokens, or only the servers do.
    pub servers_only: bool,
    /// What was learned before.
    pub learned: Option<Learned>,
}

/// The metric under way.
pub(crate) struct Estimator {
    required: RequiredReplicas,
    servers_only: bool,
}

const FINGERPRINT: &str = "what-if";

impl Estimator {
    pub(crate) fn new(options: &RequiredOptions) -> Self {
        // What was learned elsewhere is taken to be of these servers.
        let servers = options.learned.as_ref().map_or(FINGERPRINT, |learned| &learned.fingerprint);
        let mut required = RequiredReplicas::new(servers, options.options);
        if let Some(learned) = &options.learned
            && let Err(error) = required.restore(learned)
        {
            // Made by this crate from the same type, or checked by who read it.
            debug_assert!(false, "{error}");
        }
        Self { required, servers_only: options.servers_only }
    }

    pub(crate) fn learned(&self) -> Learned {
        self.required.learned()
    }

    /// The value of this second.
    pub(crate) fn second(&mut self, sample: &PoolSample) -> Option<f64> {
        let endpoints = sample.pods.iter().map(|pod| Endpoint {
            id: pod.id,
            ready_for: Duration::from_secs_f64(pod.ready_for.max(0.0)),
            load: Some(Load {
                running: f64::from(pod.page.running),
                waiting: f64::from(pod.page.waiting),
                kv: pod.page.kv,
                prompt_tokens: Some(pod.page.prompt_tokens),
                generated_tokens: Some(pod.page.generated_tokens),
                first_tokens: Some(pod.page.first_tokens),
                completed: Some(pod.page.completed),
            }),
        });
        let counted = |value: f64| (!self.servers_only).then_some(value);
        let picker = Picker {
            id: 0,
            held: sample.held as f64,
            arrivals: counted(sample.arrivals),
            prompt_tokens: counted(sample.prompt_tokens),
        };
        let second = Second {
            now: Duration::from_secs_f64((DAY * 86_400 + MORNING) as f64 + sample.at),
            pickers: Pickers::Read(vec![picker]),
            endpoints: Some(endpoints.collect()),
            pending: sample.starting,
            started: sample.started.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect(),
        };
        self.required.turn(&second).replicas().map(f64::from)
    }
}

/// The day `days_ago` days before the simulated one, had it had this load; before and after as at its first and last minutes.
pub fn day_of(load: &Arrivals, days_ago: u64) -> Day {
    let bin = constants::DAY_BIN_SECONDS as usize;
    let window = constants::LONG_WINDOW;
    let seconds = load.seconds.ceil().max(1.0) as usize;
    let mut sums = vec![(0.0, 0.0); seconds + 1];
    for arrival in &load.arrivals {
        let sum = &mut sums[(arrival.at as usize).min(seconds - 1) + 1];
        sum.0 += f64::from(arrival.prompt);
        sum.1 += f64::from(arrival.output);
    }
    for second in 1..=seconds {
        sums[second] = (sums[second].0 + sums[second - 1].0, sums[second].1 + sums[second - 1].1);
    }
    let mean = |end: usize| {
        let end = end.clamp(window.min(seconds), seconds);
        let (from, to) = (sums[end.saturating_sub(window)], sums[end]);
        ((to.0 - from.0) / window as f64, (to.1 - from.1) / window as f64)
    };
    let bins = (0..constants::DAY_BINS).map(|index| {
        let begin = (index * bin) as i64 - MORNING as i64;
        let highest = (begin..begin + bin as i64).map(|second| mean(second.max(0) as usize));
        let (prompt, output) = highest.fold((0.0, 0.0), |(p, o): (f64, f64), (prompt, output)| (p.max(prompt), o.max(output)));
        Some((prompt.round() as u32, output.round() as u32))
    });
    Day { day: DAY - days_ago, tokens: bins.collect() }
}
