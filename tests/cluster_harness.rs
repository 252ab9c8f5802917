//! The cluster of the tests keeps what it promises: real processes in pods, as a kubelet would run them, and nothing left at the end.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Options, skipped};
use weir_tests::eventually;

/// A Deployment of simulated model servers.
fn simulators(replicas: usize) -> String {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "simulator"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "simulator"}},
            "template": {
                "metadata": {"labels": {"app": "simulator"}},
                "spec": {"containers": [{
                    "name": "server",
                    "image": "registry.invalid/weir:latest",
                    "args": ["simulate-server", "--listen", "0.0.0.0:8000"],
                    "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1, "timeoutSeconds": 5},
                }]},
            },
        },
    })
    .to_string()
}

/// A Pod with one container that runs a shell script; `more` goes into its specification.
fn script(name: &str, text: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "sh", "args": ["-c", text]}], "terminationGracePeriodSeconds": 1},
    });
    merge(&mut pod["spec"], more);
    pod
}

fn merge(into: &mut Value, more: Value) {
    match more {
        Value::Object(fields) => fields.into_iter().for_each(|(name, value)| merge(&mut into[name], value)),
        Value::Array(items) => items.into_iter().enumerate().for_each(|(index, item)| match into.as_array_mut() {
            Some(array) if index < array.len() => merge(&mut array[index], item),
            Some(array) => array.push(item),
            None => *into = json!([item]),
        }),
        value => *into = value,
    }
}

/// The log of a pod's container `main`, once it has ended.
fn log_at_the_end(cluster: &Cluster, namespace: &str, pod: &str) -> String {
    cluster.wait_for("the end of the script", || {
        let object = cluster.get(namespace, &format!("pod/{pod}"))?;
        match object.pointer("/status/phase").and_then(Value::as_str) {
            Some("Succeeded" | "Failed") => Ok(()),
            _ => Err(object["status"].to_string()),
        }
    });
    cluster.logs(namespace, pod, "main").unwrap()
}

#[test]
fn a_deployment_runs_and_streams_end_whole_when_it_shrinks() {
    if skipped("pods with simulated model servers") {
        return;
    }
    let cluster = Cluster::shared();
    println!("the cluster was up after {} s", cluster.about("start_seconds"));
    let namespace = cluster.namespace("deployment");
    cluster.apply(&namespace, &simulators(2));
    for (name, address) in cluster.wait_for_pods(&namespace, "app=simulator", 2) {
        let page = cluster.http(&format!("http://{address}:8000/metrics")).unwrap();
        assert!(page.contains("vllm:num_requests_running"), "{name}: {page}");
    }
    cluster.kubectl(&["scale", "-n", &namespace, "deployment/simulator", "--replicas=3"]).unwrap();
    let pods = cluster.wait_for_pods(&namespace, "app=simulator", 3);

    // A stream to each pod, some seconds long; all but one of the pods are deleted under it.
    let (started, firsts) = channel();
    let streams: Vec<_> = pods
        .iter()
        .map(|(_, address)| {
            let (url, started) = (format!("http://{address}:8000/v1/completions"), started.clone());
            std::thread::spawn(move || stream(&url, || started.send(()).expect("the test waits for it")))
        })
        .collect();
    pods.iter().for_each(|_| firsts.recv_timeout(weir_tests::PATIENCE).expect("every stream begins"));
    cluster.kubectl(&["scale", "-n", &namespace, "deployment/simulator", "--replicas=1"]).unwrap();
    cluster.wait_for_pods(&namespace, "app=simulator", 1);
    assert!(streams.iter().all(|stream| !stream.is_finished()), "the streams ended before the pods were told to");
    for stream in streams {
        let text = stream.join().unwrap();
        assert!(text.trim_end().ends_with("data: [DONE]"), "cut off: …{}", &text[text.len().saturating_sub(300)..]);
    }
    cluster.wait_for("the pods to be gone", || match cluster.get(&namespace, "pods")?["items"].as_array() {
        Some(pods) if pods.len() == 1 => Ok(()),
        pods => Err(format!("{pods:?}")),
    });
}

/// A whole stream of completions; `first` is called at its first bytes.
fn stream(url: &str, first: impl FnOnce()) -> String {
    weir_serving::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let body = json!({"model": "meta-llama/Llama-3.1-8B-Instruct", "prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true});
        let request = reqwest::Client::new().post(url).header("content-type", "application/json").body(body.to_string());
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let (mut first, mut text) = (Some(first), Vec::new());
        while let Some(chunk) = response.chunk().await.unwrap() {
            if let Some(first) = first.take() {
                first();
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    })
}

#[test]
fn a_container_that_fails_backs_off() {
    if skipped("crash loops") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("crash");
    cluster.apply(&namespace, &script("crash", "exit 7", json!({})).to_string());
    cluster.wait_for("CrashLoopBackOff", || {
        let pod = cluster.get(&namespace, "pod/crash")?;
        let status = pod.pointer("/status/containerStatuses/0").cloned().unwrap_or_default();
        let backs_off = status.pointer("/state/waiting/reason") == Some(&json!("CrashLoopBackOff"));
        let ended = status.pointer("/lastState/terminated").cloned().unwrap_or_default();
        let right = ended["exitCode"] == 7 && ended["reason"] == "Error" && status["restartCount"].as_u64() >= Some(2);
        if backs_off && right && status["ready"] == false { Ok(()) } else { Err(pod["status"].to_string()) }
    });
}

#[test]
fn killed_processes_start_again_under_the_same_address() {
    if skipped("killed pods") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("killed");
    cluster.apply(&namespace, &simulators(1));
    let (name, address) = cluster.wait_for_pods(&namespace, "app=simulator", 1).remove(0);
    let pid = |when: &str| {
        let pids = cluster.try_command(&format!("pod-pid {namespace}/{name}"))?;
        pids.pointer("/pids/server").and_then(Value::as_u64).ok_or(format!("{when}: {pids}"))
    };
    let before = pid("before").unwrap();
    cluster.command(&format!("kill-pod {namespace}/{name}"));
    cluster.wait_for("another process", || match pid("after")? {
        after if after == before => Err("still the same".to_owned()),
        _ => Ok(()),
    });
    let again = cluster.wait_for("the pod to be ready again", || {
        let status = cluster.get(&namespace, &format!("pod/{name}"))?["status"]["containerStatuses"][0].clone();
        let killed = status.pointer("/lastState/terminated/exitCode") == Some(&json!(137));
        if killed && status["restartCount"] == 1 && status["ready"] == true { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(cluster.pod_address(&namespace, &name).unwrap(), address, "{again}");
}

#[test]
fn volumes_follow_their_objects() {
    if skipped("volumes") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("volumes");
    let content =
        |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"}, "data": {"word": text}});
    cluster.apply(&namespace, &content("first").to_string());
    let text = "while cat /etc/words/renamed; do echo; sleep 0.1; done";
    let volumes = json!({
        "containers": [{"volumeMounts": [{"name": "words", "mountPath": "/etc/words"}]}],
        "volumes": [{"name": "words", "configMap": {"name": "words", "items": [{"key": "word", "path": "renamed"}]}}],
    });
    cluster.apply(&namespace, &script("reader", text, volumes).to_string());
    let said = |word: &str| {
        cluster.wait_for(word, || match cluster.logs(&namespace, "reader", "main") {
            Ok(log) if log.lines().last() == Some(word) => Ok(()),
            Ok(log) => Err(log),
            Err(error) => Err(error),
        });
    };
    said("first");
    cluster.apply(&namespace, &content("second").to_string());
    said("second");
}

#[test]
fn users_and_read_only_roots_hold() {
    if skipped("security contexts") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("rights");
    let text = "id -u; touch /tmp/a && echo wrote /tmp; touch /scratch/a && echo wrote /scratch; cat /etc/shadow; grep CapEff /proc/self/status";
    let restricted = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": true},
        "containers": [{
            "securityContext": {"readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    });
    cluster.apply(&namespace, &script("restricted", text, restricted).to_string());
    cluster.apply(&namespace, &script("open", text, json!({"restartPolicy": "Never"})).to_string());
    let restricted = log_at_the_end(cluster, &namespace, "restricted");
    assert!(restricted.contains("65532\n") && restricted.contains("wrote /scratch"), "{restricted}");
    assert!(!restricted.contains("wrote /tmp") && restricted.contains("Read-only file system"), "{restricted}");
    // The same script where nothing holds it: what was missing above was not missing for another reason.
    let open = log_at_the_end(cluster, &namespace, "open");
    assert!(open.starts_with("0\n") && open.contains("wrote /tmp") && !open.contains("wrote /scratch"), "{open}");
    for log in [restricted, open] {
        assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
        assert!(log.contains("/etc/shadow: No such file"), "a pod sees files of the host: {log}");
    }
}

#[test]
fn a_pod_reaches_the_api_as_its_service_account() {
    if skipped("service accounts") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("account");
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "who"},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true},
            "containers": [{"name": "main", "image": "kubectl", "args": ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]}],
        },
    });
    cluster.apply(&namespace, &pod.to_string());
    let log = log_at_the_end(cluster, &namespace, "who");
    assert!(log.contains(&format!("system:serviceaccount:{namespace}:default")), "{log}");
}

#[test]
fn pods_without_a_process_are_many_and_tests_may_play_them() {
    if skipped("many pods") {
        return;
    }
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("many");
    let mut deployment: Value = serde_json::from_str(&simulators(200)).unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nothing");
    deployment["spec"]["template"]["metadata"]["annotations"] = json!({"test.weir/ready-delay": "100ms"});
    cluster.apply(&namespace, &deployment.to_string());
    let pods = cluster.wait_for_pods(&namespace, "app=simulator", 200);
    let (name, address) = &pods[0];
    let listener =
        std::net::TcpListener::bind(format!("{address}:8000")).expect("the address of a pod without a process is free to take");
    drop(listener);
    cluster.kubectl(&["annotate", "-n", &namespace, "pod", name, "test.weir/ready=false"]).unwrap();
    cluster.wait_for_pods(&namespace, "app=simulator", 199);
}

#[test]
fn clusters_run_side_by_side_and_their_parts_can_be_stopped() {
    if skipped("two clusters") {
        return;
    }
    let first = Cluster::shared();
    let second = Cluster::start(&Options { crds: false, nodes: 1, ..Options::default() });
    let only_there = second.namespace("second");
    let error = first.get("default", &format!("namespace/{only_there}")).unwrap_err();
    assert!(error.contains("NotFound"), "{error}");
    assert!(second.get("default", "inferencepools").is_err(), "no CRDs were wanted");
    assert!(first.get("default", "inferencepools").is_ok());

    second.command("stop kube-apiserver");
    let error = second.kubectl(&["get", "nodes"]).unwrap_err();
    assert!(error.contains("refused"), "{error}");
    second.command("start kube-apiserver");
    second.command("restart etcd");
    second.command("restart kube-controller-manager");
    second.apply(&only_there, &simulators(1));
    second.wait_for_pods(&only_there, "app=simulator", 1);

    let processes = descendants(second.pid());
    assert!(processes.len() >= 5, "cluster, three components, a pod: {processes:?}");
    let state = second.state().to_owned();
    drop(second);
    all_gone(&processes, &state);
}

#[test]
fn nothing_is_left_when_the_process_of_the_test_is_killed() {
    if skipped("the end of a killed test") {
        return;
    }
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_cluster", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line =
        lines.find_map(|line| Some(line.split_once("cluster: ")?.1.to_owned())).expect("the holder says where its cluster is");
    let (pid, state) = line.split_once(' ').unwrap();
    let processes = descendants(pid.parse().unwrap());
    assert!(processes.len() >= 5, "cluster, three components, a pod: {processes:?}");
    assert!(Path::new(state).is_dir());
    holder.kill().unwrap();
    holder.wait().unwrap();
    all_gone(&processes, Path::new(state));
}

#[test]
#[ignore = "the part of the killed process in the test above"]
fn holds_a_cluster() {
    let cluster = Cluster::start(&Options { crds: false, ..Options::default() });
    let namespace = cluster.namespace("held");
    cluster.apply(&namespace, &simulators(1));
    cluster.wait_for_pods(&namespace, "app=simulator", 1);
    println!("cluster: {} {}", cluster.pid(), cluster.state().display());
    // Until it is killed.
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
}

/// A process, told apart from a later one with the same number by when it began.
type Process = (u32, String);

/// When the process began and its parent, none when it is gone or only waits to be reaped.
fn process(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields[0] == "Z" {
        return None;
    }
    Some((fields[19].to_owned(), fields[1].parse().unwrap()))
}

/// The process and all that it started, directly or not.
fn descendants(root: u32) -> Vec<Process> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let all: Vec<(u32, String, u32)> = pids.filter_map(|pid| process(pid).map(|(began, parent)| (pid, began, parent))).collect();
    let mut found: Vec<Process> =
        all.iter().filter(|(pid, ..)| *pid == root).map(|(pid, began, _)| (*pid, began.clone())).collect();
    let mut next = 0;
    while let Some((parent, _)) = found.get(next).cloned() {
        found.extend(all.iter().filter(|(.., of)| *of == parent).map(|(pid, began, _)| (*pid, began.clone())));
        next += 1;
    }
    found
}

fn all_gone(processes: &[Process], state: &Path) {
    eventually("the end of all processes", || {
        let left: Vec<_> = processes.iter().filter(|(pid, began)| process(*pid).is_some_and(|(now, _)| now == *began)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    eventually("the end of the state folder", || if state.exists() { Err(state.display().to_string()) } else { Ok(()) });
}
