//! Deciders, one file each: whether a stage of a request is worth an endpoint of its own.

mod always;
mod multimodal;
mod prefix_based;

pub use always::AlwaysDecider;
pub use multimodal::MultimodalDecider;
pub use prefix_based::PrefixBasedDecider;
