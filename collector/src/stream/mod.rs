//! What another weir tells of a pool, instead of reading the pool's servers a second time.
//!
//! 1. [`lines`]: bytes to lines, bounded.
//! 2. [`follow`]: lines to frames, each checked; a stream that skips, falls silent or speaks of something else has ended.
//! 3. [`feed`]: from frames to the loops of the endpoints: the youngest sample of all streams, and when a loop has to read its
//!    endpoint by itself again.

pub(crate) mod feed;
pub(crate) mod follow;
mod lines;
pub(crate) mod metrics;
