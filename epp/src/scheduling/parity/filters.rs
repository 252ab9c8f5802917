//! Filters by load and by label.

use super::{Parity, idle};

#[test]
fn utilization() {
    let all = "conditions: [{metric: active-requests, maxValue: 2}, {metric: running-requests, maxValue: 8}, {metric: waiting-queue, \
               maxValue: 0}, {metric: kv-cache-utilization, maxValue: 0.9}]";
    let table = [
        (idle(), true),
        (idle().in_flight(2).running(8.0).kv(0.9), true),
        (idle().in_flight(3), false),
        (idle().running(9.0), false),
        (idle().queue(1.0), false),
        (idle().kv(0.91), false),
        (idle().silent().in_flight(2), true),
        (idle().unknown(), true),
    ];
    Parity::llm_d("utilization-filter", all).leaves(&table);
    let queue = |fallback| format!("conditions: [{{metric: waiting-queue, maxValue: 3}}], fallbackOnEmpty: {fallback}");
    Parity::llm_d("utilization-filter", &queue(false)).leaves(&[(idle().queue(4.0), false), (idle().queue(5.0), false)]);
    Parity::llm_d("utilization-filter", &queue(true)).leaves(&[(idle().queue(4.0), true), (idle().queue(5.0), true)]);
    Parity::llm_d("utilization-filter", &queue(true)).leaves(&[(idle().queue(4.0), false), (idle().queue(3.0), true)]);
}

#[test]
fn roles() {
    // decode, prefill, encode.
    for (role, expected) in [
        ("decode", [true, false, false]),
        ("prefill", [false, true, false]),
        ("encode", [false, false, true]),
        ("prefill-decode", [true, true, false]),
        ("both", [true, true, false]),
        ("encode-prefill", [false, true, true]),
        ("encode-prefill-decode", [true, true, true]),
        ("decode-prefill", [false, false, false]),
        ("", [false, false, false]),
    ] {
        for (kind, stays) in ["decode-filter", "prefill-filter", "encode-filter"].into_iter().zip(expected) {
            Parity::llm_d(kind, "").leaves(&[(idle().label("llm-d.ai/role", role), stays)]);
        }
    }
    Parity::llm_d("decode-filter", "").leaves(&[(idle(), true)]);
    Parity::llm_d("prefill-filter", "").leaves(&[(idle(), false)]);
    Parity::llm_d("encode-filter", "").leaves(&[(idle(), false)]);
}

#[test]
fn labels() {
    let selector = "matchLabels: {app: vllm}, matchExpressions: [{key: tier, operator: In, values: [a, b]}, {key: old, operator: \
                    DoesNotExist}, {key: zone, operator: NotIn, values: [z]}, {key: gpu, operator: Exists}]";
    let right = || idle().label("app", "vllm").label("tier", "b").label("gpu", "");
    for kind in ["label-selector-filter", "by-label-selector"] {
        Parity::llm_d(kind, selector).leaves(&[
            (right(), true),
            (right().label("zone", "y"), true),
            (right().label("zone", "z"), false),
            (right().label("old", "1"), false),
            (idle().label("app", "vllm").label("tier", "c").label("gpu", ""), false),
            (idle(), false),
        ]);
        Parity::llm_d(kind, "").leaves(&[(idle(), true)]);
    }
    let table = |without| [(idle().label("tier", "a"), true), (idle().label("tier", "b"), false), (idle(), without)];
    Parity::llm_d("by-label", "label: tier, validValues: [a]").leaves(&table(false));
    Parity::llm_d("by-label", "label: tier, validValues: [a], allowsNoLabel: true").leaves(&table(true));
}

#[test]
fn without_predictions_nobody_is_taken_away_and_nobody_refused() {
    let config = Parity::v1_5("slo-headroom-tier-filter", "epsilonExploreNeg: 0.5").config;
    assert!(config.profiles[0].filters.is_empty());
    assert!(Parity::v1_5("latency-slo-admitter", "").config.admitters.is_empty());
}
