//! Every plugin against upstream's documented formula: a snapshot, and what was worked out for it by hand.
//!
//! Plugins are made from configurations, as they are in earnest. An endpoint is idle, known and without labels unless a row says
//! otherwise.

mod affinity;
mod disaggregation;
mod filters;
mod loads;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::config::facts_of;
use super::testing::{Asked, Loads};
use super::{
    Candidate, Cycle, ExtensionPoint, Observer, Placement, PluginName, Runs, SchedulingConfig, Scratch, Unobserved, Unplaced,
};

/// An endpoint of a snapshot.
#[derive(Clone, Debug, Default)]
struct Endpoint {
    queue: f64,
    running: f64,
    kv: f64,
    /// Its page tells nothing of these.
    silent: bool,
    /// It has no fresh page.
    unknown: bool,
    in_flight: u64,
    tokens: u64,
    matched: usize,
    cold: u64,
    labels: Vec<(&'static str, &'static str)>,
}

/// An idle one.
fn idle() -> Endpoint {
    Endpoint::default()
}

impl Endpoint {
    fn queue(self, queue: f64) -> Self {
        Self { queue, ..self }
    }
    fn running(self, running: f64) -> Self {
        Self { running, ..self }
    }
    fn kv(self, kv: f64) -> Self {
        Self { kv, ..self }
    }
    fn silent(self) -> Self {
        Self { silent: true, ..self }
    }
    fn unknown(self) -> Self {
        Self { unknown: true, ..self }
    }
    fn in_flight(self, in_flight: u64) -> Self {
        Self { in_flight, ..self }
    }
    fn tokens(self, tokens: u64) -> Self {
        Self { tokens, ..self }
    }
    fn matched(self, matched: usize) -> Self {
        Self { matched, ..self }
    }
    /// Its turn with a request of which nobody had any prefix.
    fn cold(self, cold: u64) -> Self {
        Self { cold, ..self }
    }
    fn label(mut self, name: &'static str, value: &'static str) -> Self {
        self.labels.push((name, value));
        self
    }
}

/// A configuration, and a request that it is tried with.
struct Parity {
    config: SchedulingConfig,
    asked: Asked,
    blocks: usize,
}

impl Parity {
    /// One plugin, with v1.5.0's defaults.
    fn v1_5(kind: &str, parameters: &str) -> Self {
        Self::of("inference.networking.x-k8s.io", &format!("plugins:\n- type: {kind}\n  parameters: {{{parameters}}}\n"))
    }

    /// One plugin, with llm-d's defaults.
    fn llm_d(kind: &str, parameters: &str) -> Self {
        Self::of("llm-d.ai", &format!("plugins:\n- type: {kind}\n  parameters: {{{parameters}}}\n"))
    }

    fn of(group: &str, rest: &str) -> Self {
        let source = format!("apiVersion: {group}/v1alpha1\nkind: EndpointPickerConfig\n{rest}");
        let config = SchedulingConfig::parse(&source).unwrap_or_else(|error| panic!("{source}\n{error}"));
        Self { asked: Asked { estimate: config.tokens, ..Asked::default() }, config, blocks: 0 }
    }

    /// The request's prefix has so many blocks of 16 tokens.
    fn blocks(self, blocks: usize) -> Self {
        Self { blocks, ..self }
    }

    /// The request's prompt has so many tokens.
    fn prompt_tokens(mut self, tokens: usize) -> Self {
        self.asked.request.prefix = vec![b'x'; tokens * 4].into();
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        assert!(self.config.headers.iter().any(|asked| **asked == *name), "nobody asks for {name}: {:?}", self.config.headers);
        self.asked.request.headers.retain(|(known, _)| **known != *name);
        self.asked.request.headers.push((name.into(), value.into()));
        self
    }

    fn loads<T>(&self, table: &[(Endpoint, T)]) -> Loads {
        let queues: Vec<f64> = table.iter().map(|(endpoint, _)| endpoint.queue).collect();
        let mut loads = Loads::waiting(&queues);
        loads.prefix_blocks = self.blocks;
        for (index, (endpoint, _)) in table.iter().enumerate() {
            let page = &mut loads.pages[index];
            page.running = Loads::combined(endpoint.running);
            page.kv_cache_utilization = Loads::combined(endpoint.kv);
            if endpoint.silent {
                (page.running, page.waiting, page.kv_cache_utilization) = (None, None, None);
            }
            if endpoint.unknown {
                loads.unknown.push(index);
            }
            loads.in_flight[index] = endpoint.in_flight;
            loads.tokens_in_flight[index] = endpoint.tokens;
            loads.matched_blocks[index] = endpoint.matched;
            loads.memories[index].last_cold = endpoint.cold.into();
            loads.labels[index] = endpoint.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            loads.facts[index] = facts_of(&self.config.facts, &loads.labels[index]);
        }
        loads
    }

    /// The only scorer says this of each.
    fn scores(&self, table: &[(Endpoint, Option<f64>)]) -> &Self {
        let loads = self.loads(table);
        let scores = self.asked.scores(&*self.config.profiles[0].scorers[0].scorer.plugin, &loads);
        for ((endpoint, expected), score) in table.iter().zip(scores) {
            let same = match (expected, score) {
                (Some(expected), Some(score)) => (expected - score).abs() < 1e-9,
                (expected, score) => expected.is_none() && score.is_none(),
            };
            assert!(same, "{score:?} is not {expected:?} for {endpoint:?}");
        }
        self
    }

    /// The only filter leaves those.
    fn leaves(&self, table: &[(Endpoint, bool)]) -> &Self {
        let left = self.asked.left(&*self.config.profiles[0].filters[0].plugin, &self.loads(table));
        for (index, (endpoint, stays)) in table.iter().enumerate() {
            assert_eq!(left.contains(&index), *stays, "{endpoint:?} of {left:?}");
        }
        self
    }

    /// Where the whole configuration sends the request; `then` is told.
    fn placed<T>(&self, endpoints: &[Endpoint], then: impl FnOnce(Result<Placement<'_>, Unplaced>) -> T) -> T {
        let table: Vec<(Endpoint, ())> = endpoints.iter().map(|endpoint| (endpoint.clone(), ())).collect();
        let loads = self.loads(&table);
        Scratch::with(|scratch| {
            scratch.candidates.extend(loads.candidates());
            // Other lots for another turn.
            let mut rng = StdRng::seed_from_u64(self.asked.turn);
            let cycle = Cycle { rng: &mut rng, clock: &Instant::now, observer: &Unobserved };
            let mut runs = Runs::new(self.asked.request(&loads), &self.config.profiles, scratch, cycle);
            then(self.config.handler.plugin.schedule(&mut runs))
        })
    }

    /// Places the request and tells the learners; the index of the endpoint and the response's headers.
    fn goes_to(&self, endpoints: &[Endpoint]) -> (usize, Vec<(String, String)>) {
        let request_loads = self.loads(&endpoints.iter().map(|endpoint| (endpoint.clone(), ())).collect::<Vec<_>>());
        self.placed(endpoints, |placement| {
            let placement = placement.unwrap();
            let mut headers = Vec::new();
            for learner in &self.config.learners {
                learner.plugin.placed(&self.asked.request(&request_loads), &placement, &mut headers);
            }
            let headers = headers.into_iter().map(|(name, value)| ((*name).to_owned(), value)).collect();
            (first(&placement).index, headers)
        })
    }
}

fn first<'a>(placement: &Placement<'a>) -> Candidate<'a> {
    placement.primary.endpoints[0]
}

/// The names of those that ran.
#[derive(Default)]
struct Ran(std::cell::RefCell<Vec<String>>);

impl Observer for Ran {
    fn plugin_ran(&self, _point: ExtensionPoint, plugin: &PluginName, _took: std::time::Duration) {
        self.0.borrow_mut().push((*plugin.name).to_owned());
    }
}
