//! What weir asks of model servers in Python, and what it gets: the real prometheus_client under the real uvicorn.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;
use weir_tests::{Folder, Process, eventually, get, repository};

/// The interpreter of the environment that `tests/python/install` makes.
fn python() -> String {
    let output = Command::new(repository().join("tests/python/install")).output().expect("bash runs");
    assert!(output.status.success(), "tests/python/install: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A model server in Python.
struct Server {
    process: Process,
    address: String,
    /// For the files that several processes share their values by.
    _folder: Folder,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new(name);
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/server.py")).arg("serve").args(arguments).env("TMPDIR", folder.file(""));
        let process = Process::start(command);
        let line = process.line("an address", |line| line.starts_with("listening "));
        let address = line.trim_start_matches("listening ").to_owned();
        Self { process, address, _folder: folder }
    }

    fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap()
    }

    fn set(&self, values: &str) {
        eventually("the server answers", || get(&format!("http://{}/control?{values}", self.address)));
    }

    /// The requests for the page so far, in their order.
    fn requests(&self) -> Vec<Value> {
        self.process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for `count` requests, `restricted` or not, after the first `from`.
    fn requested(&self, from: usize, count: usize, restricted: bool) -> Vec<Value> {
        eventually("requests of that kind", || {
            let requests = self.requests();
            let wanted = requests.iter().skip(from).filter(|request| is_restricted(request) == restricted).count();
            if wanted >= count { Ok(requests) } else { Err(format!("{requests:?}")) }
        })
    }
}

fn is_restricted(request: &Value) -> bool {
    request["query"].as_str().unwrap().contains("name%5B%5D=")
}

/// `weir exporter` that reads `server` five times a second.
struct Weir {
    _process: Process,
    _folder: Folder,
    exporter: String,
}

impl Weir {
    fn reading(server: &Server, name: &str) -> Self {
        let folder = Folder::new(name);
        let pools = format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [\"{}\"]\n", server.address);
        let pools = folder.write("pools.yaml", &pools);
        let pools = pools.display().to_string();
        let listen = ["--exporter-listen", "127.0.0.1:0", "--scrape-interval", "200ms"];
        let process = Process::weir(&[&["exporter", "--pools", &pools], &listen[..]].concat());
        let line = process.line("where it serves", |line| line.contains(" serving "));
        let after = line.split("address=").nth(1).unwrap();
        let exporter = after.split(' ').next().unwrap().to_owned();
        Self { _process: process, _folder: folder, exporter }
    }

    /// Waits until the page has this value of a family of the pool, or of weir's own.
    fn shows(&self, series: &str, value: f64) {
        eventually(&format!("{series} {value}"), || match self.value(series) {
            Ok(shown) if shown == value => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn value(&self, series: &str) -> Result<f64, String> {
        let page = get(&format!("http://{}/metrics", self.exporter))?;
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no {series} in\n{page}"))
    }

    fn shows_load(&self, running: f64, waiting: f64, kv_cache: f64) {
        let pool = "{name=\"llama\",namespace=\"default\"}";
        self.shows(&format!("inference_pool_total_running_requests{pool}"), running);
        self.shows(&format!("inference_pool_average_queue_size{pool}"), waiting);
        self.shows(&format!("inference_pool_average_kv_cache_utilization{pool}"), kv_cache);
    }
}

#[test]
fn one_process_is_asked_for_the_wanted_series_after_a_trial_and_tried_again_after_a_restart() {
    let server = Server::start("server-one", &[]);
    server.set("running=3&waiting=1&kv_cache=0.25");
    let weir = Weir::reading(&server, "python-one");
    weir.shows_load(3.0, 1.0, 0.25);
    let requests = server.requested(0, 5, true);
    let kinds: Vec<bool> = requests.iter().map(is_restricted).collect();
    assert_eq!(
        kinds,
        [&[false][..], &vec![true; requests.len() - 1]].concat(),
        "one whole page, then restricted ones: {requests:?}"
    );
    for request in &requests {
        assert_eq!(request["path"], "/metrics", "{request}");
        assert_eq!(request["accept"], "text/plain;version=0.0.4", "{request}");
        assert_eq!(request["accept_encoding"], "identity", "{request}");
        assert_eq!(request["content_encoding"], Value::Null, "{request}");
        assert_eq!(request["status"], 200, "{request}");
    }
    let bytes = |request: &Value| request["bytes"].as_u64().unwrap();
    assert!(bytes(&requests[0]) > 40_000 && (100..5000).contains(&bytes(&requests[1])), "{requests:?}");
    let query = requests[1]["query"].as_str().unwrap();
    assert!(query.contains("name%5B%5D=vllm%3Aprompt_tokens_total&"), "samples, not families: {query}");
    // Values off restricted pages follow the server.
    server.set("running=7&waiting=0&kv_cache=0.5");
    weir.shows_load(7.0, 0.0, 0.5);
    assert_eq!(weir.value("weir_scrape_pages_total{kind=\"full\"}"), Ok(1.0));
    assert_eq!(weir.value("weir_scrape_pages_total{kind=\"trial\"}"), Ok(1.0));

    let port = server.port().to_owned();
    drop(server);
    weir.shows("inference_pool_endpoints{name=\"llama\",namespace=\"default\",state=\"unreachable\"}", 1.0);
    let server = Server::start("server-again", &["--port", &port]);
    server.set("running=4");
    weir.shows_load(4.0, 0.0, 0.0);
    let requests = server.requested(0, 3, true);
    assert!(!is_restricted(&requests[0]), "nothing learned of the old process is believed: {requests:?}");
    weir.shows("weir_scrape_pages_total{kind=\"trial\"}", 2.0);
    // What weir itself costs is on the page too.
    assert!(weir.value("process_cpu_seconds_total").unwrap() > 0.0);
    assert!(weir.value("process_resident_memory_bytes").unwrap() > 1e6);
}

#[test]
fn several_processes_are_asked_for_whole_pages() {
    let server = Server::start("server-several", &["--processes", "several"]);
    server.set("running=3&waiting=1&kv_cache=0.25");
    let weir = Weir::reading(&server, "python-several");
    // Two more run in the other process.
    weir.shows_load(5.0, 1.0, 0.25);
    let requests = server.requested(0, 6, false);
    let restricted: Vec<_> = requests.iter().filter(|request| is_restricted(request)).collect();
    assert_eq!(restricted.len(), 1, "one trial: {requests:?}");
    assert_eq!((&restricted[0]["status"], &restricted[0]["bytes"]), (&Value::from(200), &Value::from(0)), "{restricted:?}");
    server.set("running=8");
    weir.shows_load(10.0, 0.0, 0.0);
    assert_eq!(weir.value("weir_scrape_pages_total{kind=\"restricted\"}"), Ok(0.0));
    assert_eq!(weir.value("weir_scrapes_total{outcome=\"no_engine\"}"), Ok(0.0), "an empty page is no failure of the endpoint");
}

#[test]
fn a_server_that_packs_its_page_unasked_is_read_all_the_same() {
    let server = Server::start("server-gzip", &["--gzip-always"]);
    server.set("running=3&waiting=1&kv_cache=0.25");
    let weir = Weir::reading(&server, "python-gzip");
    weir.shows_load(3.0, 1.0, 0.25);
    let requests = server.requested(0, 3, true);
    for request in &requests {
        assert_eq!((&request["accept_encoding"], &request["content_encoding"]), (&Value::from("identity"), &Value::from("gzip")));
    }
    server.set("running=9");
    weir.shows_load(9.0, 0.0, 0.0);
}
