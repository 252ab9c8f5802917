//! Pools that go to zero and are woken by requests, in a real control plane behind a real Envoy.

#![allow(clippy::unwrap_used)]

#[path = "epp/chart.rs"]
#[allow(dead_code, reason = "shared with epp_in_cluster")]
mod chart;
#[path = "zero/held.rs"]
mod held;
#[path = "zero/hindered.rs"]
mod hindered;
#[path = "epp/scene.rs"]
#[allow(dead_code, reason = "shared with epp_in_cluster")]
mod scene;
#[path = "zero/stage.rs"]
mod stage;
#[path = "zero/token.rs"]
mod token;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tests share a cluster and the machine: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
