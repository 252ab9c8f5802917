//! Go pickers' pages, and streams as another weir might send them, over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_datastore::stream::{EndpointFrame, Frame, PickerFrame, SILENCE, VERSION};
use weir_datastore::{FailureKind, PickerLoad, PickerStatus};

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server, page};
use crate::{Access, WantedPicker, WantedPool};

const HELD: &str = "inference_extension_flow_control_queue_size";

/// What a Go picker shows that holds `held` requests; with none its flow control is off, as a standby's.
fn picker_page(held: Option<u32>) -> String {
    let info = "# TYPE inference_extension_info gauge\ninference_extension_info{commit=\"x\",build_ref=\"y\"} 1\n";
    match held {
        Some(held) => format!("{info}{HELD}{{fairness_id=\"a\",inference_pool=\"llama\",priority=\"0\"}} {held}\n"),
        None => info.to_owned(),
    }
}

/// A server that knows a picker's page and nothing else, as the Go ones.
fn go_picker(page: String) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    move |head| match head.starts_with("GET /metrics ") {
        true => Answer::Page(page.clone()),
        false => Answer::http("404 Not Found", "Content-Type: text/plain\r\n", "404 page not found\n"),
    }
}

fn with_pickers(endpoints: &[SocketAddr], pickers: &[&Server]) -> WantedPool {
    let mut pool = pool(endpoints);
    for picker in pickers {
        let (name, url) = (picker.address.to_string().into(), format!("http://{}/metrics", picker.address).into());
        pool.pickers.push(WantedPicker { name, url, access: Access::default() });
    }
    pool.spec.pickers = Some(pool.pickers.iter().map(|picker| picker.name.clone()).collect());
    pool
}

impl Rig {
    fn held(&self) -> Result<f64, String> {
        let snapshot = self.snapshot().ok_or("no pool")?;
        snapshot.held.map(|held| held.value).map_err(|unknown| unknown.to_string())
    }

    fn picker(&self, picker: &Server) -> std::sync::Arc<PickerStatus> {
        // The pool may not be there yet.
        let pickers = self.snapshot().map(|snapshot| snapshot.pickers).unwrap_or_default();
        let called = picker.address.to_string();
        pickers.into_iter().find(|view| *view.name == called).map(|view| view.status).unwrap_or_default()
    }

    async fn until_held(&self, held: f64) {
        eventually(&format!("{held} held"), || self.held() == Ok(held)).await;
    }
}

#[tokio::test]
async fn all_replicas_of_a_go_picker_are_read_and_a_standby_adds_nothing() {
    let (leader, other) =
        (Server::start(go_picker(picker_page(Some(7)))).await, Server::start(go_picker(picker_page(Some(5)))).await);
    let standby = Server::start(go_picker(picker_page(None))).await;
    let rig = Rig::start(quick(), vec![with_pickers(&[], &[&leader, &other, &standby])]);
    rig.until_held(12.0).await;
    assert_eq!(rig.snapshot().unwrap().total_queue_size().unwrap().value, 12.0, "held belongs to the total");
    leader.set(go_picker(picker_page(Some(9))));
    rig.until_held(14.0).await;
    assert_eq!(rig.picker(&standby).load.unwrap().held, None);
    // The stream was looked for once; the rest were pages.
    let streams = leader.paths().iter().filter(|path| **path == "/api/v1/pools/default/llama?watch=1").count();
    assert_eq!((streams, leader.paths()[1].as_str()), (1, "/metrics"));
    assert!(rig.metric("weir_picker_reads_total{outcome=\"ok\"}") >= 4.0);
    assert_eq!(rig.metric("weir_streams_followed"), 0.0);
    rig.stop().await;
}

#[tokio::test]
async fn the_pages_of_the_go_pickers_that_there_are_can_be_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/metrics");
    for name in ["gie-epp-1.5.0.prom", "llm-d-router-0.9.0.prom"] {
        let Ok(page) = std::fs::read_to_string(folder.join(name)) else {
            assert!(std::env::var_os("CI").is_none(), "the fixture pages must be beside the repository in CI");
            eprintln!("{name} not found: skipped");
            continue;
        };
        let samples = |family: &str| -> Vec<(String, f64)> {
            let of_family = |line: &&str| line.starts_with(&format!("{family}{{"));
            page.lines()
                .filter(of_family)
                .filter_map(|line| line.rsplit_once(' '))
                .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
                .collect()
        };
        let queue = samples(HELD);
        let renamed = samples("llm_d_epp_flow_control_queue_size");
        let expected = if renamed.is_empty() { &queue } else { &renamed };
        // The pool is called as on the page.
        let called = |series: &str| Some(series.split("inference_pool=\"").nth(1)?.split('"').next()?.to_owned());
        let name_on_page = expected.iter().find_map(|(series, _)| called(series)).expect("the page names its pool");
        let picker = Server::start(go_picker(page.clone())).await;
        let mut pool = with_pickers(&[], &[&picker]);
        pool.spec.id = weir_datastore::PoolId::new("default", &name_on_page);
        let rig = Rig::start(quick(), vec![pool.clone()]);
        let everything = weir_datastore::Selector::everything();
        let status = || {
            rig.datastore.snapshot(&pool.spec.id, &everything, Instant::now()).map(|snapshot| snapshot.pickers[0].status.clone())
        };
        eventually("the page is read", || status().is_some_and(|status| status.load.is_some() || status.failure.is_some())).await;
        let status = status().unwrap();
        let sum =
            expected.iter().filter(|(series, _)| called(series).as_ref() == Some(&name_on_page)).map(|(_, held)| held).sum::<f64>();
        assert_eq!(status.load.unwrap_or_else(|| panic!("{name}: {:?}", status.failure)).held, Some(sum as u64), "{name}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_picker_that_wants_a_token_says_so_until_it_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "of-the-reader\n").unwrap();
    let open = go_picker(picker_page(Some(3)));
    let picker = Server::start(move |head| match head.to_ascii_lowercase().contains("authorization: bearer of-the-reader\r\n") {
        true => open(head),
        false => Answer::http("401 Unauthorized", "", ""),
    })
    .await;
    let mut pool = with_pickers(&[], &[&picker]);
    let rig = Rig::start(quick(), vec![pool.clone()]);
    eventually("it is refused", || rig.picker(&picker).failure.is_some()).await;
    let failure = rig.picker(&picker).failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::Status);
    assert!(failure.message.contains("HTTP 401") && failure.message.contains("`bearerTokenFile`"), "{}", failure.message);
    assert!(rig.metric("weir_picker_reads_total{outcome=\"status\"}") >= 1.0);
    pool.pickers[0].access.bearer_token_file = Some(token_file);
    rig.want(vec![pool]);
    rig.until_held(3.0).await;
    assert_eq!(rig.picker(&picker).failure, None);
    rig.stop().await;
}

#[tokio::test]
async fn a_picker_that_dies_makes_the_total_unknown_until_it_is_back() {
    let picker = Server::start(go_picker(picker_page(Some(3)))).await;
    let rig = Rig::start(quick(), vec![with_pickers(&[], &[&picker])]);
    rig.until_held(3.0).await;
    picker.set(|_| Answer::http("503 Service Unavailable", "", ""));
    eventually("held is unknown", || rig.held().is_err()).await;
    let unknown = rig.snapshot().unwrap().total_queue_size().unwrap_err().to_string();
    assert!(unknown.contains("HTTP 503"), "{unknown}");
    // Whatever it failed as, it comes back as what it is now.
    picker.set(go_picker(picker_page(Some(4))));
    rig.until_held(4.0).await;
    rig.want(vec![pool(&[])]);
    eventually("the pool has no picker", || rig.snapshot().unwrap().pickers.is_empty()).await;
    let asked = picker.requests();
    sleep(Duration::from_millis(200)).await;
    assert!(picker.requests() <= asked + 1, "nobody reads it any more");
    rig.stop().await;
}

#[tokio::test]
async fn what_is_no_pickers_page_is_not_an_idle_picker() {
    let model_server = Server::with(3).await;
    let web_page = Server::start(|_| Answer::http("200 OK", "Content-Type: text/html\r\n", "<html>")).await;
    let rig = Rig::start(quick(), vec![with_pickers(&[], &[&model_server, &web_page])]);
    eventually("both fail", || rig.picker(&model_server).failure.is_some() && rig.picker(&web_page).failure.is_some()).await;
    let failure = |server| rig.picker(server).failure.clone().unwrap();
    assert_eq!(failure(&model_server).kind, FailureKind::NoEngine);
    assert!(failure(&model_server).message.contains("none of them an endpoint picker's"), "{}", failure(&model_server).message);
    assert_eq!(failure(&web_page).kind, FailureKind::NotMetrics);
    rig.stop().await;
}

/// The beginning of a stream's answer; what follows is not chunked, the end of the connection ends it.
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nweir-stream: 1\r\nConnection: close\r\n\r\n";

fn frame(sequence: u64, endpoints: Vec<EndpointFrame>, held: Option<u64>) -> String {
    let picker = PickerFrame { name: "picker-a".into(), age_ms: 0, held, in_flight: None, arrivals: 0, prompt_tokens: None };
    let frame = Frame {
        version: VERSION,
        sequence,
        namespace: "default".into(),
        name: "llama".into(),
        endpoints,
        pickers: vec![picker],
        latencies: Vec::new(),
    };
    serde_json::to_string(&frame).unwrap() + "\n"
}

#[tokio::test]
async fn a_stream_that_skips_lies_or_speaks_of_something_else_is_left_and_counted() {
    let cases = [
        ("closed", frame(0, Vec::new(), Some(3))),
        ("gap", frame(0, Vec::new(), Some(4)) + &frame(2, Vec::new(), Some(99))),
        ("gap", frame(0, Vec::new(), Some(5)) + &frame(0, Vec::new(), Some(99))),
        ("malformed", frame(0, Vec::new(), Some(6)) + "{\"version\":1}\n"),
        ("malformed", frame(0, Vec::new(), Some(7)) + &frame(1, Vec::new(), Some(u64::MAX))),
        ("version", frame(0, Vec::new(), Some(8)) + &frame(1, Vec::new(), Some(99)).replace("\"version\":1", "\"version\":2")),
        ("pool", frame(0, Vec::new(), Some(9)) + &frame(1, Vec::new(), Some(99)).replace("llama", "other")),
        ("too_large", frame(0, Vec::new(), Some(10)) + &"x".repeat(quick().max_body_bytes + 1)),
    ];
    for (held, (reason, body)) in (3..).zip(cases) {
        let picker = Server::start(move |_| Answer::Bytes([HEAD, &body].concat().into())).await;
        let rig = Rig::start(quick(), vec![with_pickers(&[], &[&picker])]);
        let series = format!("weir_stream_reconnects_total{{reason=\"{reason}\"}}");
        eventually(reason, || rig.metric(&series) >= 2.0).await;
        assert_eq!(rig.held(), Ok(f64::from(held)), "{reason}: what came before counts, and nothing after it");
        assert!(rig.metric("weir_stream_frames_total") >= 2.0 && rig.metric("weir_stream_bytes_total") > 0.0);
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_picker_of_this_process_writes_for_itself_and_nobody_else_speaks_for_it() {
    let body = frame(0, Vec::new(), Some(3)).replace("picker-a", "me") + &frame(1, Vec::new(), Some(3));
    let other = Server::start(move |_| Answer::Drip([HEAD, &body].concat().into())).await;
    let pools = vec![with_pickers(&[], &[&other])];
    let (rig, mut writers) = Rig::start_with(quick(), pools.clone(), |collector| collector.own_picker("me".into()));
    let mut mine = writers.recv().await.unwrap();
    assert_eq!((mine.key().pool.name.as_ref(), mine.key().name.as_ref()), ("llama", "me"));
    let load =
        |held| PickerLoad { read_at: Instant::now(), held: Some(held), in_flight: Some(2), arrivals: 7, prompt_tokens: None };
    mine.succeeded(load(40), Duration::from_secs(60));
    rig.until_held(43.0).await;
    // The pool goes and comes: the writer of before writes into nothing.
    rig.want(Vec::new());
    eventually("the pool is gone", || rig.snapshot().is_none()).await;
    rig.want(pools);
    let mut again = writers.recv().await.unwrap();
    mine.succeeded(load(99), Duration::from_secs(60));
    again.succeeded(load(50), Duration::from_secs(60));
    rig.until_held(53.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_weir_that_does_not_know_the_pool_is_not_taken_for_a_go_picker() {
    let answer = "{\"error\":\"no pool default/llama; known here: default/other\"}";
    let picker = Server::start(move |head| match head.starts_with("GET /metrics ") {
        true => Answer::Page(picker_page(Some(1))),
        false => Answer::http("404 Not Found", "weir-stream: 1\r\n", answer),
    })
    .await;
    let rig = Rig::start(quick(), vec![with_pickers(&[], &[&picker])]);
    eventually("it fails", || rig.picker(&picker).failure.is_some()).await;
    let message = rig.picker(&picker).failure.clone().unwrap().message;
    assert!(
        message.contains("no pool default/llama; known here: default/other: is the pool in the other weir's pools.yaml"),
        "{message}"
    );
    assert!(picker.paths().iter().all(|path| path != "/metrics"));
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_not_relied_on_and_a_bad_endpoint_harms_no_other() {
    let (fed, lied_about) = (Server::with(1).await, Server::with(2).await);
    let endpoint = |server: &Server, running: f64| EndpointFrame {
        address: server.address.to_string(),
        age_ms: 0,
        interval_ms: 1000,
        engine: "vllm".to_owned(),
        running: Some(weir_datastore::Combined { value: running, hottest: running }),
        waiting: None,
        kv_cache_utilization: None,
        counters: Default::default(),
        lora: None,
        units: Vec::new(),
        unused: Default::default(),
    };
    let body = frame(0, vec![endpoint(&fed, 41.0), endpoint(&lied_about, -1.0)], Some(2));
    // Metrics without end are bytes, but no line that is a frame: `Drip` sends `#`, and no end of a line.
    let picker = Server::start(move |_| Answer::Drip([HEAD, &body].concat().into())).await;
    let rig = Rig::start(quick(), vec![with_pickers(&[fed.address, lied_about.address], &[&picker])]);
    rig.until_running(fed.address, 41.0).await;
    let heard = Instant::now();
    rig.until_held(2.0).await;
    rig.until_running(lied_about.address, 2.0).await;
    assert!(rig.metric("weir_stream_refused_endpoints_total") >= 1.0);
    assert_eq!(rig.metric("weir_streams_followed"), 1.0);
    let asked = fed.requests();
    picker.set(|_| Answer::Hang);
    rig.until_running(fed.address, 1.0).await;
    let silence = heard.elapsed();
    assert!(fed.requests() > asked && silence < SILENCE + Duration::from_secs(1), "{silence:?}");
    assert_eq!(rig.metric("weir_stream_fallbacks_total"), 1.0);
    eventually("the picker is written down as silent", || rig.picker(&picker).failure.is_some()).await;
    let failure = rig.picker(&picker).failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.contains("nothing was heard for 3s"), "{}", failure.message);
    assert_eq!(rig.metric("weir_stream_reconnects_total{reason=\"silence\"}"), 1.0);
    fed.set(|_| Answer::Page(page(6)));
    rig.until_running(fed.address, 6.0).await;
    rig.stop().await;
}
