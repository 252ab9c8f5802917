//! `manifests/bbr` in a real control plane: ConfigMaps with mappings come, change and go.

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::repository;

const LABEL: &str = "inference.networking.k8s.io/bbr-managed";

fn config_map(labelled: bool, base: &str, adapters: &str) -> String {
    let labels = if labelled { json!({LABEL: "true"}) } else { json!({}) };
    let data = json!({"baseModel": base, "adapters": adapters});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "llama-adapters", "labels": labels}, "data": data})
        .to_string()
}

#[test]
fn mappings_are_in_force_as_they_come_change_and_go() {
    if skipped("body-based routing in a cluster") {
        return;
    }
    let cluster = Cluster::shared();
    let folder = repository().join("manifests/bbr").display().to_string();
    cluster.kubectl(&["apply", "-k", &folder]).unwrap_or_else(|error| panic!("{error}"));
    let pods = cluster.wait_for_pods("default", "app.kubernetes.io/name=weir-bbr", 2);
    // Both replicas say the same.
    let until = |what: &str, wanted: Value| {
        for (_, address) in &pods {
            cluster.wait_for(what, || {
                let page = cluster.http(&format!("http://{address}:9090/debug/rules"))?;
                let page: Value = serde_json::from_str(&page).map_err(|error| format!("{error}: {page}"))?;
                if page["mappings"] == wanted { Ok(()) } else { Err(page.to_string()) }
            });
        }
    };
    until("nothing at first", json!({}));
    cluster.apply("default", &config_map(true, "llama", "- sql-lora\n- chat-lora\n"));
    until("a new mapping", json!({"llama": ["chat-lora", "sql-lora"]}));
    cluster.apply("default", &config_map(true, "llama-3", "- sql-lora\n"));
    until("another base model, one adapter less", json!({"llama-3": ["sql-lora"]}));
    cluster.apply("default", &config_map(true, "", "- sql-lora\n"));
    for (_, address) in &pods {
        cluster.wait_for("a wrong one on the page", || {
            let page = cluster.http(&format!("http://{address}:9090/metrics"))?;
            if page.contains("weir_bbr_wrong_config_maps 1\n") { Ok(()) } else { Err(page) }
        });
    }
    until("the last good version", json!({"llama-3": ["sql-lora"]}));
    cluster.apply("default", &config_map(true, "llama", "- sql-lora\n"));
    until("it is put right", json!({"llama": ["sql-lora"]}));
    cluster.kubectl(&["label", "configmap", "llama-adapters", "-n", "default", &format!("{LABEL}-")]).unwrap();
    until("without the label it does not count", json!({}));
    cluster.apply("default", &config_map(true, "llama", "- sql-lora\n"));
    until("it is back", json!({"llama": ["sql-lora"]}));
    cluster.kubectl(&["delete", "configmap", "llama-adapters", "-n", "default"]).unwrap();
    until("a deleted one is gone", json!({}));
}
