//! The picker in a real control plane, with the arguments, the role and the probes of upstream's chart v1.5.0.

use serde_json::json;
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::text;
use weir_tests::workload::inference_pool;

use super::alone;
use super::chart::{POOL, bare_pod, chart, role};

fn log(cluster: &Cluster, namespace: &str) -> Result<String, String> {
    let pods = cluster.get(namespace, "pods -l app=epp")?;
    let name = pods["items"][0]["metadata"]["name"].as_str().ok_or_else(|| pods.to_string())?;
    cluster.logs(namespace, name, "epp")
}

/// The page at `url`, asked for with a token.
fn page(cluster: &Cluster, url: &str, token: &str) -> Result<String, String> {
    let (url, token) = (url.to_owned(), token.trim().to_owned());
    cluster.network().within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let answer = reqwest::Client::builder()
                .no_proxy()
                .build()
                .map_err(|error| error.to_string())?
                .get(url)
                .bearer_auth(token)
                .send()
                .await
                .map_err(|error| error.to_string())?;
            text(answer).await
        })
    })
}

#[test]
fn the_chart_runs_it_and_it_says_what_it_lacks() {
    if skipped("the picker in a cluster") {
        return;
    }
    let _alone = alone();
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("epp");
    cluster.apply(&namespace, &role(false));
    cluster.apply(&namespace, &inference_pool(POOL, "model").to_string());
    cluster.apply(&namespace, &bare_pod("a", "model"));
    cluster.apply(&namespace, &chart(&namespace, 1, &[]));

    // Without the rule for pods: not ready, and the log has the rule.
    let rule = format!(
        "add to the Role in namespace {namespace}: {{apiGroups: [\\\"\\\"], resources: [\\\"pods\\\"], verbs: [\\\"list\\\", \\\"watch\\\"]}}"
    );
    cluster.wait_for("the missing rule in the log", || match log(cluster, &namespace)? {
        log if log.contains(&rule) && log.contains("no requests can be placed") => Ok(()),
        log => Err(log),
    });
    assert!(cluster.ready_pods(&namespace, "app=epp").unwrap().is_empty());
    cluster.apply(&namespace, &role(true));
    let pods = cluster.wait_for_pods(&namespace, "app=epp", 1);
    let log_now = log(cluster, &namespace).unwrap();
    // Kinds that the chart's role does not name are done without, and no reason to worry.
    assert!(!log_now.lines().any(|line| line.contains("llm-d.ai") && !line.contains("\"level\":\"INFO\"")), "{log_now}");

    // The page is for those who may get it.
    let url = format!("http://{}:9090/metrics", pods[0].1);
    let anonymous = cluster.http(&url).unwrap();
    assert!(anonymous.contains("\\\"system:anonymous\\\" cannot get path"), "{anonymous}");
    let token = cluster.kubectl(&["create", "token", "epp", "-n", &namespace]).unwrap();
    let objective = json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferenceObjective", "metadata": {"name": "batch"},
        "spec": {"priority": -1, "poolRef": {"name": POOL}},
    });
    cluster.apply(&namespace, &objective.to_string());
    cluster.wait_for("the objective and the server on the page", || {
        let page = page(cluster, &url, &token)?;
        let lines = [
            "weir_kubernetes_objects{resource=\"inferenceobjectives.inference.networking.x-k8s.io\"} 1\n",
            "weir_kubernetes_watch_state{resource=\"inferenceobjectives.llm-d.ai\",state=\"forbidden\"} 1\n",
            "weir_epp_pool_known 1\n",
        ];
        match lines.iter().find(|line| !page.contains(**line)) {
            None => Ok(()),
            Some(line) => Err(format!("no {line} in {page}")),
        }
    });

    // The pool goes, readiness with it; it is back, and so is readiness.
    let pool = format!("inferencepools.inference.networking.k8s.io/{POOL}");
    cluster.kubectl(&["delete", &pool, "-n", &namespace]).unwrap();
    cluster.wait_for_pods(&namespace, "app=epp", 0);
    let ready = cluster.http(&format!("http://{}:9090/readyz", pods[0].1)).unwrap();
    assert!(ready.contains(&format!("there is no InferencePool {namespace}/{POOL}: create it")), "{ready}");
    cluster.apply(&namespace, &inference_pool(POOL, "model").to_string());
    cluster.wait_for_pods(&namespace, "app=epp", 1);
}
