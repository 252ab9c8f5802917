//! Where a request goes: the paths of the API, percent-decoded once.

use std::borrow::Cow;

use crate::GROUP;
use crate::error::{ApiError, shown};

/// Longest segment that is read, as sent. Names of Kubernetes have at most 253 characters, each at most three when encoded.
const LONGEST_SEGMENT: usize = 1024;

/// What a path names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// `/apis`: the groups.
    Groups,
    /// `/apis/G`: the group's versions.
    Group,
    /// `/apis/G/V`: the version's resources.
    Resources,
    /// `/apis/G/V/namespaces/NS/METRIC`: the values of one metric.
    Metric {
        /// The namespace, which the request was authorised for.
        namespace: String,
        /// The metric, in the caller's dialect.
        metric: String,
    },
}

impl Route {
    /// What `path` names; one slash after a discovery path is let pass.
    ///
    /// # Errors
    /// [`ApiError::UnknownPath`] where nothing is served, [`ApiError::MalformedUrl`] where the path cannot be decoded.
    pub(crate) fn read(path: &str) -> Result<Self, ApiError> {
        let unknown = || ApiError::UnknownPath { path: shown(path) };
        let mut segments = Vec::with_capacity(6);
        // Nothing served has more segments, so the rest of a longer path is not looked at.
        for segment in path.strip_prefix('/').ok_or_else(unknown)?.split('/').take(7) {
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
            segments.push(name);
        }
        let segments: Vec<&str> = segments.iter().map(|segment| &**segment).collect();
        match segments.as_slice() {
            ["apis"] | ["apis", ""] => Ok(Self::Groups),
            ["apis", group] | ["apis", group, ""] if *group == GROUP.group => Ok(Self::Group),
            ["apis", group, version] | ["apis", group, version, ""] if *group == GROUP.group && *version == GROUP.version => {
                Ok(Self::Resources)
            }
            // An encoded slash is a slash: `a%2Fb` is two segments, and nothing is served there.
            ["apis", group, version, "namespaces", namespace, metric]
                if *group == GROUP.group
                    && *version == GROUP.version
                    && [namespace, metric].iter().all(|name| !name.is_empty() && !name.contains('/')) =>
            {
                Ok(Self::Metric { namespace: (*namespace).to_owned(), metric: (*metric).to_owned() })
            }
            _ => Err(unknown()),
        }
    }

    /// The kind behind the path, as errors name it.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Groups => "APIGroupList".into(),
            Self::Group => "APIGroup".into(),
            Self::Resources => "APIResourceList".into(),
            Self::Metric { metric, .. } => format!("{}.{}", shown(metric), GROUP.group),
        }
    }
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

    const RESOURCES: &str = "/apis/external.metrics.k8s.io/v1beta1";

    fn metric(namespace: &str, metric: &str) -> Result<Route, StatusCode> {
        Ok(Route::Metric { namespace: namespace.into(), metric: metric.into() })
    }

    #[test]
    fn only_the_paths_of_the_api_are_known() {
        let long = "x".repeat(LONGEST_SEGMENT);
        for (path, expected) in [
            ("/apis", Ok(Route::Groups)),
            ("/apis/", Ok(Route::Groups)),
            ("/%61pis", Ok(Route::Groups)),
            ("/apis/external.metrics.k8s.io", Ok(Route::Group)),
            ("/apis/external.metrics.k8s.io/", Ok(Route::Group)),
            (RESOURCES, Ok(Route::Resources)),
            (&format!("{RESOURCES}/"), Ok(Route::Resources)),
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
            ("/openapi/v2", Err(StatusCode::NOT_FOUND)),
            ("/apis/custom.metrics.k8s.io", Err(StatusCode::NOT_FOUND)),
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
            assert_eq!(Route::read(path).map_err(|error| error.code()), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_an_answer(path in "(/apis/external.metrics.k8s.io/v1beta1/namespaces/)?(\\PC|%|/|%[0-9A-F]{2}){0,20}") {
            if let Ok(Route::Metric { namespace, metric }) = Route::read(&path) {
                prop_assert!(!namespace.is_empty() && !metric.is_empty());
                prop_assert!(!metric.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_a_client_encodes_is_what_is_read(name in "[^\\pC/]{1,40}") {
            let encoded = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            let route = Route::read(&format!("{RESOURCES}/namespaces/default/{encoded}"));
            prop_assert_eq!(route.map_err(|error| error.code()), metric("default", &name));
        }
    }
}
