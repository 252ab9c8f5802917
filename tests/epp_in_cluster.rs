//! `weir epp` in a real control plane, behind a real Envoy: what users see while pods, pools and pickers come and go.

#![allow(clippy::unwrap_used)]

#[path = "epp/chart.rs"]
#[allow(dead_code, reason = "shared with tests of the scaler and of zero")]
mod chart;
#[path = "epp/in_a_cluster.rs"]
mod in_a_cluster;
#[path = "epp/pickers.rs"]
mod pickers;
#[path = "epp/pods.rs"]
mod pods;
#[path = "epp/pool.rs"]
mod pool;
#[path = "epp/scale_down.rs"]
mod scale_down;
#[path = "epp/scene.rs"]
mod scene;
#[path = "epp/servers.rs"]
mod servers;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tests share a cluster and the machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
