//! `weir serve` beside `weir simulate-server`, from outside.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;
use weir_tests::{Folder, Process, eventually, kubectl, run};

const TOKEN: &str = "a-token-of-the-test-0123456789";

/// Simulated servers, and weir serving what they report.
struct Setup {
    folder: Folder,
    simulator: Option<Process>,
    weir: Process,
    exporter: String,
    adapter: String,
}

fn pools_file(endpoints: &str) -> String {
    format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [{endpoints}]\n")
}

/// The address in a log line of weir's.
fn address(line: &str) -> String {
    let from = line.split("address=").nth(1).unwrap_or_else(|| panic!("no address in {line}"));
    from.split(' ').next().unwrap().to_owned()
}

impl Setup {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let simulator = Process::weir(&["simulate-server", "--listen", "127.0.0.1:0", "--replicas", "2"]);
        let replica = |index: usize| {
            let line = simulator.line("an address", |line| line.starts_with(&format!("simulator-{index} http://")));
            format!("\"{}\"", line.rsplit("//").next().unwrap())
        };
        let endpoints = [replica(0), replica(1)].join(", ");
        let pools = folder.write("pools.yaml", &pools_file(&endpoints));
        let tokens = folder.write("tokens", &format!("{TOKEN}\n"));
        let ca = folder.file("ca.crt");
        let arguments = [
            "serve",
            "--pools",
            pools.to_str().unwrap(),
            "--exporter-listen",
            "127.0.0.1:0",
            "--adapter-listen",
            "127.0.0.1:0",
            "--token-file",
            tokens.to_str().unwrap(),
            "--tls-ca-out",
            ca.to_str().unwrap(),
        ];
        let weir = Process::weir(&arguments);
        let (mut exporter, mut adapter) = (None, None);
        while exporter.is_none() || adapter.is_none() {
            let line = weir.line("where it serves", |line| line.contains(" serving "));
            let server = if line.contains("component=\"adapter\"") { &mut adapter } else { &mut exporter };
            *server = Some(address(&line));
        }
        Self { folder, simulator: Some(simulator), weir, exporter: exporter.unwrap(), adapter: adapter.unwrap() }
    }

    /// The exporter's page.
    fn page(&self) -> String {
        get(&format!("http://{}/metrics", self.exporter)).unwrap()
    }

    /// kubectl's answer for a path of the metrics API, or what it says instead.
    fn kubectl(&self, metric: &str, token: &str) -> Result<Value, String> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/{metric}");
        let output = Command::new(kubectl())
            .args(["--server", &format!("https://{}", self.adapter), "--token", token, "--certificate-authority"])
            .arg(self.folder.file("ca.crt"))
            .args(["get", "--raw", &path])
            .env("KUBECONFIG", self.folder.file("none"))
            .output()
            .expect("kubectl runs: tests/kubectl/install");
        if output.status.success() {
            Ok(serde_json::from_slice(&output.stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

fn get(url: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    weir_serving::install_crypto_provider();
    runtime.block_on(async {
        let mut response = reqwest::get(url).await.map_err(|error| error.to_string())?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
            body.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    })
}

#[test]
fn page_and_api_say_what_the_servers_report_until_nobody_can_be_read() {
    let mut setup = Setup::new("line");
    let list = eventually("a value", || setup.kubectl("inference_pool_total_inflight_requests?labelSelector=name%3Dllama", TOKEN));
    assert_eq!(list["items"][0]["metricLabels"], serde_json::json!({"name": "llama", "namespace": "default"}));
    assert_eq!(list["items"][0]["value"], "0");
    // One server is enough for a value: the other may be read a moment later.
    let page = eventually("both servers on the page", || match setup.page() {
        page if page.contains("inference_pool_endpoints{name=\"llama\",namespace=\"default\",state=\"fresh\"} 2.0\n") => Ok(page),
        page => Err(page),
    });
    assert!(page.contains("inference_pool_average_kv_cache_utilization{name=\"llama\",namespace=\"default\"} 0.0\n"), "{page}");

    let gke =
        "prometheus.googleapis.com%7Cinference_pool_average_kv_cache_utilization%7Cgauge?labelSelector=metric.labels.name%3Dllama";
    assert_eq!(setup.kubectl(gke, TOKEN).unwrap()["items"].as_array().unwrap().len(), 1);
    let unknown = setup.kubectl("inference_pool_average_kv_cache_utilisation", TOKEN).unwrap_err();
    assert!(unknown.contains("inference_pool_average_kv_cache_utilization"), "near matches: {unknown}");
    let stranger = setup.kubectl(gke, "not-the-token").unwrap_err();
    assert!(stranger.contains("Unauthorized") || stranger.contains("must be logged in"), "{stranger}");

    drop(setup.simulator.take());
    let unreadable = eventually("an error once the pages are stale", || match setup.kubectl(gke, TOKEN) {
        Ok(list) => Err(list.to_string()),
        Err(error) => Ok(error),
    });
    for words in ["default/llama", "none of its 2 ready endpoints has fresh metrics", "last known at"] {
        assert!(unreadable.contains(words), "no `{words}` in: {unreadable}");
    }
    let page = setup.page();
    assert!(!page.contains("inference_pool_average_kv_cache_utilization{"), "unknown is left out: {page}");
    assert!(page.contains("state=\"unreachable\"} 2.0\n"), "{page}");
    assert!(page.contains("weir_scrapes_total{outcome=\"connect\"}"), "{page}");

    let (ended_well, output) = setup.weir.terminate();
    assert!(ended_well, "{output}");
}

#[test]
fn a_broken_pools_file_keeps_the_last_good_one_and_says_where_it_is_broken() {
    let setup = Setup::new("reload");
    eventually("a value", || setup.kubectl("inference_pool_ready_pods", TOKEN));
    setup.folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: llama\n  endpoint: [\"127.0.0.1:1\"]\n");
    let complaint = setup.weir.line("the mistake", |line| line.contains("pools.yaml:4:3"));
    assert!(complaint.contains("endpoint") && complaint.contains("endpoints"), "{complaint}");
    assert!(setup.page().contains("weir_pools_file_valid 0\n"), "{}", setup.page());
    assert!(setup.kubectl("inference_pool_ready_pods", TOKEN).is_ok(), "the last good version stays in force");
    setup.folder.write("pools.yaml", &pools_file(""));
    eventually("the repaired file", || match setup.page() {
        page if page.contains("weir_pools_file_valid 1\n") && page.contains("state=\"fresh\"} 0.0") => Ok(()),
        page => Err(page),
    });
    let list = setup.kubectl("inference_pool_average_kv_cache_utilization", TOKEN).unwrap();
    assert_eq!(list["items"][0]["value"], "0", "no endpoints: zero, not unknown");
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start_with_the_way_out() {
    let folder = Folder::new("refused");
    let pools = folder.write("pools.yaml", &pools_file("\"127.0.0.1:1\""));
    let pools = pools.to_str().unwrap();
    let refused = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let nobody = refused(&["adapter", "--pools", pools]);
    assert!(nobody.contains("--token-file") && nobody.contains("--open-on-loopback"), "{nobody}");
    let open = refused(&["adapter", "--pools", pools, "--open-on-loopback", "--adapter-listen", "0.0.0.0:0"]);
    assert!(open.contains("refusing to serve 0.0.0.0:0 to everyone"), "{open}");
    let slow = refused(&["exporter", "--pools", pools, "--scrape-interval", "10s", "--exporter-listen", "127.0.0.1:0"]);
    assert!(slow.contains("1.6"), "{slow}");
    let missing = refused(&["exporter", "--pools", "no-such-pools.yaml"]);
    assert!(missing.contains("no-such-pools.yaml"), "{missing}");
    let twice = folder.write("twice.yaml", &pools_file("\"127.0.0.1:1\", \"127.0.0.1:1\", \"127.0.0.1\""));
    let twice = refused(&["exporter", "--pools", twice.to_str().unwrap()]);
    assert!(twice.contains("127.0.0.1:1") && twice.contains("has no port"), "all mistakes at once: {twice}");
}
