//! Who may read the metrics of another namespace than the request's own.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use weir_serving::Caller;

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
