//! What came of each policy, for programs.

use serde::Serialize;
use weir_what_if::Outcome;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replay<'outcome> {
    load: &'outcome str,
    policies: Vec<PolicyView<'outcome>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyView<'outcome> {
    name: &'outcome str,
    requests: u64,
    /// Share with a first token in time.
    in_slo: f64,
    /// Share without an answer.
    lost: f64,
    gpu_hours: f64,
    most_replicas: u32,
    flaps: u32,
    ttft_p50_seconds: f64,
    ttft_p95_seconds: f64,
    /// Seconds, and the replicas that were asked for from then on.
    steps: &'outcome [(u64, u32)],
}

/// The outcomes as one object.
pub(super) fn of(load: &str, outcomes: &[&Outcome]) -> serde_json::Result<String> {
    let policies = outcomes.iter().map(|outcome| PolicyView {
        name: &outcome.name,
        requests: outcome.requests,
        in_slo: outcome.in_slo_share(),
        lost: outcome.lost_share(),
        gpu_hours: outcome.gpu_hours,
        most_replicas: outcome.peak,
        flaps: outcome.flaps,
        ttft_p50_seconds: outcome.ttft.0,
        ttft_p95_seconds: outcome.ttft.1,
        steps: &outcome.steps,
    });
    serde_json::to_string_pretty(&Replay { load, policies: policies.collect() })
}
