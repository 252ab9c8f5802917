//! What reading one page costs, beside `prometheus-parse` on the same page.
//!
//! The page is made here: the families, label sets and line lengths of a vLLM server, about 68 KB. `prometheus-parse` drops every
//! name with a colon, so it gets the page with the colons replaced; the scanner reads both, and the floor is one pass that only
//! finds the line ends.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::time::Instant;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::{Effort, Format, ScanLimits, Wanted, scan};

/// About the size of the page of a vLLM server with one engine and some LoRA traffic.
const PAGE_BYTES: usize = 68_000;

fn page() -> String {
    let labels = "engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"";
    let mut page = String::new();
    let gauges = [("num_requests_running", "23.0"), ("num_requests_waiting", "4.0"), ("kv_cache_usage_perc", "0.6317567567567568")];
    for (name, value) in gauges {
        page += &format!("# HELP vllm:{name} Help.\n# TYPE vllm:{name} gauge\nvllm:{name}{{{labels}}} {value}\n");
    }
    for (name, value) in [("prompt_tokens", "690249.0"), ("generation_tokens", "129926.0"), ("num_preemptions", "17.0")] {
        page +=
            &format!("# HELP vllm:{name}_total Help.\n# TYPE vllm:{name}_total counter\nvllm:{name}_total{{{labels}}} {value}\n");
    }
    page += "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"14800\"} 1.0\n";
    for histogram in 0.. {
        if page.len() >= PAGE_BYTES {
            break;
        }
        let name = format!("vllm:request_phase_{histogram}_time_seconds");
        page += &format!("# HELP {name} Histogram of time spent in a phase of a request.\n# TYPE {name} histogram\n");
        for bound in 0..21 {
            let bucket = format!("engine=\"0\",le=\"{bound}.5\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"");
            page += &format!("{name}_bucket{{{bucket}}} {bound}00.0\n");
        }
        page += &format!("{name}_count{{{labels}}} 900.0\n{name}_sum{{{labels}}} 210.59923337922766\n");
    }
    page
}

fn pages(criterion: &mut Criterion) {
    let page = page();
    let plain = page.replace("vllm:", "vllm_");
    let names =
        ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total", "generation_tokens_total"];
    let wanted = Wanted::new(names.map(|name| format!("vllm_{name}")).iter().map(String::as_str));
    let reader = PageReader::new(None, &[]);
    let clock = PageClock { asked_at: Instant::now(), wall_ms: 0, stale_after_ms: 2_000 };
    let scanned = |page: &str, effort| {
        let mut samples = Vec::with_capacity(64);
        let report = scan(page.as_bytes(), Format::Text, &wanted, effort, ScanLimits::default(), &mut samples);
        (report.map(|report| report.sample_lines), samples.len())
    };
    assert_eq!(scanned(&plain, Effort::WantedLines).1, names.len());

    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("floor: line ends only", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', black_box(page.as_bytes())).count());
    });
    group.bench_function("scan, wanted lines", |bencher| bencher.iter(|| scanned(black_box(&plain), Effort::WantedLines)));
    group.bench_function("scan, every line", |bencher| bencher.iter(|| scanned(black_box(&plain), Effort::EveryLine)));
    group.bench_function("read into a load", |bencher| {
        bencher.iter(|| {
            reader.read(black_box(page.as_bytes()), Format::Text, clock, &mut PageMemory::default()).map(|load| load.running)
        });
    });
    group.sample_size(20);
    group.bench_function("prometheus-parse", |bencher| {
        bencher.iter(|| {
            let lines = black_box(&plain).lines().map(|line| Ok(line.to_owned()));
            prometheus_parse::Scrape::parse(lines).map(|scrape| scrape.samples.len())
        });
    });
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
