//! A pool that something takes to zero and back, and those who ask for it meanwhile.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_tests::cluster::Cluster;
use weir_tests::workload::{MODEL_PORT, deployment};
use weir_tests::{PATIENCE, installed, kubectl, text};

use super::chart::{POOL, picker_service, role_with, rules_of_autoscalers};
use super::scene::{SERVERS, Scene};

/// What takes a pool to zero and back.
pub(crate) struct Way {
    /// For messages and the namespace.
    pub(crate) name: &'static str,
    /// What is to be installed before, for this namespace.
    pub(crate) install: fn(&Cluster, &str),
    /// What is applied beside the servers: something that scales the Deployment [`SERVERS`] for the pool [`POOL`].
    pub(crate) objects: fn() -> String,
}

/// A Deployment of simulated servers that take so long to start.
pub(crate) fn slow_servers(replicas: usize, start: Duration) -> String {
    let arguments = ["simulate-server".to_owned(), format!("--listen=0.0.0.0:{MODEL_PORT}"), format!("--start-delay={start:?}")];
    let pod = json!({
        "terminationGracePeriodSeconds": 5,
        "containers": [{
            "name": "server", "image": "weir", "args": arguments,
            "readinessProbe": {"httpGet": {"path": "/health", "port": MODEL_PORT}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1000},
        }],
    });
    deployment(SERVERS, replicas, pod).to_string()
}

/// A pool behind a picker and Envoy, in a cluster with weir.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
}

impl Stage {
    /// So many servers, ready, which something is to scale.
    pub(crate) fn new(way: &Way, servers: &str, ready: usize) -> Self {
        let role = role_with(true, &rules_of_autoscalers());
        let scene = Scene::on(installed::shared(), way.name, &role, &[servers.to_owned(), picker_service()], ready, 1);
        scene.reads(ready);
        (way.install)(scene.cluster, &scene.namespace);
        scene.cluster.apply(&scene.namespace, &(way.objects)());
        Self { scene }
    }

    /// Waits until nothing is left of the servers, for the picker either.
    pub(crate) fn is_empty(&self) {
        let scene = &self.scene;
        scene.cluster.wait_for("zero replicas", || {
            scene.cluster.get(&scene.namespace, &format!("deployment/{SERVERS}")).and_then(|deployment| {
                if deployment["spec"]["replicas"] == 0 { Ok(()) } else { Err(format!("{deployment}\n{}", self.why())) }
            })
        });
        scene.cluster.wait_for("no pods", || {
            let pods =
                scene.cluster.get(&scene.namespace, &format!("pods -l app={SERVERS}"))?["items"].as_array().map_or(0, Vec::len);
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        });
        scene.page_until(0, "no endpoints", |page| {
            page.lines().filter(|line| line.starts_with("inference_pool_endpoints{")).all(|line| line.ends_with(" 0.0"))
        });
    }

    /// What the autoscaler says.
    pub(crate) fn why(&self) -> String {
        self.scene.cluster.describe(&self.scene.namespace, "hpa")
    }

    /// Sends so many requests, the first ones with streams; none is waited for.
    pub(crate) fn ask(&self, count: usize, streamed: usize) -> Vec<JoinHandle<Answer>> {
        let ask = |index: usize| {
            let stream = index < streamed;
            let request = self.scene.ask(5, stream).timeout(Duration::from_secs(300));
            self.scene.runtime.spawn(async move {
                let response = request.send().await.unwrap();
                let status = response.status().as_u16();
                let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
                let (retry_after, reason) = (header("retry-after"), header("x-llm-d-request-dropped-reason"));
                let body = text(response).await;
                Answer { stream, status, retry_after, reason, body, at: Instant::now() }
            })
        };
        (0..count).map(ask).collect()
    }

    /// What became of them.
    pub(crate) fn answers(&self, asked: Vec<JoinHandle<Answer>>) -> Vec<Answer> {
        self.scene.runtime.block_on(async {
            let mut answers = Vec::new();
            for answer in asked {
                answers.push(answer.await.unwrap());
            }
            answers
        })
    }

    /// Waits until the picker holds so many.
    pub(crate) fn holds(&self, count: usize) {
        let wanted = format!("inference_pool_held_requests{{name=\"{POOL}\",namespace=\"{}\"}} {count}.0", self.scene.namespace);
        self.scene.page_until(0, &format!("{count} held"), |page| page.lines().any(|line| line == wanted));
    }

    /// Answers that the servers gave, by their own count.
    pub(crate) fn served(&self) -> u64 {
        let pods = self.scene.cluster.ready_pods(&self.scene.namespace, &format!("app={SERVERS}")).unwrap();
        let count = |(_, address): &(String, String)| {
            let page = self.scene.cluster.http(&format!("http://{address}:{MODEL_PORT}/metrics")).unwrap();
            let lines = page.lines().filter(|line| line.starts_with("vllm:request_success_total{"));
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum::<u64>()
        };
        pods.iter().map(count).sum()
    }

    /// How often the picker saw each phase of a start end.
    pub(crate) fn starts(&self) -> BTreeMap<String, u64> {
        let page = self.scene.page(0).unwrap();
        let count = |line: &str| {
            let (labels, count) = line.strip_prefix("inference_pool_cold_start_seconds_count{")?.rsplit_once(' ')?;
            let phase = labels.split("phase=\"").nth(1)?.split('"').next()?;
            Some((phase.to_owned(), count.parse().ok()?))
        };
        page.lines().filter_map(count).collect()
    }

    /// Tells each number of replicas that the Deployment is to have, when it is written.
    pub(crate) fn scales(&self) -> Scales {
        let mut command = Command::new(kubectl());
        command.args([
            "get",
            &format!("deployment/{SERVERS}"),
            "-n",
            &self.scene.namespace,
            "--watch",
            "-o",
            "jsonpath={.spec.replicas}{'\\n'}",
        ]);
        command.env("KUBECONFIG", self.scene.cluster.path("kubeconfig")).stdout(Stdio::piped());
        let mut watch = self.scene.cluster.network().within(|| command.spawn()).unwrap();
        let (sender, told) = channel();
        let output = watch.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        let scales = Scales { watch, told };
        scales.until("0");
        scales
    }
}

/// See [`Stage::scales`].
pub(crate) struct Scales {
    watch: Child,
    told: Receiver<(Instant, String)>,
}

impl Scales {
    /// When the number was first told from now on.
    pub(crate) fn until(&self, replicas: &str) -> Instant {
        loop {
            let (at, told) = self.told.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{replicas} replicas: {error}"));
            if told == replicas {
                return at;
            }
        }
    }
}

impl Drop for Scales {
    fn drop(&mut self) {
        drop(self.watch.kill());
        drop(self.watch.wait());
    }
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) stream: bool,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) body: Result<String, String>,
    /// When it was whole.
    pub(crate) at: Instant,
}

impl Answer {
    /// Whether it is what was asked for, to its end.
    pub(crate) fn is_whole(&self) -> bool {
        let end =
            |body: &String| if self.stream { body.ends_with("data: [DONE]\n\n") } else { body.contains("\"completion_tokens\":5") };
        self.status == 200 && self.body.as_ref().is_ok_and(end)
    }
}
