//! Scorers by load.

use super::{Parity, idle};

#[test]
fn queue_and_running_requests() {
    Parity::v1_5("queue-scorer", "")
        .scores(&[
            (idle().queue(0.0), Some(1.0)),
            (idle().queue(3.0), Some(0.7)),
            (idle().queue(10.0), Some(0.0)),
            (idle().silent(), None),
        ])
        .scores(&[(idle().queue(4.0), Some(1.0)), (idle().queue(4.0), Some(1.0))])
        .scores(&[(idle().queue(9.0), Some(1.0))]);
    Parity::v1_5("running-requests-size-scorer", "")
        .scores(&[
            (idle().running(2.0), Some(0.75)),
            (idle().running(8.0), Some(0.0)),
            (idle(), Some(1.0)),
            (idle().unknown(), None),
        ])
        .scores(&[(idle(), Some(1.0))]);
}

#[test]
fn kv_cache_utilization() {
    Parity::v1_5("kv-cache-utilization-scorer", "").scores(&[
        (idle(), Some(1.0)),
        (idle().kv(0.35), Some(0.65)),
        (idle().kv(1.0), Some(0.0)),
        (idle().silent(), None),
        (idle().unknown(), None),
    ]);
}

#[test]
fn load_aware() {
    Parity::llm_d("load-aware-scorer", "")
        .scores(&[
            (idle(), Some(0.5)),
            (idle().queue(32.0), Some(0.375)),
            (idle().queue(64.0), Some(0.25)),
            (idle().queue(128.0), Some(0.0)),
            (idle().queue(500.0), Some(0.0)),
            (idle().silent(), None),
        ])
        .scores(&[(idle().queue(96.0), Some(0.125))]);
    Parity::llm_d("load-aware-scorer", "threshold: 10").scores(&[(idle().queue(4.0), Some(0.3))]);
}

#[test]
fn active_requests() {
    Parity::llm_d("active-request-scorer", "")
        .scores(&[
            (idle(), Some(1.0)),
            (idle().in_flight(1), Some(0.75)),
            (idle().in_flight(3), Some(0.25)),
            (idle().in_flight(4), Some(0.0)),
        ])
        .scores(&[(idle(), Some(1.0)), (idle(), Some(1.0))])
        .scores(&[(idle().in_flight(7), Some(0.0))]);
    Parity::llm_d("active-request-scorer", "idleThreshold: 2, maxBusyScore: 0.5").scores(&[
        (idle(), Some(1.0)),
        (idle().in_flight(2), Some(1.0)),
        (idle().in_flight(5), Some(0.25)),
        (idle().in_flight(10), Some(0.0)),
    ]);
    Parity::llm_d("active-request-scorer", "idleThreshold: 9").scores(&[(idle().in_flight(9), Some(1.0)), (idle(), Some(1.0))]);
}

#[test]
fn token_load() {
    // 4,194,304 tokens; a quarter of them is 1,048,576.
    Parity::v1_5("token-load-scorer", "").prompt_tokens(1000).scores(&[
        (idle(), Some(1.0)),
        (idle().tokens(1_048_576), Some(0.75)),
        (idle().tokens(4_194_304), Some(0.0)),
        (idle().tokens(9_999_999), Some(0.0)),
    ]);
    // llm-d's counts the request's own: 64 tokens, of which an endpoint with two of the four blocks has 32.
    Parity::llm_d("token-load-scorer", "queueThresholdTokens: 256").prompt_tokens(64).blocks(4).scores(&[
        (idle(), Some(0.75)),
        (idle().matched(2), Some(0.875)),
        (idle().tokens(64).matched(4), Some(0.75)),
        (idle().tokens(192), Some(0.0)),
        (idle().tokens(1000), Some(0.0)),
    ]);
    Parity::llm_d("token-load-scorer", "").scores(&[(idle(), Some(1.0))]);
}

#[test]
fn latency_without_predictions() {
    // A third each of free cache, relative queue and prefix: (.75 + 1 + .5)/3 = .75; (1 + .5 + 0)/3 = .5; (0 + 0 + 1)/3 = .33.
    Parity::v1_5("latency-scorer", "").blocks(4).scores(&[
        (idle().kv(0.25).matched(2), Some(0.75)),
        (idle().queue(4.0), Some(0.5)),
        (idle().kv(1.0).queue(8.0).matched(4), Some(0.33)),
        (idle().silent().matched(4), None),
    ]);
    Parity::llm_d("latency-scorer", "compositeKVWeight: 1, compositeQueueWeight: 3, compositePrefixWeight: 0, ttftWeight: 0.5")
        .scores(&[(idle().kv(0.4), Some(0.9)), (idle().kv(0.4), Some(0.9))]);
    // Where everything weighs nothing the KV cache is left; what weighs nothing need not be told.
    Parity::v1_5("latency-scorer", "compositeKVWeight: 0, compositeQueueWeight: 0, compositePrefixWeight: 0")
        .scores(&[(idle().kv(0.3).queue(5.0), Some(0.7))]);
    Parity::v1_5("latency-scorer", "compositeKVWeight: 0, compositeQueueWeight: 0, compositePrefixWeight: 2")
        .blocks(2)
        .scores(&[(idle().silent().matched(1), Some(0.5)), (idle(), Some(0.0))]);
}

#[test]
fn context_length() {
    let label = "llm-d.ai/context-length-range";
    // 1,000 tokens in 0-2000: .7/(1 + .2) + .3 · .5 = .733333…; .3 + .7 · that = .813333….
    let in_range = 0.3 + 0.7 * (0.7 / 1.2 + 0.15);
    Parity::llm_d("context-length-aware", "").prompt_tokens(1000).scores(&[
        (idle().label(label, "0-2000"), Some(in_range)),
        (idle().label(label, "1000-1000"), Some(1.0)),
        (idle().label(label, "3000-9000"), Some(0.3 / 3.0)),
        (idle().label(label, "0-500"), Some(0.3 / 1.5)),
        (idle(), Some(0.5)),
        (idle().label(label, "many"), Some(0.0)),
        (idle().label(label, "9-1"), Some(0.0)),
        (idle().label(label, " 0 - 2000 "), Some(in_range)),
    ]);
    Parity::llm_d("context-length-aware", "enableFiltering: true, label: size").prompt_tokens(10).leaves(&[
        (idle().label("size", "0-9"), false),
        (idle().label("size", "10-10"), true),
        (idle().label("size", "11-20"), false),
        (idle().label("size", "?"), false),
        (idle(), true),
    ]);
    assert!(Parity::llm_d("context-length-aware", "").config.profiles[0].filters.is_empty(), "no filter unless it is wanted");
}
