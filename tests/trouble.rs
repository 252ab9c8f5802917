//! What goes wrong, and what an operator reads of it in `kubectl describe hpa` and `kubectl get apiservice`. In every case the
//! autoscaler holds the replicas it has, and goes on once the trouble is over.

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Options, skipped};
use weir_tests::installed::{self, API_SERVICES, NAMESPACE, available, wait_until_it_answers};
use weir_tests::workload::{MODEL_PORT, deployment, inference_pool, model_servers};

const METRIC: &str = "inference_pool_total_inflight_requests";

/// What the API server says instead of weir while it cannot reach it.
const DOWN: &str =
    "the server is currently unable to handle the request (get inference_pool_total_inflight_requests.external.metrics.k8s.io)";

/// Rounds of the autoscaler without a number before its replicas count as held.
const ROUNDS: u64 = 5;

/// An autoscaler that takes a Deployment of two replicas to one as soon as it reads a number: nobody asks for anything, and it
/// waits for nothing.
struct Autoscaler<'a> {
    cluster: &'a Cluster,
    namespace: String,
    /// Name of the Deployment and the autoscaler.
    name: &'static str,
    pool: &'static str,
}

impl<'a> Autoscaler<'a> {
    fn new(cluster: &'a Cluster, namespace: &str, name: &'static str, pool: &'static str) -> Self {
        let autoscaler = json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": 1,
                "maxReplicas": 8,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": METRIC, "selector": {"matchLabels": {"name": pool}}},
                    "target": {"type": "AverageValue", "averageValue": "64"},
                }}],
            },
        });
        cluster.apply(namespace, &autoscaler.to_string());
        Self { cluster, namespace: namespace.to_owned(), name, pool }
    }

    fn replicas(&self) -> Result<u64, String> {
        let deployment = self.cluster.get(&self.namespace, &format!("deployment/{}", self.name))?;
        deployment["spec"]["replicas"].as_u64().ok_or_else(|| deployment.to_string())
    }

    fn describe(&self) -> String {
        self.cluster.describe(&self.namespace, &format!("hpa/{}", self.name))
    }

    /// How often an event happened.
    fn events(&self, reason: &str) -> Result<u64, String> {
        let what = format!("events --field-selector involvedObject.name={},reason={reason}", self.name);
        let events = self.cluster.get(&self.namespace, &what)?;
        Ok(events["items"].as_array().into_iter().flatten().map(|event| event["count"].as_u64().unwrap_or(1)).sum())
    }

    /// Why the autoscaler has no number, word for word.
    fn condition(&self) -> Result<String, String> {
        let autoscaler = self.cluster.get(&self.namespace, &format!("hpa/{}", self.name))?;
        let conditions = autoscaler.pointer("/status/conditions").and_then(Value::as_array).ok_or("no conditions yet")?;
        let condition = conditions.iter().find(|condition| condition["type"] == "ScalingActive").ok_or("not judged yet")?;
        if condition["status"] == "False" && condition["reason"] == "FailedGetExternalMetric" {
            return Ok(condition["message"].as_str().unwrap_or_default().to_owned());
        }
        Err(condition.to_string())
    }

    /// The operator reads one of `texts`, among conditions and events, and the replicas stay.
    fn says(&self, texts: &[String]) {
        let before = format!(
            "unable to get external metric {}/{METRIC}/&LabelSelector{{MatchLabels:map[string]string{{name: {},}},\
             MatchExpressions:[]LabelSelectorRequirement{{}},}}: unable to fetch metrics from external metrics API: ",
            self.namespace, self.pool
        );
        let text = self.cluster.wait_for("the autoscaler's words", || {
            let message = self.condition()?;
            let said = message.strip_prefix(&format!("the HPA was unable to compute the replica count: {before}"));
            texts.iter().find(|&text| said == Some(text)).ok_or_else(|| format!("{message}\ninstead of {texts:#?}"))
        });
        self.cluster.wait_for("rounds without a number", || {
            let (failures, described) = (self.events("FailedComputeMetricsReplicas")?, self.describe());
            let told = described
                .lines()
                .any(|line| line.contains("FailedGetExternalMetric") && line.ends_with(&format!("{before}{text}")));
            if failures >= ROUNDS && told { Ok(()) } else { Err(format!("{failures} rounds\n{described}")) }
        });
        assert_eq!(self.replicas(), Ok(2), "{}", self.describe());
        assert_eq!(self.events("SuccessfulRescale"), Ok(0), "{}", self.describe());
        eprintln!("{}: {text}", self.namespace);
    }

    /// The trouble is over: what it held back happens.
    fn goes_on(&self) {
        self.cluster.wait_for("the autoscaler to go on", || match self.replicas()? {
            1 => Ok(()),
            _ => Err(self.describe()),
        });
    }
}

/// A Deployment of pods that are ready and serve nothing.
fn mute(name: &str, replicas: usize) -> Value {
    deployment(name, replicas, json!({"containers": [{"name": "server", "image": "pause"}]}))
}

/// What the scraper says of pods that serve nothing, one for each.
fn refused(pods: &[(String, String)]) -> impl Iterator<Item = String> {
    pods.iter().map(|(_, address)| {
        format!("http://{address}:{MODEL_PORT}/metrics: connection refused: is the server listening on this address and port?")
    })
}

#[test]
fn a_pool_that_is_not_there() {
    if skipped("a pool that is not there") {
        return;
    }
    let cluster = installed::shared();
    let namespace = cluster.namespace("typo");
    cluster.apply(&namespace, &mute("target", 2).to_string());
    cluster.apply(&namespace, &inference_pool("vllm-llama3", "target").to_string());
    let autoscaler = Autoscaler::new(cluster, &namespace, "target", "vllm-lama3");
    autoscaler.says(&[format!(
        "the server could not find the metric {METRIC} for the selector \"name=vllm-lama3\" in namespace {namespace}: the pools in namespace \
         {namespace} are vllm-llama3"
    )]);
}

#[test]
fn pods_that_serve_no_metrics() {
    if skipped("pods without metrics") {
        return;
    }
    let cluster = installed::shared();
    let namespace = cluster.namespace("mute");
    cluster.apply(&namespace, &mute("mute", 2).to_string());
    cluster.apply(&namespace, &inference_pool("mute", "mute").to_string());
    let pods = cluster.wait_for_pods(&namespace, "app=mute", 2);
    let autoscaler = Autoscaler::new(cluster, &namespace, "mute", "mute");
    let text =
        |why| format!("{METRIC} of pool {namespace}/mute is not known: none of its 2 ready endpoints has fresh metrics: {why}");
    autoscaler.says(&refused(&pods).map(text).collect::<Vec<_>>());
}

#[test]
fn a_pool_of_which_less_than_half_can_be_read() {
    if skipped("a pool partly read") {
        return;
    }
    let cluster = installed::shared();
    let namespace = cluster.namespace("half");
    cluster.apply(&namespace, &model_servers("half", 1, &[]));
    cluster.apply(&namespace, &mute("target", 2).to_string());
    for name in ["mute-1", "mute-2"] {
        let labels = json!({"app": "half", "serves": "nothing"});
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "server", "image": "pause"}]},
        });
        cluster.apply(&namespace, &pod.to_string());
    }
    cluster.wait_for_pods(&namespace, "app=half", 3);
    let pods = cluster.wait_for_pods(&namespace, "serves=nothing", 2);
    let autoscaler = Autoscaler::new(cluster, &namespace, "target", "half");
    let text = |why| {
        format!(
            "{METRIC} of pool {namespace}/half is not known: only 1 of its 3 ready endpoints have fresh metrics, a total needs half: {why}"
        )
    };
    autoscaler.says(&refused(&pods).map(text).collect::<Vec<_>>());
    // One of two is half of them.
    cluster.kubectl(&["delete", "pod", "mute-2", "-n", &namespace, "--wait=false"]).unwrap();
    autoscaler.goes_on();
}

#[test]
fn pods_that_crash() {
    if skipped("pods that crash") {
        return;
    }
    let cluster = installed::shared();
    let namespace = cluster.namespace("crash");
    cluster.apply(&namespace, &model_servers("crash", 2, &["--no-such-flag"]));
    cluster.wait_for("crash loops", || {
        let pods = cluster.get(&namespace, "pods -l app=crash")?;
        let crashed = |pod: &Value| pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64) >= Some(1);
        match pods["items"].as_array() {
            Some(pods) if pods.len() == 2 && pods.iter().all(crashed) => Ok(()),
            _ => Err(cluster.describe(&namespace, "pods")),
        }
    });
    let autoscaler = Autoscaler::new(cluster, &namespace, "crash", "crash");
    autoscaler.says(&[format!("{METRIC} of pool {namespace}/crash is not known: none of its 2 endpoints is ready")]);
}

/// A cluster of its own with weir and a pool that can be read, and a namespace in it.
fn own_cluster() -> (Cluster, String) {
    let cluster = Cluster::start(&Options::default());
    installed::by_kustomize(&cluster);
    let namespace = cluster.namespace("models");
    cluster.apply(&namespace, &model_servers("models", 1, &[]));
    cluster.wait_for("a value", || installed::external(&cluster, &namespace, METRIC, "models"));
    (cluster, namespace)
}

/// A Deployment of two replicas that is scaled by that pool.
fn scaled<'a>(cluster: &'a Cluster, namespace: &str, name: &'static str) -> Autoscaler<'a> {
    cluster.apply(namespace, &mute(name, 2).to_string());
    Autoscaler::new(cluster, namespace, name, "models")
}

/// Waits until an APIService is not available for a reason that `wanted` accepts, which `kubectl get` shows, too.
fn unavailable(cluster: &Cluster, name: &str, reason: &str, wanted: impl Fn(&str) -> bool) -> String {
    cluster.wait_for("the API server to notice", || {
        let (status, message) = available(cluster, name)?;
        let listed = cluster.kubectl(&["get", "apiservice", name])?;
        let right = status == "False" && listed.contains(&format!("weir-system/weir   False ({reason})"));
        if right && message.strip_prefix(&format!("{reason}: ")).is_some_and(&wanted) {
            Ok(message)
        } else {
            Err(format!("{message}\n{listed}"))
        }
    })
}

#[test]
fn weir_is_away() {
    if skipped("weir away") {
        return;
    }
    let (cluster, namespace) = own_cluster();
    let none = r#"endpointslices for service/weir in "weir-system" have no addresses with port name "https""#;
    cluster.kubectl(&["scale", "deployment/weir", "-n", NAMESPACE, "--replicas=0"]).unwrap();
    for name in API_SERVICES {
        unavailable(&cluster, name, "MissingEndpoints", |message| message == none);
    }
    let away = scaled(&cluster, &namespace, "away");
    away.says(&[DOWN.to_owned()]);
    // The manifests were deleted in part, or never applied.
    cluster.kubectl(&["delete", "apiservice", API_SERVICES[0]]).unwrap();
    let absent = scaled(&cluster, &namespace, "absent");
    absent.says(&[format!("the server could not find the requested resource (get {METRIC}.external.metrics.k8s.io)")]);
    installed::by_kustomize(&cluster);
    away.goes_on();
    absent.goes_on();
}

#[test]
fn rights_are_missing() {
    if skipped("rights") {
        return;
    }
    let (cluster, namespace) = own_cluster();
    // What callers may do cannot be asked.
    cluster.kubectl(&["delete", "clusterrolebinding", "weir:system:auth-delegator"]).unwrap();
    let can = ["auth", "can-i", "create", "subjectaccessreviews", "--as=system:serviceaccount:weir-system:weir"];
    cluster
        .wait_for("the right to be gone", || if cluster.kubectl(&can).is_err() { Ok(()) } else { Err("still there".to_owned()) });
    let unreviewed = scaled(&cluster, &namespace, "unreviewed");
    unreviewed.says(&["Internal error occurred: the Kubernetes API server answered 403 to subjectaccessreviews: \
         subjectaccessreviews.authorization.k8s.io is forbidden: User \"system:serviceaccount:weir-system:weir\" cannot create resource \
         \"subjectaccessreviews\" in API group \"authorization.k8s.io\" at the cluster scope (bind the ClusterRole \
         system:auth-delegator to weir's ServiceAccount with a ClusterRoleBinding)"
        .to_owned()]);
    installed::by_kustomize(&cluster);
    unreviewed.goes_on();
    // Pools and pods cannot be listed by a weir that starts anew.
    cluster.kubectl(&["delete", "clusterrolebinding", "weir:discovery"]).unwrap();
    let pods = installed::pods(&cluster).unwrap();
    for (pod, _) in &pods {
        cluster.command(&format!("kill-pod {NAMESPACE}/{pod}"));
    }
    unavailable(&cluster, API_SERVICES[0], "MissingEndpoints", |_| true);
    let unlisted = scaled(&cluster, &namespace, "unlisted");
    unlisted.says(&[DOWN.to_owned()]);
    let rule = r#"add to the ClusterRole: {apiGroups: [\"\"], resources: [\"pods\"], verbs: [\"list\", \"watch\"]}"#;
    cluster.wait_for("the rule in the log", || {
        let log = installed::log_of_all(&cluster);
        if log.contains(rule) { Ok(()) } else { Err(log) }
    });
    assert_eq!(installed::pods(&cluster), Ok(Vec::new()));
    // Nothing needs a restart.
    installed::by_kustomize(&cluster);
    unlisted.goes_on();
}

#[test]
fn certificates_do_not_fit() {
    if skipped("certificates") {
        return;
    }
    let (cluster, namespace) = own_cluster();
    // Somebody else's authority in the APIService is not for long.
    let bundle = || cluster.kubectl(&["get", "apiservice", API_SERVICES[0], "-o", "jsonpath={.spec.caBundle}"]).unwrap();
    let right = bundle();
    // The API server's own.
    let theirs =
        cluster.kubectl(&["config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}"]).unwrap();
    assert!(!theirs.is_empty() && theirs != right);
    let wrong = json!({"spec": {"caBundle": theirs}}).to_string();
    cluster.kubectl(&["patch", "apiservice", API_SERVICES[0], "--type=merge", "-p", &wrong]).unwrap();
    cluster.wait_for("weir's authority", || if bundle() == right { Ok(()) } else { Err("another one".to_owned()) });
    wait_until_it_answers(&cluster);
    // weir was told another name than that of its Service.
    let other = json!([
        {"op": "test", "path": "/spec/template/spec/containers/0/args/2", "value": "--service=$(POD_NAMESPACE)/weir"},
        {"op": "replace", "path": "/spec/template/spec/containers/0/args/2", "value": "--service=$(POD_NAMESPACE)/other"},
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--shutdown-delay=0s"},
    ]);
    cluster.kubectl(&["patch", "deployment", "weir", "-n", NAMESPACE, "--type=json", "-p", &other.to_string()]).unwrap();
    let words = "tls: failed to verify certificate: x509: certificate is valid for localhost, other, other.weir-system, \
                 other.weir-system.svc, other.weir-system.svc.cluster.local, not weir.weir-system.svc";
    unavailable(&cluster, API_SERVICES[0], "FailedDiscoveryCheck", |message| {
        message.starts_with("failing or missing response from https://10.244.") && message.ends_with(words)
    });
    let unfit = scaled(&cluster, &namespace, "unfit");
    unfit.says(&[DOWN.to_owned()]);
    let log = installed::log_of_all(&cluster);
    let owner = "APIService v1beta1.external.metrics.k8s.io belongs to Service weir-system/weir, so HorizontalPodAutoscalers read \
                 external.metrics.k8s.io there and not from weir-system/other";
    assert!(log.contains(owner), "{log}");
    installed::by_kustomize(&cluster);
    unfit.goes_on();
}
