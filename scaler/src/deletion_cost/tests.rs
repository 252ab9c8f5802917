//! Looks at pools and the patches they lead to, against an API server that notes what it is asked.

use std::sync::Mutex;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::runtime::watcher::Event;
use serde_json::Value;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, EndpointState, EndpointWriter, FailureKind, PoolId, PoolSpec, datastore};

use super::*;

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers every patch with `code`.
fn client(code: StatusCode) -> (Client, Asked) {
    let asked = Asked::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = log.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            log.lock().unwrap().push((parts.uri.path().to_owned(), body));
            let answer = if code == StatusCode::OK {
                json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {} })
            } else {
                json!({ "kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": "x", "message": "because" })
            };
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    (Client::new(service, "n"), asked)
}

struct Bench {
    cost: DeletionCost,
    writers: Vec<EndpointWriter>,
    asked: Asked,
}

/// A pool of pods with these uids, a rank each; the uid twice is two ranks.
fn bench(ranks: &[&str], code: StatusCode, writes: Writes) -> Bench {
    let (store, mut topology) = datastore();
    let mut spec = PoolSpec::empty(PoolId::new("n", "pool"));
    let mut pods = vec![Event::Init];
    for (index, uid) in ranks.iter().enumerate() {
        let mut endpoint = EndpointSpec::standalone(format!("10.0.0.{index}:8000").parse().unwrap());
        (endpoint.pod, endpoint.pod_uid, endpoint.rank) = ((*uid).into(), (*uid).into(), index as u16);
        spec.endpoints.push(endpoint);
        let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v", "controller": true });
        let pod = json!({ "metadata": { "name": uid, "namespace": "n", "uid": uid, "ownerReferences": [owner] } });
        pods.push(Event::InitApply(serde_json::from_value(pod).unwrap()));
    }
    pods.push(Event::InitDone);
    let writers = topology.upsert(spec, Instant::now()).added;
    let (client, asked) = client(code);
    let settings = DeletionCostSettings { patches_per_minute: 2, ..DeletionCostSettings::default() };
    let mut cost = DeletionCost::new(client, store, settings, writes, DeletionCostMetrics::default());
    pods.into_iter().for_each(|event| cost.pods.take_in(event));
    Bench { cost, writers, asked }
}

impl Bench {
    fn reads(&mut self, rank: usize, running: u32) {
        let page = format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n");
        let clock = PageClock { asked_at: Instant::now(), wall_ms: 0, stale_after_ms: 60_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        self.writers[rank].succeeded(load, Duration::from_secs(1));
    }

    /// What was patched at one look: uid and cost.
    async fn patched(&mut self) -> Vec<(String, String)> {
        let due = self.cost.look(Instant::now());
        self.cost.patch(due).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut asked = self.asked.lock().unwrap();
        asked
            .drain(..)
            .map(|(path, body)| {
                let metadata = &body["metadata"];
                assert_eq!(path, format!("/api/v1/namespaces/n/pods/{}", text(&metadata["uid"])));
                assert_eq!(metadata["annotations"].as_object().unwrap().len(), 1, "nothing else of the pod is touched: {body}");
                assert_eq!(body.as_object().unwrap().len(), 1);
                (text(&metadata["uid"]), text(&metadata["annotations"][ANNOTATION]))
            })
            .collect()
    }
}

fn leading() -> Writes {
    Writes::WhileLeading(Leader::always())
}

fn of(patches: &[(&str, &str)]) -> Vec<(String, String)> {
    patches.iter().map(|(uid, cost)| ((*uid).to_owned(), (*cost).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn busy_pods_are_written_first_within_the_budget_and_unknown_ones_not_at_all() {
    let mut bench = bench(&["idle", "busy", "busier", "silent"], StatusCode::OK, leading());
    bench.reads(0, 0);
    bench.reads(1, 1);
    bench.reads(2, 40);
    bench.writers[3].failed(FailureKind::Timeout, "no answer", Instant::now());
    assert_eq!(bench.patched().await, of(&[("busier", "60"), ("busy", "10")]));
    assert_eq!(bench.patched().await, [], "two a minute are spent");
    tokio::time::advance(Duration::from_secs(60)).await;
    for (rank, running) in [(0, 0), (1, 1), (2, 40)] {
        bench.reads(rank, running);
    }
    assert_eq!(bench.patched().await, of(&[("idle", "-10")]));
    assert_eq!(bench.patched().await, [], "all is as it should be");
    // Too old a page tells nothing.
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(bench.patched().await, []);
}

#[tokio::test(start_paused = true)]
async fn all_ranks_of_a_pod_count_and_one_that_is_silent_makes_it_unknown() {
    let mut bench = bench(&["pod", "pod"], StatusCode::OK, leading());
    bench.reads(0, 20);
    assert_eq!(bench.patched().await, []);
    bench.reads(1, 20);
    assert_eq!(bench.patched().await, of(&[("pod", "60")]));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_and_a_follower_write_nothing() {
    for writes in [Writes::DryRun, Writes::WhileLeading(Leader::never())] {
        let mut bench = bench(&["a"], StatusCode::OK, writes);
        bench.reads(0, 3);
        assert_eq!(bench.patched().await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_look_and_a_pod_that_is_gone_does_not() {
    for (code, asked) in [(StatusCode::FORBIDDEN, 1), (StatusCode::NOT_FOUND, 2), (StatusCode::CONFLICT, 2)] {
        let mut bench = bench(&["a", "b"], code, leading());
        bench.reads(0, 3);
        bench.reads(1, 3);
        assert_eq!(bench.patched().await.len(), asked, "{code}");
        assert_eq!(bench.cost.failure.is_some(), code == StatusCode::FORBIDDEN);
    }
}

#[tokio::test(start_paused = true)]
async fn a_terminating_pod_is_left_alone() {
    let (store, mut topology) = datastore();
    let mut spec = PoolSpec::empty(PoolId::new("n", "pool"));
    let mut endpoint = EndpointSpec::standalone("10.0.0.1:8000".parse().unwrap());
    (endpoint.pod_uid, endpoint.state) = ("u".into(), EndpointState::Terminating);
    spec.endpoints.push(endpoint);
    drop(topology.upsert(spec, Instant::now()));
    assert!(loads_of_pods(&store.snapshots(Instant::now())).is_empty());
}
