//! Pages in the real formats of the servers, against values derived with other parsers.
//!
//! The pages live outside the repository, in `../shared/fixtures`; where that folder is not there (a checkout on its own), the same
//! rules are covered by the tests beside the code, and this file says that it did not run.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::Instant;
use weir_datastore::engine::{PageClock, PageMemory, PageReader, Reading};
use weir_datastore::page::{Format, PageError};
use weir_datastore::picker::PickerPageReader;
use weir_datastore::{EndpointLoad, UnitLoad};

/// When the fixture pages were written, by their own timestamps.
const WALL_MS: i64 = 1_795_240_000_000;

/// Longer than the age of the samples that are meant to be current (10 s), shorter than that of the old one (a day).
const STALE_AFTER_MS: i64 = 60_000;

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/metrics");
    if !folder.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "the fixture pages must be beside the repository in CI");
        eprintln!("fixture pages not found: skipped");
        return None;
    }
    Some(folder)
}

fn explain(path: &Path, format: Format) -> Result<Reading, PageError> {
    let page = std::fs::read(path).unwrap();
    let clock = PageClock { asked_at: Instant::now(), wall_ms: WALL_MS, stale_after_ms: STALE_AFTER_MS };
    let reading = PageReader::new(None, &[]).explain(&page, format, clock);
    // What a scrape reads is what the explanation explains.
    let scraped = PageReader::new(None, &[]).read(&page, format, clock, &mut PageMemory::default());
    match (&reading, scraped) {
        (Ok(Reading { load: Some(explained), .. }), Ok(mut scraped)) => {
            scraped.unused.dropped_lines = explained.unused.dropped_lines;
            assert_eq!(*explained, scraped, "{}", path.display());
        }
        (Ok(Reading { load: None, .. }) | Err(_), Err(_)) => {}
        (explained, scraped) => panic!("{}: {explained:?} but {scraped:?}", path.display()),
    }
    reading
}

fn pages(folder: &Path) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(document["pages"].clone()).unwrap()
}

/// A value of `expected.json`, where it can be one of the signal: "NaN", negatives, percentages are present on the page but unusable.
fn usable(value: &Value, most: f64) -> Option<f64> {
    value.as_f64().filter(|value| (0.0..=most).contains(value))
}

fn assert_units(page: &str, expected: &[Value], load: &EndpointLoad) {
    assert_eq!(load.units.len(), expected.len(), "{page}");
    for (unit, expected) in load.units.iter().zip(expected) {
        let text = |key: &str| expected.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let UnitLoad { model, rank, running, waiting, kv_cache_utilization, api_waiting, max_running, block_size, blocks } = unit;
        assert_eq!(model.as_deref().map(str::to_owned), text("model"), "{page}");
        assert_eq!(rank.as_deref().map(str::to_owned), text("engine").or(text("dp_rank")), "{page}");
        assert_eq!(*running, usable(&expected["running"], 1e9), "{page} running");
        // The parts below 2^53 only: a count of 9007199254740993 is no count.
        assert_eq!(*waiting, usable(&expected["waiting"], 1e9), "{page} waiting");
        assert_eq!(*kv_cache_utilization, usable(&expected["kv_utilisation"], 1.0), "{page} kv");
        assert_eq!(*api_waiting, usable(&expected["api_waiting"], 1e9), "{page} waiting in the API process");
        assert_eq!(*max_running, usable(&expected["max_running"], 1e9), "{page} most running");
        assert_eq!(*block_size, expected["block_size"].as_f64().map(|size| size as u64), "{page} block size");
        assert_eq!(*blocks, expected["num_blocks"].as_f64().map(|blocks| blocks as u64), "{page} blocks");
    }
}

fn assert_load(page: &str, expected: &Value, load: &EndpointLoad) {
    let units: Vec<Value> = expected["units"].as_array().unwrap().clone();
    assert_units(page, &units, load);
    let server = &expected["server"];
    for (key, most, value) in [
        ("running", 1e9, load.running.map(|signal| signal.value)),
        ("waiting", 1e9, load.waiting.map(|signal| signal.value)),
        ("kv_utilisation_mean", 1.0, load.kv_cache_utilization.map(|signal| signal.value)),
        ("kv_utilisation_max", 1.0, load.kv_cache_utilization.map(|signal| signal.hottest)),
    ] {
        // Totals over parts of which some are unusable are ours to make: the units above were compared one by one.
        let all_usable = |key: &str| units.iter().all(|unit| unit.get(key).is_none_or(|value| usable(value, most).is_some()));
        if all_usable(key.trim_end_matches("_mean").trim_end_matches("_max")) {
            assert_eq!(value, usable(&server[key], most), "{page} {key}");
        }
    }
    let sum = |key: &str| {
        let values: Vec<f64> = units.iter().filter_map(|unit| unit[key].as_f64()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>())
    };
    for (key, counter) in [
        ("prompt_tokens", load.counters.prompt_tokens),
        ("generation_tokens", load.counters.generation_tokens),
        ("preemptions", load.counters.preemptions),
        ("prefix_cache_queries", load.counters.prefix_queries),
        ("prefix_cache_hits", load.counters.prefix_hits),
    ] {
        if let Some(expected) = sum(key) {
            assert_eq!(counter, Some(expected), "{page} {key}");
        }
    }
}

/// Every engine, every version: exactly what independent parsers read.
#[test]
fn pages_of_the_engines_give_the_expected_values() {
    let Some(folder) = folder() else { return };
    let mut checked = 0;
    for (page, expected) in pages(&folder) {
        let engine = match expected["producer"].as_str() {
            Some("trtllm") => "trtllm-serve",
            Some("triton-trtllm") => "triton-tensorrt-llm",
            Some("triton-vllm") => "triton",
            Some("dcgm" | "gie-epp" | "llm-d-router") | None => continue,
            Some(_) if page.starts_with("nasty/") => continue,
            Some(producer) => producer,
        };
        let reading = explain(&folder.join(&page), Format::Text).unwrap_or_else(|error| panic!("{page}: {error}"));
        let load = reading.load.unwrap_or_else(|| panic!("{page}: no engine found"));
        assert_eq!(load.engine.name(), engine, "{page}");
        assert_eq!(reading.report.dropped, 0, "{page}");
        let mut expect = expected["expect"].clone();
        if expect["server"].is_null() {
            // One unit: the server is that unit.
            let unit = &expect["units"][0];
            let kv = unit["kv_utilisation"].clone();
            expect["server"] = serde_json::json!({
                "running": unit["running"], "waiting": unit["waiting"], "kv_utilisation_mean": kv, "kv_utilisation_max": kv
            });
        }
        assert_load(&page, &expect, &load);
        let lora = &expected["expect"]["lora"];
        // With two API processes the values are sums of times and the page's "newest" is wrong: see the tests beside the code.
        if lora.is_object() && page != "vllm-0.29.0-lora-2api.prom" {
            let names =
                |key: &str| lora[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect::<Vec<_>>();
            let ours = load.lora.clone().unwrap();
            assert_eq!((ours.running, ours.waiting), (names("running"), names("waiting")), "{page}");
            assert_eq!(ours.max.map(|max| max.to_string()).as_deref(), lora["max_lora"].as_str(), "{page}");
        }
        checked += 1;
    }
    assert!(checked >= 18, "only {checked} pages of the engines were found");
}

/// What pickers hold: the sum over flows, priorities and models, each metric once though it may have two names.
#[test]
fn pages_of_pickers_give_what_they_hold() {
    let Some(folder) = folder() else { return };
    for page in ["gie-epp-1.5.0.prom", "llm-d-router-0.9.0.prom"] {
        let expected =
            pages(&folder)[page]["expect"]["flow_control_queue_total"]["inference_extension_flow_control_queue_size"].as_u64();
        let bytes = std::fs::read(folder.join(page)).unwrap();
        let reader = PickerPageReader::default();
        let load = reader.read(&bytes, Format::Text, "vllm-llama3-8b-instruct", Instant::now()).unwrap();
        assert_eq!((load.held, load.arrivals), (expected, 420), "{page}");
        let another = reader.read(&bytes, Format::Text, "another-pool", Instant::now()).unwrap();
        assert_eq!(another.held, Some(0), "{page}");
    }
}

/// Pages of other programs are not taken for an idle model server's.
#[test]
fn pages_of_pickers_and_gpus_are_no_model_servers() {
    let Some(folder) = folder() else { return };
    for page in ["gie-epp-1.5.0.prom", "llm-d-router-0.9.0.prom", "dcgm-exporter-4.8.prom"] {
        let reading = explain(&folder.join(page), Format::Text).unwrap();
        assert!(reading.load.is_none(), "{page}: {:?}", reading.load);
    }
}

/// Every page made to break readers: accepted, partly used or refused as decided in `expected.json`.
#[test]
fn nasty_pages_are_accepted_dropped_from_or_refused_as_decided() {
    let Some(folder) = folder() else { return };
    let mut checked = 0;
    for (page, expected) in pages(&folder) {
        let Some(outcome) = expected["outcome"].as_str() else { continue };
        if page.ends_with(".gz") {
            continue; // The transfer's matter: covered where pages are fetched.
        }
        checked += 1;
        let reading = explain(&folder.join(&page), Format::Text);
        match (outcome, reading) {
            ("reject", Err(error)) => {
                let expected = match page.as_str() {
                    "nasty/html-error.prom" => PageError::Html,
                    "nasty/json-body.prom" => PageError::Json,
                    "nasty/utf8-bom.prom" => PageError::ByteOrderMark,
                    _ => PageError::Truncated,
                };
                assert_eq!(error, expected, "{page}");
            }
            ("accept", Ok(reading)) => {
                assert_eq!(reading.report.dropped, 0, "{page}: {:?}", reading.report.named);
                assert_expected(&page, &expected, reading);
            }
            ("partial", Ok(reading)) => {
                assert_eq!(Some(u64::from(reading.report.dropped)), expected["dropped_lines"].as_u64(), "{page}");
                assert_expected(&page, &expected, reading);
            }
            (outcome, reading) => panic!("{page}: {outcome}, but {reading:?}"),
        }
    }
    assert!(checked >= 34, "only {checked} nasty pages were found");
}

fn assert_expected(page: &str, expected: &Value, reading: Reading) {
    let mut expect = expected["expect"].clone();
    if expect["units"].as_array().is_none_or(Vec::is_empty) {
        assert!(reading.load.is_none(), "{page}: nothing to read, but {:?}", reading.load);
        return;
    }
    let load = reading.load.unwrap_or_else(|| panic!("{page}: no engine found"));
    match page {
        // The day-old sample and the one of 1970 are outdated by their own timestamps: expected.json lists what the page says.
        "nasty/timestamps.prom" => {
            assert_eq!(load.unused.outdated, 2, "{page}");
            let units = expect["units"].as_array_mut().unwrap();
            units[0].as_object_mut().unwrap().remove("running");
            units[1].as_object_mut().unwrap().remove("kv_utilisation");
            expect["server"] = serde_json::json!({"waiting": 10.0, "kv_utilisation_mean": 0.25, "kv_utilisation_max": 0.25});
            assert_load(page, &expect, &load);
        }
        // Units whose only sample is unusable do not come to be.
        "nasty/nan-inf.prom" | "nasty/out-of-range.prom" => {
            assert_eq!((load.running, load.waiting, load.kv_cache_utilization), (None, None, None), "{page}");
            assert_eq!(load.unused.invalid, 3, "{page}");
        }
        "nasty/number-forms.prom" => {
            assert_eq!(load.unused.invalid, 3, "{page}: infinity, nan and 2^53 + 1 are no counts");
            assert_eq!(load.waiting.unwrap().value, 4.0 + 4.0 + 5.0 + 4.0 + 1000.0 + 0.0 + 0.0, "{page}");
        }
        "nasty/duplicate-series.prom" => {
            assert_eq!(load.unused.duplicates, 2, "{page}");
            assert_load(page, &expect, &load);
        }
        "nasty/histogram-broken.prom" => panic!("{page}: has no load signals, so no units are expected"),
        _ => assert_load(page, &expect, &load),
    }
}

#[test]
fn open_metrics_by_content_type_must_be_whole() {
    let Some(folder) = folder() else { return };
    let open = |page: &str| explain(&folder.join(page), Format::OpenMetrics);
    assert_load(
        "openmetrics",
        &pages(&folder)["nasty/openmetrics.prom"]["expect"],
        &open("nasty/openmetrics.prom").unwrap().load.unwrap(),
    );
    assert_eq!(open("nasty/openmetrics-no-eof.prom").unwrap_err(), PageError::MissingEof);
    assert!(matches!(open("nasty/after-eof.prom").unwrap_err(), PageError::AfterEof { .. }));
}

#[test]
fn labels_are_read_as_the_reference_parser_reads_them() {
    let Some(folder) = folder() else { return };
    let expected = &pages(&folder)["nasty/escaped-labels.prom"]["expect"];
    let load = explain(&folder.join("nasty/escaped-labels.prom"), Format::Text).unwrap().load.unwrap();
    let model = expected["units"][0]["model"].as_str().unwrap();
    assert_eq!(load.units[0].model.as_deref(), Some(model));
    assert!(model.contains(['"', '\\', '\n']), "the page no longer shows what it is for");
}
