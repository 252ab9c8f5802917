//! Against a scripted API server on the loopback; conditions are waited for.

mod apiserver;
mod bench;
mod endpoints;
mod log;
mod picking;
mod promises;
mod rules;
mod trouble;

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::apiserver::{ApiServer, OLD, PODS, V1};
use super::{KubeDiscovery, KubeDiscoveryConfig};
use crate::access::{WantedPool, WantedPools};
pub(super) use crate::tests::eventually;

/// Discovery that runs.
struct Rig {
    pools: WantedPools,
    synced: watch::Receiver<bool>,
    registry: Registry,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    fn start(server: &ApiServer) -> Self {
        Self::with(server, KubeDiscoveryConfig::default())
    }

    fn with(server: &ApiServer, config: KubeDiscoveryConfig) -> Self {
        let mut registry = Registry::default();
        let (discovery, pools) = KubeDiscovery::new(server.client(), config, &mut registry).unwrap();
        let discovery = discovery.ask_again_every(Duration::from_millis(50));
        let (synced, shutdown) = (discovery.synced(), CancellationToken::new());
        let task = tokio::spawn(discovery.run(shutdown.clone()));
        Self { pools, synced, registry, shutdown, task }
    }

    async fn synced(server: &ApiServer) -> Self {
        let rig = Self::start(server);
        eventually("synced", || *rig.synced.borrow()).await;
        rig
    }

    /// `namespace/name` of every pool, each with `address state` of its endpoints.
    fn shown(&self) -> Vec<(String, Vec<String>)> {
        let endpoints = |pool: &WantedPool| {
            let shown = pool.spec.endpoints.iter().map(|endpoint| format!("{} {:?}", endpoint.address, endpoint.state));
            shown.collect()
        };
        self.pools.borrow().iter().map(|pool| (pool.spec.id.to_string(), endpoints(pool))).collect()
    }

    fn pool(&self, id: &str) -> Option<WantedPool> {
        self.pools.borrow().iter().find(|pool| pool.spec.id.to_string() == id).cloned()
    }

    async fn until(&self, expected: &[(&str, &[&str])]) {
        let expected: Vec<(String, Vec<String>)> = expected
            .iter()
            .map(|(id, endpoints)| ((*id).to_owned(), endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect()))
            .collect();
        eventually(&format!("{expected:?}"), || self.shown() == expected).await;
    }

    fn metric(&self, series: &str) -> f64 {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn pool(namespace: &str, name: &str, app: &str, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports.iter().map(|port| json!({ "number": port })).collect();
    json!({ "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
            "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{name}") },
            "spec": { "selector": { "matchLabels": { "app": app } }, "targetPorts": ports,
                      "endpointPickerRef": { "name": format!("{name}-epp"), "port": { "number": 9002 } } } })
}

fn old_pool(namespace: &str, name: &str, app: &str, port: u16) -> Value {
    json!({ "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferencePool",
            "metadata": { "namespace": namespace, "name": name, "uid": format!("old-{name}") },
            "spec": { "selector": { "app": app }, "targetPortNumber": port, "extensionRef": { "name": format!("{name}-epp") } } })
}

fn pod(namespace: &str, name: &str, app: &str, ip: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name, "uid": format!("uid-{name}"), "labels": { "app": app } },
            "spec": { "containers": [{ "name": "server", "image": "x" }] },
            "status": { "phase": "Running", "podIP": ip, "conditions": [{ "type": "Ready", "status": "True" }] } })
}

/// `object` with the field at `pointer` set.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut place = &mut object;
    for part in pointer.split('.') {
        place = &mut place[part];
    }
    *place = value;
    object
}

/// A server with pool `n/p` of one pod, `a` at 10.0.0.1.
async fn small() -> ApiServer {
    let server = ApiServer::start().await;
    server.put(V1, pool("n", "p", "x", &[8000]));
    server.put(PODS, pod("n", "a", "x", "10.0.0.1"));
    server.mode(OLD, apiserver::Mode::Absent);
    server
}
