//! `weir explain hpa` beside the real controller: many autoscalers in many situations, each explained just before the controller's turn,
//! and then compared with what the controller did in that turn.
//!
//! The pods run nothing; the test itself answers at their addresses, so that every load is exactly what the situation wants. What the
//! controller did, and in which turn, is read off the API server's audit log.

#![allow(clippy::unwrap_used)]

#[path = "explained/servers.rs"]
mod servers;
#[path = "explained/situations.rs"]
mod situations;
#[path = "explained/turns.rs"]
mod turns;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Options, skipped};
use weir_tests::workload::inference_pool;
use weir_tests::{Folder, installed};

use self::servers::{Load, Servers};
use self::situations::{ByHand, LOADS, PHASES, Situation, situations};
use self::turns::{Turns, policy};

/// At least so many situations are shown.
const ENOUGH: usize = 30;

struct Scene {
    cluster: Cluster,
    namespace: String,
    servers: Servers,
    turns: Turns,
    _folder: Folder,
}

impl Scene {
    fn new(all: &[Situation]) -> Self {
        let folder = Folder::new("explained");
        let policy = folder.write("policy.json", &policy());
        let log = folder.file("audit.log");
        let options = Options {
            // As the controller's own defaults are.
            hpa_sync: std::time::Duration::from_secs(15),
            controller_manager_arguments: vec!["--horizontal-pod-autoscaler-downscale-stabilization=5m".into()],
            apiserver_arguments: vec![
                format!("--audit-policy-file={}", policy.display()),
                format!("--audit-log-path={}", log.display()),
            ],
            ..Options::default()
        };
        let cluster = Cluster::start(&options);
        installed::by_kustomize(&cluster);
        let namespace = cluster.namespace("explained");
        let servers = Servers::start();
        let scene = Self { cluster, namespace, servers, turns: Turns::new(log), _folder: folder };
        scene.pools(all);
        scene.targets(all);
        scene
    }

    fn list(&self, items: Vec<Value>) {
        self.cluster.apply(&self.namespace, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    }

    /// The pools with their servers, and those over a situation's own pods.
    fn pools(&self, all: &[Situation]) {
        let mut items = Vec::new();
        for pool in LOADS {
            items.push(inference_pool(pool.name, pool.name));
            for number in 0..pool.servers {
                items.push(pod(&format!("{}-{number}", pool.name), pool.name));
            }
        }
        items.extend(all.iter().filter(|situation| !situation.own_load.is_empty()).map(|one| inference_pool(one.name, one.name)));
        self.list(items);
        for pool in LOADS {
            let pods = self.cluster.wait_for_pods(&self.namespace, &format!("app={}", pool.name), pool.servers);
            for (_, address) in pods {
                self.servers.answer(&address, (pool.load)(0));
            }
        }
    }

    /// What is scaled: Deployments of the wanted sizes, some of their pods not ready.
    fn targets(&self, all: &[Situation]) {
        self.list(all.iter().filter(|situation| situation.target == situation.name).map(Situation::deployment).collect());
        self.settled(all);
        for situation in all {
            let pods = self.cluster.ready_pods(&self.namespace, &format!("app={}", situation.target)).unwrap();
            for (pod, _) in pods.iter().take(situation.unready) {
                self.annotate(pod, "test.weir/ready=false");
            }
            for ((_, address), load) in pods.iter().zip(&situation.own_load) {
                self.servers.answer(address, Some(*load));
            }
        }
    }

    fn annotate(&self, pod: &str, annotation: &str) {
        self.cluster.kubectl(&["annotate", "pod", pod, "-n", &self.namespace, "--overwrite", annotation]).unwrap();
    }

    /// Waits until every Deployment has the pods that are asked for, and they are as ready as they will be.
    fn settled(&self, all: &[Situation]) {
        self.cluster.wait_for("the pods of all targets", || {
            let mut mute: BTreeMap<String, u64> = BTreeMap::new();
            for pod in self.cluster.get(&self.namespace, "pods")?["items"].as_array().into_iter().flatten() {
                let metadata = &pod["metadata"];
                if metadata["annotations"]["test.weir/ready"] == "false" && metadata["deletionTimestamp"].is_null() {
                    *mute.entry(metadata["labels"]["app"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
                }
            }
            let deployments = self.cluster.get(&self.namespace, "deployments")?;
            for deployment in deployments["items"].as_array().into_iter().flatten() {
                let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
                let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or_default();
                let status = &deployment["status"];
                let count = |field: &str| status[field].as_u64().unwrap_or_default();
                let ready = wanted.saturating_sub(mute.get(name).copied().unwrap_or_default());
                let all_there = count("replicas") == wanted && count("readyReplicas") == ready;
                if !all_there || status["observedGeneration"] != deployment["metadata"]["generation"] {
                    return Err(format!("{name}: {wanted} wanted, {ready} ready: {status}"));
                }
            }
            let count = deployments["items"].as_array().map_or(0, Vec::len);
            let expected = all.iter().filter(|situation| situation.target == situation.name).count();
            if count == expected { Ok(()) } else { Err(format!("{count} of {expected} Deployments")) }
        });
    }

    /// Waits until the metrics API answers as the phase wants it.
    fn measured(&self, phase: usize) {
        for pool in LOADS {
            let metric = "inference_pool_total_inflight_requests";
            self.cluster.wait_for(&format!("the load of {}", pool.name), || {
                let value = installed::external(&self.cluster, &self.namespace, metric, pool.name);
                let load = (pool.load)(phase);
                let wanted = load.map(|load| (load.running + load.waiting) as i64 * 1000 * pool.servers as i64);
                if value.clone().ok() == wanted { Ok(()) } else { Err(format!("{value:?}, not {wanted:?}")) }
            });
        }
    }

    /// The pools' loads of a phase, and what is done by hand before it.
    fn begin(&self, phase: usize, all: &[Situation]) {
        for pool in LOADS {
            for (_, address) in self.cluster.ready_pods(&self.namespace, &format!("app={}", pool.name)).unwrap() {
                self.servers.answer(&address, (pool.load)(phase));
            }
        }
        for situation in all {
            match situation.by_hand.filter(|(at, _)| *at == phase) {
                Some((_, ByHand::Scale(replicas))) => {
                    let replicas = format!("--replicas={replicas}");
                    self.cluster.kubectl(&["scale", "deployment", situation.target, &replicas, "-n", &self.namespace]).unwrap();
                }
                Some((_, ByHand::Unready(count))) => {
                    let pods = self.cluster.ready_pods(&self.namespace, &format!("app={}", situation.target)).unwrap();
                    for (pod, _) in pods.iter().take(count) {
                        self.annotate(pod, "test.weir/ready=false");
                    }
                }
                None => {}
            }
        }
        self.measured(phase);
        self.settled(all);
    }

    /// Every autoscaler's explanation, by name.
    fn explained(&self) -> BTreeMap<String, Value> {
        let kubeconfig = self.cluster.path("kubeconfig").display().to_string();
        let mut command = Command::new(weir_tests::weir());
        command.args(["explain", "hpa", "-o", "json", "--kubeconfig", &kubeconfig, "-n", &self.namespace]).stdin(Stdio::null());
        let output = self.cluster.network().within(|| command.output()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let before = format!("HorizontalPodAutoscaler {}/", self.namespace);
        let named = |one: &Value| Some((one["object"].as_str()?.strip_prefix(&before)?.to_owned(), one.clone()));
        told["explanations"].as_array().unwrap().iter().map(|one| named(one).unwrap_or_else(|| panic!("{one}"))).collect()
    }
}

/// A server's pod: it runs nothing, the test answers for it.
fn pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "server", "image": "pause"}]},
    })
}

/// What was foreseen of a turn.
struct Foreseen {
    situation: &'static str,
    phase: usize,
    /// How many turns the autoscaler's target had seen.
    turn: usize,
    explanation: Value,
    wanted: u32,
}

impl Foreseen {
    /// What is wrong with it, once it is known what was done: none where all agree.
    fn differs(&self, done: Option<u32>) -> Option<String> {
        let prediction = &self.explanation["prediction"];
        let current = prediction["current"].as_u64().unwrap_or_default();
        let did = done.map_or(current, u64::from);
        let next = prediction["next"].as_u64().unwrap_or_default();
        if next == did && did == u64::from(self.wanted) {
            return None;
        }
        let lines: Vec<_> = self.explanation["lines"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        Some(format!(
            "{} in phase {}: explained {next}, done {did}, meant {}\n{}\n{prediction:#}",
            self.situation,
            self.phase,
            self.wanted,
            lines.join("\n")
        ))
    }
}

#[test]
fn the_real_controller_does_what_was_explained() {
    if skipped("weir explain beside the controller") {
        return;
    }
    let began = SystemTime::now();
    let all = situations();
    let scene = Scene::new(&all);
    scene.measured(0);
    scene.settled(&all);
    eprintln!("explained: {} situations are set up after {:.1?}", all.len(), began.elapsed().unwrap());

    // The controller is away while its autoscalers are made: so that its very first turn can be foreseen.
    scene.cluster.command("stop kube-controller-manager");
    scene.list(all.iter().map(Situation::autoscaler).collect());
    let (mut foreseen, mut wrong, mut late) = (Vec::new(), Vec::new(), 0);
    for phase in 0..PHASES {
        if phase > 0 {
            scene.cluster.wait_for("every autoscaler's turn", || scene.turns.at_least(phase, &all));
            scene.begin(phase, &all);
        }
        let before = scene.turns.counts();
        let explained = scene.explained();
        let after = scene.turns.counts();
        for situation in &all {
            let Some(wanted) = situation.next[phase] else { continue };
            let count = |turns: &BTreeMap<String, usize>| turns.get(situation.target).copied().unwrap_or_default();
            let rivals = all.iter().filter(|other| other.target == situation.target).count();
            // On a machine that is busy otherwise a turn may come before the explanation: then nothing is foreseen.
            if count(&before) != count(&after) || count(&before) != phase * rivals {
                late += 1;
                continue;
            }
            let explanation =
                explained.get(situation.name).unwrap_or_else(|| panic!("{} is not explained", situation.name)).clone();
            let is_sure = explanation["prediction"]["otherwise"].as_array().is_some_and(Vec::is_empty);
            if is_sure == situation.unsure.contains(&phase) {
                wrong.push(format!("{} in phase {phase}: sure {is_sure}: {explanation:#}", situation.name));
            }
            foreseen.push(Foreseen { situation: situation.name, phase, turn: count(&after), explanation, wanted });
        }
        if phase == 0 {
            scene.cluster.command("start kube-controller-manager");
        }
        eprintln!("explained: phase {phase} is foreseen after {:.1?}", began.elapsed().unwrap());
    }
    // A turn is over when the next begins.
    scene.cluster.wait_for("the last turn", || scene.turns.at_least(PHASES + 1, &all));
    let done = scene.turns.decisions();
    let by_name: BTreeMap<&str, &Situation> = all.iter().map(|situation| (situation.name, situation)).collect();
    wrong.extend(foreseen.iter().filter_map(|one| one.differs(done[by_name[one.situation].target][one.turn])));
    let shown = foreseen.iter().map(|one| one.situation).collect::<std::collections::BTreeSet<_>>().len();
    eprintln!(
        "explained: {} turns of {shown} autoscalers foreseen, {} otherwise, {late} too late to be foreseen, in {:.1?}",
        foreseen.len(),
        wrong.len(),
        began.elapsed().unwrap()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(shown >= ENOUGH);
}
