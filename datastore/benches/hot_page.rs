//! One kind of page read so and so many times, to count instructions under callgrind: the difference of two counts, by the
//! difference of pages, is what one page costs.
//!
//! `hot_page load 1000`: as most pages are read. `hot_page histograms 1000`: as one in 10 s is, of a pool whose requests no picker
//! measures.

use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::engine::{Engine, PageClock, PageMemory, PageReader};
use weir_datastore::latency::LatencyReader;
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, PoolId, PoolSpec, datastore};

/// About the size of the page of a vLLM server with one engine.
const PAGE_BYTES: usize = 57_000;

fn page() -> String {
    let labels = "engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"";
    let mut page = String::new();
    for (name, value) in [
        ("num_requests_running", "23.0"),
        ("num_requests_waiting", "4.0"),
        ("kv_cache_usage_perc", "0.6317567567567568"),
        ("prompt_tokens_total", "690249.0"),
        ("generation_tokens_total", "129926.0"),
    ] {
        page += &format!("# HELP vllm:{name} Help.\n# TYPE vllm:{name} gauge\nvllm:{name}{{{labels}}} {value}\n");
    }
    let latencies = ["time_to_first_token", "request_time_per_output_token", "e2e_request_latency", "request_queue_time"];
    let others = (0..).map(|number| format!("request_phase_{number}_time"));
    for name in latencies.into_iter().map(str::to_owned).chain(others) {
        if page.len() >= PAGE_BYTES {
            break;
        }
        page += &format!("# HELP vllm:{name}_seconds Histogram.\n# TYPE vllm:{name}_seconds histogram\n");
        for bound in (0..21).map(|bound| format!("{bound}.5")).chain(["+Inf".to_owned()]) {
            let labels = format!("engine=\"0\",le=\"{bound}\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"");
            page += &format!("vllm:{name}_seconds_bucket{{{labels}}} 900.0\n");
        }
        page += &format!("vllm:{name}_seconds_count{{{labels}}} 900.0\nvllm:{name}_seconds_sum{{{labels}}} 210.59923337922766\n");
    }
    page
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (kind, pages) = (arguments.next(), arguments.next());
    let histograms = kind.as_deref() == Some("histograms");
    let pages: u32 = pages.and_then(|pages| pages.parse().ok()).unwrap_or(1000);
    let page = page();
    let (_store, mut topology) = datastore();
    let start = Instant::now();
    let endpoints = vec![EndpointSpec::standalone("10.0.0.1:8000".parse().expect("an address"))];
    let spec = PoolSpec { endpoints, ..PoolSpec::empty(PoolId::new("default", "pool")) };
    let mut writer = topology.upsert(spec, start).added.remove(0);
    let reader = PageReader::new(Some(Engine::Vllm), &[]);
    let mut memory = PageMemory::default();
    for number in 0..pages {
        // Ten pages a second, so that every hundredth has tokens to count.
        let asked_at = start + number * Duration::from_millis(100);
        let clock = PageClock { asked_at, wall_ms: 0, stale_after_ms: 2_000 };
        let bytes = black_box(page.as_bytes());
        let load = reader.read(bytes, Format::Text, clock, &mut memory).expect("a page");
        if histograms {
            let found = LatencyReader::of(load.engine).and_then(|latencies| latencies.read(bytes, Format::Text).ok());
            writer.latencies(found.expect("histograms"), asked_at);
        }
        writer.succeeded(load, Duration::from_millis(100));
    }
    println!("{pages} pages of {} bytes, histograms {histograms}", page.len());
}
