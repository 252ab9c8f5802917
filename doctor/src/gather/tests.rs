//! Gathering off an API server of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::{GatherError, GatherOptions, Gatherer, config, logs};
use crate::facts::Facts;
use crate::{Examination, examine};

/// An answer: status, type, body.
type Answer = (u16, &'static str, String);

/// An API server that knows some paths, and the pods behind it.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<BTreeMap<String, Answer>>,
    /// What was asked, with its query.
    asked: Arc<Mutex<Vec<String>>>,
    /// A path that never answers.
    mute: Option<&'static str>,
}

fn status(code: u16, message: &str) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    (code, "application/json", status.to_string())
}

fn object(value: Value) -> Answer {
    (200, "application/json", value.to_string())
}

fn list(items: Value) -> Answer {
    object(json!({"kind": "List", "metadata": {}, "items": items}))
}

impl Server {
    fn new(answers: Vec<(&str, Answer)>) -> Self {
        let mut all: BTreeMap<String, Answer> = answers.into_iter().map(|(path, answer)| (path.to_owned(), answer)).collect();
        all.entry("/version".into()).or_insert_with(|| object(json!({"gitVersion": "v1.34.4"})));
        Self { answers: Arc::new(all), ..Self::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            let uri = request.uri().clone();
            async move { Ok::<_, std::io::Error>(server.answer(&uri).await) }
        });
        Client::new(service, "home")
    }

    async fn answer(&self, uri: &http::Uri) -> Response<Body> {
        let path = uri.path().to_owned();
        self.asked.lock().unwrap().push(uri.to_string());
        if self.mute == Some(path.as_str()) {
            std::future::pending::<()>().await;
        }
        let next = uri.query().is_some_and(|query| query.contains("continue="));
        let key = if next { format!("{path}+") } else { path };
        let (code, kind, body) =
            self.answers.get(&key).cloned().unwrap_or_else(|| status(404, "the server could not find the requested resource"));
        Response::builder().status(code).header("content-type", kind).body(Body::from(body.into_bytes())).unwrap()
    }

    async fn gather(&self, options: GatherOptions) -> Result<Facts, GatherError> {
        Gatherer::new(self.client(), options).gather(SystemTime::UNIX_EPOCH, &|_| {}).await
    }

    async fn examine(&self) -> (Facts, Examination) {
        let facts = self.gather(GatherOptions::default()).await.unwrap();
        let examination = examine(&facts);
        (facts, examination)
    }
}

const POOLS: &str = "/apis/inference.networking.k8s.io/v1/inferencepools";
const PODS: &str = "/api/v1/pods";
const PAGE: &str = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0\n\
                    vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 1.0\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.5\n";

fn pool() -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "selector": {"matchLabels": {"app": "p"}}, "targetPorts": [{"number": 8000}], "endpointPickerRef": {"name": "p-epp", "port": {"number": 9002}},
    }})
}

fn pod(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"app": app}, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{\"password\": \"hunter2\"}",
        }},
        "spec": {"containers": [{
            "name": "c", "image": "i", "args": ["serve", "--api-key=hunter2", "--port=8000"], "command": ["sh", "-c", "hunter2"],
            "env": [{"name": "HF_TOKEN", "value": "hunter2"}],
        }]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "message": "Bearer hunter2"}]},
    })
}

/// A pool of one server with a picker, all of it well.
fn well() -> Vec<(&'static str, Answer)> {
    let service = json!({"metadata": {"name": "p-epp", "namespace": "n"}, "spec": {"selector": {"app": "e"}, "ports": [{"name": "grpc", "port": 9002}]}});
    vec![
        (POOLS, list(json!([pool()]))),
        (PODS, list(json!([pod("a", "p"), pod("e", "e")]))),
        ("/api/v1/services", list(json!([service]))),
        ("/apis/apps/v1/deployments", list(json!([]))),
        ("/apis/apps/v1/statefulsets", list(json!([]))),
        ("/apis/batch/v1/jobs", list(json!([]))),
        ("/apis/policy/v1/poddisruptionbudgets", list(json!([]))),
        ("/apis/autoscaling/v2/horizontalpodautoscalers", list(json!([]))),
        ("/api/v1/events", list(json!([]))),
        ("/api/v1/nodes", list(json!([]))),
        ("/api/v1/namespaces/n/pods/a:8000/proxy/metrics", (200, "text/plain; version=0.0.4", PAGE.to_owned())),
        ("/api/v1/namespaces/n/pods/a:8000/proxy/v1/models", object(json!({"data": [{"id": "m"}]}))),
        ("/api/v1/namespaces/n/pods/e/log", (200, "text/plain", "all is well\nmy prompt is hunter2\n".to_owned())),
    ]
}

fn with(mut answers: Vec<(&'static str, Answer)>, path: &'static str, answer: Answer) -> Server {
    answers.retain(|(known, _)| *known != path);
    answers.push((path, answer));
    Server::new(answers)
}

fn codes(examination: &Examination) -> Vec<&'static str> {
    examination.findings.iter().map(|finding| finding.code).collect()
}

fn unknown(examination: &Examination) -> Vec<(&'static str, &str)> {
    examination.not_known.iter().map(|missing| (missing.facts, missing.why.as_str())).collect()
}

#[tokio::test]
async fn a_cluster_that_is_well_is_found_well_and_nothing_secret_is_taken_in() {
    let (facts, examination) = Server::new(well()).examine().await;
    assert_eq!(codes(&examination), Vec::<&str>::new(), "{:#?}", examination.findings);
    assert_eq!(unknown(&examination), []);
    let page = facts.pages.iter().next().unwrap();
    assert_eq!(
        (page.engine.as_deref(), page.running, page.waiting, page.kv_cache_utilization),
        (Some("vllm"), Some(3.0), Some(1.0), Some(0.5))
    );
    assert_eq!(facts.served_models.iter().next().unwrap().ids.as_deref(), Some(&["m".to_owned()][..]));
    assert_eq!((facts.kubernetes.as_deref(), facts.recorded_at.as_deref()), (Some("v1.34.4"), Some("1970-01-01T00:00:00Z")));
    let record = serde_json::to_string(&facts).unwrap();
    assert!(!record.contains("hunter2") && record.contains("--port=8000"), "{record}");
    assert_eq!(serde_json::to_string(&Facts::parse(&record).unwrap()).unwrap(), record);
}

#[tokio::test]
async fn pages_that_fail_are_told_apart() {
    let page = "/api/v1/namespaces/n/pods/a:8000/proxy/metrics";
    let dial = "error trying to reach service: dial tcp 10.0.0.1:8000: connect: ";
    for (answer, code) in [
        (status(503, &format!("{dial}connection refused")), "server-port-refused"),
        (status(503, &format!("{dial}i/o timeout")), "page-unreachable"),
        ((401, "text/plain", "no".into()), "page-unauthorized"),
        ((403, "text/plain", "RBAC: access denied".into()), "page-forbidden"),
        ((404, "text/plain", "no".into()), "page-absent"),
        ((500, "text/plain", "oops".into()), "page-unreachable"),
        ((200, "text/plain", String::new()), "page-empty"),
        ((200, "text/html", "<!DOCTYPE html><html></html>\n".into()), "page-engine-unknown"),
        ((200, "text/plain", "go_goroutines 7\n".into()), "page-engine-unknown"),
        ((200, "text/plain", "vllm:num_requests_running 1\n".into()), "page-family-missing"),
    ] {
        let told = format!("{answer:?}");
        let (_, examination) = with(well(), page, answer).examine().await;
        assert_eq!(codes(&examination), [code], "{told}");
    }
    // What the API server itself does not allow says nothing of the pod.
    let forbidden = status(
        403,
        "pods \"a\" is forbidden: User \"u\" cannot get resource \"pods/proxy\" in API group \"\" in the namespace \"n\"",
    );
    let (_, examination) = with(well(), page, forbidden).examine().await;
    assert_eq!(codes(&examination), Vec::<&str>::new());
    assert_eq!(unknown(&examination), [("pages", "forbidden: get pods/proxy"), ("servedModels", "forbidden: get pods/proxy")]);
}

#[tokio::test]
async fn a_page_at_its_other_place_is_found() {
    let page = "trtllm_num_requests_running{model_name=\"m\"} 1\ntrtllm_num_requests_waiting{model_name=\"m\"} 0\ntrtllm_kv_cache_utilization{model_name=\"m\"} 0.1\n";
    let mut answers = well();
    answers.push(("/api/v1/namespaces/n/pods/a:8000/proxy/prometheus/metrics", (200, "text/plain", page.to_owned())));
    let server = with(answers, "/api/v1/namespaces/n/pods/a:8000/proxy/metrics", (404, "text/plain", String::new()));
    let (facts, examination) = server.examine().await;
    assert!(!codes(&examination).contains(&"page-absent"), "{:?}", facts.pages);
    assert_eq!(facts.pages.iter().next().unwrap().path.as_deref(), Some("/prometheus/metrics"));
}

#[tokio::test]
async fn what_may_not_be_read_is_a_fact() {
    let jobs = "/apis/batch/v1/jobs";
    let (_, examination) = with(well(), jobs, status(403, "jobs.batch is forbidden")).examine().await;
    assert_eq!(codes(&examination), Vec::<&str>::new());
    let missing = &examination.not_known[0];
    assert_eq!(
        (missing.facts, missing.why.as_str(), missing.checks.as_slice()),
        ("jobs", "forbidden: list jobs.batch in all namespaces", &["job-stuck"][..])
    );

    let (_, examination) = with(well(), jobs, status(500, "etcd is away")).examine().await;
    assert_eq!(unknown(&examination), [("jobs", "list jobs.batch in all namespaces: etcd is away")]);
    let (_, examination) = with(well(), jobs, (200, "application/json", "{".into())).examine().await;
    assert!(examination.not_known[0].why.contains("no JSON"));
    let (_, examination) = with(well(), jobs, list(json!([{"metadata": {"name": 3}}]))).examine().await;
    assert!(examination.not_known[0].why.contains("not understood: ?"), "{:?}", examination.not_known);
}

#[tokio::test]
async fn where_all_namespaces_may_not_be_listed_the_kubeconfigs_own_is() {
    let mut answers = well();
    let mut own = pod("a", "p");
    own["metadata"]["namespace"] = json!("home");
    answers.push(("/api/v1/namespaces/home/pods", list(json!([own]))));
    let (facts, examination) = with(answers, PODS, status(403, "forbidden")).examine().await;
    assert_eq!(facts.pods.iter().count(), 1);
    assert_eq!(codes(&examination), Vec::<&str>::new(), "{:#?}", examination.findings);
    assert_eq!(unknown(&examination), [("pods", "forbidden: list pods in all namespaces")]);
}

#[tokio::test]
async fn of_a_kind_with_several_versions_the_one_that_is_served_is_read() {
    let grant = json!({"metadata": {"name": "g", "namespace": "n"}});
    let mut answers = well();
    answers.push(("/apis/gateway.networking.k8s.io/v1/referencegrants", list(json!([grant]))));
    let (facts, _) = Server::new(answers).examine().await;
    assert_eq!(facts.grants.iter().count(), 1);
    assert!(facts.destination_rules.not_served());
}

#[tokio::test]
async fn one_namespace_alone_is_asked_for() {
    let server = Server::new(vec![]);
    server.gather(GatherOptions { namespace: Some("n/../x".into()), ..GatherOptions::default() }).await.unwrap();
    let asked = server.asked.lock().unwrap();
    assert!(asked.iter().any(|path| path.starts_with("/api/v1/namespaces/n%2F%2E%2E%2Fx/pods?limit=")), "{asked:?}");
    assert!(!asked.iter().any(|path| path.starts_with("/api/v1/pods")));
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let mut answers = well();
    let first = object(json!({"metadata": {"continue": "a b"}, "items": [pod("a", "p")]}));
    answers.push(("/api/v1/pods+", list(json!([pod("e", "e")]))));
    let server = with(answers, PODS, first);
    let (facts, examination) = server.examine().await;
    assert_eq!((facts.pods.iter().count(), codes(&examination).len()), (2, 0));
    assert!(server.asked.lock().unwrap().iter().any(|path| path.ends_with("&continue=a%20b")));
}

#[tokio::test(start_paused = true)]
async fn what_hangs_costs_its_own_time_and_no_more() {
    let server = Server { mute: Some("/apis/batch/v1/jobs"), ..Server::new(well()) };
    let begin = tokio::time::Instant::now();
    let (_, examination) = server.examine().await;
    assert!(begin.elapsed() < Duration::from_secs(6));
    assert_eq!(unknown(&examination), [("jobs", "list jobs.batch in all namespaces: no answer within 5s")]);
    let server = Server { mute: Some("/api/v1/namespaces/n/pods/a:8000/proxy/metrics"), ..Server::new(well()) };
    assert_eq!(codes(&server.examine().await.1), ["page-unreachable"]);
}

#[tokio::test]
async fn without_an_api_server_there_are_no_facts() {
    let refused = with(vec![], "/version", status(401, "Unauthorized")).gather(GatherOptions::default()).await;
    assert!(matches!(refused, Err(GatherError::Unauthorized)));
    let down = with(vec![], "/version", status(503, "starting")).gather(GatherOptions::default()).await;
    assert!(down.unwrap_err().to_string().contains("starting"));
}

#[test]
fn signs_are_read_off_lines_and_lines_are_not_kept() {
    let line = r#"E1121 reflector.go:200] failed to list *v1.Pod: pods is forbidden: User "system:serviceaccount:n:epp" cannot list resource "pods" in API group "" in the namespace "n""#;
    let sign = logs::sign(line).unwrap();
    assert_eq!(
        (sign.verb.as_deref(), sign.resource.as_deref(), sign.group.as_deref(), sign.within.as_deref()),
        (Some("list"), Some("pods"), Some(""), Some("n"))
    );
    let json = r#"{"msg":"inferencepools.inference.networking.k8s.io \"p\" is forbidden: User \"u\" cannot get resource \"inferencepools\" in API group \"inference.networking.k8s.io\" at the cluster scope"}"#;
    let sign = logs::sign(json).unwrap();
    assert_eq!(
        (sign.verb.as_deref(), sign.group.as_deref(), sign.within.as_deref()),
        (Some("get"), Some("inference.networking.k8s.io"), Some(""))
    );
    for (line, status) in [
        ("traces export: failed to send to http://otel:4318/v1/traces: 401 Unauthorized", 401),
        ("rpc error exporting traces: code = PermissionDenied", 403),
        ("OTLP trace exporter: server answered 404 Not Found", 404),
    ] {
        assert_eq!(logs::sign(line).and_then(|sign| sign.status), Some(status), "{line}");
    }
    for line in
        ["all is well", "request 401 of user", "trace id 4014", "x is forbidden", "is forbidden: cannot list resource \"a b;c\""]
    {
        assert!(logs::sign(line).is_none(), "{line}");
    }
}

#[test]
fn of_a_configuration_plugins_and_weights_are_taken() {
    let text = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins:\n- type: queue-scorer\n\
                - {type: utilization-detector, parameters: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.7, secret: hunter2}}\n\
                schedulingProfiles:\n- name: default\n  plugins: [{pluginRef: queue-scorer, weight: 2}]\n";
    let config = config::understand(text);
    let plugins = config.plugins.as_deref().unwrap();
    assert_eq!((plugins[1].queue_depth_threshold, plugins[1].kv_cache_util_threshold), (Some(9.0), Some(0.7)));
    assert_eq!(config.profiles.as_deref().unwrap()[0].plugins.as_deref().unwrap()[0].weight, Some(2.0));
    assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
    assert!(config::understand("plugins: 3").unreadable.is_some());
    assert!(config::understand("plugins: [").unreadable.is_some());
}

proptest::proptest! {
    #[test]
    fn any_line_and_any_configuration_is_taken(text in ".{0,300}") {
        logs::sign(&text);
        logs::sign(&format!("pods is forbidden: {text} cannot {text} resource \"{text}"));
        config::understand(&text);
    }
}
