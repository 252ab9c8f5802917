//! What a snapshot of a pool costs, and all its families with it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tokio::time::Instant;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, PoolId, PoolSpec, Selector, catalog, datastore};

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    for endpoints in [10u32, 100, 1000] {
        let now = Instant::now();
        let (store, mut topology) = datastore();
        let id = PoolId::new("default", "pool");
        let mut spec = PoolSpec::empty(id.clone());
        let address = |index: u32| format!("10.0.{}.{}:8000", index / 250, index % 250 + 1).parse().expect("an address");
        spec.endpoints = (0..endpoints).map(|index| EndpointSpec::standalone(address(index))).collect();
        let reader = PageReader::new(None, &[]);
        for mut writer in topology.upsert(spec, now).added {
            let page = "vllm:num_requests_running 3\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n";
            let clock = PageClock { asked_at: now, wall_ms: 0, stale_after_ms: 2_000 };
            let load = reader.read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).expect("a page");
            writer.succeeded(load, Duration::from_secs(1));
        }
        let everything = Selector::everything();
        group.bench_with_input(BenchmarkId::new("take", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| store.snapshot(black_box(&id), &everything, now));
        });
        group.bench_with_input(BenchmarkId::new("take and measure every family", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| {
                let snapshot = store.snapshot(black_box(&id), &everything, now).expect("the pool");
                catalog::FAMILIES
                    .iter()
                    .filter_map(|family| (family.measure)(&snapshot).ok())
                    .map(|measured| measured.value)
                    .sum::<f64>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
