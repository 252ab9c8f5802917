//! What is around Envoy: `weir bbr`, pools of simulated servers with a picker each, and a server that tells what came.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use tokio::net::TcpListener;
use weir_tests::envoy::{Envoy, endpoints};
use weir_tests::{Folder, Process, eventually, get, weir};

/// The address that a log line gives for `name`.
fn address(line: &str, name: &str) -> SocketAddr {
    let after = line.split(&format!(" {name}=")).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
    after.split(' ').next().unwrap().parse().unwrap()
}

/// Flags of both programs that make them listen on free ports of the loopback.
const LISTEN: [&str; 8] = ["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"];

/// Runs what blocks, and has a runtime of its own, on another thread.
fn beside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// A `weir bbr` or `weir epp` that runs.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) ext_proc: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Running {
    fn start(program: &str, arguments: &[String]) -> Self {
        let mut command = Command::new(weir());
        command.arg(program).args(LISTEN).args(arguments);
        let process = Process::start(command);
        let line = process.line("where it listens", |line| line.contains(" ext_proc="));
        let (ext_proc, health, metrics) = (address(&line, "ext_proc"), address(&line, "health"), address(&line, "metrics"));
        let url = format!("http://{metrics}/readyz");
        eventually("ready", || match get(&url)? {
            answer if answer == "ok" => Ok(()),
            answer => Err(answer),
        });
        Self { process, ext_proc, health, metrics }
    }

    /// `weir bbr` with these rules.
    pub(crate) fn router(rules: &std::path::Path, more: &[&str]) -> Self {
        let mut arguments = vec!["--rules".to_owned(), rules.display().to_string()];
        arguments.extend(more.iter().map(ToString::to_string));
        Self::start("bbr", &arguments)
    }

    pub(crate) fn page(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics);
        beside(|| get(&url).unwrap())
    }

    /// Waits until its page has a line that begins so.
    pub(crate) fn page_until(&self, line: &str) {
        let url = format!("http://{}/metrics", self.metrics);
        beside(|| {
            eventually(line, || {
                let page = get(&url)?;
                if page.lines().any(|known| known.starts_with(line)) { Ok(()) } else { Err(page) }
            });
        });
    }
}

/// Simulated servers of one model, and their picker.
pub(crate) struct Pool {
    pub(crate) name: &'static str,
    pub(crate) servers: Vec<(Process, SocketAddr)>,
    pub(crate) picker: Running,
    _folder: Folder,
}

impl Pool {
    /// So many servers, each a process of its own, that serve `model` and `adapters`, and a picker with these flags.
    pub(crate) fn start(name: &'static str, model: &str, adapters: &[&str], servers: usize, flags: &[&str]) -> Self {
        let folder = Folder::new(&format!("bbr-pool-{name}"));
        let server = |index: usize| {
            let name = format!("{name}-{index}");
            let mut arguments = vec!["simulate-server", "--listen", "127.0.0.1:0", "--model", model, "--name", &name];
            arguments.extend(adapters.iter().flat_map(|adapter| ["--lora", adapter]));
            let process = Process::weir(&arguments);
            let line = process.line("an address", |line| line.contains(" http://"));
            (process, line.rsplit("//").next().unwrap().parse().unwrap())
        };
        let servers: Vec<(Process, SocketAddr)> = (0..servers).map(server).collect();
        let listed: Vec<String> = servers.iter().map(|(_, address)| format!("\"{address}\"")).collect();
        let pools = format!("apiVersion: weir/v1\npools:\n- name: {name}\n  endpoints: [{}]\n", listed.join(", "));
        let mut arguments = vec!["--pools".to_owned(), folder.write("pools.yaml", &pools).display().to_string()];
        arguments.push("--hold-empty=never".to_owned());
        arguments.extend(flags.iter().map(ToString::to_string));
        let picker = Running::start("epp", &arguments);
        if !servers.is_empty() {
            let count = servers.len();
            picker
                .page_until(&format!("inference_pool_endpoints{{name=\"{name}\",namespace=\"default\",state=\"fresh\"}} {count}"));
        }
        Self { name, servers, picker, _folder: folder }
    }
}

/// What reached the server that tells.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        Some(String::from_utf8_lossy(self.headers.get(name)?.as_bytes()).into_owned())
    }
}

type Log = Arc<Mutex<Vec<Received>>>;

async fn tell(State(log): State<Log>, request: Request) -> &'static str {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap();
    log.lock().unwrap().push(Received { headers: parts.headers, body });
    "told"
}

/// Envoy with body-based routing, and what is behind it.
pub(crate) struct Scene {
    pub(crate) client: reqwest::Client,
    pub(crate) pools: Vec<Pool>,
    pub(crate) router: Running,
    envoy: Envoy,
    log: Log,
    rules: PathBuf,
    _folder: Folder,
}

impl Scene {
    /// With these rules and pools; routes to pools that are not there have a picker that nobody is.
    pub(crate) async fn start(name: &'static str, rules: &str, pools: impl FnOnce() -> Vec<Pool> + Send + 'static) -> Self {
        weir_serving::install_crypto_provider();
        let log = Log::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let telling = listener.local_addr().unwrap();
        let server = Router::new().fallback(tell).with_state(Arc::clone(&log));
        tokio::spawn(async move { axum::serve(listener, server).await });
        let folder = Folder::new(&format!("bbr-{name}"));
        let rules = folder.write("rules.yaml", &format!("apiVersion: weir/v1\n{rules}"));
        let file = rules.clone();
        let started = tokio::task::spawn_blocking(move || {
            let router = Running::router(&file, &["--streaming"]);
            let pools = pools();
            let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
            let picker = |name: &str| pools.iter().find(|pool| pool.name == name).map_or(nobody, |pool| pool.picker.ext_proc);
            let mut config = include_str!("gateway.yaml").replace("TELLING", &endpoints(&[telling]));
            config = config.replace("ROUTER", &endpoints(&[router.ext_proc]));
            let ordered = pools.iter().find(|pool| pool.name == "ordered");
            let ordered: Vec<SocketAddr> = ordered.map_or(vec![nobody], |pool| pool.servers.iter().map(|(_, at)| *at).collect());
            config = config.replace("ORDERED", &endpoints(&ordered));
            for (place, name) in [
                ("LLAMA", "llama"),
                ("SMALL", "small"),
                ("LARGE", "large"),
                ("STABLE", "stable"),
                ("CANARY", "canary"),
                ("SEVERAL", "ordered"),
                ("NOBODY", "nobody"),
            ] {
                config = config.replace(place, &endpoints(&[picker(name)]));
            }
            let envoy = Envoy::with_config(&format!("bbr-{name}"), &config, 3);
            (router, pools, envoy)
        });
        let (router, pools, envoy) = started.await.unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { client, pools, router, envoy, log, rules, _folder: folder }
    }

    /// Posts a JSON body.
    pub(crate) fn post(&self, listener: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let url = format!("http://{}/v1/completions", self.envoy.address(listener));
        self.client.post(url).header("content-type", "application/json").body(body)
    }

    /// A request for a completion by `model`: the status, the replica that answered, the model that it says it is, the answer.
    pub(crate) async fn ask(&self, model: &str, prompt: &str) -> (u16, String, String, reqwest::header::HeaderMap, String) {
        let body = serde_json::json!({ "model": model, "prompt": prompt, "max_tokens": 1 });
        let answer = self.post("routed", body.to_string()).send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let pod = headers.get("x-inference-pod").map_or("", |pod| pod.to_str().unwrap());
        // A process of one replica calls it its first.
        let pod = pod.strip_suffix("-0").unwrap_or(pod).to_owned();
        let text = weir_tests::text(answer).await.unwrap();
        let model = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()["model"].as_str().unwrap_or("").to_owned();
        (status, pod, model, headers, text)
    }

    /// What reached the server that tells since the last time.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Writes other rules.
    pub(crate) fn rules(&self, rules: &str) {
        std::fs::write(&self.rules, format!("apiVersion: weir/v1\n{rules}")).unwrap();
    }
}
