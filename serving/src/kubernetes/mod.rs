//! A citizen of the cluster: callers, permissions and certificates as Kubernetes' own aggregated API servers have them.
//!
//! - `configuration`, `trust`, `watch`: whom the cluster lets vouch for others (ConfigMap
//!   `kube-system/extension-apiserver-authentication`), followed live: [`ClusterTrust`].
//! - `peer_chain`, `front_proxy`, `cluster_certificates`: callers by client certificate, of the API server on behalf of
//!   its users or of users themselves.
//! - `token_reviews`: callers by bearer token. `access_reviews`: what callers may do, `attributes` says what is asked.
//!   Both ask the API server through `review` and remember the answer for seconds in `decisions`.
//! - `authority_secret`, `shared_authority`: one certificate authority for all replicas, kept in a Secret.
//! - `complaint`: failures that last are logged once.

mod attributes;
mod complaint;
mod configuration;
mod decisions;
mod review;
mod watch;

mod cluster_certificates;
mod front_proxy;
mod peer_chain;
mod trust;

mod access_reviews;
mod token_reviews;

mod authority_secret;
mod shared_authority;

#[cfg(test)]
pub(crate) use configuration::tests::published;

pub use access_reviews::{AccessDecision, AccessReviewSettings, AccessReviews};
pub use attributes::{Attributes, ResourceAttributes};
pub use cluster_certificates::ClusterCertificates;
pub use complaint::Complaint;
pub use front_proxy::FrontProxy;
pub(crate) use peer_chain::PeerChain;
pub use review::ReviewError;
pub(crate) use review::ReviewKind;
pub use shared_authority::{SharedAuthority, SharedAuthoritySettings, service_names};
pub use token_reviews::{TokenReviewSettings, TokenReviews};
pub use trust::ClusterTrust;
pub use watch::{LookFailure, ObjectWatch, Seen};
