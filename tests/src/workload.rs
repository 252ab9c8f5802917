//! What runs in a test's cluster: a Deployment of simulated model servers, its InferencePool, and users.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Port of every simulated model server.
pub const MODEL_PORT: u16 = 8000;

/// A Deployment `name` of simulated model servers and an InferencePool of the same name, as one list. `arguments` are further
/// ones of `weir simulate-server`.
pub fn model_servers(name: &str, replicas: usize, arguments: &[&str]) -> String {
    let mut all = vec!["simulate-server".to_owned(), format!("--listen=0.0.0.0:{MODEL_PORT}")];
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let deployment = deployment(
        name,
        replicas,
        json!({
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "server",
                "image": "weir",
                "args": all,
                "ports": [{"containerPort": MODEL_PORT}],
                "readinessProbe": {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1},
            }],
        }),
    );
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, inference_pool(name, name)]}).to_string()
}

/// A Deployment `name` of pods with label `app: NAME` and this spec.
pub fn deployment(name: &str, replicas: usize, pod: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}

/// An InferencePool `name` of the pods with label `app: APP`, whose picker is the Service `NAME-epp`.
pub fn inference_pool(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "targetPorts": [{"number": MODEL_PORT}],
            "endpointPickerRef": {"name": format!("{name}-epp"), "port": {"number": 9002}},
        },
    })
}

/// What became of the users' requests.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Answered with 200, whole.
    pub served: u64,
    /// Everything else.
    pub failed: u64,
    /// What the last failure was.
    pub last_failure: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    wanted: AtomicUsize,
    under_way: AtomicUsize,
    served: AtomicU64,
    failed: AtomicU64,
    last_failure: Mutex<Option<String>>,
}

/// Users that keep a number of requests in flight, each to the next server in turn. They end when dropped.
///
/// Start them on a thread that is in the cluster's network namespace.
#[derive(Debug)]
pub struct Users {
    shared: Arc<Shared>,
    _runtime: Runtime,
}

/// Users there can be at once.
const MOST: usize = 256;

impl Users {
    /// Nobody yet. Each prompt has about `prompt` tokens, each answer `answer`.
    pub fn new(prompt: usize, answer: u32) -> Self {
        weir_serving::install_crypto_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let shared = Arc::new(Shared::default());
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).build().expect("a client can be made");
        for index in 0..MOST {
            runtime.spawn(user(index, (prompt, answer), shared.clone(), client.clone()));
        }
        Self { shared, _runtime: runtime }
    }

    /// Where requests go from now on.
    pub fn servers(&self, servers: Vec<SocketAddr>) {
        *self.shared.servers.lock().expect("no test panics while it holds this") = servers;
    }

    /// How many requests are to be in flight from now on.
    pub fn in_flight(&self, requests: usize) {
        assert!(requests <= MOST, "at most {MOST} users");
        self.shared.wanted.store(requests, Ordering::Relaxed);
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.load(Ordering::Relaxed)
    }

    /// What became of the requests so far.
    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            served: self.shared.served.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            last_failure: self.shared.last_failure.lock().expect("no test panics while it holds this").clone(),
        }
    }
}

async fn user(index: usize, lengths: (usize, u32), shared: Arc<Shared>, client: reqwest::Client) {
    let mut turn = index;
    loop {
        let server = {
            let servers = shared.servers.lock().expect("no test panics while it holds this");
            if servers.is_empty() { None } else { Some(servers[turn % servers.len()]) }
        };
        let Some(server) = server.filter(|_| index < shared.wanted.load(Ordering::Relaxed)) else {
            // There is no event for "a test changed its mind".
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        turn += 1;
        shared.under_way.fetch_add(1, Ordering::Relaxed);
        match ask(&client, server, (index, turn), lengths).await {
            Ok(()) => {
                shared.served.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                *shared.last_failure.lock().expect("no test panics while it holds this") = Some(format!("{server}: {failure}"));
                // A server that refuses is not to be hammered.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        shared.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nobody asks the same twice: what is remembered of a prompt would cost nothing.
async fn ask(
    client: &reqwest::Client,
    server: SocketAddr,
    who: (usize, usize),
    (prompt, answer): (usize, u32),
) -> Result<(), String> {
    // A token of the simulated servers is about four characters.
    let prompt = format!("{who:?} ").repeat(prompt.div_ceil(2));
    let body = json!({"model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": prompt, "max_tokens": answer});
    let request =
        client.post(format!("http://{server}/v1/completions")).header("content-type", "application/json").body(body.to_string());
    let mut response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    while response.chunk().await.map_err(|error| format!("{error:?}"))?.is_some() {}
    if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
}
