//! Manifests, chart and examples as files: what a user applies says the same in both forms, and is complete. What a cluster makes of
//! them is tested in `install.rs` and `autoscaling.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use weir_tests::{documents, helm, kubectl, repository};

/// Objects by kind and name, without the labels that tools add.
fn objects(yaml: &str) -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for mut object in documents(yaml) {
        let text = |pointer: &str, object: &Value| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = (text("/kind", &object), text("/metadata/name", &object));
        object["metadata"].as_object_mut().unwrap().remove("labels");
        assert!(all.insert(key.clone(), object).is_none(), "{key:?} twice");
    }
    all
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn chart(settings: &[&str]) -> String {
    let mut command = Command::new(helm());
    command.args(["template", "weir", "manifests/helm/weir", "--namespace", "weir-system"]).current_dir(repository());
    for setting in settings {
        command.args(["--set", setting]);
    }
    output(&mut command)
}

fn base() -> String {
    output(Command::new(kubectl()).args(["kustomize", "manifests/base"]).current_dir(repository()))
}

fn deletion_cost() -> String {
    output(Command::new(kubectl()).args(["kustomize", "manifests/deletion-cost"]).current_dir(repository()))
}

/// The arguments of weir in a Deployment.
fn arguments(objects: &BTreeMap<(String, String), Value>) -> Vec<String> {
    let deployment = &objects[&("Deployment".to_owned(), "weir".to_owned())];
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args").unwrap().as_array().unwrap();
    arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

#[test]
fn kustomize_and_helm_install_the_same() {
    let (mut by_kustomize, mut by_helm) = (objects(&base()), objects(&chart(&[])));
    // Helm makes the namespace itself (--create-namespace).
    by_kustomize.remove(&("Namespace".to_owned(), "weir-system".to_owned()));
    // The chart spells defaults out.
    let (plain, spelled) = (arguments(&by_kustomize), arguments(&by_helm));
    assert!(plain.iter().all(|argument| spelled.contains(argument)), "{plain:?} {spelled:?}");
    let key = ("Deployment".to_owned(), "weir".to_owned());
    for objects in [&mut by_kustomize, &mut by_helm] {
        let container = objects.get_mut(&key).unwrap().pointer_mut("/spec/template/spec/containers/0").unwrap();
        let container = container.as_object_mut().unwrap();
        container.remove("args");
        container.remove("imagePullPolicy");
    }
    assert_eq!(by_kustomize.keys().collect::<Vec<_>>(), by_helm.keys().collect::<Vec<_>>());
    for (key, object) in &by_kustomize {
        assert_eq!(object, &by_helm[key], "{key:?}");
    }
}

#[test]
fn the_chart_leaves_a_group_to_its_owner() {
    let objects = objects(&chart(&["metricsApis={custom}"]));
    let names: Vec<_> = objects.keys().filter(|(kind, _)| kind == "APIService").map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["v1beta1.custom.metrics.k8s.io", "v1beta2.custom.metrics.k8s.io"]);
    assert!(arguments(&objects).contains(&"--metrics-apis=custom".to_owned()));
}

#[test]
fn the_chart_watches_one_namespace_with_rights_in_that_one_alone() {
    let objects = objects(&chart(&["watchNamespace=models"]));
    assert!(arguments(&objects).contains(&"--namespace=models".to_owned()));
    let binding = &objects[&("RoleBinding".to_owned(), "weir:discovery".to_owned())];
    assert_eq!(binding["metadata"]["namespace"], "models");
    assert!(!objects.contains_key(&("ClusterRoleBinding".to_owned(), "weir:discovery".to_owned())));
}

#[test]
fn the_monitoring_manifests_are_those_of_the_chart() {
    let by_helm = objects(&chart(&["serviceMonitor.enabled=true", "podMonitoring.enabled=true"]));
    let folder = repository().join("manifests/monitoring");
    for file in ["metrics-reader.yaml", "service-monitor.yaml", "pod-monitoring.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for (key, object) in objects(&text) {
            assert_eq!(object, by_helm[&key], "{file} {key:?}");
        }
    }
}

/// What `kubectl kustomize FOLDER` prints.
fn kustomized(folder: &str) -> String {
    output(Command::new(kubectl()).args(["kustomize", folder]).current_dir(repository()))
}

#[test]
fn the_scaler_is_off_unless_asked_for_and_the_same_in_both_forms() {
    let plain = objects(&chart(&[]));
    assert!(plain.keys().all(|(_, name)| !name.contains("scaler")), "{:?}", plain.keys());
    let by_helm = documents(&chart(&["scaler.enabled=true", "scaler.namespaces={default}"]));
    // The Roles of the namespace have the names of those of the system: they are told apart here.
    let mut by_kustomize = BTreeMap::new();
    for folder in ["manifests/scaler", "manifests/scaler/namespace"] {
        by_kustomize.extend(objects(&kustomized(folder)).into_iter().map(|(key, object)| ((folder, key), object)));
    }
    for ((folder, key), object) in &mut by_kustomize {
        let mut wanted = by_helm
            .iter()
            .find(|helms| {
                let namespace = helms["metadata"]["namespace"].as_str().unwrap_or_default();
                let right_place = (namespace == "default") == (*folder == "manifests/scaler/namespace");
                right_place && helms["kind"] == key.0 && helms["metadata"]["name"] == key.1.as_str()
            })
            .unwrap_or_else(|| panic!("the chart has no {key:?} of {folder}"))
            .clone();
        wanted["metadata"].as_object_mut().unwrap().remove("labels");
        for one in [&mut *object, &mut wanted] {
            one["metadata"].as_object_mut().unwrap().remove("namespace");
            // The chart restarts the pods by it; whoever applies the manifests does so himself.
            if let Some(template) = one.pointer_mut("/spec/template/metadata") {
                template.as_object_mut().unwrap().remove("annotations");
            }
            if let Some(container) = one.pointer_mut("/spec/template/spec/containers/0") {
                container.as_object_mut().unwrap().remove("imagePullPolicy");
            }
        }
        assert_eq!(object, &wanted, "{key:?}");
    }
    let without = Command::new(helm())
        .args(["template", "weir", "manifests/helm/weir", "--set", "scaler.enabled=true"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("scaler.namespaces is empty"), "{without:?}");
}

#[test]
fn the_scaler_writes_numbers_of_replicas_and_events_and_nothing_else() {
    for (key, object) in objects(&kustomized("manifests/scaler/namespace")) {
        assert!(["Role", "RoleBinding"].contains(&key.0.as_str()), "{key:?}");
        for rule in object["rules"].as_array().into_iter().flatten() {
            let list =
                |field: &str| -> Vec<&str> { rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
            let writes = list("verbs").into_iter().any(|verb| !["get", "list", "watch"].contains(&verb));
            let of_scale = list("resources").iter().all(|resource| resource.ends_with("/scale"));
            assert!(!writes || of_scale || list("resources") == ["events"], "{rule}");
            assert!(!list("verbs").contains(&"*") && !list("resources").contains(&"*"), "{rule}");
        }
    }
    for (key, object) in objects(&kustomized("manifests/scaler")) {
        assert!(!key.0.starts_with("ClusterRole"), "{key:?}");
        assert_eq!(object["metadata"]["namespace"], "weir-system", "{key:?}");
    }
}

#[test]
fn kustomize_and_helm_install_the_same_deletion_cost_and_only_when_told() {
    assert!(!chart(&[]).contains("deletion-cost"));
    let mut by_kustomize = objects(&deletion_cost());
    let by_helm = objects(&chart(&["deletionCost.enabled=true", "deletionCost.namespace=default"]));
    let key = ("Deployment".to_owned(), "weir-deletion-cost".to_owned());
    let mut by_helm: BTreeMap<_, _> = by_helm.into_iter().filter(|(key, _)| key.1 == "weir-deletion-cost").collect();
    for objects in [&mut by_kustomize, &mut by_helm] {
        let container = objects.get_mut(&key).unwrap().pointer_mut("/spec/template/spec/containers/0").unwrap();
        let container = container.as_object_mut().unwrap();
        // The chart spells defaults out.
        let arguments = container.remove("args").unwrap();
        assert!(arguments.as_array().unwrap().contains(&"--namespace=$(POD_NAMESPACE)".into()), "{arguments}");
        container.remove("imagePullPolicy");
    }
    assert_eq!(by_kustomize.len(), 6);
    for ((kind, _), object) in &mut by_kustomize {
        // kustomize does not know that these have no namespace; kubectl does.
        if kind.starts_with("ValidatingAdmissionPolicy") {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
    }
    for (key, object) in &by_kustomize {
        assert_eq!(object, &by_helm[key], "{key:?}");
    }
}

#[test]
fn deletion_cost_patches_pods_of_one_namespace_behind_a_policy_that_fails_closed() {
    let objects = objects(&deletion_cost());
    let named = |kind: &str| &objects[&(kind.to_owned(), "weir-deletion-cost".to_owned())];
    assert!(objects.keys().all(|(kind, _)| !kind.starts_with("ClusterRole")));
    let writes: Vec<String> = named("Role")["rules"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["verbs"].as_array().unwrap().iter().map(move |verb| format!("{} {}", rule["resources"][0], verb)))
        .filter(|right| ["get", "list", "watch"].iter().all(|verb| !right.ends_with(&format!("\"{verb}\""))))
        .collect();
    assert_eq!(writes, ["\"pods\" \"patch\"", "\"leases\" \"update\"", "\"leases\" \"create\""]);
    let policy = named("ValidatingAdmissionPolicy");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    assert_eq!(named("ValidatingAdmissionPolicyBinding")["spec"]["validationActions"], serde_json::json!(["Deny"]));
}

#[test]
fn nobody_gets_more_rights_than_needed() {
    for (key, object) in objects(&base()) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            let list =
                |field: &str| -> Vec<&str> { rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
            let (verbs, resources, names) = (list("verbs"), list("resources"), list("resourceNames"));
            assert!(!verbs.contains(&"*") && !list("apiGroups").contains(&"*"), "{key:?} {rule}");
            let writes = verbs.iter().any(|verb| !["get", "list", "watch"].contains(verb));
            // A right to create cannot name what is created.
            let created = ["secrets", "configmaps", "leases"].iter().any(|kind| resources == [*kind]) && verbs == ["create"];
            let bounded = !names.is_empty() || (created && key.0 == "Role");
            assert!(!writes || bounded, "{key:?} may write without a name: {rule}");
            assert!(!resources.contains(&"secrets") || key.0 == "Role", "{key:?} reads Secrets of every namespace: {rule}");
        }
    }
}

#[test]
fn the_pod_is_restricted() {
    let objects = objects(&base());
    let deployment = &objects[&("Deployment".to_owned(), "weir".to_owned())];
    let pod = deployment.pointer("/spec/template/spec").unwrap();
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
    let namespace = &objects[&("Namespace".to_owned(), "weir-system".to_owned())];
    let text = base();
    assert!(text.contains("pod-security.kubernetes.io/enforce: restricted"), "{namespace}");
}

#[test]
fn every_example_says_when_to_use_it() {
    let folder = repository().join("hpa-examples");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        examples += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let comments = text.lines().take_while(|line| line.starts_with("# ")).count();
        assert!((2..=5).contains(&comments), "{} begins with two to five lines on when to use it", path.display());
        assert!(
            readme.contains(&format!("({})", path.file_name().unwrap().to_string_lossy())),
            "{} is not in the README",
            path.display()
        );
        for object in documents(&text) {
            assert_eq!(object["kind"], "HorizontalPodAutoscaler");
            assert_eq!(object["apiVersion"], "autoscaling/v2");
        }
    }
    assert!(examples >= 9, "{examples}");
}

#[test]
fn the_image_holds_weir_and_runs_without_rights() {
    let folder = weir_tests::Folder::new("image");
    let archive = folder.file("weir.tar");
    let build = repository().join("manifests/image/build");
    output(Command::new(build).arg(weir_tests::weir()).arg(&archive));
    let layout = folder.file("layout");
    std::fs::create_dir(&layout).unwrap();
    output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout));
    let manifest = |digest: &Value| -> Value {
        let digest = digest.as_str().unwrap().replace(':', "/");
        serde_json::from_slice(&std::fs::read(layout.join("blobs").join(digest)).unwrap()).unwrap()
    };
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let image = manifest(&index["manifests"][0]["digest"]);
    let config = manifest(&image["config"]["digest"]);
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/weir"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    let layer = image["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let root = folder.file("root");
    std::fs::create_dir(&root).unwrap();
    output(Command::new("tar").arg("-xzf").arg(layout.join("blobs").join(layer)).arg("-C").arg(&root));
    for (path, wanted) in [("weir", true), ("etc/ssl/certs/ca-certificates.crt", true), ("bin/sh", false)] {
        assert_eq!(root.join(path).exists(), wanted, "{path}");
    }
    // Its own loader and libraries suffice; changing the root is root's alone.
    if rustix::process::getuid().is_root() {
        let version = output(Command::new("chroot").arg("--userspec=65532:65532").arg(&root).args(["/weir", "--version"]));
        assert!(version.starts_with("weir "), "{version}");
    }
}

#[test]
fn body_based_routing_is_off_unless_asked_for_and_the_same_in_both_forms() {
    assert!(!chart(&[]).contains("weir-bbr"));
    let mut by_kustomize = objects(&kustomized("manifests/bbr"));
    let by_helm = objects(&chart(&["bbr.enabled=true", "bbr.namespace=default"]));
    let mut by_helm: BTreeMap<_, _> = by_helm.into_iter().filter(|(key, _)| key.1 == "weir-bbr").collect();
    let key = ("Deployment".to_owned(), "weir-bbr".to_owned());
    for objects in [&mut by_kustomize, &mut by_helm] {
        let container = objects.get_mut(&key).unwrap().pointer_mut("/spec/template/spec/containers/0").unwrap();
        container.as_object_mut().unwrap().remove("imagePullPolicy");
        let rules =
            objects.get_mut(&("ConfigMap".to_owned(), "weir-bbr".to_owned())).unwrap().pointer_mut("/data/rules.yaml").unwrap();
        *rules = rules.as_str().unwrap().trim_end().into();
    }
    assert_eq!(by_kustomize.keys().collect::<Vec<_>>(), by_helm.keys().collect::<Vec<_>>());
    for (key, object) in &by_kustomize {
        assert_eq!(object, &by_helm[key], "{key:?}");
    }
}
