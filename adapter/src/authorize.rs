//! Who may read what: what a request means to Kubernetes' access reviews (`attributes`), and who may read the metrics of
//! another namespace than the request's own.

mod attributes;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_serving::{AccessReviews, Attributes, Caller, ResourceAttributes};

use crate::EXTERNAL;

pub use attributes::request_attributes;

/// An answer that may have to be waited for.
pub type Permission<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Decides whether a caller may list a metric in a namespace. It is asked only where a selector leaves the request's namespace,
/// which whoever let the request in has authorised already.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `caller` may `list` `metric` of `external.metrics.k8s.io` in `namespace`; the metric as the request names it, which
    /// is what roles name. What cannot be decided is a no.
    fn may_read<'a>(&'a self, caller: &'a Caller, namespace: &'a str, metric: &'a str) -> Permission<'a>;
}

/// Lets everyone: whoever turned `allow_cross_namespace` on without a review has decided so.
struct Everyone;

impl Authorizer for Everyone {
    fn may_read<'a>(&'a self, _: &'a Caller, _: &'a str, _: &'a str) -> Permission<'a> {
        Box::pin(std::future::ready(true))
    }
}

/// Lets those whom Kubernetes allows to list the metric in the other namespace, as it would if they asked there.
#[derive(Debug)]
pub struct ReviewedNamespaces {
    reviews: Arc<AccessReviews>,
    timeout: Duration,
}

impl ReviewedNamespaces {
    /// Asks `reviews`; an answer that takes longer than `timeout` is a no. Keep it below the server's deadline.
    pub fn new(reviews: Arc<AccessReviews>, timeout: Duration) -> Self {
        Self { reviews, timeout }
    }
}

impl Authorizer for ReviewedNamespaces {
    fn may_read<'a>(&'a self, caller: &'a Caller, namespace: &'a str, metric: &'a str) -> Permission<'a> {
        let attributes = Attributes::Resource(ResourceAttributes {
            verb: "list".into(),
            group: EXTERNAL.group.into(),
            version: EXTERNAL.version.into(),
            resource: metric.into(),
            namespace: namespace.into(),
            ..ResourceAttributes::default()
        });
        Box::pin(async move {
            let decision = self.reviews.review(caller, &attributes, Some(Instant::now() + self.timeout)).await;
            decision.is_ok_and(|decision| decision.allowed)
        })
    }
}

/// An [`Authorizer`] to share. The default lets everyone.
#[derive(Clone)]
pub struct SharedAuthorizer(Arc<dyn Authorizer>);

impl SharedAuthorizer {
    /// Shares `authorizer`.
    pub fn new(authorizer: impl Authorizer) -> Self {
        Self(Arc::new(authorizer))
    }

    pub(crate) async fn may_read(&self, caller: &Caller, namespace: &str, metric: &str) -> bool {
        self.0.may_read(caller, namespace, metric).await
    }
}

impl Default for SharedAuthorizer {
    fn default() -> Self {
        Self::new(Everyone)
    }
}

impl fmt::Debug for SharedAuthorizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SharedAuthorizer")
    }
}
