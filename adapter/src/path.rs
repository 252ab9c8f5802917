//! Where a request goes: the paths of the API, percent-decoded once and compared with the table of what is served.

use std::borrow::Cow;

use crate::error::{ApiError, shown};
use crate::groups::{Described, Group, GroupVersion, Groups, NAMESPACES, Part};

/// Longest segment that is read, as sent. Names of Kubernetes have at most 253 characters, each at most three when encoded.
const LONGEST_SEGMENT: usize = 1024;

/// Most segments of a path that is served; one more tells a longer one.
const MOST_SEGMENTS: usize = 8;

/// What a path names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// `/apis`: the groups.
    Groups,
    /// `/apis/G`: the group's versions.
    Group(&'static Group),
    /// `/apis/G/V`: the version's resources.
    Resources(&'static GroupVersion),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`: where the documents are.
    OpenApiIndex,
    /// `/openapi/v3/apis/G/V`.
    OpenApi(&'static GroupVersion),
    /// `/version`.
    Version,
    /// The values of an external metric.
    External {
        /// The namespace, which the request was authorised for.
        namespace: String,
        /// The metric, in the caller's dialect.
        metric: String,
    },
    /// The values of a metric that describes objects.
    Custom {
        version: &'static GroupVersion,
        object: Object,
        /// The metric, in the caller's dialect.
        metric: String,
    },
}

/// The objects that a path names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Object {
    pub(crate) described: Described,
    /// The namespace, which the request was authorised for.
    pub(crate) namespace: String,
    /// None for all that the label selector matches, `*` in the path.
    pub(crate) name: Option<String>,
}

impl Route {
    /// What `path` names; one slash after a discovery path is let pass.
    ///
    /// # Errors
    /// [`ApiError::UnknownPath`] where nothing is served, [`ApiError::InvalidPath`] for a custom metric of nothing,
    /// [`ApiError::UnknownResource`] for a custom metric of an object that has none, [`ApiError::MalformedUrl`] where the path
    /// cannot be decoded.
    pub(crate) fn read(path: &str, groups: Groups) -> Result<Self, ApiError> {
        let unknown = || ApiError::UnknownPath { path: shown(path), served: served(groups) };
        let mut segments = Vec::with_capacity(MOST_SEGMENTS + 1);
        // Nothing served has more segments, so the rest of a longer path is not looked at.
        for segment in path.strip_prefix('/').ok_or_else(unknown)?.split('/').take(MOST_SEGMENTS + 1) {
            segments.push(decoded_segment(segment)?);
        }
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        let version_of = |group: &str, version: &str| groups.group(group).and_then(|group| group.version(version));
        match segments.as_slice() {
            ["apis"] | ["apis", ""] => Ok(Self::Groups),
            ["version"] | ["version", ""] => Ok(Self::Version),
            ["openapi", "v2"] => Ok(Self::OpenApiV2),
            ["openapi", "v3"] | ["openapi", "v3", ""] => Ok(Self::OpenApiIndex),
            ["openapi", "v3", "apis", group, version] => version_of(group, version).map(Self::OpenApi).ok_or_else(unknown),
            ["apis", group] | ["apis", group, ""] => groups.group(group).map(Self::Group).ok_or_else(unknown),
            ["apis", group, version] | ["apis", group, version, ""] => {
                version_of(group, version).map(Self::Resources).ok_or_else(unknown)
            }
            ["apis", group, version, rest @ ..] => {
                let (Some(group), Some(version)) = (groups.group(group), version_of(group, version)) else { return Err(unknown()) };
                match Captured::of(group, rest) {
                    Some(captured) => captured.route(version),
                    None if group.describes_objects() => Err(without_namespace(rest, path).unwrap_or_else(unknown)),
                    None => Err(unknown()),
                }
            }
            _ => Err(unknown()),
        }
    }

    /// The kind behind the path, as errors name it, and its group.
    pub(crate) fn kind(&self) -> (String, &'static str) {
        match self {
            Self::Groups => ("APIGroupList".into(), ""),
            Self::Group(group) => ("APIGroup".into(), group.name),
            Self::Resources(version) => ("APIResourceList".into(), version.group),
            Self::OpenApiV2 | Self::OpenApiIndex | Self::OpenApi(_) => ("OpenAPI".into(), ""),
            Self::Version => ("Info".into(), ""),
            Self::External { metric, .. } => (format!("{}.{}", shown(metric), crate::EXTERNAL.group), crate::EXTERNAL.group),
            Self::Custom { version, object, metric } => {
                (format!("{}/{}.{}", object.described.resource, shown(metric), version.group), version.group)
            }
        }
    }
}

/// The parts of a path that fitted a template.
#[derive(Clone, Copy, Debug, Default)]
struct Captured<'path> {
    namespace: &'path str,
    resource: Option<&'path str>,
    name: &'path str,
    metric: &'path str,
}

impl<'path> Captured<'path> {
    /// An encoded slash is a slash: `a%2Fb` is two segments, and nothing is served there.
    fn of(group: &Group, segments: &[&'path str]) -> Option<Self> {
        if segments.iter().any(|segment| segment.is_empty() || segment.contains('/')) {
            return None;
        }
        let fit = |template: &&'static [Part]| {
            let mut captured = Self::default();
            let fits = template.len() == segments.len()
                && template.iter().zip(segments).all(|(part, segment)| {
                    match part {
                        Part::Word(word) => return word == segment,
                        Part::Namespace => captured.namespace = segment,
                        Part::Resource => captured.resource = Some(segment),
                        Part::Name => captured.name = segment,
                        Part::Metric => captured.metric = segment,
                    }
                    true
                });
            fits.then_some(captured)
        };
        group.templates.iter().find_map(fit)
    }

    fn route(self, version: &'static GroupVersion) -> Result<Route, ApiError> {
        let metric = self.metric.to_owned();
        let namespace = self.namespace.to_owned();
        if *version == crate::EXTERNAL {
            return Ok(Route::External { namespace, metric });
        }
        let object = match self.resource {
            None => Object { described: NAMESPACES, name: Some(namespace.clone()), namespace },
            Some(resource) => {
                let Some(described) = Described::find(resource) else {
                    return Err(ApiError::UnknownResource {
                        metric: shown(self.metric),
                        of: format!("{} {}", shown(resource), shown(self.name)),
                    });
                };
                Object { described, namespace, name: (self.name != "*").then(|| self.name.to_owned()) }
            }
        };
        Ok(Route::Custom { version, object, metric })
    }
}

/// What is wrong with a path of custom metrics that no template fits: those of Kubernetes have a form for objects outside of
/// namespaces, of which there are none here.
fn without_namespace(segments: &[&str], path: &str) -> Option<ApiError> {
    match segments {
        _ if segments.iter().any(|segment| segment.is_empty() || segment.contains('/')) => None,
        ["namespaces", _, _] => Some(ApiError::InvalidPath { path: shown(path) }),
        [resource, name, metric] => {
            Some(ApiError::UnknownResource { metric: shown(metric), of: format!("{} {}", shown(resource), shown(name)) })
        }
        _ => None,
    }
}

/// The paths of values, for whoever asks for another.
fn served(groups: Groups) -> String {
    let paths: Vec<_> = groups
        .served()
        .flat_map(|group| group.versions.iter().take(1).map(move |version| (group, version)))
        .filter_map(|(group, version)| Some(template_path(version, group.templates.last()?)))
        .collect();
    paths.join(" and ")
}

/// `/apis/G/V/…` with the names of its parts in braces.
pub(crate) fn template_path(version: &GroupVersion, template: &[Part]) -> String {
    let mut path = format!("/apis/{}", version.name);
    for part in template {
        path.push('/');
        path.push_str(match part {
            Part::Word(word) => word,
            Part::Namespace => "{namespace}",
            Part::Resource => "{resource}",
            Part::Name => "{name}",
            Part::Metric => "{metric}",
        });
    }
    path
}

fn decoded_segment(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    if segment.len() > LONGEST_SEGMENT {
        return Err(ApiError::MalformedUrl {
            part: shown(segment),
            problem: format!("a path segment has at most {LONGEST_SEGMENT} characters"),
        });
    }
    let name = decoded(segment)?;
    if name.chars().any(char::is_control) {
        return Err(ApiError::MalformedUrl { part: shown(segment), problem: "it contains a control character".into() });
    }
    Ok(name)
}

/// `text` with its `%XX` escapes resolved, once.
///
/// # Errors
/// [`ApiError::MalformedUrl`] for an escape that is none and for what is not UTF-8.
pub(crate) fn decoded(text: &str) -> Result<Cow<'_, str>, ApiError> {
    let malformed = |problem: &str| ApiError::MalformedUrl { part: shown(text), problem: problem.into() };
    let mut escapes = text.split('%');
    escapes.next();
    let is_escape = |after: &str| after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !escapes.all(is_escape) {
        return Err(malformed("`%` must be followed by two hexadecimal digits"));
    }
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| malformed("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::{CUSTOM_V1BETA1, EXTERNAL};

    const BOTH: Groups = Groups { external: true, custom: true };
    const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
    const RESOURCES: &str = "/apis/external.metrics.k8s.io/v1beta1";

    fn metric(namespace: &str, metric: &str) -> Result<Route, StatusCode> {
        Ok(Route::External { namespace: namespace.into(), metric: metric.into() })
    }

    #[test]
    fn only_the_paths_of_the_api_are_known() {
        let external = BOTH.group(EXTERNAL.group).unwrap();
        let long = "x".repeat(LONGEST_SEGMENT);
        for (path, expected) in [
            ("/apis", Ok(Route::Groups)),
            ("/apis/", Ok(Route::Groups)),
            ("/%61pis", Ok(Route::Groups)),
            ("/apis/external.metrics.k8s.io", Ok(Route::Group(external))),
            ("/apis/external.metrics.k8s.io/", Ok(Route::Group(external))),
            (RESOURCES, Ok(Route::Resources(&EXTERNAL))),
            (&format!("{RESOURCES}/"), Ok(Route::Resources(&EXTERNAL))),
            ("/version", Ok(Route::Version)),
            ("/openapi/v2", Ok(Route::OpenApiV2)),
            ("/openapi/v3", Ok(Route::OpenApiIndex)),
            ("/openapi/v3/apis/external.metrics.k8s.io/v1beta1", Ok(Route::OpenApi(&EXTERNAL))),
            ("/openapi/v3/apis/custom.metrics.k8s.io/v1beta1", Ok(Route::OpenApi(&CUSTOM_V1BETA1))),
            ("/openapi/v3/apis/external.metrics.k8s.io/v1", Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/m"), metric("default", "m")),
            (&format!("{RESOURCES}/namespaces/default/a%7Cb%2A:c|d"), metric("default", "a|b*:c|d")),
            (&format!("{RESOURCES}/namespaces/default/{long}"), metric("default", &long)),
            // Decoded once: `%25` is a percent sign and nothing more.
            (&format!("{RESOURCES}/namespaces/default/%257C"), metric("default", "%7C")),
            (&format!("{RESOURCES}/namespaces/%C3%A9/m"), metric("é", "m")),
            ("", Err(StatusCode::NOT_FOUND)),
            ("/", Err(StatusCode::NOT_FOUND)),
            ("//apis", Err(StatusCode::NOT_FOUND)),
            ("/apis//", Err(StatusCode::NOT_FOUND)),
            ("/openapi", Err(StatusCode::NOT_FOUND)),
            ("/openapi/v2/x", Err(StatusCode::NOT_FOUND)),
            ("/apis/metrics.k8s.io", Err(StatusCode::NOT_FOUND)),
            ("/apis/external.metrics.k8s.io/v1", Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/m"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces//m"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/m/"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/a/b"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/a%2Fb"), Err(StatusCode::NOT_FOUND)),
            (&format!("{RESOURCES}/namespaces/default/m%00"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/m%0A"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%C2%85"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%7"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%zz"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%é"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/%FF%FE"), Err(StatusCode::BAD_REQUEST)),
            (&format!("{RESOURCES}/namespaces/default/{long}x"), Err(StatusCode::BAD_REQUEST)),
        ] {
            assert_eq!(read(path), expected, "{path}");
        }
    }

    fn read(path: &str) -> Result<Route, StatusCode> {
        Route::read(path, BOTH).map_err(|error| error.code())
    }

    /// The route of a custom metric, as `resource namespace/name metric`.
    fn custom(path: &str) -> String {
        match read(&format!("{CUSTOM}{path}")) {
            Ok(Route::Custom { object, metric, .. }) => {
                let name = object.name.as_deref().unwrap_or("any");
                format!("{} {}/{name} {metric}", object.described.resource, object.namespace)
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn custom_metrics_are_of_objects_in_namespaces() {
        let of_pools = "inferencepools.inference.networking.k8s.io ns/p m";
        for (path, expected) in [
            ("/namespaces/ns/inferencepools.inference.networking.k8s.io/p/m", of_pools),
            ("/namespaces/ns/inferencepools/p/m", of_pools),
            ("/namespaces/ns/inferencepool/p/m", of_pools),
            (
                "/namespaces/ns/inferencepools.inference.networking.x-k8s.io/p/m",
                "inferencepools.inference.networking.x-k8s.io ns/p m",
            ),
            ("/namespaces/ns/inferencepools/%2A/m", "inferencepools.inference.networking.k8s.io ns/any m"),
            ("/namespaces/ns/pods/*/a%7Cb:c", "pods ns/any a|b:c"),
            ("/namespaces/ns/pod/x/m", "pods ns/x m"),
            ("/namespaces/ns/metrics/m", "namespaces ns/ns m"),
            // Nothing below: objects outside of namespaces, other objects, too short, too long.
            ("/namespaces/ns/m", "Err(400)"),
            ("/namespaces/ns", "Err(404)"),
            ("/nodes/foo", "Err(404)"),
            ("/nodes/*/m", "Err(404)"),
            ("/namespaces/ns/pods/bar", "Err(404)"),
            ("/namespaces/ns/services/x/m", "Err(404)"),
            ("/namespaces/ns/pods.metrics.k8s.io/x/m", "Err(404)"),
            ("/namespaces/ns/metrics/x/m", "Err(404)"),
            ("/namespaces/ns/pods/x/m/y", "Err(404)"),
            ("/namespaces/ns/pods/x/a%2Fb", "Err(404)"),
            ("/namespaces/ns/pods//m", "Err(404)"),
            ("/namespaces//pods/x/m", "Err(404)"),
        ] {
            assert_eq!(custom(path), expected, "{path}");
        }
    }

    #[test]
    fn a_group_that_is_switched_off_is_nowhere() {
        let only_external = Groups { custom: false, ..BOTH };
        let only_custom = Groups { external: false, ..BOTH };
        for tail in ["", "/v1beta1", "/v1beta1/namespaces/ns/m", "/v1beta1/namespaces/ns/pods/x/m"] {
            let custom = format!("/apis/custom.metrics.k8s.io{tail}");
            assert_eq!(Route::read(&custom, only_external).map_err(|error| error.code()), Err(StatusCode::NOT_FOUND), "{custom}");
            let external = format!("/apis/external.metrics.k8s.io{tail}");
            assert_eq!(Route::read(&external, only_custom).map_err(|error| error.code()), Err(StatusCode::NOT_FOUND), "{external}");
        }
        let document = "/openapi/v3/apis/custom.metrics.k8s.io/v1beta2";
        assert!(Route::read(document, BOTH).is_ok() && Route::read(document, only_external).is_err());
    }

    proptest! {
        #[test]
        fn any_path_is_an_answer(path in "(/apis/external.metrics.k8s.io/v1beta1/namespaces/)?(\\PC|%|/|%[0-9A-F]{2}){0,20}") {
            if let Ok(Route::External { namespace, metric }) = Route::read(&path, BOTH) {
                prop_assert!(!namespace.is_empty() && !metric.is_empty());
                prop_assert!(!metric.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_a_client_encodes_is_what_is_read(name in "[^\\pC/]{1,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            prop_assert_eq!(read(&format!("{RESOURCES}/namespaces/default/{encoded}")), metric("default", &name));
        }

        #[test]
        fn any_path_of_custom_metrics_is_an_answer(tail in "(/(namespaces|ns|pods|inferencepools|metrics|nodes|\\*|%2A|m|%|\\PC)?){0,7}") {
            if let Ok(Route::Custom { object, metric, .. }) = Route::read(&format!("{CUSTOM}{tail}"), BOTH) {
                prop_assert!(!object.namespace.is_empty() && !metric.is_empty() && object.name.is_none_or(|name| !name.is_empty()));
            }
        }
    }
}
