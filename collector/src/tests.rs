//! Real sockets on the loopback, servers whose pages change, waiting by condition.

mod bad_servers;
mod credentials;
mod crowd;
mod fetching;
mod latencies;
pub(crate) mod log;
mod pacing;
mod pickers;
mod restricting;
mod rig;
mod server;
mod topology;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Waits until `holds`, for at most 20 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
