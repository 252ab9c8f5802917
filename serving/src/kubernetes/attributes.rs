//! What a request would do, in the words of Kubernetes' access reviews.

use http::request::Parts;
use k8s_openapi::api::authorization::v1 as api;

/// What a request would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// Something with a resource of an API.
    Resource(ResourceAttributes),
    /// Something with a path that is no resource.
    NonResource {
        /// The path.
        path: String,
        /// The method in lower case.
        verb: String,
    },
}

/// What a request would do with a resource; empty means that the request does not name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceAttributes {
    /// `get`, `list`, `watch`, ….
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The resource; for external metrics the metric.
    pub resource: String,
    /// The subresource; for custom metrics the metric.
    pub subresource: String,
    /// The object, `*` for all that a selector matches.
    pub name: String,
    /// The namespace; empty at the cluster's scope.
    pub namespace: String,
    /// The label selector of a list, as it was sent.
    pub label_selector: String,
}

impl Attributes {
    /// A request for a path that is no resource, whatever it looks like.
    pub fn of_path(request: &Parts) -> Self {
        Self::NonResource { path: request.uri.path().to_owned(), verb: request.method.as_str().to_ascii_lowercase() }
    }

    /// Bytes of what callers choose.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::NonResource { path, verb } => path.len() + verb.len(),
            Self::Resource(attributes) => attributes.texts().iter().map(|text| text.len()).sum(),
        }
    }
}

impl ResourceAttributes {
    fn texts(&self) -> [&str; 8] {
        [
            &self.verb,
            &self.group,
            &self.version,
            &self.resource,
            &self.subresource,
            &self.name,
            &self.namespace,
            &self.label_selector,
        ]
    }

    pub(crate) fn for_review(&self) -> api::ResourceAttributes {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let label_selector =
            given(&self.label_selector).map(|raw| api::LabelSelectorAttributes { raw_selector: Some(raw), requirements: None });
        api::ResourceAttributes {
            verb: given(&self.verb),
            group: given(&self.group),
            version: given(&self.version),
            resource: given(&self.resource),
            subresource: given(&self.subresource),
            name: given(&self.name),
            namespace: given(&self.namespace),
            label_selector,
            field_selector: None,
        }
    }
}
