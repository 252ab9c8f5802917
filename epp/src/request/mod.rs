//! What a pick needs to know of a request, read from its head and its body without a copy of either.
//!
//! The head gives the API by its path, and the control headers ([`RequestHead`]). The body is scanned once for the few top-level fields
//! that matter ([`RequestBody`]): bytes stay bytes, nothing is decoded but the model's name. Where the body shall name another
//! model, that one value is replaced in place. [`Parsers`] are configured: they say which paths are read, and how.

mod parsers;

mod body;
mod grpc;
mod head;
mod path;
mod refusals;

#[cfg(test)]
mod tests;

pub use body::RequestBody;
pub use grpc::Method;
pub(crate) use grpc::{FRAME_HEADER, HttpBody};
pub use head::RequestHead;
pub(crate) use head::named;
pub use parsers::{Parser, Parsers};
pub use path::Route;
pub(crate) use refusals::{bad_request, buffers_full, out_of_order, shutting_down, too_large};
pub use weir_ext_proc::{DESTINATION, SERVED, SUBSET, subset_of};
