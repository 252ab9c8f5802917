//! `weir serve` beside `weir simulate-server`, from outside.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::Value;
use weir_tests::{Folder, Process, Serving, TOKEN, eventually, kubectl, run, simulators};

/// Simulated servers, and weir serving what they report.
struct Setup {
    folder: Folder,
    simulator: Option<Process>,
    serving: Serving,
}

fn pools_file(endpoints: &str) -> String {
    format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [{endpoints}]\n")
}

impl Setup {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let (simulator, addresses) = simulators(2);
        let endpoints: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let pools = folder.write("pools.yaml", &pools_file(&endpoints.join(", ")));
        let serving = Serving::start(&folder, &pools);
        Self { folder, simulator: Some(simulator), serving }
    }

    /// The exporter's page.
    fn page(&self) -> String {
        self.serving.page().unwrap()
    }

    /// kubectl's answer for a path of the metrics API, or what it says instead.
    fn kubectl(&self, metric: &str, token: &str) -> Result<Value, String> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/{metric}");
        let output = Command::new(kubectl())
            .args(["--server", &format!("https://{}", self.serving.adapter), "--token", token, "--certificate-authority"])
            .arg(&self.serving.ca_file)
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

    let (ended_well, output) = setup.serving.weir.terminate();
    assert!(ended_well, "{output}");
}

#[test]
fn a_broken_pools_file_keeps_the_last_good_one_and_says_where_it_is_broken() {
    let setup = Setup::new("reload");
    eventually("a value", || setup.kubectl("inference_pool_ready_pods", TOKEN));
    setup.folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: llama\n  endpoint: [\"127.0.0.1:1\"]\n");
    let complaint = setup.serving.weir.line("the mistake", |line| line.contains("pools.yaml:4:3"));
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
