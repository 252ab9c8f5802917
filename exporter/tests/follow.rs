//! One weir follows another, over real sockets: what is served here is what the collector reads.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weir_collector::{Access, Collector, CollectorConfig, WantedPicker, WantedPool};
use weir_datastore::stream::SILENCE;
use weir_datastore::{
    Datastore, EndpointSpec, FailureKind, PickerLoad, PickerWriter, PoolId, PoolSnapshot, PoolSpec, Selector, TopologyWriter,
    datastore,
};
use weir_exporter::page::{PageFormat, render};
use weir_serving::{Authentication, Server};

const INTERVAL: Duration = Duration::from_millis(200);

fn pool_id() -> PoolId {
    PoolId::new("default", "llama")
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came true: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// A model server that counts how often its page is read.
struct ModelServer {
    address: SocketAddr,
    running: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl ModelServer {
    async fn start(running: usize) -> Self {
        let (running, reads) = (Arc::new(AtomicUsize::new(running)), Arc::new(AtomicUsize::new(0)));
        let (shown, counted) = (running.clone(), reads.clone());
        let page = move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let running = shown.load(Ordering::SeqCst);
            format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc 0.5\n")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, Router::new().route("/metrics", get(page))).into_future());
        Self { address, running, reads }
    }
}

/// Serves `store` as an exporter at `listen`; where.
async fn serve(store: &Datastore, mut registry: Registry, listen: &str) -> (SocketAddr, Arc<Registry>) {
    let streams = weir_exporter::register(&mut registry, store.clone(), 10);
    let registry = Arc::new(registry);
    let router = weir_exporter::router(store.clone(), registry.clone(), streams);
    let server = Server::builder(router).listen(listen.parse().unwrap()).authentication(Authentication::Everyone);
    let server = server.bind().await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(CancellationToken::new()));
    (address, registry)
}

/// An exporter with a collector, on threads of its own: to be killed at once, with all its connections.
struct Weir {
    runtime: Option<Runtime>,
    address: SocketAddr,
    store: Datastore,
    registry: Arc<Registry>,
    wanted: watch::Sender<Arc<Vec<WantedPool>>>,
}

impl Weir {
    fn start(pool: WantedPool, listen: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (store, topology) = datastore();
        let mut registry = Registry::default();
        let config = CollectorConfig::default().every(INTERVAL);
        let collector = Collector::new(config, topology, &mut registry).unwrap();
        let (wanted, receiver) = watch::channel(Arc::new(vec![pool]));
        runtime.spawn(collector.run(receiver, CancellationToken::new()));
        let (listen, served) = (listen.to_owned(), store.clone());
        // Not waited for on this thread, which runs the test's own runtime.
        let serving = runtime.spawn(async move { serve(&served, registry, &listen).await });
        let (address, registry) =
            std::thread::scope(|threads| threads.spawn(|| runtime.block_on(serving).unwrap()).join().unwrap());
        Self { runtime: Some(runtime), address, store, registry, wanted }
    }

    fn snapshot(&self) -> Option<PoolSnapshot> {
        snapshot(&self.store)
    }

    fn inflight(&self) -> Option<f64> {
        Some(self.snapshot()?.total_inflight().ok()?.value)
    }

    fn metric(&self, series: &str) -> f64 {
        let page = render(&self.registry, PageFormat::Text).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
    }

    fn scrapes(&self) -> usize {
        self.metric("weir_scrapes_total{outcome=\"ok\"}") as usize
    }

    fn kill(mut self) -> SocketAddr {
        self.runtime.take().unwrap().shutdown_background();
        self.address
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn snapshot(store: &Datastore) -> Option<PoolSnapshot> {
    store.snapshot(&pool_id(), &Selector::everything(), Instant::now())
}

fn pool(servers: &[ModelServer], follows: &[SocketAddr]) -> WantedPool {
    let endpoints = servers.iter().map(|server| EndpointSpec::standalone(server.address.into())).collect();
    let pickers: Vec<_> = follows
        .iter()
        .map(|address| WantedPicker {
            name: address.to_string().into(),
            url: format!("http://{address}/metrics").into(),
            access: Access::default(),
        })
        .collect();
    let names = (!pickers.is_empty()).then(|| pickers.iter().map(|picker| picker.name.clone()).collect());
    WantedPool { pickers, ..PoolSpec { endpoints, pickers: names, ..PoolSpec::empty(pool_id()) }.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_measured_once_and_read_by_whoever_is_left() {
    let servers = [ModelServer::start(3).await, ModelServer::start(4).await, ModelServer::start(5).await];
    let reads = || servers.iter().map(|server| server.reads.load(Ordering::SeqCst)).sum::<usize>();
    let first = Weir::start(pool(&servers, &[]), "127.0.0.1:0");
    eventually("the first reads all", || first.inflight() == Some(15.0)).await;
    let second = Weir::start(pool(&servers, &[first.address]), "127.0.0.1:0");
    eventually("the second knows all", || second.inflight() == Some(15.0)).await;
    eventually("it follows the stream", || second.metric("weir_streams_followed") == 1.0).await;
    // Its last own reads may be under way.
    eventually("it is fed", || second.metric("weir_stream_frames_total") >= 5.0 && second.metric("weir_scrape_concurrent") == 0.0)
        .await;

    // Fed: its own reads stay where they are, and the servers see nobody else's.
    let (own, of_first, seen) = (second.scrapes(), first.scrapes(), reads());
    servers[0].running.store(103, Ordering::SeqCst);
    eventually("a change arrives", || second.inflight() == Some(115.0)).await;
    eventually("fifteen rounds", || first.scrapes() >= of_first + 45).await;
    assert_eq!(second.scrapes(), own, "what is fed is not read");
    let (by_first, by_all) = (first.scrapes() - of_first, reads() - seen);
    assert!(by_all <= by_first + 3, "{by_all} reads, {by_first} of them the first's (three may be under way)");
    assert_eq!(second.metric("weir_stream_fallbacks_total"), 0.0);

    // Killed: no value may be missing at any moment.
    let address = first.kill();
    let killed = Instant::now();
    servers[1].running.store(204, Ordering::SeqCst);
    while second.inflight() != Some(315.0) {
        assert!(
            second.inflight().is_some(),
            "unknown {:?} after the kill: {:?}",
            killed.elapsed(),
            second.snapshot().unwrap().coverage
        );
        assert!(killed.elapsed() < SILENCE + INTERVAL, "{:?}", second.inflight());
        sleep(Duration::from_millis(2)).await;
    }
    println!("read by the second itself {:?} after the first was killed", killed.elapsed());
    eventually("all three were taken over", || second.metric("weir_stream_fallbacks_total") == 3.0).await;

    // Back on its port: the second leaves the servers to it again.
    let first = Weir::start(pool(&servers, &[]), &address.to_string());
    let back = Instant::now();
    eventually("the stream is followed again", || second.metric("weir_streams_followed") == 1.0).await;
    println!("followed again {:?} after the first was back", back.elapsed());
    let frames = second.metric("weir_stream_frames_total");
    eventually("it is fed again", || {
        second.metric("weir_stream_frames_total") > frames + 5.0 && second.metric("weir_scrape_concurrent") == 0.0
    })
    .await;
    let (own, of_first) = (second.scrapes(), first.scrapes());
    eventually("ten rounds", || first.scrapes() >= of_first + 30).await;
    assert_eq!(second.scrapes(), own, "what is fed is not read");
    assert_eq!(second.inflight(), Some(315.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_follow_each_other_still_read_the_servers_often_enough() {
    let servers = [ModelServer::start(3).await, ModelServer::start(4).await];
    let one = Weir::start(pool(&servers, &[]), "127.0.0.1:0");
    let other = Weir::start(pool(&servers, &[one.address]), "127.0.0.1:0");
    one.wanted.send_replace(Arc::new(vec![pool(&servers, &[other.address])]));
    eventually("both follow", || [&one, &other].iter().all(|weir| weir.metric("weir_streams_followed") == 1.0)).await;
    eventually("both know all", || [&one, &other].iter().all(|weir| weir.inflight() == Some(9.0))).await;
    let reads = || servers.iter().map(|server| server.reads.load(Ordering::SeqCst)).min().unwrap();
    let enough = reads() + 5;
    servers[0].running.store(10, Ordering::SeqCst);
    eventually("five more reads of each", || {
        assert!(one.inflight().is_some() && other.inflight().is_some(), "neither may lose sight of the pool");
        reads() >= enough
    })
    .await;
    eventually("the change is known to both", || one.inflight() == Some(16.0) && other.inflight() == Some(16.0)).await;
}

/// A weir whose pickers the test itself plays.
struct Played {
    store: Datastore,
    _topology: TopologyWriter,
    pickers: Vec<PickerWriter>,
    address: SocketAddr,
}

impl Played {
    async fn start(pickers: &[&str]) -> Self {
        let (store, mut topology) = datastore();
        let names = Some(pickers.iter().map(|name| Arc::from(*name)).collect());
        let change = topology.replace_all(vec![PoolSpec { pickers: names, ..PoolSpec::empty(pool_id()) }], Instant::now());
        let (address, _) = serve(&store, Registry::default(), "127.0.0.1:0").await;
        Self { store, _topology: topology, pickers: change.added_pickers, address }
    }

    fn hold(&mut self, picker: usize, held: u64) {
        let load = PickerLoad { read_at: Instant::now(), held: Some(held), in_flight: None, arrivals: 0, prompt_tokens: None };
        self.pickers[picker].succeeded(load, Duration::from_secs(1));
    }
}

fn held(weir: &Weir) -> Option<f64> {
    Some(weir.snapshot()?.held.ok()?.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_held_request_is_known_elsewhere_within_milliseconds() {
    let mut picker = Played::start(&["picker-a"]).await;
    let follower = Weir::start(pool(&[], &[picker.address]), "127.0.0.1:0");
    // And a weir that follows the follower.
    let third = Weir::start(pool(&[], &[follower.address]), "127.0.0.1:0");
    let mut took = [Vec::new(), Vec::new()];
    for round in 1..=20 {
        picker.hold(0, 0);
        eventually("nothing is held", || held(&follower) == Some(0.0) && held(&third) == Some(0.0)).await;
        // At another moment between two frames each time.
        sleep(Duration::from_millis(round * 7)).await;
        let (mut rises, mut further_rises) =
            (follower.store.changes(&pool_id()).unwrap(), third.store.changes(&pool_id()).unwrap());
        let start = Instant::now();
        picker.hold(0, round);
        timeout(Duration::from_secs(5), rises.held_rose()).await.expect("the rise arrives");
        took[0].push(start.elapsed());
        assert_eq!(held(&follower), Some(round as f64));
        timeout(Duration::from_secs(5), further_rises.held_rose()).await.expect("the rise arrives there too");
        took[1].push(start.elapsed());
    }
    for (hops, took) in (1..).zip(&mut took) {
        took.sort();
        let (least, median, most) = (took[0], took[took.len() / 2], took[took.len() - 1]);
        println!(
            "a held request known {hops} weirs on after {least:?}, {median:?}, {most:?} (least, median, most of {})",
            took.len()
        );
        // Waiting for the turn of the next frame would take 50 ms in the middle.
        assert!(median < Duration::from_millis(30), "it waits for a frame's turn: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_that_two_weirs_tell_of_counts_once_and_one_that_is_silent_makes_held_unknown() {
    let (mut one, mut other) = (Played::start(&["go", "mine"]).await, Played::start(&["go"]).await);
    one.hold(0, 5);
    one.hold(1, 2);
    other.hold(0, 5);
    let follower = Weir::start(pool(&[], &[one.address, other.address]), "127.0.0.1:0");
    eventually("seven are held, not twelve", || held(&follower) == Some(7.0)).await;
    other.hold(0, 6);
    eventually("the youngest word counts", || held(&follower) == Some(8.0)).await;
    assert_eq!(snapshot(&one.store).unwrap().held.unwrap().value, 7.0);

    // Nobody plays `mine` any more: it grows old, and the follower says which one it was.
    let start = Instant::now();
    let keep_up = async {
        loop {
            one.hold(0, 6);
            other.hold(0, 6);
            sleep(Duration::from_millis(100)).await;
        }
    };
    let unknown = eventually("held is unknown", || {
        follower
            .snapshot()
            .is_some_and(|snapshot| snapshot.held.is_err_and(|unknown| unknown.to_string().contains("its picker mine")))
    });
    tokio::select! {
        () = unknown => {}
        () = keep_up => unreachable!(),
    }
    assert!(start.elapsed() >= Duration::from_secs(2), "not before it is stale");
    one.hold(1, 3);
    one.hold(0, 6);
    other.hold(0, 6);
    eventually("all is known again", || held(&follower) == Some(9.0)).await;
    one.pickers[1].failed(FailureKind::Connect, "refused", Instant::now());
    assert_eq!(held(&follower), Some(9.0), "a failure is no silence yet");
}
