//! What runs in a test's cluster: a Deployment of simulated model servers, its InferencePool, and users.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;

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
                "readinessProbe": {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
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

/// The Service `name`, by which weir finds the picker of a pool: the pods of the app `epp`.
pub fn picker_service(name: &str) -> Value {
    let ports = json!([{"name": "grpc", "port": 9002}, {"name": "http-metrics", "port": 9090}]);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": "epp"}, "ports": ports}})
}

/// A picker of the app `epp` whose page is the key `page` of the ConfigMap `epp-page`.
pub fn picker_of_a_page() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "epp", "labels": {"app": "epp"}},
        "spec": {
            "containers": [{
                "name": "epp", "image": "page-server", "args": ["0.0.0.0:9090", "/page/page"],
                "ports": [{"name": "http-metrics", "containerPort": 9090}],
                "readinessProbe": {"httpGet": {"path": "/metrics", "port": 9090}, "periodSeconds": 1, "timeoutSeconds": 5},
                "volumeMounts": [{"name": "page", "mountPath": "/page"}],
            }],
            "volumes": [{"name": "page", "configMap": {"name": "epp-page"}}],
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
    /// What failed, the first thousand of it.
    pub failures: Vec<Failure>,
}

/// A request that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose it was.
    pub user: usize,
    /// Where it went.
    pub server: SocketAddr,
    /// When.
    pub began: Instant,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// What happened.
    pub what: String,
}

#[derive(Debug, Default)]
struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    wanted: AtomicUsize,
    under_way: AtomicUsize,
    served: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Shared {
    fn note(&self, failure: Failure) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().expect("no test panics while it holds this");
        if failures.len() < MOST_FAILURES {
            failures.push(failure);
        }
    }
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
/// Failures that are kept.
const MOST_FAILURES: usize = 1000;

/// What users ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// Tokens of each prompt, about.
    pub(crate) prompt: usize,
    /// Tokens of each answer.
    pub(crate) answer: u32,
    /// Whether every second user wants the answer as a stream.
    pub(crate) streams: bool,
}

impl Users {
    /// Nobody yet. Each prompt has about `prompt` tokens, each answer `answer`.
    pub fn new(prompt: usize, answer: u32) -> Self {
        Self::wishing(Wish { prompt, answer, streams: false })
    }

    /// The same; every second one wants its answers as streams.
    pub fn with_streams(prompt: usize, answer: u32) -> Self {
        Self::wishing(Wish { prompt, answer, streams: true })
    }

    fn wishing(wish: Wish) -> Self {
        weir_serving::install_crypto_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let shared = Arc::new(Shared::default());
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).build().expect("a client can be made");
        for index in 0..MOST {
            runtime.spawn(user(index, wish, shared.clone(), client.clone()));
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
            failures: self.shared.failures.lock().expect("no test panics while it holds this").clone(),
        }
    }
}

async fn user(index: usize, wish: Wish, shared: Arc<Shared>, client: reqwest::Client) {
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
        let began = Instant::now();
        shared.under_way.fetch_add(1, Ordering::Relaxed);
        match ask(&client, server, (index, turn), wish).await {
            Ok(()) => {
                shared.served.fetch_add(1, Ordering::Relaxed);
            }
            Err((status, what)) => {
                shared.note(Failure { user: index, server, began, status, what });
                // A server that refuses is not to be hammered.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        shared.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nobody asks the same twice: what is remembered of a prompt would cost nothing. A failure with the answer's status, if there was one.
pub(crate) async fn ask(
    client: &reqwest::Client,
    server: SocketAddr,
    who: (usize, usize),
    wish: Wish,
) -> Result<(), (Option<u16>, String)> {
    // A token of the simulated servers is about four characters.
    let prompt = format!("{who:?} ").repeat(wish.prompt.div_ceil(2));
    let stream = wish.streams && who.0 % 2 == 1;
    let body = json!({
        "model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": prompt, "max_tokens": wish.answer, "stream": stream,
    });
    let request =
        client.post(format!("http://{server}/v1/completions")).header("content-type", "application/json").body(body.to_string());
    let response = request.send().await.map_err(|error| (None, format!("{error:?}")))?;
    let status = response.status().as_u16();
    let body = crate::text(response).await.map_err(|error| (Some(status), error))?;
    let whole = if stream { body.ends_with("data: [DONE]\n\n") } else { serde_json::from_str::<Value>(&body).is_ok() };
    if status == 200 && whole { Ok(()) } else { Err((Some(status), format!("status {status}: {body}"))) }
}
