//! What `weir simulate` says of a load that was recorded, beside what the real HorizontalPodAutoscaler did with it.
//!
//! A pool of simulated servers that take seconds to start, behind weir's picker; the metric `inference_pool_required_replicas` by weir as it
//! is installed; the controller of Kubernetes, every two seconds. Beside them an exporter records what arrives. The trace is then
//! replayed with the same autoscaler, servers and start time, and both curves are compared.

#![allow(clippy::unwrap_used)]

// Its pods without processes are for other tests.
#[allow(dead_code)]
#[path = "epp/chart.rs"]
mod chart;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use weir_tests::arrivals::{Arrivals, Phase};
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::workload::{inference_pool, model_servers, picker_service};
use weir_tests::{Folder, Process, address, installed, repository, run, weir};

use chart::{POOL, chart, role};

/// What a server loads for. With creation, probes and the picker's own look it takes two seconds more until requests come.
const LOADS: &str = "--start-delay=10s";
const STARTS: &str = "12s";
/// Tokens of each prompt and answer: a replica of the profile `small` does about three and a half of them a second.
const PROMPT: usize = 50;
const ANSWER: u32 = 40;
/// How far the curves may be apart: seconds of each step, and replicas of the highest and last number.
const SECONDS_APART: f64 = 15.0;
const REPLICAS_APART: i64 = 1;
/// Between two looks at the Deployment.
const LOOK: Duration = Duration::from_millis(250);

/// The tests share a cluster and the machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From which second on how many replicas were asked for.
type Steps = Vec<(f64, i64)>;

/// The example for required replicas, for this pool; with another scale-down window if given.
fn autoscaler(window: Option<u32>) -> String {
    let example = std::fs::read_to_string(repository().join("hpa-examples/required-replicas.yaml")).unwrap();
    let example = example.replace("vllm-llama3", POOL);
    match window {
        Some(window) => {
            let changed = example.replace("stabilizationWindowSeconds: 300", &format!("stabilizationWindowSeconds: {window}"));
            assert_ne!(changed, example, "the example has another form");
            changed
        }
        None => example,
    }
}

/// What an earlier day has taught: a server that starts in 12 s and does 3.5 such requests a second.
fn learned() -> Value {
    json!({
        "version": 1, "fingerprint": "vllm:meta-llama/Llama-3.1-8B-Instruct", "secondsPerPromptToken": 0.0007,
        "secondsPerGeneratedToken": 0.0063, "samples": 20, "busySeconds": 600.0, "healthyTokensPerSecond": 0.0, "startSeconds": 12.0,
        "starts": 20, "promptTokens": 56.0, "outputTokens": 40.0,
    })
}

/// Runs the load, and gives what the autoscaler did and what is predicted from the record of it.
fn compare(name: &str, phases: &[Phase], window: Option<u32>) -> (Steps, Steps) {
    let _alone = alone();
    let cluster = installed::shared();
    let namespace = cluster.namespace(name);
    let kept = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "weir-learned"},
                      "data": {format!("{namespace}.{POOL}"): learned().to_string()}});
    cluster.apply(installed::NAMESPACE, &kept.to_string());
    cluster.apply(&namespace, &role(true));
    cluster.apply(&namespace, &model_servers(POOL, 1, &["--profile=small", LOADS]));
    cluster.apply(&namespace, &inference_pool(POOL, POOL).to_string());
    cluster.apply(&namespace, &picker_service(&format!("{POOL}-epp")).to_string());
    let picker = ["--metrics-endpoint-auth=false", "--drain-timeout=4s", "--http=0.0.0.0:8080"];
    cluster.apply(&namespace, &chart(&namespace, 1, &picker));
    let autoscaler = autoscaler(window);
    cluster.apply(&namespace, &autoscaler);
    cluster.wait_for_pods(&namespace, &format!("app={POOL}"), 1);
    let pickers = cluster.wait_for_pods(&namespace, "app=epp", 1);
    cluster.wait_for("a number", || installed::external(cluster, &namespace, "inference_pool_required_replicas", POOL));

    let folder = Folder::new(name);
    let trace = folder.file("trace.csv");
    let kept = folder.write("kept.json", &json!({format!("{namespace}.{POOL}"): learned()}).to_string());
    let recorder = recorder(cluster, &namespace, &trace, &kept);
    let exporter = address(&recorder.line("where it serves", |line| line.contains(" serving ")));
    let began = cluster.wait_for("the recording", || began(&trace));
    let load = Arrivals::start(vec![SocketAddr::new(pickers[0].1.parse().unwrap(), 8080)], phases, PROMPT, ANSWER);
    let real = watched(cluster, &namespace, began, &load, phases.iter().map(|phase| phase.seconds).sum());
    cluster.wait_for("arrivals that the picker counts, and known costs", || basis(cluster, &namespace, &exporter));
    let (ended_well, output) = recorder.terminate();
    assert!(ended_well, "{output}");
    let text = std::fs::read_to_string(&trace).unwrap();
    assert!(text.contains("requests as the pickers count them when they come"), "{text}");
    let recorded = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())).count();
    let sent = load.sent().len();
    eprintln!("{recorded} requests recorded, {sent} sent");
    assert!(recorded.abs_diff(sent) * 20 <= sent, "{recorded} recorded, {sent} sent");
    drop(load);

    let predicted = predicted(&folder, &trace, &autoscaler);
    let last = phases.iter().map(|phase| phase.seconds).sum::<f64>() + real.first().map_or(0.0, |step| step.0);
    let predicted = predicted.into_iter().filter(|step| step.0 <= last).collect();
    show(name, &real, &predicted);
    cluster.kubectl(&["delete", "deployment", POOL, "epp", "-n", &namespace]).unwrap();
    (real, predicted)
}

/// An exporter for this namespace that records what arrives.
fn recorder(cluster: &Cluster, namespace: &str, trace: &Path, kept: &Path) -> Process {
    let mut command = Command::new(weir());
    command.args(["exporter", "--namespace", namespace, "--exporter-listen", "127.0.0.1:0", "--exporter-access", "everyone"]);
    command.arg("--kubeconfig").arg(cluster.path("kubeconfig")).arg("--record").arg(trace).arg("--learned").arg(kept);
    cluster.network().within(|| Process::start(command))
}

/// When a trace began, since the Unix epoch.
fn began(trace: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(trace).map_err(|error| error.to_string())?;
    // The second reading is what the first number comes from.
    let since = text.split("seconds since ").nth(1).filter(|_| text.contains("requests as")).ok_or("nothing yet")?;
    since.split(' ').next().and_then(|since| since.parse().ok()).ok_or(text.clone())
}

/// What the recording weir's own number rests on.
fn basis(cluster: &Cluster, namespace: &str, exporter: &str) -> Result<(), String> {
    let demand = cluster.http(&format!("http://{exporter}/api/v1/pools/{namespace}/{POOL}/demand"))?;
    let shown: Value = serde_json::from_str(&demand).map_err(|error| format!("{error}: {demand}"))?;
    if shown["basis"]["kind"] == "full" { Ok(()) } else { Err(demand) }
}

/// Looks at what is asked for until the load ends.
fn watched(cluster: &Cluster, namespace: &str, began: f64, load: &Arrivals, seconds: f64) -> Steps {
    let mut steps = Steps::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - began;
    let end = now() + seconds;
    while now() < end {
        let replicas = cluster.kubectl(&["get", "deployment", POOL, "-n", namespace, "-o", "jsonpath={.spec.replicas}"]);
        let replicas: i64 = replicas.unwrap().parse().unwrap();
        if steps.last().is_none_or(|(_, last)| *last != replicas) {
            steps.push((now(), replicas));
        }
        // The outside world has no event to wait for: look again soon.
        std::thread::sleep(LOOK);
    }
    let (served, failed) = load.ended();
    eprintln!("{served} requests served, {failed} not");
    assert!(served > 0 && failed * 20 <= served, "{:?}", load.all_ended());
    steps
}

/// What the replay says.
fn predicted(folder: &Folder, trace: &Path, autoscaler: &str) -> Steps {
    let hpa = folder.write("hpa.yaml", autoscaler);
    let learned = folder.write("learned.json", &learned().to_string());
    let out = folder.file("out.json");
    let path = |path: &Path| path.display().to_string();
    let output = run(&[
        "simulate",
        "--trace",
        &path(trace),
        "--hpa",
        &path(&hpa),
        "--servers",
        "played-small",
        "--start",
        STARTS,
        "--start-spread",
        "0",
        "--sync",
        "2s",
        "--replicas",
        "1",
        "--learned",
        &path(&learned),
        "--json",
        &path(&out),
    ]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{printed}");
    let replay: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let policy = replay["policies"].as_array().unwrap().iter().find(|policy| policy["name"] == "hpa").unwrap();
    let steps = policy["steps"].as_array().unwrap().iter();
    steps.map(|step| (step[0].as_f64().unwrap(), step[1].as_i64().unwrap())).collect()
}

fn show(name: &str, real: &Steps, predicted: &Steps) {
    eprintln!("{name}: replicas asked for, by the second of the recording");
    let line = |steps: &Steps| steps.iter().map(|(at, replicas)| format!("{at:.0} s: {replicas}")).collect::<Vec<_>>().join(", ");
    eprintln!("  the HPA   {}\n  the replay {}", line(real), line(predicted));
}

fn highest(steps: &Steps) -> i64 {
    steps.iter().map(|step| step.1).max().unwrap()
}

/// When so many were first asked for.
fn reached(steps: &Steps, replicas: i64) -> Option<f64> {
    steps.iter().find(|step| step.1 >= replicas).map(|step| step.0)
}

/// The curves are near each other.
fn agree(real: &Steps, predicted: &Steps) {
    let apart = |what: &str, real: i64, predicted: i64| {
        assert!((real - predicted).abs() <= REPLICAS_APART, "{what}: {real} in the cluster, {predicted} predicted");
    };
    apart("the most replicas", highest(real), highest(predicted));
    apart("the last number", real.last().unwrap().1, predicted.last().unwrap().1);
    for replicas in 2..=highest(real).min(highest(predicted)) {
        let (real, predicted) = (reached(real, replicas).unwrap(), reached(predicted, replicas).unwrap());
        assert!(
            (real - predicted).abs() <= SECONDS_APART,
            "{replicas} replicas: after {real} s in the cluster, {predicted} s predicted"
        );
    }
}

#[test]
fn a_step_comes_as_predicted() {
    if skipped("a step replayed") {
        return;
    }
    let (real, predicted) = compare("step", &[Phase { seconds: 12.0, rate: 1.5 }, Phase { seconds: 45.0, rate: 9.0 }], None);
    assert!(highest(&real) >= 3, "{real:?}");
    agree(&real, &predicted);
}

#[test]
fn a_burst_comes_as_predicted() {
    if skipped("a burst replayed") {
        return;
    }
    let phases = [Phase { seconds: 12.0, rate: 1.5 }, Phase { seconds: 12.0, rate: 9.0 }, Phase { seconds: 30.0, rate: 1.5 }];
    let (real, predicted) = compare("burst", &phases, None);
    assert!(highest(&real) >= 2, "{real:?}");
    agree(&real, &predicted);
}

/// Up, down, and a burst after it, with a scale-down window that fits: what takes too long for every day (`make long`).
#[test]
#[ignore = "takes six minutes"]
fn what_goes_up_and_down_comes_as_predicted() {
    let phases = [(20.0, 1.5), (60.0, 9.0), (120.0, 1.5), (30.0, 9.0), (120.0, 1.5)];
    let phases = phases.map(|(seconds, rate)| Phase { seconds, rate });
    let (real, predicted) = compare("up-and-down", &phases, Some(30));
    assert!(highest(&real) >= 3 && real.last().unwrap().1 < highest(&real), "{real:?}");
    agree(&real, &predicted);
}
