//! What is read from a response while it passes: the server's count of tokens, and the model's name put back.
//!
//! A response comes in pieces cut anywhere, a stream of events, one JSON document or frames of gRPC. [`ResponseBody`] follows it byte by byte with a
//! state of bounded size, so that a cut changes nothing, and a long answer costs no memory. Pieces pass unchanged, without a copy,
//! unless the model's name must be replaced in them. [`AttributeReporter`] computes a number for the gateway from the count.

mod body;
mod follower;
mod frames;
mod reporter;
mod usage;

#[cfg(test)]
mod tests;

pub use body::{Framing, ModelBack, ResponseBody};
pub use reporter::{Attribute, AttributeReporter};
pub use usage::usage_of;
