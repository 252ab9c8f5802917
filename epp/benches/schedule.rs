//! What placing a request costs, and its parts: pools of 10, 100 and 1,000 endpoints, prompts nobody and everybody has seen.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prometheus_client::registry::Registry;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, PoolId, PoolSpec, Selector, TopologyWriter, datastore};
use weir_epp::director::{DirectorSettings, PoolDirector, SNAPSHOT_LASTS};
use weir_epp::metrics::EppMetrics;
use weir_epp::scheduling::SchedulingConfig;
use weir_epp::scheduling::prefix::{PrefixIndex, PrefixSettings, hash_prefix};
use weir_epp::{Api, Director, InferenceRequest, Subset};

/// Nothing but the gate beside the defaults.
const FLOW_CONTROL: &str =
    "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\n";

fn request(prefix: Bytes) -> InferenceRequest {
    InferenceRequest {
        id: "bench".into(),
        received: Instant::now(),
        api: Api::ChatCompletions,
        model: Some("model".into()),
        model_rewrite: None,
        objective: None,
        fairness: None,
        body_bytes: prefix.len(),
        prefix,
        cache_salt: None,
        streaming: true,
        subset: Subset::All,
        test_selection: None,
        headers: Vec::new(),
        max_output_tokens: None,
        trail: None,
    }
}

/// A director of `endpoints` whose pages are fresh for the whole run: `now` is far enough ahead.
fn director(endpoints: u32, now: Instant) -> (PoolDirector, weir_datastore::Datastore, TopologyWriter) {
    let (store, mut topology) = datastore();
    let id = PoolId::new("default", "pool");
    let mut spec = PoolSpec::empty(id.clone());
    let address = |index: u32| format!("10.0.{}.{}:8000", index / 250, index % 250 + 1).parse().expect("an address");
    spec.endpoints = (0..endpoints).map(|index| EndpointSpec::standalone(address(index))).collect();
    let reader = PageReader::new(None, &[]);
    for (index, mut writer) in topology.upsert(spec, now).added.into_iter().enumerate() {
        let page = format!(
            "vllm:num_requests_running {}\nvllm:num_requests_waiting {}\nvllm:kv_cache_usage_perc 0.{}\n",
            index % 7,
            index % 3,
            index % 9
        );
        let asked_at = now + Duration::from_secs(3600);
        let clock = PageClock { asked_at, wall_ms: 0, stale_after_ms: 2_000 };
        let load = reader.read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).expect("a page");
        writer.succeeded(load, Duration::from_secs(1));
    }
    let scheduling = SchedulingConfig::default();
    let metrics = EppMetrics::register(&mut Registry::default(), "pool", &scheduling, "", "");
    let settings = DirectorSettings { pool: id, scheduling, honour_subset: true, snapshot_lasts: SNAPSHOT_LASTS };
    let (_, resources) = watch::channel(Arc::default());
    let tell = Arc::new(|_: &_, _: &_| Box::new(|_| ()) as Box<dyn Fn(bool) + Send + Sync>);
    let rng = StdRng::seed_from_u64(1);
    (PoolDirector::new(settings, store.clone(), resources, metrics, tell, rng, now), store, topology)
}

fn schedule(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("schedule");
    for endpoints in [10_u32, 100, 1000] {
        let now = Instant::now();
        let (director, store, _topology) = director(endpoints, now);
        let (id, everything) = (PoolId::new("default", "pool"), Selector::everything());
        group.bench_with_input(BenchmarkId::new("the snapshot alone", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| store.snapshot(black_box(&id), &everything, now));
        });
        let bare = request(Bytes::new());
        group.bench_with_input(BenchmarkId::new("place and end, no prefix", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| runtime.block_on(director.direct(bare.clone())).expect("a pick"));
        });
        director.reconfigure(SchedulingConfig::parse(FLOW_CONTROL).expect("a configuration"));
        let dispatcher = director.clone();
        runtime.spawn(async move { dispatcher.dispatch(CancellationToken::new()).await });
        runtime.block_on(tokio::task::yield_now());
        group.bench_with_input(BenchmarkId::new("place and end, no prefix, flow control", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| runtime.block_on(director.direct(bare.clone())).expect("a pick"));
        });
        director.reconfigure(SchedulingConfig::default());
        let same = request(vec![b'x'; 16 * 1024].into());
        group.bench_with_input(BenchmarkId::new("place and end, 16 KiB seen before", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| runtime.block_on(director.direct(same.clone())).expect("a pick"));
        });
        let mut count = 0_u64;
        group.bench_with_input(BenchmarkId::new("place and end, 16 KiB never seen", endpoints), &endpoints, |bencher, _| {
            bencher.iter(|| {
                count += 1;
                let mut prompt = vec![b'x'; 16 * 1024];
                prompt[..8].copy_from_slice(&count.to_le_bytes());
                runtime.block_on(director.direct(request(prompt.into()))).expect("a pick")
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("prefix");
    let settings = PrefixSettings::default();
    let prompt = vec![b'x'; 16 * 1024];
    group.bench_function("hash 16 KiB", |bencher| bencher.iter(|| hash_prefix(&settings, 16, Some("m"), None, black_box(&prompt))));
    let hashes = hash_prefix(&settings, 16, Some("m"), None, &prompt);
    let index = PrefixIndex::default();
    let holders: Vec<_> = (0..100).map(|_| index.add_holder()).collect();
    holders.iter().for_each(|holder| index.record(*holder, &hashes, 31_250));
    group.bench_function("look up 256 blocks that all of 100 have", |bencher| bencher.iter(|| index.matches(black_box(&hashes))));
    group.bench_function("record 256 known blocks", |bencher| bencher.iter(|| index.record(holders[0], &hashes, 31_250)));
    group.finish();
}

criterion_group!(benches, schedule);
criterion_main!(benches);
