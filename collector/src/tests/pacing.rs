//! Endpoints at work are read often, idle ones seldom.

use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::EndpointState;

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server};
use crate::CollectorConfig;
use crate::activity::EndpointActivity;

const BUSY: Duration = Duration::from_millis(20);
/// So long that a second read within a test can only be of a busy endpoint.
const IDLE: Duration = Duration::from_millis(1600);

fn paced() -> CollectorConfig {
    CollectorConfig { busy_interval: BUSY, idle_interval: IDLE, ..quick() }
}

fn page(running: u32, waiting: u32) -> Answer {
    Answer::Page(format!("vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n"))
}

#[tokio::test]
async fn an_endpoint_is_read_often_while_its_page_shows_requests() {
    let server = Server::start(|_| page(1, 0)).await;
    let rig = Rig::start(paced(), vec![pool(&[server.address])]);
    let interval = || rig.status(server.address).map(|status| status.interval);
    for answer in [(1, 0), (0, 1)] {
        server.set(move |_| page(answer.0, answer.1));
        eventually("a page of a server at work", || interval() == Some(BUSY)).await;
        let (requests, start) = (server.requests(), Instant::now());
        eventually("twenty reads", || server.requests() >= requests + 20).await;
        assert!(start.elapsed() >= BUSY * 15, "more often than it should: {:?}", start.elapsed());
    }
    server.set(|_| page(0, 0));
    eventually("a page of an idle server", || interval() == Some(IDLE)).await;
    let (requests, start) = (server.requests(), Instant::now());
    eventually("another read", || server.requests() > requests).await;
    assert!(start.elapsed() > IDLE / 4, "{:?}", start.elapsed());
    rig.stop().await;
}

/// An endpoint that idles and was read, and through what it is told to be at work.
async fn idle() -> (Server, Rig, EndpointActivity) {
    let server = Server::start(|_| page(0, 0)).await;
    let wanted = pool(&[server.address]);
    let rig = Rig::start(paced(), vec![wanted.clone()]);
    let told = rig.activity.endpoint(&wanted.spec.id, &wanted.spec.endpoints[0].address);
    eventually("read while idle", || rig.status(server.address).is_some_and(|status| status.interval == IDLE)).await;
    (server, rig, told)
}

#[tokio::test]
async fn an_idle_endpoint_that_is_given_a_request_is_read_at_once_and_for_as_long() {
    let (server, rig, told) = idle().await;
    let (requests, start) = (server.requests(), Instant::now());
    told.set(true);
    eventually("read often", || server.requests() >= requests + 10).await;
    assert!(start.elapsed() < IDLE, "ten reads took {:?}", start.elapsed());
    assert_eq!(rig.status(server.address).unwrap().interval, BUSY);
    told.set(false);
    eventually("read seldom again", || rig.status(server.address).is_some_and(|status| status.interval == IDLE)).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_ended_at_once_makes_an_idle_endpoint_be_read() {
    let (server, rig, told) = idle().await;
    // Nobody runs between the two: the loop sees the end alone.
    let (requests, start) = (server.requests(), Instant::now());
    told.set(true);
    told.set(false);
    eventually("read", || server.requests() > requests).await;
    assert!(start.elapsed() < IDLE / 4, "{:?}", start.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_whoever_wants_it_to_work() {
    let server = Server::start(|_| Answer::http("503 Service Unavailable", "", "")).await;
    let wanted = pool(&[server.address]);
    let rig = Rig::start(paced(), vec![wanted.clone()]);
    let told = rig.activity.endpoint(&wanted.spec.id, &wanted.spec.endpoints[0].address);
    rig.until_failing(server.address).await;
    let (requests, start) = (server.requests(), Instant::now());
    for round in 0..200 {
        told.set(round % 2 == 0);
        tokio::task::yield_now().await;
    }
    eventually("the next attempt", || server.requests() > requests).await;
    assert!(start.elapsed() > IDLE / 2, "{:?}", start.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_could_not_be_read_is_read_at_once_when_it_becomes_ready() {
    let server = Server::start(|_| Answer::http("503 Service Unavailable", "", "")).await;
    let mut wanted = pool(&[server.address]);
    wanted.spec.endpoints[0].state = EndpointState::Unready;
    let rig = Rig::start(paced(), vec![wanted.clone()]);
    // The pauses between attempts grow: after the third failure the next is seconds away.
    eventually("three attempts", || rig.metric("weir_scrapes_total{outcome=\"status\"}") >= 3.0).await;
    server.set(|_| page(1, 0));
    let start = Instant::now();
    wanted.spec.endpoints[0].state = EndpointState::Ready;
    rig.want(vec![wanted]);
    rig.until_running(server.address, 1.0).await;
    assert!(start.elapsed() < IDLE, "{:?}", start.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn gaps_between_pages_and_reads_under_way_are_told() {
    let server = Server::start(|_| page(1, 0)).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    eventually("some pages", || rig.scrapes("ok") >= 5.0).await;
    server.set(|_| Answer::Hang);
    eventually("one read is under way", || rig.metric("weir_scrape_concurrent") == 1.0).await;
    rig.want(Vec::new());
    eventually("and then none", || rig.metric("weir_scrape_concurrent") == 0.0).await;
    assert_eq!(rig.metric("weir_scrape_gap_seconds_count"), rig.scrapes("ok") - 1.0);
    let mean = rig.metric("weir_scrape_gap_seconds_sum") / rig.metric("weir_scrape_gap_seconds_count");
    assert!(mean >= 0.025, "{mean}");
    rig.stop().await;
}
