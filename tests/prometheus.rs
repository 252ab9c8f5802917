//! What Prometheus makes of the exporter's page: the real one and its tools, from `tests/debian-tool`.

#![allow(clippy::unwrap_used)]

#[path = "scale/pages.rs"]
#[allow(dead_code)]
mod pages;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use weir_datastore::catalog;
use weir_tests::{Folder, Process, eventually, get, repository};

/// What each of the two servers says: never 0, or double would be the same.
const PAGE: &str = "vllm:num_requests_running 3.0\nvllm:num_requests_waiting 2.0\nvllm:kv_cache_usage_perc 0.5\n";

/// A program of Prometheus: the machine's own, or the one that `tests/debian-tool` unpacked.
fn tool(name: &str) -> PathBuf {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let install =
            Command::new(repository().join("tests/debian-tool")).args(["prometheus", "prometheus", "promtool"]).output().unwrap();
        assert!(install.status.success(), "tests/debian-tool: {}", told(&install));
    });
    let unpacked = repository().join("target/tools").join(name);
    if unpacked.is_file() { unpacked } else { PathBuf::from(name) }
}

/// How one value is made of what several replicas say: a replica that sees fewer endpoints must not claim idleness.
fn aggregation(family: &str) -> &'static str {
    if family == "inference_pool_idle_seconds" { "min" } else { "max" }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn get_with(url: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
    get(reqwest::Url::parse_with_params(url, parameters).unwrap().as_str())
}

/// Two model servers, and as many weirs as asked for that read them.
struct Setup {
    folder: Folder,
    /// The text of the pools file, and where it is.
    text: String,
    pools: String,
    weirs: Vec<Process>,
    addresses: Vec<String>,
    /// Serves the pages.
    _runtime: tokio::runtime::Runtime,
    _endpoints: pages::Endpoints,
}

impl Setup {
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoints = runtime.block_on(pages::start(2, PAGE, false)).unwrap();
        let [one, other] = endpoints.addresses[..] else { panic!("two endpoints were asked for") };
        let folder = Folder::new(name);
        let text = format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [\"{one}\", \"{other}\"]\n");
        let pools = folder.write("pools.yaml", &text).to_str().unwrap().to_owned();
        Self { folder, text, pools, weirs: Vec::new(), addresses: Vec::new(), _runtime: runtime, _endpoints: endpoints }
    }

    fn start(&mut self, subcommand: &str, more: &[&str]) {
        let pools = self.pools.clone();
        self.start_with(subcommand, &pools, more);
    }

    /// Starts an exporter that is told of the pool by the stream of exporter number `exporter`.
    fn follow(&mut self, exporter: usize) {
        let text = format!("{}  pickers: [\"http://{}\"]\n", self.text, self.addresses[exporter]);
        let pools = self.folder.write("follower.yaml", &text).to_str().unwrap().to_owned();
        self.start_with("exporter", &pools, &[]);
    }

    fn start_with(&mut self, subcommand: &str, pools: &str, more: &[&str]) {
        let arguments = [subcommand, "--pools", pools, "--exporter-listen", "127.0.0.1:0"];
        let weir = Process::weir(&[&arguments[..], more].concat());
        let serving = |line: &str| line.contains(" serving ") && line.contains("component=\"exporter\"");
        let line = weir.line("where the exporter serves", serving);
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap();
        self.addresses.push(address.to_owned());
        self.weirs.push(weir);
    }

    /// The page of one exporter once it has read both servers.
    fn page(&self, exporter: usize) -> String {
        let url = format!("http://{}/metrics", self.addresses[exporter]);
        eventually("both servers on the page", || match get(&url)? {
            page if page.contains("inference_pool_ready_pods{name=\"llama\",namespace=\"default\"} 2.0\n") => Ok(page),
            page => Err(page),
        })
    }
}

/// Prometheus scraping the exporters each second.
struct Prometheus {
    process: Child,
    api: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Prometheus {
    fn start(setup: &Setup) -> Self {
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [repository().join("manifests/monitoring/rules.yaml")],
            "scrape_configs": [{
                "job_name": "weir", "honor_labels": true, "static_configs": [{ "targets": setup.addresses }],
            }],
        });
        // JSON is YAML.
        let config = setup.folder.write("prometheus.yml", &config.to_string());
        let log = setup.folder.file("prometheus.log");
        let process = Command::new(tool("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", setup.folder.file("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut prometheus = Self { process, api: String::new() };
        let address = eventually("Prometheus listens", || {
            if let Some(status) = prometheus.process.try_wait().unwrap() {
                panic!("Prometheus has ended, {status}: {}", std::fs::read_to_string(&log).unwrap());
            }
            let log = std::fs::read_to_string(&log).unwrap();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            // An earlier line repeats the address that was asked for.
            let addresses = lines.filter_map(|line| Some(line["address"].as_str()?.to_owned()));
            addresses.into_iter().find(|address| !address.ends_with(":0")).ok_or(log)
        });
        prometheus.api = format!("http://{address}/api/v1");
        prometheus
    }

    fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let body = get_with(&format!("{}/{path}", self.api), parameters)?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(body) }
    }

    /// The values of a query by their labels, without the name.
    fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let data = self.data("query", &[("query", query)])?;
        let value = |sample: &Value| {
            let mut labels = sample["metric"].clone();
            labels.as_object_mut()?.remove("__name__");
            Some((labels, sample["value"][1].as_str()?.parse().ok()?))
        };
        let results = data["result"].as_array().ok_or("no result")?;
        results.iter().map(|sample| value(sample).ok_or_else(|| sample.to_string())).collect()
    }
}

fn pool() -> Value {
    serde_json::json!({ "name": "llama", "namespace": "default" })
}

/// What a page says of the pool.
fn on_page(page: &str, family: &str) -> Option<f64> {
    let series = format!("{family}{{name=\"llama\",namespace=\"default\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse().unwrap())
}

#[test]
fn two_exporters_of_one_pool_and_one_that_is_told_of_it_are_recorded_as_one() {
    let mut setup = Setup::new("thrice");
    setup.start("exporter", &[]);
    setup.start("exporter", &[]);
    setup.follow(0);
    let told_of = eventually("the third is told by the first", || match setup.page(2) {
        page if page.contains("\nweir_streams_followed 1\n") && !page.contains("\nweir_stream_frames_total 0\n") => Ok(page),
        page => Err(page),
    });
    let pages = [setup.page(0), setup.page(1), told_of];
    let prometheus = Prometheus::start(&setup);

    let family = "inference_pool_total_inflight_requests";
    eventually("all are scraped", || {
        match prometheus.query(&format!("sum({family}{pool})", pool = "{namespace=\"default\"}"))? {
            sum if sum.first().is_some_and(|(_, value)| *value == 30.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let mut compared = 0;
    for family in catalog::FAMILIES {
        let recorded = format!("namespace_name:{}:{}", family.name, aggregation(family.name));
        // Only the third has a picker, and so tells of held requests.
        let told: Vec<_> = pages.iter().filter_map(|page| on_page(page, family.name)).collect();
        let Some(one) = told.first().copied() else {
            let recorded = prometheus.query(&recorded);
            // What is measured over a minute may have become known meanwhile.
            let known = (0..3).any(|exporter| on_page(&setup.page(exporter), family.name).is_some());
            assert!(known || recorded == Ok(vec![]), "{} is not known to any exporter: {recorded:?}", family.name);
            continue;
        };
        let recorded = eventually(&recorded, || match prometheus.query(&recorded)? {
            samples if samples.is_empty() => Err("nothing is recorded yet".to_owned()),
            samples => Ok(samples),
        });
        let [(labels, value)] = &recorded[..] else { panic!("one value for the pool, not {recorded:?}") };
        assert_eq!(*labels, pool(), "the pool's own namespace stays, no instance is left");
        if ["inference_pool_idle_seconds", "inference_pool_metrics_age_seconds"].contains(&family.name) {
            assert!((0.0..5.0).contains(value), "{} {value}", family.name);
        } else {
            assert_eq!(*value, one, "{}: as one exporter says, not more", family.name);
            assert!(told.iter().all(|other| *other == one), "{}: all exporters say the same, not {told:?}", family.name);
        }
        compared += usize::from(*value != 0.0);
    }
    assert!(compared >= 12, "only {compared} families had a value that doubling would change");

    let waiting = "namespace_name_model_server_pod:inference_pool_per_pod_queue_size:max";
    assert_eq!(prometheus.query(&format!("sum({waiting})")).unwrap()[0].1, 4.0, "2 a server");
    let fresh = prometheus.query("namespace_name_state:inference_pool_endpoints:max{state=\"fresh\"}").unwrap();
    assert_eq!(fresh[0].1, 2.0);

    for target in prometheus.data("targets", &[]).unwrap()["activeTargets"].as_array().unwrap() {
        assert_eq!((target["health"].as_str(), target["lastError"].as_str()), (Some("up"), Some("")), "{target}");
        assert_eq!(target["labels"]["job"], "weir");
    }
    // The older text format knows no units: this one came over OpenMetrics.
    let metadata = prometheus.data("targets/metadata", &[("metric", "weir_scrape_duration_seconds")]).unwrap();
    let units: Vec<_> = metadata.as_array().unwrap().iter().map(|of_target| of_target["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["seconds"; 3], "{metadata}");
}

/// Gives `page` to `promtool check metrics`, which also has opinions on names.
fn check_metrics(page: &str) -> Output {
    let promtool = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.unwrap();
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    promtool.wait_with_output().unwrap()
}

#[test]
fn promtool_has_nothing_to_say_on_the_text_page() {
    let mut setup = Setup::new("lint");
    setup.start("serve", &["--adapter-listen", "127.0.0.1:0", "--open-on-loopback"]);
    let page = setup.page(0);
    for family in ["inference_pool_saturation{", "weir_scrapes_total{", "weir_pools_file_reloads_total{", "weir_serving_"] {
        assert!(page.contains(&format!("\n{family}")), "no {family} in {page}");
    }
    let checked = check_metrics(&page);
    assert!(checked.status.success() && told(&checked).is_empty(), "{}\n{page}", told(&checked));
    // It does complain where there is something to complain of.
    let counter = "# HELP weir_things Things.\n# TYPE weir_things counter\nweir_things 1\n";
    assert!(told(&check_metrics(counter)).contains("_total"));
    assert!(!check_metrics("weir_things{ 1\n").status.success());
}

#[test]
fn the_recording_rules_have_every_family_and_pass_their_own_tests() {
    let rules = repository().join("manifests/monitoring/rules.yaml");
    let promtool = |arguments: &[&str], file: &std::path::Path| {
        let output = Command::new(tool("promtool")).args(arguments).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
    };
    promtool(&["check", "rules"], &rules);
    promtool(&["test", "rules"], &repository().join("tests/prometheus/rules-test.yaml"));
    let rules = std::fs::read_to_string(rules).unwrap();
    let expressions: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    for family in catalog::FAMILIES {
        // Over all models: each one has a series of its own beside.
        let models = if family.is_by_model() { "{model=\"\"}" } else { "" };
        let wanted = format!("{} by (namespace, name) ({}{models})", aggregation(family.name), family.name);
        assert!(expressions.contains(&wanted.as_str()), "no rule `{wanted}`");
    }
    for (family, _) in [catalog::ENDPOINTS, catalog::PER_POD_QUEUE_SIZE] {
        assert!(expressions.iter().any(|expression| expression.ends_with(&format!(" ({family})"))), "no rule for {family}");
    }
    for expression in &expressions {
        let one_value = ["max", "min"].iter().any(|function| expression.starts_with(&format!("{function} by (namespace, name")));
        assert!(one_value, "not one value per pool: {expression}");
        let family = expression.split(['(', ')', '{']).nth(3).unwrap();
        let known = catalog::find(family).is_some() || [catalog::ENDPOINTS.0, catalog::PER_POD_QUEUE_SIZE.0].contains(&family);
        assert!(known, "no such family: {expression}");
    }
}
