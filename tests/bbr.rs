//! `weir bbr` behind a real Envoy, before pickers of several pools.

#![allow(clippy::unwrap_used)]

#[path = "bbr/hostile.rs"]
mod hostile;
#[path = "bbr/in_a_cluster.rs"]
mod in_a_cluster;
#[path = "bbr/pools.rs"]
mod pools;
#[path = "bbr/scene.rs"]
mod scene;
#[path = "bbr/table.rs"]
mod table;
