//! Many endpoints, half of them hung.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_datastore::Freshness;

use super::eventually;
use super::rig::{Rig, pool};
use super::server::Server;
use crate::CollectorConfig;

#[tokio::test]
async fn a_hundred_and_fifty_hung_endpoints_keep_no_other_from_being_fresh() {
    let mut good = Vec::new();
    for running in 0..150 {
        good.push(Server::with(running).await);
    }
    // Connections are made, since the kernel queues them, and nobody ever answers.
    let hung: Vec<TcpListener> = (0..150).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> =
        hung.iter().map(|hung| hung.local_addr().unwrap()).chain(good.iter().map(|server| server.address)).collect();
    let config =
        CollectorConfig { timeout: Duration::from_secs(1), ..CollectorConfig::default() }.every(Duration::from_millis(500));
    let rig = Rig::start(config, vec![pool(&addresses)]);
    let coverage = || rig.snapshot().map(|snapshot| snapshot.coverage).unwrap_or_default();
    eventually("all good ones are read", || coverage().fresh == 150).await;
    assert_eq!(rig.metric("weir_endpoints_watched"), 300.0);

    // From here on none of them may be stale for a moment, while the hung ones time out again and again.
    let start = Instant::now();
    while rig.scrapes("timeout") < 450.0 {
        let snapshot = rig.snapshot().unwrap();
        let fresh = snapshot.endpoints.iter().filter(|view| view.freshness == Freshness::Fresh).count();
        assert_eq!(fresh, 150, "{:?}", snapshot.coverage);
        assert!(start.elapsed() < Duration::from_secs(30), "{} timeouts", rig.scrapes("timeout"));
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(coverage().unreachable, 150);
    let fewest = good.iter().map(Server::requests).min().unwrap();
    assert!(fewest >= 6, "the good server that was read least was read {fewest} times");
    rig.stop().await;
}
