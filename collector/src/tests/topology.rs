//! Pools and endpoints that come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::{EndpointState, PoolId};

use super::eventually;
use super::rig::{Rig, endpoint, pool, pool_id, quick};
use super::server::{Answer, Server, page};
use crate::CollectorConfig;

#[tokio::test]
async fn values_arrive_and_follow_the_page() {
    let server = Server::with(3).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    rig.until_running(server.address, 3.0).await;
    let load = rig.load(server.address).unwrap();
    assert_eq!((load.waiting.unwrap().value, load.kv_cache_utilization.unwrap().value), (1.0, 0.5));
    assert!(load.scraped_at <= Instant::now());
    server.set(|_| Answer::Page(page(8)));
    rig.until_running(server.address, 8.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_change_keeps_the_cells_of_what_stays_and_ends_what_goes() {
    let (stays, goes, comes) = (Server::with(1).await, Server::with(2).await, Server::with(3).await);
    let rig = Rig::start(quick(), vec![pool(&[stays.address, goes.address])]);
    rig.until_running(stays.address, 1.0).await;
    rig.until_running(goes.address, 2.0).await;

    // Its page does not change any more: what is read from here on is the old cell, or nothing.
    stays.set(|_| Answer::Hang);
    eventually("the last page was read", || stays.requests() > 0 && rig.failure(stays.address).is_some()).await;
    let kept = rig.load(stays.address).unwrap();
    let mut changed = pool(&[comes.address]);
    let mut relabelled = endpoint(stays.address);
    relabelled.labels = Arc::new(BTreeMap::from([("role".to_owned(), "decode".to_owned())]));
    relabelled.state = EndpointState::Terminating;
    changed.spec.endpoints.insert(0, relabelled.clone());
    let gone_requests = goes.requests();
    rig.want(vec![changed]);
    rig.until_running(comes.address, 3.0).await;
    let snapshot = rig.snapshot().unwrap();
    assert_eq!(snapshot.endpoints[0].endpoint.spec, relabelled);
    assert!(Arc::ptr_eq(&kept, &rig.load(stays.address).unwrap()), "the cell stays");
    assert!(rig.status(goes.address).is_none());
    assert_eq!(rig.metric("weir_endpoints_watched"), 2.0);

    let soon = comes.requests() + 10;
    eventually("ten more reads of the other", || comes.requests() >= soon).await;
    assert!(goes.requests() <= gone_requests + 3, "{} after {gone_requests}", goes.requests());
    rig.stop().await;
}

#[tokio::test]
async fn whatever_an_endpoint_waits_for_it_ends_at_once() {
    let hung = Server::start(|_| Answer::Hang).await;
    let config = CollectorConfig { timeout: Duration::from_secs(5), ..quick() };
    let rig = Rig::start(config.clone(), vec![pool(&[hung.address])]);
    eventually("it is being read", || hung.open() == 1).await;
    let start = Instant::now();
    rig.want(Vec::new());
    eventually("its connection is closed", || hung.open() == 0).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    eventually("the pool is gone", || rig.datastore.pool_ids().is_empty()).await;

    // The same on shutdown: `stop` allows two seconds.
    rig.want(vec![pool(&[hung.address])]);
    eventually("it is being read again", || hung.open() == 1).await;
    rig.stop().await;
    eventually("its connection is closed", || hung.open() == 0).await;
}

#[tokio::test]
async fn pools_come_and_go_and_the_last_of_one_name_counts() {
    let (one, two) = (Server::with(1).await, Server::with(2).await);
    let rig = Rig::start(quick(), Vec::new());
    assert_eq!(rig.datastore.pool_ids(), []);
    let mut other = pool(&[one.address]);
    other.spec.id = PoolId::new("default", "other");
    rig.want(vec![other.clone(), pool(&[one.address]), pool(&[two.address])]);
    rig.until_running(two.address, 2.0).await;
    assert_eq!(rig.datastore.pool_ids(), [pool_id(), PoolId::new("default", "other")]);
    assert!(rig.status(one.address).is_none());
    rig.want(vec![other]);
    eventually("one pool is left", || rig.datastore.pool_ids() == [PoolId::new("default", "other")]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_pool_that_moves_its_page_is_read_there() {
    let server = Server::start(|head| match head.starts_with("GET /prometheus/metrics ") {
        true => Answer::Page(page(7)),
        false => Answer::http("404 Not Found", "", ""),
    })
    .await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    rig.until_failing(server.address).await;
    let mut moved = pool(&[server.address]);
    moved.spec.metrics.path = "/prometheus/metrics".into();
    rig.want(vec![moved]);
    rig.until_running(server.address, 7.0).await;
    assert_eq!(rig.metric("weir_endpoints_watched"), 1.0);
    rig.stop().await;
}
