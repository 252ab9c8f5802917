//! The metrics APIs of Kubernetes (`external.metrics.k8s.io`, `custom.metrics.k8s.io`), answered from the datastore.
//!
//! [`router`] makes both; TLS, authentication, limits and health are the server's around it. A request passes through the modules in
//! this order:
//!
//! 1. `server`: method, counting, which answer. `groups` is the one table of what is served.
//! 2. `path`: where it goes; `parameters`: the query string; `accept`: which form and shape the answer has.
//! 3. `names`, `pods`: which family is meant, of pools or of single pods, in our dialect, GKE's or an engine's own.
//! 4. `query`, `reducer`: which pools and pods a selector means, and how several values become one; `authorize`: whether its caller
//!    may read them.
//! 5. `provider` (external), `custom`: one snapshot per pool, and from there values or a truthful error: unknown is 503, never 0 and
//!    never a partial sum.
//! 6. `wire`, [`quantity`], `table`, `protobuf`, `yaml`: the bytes; `error`: every failure as `metav1.Status`.
//!
//! In a cluster, `authorize` also says what a request means to Kubernetes' access reviews, and [`registration`] keeps the API
//! server's APIServices pointing here.
//!
//! `discovery`, `openapi` and `openapi_protobuf` are documents written at the start (`document`). `config` is what the adapter is told at the start,
//! `metrics` what it tells of itself.

mod config;
mod groups;
mod server;

mod accept;
mod parameters;
mod path;

mod names;
mod pods;

mod authorize;
mod query;
mod reducer;

mod custom;
mod provider;

mod error;
mod protobuf;
pub mod quantity;
mod table;
mod wire;
mod yaml;

mod discovery;
mod document;
mod openapi;
mod openapi_protobuf;

mod metrics;
pub mod registration;
mod troubles;

#[cfg(test)]
mod tests;

pub use authorize::{Authorizer, Permission, ReviewedNamespaces, SharedAuthorizer, request_attributes};
pub use config::{AdapterConfig, Clock, ResourceLabels};
pub use groups::{CUSTOM_V1BETA1, CUSTOM_V1BETA2, EXTERNAL, GroupVersion};
pub use pods::{POD_FAMILIES, PodFamily};
pub use quantity::{Quantity, QuantityError};
pub use server::router;
