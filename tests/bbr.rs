//! `weir bbr` behind a real Envoy, before pickers of several pools.

#![allow(clippy::unwrap_used)]

#[path = "bbr/hostile.rs"]
mod hostile;
#[path = "bbr/pools.rs"]
mod pools;
#[path = "bbr/scene.rs"]
mod scene;
#[path = "bbr/table.rs"]
mod table;
