use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::engine::{PageClock, PageMemory, PageReader};
use crate::load::{FailureKind, PickerLoad};
use crate::page::Format;
use crate::pool::{EndpointSpec, PoolSpec};
use crate::store::{Datastore, EndpointWriter, PickerWriter, TopologyWriter, datastore};

const SECOND: Duration = Duration::from_secs(1);

/// A datastore with one pool, and the writers of its endpoints and pickers.
struct Bench {
    start: Instant,
    store: Datastore,
    topology: TopologyWriter,
    endpoints: Vec<EndpointWriter>,
    pickers: Vec<PickerWriter>,
}

impl Bench {
    fn new(spec: PoolSpec) -> Self {
        let start = Instant::now();
        let (store, mut topology) = datastore();
        let change = topology.upsert(spec, start);
        Self { start, store, topology, endpoints: change.added, pickers: change.added_pickers }
    }

    fn of(endpoints: usize) -> Self {
        Self::new(pool(endpoints))
    }

    fn after(&self, elapsed: Duration) -> PoolSnapshot {
        self.store.snapshot(&PoolId::new("default", "p"), &Selector::everything(), self.start + elapsed).unwrap()
    }

    /// Endpoint `index` answers `elapsed` after the start.
    fn reads(&mut self, index: usize, page: &str, elapsed: Duration) {
        let clock = PageClock { asked_at: self.start + elapsed, wall_ms: 0, stale_after_ms: 60_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        self.endpoints[index].succeeded(load, SECOND);
    }

    fn fails(&mut self, index: usize, elapsed: Duration) {
        self.endpoints[index].failed(
            FailureKind::Timeout,
            "http://10.0.0.1:8000/metrics: no answer within 1s",
            self.start + elapsed,
        );
    }

    fn holds(&mut self, index: usize, held: u64, arrivals: u64, elapsed: Duration) {
        self.pickers[index].succeeded(
            PickerLoad { read_at: self.start + elapsed, held: Some(held), in_flight: None, arrivals, prompt_tokens: None },
            SECOND,
        );
    }

    fn set_states(&mut self, states: &[EndpointState]) {
        let mut spec = pool(states.len());
        spec.pickers = (!self.pickers.is_empty()).then(|| self.pickers.iter().map(|writer| writer.key().name.clone()).collect());
        for (endpoint, state) in spec.endpoints.iter_mut().zip(states) {
            endpoint.state = *state;
        }
        let change = self.topology.upsert(spec, self.start);
        assert!(change.added.is_empty() && change.removed.is_empty(), "a change of state keeps the cell");
    }
}

fn pool(endpoints: usize) -> PoolSpec {
    let mut spec = PoolSpec::empty(PoolId::new("default", "p"));
    spec.endpoints =
        (0..endpoints).map(|index| EndpointSpec::standalone(format!("10.0.0.{}:8000", index + 1).parse().unwrap())).collect();
    spec
}

fn page(running: u32, waiting: u32, kv: f64) -> String {
    format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc {kv}\n")
}

fn value(measurement: Measurement) -> f64 {
    measurement.unwrap().value
}

#[test]
fn means_maxima_and_totals_over_fresh_endpoints() {
    let mut bench = Bench::of(2);
    bench.reads(0, &page(3, 1, 0.25), SECOND);
    bench.reads(1, &page(5, 0, 0.75), 2 * SECOND);
    let snapshot = bench.after(3 * SECOND);
    assert_eq!(value(snapshot.mean(LoadSignal::Running)), 4.0);
    assert_eq!(value(snapshot.mean(LoadSignal::KvCacheUtilization)), 0.5);
    assert_eq!(value(snapshot.max(LoadSignal::KvCacheUtilization)), 0.75);
    assert_eq!(value(snapshot.total_queue_size()), 1.0);
    assert_eq!(value(snapshot.total_inflight()), 9.0);
    assert_eq!(value(snapshot.total_kv_cache_utilization()), 1.0);
    // A value is as old as the oldest page in it.
    assert_eq!(snapshot.mean(LoadSignal::Running).unwrap().as_of, bench.start + SECOND);
    assert_eq!(value(snapshot.metrics_age_seconds()), 2.0);
    // max(1/5, 0.25/0.8) and max(0, 0.75/0.8).
    assert_eq!(snapshot.saturation(), Saturation::Known((0.3125 + 0.9375) / 2.0));
}

#[test]
fn no_endpoints_is_zero_and_not_unknown() {
    let snapshot = Bench::of(0).after(SECOND);
    assert_eq!(value(snapshot.mean(LoadSignal::KvCacheUtilization)), 0.0);
    assert_eq!(value(snapshot.total_inflight()), 0.0);
    assert_eq!(value(snapshot.total_kv_cache_utilization()), 0.0);
    assert_eq!(snapshot.saturation(), Saturation::NoEndpoints { held: 0 });
    assert_eq!(snapshot.held, Err(Unknown::NoPicker));
}

#[test]
fn endpoints_of_which_none_is_ready_or_readable_are_unknown_and_not_zero() {
    let mut bench = Bench::of(2);
    let unread = bench.after(SECOND).mean(LoadSignal::Running).unwrap_err();
    assert_eq!(unread.to_string(), "none of its 2 ready endpoints has fresh metrics");
    bench.reads(0, &page(1, 0, 0.1), SECOND);
    bench.fails(0, 2 * SECOND);
    bench.fails(1, 2 * SECOND);
    assert_eq!(value(bench.after(4 * SECOND).mean(LoadSignal::Running)), 1.0, "fresh until three intervals have passed");
    let snapshot = bench.after(4 * SECOND + Duration::from_millis(1));
    let unknown = snapshot.mean(LoadSignal::Running).unwrap_err();
    assert_eq!(unknown.last_known(), Some(bench.start + SECOND));
    assert_eq!(
        unknown.to_string(),
        "none of its 2 ready endpoints has fresh metrics: http://10.0.0.1:8000/metrics: no answer within 1s"
    );
    assert!(snapshot.total(LoadSignal::Running).is_err());
    assert!(matches!(snapshot.saturation(), Saturation::Unknown(_)));
    assert_eq!(snapshot.coverage, Coverage { unreachable: 2, ..Coverage::default() });

    bench.set_states(&[EndpointState::Unready, EndpointState::Unready]);
    let unknown = bench.after(4 * SECOND).mean(LoadSignal::Running).unwrap_err();
    assert_eq!(unknown, Unknown::NoneReady { endpoints: 2 });
}

#[test]
fn a_total_speaks_for_all_ready_endpoints_down_to_half_coverage() {
    let mut bench = Bench::of(4);
    bench.reads(0, &page(10, 0, 0.1), SECOND);
    let unknown = bench.after(SECOND).total(LoadSignal::Running).unwrap_err();
    assert_eq!(unknown, Unknown::BelowHalf { fresh: 1, ready: 4, problem: None });
    assert_eq!(value(bench.after(SECOND).mean(LoadSignal::Running)), 10.0);
    bench.reads(1, &page(20, 0, 0.1), SECOND);
    assert_eq!(value(bench.after(SECOND).total(LoadSignal::Running)), 60.0);
}

#[test]
fn a_signal_that_pages_lack_is_unknown_though_the_pages_are_fresh() {
    let mut bench = Bench::of(1);
    bench.reads(0, "vllm:num_requests_running 3\n", SECOND);
    let snapshot = bench.after(SECOND);
    let unknown = snapshot.total_queue_size().unwrap_err();
    assert_eq!(unknown.to_string(), "none of its 1 readable metrics pages carries waiting requests");
    assert_eq!(value(snapshot.total(LoadSignal::Running)), 3.0);
    assert!(matches!(snapshot.saturation(), Saturation::Unknown(Unknown::NoSignal { .. })));
}

#[test]
fn held_requests_belong_to_the_totals_once_a_picker_has_told() {
    let mut spec = pool(1);
    spec.pickers = Some(vec!["a".into(), "b".into()]);
    let mut bench = Bench::new(spec);
    bench.reads(0, &page(1, 2, 0.1), SECOND);
    assert_eq!(value(bench.after(SECOND).total_queue_size()), 2.0, "no picker ever told: servers alone");
    bench.holds(0, 5, 5, SECOND);
    let unknown = bench.after(SECOND).total_queue_size().unwrap_err();
    assert!(matches!(unknown, Unknown::HeldUnknown { .. }), "one told, the other is silent: never smaller than the truth");
    bench.holds(1, 0, 0, SECOND);
    let snapshot = bench.after(SECOND);
    assert_eq!((value(snapshot.total_queue_size()), value(snapshot.total_inflight())), (7.0, 8.0));
    assert_eq!(value(snapshot.total(LoadSignal::Running)), 1.0);

    bench.fails(0, 5 * SECOND);
    bench.holds(0, 5, 5, 5 * SECOND);
    bench.holds(1, 0, 0, 5 * SECOND);
    assert_eq!(value(bench.after(5 * SECOND).total_queue_size()), 5.0, "nothing readable, but held alone is demand");
    bench.holds(0, 0, 5, 5 * SECOND);
    assert!(bench.after(5 * SECOND).total_queue_size().is_err(), "nothing readable and nothing held: unknown, not zero");
    assert!(bench.after(9 * SECOND).held.is_err(), "pickers go stale too");
}

#[test]
fn held_requests_count_while_no_endpoint_exists() {
    let mut spec = pool(0);
    spec.pickers = Some(vec!["a".into()]);
    let mut bench = Bench::new(spec);
    bench.holds(0, 40, 40, SECOND);
    let snapshot = bench.after(SECOND);
    assert_eq!((value(snapshot.total_inflight()), value(snapshot.mean(LoadSignal::Waiting))), (40.0, 0.0));
    assert_eq!(snapshot.saturation(), Saturation::NoEndpoints { held: 40 });
    assert_eq!(value((crate::catalog::find("inference_pool_saturation").unwrap().measure)(&snapshot)), 1.0);
}

#[test]
fn a_picker_that_holds_nothing_ever_keeps_no_total_from_being_known() {
    let mut spec = pool(1);
    spec.pickers = Some(vec!["without flow control".into()]);
    let mut bench = Bench::new(spec);
    bench.reads(0, &page(1, 2, 0.1), SECOND);
    bench.pickers[0].succeeded(
        PickerLoad { read_at: bench.start + SECOND, held: None, in_flight: None, arrivals: 3, prompt_tokens: None },
        SECOND,
    );
    assert_eq!(value(bench.after(SECOND).held), 0.0);
    bench.reads(0, &page(1, 2, 0.1), 9 * SECOND);
    assert_eq!(value(bench.after(9 * SECOND).total_queue_size()), 2.0, "it never told, so its silence changes nothing");
}

#[tokio::test(start_paused = true)]
async fn changes_are_counted_and_the_first_held_request_is_told_at_once() {
    let mut spec = pool(1);
    spec.pickers = Some(vec!["a".into()]);
    let mut bench = Bench::new(spec);
    let mut changes = bench.store.changes(&PoolId::new("default", "p")).unwrap();
    let before = changes.version();
    bench.reads(0, &page(1, 2, 0.1), SECOND);
    bench.fails(0, SECOND);
    bench.holds(0, 0, 0, SECOND);
    assert_eq!(changes.version(), before + 3);
    bench.holds(0, 2, 2, SECOND);
    changes.held_rose().await;
    bench.holds(0, 5, 5, SECOND);
    let waited = tokio::time::timeout(SECOND, changes.held_rose()).await;
    assert!(waited.is_err(), "more held than before is no rise from zero");
    assert!(bench.store.changes(&PoolId::new("default", "q")).is_none());
    // All of it was written since the first call: told once, then awaited.
    changes.written().await;
    let waited = tokio::time::timeout(SECOND, changes.written()).await;
    assert!(waited.is_err(), "nothing more was written");
    let (told, ()) = tokio::join!(tokio::time::timeout(SECOND, changes.written()), async { bench.fails(0, SECOND) });
    told.expect("written while it was waited for");
}

#[test]
fn idleness_is_known_only_while_everybody_can_be_read() {
    let mut bench = Bench::of(2);
    assert!(bench.after(SECOND).idle_seconds().is_err());
    bench.reads(0, &page(1, 0, 0.1), SECOND);
    bench.reads(1, &page(0, 0, 0.0), SECOND);
    bench.reads(0, &page(0, 0, 0.0), 3 * SECOND);
    bench.reads(1, &page(0, 0, 0.0), 3 * SECOND);
    assert_eq!(value(bench.after(4 * SECOND).idle_seconds()), 3.0, "since the running request was last seen");
    bench.set_states(&[EndpointState::Ready, EndpointState::Terminating]);
    bench.reads(1, &page(7, 0, 0.1), 4 * SECOND);
    let snapshot = bench.after(5 * SECOND);
    assert_eq!(value(snapshot.idle_seconds()), 1.0, "a terminating endpoint still works");
    assert_eq!(value(snapshot.total(LoadSignal::Running)), 0.0, "but counts for nothing else");
    // When it is gone, what it did stays known.
    let change = bench.topology.upsert(pool(1), bench.start);
    assert_eq!(change.removed.len(), 1);
    assert_eq!(value(bench.after(5 * SECOND).idle_seconds()), 1.0);
}

#[test]
fn pod_labels_choose_endpoints_and_ranks_of_a_pod_are_one_pod() {
    let mut spec = pool(3);
    for (index, endpoint) in spec.endpoints.iter_mut().enumerate() {
        let gpu = if index < 2 { "h100" } else { "l4" };
        endpoint.labels = std::sync::Arc::new(BTreeMap::from([("gpu".to_owned(), gpu.to_owned())]));
        endpoint.pod = if index < 2 { "pod-a".into() } else { "pod-b".into() };
    }
    let mut bench = Bench::new(spec);
    for (index, kv) in [0.25, 0.75, 1.0].into_iter().enumerate() {
        bench.reads(index, &page(10 * (index as u32 + 1), 0, kv), SECOND);
    }
    assert_eq!(value(bench.after(SECOND).total_kv_cache_utilization()), 1.5, "(0.25 + 0.75)/2 + 1");
    let chosen = |selector: &str| {
        let selector = Selector::parse(selector).unwrap();
        bench.store.snapshot(&PoolId::new("default", "p"), &selector, bench.start + SECOND).unwrap()
    };
    assert_eq!(value(chosen("gpu=l4").total(LoadSignal::Running)), 30.0);
    assert_eq!(value(chosen("gpu!=l4").total(LoadSignal::Running)), 30.0);
    assert_eq!(value(chosen("gpu in (l4,h100)").mean(LoadSignal::Running)), 20.0);
    assert_eq!(value(chosen("gpu=a100").total(LoadSignal::Running)), 0.0, "none chosen: nothing there");
}

#[test]
fn a_relist_keeps_what_stayed_and_renews_what_changed_its_identity() {
    let mut bench = Bench::of(2);
    bench.reads(0, &page(1, 0, 0.1), SECOND);
    let mut spec = pool(2);
    spec.endpoints[1].pod_uid = "another pod under the same name".into();
    let change = bench.topology.replace_all(vec![spec, PoolSpec::empty(PoolId::new("default", "q"))], bench.start);
    assert_eq!((change.added.len(), change.removed.len()), (1, 1));
    assert_eq!(change.added[0].key().address.as_str(), "10.0.0.2:8000");
    assert_eq!(bench.after(SECOND).coverage, Coverage { fresh: 1, stale: 1, ..Coverage::default() });
    assert_eq!(bench.store.pool_ids().len(), 2);
    let change = bench.topology.replace_all(vec![], bench.start);
    assert_eq!(change.removed.len(), 2);
    assert!(bench.store.snapshot(&PoolId::new("default", "p"), &Selector::everything(), bench.start).is_none());
}

#[test]
fn a_pod_label_that_names_the_engine_overrides_the_pool() {
    let mut spec = pool(2);
    spec.metrics.engine = Some(crate::engine::Engine::Vllm);
    let labels = BTreeMap::from([("llm-d.ai/engine-type".to_owned(), "sglang".to_owned())]);
    spec.endpoints[1].labels = std::sync::Arc::new(labels);
    let bench = Bench::new(spec);
    let engines: Vec<_> = bench.endpoints.iter().map(|writer| writer.key().metrics.engine.unwrap().name()).collect();
    assert_eq!(engines, ["vllm", "sglang"]);
}

#[test]
fn a_namespace_lists_its_own_pools() {
    let mut bench = Bench::of(0);
    let pools = [("a", "x"), ("b", "x"), ("b", "y"), ("bb", "z")].map(|(namespace, name)| PoolId::new(namespace, name));
    bench.topology.replace_all(pools.iter().cloned().map(PoolSpec::empty).collect(), bench.start);
    assert_eq!(bench.store.pool_ids_in("b"), pools[1..3]);
    assert_eq!(bench.store.pool_ids_in("c"), []);
    assert_eq!(bench.store.pool_ids_in(""), []);
}

#[test]
fn the_same_endpoint_twice_is_one() {
    let mut spec = pool(2);
    spec.endpoints[1] = spec.endpoints[0].clone();
    let bench = Bench::new(spec);
    assert_eq!((bench.endpoints.len(), bench.after(SECOND).endpoints.len()), (1, 1));
}

#[test]
fn failures_in_a_row_keep_their_beginning() {
    let mut bench = Bench::of(1);
    bench.fails(0, SECOND);
    bench.fails(0, 3 * SECOND);
    let failure = bench.endpoints[0].status().failure.clone().unwrap();
    assert_eq!((failure.since, failure.attempts, failure.kind), (bench.start + SECOND, 2, FailureKind::Timeout));
    bench.reads(0, &page(1, 0, 0.1), 4 * SECOND);
    assert_eq!(bench.endpoints[0].status().failure, None);
}

proptest::proptest! {
    #[test]
    fn aggregates_lie_where_they_must(
        loads in proptest::collection::vec((0u32..500, 0u32..500, 0.0f64..=1.0, proptest::bool::ANY), 1..40),
    ) {
        let mut bench = Bench::of(loads.len());
        for (index, (running, waiting, kv, readable)) in loads.iter().enumerate() {
            if *readable {
                bench.reads(index, &page(*running, *waiting, *kv), SECOND);
            } else {
                bench.fails(index, SECOND);
            }
        }
        let snapshot = bench.after(2 * SECOND);
        let fresh: Vec<_> = loads.iter().filter(|load| load.3).collect();
        proptest::prop_assert_eq!(snapshot.coverage.fresh, fresh.len());
        proptest::prop_assert_eq!(snapshot.coverage.ready(), loads.len());
        match snapshot.mean(LoadSignal::KvCacheUtilization) {
            Err(_) => proptest::prop_assert!(fresh.is_empty()),
            Ok(mean) => {
                let (lowest, highest) = fresh.iter().fold((1.0f64, 0.0f64), |(low, high), load| (low.min(load.2), high.max(load.2)));
                proptest::prop_assert!(mean.value >= lowest - 1e-9 && mean.value <= highest + 1e-9);
                proptest::prop_assert_eq!(value(snapshot.max(LoadSignal::KvCacheUtilization)), highest);
            }
        }
        let known = 2 * fresh.len() >= loads.len() && !fresh.is_empty();
        proptest::prop_assert_eq!(snapshot.total_inflight().is_ok(), known);
        if fresh.len() == loads.len() {
            let sum: u32 = fresh.iter().map(|load| load.0 + load.1).sum();
            proptest::prop_assert!((value(snapshot.total_inflight()) - f64::from(sum)).abs() < 1e-6);
        }
    }
}
