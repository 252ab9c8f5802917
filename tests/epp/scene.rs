//! Pickers in the control plane, Envoy that asks them, users of Envoy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weir_tests::cluster::Cluster;
use weir_tests::envoy::Envoy;
use weir_tests::workload::{MODEL_PORT, Users, deployment, inference_pool};

use super::chart::{POOL, chart, role};

/// Label `app` of the model servers.
pub(crate) const SERVERS: &str = "model";

/// A namespace with a pool and its pickers, and Envoy in front.
pub(crate) struct Scene {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: String,
    /// Names and addresses of the pickers' pods.
    pub(crate) pickers: Vec<(String, String)>,
    pub(crate) client: reqwest::Client,
    pub(crate) runtime: Runtime,
    envoy: Envoy,
}

impl Scene {
    /// Applies servers, and so many pickers; waits until `ready` servers are Ready, and all pickers.
    pub(crate) fn new(name: &str, servers: &[String], ready: usize, pickers: usize) -> Self {
        Self::on(Cluster::shared(), name, &role(true), servers, ready, pickers)
    }

    /// The same on `cluster`, with this Role of the pickers.
    pub(crate) fn on(cluster: &'static Cluster, name: &str, role: &str, servers: &[String], ready: usize, pickers: usize) -> Self {
        weir_serving::install_crypto_provider();
        let namespace = cluster.namespace(name);
        cluster.apply(&namespace, role);
        cluster.apply(&namespace, &inference_pool(POOL, SERVERS).to_string());
        servers.iter().for_each(|server| cluster.apply(&namespace, server));
        // The page for everybody, and a drain that fits a test.
        cluster.apply(&namespace, &chart(&namespace, pickers, &["--metrics-endpoint-auth=false", "--drain-timeout=4s"]));
        cluster.wait_for_pods(&namespace, &format!("app={SERVERS}"), ready);
        let pickers = cluster.wait_for_pods(&namespace, "app=epp", pickers);
        let addresses: Vec<SocketAddr> = pickers.iter().map(|(_, ip)| SocketAddr::new(ip.parse().unwrap(), 9002)).collect();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let envoy = Envoy::start(&namespace, &addresses, &[nobody]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        Self { cluster, namespace, pickers, client, runtime, envoy }
    }

    /// Waits until every picker reads so many servers.
    pub(crate) fn reads(&self, servers: usize) {
        let series =
            format!("inference_pool_endpoints{{name=\"{POOL}\",namespace=\"{}\",state=\"fresh\"}} {servers}", self.namespace);
        for picker in 0..self.pickers.len() {
            self.page_until(picker, &format!("{servers} servers read"), |page| page.lines().any(|line| line.starts_with(&series)));
        }
    }

    /// The page of this picker.
    pub(crate) fn page(&self, picker: usize) -> Result<String, String> {
        self.cluster.http(&format!("http://{}:9090/metrics", self.pickers[picker].1))
    }

    /// Waits until the page of this picker is as wanted.
    pub(crate) fn page_until(&self, picker: usize, what: &str, wanted: impl Fn(&str) -> bool) {
        self.cluster.wait_for(what, || match self.page(picker)? {
            page if wanted(&page) => Ok(()),
            page => Err(page),
        });
    }

    /// Requests that this picker sent to each server that is there, by pod.
    pub(crate) fn attempts(&self, picker: usize) -> Result<BTreeMap<String, u64>, String> {
        Ok(attempts(&self.page(picker)?))
    }

    /// What this picker's process wrote.
    pub(crate) fn log(&self, picker: usize) -> String {
        self.cluster.logs(&self.namespace, &self.pickers[picker].0, "epp").unwrap_or_else(|error| error)
    }

    /// Where users go.
    pub(crate) fn gateway(&self) -> SocketAddr {
        self.envoy.address("original").parse().unwrap()
    }

    /// So many users with short prompts and answers of so many tokens, every second one with streams, once 50 requests went well.
    pub(crate) fn users(&self, count: usize, answer: u32) -> Users {
        let users = Users::with_streams(20, answer);
        users.servers(vec![self.gateway()]);
        users.in_flight(count);
        self.served(&users, 50);
        users
    }

    /// Waits until the users were given so many answers more.
    pub(crate) fn served(&self, users: &Users, more: u64) {
        let before = users.outcomes().served;
        self.cluster.wait_for("answers", || match users.outcomes() {
            outcomes if outcomes.served >= before + more => Ok(()),
            outcomes => Err(format!("{outcomes:?}\n{}\n{}", self.envoy.output(), self.log(0))),
        });
    }

    /// The answer to a request for a completion of so many tokens, as far as its headers.
    pub(crate) fn answer(&self, tokens: u32, stream: bool) -> reqwest::Response {
        self.runtime.block_on(async { self.ask(tokens, stream).send().await.unwrap() })
    }

    /// A request for a completion of so many tokens.
    pub(crate) fn ask(&self, tokens: u32, stream: bool) -> reqwest::RequestBuilder {
        let body = json!({"model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": "who?", "max_tokens": tokens, "stream": stream});
        let request = self.client.post(format!("http://{}/v1/completions", self.gateway()));
        request.header("content-type", "application/json").body(body.to_string())
    }
}

/// Requests sent to each pod, by the page of a picker.
pub(crate) fn attempts(page: &str) -> BTreeMap<String, u64> {
    let mut by_pod = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("inference_extension_scheduler_attempts_total{status=\"success\"")) {
        let pod = line.split("pod_name=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        *by_pod.entry(pod.to_owned()).or_default() += line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    }
    by_pod
}

/// A Deployment of simulated model servers that go as upstream's guides want it: a pod that terminates first waits for those who
/// send requests to hear of it (`preStop` sleep), then accepts no more and ends what it has.
pub(crate) fn graceful_servers(replicas: usize) -> String {
    let listen = format!("--listen=0.0.0.0:{MODEL_PORT}");
    let pod: Value = json!({
        "terminationGracePeriodSeconds": 30,
        "containers": [{
            "name": "server", "image": "weir", "args": ["simulate-server", listen],
            "readinessProbe": {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5},
            "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
        }],
    });
    deployment(SERVERS, replicas, pod).to_string()
}
