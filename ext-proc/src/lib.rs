//! Envoy's external processing (`envoy.service.ext_proc.v3`) as weir's servers speak it: the picker and body-based routing.
//!
//! 1. `message`, `modes`: what a gateway says and what is said to it, without the wire's types. `metadata`: what comes along.
//! 2. [`protocol`]: between those and the wire. Nothing else knows the wire's types.
//! 3. [`body`]: a JSON body read for a few of its fields, and edited in place. [`Budget`]: bytes that all bodies may take together.
//! 4. [`Refusal`]: a request that is not sent on, and how the gateway is to answer it.
//! 5. [`Servers`]: the ext_proc port with health, and the health port in plain text.

pub mod body;
pub mod protocol;

mod budget;
mod health;
mod message;
mod metadata;
mod modes;
mod refusal;
mod server;

pub use budget::{Budget, Share};
pub use health::HealthService;
pub use message::{BodyReply, Chunk, Content, Head, HeadReply, Immediate, Incoming, Message, PickMetadata, Reply, Served, split};
pub use metadata::{Attribute, DESTINATION, LB_NAMESPACE, SERVED, SUBSET, SUBSET_NAMESPACE, Subset, subset_of};
pub use modes::{BodyMode, Modes};
pub use refusal::{Code, ErrorPrefix, Refusal, immediate};
pub use server::{Certificate, Servers, Services, connection_limits, request_limits};
