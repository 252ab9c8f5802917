//! Model servers without processes: pods whose addresses belong to the cluster's network namespace, so that one listener of this
//! program answers for all of them, each with its own value. The moment that a value changes is known exactly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::routing::get;
use axum::serve::IncomingStream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use weir_tests::workload::{MODEL_PORT, inference_pool};

use crate::Failure;

/// What servers say that were told nothing else.
const DEFAULT: u64 = 1;

/// The servers of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    running: Arc<Mutex<HashMap<IpAddr, u64>>>,
}

/// The address that a connection came to.
#[derive(Clone, Copy, Debug)]
struct Local(Option<IpAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Local {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(stream.io().local_addr().ok().map(|address| address.ip()))
    }
}

impl Servers {
    /// Listens on all addresses of the network namespace that the calling thread is in.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let servers = Self::default();
        let listener = TcpListener::bind(("0.0.0.0", MODEL_PORT)).await?;
        let answering = servers.clone();
        let page = get(move |ConnectInfo(Local(address)): ConnectInfo<Local>| {
            let running = address.map_or(DEFAULT, |address| answering.running(address));
            std::future::ready(format!(
                "vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.5\n"
            ))
        });
        let router = Router::new().route("/metrics", page).into_make_service_with_connect_info::<Local>();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(servers)
    }

    fn running(&self, address: IpAddr) -> u64 {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied().unwrap_or(DEFAULT)
    }

    /// What a server says from now on.
    pub(crate) fn set(&self, address: IpAddr, running: u64) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(address, running);
    }
}

/// `count` pools `NAME-N` of one such pod each, as one list.
pub(crate) fn pools(name: &str, count: usize) -> String {
    let items: Vec<Value> = (0..count)
        .flat_map(|number| {
            let name = format!("{name}-{number}");
            let pod = json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name, "part": "server"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container()]},
            });
            [pod, inference_pool(&name, &name)]
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// No program of the cluster has this name: the container only counts as running.
pub(crate) fn container() -> Value {
    json!({"name": "server", "image": "no-process", "ports": [{"containerPort": MODEL_PORT}]})
}
