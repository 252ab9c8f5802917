//! The picker as gateways reach it: the ext_proc and health services over gRPC.
//!
//! [`Frontend`] is the service: a session per stream drives an [`crate::exchange::Exchange`] with what the gateway sends
//! and what the director answers. `weir_ext_proc::protocol` alone knows the wire's types. [`Frontend::router`] makes it a router, and
//! [`Servers`] are the two servers of a picker: ext_proc with health on one port, health alone in plain text on another.

mod metrics;
mod service;
mod session;

#[cfg(test)]
mod tests;

pub use metrics::FrontendMetrics;
pub(crate) use metrics::Raised;
pub use service::Frontend;
pub use weir_ext_proc::{Certificate, Servers, connection_limits, request_limits};
