//! The situations: what is scaled, by what, and which size each turn is meant to give.

use serde_json::{Value, json};
use weir_tests::workload::deployment;

use super::Load;

/// Turns that are foreseen of each situation.
pub(crate) const PHASES: usize = 3;

const IN_FLIGHT: &str = "inference_pool_total_inflight_requests";
const KV_CACHE: &str = "inference_pool_average_kv_cache_utilization";
const RUNNING: &str = "inference_pod_running_requests";

/// A pool that is measured.
pub(crate) struct Pool {
    pub(crate) name: &'static str,
    pub(crate) servers: usize,
    /// What each server shows in a phase; none: nothing can be read.
    pub(crate) load: fn(usize) -> Option<Load>,
}

const fn load(running: u32, waiting: u32, kv_cache: u32) -> Option<Load> {
    Some(Load { running, waiting, kv_cache })
}

pub(crate) const LOADS: &[Pool] = &[
    // 200 in flight, a cache of 0.6.
    Pool { name: "busy", servers: 2, load: |_| load(60, 40, 60) },
    // 10 in flight, a cache of 0.1.
    Pool { name: "calm", servers: 2, load: |_| load(5, 0, 10) },
    Pool { name: "dark", servers: 1, load: |_| None },
    // 100, then 40, then 160 in flight.
    Pool { name: "swing", servers: 2, load: |phase| load([50, 20, 80][phase], 0, 30) },
    // Nothing for two turns, then 30.
    Pool { name: "sleeper", servers: 1, load: |phase| load([0, 0, 30][phase], 0, 0) },
    // 100, then not to be read, then 100 again.
    Pool { name: "fading", servers: 1, load: |phase| if phase == 1 { None } else { load(100, 0, 30) } },
];

/// What somebody does before a phase.
#[derive(Clone, Copy)]
pub(crate) enum ByHand {
    /// Sets the size.
    Scale(u32),
    /// So many pods stop being ready.
    Unready(usize),
}

pub(crate) struct Situation {
    /// Of the autoscaler.
    pub(crate) name: &'static str,
    /// The Deployment.
    pub(crate) target: &'static str,
    pub(crate) replicas: usize,
    /// How many of its pods are not ready from the beginning.
    pub(crate) unready: usize,
    /// Loads of its first pods, where they are a pool of their own.
    pub(crate) own_load: Vec<Load>,
    pub(crate) by_hand: Option<(usize, ByHand)>,
    /// The size after the turn of each phase; none: not looked at.
    pub(crate) next: [Option<u32>; PHASES],
    /// Phases in which the outcome depends on what only the controller knows, and is told to.
    pub(crate) unsure: &'static [usize],
    spec: Value,
}

impl Situation {
    fn new(name: &'static str, replicas: usize, metrics: Vec<Value>, next: [u32; PHASES]) -> Self {
        let spec = json!({"minReplicas": 1, "maxReplicas": 50, "metrics": metrics});
        let next = next.map(Some);
        Self { name, target: name, replicas, unready: 0, own_load: Vec::new(), by_hand: None, next, unsure: &[], spec }
    }

    fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.spec["minReplicas"], self.spec["maxReplicas"]) = (json!(min), json!(max));
        self
    }

    fn up(mut self, rules: Value) -> Self {
        self.spec["behavior"]["scaleUp"] = rules;
        self
    }

    fn down(mut self, rules: Value) -> Self {
        self.spec["behavior"]["scaleDown"] = rules;
        self
    }

    /// Shrinks at once.
    fn at_once(self) -> Self {
        self.down(json!({"stabilizationWindowSeconds": 0}))
    }

    /// What comes from that phase on is not looked at.
    fn until(mut self, phase: usize) -> Self {
        self.next[phase..].fill(None);
        self
    }

    fn hand(mut self, phase: usize, what: ByHand) -> Self {
        self.by_hand = Some((phase, what));
        self
    }

    fn unready(mut self, pods: usize) -> Self {
        self.unready = pods;
        self
    }

    /// Each of its first pods, which are a pool of their own, has so many requests running.
    fn own_load(mut self, running: &[u32]) -> Self {
        self.own_load = running.iter().map(|&running| Load { running, waiting: 0, kv_cache: 10 }).collect();
        self
    }

    fn target(mut self, target: &'static str) -> Self {
        self.target = target;
        self
    }

    fn unsure(mut self, phases: &'static [usize]) -> Self {
        self.unsure = phases;
        self
    }

    pub(crate) fn deployment(&self) -> Value {
        let pod = json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "server", "image": "pause"}]});
        deployment(self.target, self.replicas, pod)
    }

    pub(crate) fn autoscaler(&self) -> Value {
        let mut spec = self.spec.clone();
        spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": self.target});
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": self.name}, "spec": spec})
    }
}

fn average(target: &str) -> Value {
    json!({"type": "AverageValue", "averageValue": target})
}

fn value(target: &str) -> Value {
    json!({"type": "Value", "value": target})
}

fn external(name: &str, pool: &str, target: Value) -> Value {
    json!({"type": "External", "external": {"metric": {"name": name, "selector": {"matchLabels": {"name": pool}}}, "target": target}})
}

fn object(name: &str, pool: &str, target: Value) -> Value {
    let described = json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "name": pool});
    json!({"type": "Object", "object": {"describedObject": described, "metric": {"name": name}, "target": target}})
}

fn pods(target: &str) -> Value {
    json!({"type": "Pods", "pods": {"metric": {"name": RUNNING}, "target": average(target)}})
}

fn policies(policies: &[(&str, u32, u32)]) -> Value {
    let all = policies.iter().map(|(kind, value, period)| json!({"type": kind, "value": value, "periodSeconds": period}));
    json!({"policies": all.collect::<Vec<_>>()})
}

/// Policies with another field.
fn with(mut rules: Value, field: &str, value: Value) -> Value {
    rules[field] = value;
    rules
}

/// What `busy` asks for: 20 replicas.
fn far_up() -> Vec<Value> {
    vec![external(IN_FLIGHT, "busy", average("10"))]
}

/// What `calm` asks for: one replica.
fn far_down() -> Vec<Value> {
    vec![external(IN_FLIGHT, "calm", average("10"))]
}

/// What `swing` asks for: 5, 2 and 8 replicas.
fn swing() -> Vec<Value> {
    vec![external(IN_FLIGHT, "swing", average("20"))]
}

/// All of them.
pub(crate) fn situations() -> Vec<Situation> {
    let mut all = formulas();
    all.extend(failures());
    all.extend(limits());
    all.extend(over_time());
    all.extend(zero());
    all
}

fn formulas() -> Vec<Situation> {
    let of = Situation::new;
    let both = vec![external(KV_CACHE, "busy", value("400m")), external(IN_FLIGHT, "busy", average("34"))];
    let of_two = json!({"matchExpressions": [{"key": "name", "operator": "In", "values": ["busy", "calm"]}]});
    let summed =
        json!({"type": "External", "external": {"metric": {"name": IN_FLIGHT, "selector": of_two}, "target": average("70")}});
    vec![
        of("average", 2, vec![external(IN_FLIGHT, "busy", average("50"))], [4, 4, 4]),
        of("average-down", 3, far_down(), [3, 3, 3]).unsure(&[1, 2]),
        of("average-down-at-once", 3, far_down(), [1, 1, 1]).at_once(),
        of("average-tolerated", 2, vec![external(IN_FLIGHT, "busy", average("105"))], [2, 2, 2]),
        of("value", 2, vec![external(KV_CACHE, "busy", value("400m"))], [3, 5, 8]),
        of("value-tolerated", 4, vec![external(KV_CACHE, "busy", value("560m"))], [4, 4, 4]),
        of("value-own-tolerance", 4, vec![external(KV_CACHE, "busy", value("560m"))], [5, 6, 7]).up(json!({"tolerance": "50m"})),
        of("value-wide-tolerance", 4, vec![external(KV_CACHE, "busy", value("500m"))], [4, 4, 4]).up(json!({"tolerance": "250m"})),
        of("value-down", 4, vec![external(KV_CACHE, "calm", value("400m"))], [1, 1, 1]).at_once(),
        of("value-down-tolerance", 4, vec![external(KV_CACHE, "calm", value("120m"))], [4, 4, 4])
            .down(json!({"stabilizationWindowSeconds": 0, "tolerance": "200m"})),
        // More load, fewer replicas: those that are not ready do not count.
        of("value-half-ready", 4, vec![external(KV_CACHE, "busy", value("400m"))], [3, 3, 3]).unready(2).at_once(),
        of("value-none-ready", 2, vec![external(KV_CACHE, "busy", value("400m"))], [1, 1, 1]).unready(2).at_once(),
        of("average-none-ready", 2, vec![external(IN_FLIGHT, "busy", average("50"))], [4, 4, 4]).unready(2),
        of("object-average", 2, vec![object(IN_FLIGHT, "busy", average("50"))], [4, 4, 4]),
        of("object-value", 2, vec![object(KV_CACHE, "busy", value("400m"))], [3, 5, 8]),
        of("pods-up", 2, vec![pods("20")], [3, 3, 3]).own_load(&[30, 30]),
        of("pods-tolerated", 2, vec![pods("20")], [2, 2, 2]).own_load(&[21, 21]),
        of("pods-missing", 3, vec![pods("20")], [3, 3, 3]).own_load(&[30, 30]),
        // Which pod goes is chance.
        of("pods-missing-down", 3, vec![pods("20")], [2, 2, 2]).own_load(&[2, 2]).at_once().until(1),
        of("pods-down", 3, vec![pods("20")], [1, 1, 1]).own_load(&[2, 2, 2]).at_once(),
        of("the-higher-wins", 3, both, [6, 9, 14]),
        of("items-are-summed", 2, vec![summed], [3, 3, 3]),
    ]
}

fn failures() -> Vec<Situation> {
    let of = Situation::new;
    let dark = || external(IN_FLIGHT, "dark", average("10"));
    let grows = vec![dark(), external(IN_FLIGHT, "busy", average("50"))];
    let shrinks = vec![external(IN_FLIGHT, "calm", average("10")), dark()];
    let fading = vec![external(IN_FLIGHT, "fading", average("10"))];
    vec![
        of("one-fails-other-grows", 2, grows, [4, 4, 4]),
        of("one-fails-other-shrinks", 3, shrinks, [3, 3, 3]).at_once(),
        of("unknown", 3, vec![dark()], [3, 3, 3]).at_once(),
        of("no-such-pool", 3, vec![external(IN_FLIGHT, "bussy", average("10"))], [3, 3, 3]).at_once(),
        of("misspelt", 3, vec![external("inference_pool_total_inflight", "busy", average("10"))], [3, 3, 3]).at_once(),
        of("fades", 10, fading, [10, 10, 10]).at_once(),
    ]
}

fn limits() -> Vec<Situation> {
    let of = Situation::new;
    let none = json!({"selectPolicy": "Disabled"});
    let two = policies(&[("Pods", 1, 60), ("Percent", 100, 60)]);
    let wide = policies(&[("Pods", 3, 60), ("Percent", 50, 60)]);
    let quick = |rules| with(rules, "stabilizationWindowSeconds", json!(0));
    vec![
        of("maximum", 3, far_up(), [5, 5, 5]).bounds(1, 5),
        of("minimum", 4, far_down(), [2, 2, 2]).bounds(2, 50).at_once(),
        of("above-maximum", 6, far_up(), [4, 4, 4]).bounds(1, 4),
        of("below-minimum", 1, far_down(), [3, 3, 3]).bounds(3, 50).at_once(),
        of("doubles", 2, far_up(), [4, 8, 16]),
        of("doubles-or-four", 3, far_up(), [7, 14, 20]).up(json!({"stabilizationWindowSeconds": 0})),
        of("pods-a-minute", 2, far_up(), [3, 3, 3]).up(policies(&[("Pods", 1, 60)])),
        of("percent-a-minute", 4, far_up(), [6, 6, 6]).up(policies(&[("Percent", 50, 60)])),
        of("the-lesser-policy", 4, far_up(), [5, 5, 5]).up(with(two, "selectPolicy", json!("Min"))),
        of("the-wider-policy", 4, far_up(), [7, 7, 7]).up(wide),
        of("no-growth", 4, far_up(), [4, 4, 4]).up(none.clone()),
        of("no-shrinking", 4, far_down(), [4, 4, 4]).down(with(none, "stabilizationWindowSeconds", json!(0))),
        of("down-pods-a-minute", 4, far_down(), [3, 3, 3]).down(quick(policies(&[("Pods", 1, 60)]))),
        of("down-percent-a-minute", 8, far_down(), [4, 4, 4]).down(quick(policies(&[("Percent", 50, 60)]))),
    ]
}

fn over_time() -> Vec<Situation> {
    let of = Situation::new;
    vec![
        of("swings", 5, swing(), [5, 2, 6]).at_once(),
        of("held-down", 5, swing(), [5, 5, 8]).down(json!({"stabilizationWindowSeconds": 60})),
        // Shorter than a turn: nothing is remembered of the last one.
        of("short-window", 5, swing(), [5, 2, 6]).down(json!({"stabilizationWindowSeconds": 10})),
        of("held-up-at-first", 2, far_up(), [2, 2, 2]).up(json!({"stabilizationWindowSeconds": 120})).unsure(&[1, 2]),
        of("cut-by-hand", 5, swing(), [5, 5, 8]).hand(1, ByHand::Scale(3)),
        of("cut-by-hand-with-behaviour", 5, swing(), [5, 3, 7]).up(json!({})).hand(1, ByHand::Scale(3)),
        of("raised-by-hand", 5, swing(), [5, 2, 6]).at_once().hand(1, ByHand::Scale(9)),
        of("off-by-hand", 5, swing(), [5, 0, 0]).hand(1, ByHand::Scale(0)),
        of("readiness-lost", 4, vec![external(KV_CACHE, "busy", value("500m"))], [5, 4, 4]).at_once().hand(1, ByHand::Unready(2)),
        of("two-on-one", 2, vec![external(IN_FLIGHT, "swing", average("50"))], [2, 2, 2]),
        of("one-of-two", 2, vec![external(IN_FLIGHT, "swing", average("49"))], [2, 2, 2]).target("two-on-one"),
    ]
}

fn zero() -> Vec<Situation> {
    let of = Situation::new;
    let sleeper = || vec![external(IN_FLIGHT, "sleeper", average("10"))];
    let cache = || vec![external(KV_CACHE, "busy", value("400m"))];
    vec![
        of("to-zero-and-back", 2, sleeper(), [0, 0, 3]).bounds(0, 50).at_once(),
        of("not-to-zero", 2, sleeper(), [1, 1, 3]).at_once(),
        of("off", 0, far_up(), [0, 0, 0]),
        of("off-with-minimum-zero", 0, cache(), [0, 0, 0]).bounds(0, 50),
    ]
}
