//! Who may do what: after a caller is known, Kubernetes is asked whether it may make this request.

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{StatusCode, header, request::Parts};
use tokio::time::Instant;

use crate::{
    AccessReviews, Attributes, Caller, ConnectionInfo, RequestDeadline, ResourceAttributes, ServeError,
    status::{self, Details},
};

/// How a request is described to the reviewer: by what its path means.
pub type DescribeRequest = fn(&Parts) -> Attributes;

/// Which of the callers that are known may make a request.
#[derive(Clone, Debug, Default)]
pub enum Authorization {
    /// All of them: authentication has decided.
    #[default]
    AllowAuthenticated,
    /// Those whom Kubernetes allows it. Requests without any proof are then asked about as `system:anonymous`.
    Reviews(RequestReviews),
}

/// Kubernetes' decision about each request.
#[derive(Clone)]
pub struct RequestReviews {
    reviews: Arc<AccessReviews>,
    describe: DescribeRequest,
    always_allow: Arc<[String]>,
}

impl fmt::Debug for RequestReviews {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RequestReviews").field("always_allow", &self.always_allow).finish_non_exhaustive()
    }
}

impl RequestReviews {
    /// Asks `reviews`, for every path as a path ([`Attributes::of_path`]); `/healthz`, `/readyz` and `/livez` are for
    /// everyone.
    pub fn new(reviews: Arc<AccessReviews>) -> Self {
        let always_allow = ["/healthz", "/readyz", "/livez"].map(String::from).into();
        Self { reviews, describe: Attributes::of_path, always_allow }
    }

    /// How requests are described instead.
    #[must_use]
    pub fn describe(self, describe: DescribeRequest) -> Self {
        Self { describe, ..self }
    }

    /// Paths that everyone may read, instead of the default; one that ends in `*` means all that begin so. Requests
    /// for resources are never among them.
    #[must_use]
    pub fn always_allow(self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { always_allow: paths.into_iter().map(Into::into).collect(), ..self }
    }

    fn is_always_allowed(&self, attributes: &Attributes) -> bool {
        let Attributes::NonResource { path, .. } = attributes else {
            return false;
        };
        self.always_allow.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == allowed,
        })
    }
}

impl Authorization {
    /// Whether requests without any proof get as far as this.
    pub(crate) fn judges_anonymous(&self) -> bool {
        matches!(self, Self::Reviews(_))
    }

    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let Self::Reviews(reviews) = self else {
            return Ok(());
        };
        match reviews.always_allow.iter().find(|path| !path.starts_with('/')) {
            None => Ok(()),
            Some(path) => Err(ServeError::Setting {
                setting: "paths that are always allowed",
                problem: format!("{path:?} must begin with a slash"),
            }),
        }
    }
}

/// The layer: 403 for what is denied, 500 for what could not be decided.
pub(crate) async fn authorize(State(authorization): State<Authorization>, request: Request, next: Next) -> Response {
    let Authorization::Reviews(reviews) = authorization else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    if let Some(refusal) = judge(&reviews, &parts).await {
        // Floods of requests that are refused shall not keep a connection.
        if let (Some(connection), true) =
            (parts.extensions.get::<ConnectionInfo>(), parts.extensions.get::<Caller>().is_none_or(Caller::is_anonymous))
        {
            connection.close();
        }
        return refusal;
    }
    next.run(Request::from_parts(parts, body)).await
}

/// The refusal, if there is one.
async fn judge(reviews: &RequestReviews, parts: &Parts) -> Option<Response> {
    let attributes = (reviews.describe)(parts);
    let Some(caller) = parts.extensions.get::<Caller>() else {
        return Some(status::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"));
    };
    if reviews.is_always_allowed(&attributes) {
        return None;
    }
    let until = parts.extensions.get::<RequestDeadline>().map(|deadline| deadline.to_wait(Instant::now()));
    match reviews.reviews.review(caller, &attributes, until).await {
        Ok(decision) if decision.allowed => None,
        Ok(decision) => Some(forbidden(caller, &attributes, &decision.reason)),
        Err(error) => {
            // As a Status: an autoscaler repeats its message as it is, and wraps anything else.
            let message = format!("Internal error occurred: {error}");
            Some(status::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message))
        }
    }
}

/// As Kubernetes' API servers say no; clients and people know the sentence.
fn forbidden(caller: &Caller, attributes: &Attributes, reason: &str) -> Response {
    let (message, details) = refusal_text(&caller.name, attributes, reason);
    let mut response = status::failure_about(StatusCode::FORBIDDEN, "Forbidden", &message, Some(details));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

fn refusal_text<'a>(user: &str, attributes: &'a Attributes, reason: &str) -> (String, Details<'a>) {
    let (object, cannot, details) = match attributes {
        Attributes::NonResource { path, verb } => {
            (String::new(), format!("User {user:?} cannot {verb} path {path:?}"), Details { name: "", group: "", kind: "" })
        }
        Attributes::Resource(ResourceAttributes { verb, group, resource, subresource, name, namespace, .. }) => {
            let full = match subresource.as_str() {
                "" => resource.clone(),
                subresource => format!("{resource}/{subresource}"),
            };
            let scope = match namespace.as_str() {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let cannot = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {scope}");
            let mut object = match group.as_str() {
                "" => resource.clone(),
                group => format!("{resource}.{group}"),
            };
            if !name.is_empty() {
                object += &format!(" {name:?}");
            }
            (object + " is ", cannot, Details { name, group, kind: resource })
        }
    };
    let mut message = format!("{object}forbidden: {}", escaped(&cannot));
    if !reason.is_empty() {
        message += ": ";
        message += reason;
    }
    (message, details)
}

/// Names that callers choose end up on web pages.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, subresource: &str, namespace: &str) -> Attributes {
        Attributes::Resource(ResourceAttributes {
            verb: "get".into(),
            group: "custom.metrics.k8s.io".into(),
            version: "v1beta2".into(),
            resource: "pods".into(),
            subresource: subresource.into(),
            name: name.into(),
            namespace: namespace.into(),
            ..ResourceAttributes::default()
        })
    }

    #[test]
    fn the_sentences_of_kubernetes() {
        let text = |attributes: Attributes, reason: &str| refusal_text("a<b", &attributes, reason).0;
        assert_eq!(
            text(resource("p", "kv", "ns"), ""),
            "pods.custom.metrics.k8s.io \"p\" is forbidden: User \"a&lt;b\" cannot get resource \"pods/kv\" in API group \"custom.metrics.k8s.io\" in the namespace \"ns\""
        );
        assert_eq!(
            text(resource("", "", ""), "no role"),
            "pods.custom.metrics.k8s.io is forbidden: User \"a&lt;b\" cannot get resource \"pods\" in API group \"custom.metrics.k8s.io\" at the cluster scope: no role"
        );
        let path = Attributes::NonResource { path: "/x".into(), verb: "get".into() };
        assert_eq!(text(path, ""), "forbidden: User \"a&lt;b\" cannot get path \"/x\"");
    }
}
