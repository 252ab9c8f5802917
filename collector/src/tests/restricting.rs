//! Restricted pages: used where a server answers them rightly, given up at once where it does not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use weir_datastore::engine::{CustomFamily, Engine, Several};
use weir_datastore::{FailureKind, LoadSignal};
use weir_simulator::{Hold, MetricsFault, Server as Simulator, ServerConfig};

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server};
use crate::{Restrict, WantedPool};

fn automatic(addresses: &[SocketAddr]) -> WantedPool {
    let mut pool = pool(addresses);
    pool.access.restrict = Restrict::Auto;
    pool
}

fn pages(rig: &Rig, kind: &str) -> f64 {
    rig.metric(&format!("weir_scrape_pages_total{{kind=\"{kind}\"}}"))
}

async fn simulator(engine: weir_simulator::Engine, running: u32) -> Simulator {
    let server = Simulator::start(ServerConfig { engine, ..ServerConfig::default() }).await.unwrap();
    hold(&server, running);
    server
}

fn hold(server: &Simulator, running: u32) {
    server.faults().hold(Hold::Gauges { running, waiting: 2, kv_cache_usage: 0.25 });
}

/// What a server in Python does with `name[]`, over the lines that `lines` give; `process_start_time_seconds` is `started`.
fn python_page(head: &str, running: u32, started: u32) -> String {
    let restricted = is_restricted(head);
    let line = |name: &str, value: u32| match !restricted || asks(head, name) {
        true => format!("{name} {value}.0\n"),
        false => String::new(),
    };
    let wanted = [
        line("vllm:num_requests_running", running),
        line("vllm:num_requests_waiting", 0),
        line("process_start_time_seconds", started),
    ]
    .concat();
    let others = if restricted { String::new() } else { "# HELP python_info\npython_info 1.0\n".repeat(200) };
    format!("{wanted}{others}")
}

fn is_restricted(head: &str) -> bool {
    head.contains("name%5B%5D=")
}

fn asks(head: &str, name: &str) -> bool {
    let value = format!("name%5B%5D={}", name.replace(':', "%3A"));
    head.split([' ', '?', '&']).any(|part| part == value)
}

#[tokio::test]
async fn one_process_is_asked_for_the_wanted_series_once_a_trial_has_agreed() {
    let server = simulator(weir_simulator::Engine::Vllm, 3).await;
    let rig = Rig::start(quick(), vec![automatic(&[server.addr()])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 5.0).await;
    assert_eq!((pages(&rig, "full"), pages(&rig, "trial")), (1.0, 1.0));
    hold(&server, 7);
    rig.until_running(server.addr(), 7.0).await;
    let load = rig.load(server.addr()).unwrap();
    assert_eq!((load.waiting.unwrap().value, load.kv_cache_utilization.unwrap().value), (2.0, 0.25));
    assert!(load.counters.prompt_tokens.is_some() && load.units[0].blocks.is_some(), "everything wanted is there: {load:?}");
    // A page that did not change costs far fewer bytes than whole pages would.
    let (bytes, restricted) = (rig.metric("weir_scrape_body_bytes_total"), pages(&rig, "restricted"));
    eventually("ten more", || pages(&rig, "restricted") >= restricted + 10.0).await;
    let each = (rig.metric("weir_scrape_body_bytes_total") - bytes) / (pages(&rig, "restricted") - restricted);
    assert!(each < 5000.0, "{each} bytes a page");
    assert_eq!((pages(&rig, "full"), pages(&rig, "trial")), (1.0, 1.0));
    rig.stop().await;
}

#[tokio::test]
async fn several_processes_answer_nothing_and_are_asked_for_whole_pages() {
    for (engine, path) in [(weir_simulator::Engine::Sglang, "/metrics"), (weir_simulator::Engine::Trtllm, "/prometheus/metrics")] {
        let server = simulator(engine, 4).await;
        let mut wanted = automatic(&[server.addr()]);
        wanted.spec.metrics.path = path.into();
        let rig = Rig::start(quick(), vec![wanted]);
        rig.until_running(server.addr(), 4.0).await;
        eventually("whole pages", || pages(&rig, "full") >= 5.0).await;
        hold(&server, 6);
        rig.until_running(server.addr(), 6.0).await;
        assert_eq!((pages(&rig, "trial"), pages(&rig, "restricted")), (1.0, 0.0), "{engine:?}");
        assert_eq!(rig.failure(server.addr()), None);
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_comes_back_is_tried_again() {
    let server = simulator(weir_simulator::Engine::Vllm, 3).await;
    let address = server.addr();
    let rig = Rig::start(quick(), vec![automatic(&[address])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 2.0).await;
    server.abort().await;
    assert_eq!(rig.until_failing(address).await.kind, FailureKind::Connect);
    // It returns over several processes: nothing learned of the old one may be believed.
    let config = ServerConfig { listen: address, engine: weir_simulator::Engine::Sglang, ..ServerConfig::default() };
    let server = Simulator::start(config).await.unwrap();
    hold(&server, 5);
    rig.until_running(address, 5.0).await;
    eventually("tried again", || pages(&rig, "trial") == 2.0).await;
    let restricted = pages(&rig, "restricted");
    let full = pages(&rig, "full");
    eventually("whole pages", || pages(&rig, "full") >= full + 5.0).await;
    assert_eq!((pages(&rig, "trial"), pages(&rig, "restricted")), (2.0, restricted));
    rig.stop().await;
}

#[tokio::test]
async fn a_server_whose_page_breaks_is_told_by_its_whole_page_and_recovers() {
    let server = simulator(weir_simulator::Engine::Vllm, 3).await;
    let rig = Rig::start(quick(), vec![automatic(&[server.addr()])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 2.0).await;
    server.faults().set_metrics(MetricsFault::Status(503));
    let failure = rig.until_failing(server.addr()).await;
    assert_eq!(failure.kind, FailureKind::Status);
    assert!(!failure.message.contains("name"), "{}", failure.message);
    server.faults().set_metrics(MetricsFault::Normal);
    hold(&server, 8);
    rig.until_running(server.addr(), 8.0).await;
    let restricted = pages(&rig, "restricted");
    eventually("restricted pages again", || pages(&rig, "restricted") >= restricted + 2.0).await;
    rig.stop().await;
}

/// What becomes of a server that at first answers restricted pages rightly, and then as `later` says.
async fn gives_up(later: impl Fn(&str) -> Answer + Send + Sync + 'static) {
    let running = Arc::new(AtomicU32::new(1));
    let shown = running.clone();
    let server = Server::start(move |head| Answer::Page(python_page(head, shown.load(Ordering::SeqCst), 1))).await;
    let rig = Rig::start(quick(), vec![automatic(&[server.address])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 2.0).await;
    let shown = running.clone();
    server.set(move |head| match is_restricted(head) {
        true => later(head),
        false => Answer::Page(python_page(head, shown.load(Ordering::SeqCst), 1)),
    });
    for next in 2..6 {
        running.store(next, Ordering::SeqCst);
        rig.until_running(server.address, f64::from(next)).await;
    }
    assert_eq!(rig.failure(server.address), None, "no failure of the endpoint");
    assert_eq!(rig.metric("weir_scrapes_total{outcome=\"ok\"}"), rig.metric("weir_scrape_duration_seconds_count"));
    let paths = server.paths();
    let first_bad = paths.iter().rposition(|path| path.contains("name")).unwrap();
    let before_trial = paths[..first_bad].iter().rposition(|path| path.contains("name")).unwrap();
    assert_eq!(paths[before_trial + 1..first_bad], ["/metrics"], "the whole page at once, and the trial after it: {paths:?}");
    let trials = pages(&rig, "trial");
    eventually("whole pages", || server.requests() >= paths.len() + 5).await;
    assert_eq!(pages(&rig, "trial"), trials, "refused: not tried again and again");
    rig.stop().await;
}

#[tokio::test]
async fn an_empty_page_a_lost_family_and_an_error_are_answered_with_the_whole_page() {
    gives_up(|_| Answer::Page(String::new())).await;
    gives_up(|_| Answer::Page("vllm:num_requests_running 9.0\nprocess_start_time_seconds 1\n".to_owned())).await;
    gives_up(|_| Answer::http("400 Bad Request", "", "")).await;
    gives_up(|_| Answer::Page("<html>".to_owned())).await;
}

#[tokio::test]
async fn a_server_that_does_not_know_the_parameter_is_left_alone() {
    let server = Server::start(|head| Answer::Page(python_page(&head.replace("name", "x"), 3, 1))).await;
    let rig = Rig::start(quick(), vec![automatic(&[server.address])]);
    eventually("whole pages", || pages(&rig, "full") >= 10.0).await;
    assert_eq!((pages(&rig, "trial"), pages(&rig, "restricted")), (1.0, 0.0));
    rig.stop().await;
}

#[tokio::test]
async fn never_means_never_and_can_be_changed() {
    let server = Server::start(|head| Answer::Page(python_page(head, 3, 1))).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    eventually("whole pages", || server.requests() >= 5).await;
    assert!(server.paths().iter().all(|path| path == "/metrics"));
    assert_eq!(pages(&rig, "trial"), 0.0);
    rig.want(vec![automatic(&[server.address])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 3.0).await;
    rig.want(vec![pool(&[server.address])]);
    let full = pages(&rig, "full");
    eventually("whole pages again", || pages(&rig, "full") >= full + 3.0).await;
    assert!(server.paths().last().is_some_and(|path| path == "/metrics"));
    rig.stop().await;
}

#[tokio::test]
async fn another_process_behind_the_address_is_tried_anew() {
    let started = Arc::new(AtomicU32::new(100));
    let shown = started.clone();
    let server = Server::start(move |head| Answer::Page(python_page(head, 3, shown.load(Ordering::SeqCst)))).await;
    let rig = Rig::start(quick(), vec![automatic(&[server.address])]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 3.0).await;
    assert_eq!((pages(&rig, "full"), pages(&rig, "trial")), (1.0, 1.0));
    started.store(200, Ordering::SeqCst);
    eventually("tried again", || pages(&rig, "trial") == 2.0).await;
    let restricted = pages(&rig, "restricted");
    eventually("restricted pages again", || pages(&rig, "restricted") >= restricted + 3.0).await;
    assert_eq!((pages(&rig, "full"), pages(&rig, "trial")), (2.0, 2.0));
    rig.stop().await;
}

#[tokio::test]
async fn a_redirect_is_kept_and_the_names_of_the_pool_are_asked_for() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = Server::start(move |head| {
        log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
        let target = head.split(' ').nth(1).unwrap_or_default();
        if !target.starts_with("/metrics/") {
            return Answer::http(
                "307 Temporary Redirect",
                &format!("Location: {}\r\n", target.replace("/metrics", "/metrics/")),
                "",
            );
        }
        let names = ["my:requests{state=\"active\"}", "my:requests{state=\"queued\"}"];
        let shown = !is_restricted(head) || asks(head, "my:requests");
        let wanted: String = names.iter().filter(|_| shown).map(|name| format!("{name} 4\n")).collect();
        let others = if is_restricted(head) { String::new() } else { "# other\nother 1\n".repeat(100) };
        Answer::Page(format!("{wanted}{others}"))
    })
    .await;
    let mut wanted = automatic(&[server.address]);
    let family = |signal, state: &str| CustomFamily {
        name: "my:requests".to_owned(),
        labels: [("state".to_owned(), state.to_owned())].into(),
        signal,
        several: Several::Sum,
    };
    wanted.spec.metrics.engine = Some(Engine::Custom);
    wanted.spec.metrics.families = [family(LoadSignal::Running, "active"), family(LoadSignal::Waiting, "queued")].into();
    let rig = Rig::start(quick(), vec![wanted]);
    eventually("restricted pages", || pages(&rig, "restricted") >= 3.0).await;
    assert_eq!(rig.running(server.address), Some(4.0));
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().filter(|line| line.starts_with("GET /metrics ")).count(), 1, "{seen:?}");
    assert!(seen[2..].iter().all(|line| line.starts_with("GET /metrics/?name%5B%5D=my%3Arequests&")), "{seen:?}");
    rig.stop().await;
}
