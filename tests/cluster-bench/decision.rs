//! From load on a server's page to the autoscaler's decision, and to the replica that it asked for.

use std::net::IpAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use weir_tests::cluster::Cluster;
use weir_tests::workload::inference_pool;

use crate::servers::{self, Servers};
use crate::{Failure, TOTAL, line};

/// Load of one server that calls for a second one, and the target.
const HIGH: u64 = 150;
const TARGET: u64 = 100;

/// Doubles the load of a Deployment's one server `times` times, and takes it back each time.
pub(crate) async fn measure(cluster: &Cluster, servers: &Servers, hpa_sync: Duration, times: usize) -> Result<(), Failure> {
    let namespace = cluster.namespace("decision");
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "server"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "server"}},
            "template": {
                "metadata": {"labels": {"app": "server"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [servers::container()]},
            },
        },
    });
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "server"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"},
            "minReplicas": 1, "maxReplicas": 2,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            "metrics": [{"type": "External", "external": {
                "metric": {"name": TOTAL, "selector": {"matchLabels": {"name": "server"}}},
                "target": {"type": "AverageValue", "averageValue": TARGET.to_string()},
            }}],
        },
    });
    let items = [deployment, inference_pool("server", "server"), autoscaler];
    cluster.apply(&namespace, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    let mut random = StdRng::seed_from_u64(1);
    let (mut decided, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let pods = cluster.wait_for_pods(&namespace, "app=server", 1);
        let address: IpAddr = pods[0].1.parse()?;
        // At any moment between two rounds of the controller, once it has read the low value.
        cluster.wait_for("the autoscaler's number", || {
            let autoscaler = cluster.get(&namespace, "hpa/server")?;
            let (desired, number) = (&autoscaler["status"]["desiredReplicas"], autoscaler.pointer("/status/currentMetrics/0"));
            if *desired == 1 && number.is_some() { Ok(()) } else { Err(autoscaler["status"].to_string()) }
        });
        let pause = random.random_range(Duration::ZERO..hpa_sync);
        tokio::time::sleep(pause).await;
        servers.set(address, HIGH);
        let changed = Instant::now();
        cluster.wait_for("the decision", || {
            let deployment = cluster.get(&namespace, "deployment/server")?;
            if deployment.pointer("/spec/replicas") == Some(&Value::from(2)) { Ok(()) } else { Err(deployment["spec"].to_string()) }
        });
        decided.push(changed.elapsed());
        cluster.wait_for_pods(&namespace, "app=server", 2);
        ready.push(changed.elapsed());
        servers.set(address, 1);
        cluster.wait_for_pods(&namespace, "app=server", 1);
    }
    println!("\n| HPA sync {hpa_sync:?}: from load on the page until | times | p50 | p99 | longest |\n|---|---:|---:|---:|---:|");
    line("the Deployment is scaled", decided);
    line("the new pod (ready at once) is Ready", ready);
    Ok(())
}
