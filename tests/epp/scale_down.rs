//! Fewer replicas: deletion cost lets the idle pod go, and no stream is cut.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, skipped};
use weir_tests::{Folder, repository};

use super::alone;
use super::scene::{SERVERS, Scene, graceful_servers};

const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What each pod of the servers is annotated with.
type Costs = BTreeMap<String, Option<i32>>;

/// Installs manifests/deletion-cost in this namespace, with further arguments.
fn install(cluster: &Cluster, namespace: &str, arguments: &[&str]) {
    let folder = Folder::new(&format!("overlay-{namespace}"));
    let base = repository().join("manifests/deletion-cost");
    // kustomize takes no absolute paths.
    let up = "../".repeat(folder.file("").canonicalize().unwrap().components().count() - 1);
    let patch: Vec<Value> = arguments
        .iter()
        .map(|argument| json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": argument}))
        .collect();
    let patch = json!([{"target": {"kind": "Deployment"}, "patch": serde_json::to_string(&patch).unwrap()}]);
    folder.write(
        "kustomization.yaml",
        &json!({"namespace": namespace, "resources": [format!("{up}{}", base.strip_prefix("/").unwrap().display())], "patches": patch})
            .to_string(),
    );
    cluster.kubectl(&["apply", "-k", &folder.file("").display().to_string()]).unwrap_or_else(|error| panic!("{error}"));
}

/// The cost that each pod of the servers is annotated with, while it is there and not on its way out.
fn costs(scene: &Scene) -> Result<Costs, String> {
    let pods = scene.cluster.get(&scene.namespace, &format!("pods -l app={SERVERS}"))?;
    let here = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let cost = |pod: &Value| pod["metadata"]["annotations"][ANNOTATION].as_str().map(|cost| cost.parse().unwrap());
    Ok(here.map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), cost(pod))).collect())
}

/// What is left to read of a stream: whether it came to its own end.
async fn ends_whole(mut response: reqwest::Response) -> Result<(), String> {
    let mut last = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| format!("cut: {error:?}"))? {
        last = chunk.to_vec();
    }
    let last = String::from_utf8_lossy(&last).into_owned();
    if last.ends_with("data: [DONE]\n\n") { Ok(()) } else { Err(format!("the stream ends with {last:?}")) }
}

#[test]
fn the_idle_pod_goes_first_and_a_pod_that_goes_finishes_its_streams() {
    if skipped("deletion cost behind Envoy") {
        return;
    }
    let _alone = alone();
    let scene = Scene::new("scale-down", &[graceful_servers(3)], 3, 1);
    scene.reads(3);
    install(scene.cluster, &scene.namespace, &["--requests-half-life=1s"]);
    let writer = scene.cluster.wait_for_pods(&scene.namespace, "app.kubernetes.io/name=weir-deletion-cost", 1);
    let log = || scene.cluster.logs(&scene.namespace, &writer[0].0, "weir").unwrap_or_else(|error| error);
    let scale = |replicas: usize| {
        let replicas = format!("--replicas={replicas}");
        scene.cluster.kubectl(&["scale", &format!("deployment/{SERVERS}"), &replicas, "-n", &scene.namespace]).unwrap();
    };
    let until = |what: &str, wanted: &dyn Fn(&Costs) -> bool| {
        scene.cluster.wait_for(what, || match costs(&scene)? {
            costs if wanted(&costs) => Ok(costs),
            costs => Err(format!("{costs:?}\n{}", log())),
        })
    };
    until("all idle", &|costs| costs.len() == 3 && costs.values().all(|cost| cost.is_some_and(|cost| cost < 0)));

    // Streams of half a minute, until two pods of the three have some.
    let mut streams = Vec::new();
    let busy = loop {
        let response = scene.answer(1000, true);
        assert_eq!(response.status(), 200);
        streams.push(scene.runtime.spawn(ends_whole(response)));
        let sent = scene.attempts(0).unwrap();
        if sent.len() == 2 {
            break sent;
        }
        assert!(streams.len() < 20 && sent.len() < 2, "{sent:?}");
    };
    let marked = until("two are busy", &|costs| {
        costs.len() == 3 && costs.iter().all(|(pod, cost)| cost.is_some_and(|cost| (cost > 0) == busy.contains_key(pod)))
    });
    scale(2);
    let left = until("two are left", &|costs| costs.len() == 2);
    assert!(left.keys().all(|pod| busy.contains_key(pod)), "the idle pod went: {marked:?} became {left:?}");

    // Now one that has streams must go. From when the picker knows, it is sent nothing more.
    scale(1);
    let left = until("one is left", &|costs| costs.len() == 1);
    let going = busy.keys().find(|pod| !left.contains_key(*pod)).unwrap();
    scene.reads(1);
    let before = scene.attempts(0).unwrap();
    for _ in 0..30 {
        assert_eq!(scene.answer(1, false).status(), 200);
    }
    let after = scene.attempts(0).unwrap();
    let of = |attempts: &BTreeMap<String, u64>, pod: &str| attempts.get(pod).copied();
    assert!(of(&after, going).is_none_or(|sent| of(&before, going) == Some(sent)), "{before:?} {after:?}");
    let pod = scene.cluster.get(&scene.namespace, &format!("pod/{going}"));
    assert!(pod.is_ok(), "its streams run on: {pod:?}");
    for stream in streams {
        scene.runtime.block_on(stream).unwrap().unwrap_or_else(|error| panic!("{error}\n{}", scene.log(0)));
    }
    let page = scene.cluster.http(&format!("http://{}:9090/metrics", writer[0].1)).unwrap();
    let value = |series: &str| page.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.trim().to_owned());
    assert_eq!(value(&format!("weir_leader{{lease=\"{}/weir-deletion-cost\"}}", scene.namespace)).as_deref(), Some("1"), "{page}");
    let patches = value("weir_deletion_cost_patches_total{result=\"written\"}").unwrap();
    eprintln!("scale down: {} streams ended whole, {patches} patches of pods", busy.values().sum::<u64>());
    assert!(patches.parse::<u64>().unwrap() <= 12, "pods are patched rarely: {patches}");
}

#[test]
fn the_admission_policy_leaves_of_a_pod_one_annotation() {
    if skipped("the admission policy of deletion cost") {
        return;
    }
    let _alone = alone();
    let cluster = Cluster::shared();
    let namespace = cluster.namespace("policy");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"other": "stays"}},
        "spec": {"containers": [{"name": "c", "image": "nothing", "env": [{"name": "A", "value": "B"}]}]},
    });
    cluster.apply(&namespace, &pod.to_string());
    cluster.wait_for_pods(&namespace, "a=b", 1);
    install(cluster, &namespace, &["--dry-run"]);
    let identity = format!("--as=system:serviceaccount:{namespace}:weir-deletion-cost");
    // All rights over pods, so that nothing but the policy stands in the way.
    let account = format!("--serviceaccount={namespace}:weir-deletion-cost");
    cluster.kubectl(&["create", "rolebinding", "all", "--clusterrole=admin", &account, "-n", &namespace]).unwrap();
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "pods"},
        "rules": [{"apiGroups": [""], "resources": ["pods", "pods/status", "pods/ephemeralcontainers"], "verbs": ["*"]}],
    });
    cluster.apply(&namespace, &rights.to_string());
    cluster.kubectl(&["create", "rolebinding", "pods", "--role=pods", &account, "-n", &namespace]).unwrap();
    let patch = |patch: &Value, more: &[&str], who: &str| {
        let patch = patch.to_string();
        let mut arguments = vec!["patch", "pod/p", "-n", &namespace, "--type=strategic", "-p", &patch, who];
        arguments.extend(more);
        cluster.kubectl(&arguments)
    };
    let annotate = |key: &str, value: Value| json!({"metadata": {"annotations": {key: value}}});
    let refused = |what: &str, result: Result<String, String>, why: &str| match result {
        Err(error) if error.contains(why) => {}
        other => panic!("{what}: {other:?}"),
    };
    cluster.wait_for("the policy", || match patch(&annotate("x", "y".into()), &["--dry-run=server"], &identity) {
        Err(error) if error.contains("may change no annotation of a pod but") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let container = |field: Value| json!({"spec": {"containers": [field]}});
    let image = container(json!({"name": "c", "image": "evil", "env": [{"name": "A", "value": "B"}]}));
    refused("image", patch(&image, &[], &identity), "may not change a pod's spec");
    refused("deadline", patch(&json!({"spec": {"activeDeadlineSeconds": 1}}), &[], &identity), "may not change a pod's spec");
    refused("label", patch(&json!({"metadata": {"labels": {"a": "c"}}}), &[], &identity), "pod's labels");
    refused("label taken away", patch(&json!({"metadata": {"labels": null}}), &[], &identity), "pod's labels");
    refused("finalizer", patch(&json!({"metadata": {"finalizers": ["a.b/c"]}}), &[], &identity), "pod's finalizers");
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "n", "uid": "u"}]);
    refused("owner", patch(&json!({"metadata": {"ownerReferences": owner}}), &[], &identity), "pod's owners");
    let but = "may change no annotation of a pod but controller.kubernetes.io/pod-deletion-cost";
    refused("other annotation", patch(&annotate("x", "y".into()), &[], &identity), but);
    refused("annotation changed", patch(&annotate("other", "y".into()), &[], &identity), but);
    refused("annotation taken away", patch(&annotate("other", Value::Null), &[], &identity), but);
    refused("no number", patch(&annotate(ANNOTATION, "cheap".into()), &[], &identity), "must be a 32bit integer");
    let status = json!({"status": {"phase": "Failed"}});
    refused("status", patch(&status, &["--subresource=status"], &identity), "nothing with pods but patch them");
    let ephemeral = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "evil"}]}});
    refused("ephemeral container", patch(&ephemeral, &["--subresource=ephemeralcontainers"], &identity), "but patch them");
    refused("deletion", cluster.kubectl(&["delete", "pod/p", "-n", &namespace, &identity]), "but patch them");
    let mut another = pod.clone();
    another["metadata"]["name"] = "q".into();
    let created = cluster.kubectl_reading(&["create", "-n", &namespace, &identity, "-f", "-"], &another.to_string());
    refused("creation", created, "but patch them");

    for cost in [json!("-10"), json!("200"), Value::Null] {
        patch(&annotate(ANNOTATION, cost.clone()), &[], &identity).unwrap_or_else(|error| panic!("{cost}: {error}"));
    }
    // Everybody else goes on as before.
    cluster.kubectl(&["annotate", "pod/p", "x=y", "-n", &namespace]).unwrap();
    cluster.kubectl(&["label", "pod/p", "x=y", "-n", &namespace]).unwrap();
}
