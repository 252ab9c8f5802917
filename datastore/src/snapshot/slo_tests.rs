use std::time::Duration;

use super::*;
use crate::engine::{Engine, PageClock, PageMemory, PageReader};
use crate::latency::{APART, LatencyReader, Meter};
use crate::page::Format;
use crate::{Datastore, EndpointSpec, EndpointWriter, PickerWriter, PoolId, PoolSpec, Selector, catalog, datastore};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    start: Instant,
    store: Datastore,
    endpoints: Vec<EndpointWriter>,
    pickers: Vec<PickerWriter>,
}

impl Bench {
    fn new(endpoints: usize, pickers: Option<usize>) -> Self {
        let start = Instant::now();
        let (store, mut topology) = datastore();
        let address = |index: usize| format!("10.0.0.{}:8000", index + 1).parse().unwrap();
        let spec = PoolSpec {
            endpoints: (0..endpoints).map(|index| EndpointSpec::standalone(address(index))).collect(),
            pickers: pickers.map(|count| (0..count).map(|index| format!("picker-{index}").into()).collect()),
            ..PoolSpec::empty(PoolId::new("default", "p"))
        };
        let change = topology.replace_all(vec![spec], start);
        Self { start, store, endpoints: change.added, pickers: change.added_pickers }
    }

    fn at(&self, step: u32) -> Instant {
        self.start + APART * step
    }

    fn snapshot(&self, step: u32) -> PoolSnapshot {
        self.store.snapshot(&PoolId::new("default", "p"), &Selector::everything(), self.at(step)).unwrap()
    }

    fn value(&self, step: u32, family: &str) -> Result<f64, String> {
        let snapshot = self.snapshot(step);
        (catalog::find(family).unwrap().measure)(&snapshot).map(|measured| measured.value).map_err(|unknown| unknown.to_string())
    }

    /// A page of vLLM, with `fast` first tokens below 0.1 s and `slow` ones between 1 and 2 s since its start.
    fn page(&mut self, endpoint: usize, step: u32, model: &str, (fast, slow): (u32, u32), waiting: u32) {
        let name = "vllm:time_to_first_token_seconds_bucket";
        let all = fast + slow;
        let labels = format!("model_name=\"{model}\"");
        let page = format!(
            "vllm:num_requests_running{{{labels}}} 0\nvllm:num_requests_waiting{{{labels}}} {waiting}\n\
             vllm:prompt_tokens_total{{{labels}}} {}\nvllm:generation_tokens_total{{{labels}}} {}\n\
             {name}{{le=\"0.1\",{labels}}} {fast}\n{name}{{le=\"1\",{labels}}} {fast}\n{name}{{le=\"2\",{labels}}} {all}\n\
             {name}{{le=\"+Inf\",{labels}}} {all}\n",
            all * 200,
            all * 50,
        );
        let asked_at = self.at(step);
        let clock = PageClock { asked_at, wall_ms: 0, stale_after_ms: 2_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        let writer = &mut self.endpoints[endpoint];
        if writer.wants_latencies(asked_at) {
            let found = LatencyReader::of(Engine::Vllm).unwrap().read(page.as_bytes(), Format::Text).unwrap();
            writer.latencies(found, asked_at);
        }
        writer.succeeded(load, SECOND);
    }
}

#[test]
fn a_quantile_is_of_all_requests_of_the_pool_or_of_one_model() {
    let mut bench = Bench::new(2, None);
    for (endpoint, model) in [(0, "org/a"), (1, "b")] {
        bench.page(endpoint, 0, model, (1000, 1000), 0);
    }
    let unknown = bench.value(0, "inference_pool_ttft_p90_seconds").unwrap_err();
    assert!(unknown.contains("have shown its time to first token"), "{unknown}");
    bench.page(0, 1, "org/a", (1090, 1000), 0);
    bench.page(1, 1, "b", (1000, 1010), 0);
    assert_eq!(bench.value(1, "inference_pool_ttft_p90_seconds"), Ok(0.1), "90 of 100 are at most 0.1 s");
    assert_eq!(bench.value(1, "inference_pool_ttft_p50_seconds"), Ok(50.0 / 90.0 * 0.1));
    let of = |model: &str, quantile| bench.snapshot(1).for_model(model).latency_seconds(Latency::TimeToFirstToken, quantile);
    assert_eq!(of("b", 0.5).map(|found| found.value), Ok(1.5));
    assert_eq!(of("org_a", 0.5), of("org/a", 0.5));
    assert_eq!(of("b", 0.99), Err(Unknown::TooFewRequests { what: "time to first token", seen: 10, least: 100 }));
    assert_eq!(of("c", 0.5), Err(Unknown::TooFewRequests { what: "time to first token", seen: 0, least: 10 }));
    assert_eq!(bench.snapshot(1).models().iter().map(|model| &**model).collect::<Vec<_>>(), ["b", "org/a"]);
    assert!(bench.value(1, "inference_pool_tpot_p90_seconds").unwrap_err().contains("time per output token"));
}

#[test]
fn zero_only_where_nobody_can_have_waited() {
    let mut bench = Bench::new(1, None);
    assert!(bench.value(0, "inference_pool_ttft_p90_seconds").unwrap_err().contains("has fresh metrics"));
    bench.page(0, 0, "m", (0, 0), 0);
    bench.page(0, 1, "m", (5, 0), 0);
    let few = bench.value(1, "inference_pool_ttft_p90_seconds").unwrap_err();
    assert!(few.contains("only 5 requests of the last minute") && few.contains("it takes 10"), "{few}");
    for step in 2..=7 {
        bench.page(0, step, "m", (5, 0), 0);
    }
    assert_eq!(bench.value(7, "inference_pool_ttft_p90_seconds"), Ok(0.0), "idle for a minute");
    assert_eq!(Bench::new(0, None).value(1, "inference_pool_ttft_p90_seconds"), Ok(0.0));
}

#[test]
fn where_a_picker_measures_pages_are_not_read_and_its_word_counts_while_it_is_young() {
    let mut bench = Bench::new(1, Some(1));
    let mut meter = Meter::new(bench.start);
    let model = Arc::from("m");
    (0..20).for_each(|_| meter.observe(&model, Latency::TimeToFirstToken, 3.0));
    let name = bench.pickers[0].key().name.clone();
    let told = meter.close(bench.at(1));
    bench.pickers[0].measured(&name, told.clone());
    bench.pickers[0].measured(&name, PickerLatencies { as_of: bench.start, models: Vec::new() });
    assert!(!bench.endpoints[0].wants_latencies(bench.at(1)));
    bench.page(0, 1, "m", (1000, 0), 0);
    let found = bench.value(1, "inference_pool_ttft_p90_seconds").unwrap();
    assert!((2.9..3.1).contains(&found), "{found}");
    assert!(bench.endpoints[0].wants_latencies(bench.at(5)), "it has been silent for more than 30 s");
    for step in [5, 6] {
        bench.page(0, step, "m", (1000 + 50 * step, 0), 0);
    }
    assert_eq!(bench.value(6, "inference_pool_ttft_p50_seconds"), Ok(0.05));
}

#[test]
fn beyond_the_highest_bucket_a_value_is_at_least_that() {
    let mut bench = Bench::new(1, None);
    let page = |count: u32| {
        let name = "vllm:time_to_first_token_seconds_bucket";
        format!("{name}{{le=\"2\"}} 0\n{name}{{le=\"+Inf\"}} {count}\n")
    };
    for step in [0, 1] {
        let found = LatencyReader::of(Engine::Vllm).unwrap().read(page(step * 50).as_bytes(), Format::Text).unwrap();
        let asked_at = bench.at(step);
        bench.endpoints[0].latencies(found, asked_at);
    }
    let at_least: Vec<_> =
        catalog::FAMILIES.iter().filter(|family| family.is_at_least(&bench.snapshot(1))).map(|f| f.name).collect();
    assert_eq!(at_least, ["inference_pool_ttft_p50_seconds", "inference_pool_ttft_p90_seconds"]);
    assert_eq!(bench.value(1, at_least[0]), Ok(2.0));
}

#[test]
fn tokens_a_second_add_up_over_servers() {
    let mut bench = Bench::new(2, None);
    (0..2).for_each(|endpoint| bench.page(endpoint, 0, "m", (0, 0), 0));
    assert!(bench.value(0, "inference_pool_prompt_tokens_per_second").unwrap_err().contains("prompt token rate"));
    (0..2).for_each(|endpoint| bench.page(endpoint, 1, "m", (10, 0), 0));
    assert_eq!(bench.value(1, "inference_pool_prompt_tokens_per_second"), Ok(400.0));
    assert_eq!(bench.value(1, "inference_pool_generation_tokens_per_second"), Ok(100.0));
    assert_eq!(Bench::new(0, None).value(0, "inference_pool_prompt_tokens_per_second"), Ok(0.0));
}

#[test]
fn the_backlog_is_what_waits_at_the_rate_of_a_busy_server() {
    let mut bench = Bench::new(2, None);
    let seconds = |bench: &Bench, step| bench.value(step, "inference_pool_prefill_backlog_seconds");
    (0..2).for_each(|endpoint| bench.page(endpoint, 0, "m", (0, 0), 0));
    assert_eq!((bench.value(0, "inference_pool_prefill_backlog_tokens"), seconds(&bench, 0)), (Ok(0.0), Ok(0.0)));
    bench.page(0, 1, "m", (20, 0), 4);
    bench.page(1, 1, "m", (20, 0), 0);
    assert_eq!(bench.value(1, "inference_pool_prefill_backlog_tokens"), Ok(4.0 * 200.0));
    assert!(seconds(&bench, 1).unwrap_err().contains("how fast it reads prompts"));
    bench.page(0, 2, "m", (70, 0), 6);
    bench.page(1, 2, "m", (20, 0), 0);
    // 50 prompts of 200 tokens in 10 s by the busy one; the other is as good.
    assert_eq!(seconds(&bench, 2), Ok(6.0 * 200.0 / (2.0 * 1000.0)));
}

#[test]
fn a_family_by_model_is_a_quantile_with_target_type_value() {
    for family in catalog::FAMILIES {
        let by_model = ["_p50_", "_p90_", "_p99_"].iter().any(|part| family.name.contains(part));
        assert_eq!(family.is_by_model(), by_model, "{}", family.name);
        assert!(!by_model || family.kind.target_type() == Some("Value"));
    }
}
