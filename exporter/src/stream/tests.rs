use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tower::ServiceExt;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::stream::{FRAMES_APART, Frame, HEARTBEAT};
use weir_datastore::{EndpointSpec, EndpointWriter, PickerLoad, PickerWriter, PoolSpec, TopologyWriter, datastore};

use super::*;
use crate::{page, register, router};
use axum::Router;

const PATH: &str = "/api/v1/pools/default/llama?watch=1";
const SECOND: Duration = Duration::from_secs(1);

/// A pool of two endpoints and two pickers, and its exporter.
struct Rig {
    topology: TopologyWriter,
    endpoints: Vec<EndpointWriter>,
    pickers: Vec<PickerWriter>,
    router: Router,
    registry: Arc<Registry>,
}

fn spec() -> PoolSpec {
    let endpoints = ["10.0.0.1:8000", "10.0.0.2:8000"].map(|address| EndpointSpec::standalone(address.parse().unwrap()));
    let pickers = Some(vec!["a".into(), "b".into()]);
    PoolSpec { endpoints: endpoints.into(), pickers, ..PoolSpec::empty(PoolId::new("default", "llama")) }
}

impl Rig {
    fn new() -> Self {
        let (store, mut topology) = datastore();
        let change = topology.replace_all(vec![spec()], Instant::now());
        let mut registry = Registry::default();
        let streams = register(&mut registry, store.clone(), 100);
        let registry = Arc::new(registry);
        let router = router(store, registry.clone(), streams);
        Self { topology, endpoints: change.added, pickers: change.added_pickers, router, registry }
    }

    fn read(&mut self, endpoint: usize, running: u32) {
        let page = format!("vllm:num_requests_running {running}\n");
        let clock = PageClock { asked_at: Instant::now(), wall_ms: 0, stale_after_ms: 2_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        self.endpoints[endpoint].succeeded(load, SECOND);
    }

    fn hold(&mut self, picker: usize, held: u64) {
        self.pickers[picker].succeeded(
            PickerLoad { read_at: Instant::now(), held: Some(held), in_flight: None, arrivals: 0, prompt_tokens: None },
            SECOND,
        );
    }

    async fn get(&self, path: &str) -> Response {
        self.router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn stream(&self) -> Reader {
        let response = self.get(PATH).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        Reader { body: response.into_body(), expected: 0 }
    }

    fn served(&self) -> f64 {
        let page = page::render(&self.registry, page::PageFormat::Text).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("weir_stream_served "));
        line.unwrap().parse().unwrap()
    }
}

struct Reader {
    body: Body,
    expected: u64,
}

impl Reader {
    /// The next frame, and how long it took.
    async fn next(&mut self) -> (Frame, Duration) {
        let start = Instant::now();
        let bytes = self.body.frame().await.expect("the stream goes on").unwrap().into_data().unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(bytes.last(), Some(&b'\n'));
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(frame.sequence, self.expected, "no frame is missing");
        self.expected += 1;
        (frame, start.elapsed())
    }
}

fn running(frame: &Frame) -> Vec<(String, f64)> {
    let running = |endpoint: &weir_datastore::stream::EndpointFrame| (endpoint.address.clone(), endpoint.running.unwrap().value);
    let mut told: Vec<_> = frame.endpoints.iter().map(running).collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

fn told(address: &str, running: f64) -> (String, f64) {
    (address.to_owned(), running)
}

#[tokio::test(start_paused = true)]
async fn first_all_that_is_known_then_what_is_new_then_heartbeats() {
    let mut rig = Rig::new();
    rig.read(0, 3);
    rig.read(1, 4);
    rig.hold(0, 5);
    tokio::time::advance(SECOND / 4).await;
    let mut stream = rig.stream().await;
    assert_eq!(rig.served(), 1.0);
    let (first, took) = stream.next().await;
    assert_eq!(took, Duration::ZERO);
    assert_eq!(running(&first), [told("10.0.0.1:8000", 3.0), told("10.0.0.2:8000", 4.0)]);
    assert_eq!((first.endpoints[0].age_ms, first.endpoints[0].interval_ms), (250, 1000));
    // The picker that was never read is there, and tells no reader that it holds nothing.
    assert_eq!(first.pickers.len(), 2);
    assert_eq!((first.pickers[0].held, first.pickers[0].age_ms), (Some(5), 250));
    assert_eq!(first.pickers[1].load(Instant::now()), None);

    rig.read(1, 6);
    rig.read(1, 7);
    let (second, took) = stream.next().await;
    assert_eq!(running(&second), [told("10.0.0.2:8000", 7.0)], "only what is new, and of that the youngest");
    assert_eq!((took, second.pickers.len()), (FRAMES_APART, 2));
    let (heartbeat, took) = stream.next().await;
    assert_eq!((running(&heartbeat), took, heartbeat.pickers.len()), (Vec::new(), HEARTBEAT, 2));

    // What changes nothing is no news.
    rig.endpoints[0].failed(weir_datastore::FailureKind::Timeout, "no answer", Instant::now());
    assert_eq!(stream.next().await.1, HEARTBEAT);
    drop(stream);
    assert_eq!(rig.served(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_first_held_request_does_not_wait_for_its_turn() {
    let mut rig = Rig::new();
    rig.hold(0, 0);
    let mut stream = rig.stream().await;
    stream.next().await;
    tokio::time::advance(Duration::from_millis(30)).await;
    rig.hold(0, 1);
    let (frame, took) = stream.next().await;
    assert_eq!((frame.pickers[0].held, took), (Some(1), Duration::ZERO));
    // More of them are told of in their turn.
    rig.hold(0, 2);
    let (frame, took) = stream.next().await;
    assert_eq!((frame.pickers[0].held, took), (Some(2), FRAMES_APART));
    // Not even where the topology has just changed.
    tokio::time::advance(Duration::from_millis(20)).await;
    rig.topology.replace_all(vec![spec()], Instant::now());
    rig.hold(1, 1);
    let (frame, took) = stream.next().await;
    assert_eq!((frame.pickers[1].held, took), (Some(1), Duration::ZERO));
    // A picker that wavers cannot make it a flood.
    for _ in 0..5 {
        rig.hold(1, 0);
        rig.hold(1, 1);
        assert!(stream.next().await.1 >= Duration::from_millis(10));
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_newer_data_later_and_never_a_queue() {
    let mut rig = Rig::new();
    let mut stream = rig.stream().await;
    stream.next().await;
    for running in 0..1000 {
        rig.read(0, running);
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let (frame, took) = stream.next().await;
    assert_eq!((running(&frame), took), (vec![told("10.0.0.1:8000", 999.0)], Duration::ZERO));
    assert_eq!(running(&stream.next().await.0), [], "there is no second frame about the past");
    // What is too old to count is not told.
    rig.read(0, 1);
    tokio::time::advance(6 * SECOND).await;
    assert_eq!(running(&stream.next().await.0), []);
    assert_eq!(running(&rig.stream().await.next().await.0), []);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_ends_its_stream_after_a_last_frame() {
    let mut rig = Rig::new();
    rig.hold(0, 5);
    let mut stream = rig.stream().await;
    stream.next().await;
    rig.read(0, 8);
    rig.topology.replace_all(Vec::new(), Instant::now());
    let (last, _) = stream.next().await;
    assert_eq!((running(&last), last.pickers[0].held), (vec![told("10.0.0.1:8000", 8.0)], Some(5)));
    assert!(stream.body.frame().await.is_none());
    assert_eq!(rig.served(), 0.0);

    // One that comes back under its name is another pool, and told of from the start.
    let change = rig.topology.replace_all(vec![spec()], Instant::now());
    (rig.endpoints, rig.pickers) = (change.added, change.added_pickers);
    let mut stream = rig.stream().await;
    assert_eq!(running(&stream.next().await.0), []);
    let change = rig.topology.replace_all(vec![PoolSpec { pickers: None, ..spec() }], Instant::now());
    assert!(change.added.is_empty());
    rig.read(1, 9);
    let (frame, _) = stream.next().await;
    assert_eq!((running(&frame), frame.pickers.len()), (vec![told("10.0.0.2:8000", 9.0)], 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_ends_its_streams_after_a_last_frame() {
    let mut rig = Rig::new();
    let (store, _topology) = {
        let (store, mut topology) = datastore();
        let change = topology.replace_all(vec![spec()], Instant::now());
        rig.endpoints = change.added;
        (store, topology)
    };
    let closing = CancellationToken::new();
    let streams = Streams::register(&mut Registry::default());
    let response = streams.answer(&store, PoolId::new("default", "llama"), Some(closing.clone()));
    let mut stream = Reader { body: response.into_body(), expected: 0 };
    stream.next().await;
    rig.read(0, 8);
    closing.cancel();
    let (last, took) = stream.next().await;
    assert_eq!((running(&last), took), (vec![told("10.0.0.1:8000", 8.0)], Duration::ZERO));
    assert!(stream.body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn there_are_only_so_many_streams_and_refusals_say_why() {
    let rig = Rig::new();
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(rig.stream().await);
    }
    assert_eq!(rig.served(), 64.0);
    let refused = rig.get(PATH).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&refused.headers()["retry-after"], &refused.headers()["weir-stream"]),
        (&"5".parse().unwrap(), &"1".parse().unwrap())
    );
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("64 streams are being served"));
    open.pop();
    rig.stream().await;

    let refused = |path: &'static str| {
        let response = rig.get(path);
        async move {
            let response = response.await;
            let (status, marked) = (response.status(), response.headers().contains_key("weir-stream"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status.as_u16(), marked, String::from_utf8_lossy(&body).into_owned())
        }
    };
    let (status, marked, body) = refused("/api/v1/pools/default/nope?watch=true").await;
    assert_eq!((status, marked), (404, true));
    assert!(body.contains("no pool default/nope; known here: default/llama"), "{body}");
    assert_eq!(refused("/api/v1/pools/default/llama?watch=perhaps").await.0, 400);
    for path in ["/api/v1/pools/default/llama?watch=0", "/api/v1/pools/default/llama?x=watch", "/api/v1/pools/default/llama"] {
        let (status, marked, body) = refused(path).await;
        assert_eq!((status, marked), (200, false));
        assert!(body.contains("\"coverage\""), "{path}: {body}");
    }
    assert!(timeout(SECOND, rig.stream()).await.is_ok());
}

#[test]
fn the_frame_of_the_documentation_is_one() {
    let document = include_str!("../../../docs/stream.md");
    let example = document.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap().replace('\n', "");
    let frame = Frame::parse(example.as_bytes()).unwrap();
    let now = Instant::now() + SECOND;
    let (address, load, _) = frame.endpoints[0].clone().into_load(now).unwrap();
    assert_eq!((address.as_str(), load.running.unwrap().value), ("10.0.0.6:8000", 3.0));
    assert_eq!(frame.pickers[0].load(now).unwrap().held, Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_a_picker_measured_is_told_once_each_time_it_sums_up() {
    use weir_datastore::latency::{Latency, Meter};
    let mut rig = Rig::new();
    rig.read(0, 3);
    let mut meter = Meter::new(Instant::now());
    (0..20).for_each(|_| meter.observe(&"m".into(), Latency::TimeToFirstToken, 0.5));
    let name = "a".into();
    rig.pickers[0].measured(&name, meter.close(Instant::now()));
    let mut stream = rig.stream().await;
    let (first, _) = stream.next().await;
    let [told] = &first.latencies[..] else { panic!("{first:?}") };
    assert_eq!((&*told.picker, told.age_ms, told.models[0].ttft[0].1), ("a", 0, 20));
    assert!(serde_json::to_vec(&told).unwrap().len() < 100, "a frame stays small");
    let (heartbeat, took) = stream.next().await;
    assert_eq!((heartbeat.latencies.len(), took), (0, HEARTBEAT));
    rig.pickers[0].measured(&name, meter.close(Instant::now()));
    let (next, took) = stream.next().await;
    assert_eq!(next.latencies.len(), 1);
    assert!(took <= FRAMES_APART, "{took:?}");
    // Who hears of it knows what the pool's servers took.
    let (picker, heard) = next.latencies[0].clone().into_measured(Instant::now()).unwrap();
    let (_, mut topology) = datastore();
    let mut change = topology.replace_all(vec![spec()], Instant::now());
    change.added_pickers.remove(0).measured(&picker, heard);
    assert!(!change.added[0].wants_latencies(Instant::now()));
}
