//! The query string: of all of `ListOptions` only what changes the answer.

use std::borrow::Cow;

use crate::error::ApiError;
use crate::path::decoded;

/// The parameters that are looked at; of a repeated one the first counts, others are ignored.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Parameters {
    /// Of external metrics which series; of custom ones which objects.
    pub(crate) label_selector: Option<String>,
    /// Which series of a custom metric.
    pub(crate) metric_label_selector: Option<String>,
    /// Which object of a custom metric, once more.
    pub(crate) field_selector: Option<String>,
    /// Whether the rows of a Table go without the objects they are about.
    pub(crate) without_objects: bool,
    /// Which edition of a document.
    pub(crate) hash: Option<String>,
    /// Whether a stream is asked for, which there is none of.
    pub(crate) watch: bool,
    /// Whether the body is to be indented; not given: the client's name decides.
    pub(crate) pretty: Option<bool>,
}

impl Parameters {
    /// Reads a query string in form encoding.
    ///
    /// # Errors
    /// [`ApiError::MalformedUrl`] where a pair cannot be decoded. It is not skipped: a lost selector would select everything.
    pub(crate) fn read(query: &str) -> Result<Self, ApiError> {
        let (mut label_selector, mut metric_label_selector, mut field_selector) = (None, None, None);
        let (mut include_object, mut hash, mut watch, mut pretty) = (None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let parameter = match &*form_decoded(key)? {
                "labelSelector" => &mut label_selector,
                "metricLabelSelector" => &mut metric_label_selector,
                "fieldSelector" => &mut field_selector,
                "includeObject" => &mut include_object,
                "hash" => &mut hash,
                "watch" => &mut watch,
                "pretty" => &mut pretty,
                _ => {
                    form_decoded(value)?;
                    continue;
                }
            };
            let value = form_decoded(value)?;
            parameter.get_or_insert(value.into_owned());
        }
        Ok(Self {
            label_selector,
            metric_label_selector,
            field_selector,
            hash,
            without_objects: include_object.as_deref() == Some("None"),
            watch: watch.is_some_and(|watch| !watch.eq_ignore_ascii_case("false") && watch != "0"),
            pretty: pretty.filter(|pretty| !pretty.is_empty()).map(|pretty| is_true(&pretty)),
        })
    }

    /// Whether a client called `user_agent` gets the body indented: people's tools do, unless they say no.
    pub(crate) fn is_pretty(&self, user_agent: &str) -> bool {
        let of_people = ["curl", "Wget", "Mozilla/5.0"];
        self.pretty.unwrap_or_else(|| of_people.iter().any(|name| user_agent.starts_with(name)))
    }
}

/// The words for true that Go knows.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Form encoding: `+` is a blank.
fn form_decoded(text: &str) -> Result<Cow<'_, str>, ApiError> {
    match text.contains('+') {
        true => decoded(&text.replace('+', "%20")).map(|decoded| Cow::Owned(decoded.into_owned())),
        false => decoded(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(query: &str) -> Parameters {
        Parameters::read(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    fn selector(query: &str) -> Option<String> {
        read(query).label_selector
    }

    #[test]
    fn a_selector_is_decoded_once_and_the_first_counts() {
        for (query, expected) in [
            ("", None),
            ("&&", None),
            ("limit=5&timeoutSeconds=1&fieldSelector=x", None),
            ("labelSelector", Some("")),
            ("labelSelector=", Some("")),
            ("labelSelector=a=b", Some("a=b")),
            ("labelSelector=a%3Db", Some("a=b")),
            ("label%53elector=a", Some("a")),
            ("labelSelector=a&labelSelector=b", Some("a")),
            ("labelSelector=&labelSelector=b", Some("")),
            ("labelSelector=a+in+%28b%2Cz%29%2Cc%2C%21d%2Cx%3Dy", Some("a in (b,z),c,!d,x=y")),
            ("labelSelector=%2B", Some("+")),
            ("labelSelector=%2541", Some("%41")),
            ("labelSelector=a%09,%0Ab", Some("a\t,\nb")),
            ("labelselector=a", None),
        ] {
            assert_eq!(selector(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn each_parameter_has_its_place() {
        let parameters =
            read("metricLabelSelector=name%3Da&fieldSelector=metadata.name%3Dp&includeObject=None&hash=x&fieldSelector=y");
        let expected = Parameters {
            metric_label_selector: Some("name=a".into()),
            field_selector: Some("metadata.name=p".into()),
            without_objects: true,
            hash: Some("x".into()),
            ..Parameters::default()
        };
        assert_eq!(parameters, expected);
        assert!(!read("includeObject=Metadata").without_objects);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_and_not_dropped() {
        for query in ["labelSelector=%zz", "labelSelector=%", "labelSelector=%FF", "%zz=1", "x=%F"] {
            let error = Parameters::read(query).expect_err(query);
            assert_eq!(error.code(), http::StatusCode::BAD_REQUEST, "{query}");
        }
    }

    #[test]
    fn watch_is_true_unless_it_says_false() {
        for (query, expected) in
            [("", false), ("watch=true", true), ("watch=1", true), ("watch", true), ("watch=false", false), ("watch=0", false)]
        {
            assert_eq!(read(query).watch, expected, "{query}");
        }
    }

    #[test]
    fn people_get_indented_bodies_unless_they_say_no() {
        for (query, user_agent, expected) in [
            ("", "kube-controller-manager/v1.35.4", false),
            ("", "", false),
            ("", "curl/8.9", true),
            ("", "Wget/1.24", true),
            ("", "Mozilla/5.0 (X11)", true),
            ("", "libcurl/8", false),
            ("pretty", "curl/8.9", true),
            ("pretty", "", false),
            ("pretty=true", "", true),
            ("pretty=1", "", true),
            ("pretty=false", "curl/8.9", false),
            ("pretty=0", "Mozilla/5.0", false),
            ("pretty=yes", "curl/8.9", false),
        ] {
            assert_eq!(read(query).is_pretty(user_agent), expected, "{query} {user_agent}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_an_answer(query in "(labelSelector|watch|pretty|=|&|%|%[0-9a-f]{2}|\\+|\\PC){0,20}") {
            if let Ok(parameters) = Parameters::read(&query) {
                prop_assert!(parameters.label_selector.is_none_or(|selector| selector.len() <= query.len()));
            }
        }
    }
}
