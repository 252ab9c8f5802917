//! A pool with a real picker behind a real Envoy: what users see while it sleeps and wakes.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use weir_tests::text;

use super::chart::{POOL, picker_service};
use super::park::{asks, autoscaler, managers, replicas_watch};
use super::scene::{SERVERS, Scene, graceful_servers};

/// Requests that wake it, half of them streams.
const REQUESTS: usize = 10;

/// The pool, its picker and its users.
pub(crate) struct Picked {
    pub(crate) scene: Scene,
}

impl Picked {
    pub(crate) fn new(name: &str) -> Self {
        let scene = Scene::new(name, &[graceful_servers(1)], 1, 1);
        scene.cluster.apply(&scene.namespace, &picker_service());
        let pool = format!("inferencepools.inference.networking.k8s.io/{POOL}");
        scene.cluster.kubectl(&["annotate", &pool, "weir.internal/hold=true", "-n", &scene.namespace]).unwrap();
        scene.reads(1);
        Self { scene }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.scene.namespace
    }

    pub(crate) fn replicas(&self) -> Result<u64, String> {
        let deployment = self.scene.cluster.get(&self.scene.namespace, &format!("deployment/{SERVERS}"))?;
        deployment["spec"]["replicas"].as_u64().ok_or_else(|| deployment.to_string())
    }

    /// Waits until it is at zero, its pods gone.
    pub(crate) fn sleeps(&self) {
        let scene = &self.scene;
        scene.cluster.wait_for("zero", || match self.replicas()? {
            0 => Ok(()),
            replicas => Err(format!(
                "{replicas}\n{}\n{}",
                scene.cluster.describe(&scene.namespace, "hpa"),
                super::park::relevant_logs(scene.cluster)
            )),
        });
        scene.cluster.wait_for("no pods", || {
            let pods =
                scene.cluster.get(&scene.namespace, &format!("pods -l app={SERVERS}"))?["items"].as_array().map_or(0, Vec::len);
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        });
        // The picker has seen them go too: what comes now is held.
        scene.reads(0);
    }

    /// One request that nobody can serve yet.
    pub(crate) fn ask(&self, stream: bool) -> tokio::task::JoinHandle<Result<String, String>> {
        // Kubernetes' own controllers take up to half a minute to follow an API server that was away.
        let request = self.scene.ask(3, stream).timeout(Duration::from_secs(150));
        self.scene.runtime.spawn(async move {
            let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
            let status = answer.status();
            let body = text(answer).await?;
            let whole = if stream { body.ends_with("data: [DONE]\n\n") } else { body.contains("\"completion_tokens\":3") };
            if status == 200 && whole { Ok(body) } else { Err(format!("{status}: {body}")) }
        })
    }

    pub(crate) fn answered(&self, requests: Vec<tokio::task::JoinHandle<Result<String, String>>>) {
        for request in requests {
            let answer = self.scene.runtime.block_on(request).unwrap();
            assert!(answer.is_ok(), "{answer:?}\n{}\n{}", self.scene.log(0), super::park::relevant_logs(self.scene.cluster));
        }
    }

    pub(crate) fn sleeps_and_wakes(&self) {
        let (scene, namespace) = (&self.scene, &self.scene.namespace);
        // A stream runs for longer than idle-after: it is not cut.
        let mut annotations = asks();
        annotations["weir.internal/wake-replicas"] = json!("2");
        let mut stream = scene.answer(600, true);
        assert!(scene.runtime.block_on(stream.chunk()).unwrap().is_some());
        let began = Instant::now();
        scene.cluster.apply(namespace, &autoscaler(SERVERS, SERVERS, annotations, 1).to_string());
        let rest = scene.runtime.block_on(text(stream)).unwrap();
        assert!(rest.ends_with("data: [DONE]\n\n"), "the stream was cut: {rest}");
        eprintln!("a stream of {:.1?} was served to its end", began.elapsed());
        assert_eq!(self.replicas(), Ok(1));

        self.sleeps();
        eprintln!("at zero with all pods gone {:.1?} after the end of the stream began to count", began.elapsed());
        assert_eq!(managers(scene.cluster, namespace, SERVERS), ["weir-scaler Apply scale"]);
        let watch = replicas_watch(scene.cluster, namespace, SERVERS);
        watch.line("the present state", |line| line == "replicas 0");
        let held = Instant::now();
        let requests: Vec<_> = (0..REQUESTS).map(|index| self.ask(index % 2 == 0)).collect();
        watch.line("the wake", |line| line == "replicas 2");
        let written = held.elapsed();
        eprintln!("wake: spec.replicas changed {} ms after the first of {REQUESTS} requests was sent", written.as_millis());
        self.answered(requests);
        eprintln!("all {REQUESTS} answered {:.1?} after they were sent", held.elapsed());
        scene.cluster.wait_for_pods(namespace, &format!("app={SERVERS}"), 2);
        scene.cluster.wait_for("the Events", || {
            let events = scene.cluster.describe(namespace, &format!("hpa/{SERVERS}"));
            let all = ["ScaledToZero", "from 1 to 0: pool", "Woken", "from 0 to 2:"].iter().all(|words| events.contains(words));
            if all { Ok(()) } else { Err(events) }
        });
    }
}
