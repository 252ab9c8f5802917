use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::{FinishReason, Model, Request};
use crate::profile::ServerProfile;

const MODEL_NAME: &str = "org/model \"8B\"";
/// As the recorded pages' server: token bounds up to 5000.
const MAX_MODEL_LEN: u32 = 8192;

/// One sample line.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
    kind: String,
}

impl Sample {
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Its labels without `le`.
    fn series(&self) -> Vec<(String, String)> {
        self.labels.iter().filter(|(name, _)| name != "le").cloned().collect()
    }
}

/// Reads a page and fails on anything that is not exactly the format.
fn read(page: &str) -> Vec<Sample> {
    assert!(page.is_empty() || page.ends_with('\n'));
    let mut kinds = BTreeMap::new();
    let mut helped = Vec::new();
    let mut samples: Vec<Sample> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty());
            assert!(!helped.contains(&name), "{name} twice");
            helped.push(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(helped.last(), Some(&name), "HELP comes before TYPE");
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind));
            kinds.insert(name, kind);
        } else {
            let sample = read_sample(line, &kinds);
            let twin = samples.iter().find(|other| other.name == sample.name && other.labels == sample.labels);
            assert_eq!(twin, None, "{line} twice");
            samples.push(sample);
        }
    }
    samples
}

fn read_sample(line: &str, kinds: &BTreeMap<&str, &str>) -> Sample {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).expect("a value");
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (key, after) = inside.split_once("=\"").expect("a label");
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().expect("a closing quote") {
                    (index, '"') => break index,
                    (_, '\\') => match characters.next().expect("an escaped character").1 {
                        'n' => value.push('\n'),
                        escaped @ ('\\' | '"') => value.push(escaped),
                        other => panic!("escape \\{other} in {line}"),
                    },
                    (_, other) => value.push(other),
                }
            };
            labels.push((key.to_owned(), value));
            inside = &after[end + 1..];
            if let Some(after_labels) = inside.strip_prefix('}') {
                rest = after_labels;
                break;
            }
            inside = inside.strip_prefix(',').expect("a comma between labels");
        }
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "{line}");
    }
    let text = rest.strip_prefix(' ').expect("a blank before the value");
    let value: f64 = text.parse().unwrap_or_else(|_| panic!("value of {line}"));
    assert_eq!(format_value(value), text, "{line}");
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix).and_then(|base| kinds.get(base)));
    let kind = kinds.get(name).or(family).unwrap_or_else(|| panic!("{line} has no family"));
    Sample { name: name.to_owned(), labels, value, kind: (*kind).to_owned() }
}

/// A replica with its clock.
struct Bench {
    engine: Engine,
    model: Model,
    http: HttpStatistics,
    rng: StdRng,
    now: Duration,
    pad_to: usize,
}

impl Bench {
    fn new(engine: Engine) -> Self {
        let profile = ServerProfile { max_model_len: MAX_MODEL_LEN, waiting_limit: 500, ..ServerProfile::small_demo() };
        let model = Model::new(profile, Vec::new(), &engine.bounds(MAX_MODEL_LEN)).unwrap();
        Self { engine, model, http: HttpStatistics::default(), rng: StdRng::seed_from_u64(5), now: Duration::ZERO, pad_to: 0 }
    }

    fn with_adapters(mut self, adapters: &[&str]) -> Self {
        let profile = ServerProfile { max_loras: 1, ..self.model.profile().clone() };
        let adapters = adapters.iter().map(|name| (*name).to_owned()).collect();
        self.model = Model::new(profile, adapters, &self.engine.bounds(MAX_MODEL_LEN)).unwrap();
        self
    }

    fn page(&self, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let view = self.model.view();
        let started_at = Duration::from_millis(1_795_234_558_630);
        let input =
            PageInput { view: &view, model_name: MODEL_NAME, now: self.now, started_at, http: &self.http, pad_to: self.pad_to };
        render(self.engine, &input, &names)
    }

    fn samples(&self) -> Vec<Sample> {
        read(&self.page(&[]))
    }

    fn value(&self, name: &str) -> f64 {
        self.samples().iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    fn step(&mut self) {
        if let Some(outcome) = self.model.step(self.now, &mut self.rng) {
            self.now += outcome.duration;
        }
    }

    /// Requests of both kinds, a client that leaves, a prompt seen before; runs `steps` steps of it.
    fn traffic(&mut self, requests: u32, steps: u32) {
        for index in 0..requests {
            let streaming = index % 3 != 0;
            let finish = if index % 4 == 0 { FinishReason::Length } else { FinishReason::Stop };
            let request = Request {
                streaming,
                finish,
                prefix: vec![1, 2, 3],
                max_tokens: Some(50),
                ..Request::new(70 + index, 20 + index % 7)
            };
            let id = self.model.submit(request, self.now).unwrap();
            if index % 5 == 4 {
                self.step();
                self.model.abort(id, self.now);
            }
            let status = if index % 6 == 5 { 400 } else { 200 };
            let handler = if streaming { "/v1/chat/completions" } else { "/v1/completions" };
            let duration = Duration::from_millis(300);
            self.http.record(HttpExchange { handler, method: "POST", status, request_bytes: 300, response_bytes: 0, duration });
        }
        for _ in 0..steps {
            self.step();
        }
    }
}

const ENGINES: [Engine; 3] = [Engine::Vllm, Engine::Sglang, Engine::Trtllm];

#[test]
fn pages_have_the_real_servers_series_types_labels_and_bounds() {
    let recorded = [
        include_str!("../../testdata/series-vllm.txt"),
        include_str!("../../testdata/series-sglang.txt"),
        include_str!("../../testdata/series-trtllm.txt"),
    ];
    for (engine, recorded) in ENGINES.into_iter().zip(recorded) {
        let mut bench = Bench::new(engine);
        bench.traffic(20, 10);
        let mut bounds: Vec<(String, Vec<String>)> = Vec::new();
        for sample in bench.samples() {
            let names: Vec<&str> = sample.labels.iter().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "-".to_owned() } else { names.join(",") };
            let series = format!("{} {} {names}", sample.kind, sample.name);
            if bounds.iter().all(|(known, _)| *known != series) {
                bounds.push((series.clone(), Vec::new()));
            }
            let known = bounds.iter_mut().find(|(known, _)| *known == series).unwrap();
            if let Some(bound) = sample.label("le")
                && !known.1.iter().any(|known| known == bound)
            {
                known.1.push(bound.to_owned());
            }
        }
        let ours: Vec<String> = bounds.into_iter().map(|(series, bounds)| [vec![series], bounds].concat().join(" ")).collect();
        assert_eq!(ours, recorded.lines().collect::<Vec<_>>(), "{engine:?}");
    }
}

#[test]
fn an_idle_page_is_all_zero() {
    let not_about_load = [
        "cache_config_info",
        "kv_cache_config_info",
        "engine_sleep_state",
        "num_pages",
        "page_size",
        "context_len",
        "max_total_num_tokens",
        "kv_available_tokens",
        "new_token_ratio",
        "_gb",
        "_memory_usage_bytes",
        "_created",
        "trtllm_max_",
        "kv_cache_max_blocks",
        "kv_cache_free_blocks",
        "tokens_per_block",
    ];
    for engine in ENGINES {
        let samples = Bench::new(engine).samples();
        let load: Vec<&Sample> = samples
            .iter()
            .filter(|sample| !sample.name.starts_with("python_") && !sample.name.starts_with("process_"))
            .filter(|sample| !not_about_load.iter().any(|part| sample.name.contains(part)))
            .collect();
        assert!(load.len() > 100, "{engine:?}: {}", load.len());
        for sample in load {
            let unknown_before_traffic = sample.name == "sglang:fwd_occupancy" && sample.value.is_nan();
            assert!(sample.value == 0.0 || unknown_before_traffic, "{sample:?}");
        }
    }
}

#[test]
fn histograms_are_cumulative_and_end_in_their_count() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine);
        bench.traffic(30, 400);
        assert!(bench.model.is_idle());
        let samples = bench.samples();
        let mut checked = 0;
        for count in samples.iter().filter(|sample| sample.kind == "histogram" && sample.name.ends_with("_count")) {
            let base = count.name.strip_suffix("_count").unwrap();
            let of_series = |suffix: &str| {
                let name = format!("{base}{suffix}");
                samples.iter().filter(move |sample| sample.name == name && sample.series() == count.series()).collect::<Vec<_>>()
            };
            let buckets = of_series("_bucket");
            assert!(buckets.is_sorted_by(|a, b| a.value <= b.value), "{base}");
            let last = buckets.last().unwrap();
            assert_eq!((last.label("le"), last.value), (Some("+Inf"), count.value), "{base}");
            assert_eq!(of_series("_sum").len(), 1, "{base}");
            checked += 1;
        }
        assert!(checked >= 8, "{engine:?}: {checked}");
    }
}

#[test]
fn counters_never_fall() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine);
        let mut before: Vec<Sample> = Vec::new();
        for _ in 0..20 {
            bench.traffic(6, 5);
            let now = bench.samples();
            for old in before.iter().filter(|sample| ["counter", "histogram", "summary"].contains(&sample.kind.as_str())) {
                let new =
                    now.iter().find(|sample| sample.name == old.name && sample.labels == old.labels).expect("no series goes away");
                assert!(new.value >= old.value, "{old:?} became {new:?}");
            }
            before = now;
        }
        let tokens = before.iter().filter(|sample| sample.name.ends_with("generation_tokens_total")).map(|sample| sample.value);
        assert!(tokens.sum::<f64>() > 0.0);
    }
}

#[test]
fn values_are_those_of_the_model() {
    for (engine, prefix) in [(Engine::Vllm, "vllm:"), (Engine::Trtllm, "trtllm_")] {
        let mut bench = Bench::new(engine);
        bench.traffic(14, 3);
        let view = bench.model.view();
        assert!(view.running > 0 && view.waiting > 0);
        let value = |name: &str| bench.value(&format!("{prefix}{name}"));
        assert_eq!(value("num_requests_running"), f64::from(view.running));
        assert_eq!(value("num_requests_waiting"), f64::from(view.waiting));
        assert_eq!(value("generation_tokens_total"), view.statistics.generation_tokens as f64);
        assert_eq!(value("prompt_tokens_total"), view.statistics.prompt_tokens as f64);
    }
    let mut bench = Bench::new(Engine::Vllm);
    bench.traffic(30, 1000);
    let ended: Vec<_> = ["stop", "length", "abort"]
        .map(|reason| {
            let samples = bench.samples();
            samples
                .iter()
                .find(|sample| sample.name == "vllm:request_success_total" && sample.label("finished_reason") == Some(reason))
                .unwrap()
                .value
        })
        .into();
    assert_eq!(ended, [18.0, 6.0, 6.0]);
    assert_eq!(bench.value("vllm:e2e_request_latency_seconds_count"), 30.0);
    assert_eq!(bench.value("vllm:prompt_tokens_by_source_total"), bench.value("vllm:prompt_tokens_total"));
    assert!(bench.value("vllm:prompt_tokens_cached_total") > 0.0);

    let mut bench = Bench::new(Engine::Sglang);
    bench.traffic(14, 3);
    let view = bench.model.view();
    assert_eq!(bench.value("sglang:num_running_reqs"), f64::from(view.running));
    assert_eq!(bench.value("sglang:num_queue_reqs"), f64::from(view.waiting));
    assert_eq!(bench.value("sglang:token_usage"), view.kv_cache_usage);
    let slots = ["sglang:kv_used_tokens", "sglang:kv_available_tokens", "sglang:kv_evictable_tokens"].map(|name| bench.value(name));
    assert_eq!(slots.iter().sum::<f64>(), bench.value("sglang:max_total_num_tokens"));
}

#[test]
fn sglang_reports_the_end_of_blocking_requests_as_their_first_token() {
    let mut bench = Bench::new(Engine::Sglang);
    bench.model.submit(Request { streaming: false, ..Request::new(10, 20) }, bench.now).unwrap();
    for _ in 0..20 {
        bench.step();
    }
    let sum = |name| bench.samples().iter().find(|s| s.name == name && s.label("is_streaming") == Some("false")).unwrap().value;
    assert!(sum("sglang:time_to_first_token_seconds_sum") > 0.4);
    assert_eq!(sum("sglang:time_to_first_token_seconds_sum"), sum("sglang:e2e_request_latency_seconds_sum"));
}

#[test]
fn adapters_appear_with_the_first_step_and_combinations_stay() {
    let mut bench = Bench::new(Engine::Vllm).with_adapters(&["sql", "chat"]);
    assert!(!bench.page(&[]).contains("lora_requests_info"));
    for adapter in [0, 1] {
        bench.model.submit(Request { adapter: Some(adapter), ..Request::new(10, 3) }, bench.now).unwrap();
    }
    bench.step();
    let reasons = |bench: &Bench| {
        let samples = bench.samples();
        let by_reason = samples.into_iter().filter(|sample| sample.name == "vllm:num_requests_waiting_by_reason");
        by_reason.map(|sample| sample.value).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&bench), [0.0, 1.0], "the second waits for the only adapter slot");
    for _ in 0..10 {
        bench.step();
    }
    let samples = bench.samples();
    let info: Vec<_> = samples.iter().filter(|sample| sample.name == "vllm:lora_requests_info").collect();
    let mut combinations: Vec<_> =
        info.iter().map(|s| (s.label("running_lora_adapters").unwrap(), s.label("waiting_lora_adapters").unwrap())).collect();
    combinations.sort_unstable();
    assert_eq!(combinations, [("", ""), ("", "chat"), ("chat", ""), ("sql", "chat")]);
    let newest = info.iter().max_by(|a, b| a.value.total_cmp(&b.value)).unwrap();
    assert_eq!(newest.label("running_lora_adapters"), Some(""));
    assert!(newest.value > 1_795_234_558.0);
}

#[test]
fn a_restriction_leaves_exactly_the_named_samples() {
    let mut bench = Bench::new(Engine::Vllm);
    bench.traffic(10, 5);
    let names = |page: &str| read(page).into_iter().map(|sample| sample.name).collect::<Vec<_>>();
    let wanted = ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "nothing_of_that_name"];
    let page = bench.page(&wanted);
    assert_eq!(names(&page), ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]);
    assert_eq!(page.lines().count(), 6, "each with its own header: {page}");
    for line in page.lines() {
        assert!(bench.page(&[]).contains(line));
    }
    assert_eq!(names(&bench.page(&["vllm:num_preemptions"])), [""; 0], "a counter's samples end in _total");
    assert_eq!(names(&bench.page(&["vllm:num_preemptions_total"])), ["vllm:num_preemptions_total"]);
    assert_eq!(names(&bench.page(&["vllm:e2e_request_latency_seconds_count"])), ["vllm:e2e_request_latency_seconds_count"]);
    let created = bench.page(&["vllm:num_preemptions_created"]);
    assert_eq!(names(&created), ["vllm:num_preemptions_created"]);
    assert!(created.contains("# TYPE vllm:num_preemptions_total counter\n"), "both headers, as one metric: {created}");
}

#[test]
fn servers_of_several_processes_answer_a_restriction_with_nothing() {
    for engine in [Engine::Sglang, Engine::Trtllm] {
        assert_eq!(Bench::new(engine).page(&["sglang:num_running_reqs", "trtllm_num_requests_running"]), "");
    }
}

#[test]
fn pages_have_a_real_size_and_can_be_padded() {
    let mut bench = Bench::new(Engine::Vllm);
    bench.traffic(10, 5);
    let plain = bench.page(&[]).len();
    assert!((48_000..60_000).contains(&plain), "{plain}");
    bench.pad_to = 68_000;
    let padded = bench.page(&[]);
    assert!((68_000..68_100).contains(&padded.len()), "{}", padded.len());
    read(&padded);
    assert!(bench.page(&["vllm:num_requests_running"]).len() < 300);
}

#[test]
fn engines_have_names() {
    for engine in ENGINES {
        assert_eq!(engine.as_str().parse(), Ok(engine));
        assert!(Engine::NAMES.contains(&engine.as_str()));
    }
    assert!("triton".parse::<Engine>().unwrap_err().to_string().contains("triton"));
}
