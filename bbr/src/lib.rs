//! Body-based routing.

pub mod classify;
pub mod mapping;
pub mod names;
mod text;
