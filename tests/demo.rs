//! `weir demo` to its end, with kubectl reading beside it.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;
use weir_tests::{Process, eventually, kubectl, run};

#[test]
fn the_demo_scales_up_down_to_zero_and_back_and_kubectl_reads_it_under_both_names() {
    let demo = Process::weir(&["demo", "--for", "40s", "--plain"]);
    // The first line to paste: a request through the picker.
    let curl = demo.line("a request to paste", |line| line.starts_with("curl ") && line.contains("/v1/completions"));
    let answer = Command::new("sh").args(["-c", &curl]).output().expect("sh runs");
    let answer: Value = serde_json::from_slice(&answer.stdout).expect("an answer");
    assert_eq!(answer["usage"]["completion_tokens"], 8, "{answer}");
    let mut commands = Vec::new();
    while commands.len() < 2 {
        commands.push(demo.line("a kubectl command", |line| line.starts_with("kubectl ")));
    }
    for (command, metric) in commands.iter().zip([
        "inference_pool_average_kv_cache_utilization",
        "prometheus.googleapis.com|inference_pool_average_kv_cache_utilization|gauge",
    ]) {
        // The line as printed, run by a shell as a user would who pastes it.
        let command = command.replacen("kubectl", &kubectl().display().to_string(), 1);
        let list: Value = eventually("kubectl reads the value", || {
            let output = Command::new("sh").args(["-c", &command]).output().expect("sh runs");
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
        });
        assert_eq!(list["kind"], "ExternalMetricValueList");
        let items = list["items"].as_array().expect("items");
        assert_eq!(items.len(), 1, "{list}");
        assert_eq!(items[0]["metricName"], metric, "{list}");
        assert!(items[0]["value"].is_string(), "{list}");
    }
    let summary = demo.line_within("the summary", std::time::Duration::from_secs(90), |line| line.starts_with("scaled up "));
    assert!(!summary.starts_with("scaled up 0 times"), "{summary}");
    let output = demo.output();
    for decision in ["  up 1 -> ", "  down ", " -> 0: ", "  wake 0 -> "] {
        assert!(output.contains(decision), "{decision}: {output}");
    }
    assert!(summary.contains(", 1 times to zero; ") && summary.contains(" 0 failed; "), "{summary}");
    assert!(demo.ended_well(), "{output}");
}

#[test]
fn a_demo_too_short_to_show_anything_is_refused() {
    let output = run(&["demo", "--for", "5s"]);
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--for must be at least 40s"), "{message}");
}
