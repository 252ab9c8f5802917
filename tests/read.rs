//! `weir read` on pages in real formats, from outside.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::Value;
use weir_tests::{repository, run};

fn expected_pages() -> Option<BTreeMap<String, Value>> {
    let path = repository().join("../shared/fixtures/metrics/expected.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("CI").is_none(), "the fixture pages must be beside the repository in CI");
        eprintln!("fixture pages not found: skipped");
        return None;
    };
    let document: Value = serde_json::from_str(&text).unwrap();
    Some(serde_json::from_value(document["pages"].clone()).unwrap())
}

fn read_json(page: &str) -> Result<Value, String> {
    let path = repository().join("../shared/fixtures/metrics").join(page);
    let output = run(&["read", path.to_str().unwrap(), "--output", "json"]);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        assert!(output.stdout.is_empty(), "{page}: refused pages print nothing to standard output");
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

fn totals(expected: &Value, key: &str, most: f64) -> Option<f64> {
    let total = expected["server"][key].as_f64()?;
    (0.0..=most).contains(&total).then_some(total)
}

#[test]
fn every_page_of_vllm_sglang_and_the_simulator() {
    let Some(pages) = expected_pages() else { return };
    for (page, expected) in &pages {
        let producer = expected["producer"].as_str().unwrap_or_default();
        if !["vllm", "sglang", "llm-d-inference-sim"].contains(&producer) {
            continue;
        }
        let read = read_json(page).unwrap_or_else(|error| panic!("{page}: {error}"));
        let expect = &expected["expect"];
        assert_eq!(read["engine"], producer, "{page}");
        assert_eq!(read["running"].as_f64(), totals(expect, "running", 1e9), "{page}");
        assert_eq!(read["waiting"].as_f64(), totals(expect, "waiting", 1e9), "{page}");
        assert_eq!(read["kv_cache_utilization"].as_f64(), totals(expect, "kv_utilisation_mean", 1.0), "{page}");
        assert_eq!(read["dropped_lines"], 0, "{page}");
    }
}

#[test]
fn every_nasty_page() {
    let Some(pages) = expected_pages() else { return };
    for (page, expected) in &pages {
        let Some(outcome) = expected["outcome"].as_str() else { continue };
        match (outcome, read_json(page)) {
            ("reject", Err(message)) => assert!(message.contains(page.rsplit('/').next().unwrap()), "{page}: {message}"),
            ("accept", Ok(read)) => assert_eq!(read["dropped_lines"], 0, "{page}"),
            ("partial", Ok(read)) => assert_eq!(read["dropped_lines"], expected["dropped_lines"], "{page}"),
            (outcome, read) => panic!("{page}: {outcome}, but {read:?}"),
        }
    }
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    if expected_pages().is_none() {
        return;
    }
    for (page, key) in [
        ("nasty/missing-waiting.prom", "waiting"),
        ("nasty/nan-inf.prom", "running"),
        ("nasty/out-of-range.prom", "kv_cache_utilization"),
        ("nasty/empty.prom", "engine"),
        ("nasty/only-comments.prom", "running"),
    ] {
        let read = read_json(page).unwrap();
        assert!(read.get(key).is_none(), "{page}: {read}");
    }
    // A file is read as of its newest timestamp: the day-old sample is outdated, the others are not.
    let read = read_json("nasty/timestamps.prom").unwrap();
    assert_eq!((read["waiting"].as_f64(), read["kv_cache_utilization"].as_f64()), (Some(10.0), Some(0.25)));
    assert_eq!(read["outdated"], 2);
}

#[test]
fn a_pickers_page_shows_what_it_holds() {
    if expected_pages().is_none() {
        return;
    }
    for page in ["gie-epp-1.5.0.prom", "llm-d-router-0.9.0.prom"] {
        let read = read_json(page).unwrap();
        assert!(read.get("engine").is_none(), "{page}: {read}");
        assert_eq!(read["picker"], serde_json::json!({"held": 19, "arrivals": 420}), "{page}");
    }
}

#[test]
fn the_table_names_the_series_and_the_lines() {
    let folder = weir_tests::Folder::new("table");
    let page = "vllm:num_requests_running{engine=\"0\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\nvllm:kv_cache_usage_perc 7\nvllm:num_requests_waiting \u{1b}[31m\n";
    let path = folder.write("page.prom", page);
    let output = run(&["read", path.to_str().unwrap()]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    for expected in [
        "engine   vllm",
        "running                             7  vllm:num_requests_running{engine=\"0\"}",
        "waiting                       unknown",
        "4  the hottest of 2 engines",
        "line 3: vllm:kv_cache_usage_perc = 7 (invalid)",
        "4 sample lines, 1 dropped\n  line 4: no readable number",
    ] {
        assert!(table.contains(expected), "no `{expected}` in:\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "a page must not colour the screen");
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |page: &str| {
        let output = run(&["read", page]);
        assert!(!output.status.success(), "{page}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(message("no-such-file.prom").contains("no-such-file.prom: cannot be read (a URL begins with http:// or https://)"));
    let refused = message("http://127.0.0.1:9/metrics");
    assert!(refused.contains("127.0.0.1:9") && refused.contains("listening"), "{refused}");
    let engine = run(&["read", "-", "--engine", "vlm"]);
    let engine = String::from_utf8(engine.stderr).unwrap();
    assert!(engine.contains("unknown engine `vlm`: one of auto, vllm"), "{engine}");
}
