//! What a request means to Kubernetes' access reviews: the API server's own reading of methods and paths, so that one role
//! means the same here and there.

use http::Method;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use weir_serving::{Attributes, ResourceAttributes};

use crate::parameters::Parameters;

/// Verbs that a path can name before its resource.
const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];
/// What is a subresource of a namespace rather than a resource in it.
const OF_NAMESPACES: [&str; 2] = ["status", "finalize"];

/// What `request` would do: something with a resource below `/apis/GROUP/VERSION/`, something with a path elsewhere.
///
/// External metrics are listed: the metric is the resource. Custom metrics are read: the metric is the subresource of the object
/// that it describes.
pub fn request_attributes(request: &Parts) -> Attributes {
    resource(request).map_or_else(|| Attributes::of_path(request), Attributes::Resource)
}

fn resource(request: &Parts) -> Option<ResourceAttributes> {
    // Decoded as a whole: an encoded slash divides segments, too.
    let path = percent_decode_str(request.uri.path()).decode_utf8().ok()?;
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ["apis", group, version, rest @ ..] = segments.as_slice() else { return None };
    let (verb, rest) = match rest {
        [] => return None,
        [verb, rest @ ..] if SPECIAL_VERBS.contains(verb) => {
            if rest.is_empty() {
                return None;
            }
            (*verb, rest)
        }
        rest => (verb(&request.method), rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, subresource, ..] if OF_NAMESPACES.contains(subresource) => (*namespace, rest),
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
        ["namespaces", namespace] => (*namespace, rest),
        rest => ("", rest),
    };
    let part = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
    let mut attributes = ResourceAttributes {
        verb: verb.to_owned(),
        group: (*group).to_owned(),
        version: (*version).to_owned(),
        resource: part(0),
        name: part(1),
        subresource: if SPECIAL_VERBS.contains(&verb) { String::new() } else { part(2) },
        namespace: namespace.to_owned(),
        label_selector: String::new(),
    };
    if attributes.name.is_empty() && verb == "get" {
        let query = request.uri.query().unwrap_or_default();
        attributes.verb = if asks_to_watch(query) { "watch" } else { "list" }.to_owned();
        // A selector that cannot be read limits nothing: then leave for all is asked for.
        let selector = Parameters::read(query).ok().and_then(|parameters| parameters.label_selector);
        attributes.label_selector = selector.unwrap_or_default();
    }
    Some(attributes)
}

/// Kubernetes' name of a method; one it has no name for is asked about as itself.
fn verb(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => method.as_str(),
    }
}

fn asks_to_watch(query: &str) -> bool {
    let value = query.split('&').find_map(|pair| match pair.split_once('=') {
        Some(("watch", value)) => Some(value),
        None if pair == "watch" => Some(""),
        _ => None,
    });
    value.is_some_and(|value| !["0", "false", "False", "FALSE", "f", "F"].contains(&value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::groups::Groups;
    use crate::path::Route;

    fn of(method: &str, uri: &str) -> Attributes {
        let (parts, ()) = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        request_attributes(&parts)
    }

    /// Verb, resource, subresource, name, namespace.
    fn read(uri: &str) -> [String; 5] {
        match of("GET", uri) {
            Attributes::Resource(ResourceAttributes { verb, resource, subresource, name, namespace, .. }) => {
                [verb, resource, subresource, name, namespace]
            }
            Attributes::NonResource { path, verb } => [verb, path, String::new(), String::new(), String::new()],
        }
    }

    #[test]
    fn paths_mean_what_they_mean_to_the_api_server() {
        let external = "/apis/external.metrics.k8s.io/v1beta1";
        let custom = "/apis/custom.metrics.k8s.io/v1beta2";
        for (uri, expected) in [
            (format!("{external}/namespaces/ns/m?labelSelector=name%3Da"), ["list", "m", "", "", "ns"]),
            (
                format!("{external}/namespaces/ns/prometheus.googleapis.com%7Cm%7Cgauge"),
                ["list", "prometheus.googleapis.com|m|gauge", "", "", "ns"],
            ),
            (format!("{external}/namespaces/ns/m?watch=1"), ["watch", "m", "", "", "ns"]),
            (format!("{external}/namespaces/ns/m?watch=false"), ["list", "m", "", "", "ns"]),
            (format!("{custom}/namespaces/ns/pods/%2A/m"), ["get", "pods", "m", "*", "ns"]),
            (format!("{custom}/namespaces/ns/pods/p/m"), ["get", "pods", "m", "p", "ns"]),
            (format!("{custom}/nodes/*/m"), ["get", "nodes", "m", "*", ""]),
            (format!("{custom}/namespaces/ns/metrics/m"), ["get", "metrics", "", "m", "ns"]),
            (format!("{custom}/namespaces/ns/status"), ["get", "namespaces", "status", "ns", "ns"]),
            (format!("{custom}/namespaces/ns"), ["get", "namespaces", "", "ns", "ns"]),
            (format!("{custom}/watch/pods/p"), ["watch", "pods", "", "p", ""]),
            (external.into(), ["get", external, "", "", ""]),
            ("/apis".into(), ["get", "/apis", "", "", ""]),
            ("/openapi/v3/apis/a/b".into(), ["get", "/openapi/v3/apis/a/b", "", "", ""]),
            ("/metrics".into(), ["get", "/metrics", "", "", ""]),
        ] {
            assert_eq!(read(&uri), expected, "{uri}");
        }
        let Attributes::Resource(list) = of("GET", "/apis/g/v/namespaces/n/m?labelSelector=name%3Da") else { panic!() };
        assert_eq!(list.label_selector, "name=a");
        let Attributes::Resource(write) = of("DELETE", "/apis/g/v/namespaces/n/r/x") else { panic!() };
        assert_eq!(write.verb, "delete");
    }

    proptest! {
        /// Whatever is answered was asked about: another namespace or metric than that of the review is never read.
        #[test]
        fn what_is_served_is_what_was_reviewed(
            prefix in "/apis/(external\\.metrics\\.k8s\\.io/v1beta1|custom\\.metrics\\.k8s\\.io/v1beta[12])",
            namespaces in "(/namespaces)?",
            segments in proptest::collection::vec("(namespaces|watch|status|pods|metrics|inferencepools|a|b|%2A|%2F|%61|\\*|\\.\\.|)", 0..6),
        ) {
            let uri = format!("{prefix}{namespaces}/{}", segments.join("/"));
            let Attributes::Resource(asked) = of("GET", &uri) else {
                let route = Route::read(&uri, Groups { external: true, custom: true });
                prop_assert!(!matches!(route, Ok(Route::External { .. } | Route::Custom { .. })), "{}", uri);
                return Ok(());
            };
            match Route::read(&uri, Groups { external: true, custom: true }) {
                // A namespace's status is no metric.
                Ok(Route::External { metric, .. }) if OF_NAMESPACES.contains(&metric.as_str()) => {}
                Ok(Route::External { namespace, metric }) => {
                    prop_assert_eq!((asked.namespace, asked.resource, asked.verb.as_str()), (namespace, metric, "list"));
                }
                Ok(Route::Custom { object, metric, .. }) => {
                    prop_assert_eq!(&asked.namespace, &object.namespace);
                    if asked.resource == "metrics" && asked.subresource.is_empty() {
                        prop_assert_eq!(asked.name, metric);
                    } else {
                        prop_assert_eq!(asked.subresource, metric);
                        prop_assert_eq!(asked.name, object.name.unwrap_or_else(|| "*".into()));
                    }
                }
                _ => {}
            }
        }
    }
}
