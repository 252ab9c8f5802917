//! What every server of weir needs around its logic: TLS, authentication, health, drain, limits, logs.
//!
//! A room hands in an [`axum::Router`] and gets back a server that is safe to leave on a network:
//!
//! ```no_run
//! # async fn example(registry: &mut prometheus_client::registry::Registry) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use weir_serving::{Authentication, BearerTokens, Server, ServingMetrics, Shutdown, Tls};
//!
//! let shutdown = Shutdown::on_signals()?;
//! let server = Server::builder(axum::Router::new())
//!     .name("adapter")
//!     .listen("0.0.0.0:6443".parse()?)
//!     .tls(Tls::files("tls.crt", "tls.key"))
//!     .authentication(Authentication::AnyOf(vec![Arc::new(BearerTokens::from_file("tokens")?)]))
//!     .metrics(ServingMetrics::register(registry))
//!     .bind()
//!     .await?;
//! println!("listening on {}", server.local_addr());
//! let report = server.serve(shutdown.token()).await;
//! println!("{report}");
//! # Ok(()) }
//! ```
//!
//! A request passes, from the outside in: connection limits (`listener`, `connection`), common headers and audit
//! id, counting and logging (`observe`), panic guard, deadline, authentication (`auth`), in-flight limit (`limits`),
//! authorisation (`authorization`), body limit, the room's router. In a cluster, the API server is asked who callers are and
//! what they may do (`kubernetes`). Health paths are routed before authentication and limits, so that a busy server
//! is not taken for a dead one.

mod error;
mod server;

mod certificate_authority;
mod client_verification;
mod files;
mod peer_certificate;
mod tls;

mod auth;
mod authorization;
mod bearer_tokens;
mod kubernetes;

mod health;
mod limits;
mod observe;
pub mod process_metrics;
mod request_metrics;
mod review_metrics;
mod status;

mod activity;
mod connection;
mod listener;
mod newcomers;
mod shutdown;

/// As whom weir writes to the cluster: its name among an object's managers of fields.
pub const FIELD_MANAGER: &str = "weir";

#[cfg(test)]
mod tests;

pub use auth::{Authentication, Authenticator, Caller, ClientCertificates, Decision, Verdict};
pub use authorization::{Authorization, DescribeRequest, RequestReviews};
pub use bearer_tokens::BearerTokens;
pub use certificate_authority::{CertificateAuthority, Issued};
pub use connection::{ConnectionInfo, ConnectionLimits};
pub use error::ServeError;
pub use files::Reload;
pub use health::{Blocker, Health};
pub use kubernetes::{
    AccessDecision, AccessReviewSettings, AccessReviews, Attributes, ClusterCertificates, ClusterTrust, Complaint, FrontProxy,
    LookFailure, ObjectWatch, ResourceAttributes, ReviewError, Seen, SharedAuthority, SharedAuthoritySettings, TokenReviewSettings,
    TokenReviews, service_names,
};
pub use limits::{AuditId, RequestDeadline, RequestLimits};
pub use listener::{Drain, DrainReport};
pub use peer_certificate::PeerCertificate;
pub use request_metrics::{RequestLabels, ServingMetrics};
pub use server::{Server, ServerBuilder};
pub use shutdown::Shutdown;
pub use status::failure;
pub use tls::{Tls, install_crypto_provider};
