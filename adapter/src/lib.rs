//! The external metrics API of Kubernetes (`external.metrics.k8s.io/v1beta1`), answered from the datastore.
//!
//! [`router`] makes the API; TLS, authentication, limits and health are the server's around it. A request passes through the modules
//! in this order:
//!
//! 1. `server`: method, `Accept`, counting, indentation.
//! 2. `path`: where it goes; `parameters`: the query string; `accept`: whether JSON will do.
//! 3. `names`: which family of the catalog is meant, in our dialect or GKE's.
//! 4. `query`: which pools, which pods and which reducer the label selector means.
//! 5. `provider`: one snapshot per pool, and from there values or a truthful error: unknown is 503, never 0 and never a partial sum.
//! 6. `wire`, [`quantity`]: the bytes; `error`: every failure as `metav1.Status`.
//!
//! `config` is what the adapter is told at the start, `metrics` what it tells of itself.

mod config;
mod server;

mod accept;
mod parameters;
mod path;

mod names;
mod provider;
mod query;

mod error;
pub mod quantity;
mod wire;

mod metrics;

#[cfg(test)]
mod tests;

pub use config::{AdapterConfig, Clock, ResourceLabels};
pub use quantity::{Quantity, QuantityError};
pub use server::router;

/// The group and version that is served.
pub const GROUP: GroupVersion =
    GroupVersion { group: "external.metrics.k8s.io", version: "v1beta1", name: "external.metrics.k8s.io/v1beta1" };

/// An API group and one of its versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupVersion {
    /// The group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// Both, as objects name them in `apiVersion`.
    pub name: &'static str,
}
