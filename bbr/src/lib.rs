//! Body-based routing: what a request's body says, as headers that a gateway chooses its route by. An ext_proc server before the
//! picker's, in the place of upstream's.
//!
//! 1. [`names`]: from the name that a client writes to the one that servers know. [`mapping`]: from an adapter to its base model.
//!    [`classify`]: simple requests to a small model, complex ones to a large one. All pure.
//! 2. [`rules`]: the file that says so. [`table`]: all that is in force at a moment.
//! 3. [`plugin`], [`decide`]: from a body to headers, pure.
//! 4. [`exchange`]: one request as a gateway tells of it, messages in and replies out, pure.
//! 5. [`follow`], [`metrics`], [`service`]: what changes while it runs, what it counts, the gRPC service.

pub mod classify;
pub mod decide;
pub mod exchange;
pub mod follow;
pub mod mapping;
pub mod metrics;
pub mod names;
pub mod plugin;
pub mod rules;
pub mod service;
pub mod table;
mod text;

pub use follow::Follower;
pub use metrics::BbrMetrics;
pub use service::Service;
