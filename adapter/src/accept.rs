//! Content negotiation: the clauses of `Accept` by quality, then in the order written; the first that can be met decides.

use http::{HeaderMap, header};

/// How an object is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Json,
    Yaml,
    Protobuf,
}

impl Form {
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn subtype(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Protobuf => "vnd.kubernetes.protobuf",
        }
    }
}

/// Which object a list of values is given as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// As it is.
    List,
    /// As a `Table` of this `apiVersion`, for people.
    Table(&'static str),
}

/// What `/apis` is given as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Discovery {
    /// All groups with all resources, in this version of `apidiscovery.k8s.io`.
    Aggregated(&'static str),
    /// The groups alone.
    Groups(Form),
}

/// The list of values as the caller wants it; none where no clause can be met.
pub(crate) fn values(headers: &HeaderMap) -> Option<(Form, Shape)> {
    first(headers, |clause| {
        let shape = match (clause.r#as, clause.group, clause.version) {
            (None, ..) => Shape::List,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Shape::Table("meta.k8s.io/v1"),
            (Some("Table"), Some("meta.k8s.io"), Some("v1beta1")) => Shape::Table("meta.k8s.io/v1beta1"),
            _ => return None,
        };
        // A Table is not defined in protobuf.
        let of_shape = |form: &Form| shape == Shape::List || *form != Form::Protobuf;
        Form::ALL.into_iter().filter(of_shape).find(|form| clause.matches(*form)).map(|form| (form, shape))
    })
}

/// The form in which a failure is written: JSON where none can be met.
pub(crate) fn failure(headers: &HeaderMap) -> Form {
    first(headers, |clause| clause.plain(&Form::ALL)).unwrap_or(Form::Json)
}

/// What `/apis` is given as. It never fails: a client that would rather have another form falls back to JSON.
pub(crate) fn discovery(headers: &HeaderMap) -> Discovery {
    let aggregated = |clause: &Clause<'_>| match (clause.r#as, clause.group, clause.version) {
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), version) if clause.matches(Form::Json) => match version {
            Some("v2") => Some(Discovery::Aggregated("v2")),
            Some("v2beta1") => Some(Discovery::Aggregated("v2beta1")),
            _ => None,
        },
        _ => clause.plain(&[Form::Json, Form::Yaml]).map(Discovery::Groups),
    };
    first(headers, aggregated).unwrap_or(Discovery::Groups(Form::Json))
}

/// JSON or YAML for a document that has no other form.
pub(crate) fn document(headers: &HeaderMap) -> Form {
    first(headers, |clause| clause.plain(&[Form::Json, Form::Yaml])).unwrap_or(Form::Json)
}

/// Whether the caller takes plain JSON.
pub(crate) fn json(headers: &HeaderMap) -> bool {
    first(headers, |clause| clause.plain(&[Form::Json])).is_some()
}

/// Whether the caller would rather have version 2 of the OpenAPI document in protobuf than in JSON.
pub(crate) fn openapi_protobuf(headers: &HeaderMap) -> bool {
    let subtypes = ["com.github.proto-openapi.spec.v2.v1.0+protobuf", "com.github.proto-openapi.spec.v2@v1.0+protobuf"];
    let rather = |clause: &Clause<'_>| match clause.plain(&[Form::Json]) {
        Some(_) => Some(false),
        None => subtypes.iter().any(|subtype| clause.subtype.eq_ignore_ascii_case(subtype)).then_some(true),
    };
    first(headers, rather).unwrap_or(false)
}

/// One clause of an `Accept` header.
#[derive(Clone, Copy, Debug)]
struct Clause<'header> {
    media_type: &'header str,
    subtype: &'header str,
    quality: f32,
    r#as: Option<&'header str>,
    group: Option<&'header str>,
    version: Option<&'header str>,
}

/// Without a header, or with an empty one.
const ANYTHING: Clause<'static> = Clause { media_type: "*", subtype: "*", quality: 1.0, r#as: None, group: None, version: None };

impl<'header> Clause<'header> {
    /// One that is no media type, and one with the quality 0, asks for nothing.
    fn read(clause: &'header str) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        let (media_type, subtype) = parts.next()?.split_once('/')?;
        let mut read = Self { media_type: media_type.trim(), subtype: subtype.trim(), ..ANYTHING };
        for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim();
            match key.trim() {
                "as" => read.r#as = Some(value),
                "g" => read.group = Some(value),
                "v" => read.version = Some(value),
                key if key.eq_ignore_ascii_case("q") => read.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        (read.quality > 0.0).then_some(read)
    }

    fn matches(&self, form: Form) -> bool {
        match (self.media_type, self.subtype) {
            ("*", "*") => true,
            (media_type, "*") => media_type.eq_ignore_ascii_case("application"),
            (media_type, subtype) => media_type.eq_ignore_ascii_case("application") && subtype.eq_ignore_ascii_case(form.subtype()),
        }
    }

    /// The first of `forms` that the clause takes, if it asks for no other object.
    fn plain(&self, forms: &[Form]) -> Option<Form> {
        forms.iter().copied().find(|form| self.r#as.is_none() && self.matches(*form))
    }
}

/// What the first clause that can be met is met with.
fn first<T>(headers: &HeaderMap, meet: impl Fn(&Clause<'_>) -> Option<T>) -> Option<T> {
    let written = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut written = written.flat_map(|value| value.split(',')).map(str::trim).filter(|clause| !clause.is_empty()).peekable();
    if written.peek().is_none() {
        return meet(&ANYTHING);
    }
    let mut clauses: Vec<_> = written.filter_map(Clause::read).collect();
    // Stable: of one quality the first written comes first.
    clauses.sort_by(|one, other| other.quality.total_cmp(&one.quality));
    clauses.iter().find_map(meet)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(value).unwrap())])
    }

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const JSON: Option<(Form, Shape)> = Some((Form::Json, Shape::List));

    #[test]
    fn values_are_given_as_the_first_clause_that_can_be_met() {
        let kubectl = format!("{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json");
        let table = Some((Form::Json, Shape::Table("meta.k8s.io/v1")));
        let protobuf = Some((Form::Protobuf, Shape::List));
        let yaml = Some((Form::Yaml, Shape::List));
        for (value, expected) in [
            ("", JSON),
            ("application/json", JSON),
            ("application/json, */*", JSON),
            ("*/*", JSON),
            ("application/*", JSON),
            ("application/vnd.kubernetes.protobuf, */*", protobuf),
            ("application/vnd.kubernetes.protobuf,application/json", protobuf),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", JSON),
            ("*/*;q=0.1, application/yaml", yaml),
            ("APPLICATION/JSON ; Q=0.5", JSON),
            ("application/yaml", yaml),
            ("text/html, application/yaml;q=0.2", yaml),
            (&*kubectl, table),
            (TABLE, table),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Some((Form::Json, Shape::Table("meta.k8s.io/v1beta1")))),
            ("application/yaml;as=Table;v=v1;g=meta.k8s.io", Some((Form::Yaml, Shape::Table("meta.k8s.io/v1")))),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/json;as=Table", None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json", JSON),
            ("application/json;as=table;v=v1;g=meta.k8s.io", None),
            ("application/json;q=0", None),
            ("*/*;q=0.0", None),
            ("application/json;q=nonsense", JSON),
            ("application/json;charset=utf-8", JSON),
            ("text/html", None),
            ("garbage", None),
            (";;;,=", None),
        ] {
            assert_eq!(values(&accept(value)), expected, "{value}");
        }
        assert_eq!(values(&HeaderMap::new()), JSON);
        let mut twice = accept("text/html");
        twice.append(header::ACCEPT, HeaderValue::from_static("application/yaml"));
        assert_eq!(values(&twice), yaml);
    }

    #[test]
    fn a_failure_has_a_form_whatever_is_asked_for() {
        for (value, expected) in [
            ("", Form::Json),
            (TABLE, Form::Json),
            ("text/html", Form::Json),
            ("application/yaml", Form::Yaml),
            ("application/vnd.kubernetes.protobuf, */*", Form::Protobuf),
        ] {
            assert_eq!(failure(&accept(value)), expected, "{value}");
        }
    }

    #[test]
    fn discovery_switches_between_the_aggregated_and_the_legacy_document() {
        const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let client = format!("{V2},{V2BETA1},application/json");
        for (value, expected) in [
            ("", Discovery::Groups(Form::Json)),
            (V2, Discovery::Aggregated("v2")),
            (V2BETA1, Discovery::Aggregated("v2beta1")),
            (&*client, Discovery::Aggregated("v2")),
            (
                "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json",
                Discovery::Groups(Form::Json),
            ),
            ("application/json;g=other;v=v2;as=APIGroupDiscoveryList", Discovery::Groups(Form::Json)),
            (&format!("{V2};q=0.5,application/json"), Discovery::Groups(Form::Json)),
            (&format!("{V2},application/json;q=0.9"), Discovery::Aggregated("v2")),
            ("application/vnd.kubernetes.protobuf", Discovery::Groups(Form::Json)),
            ("application/yaml", Discovery::Groups(Form::Yaml)),
            ("garbage", Discovery::Groups(Form::Json)),
        ] {
            assert_eq!(discovery(&accept(value)), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_an_answer(value in "(application/json|application/|\\*/\\*|as=Table|;|,|q=|=|0\\.5|v=v1|g=meta[.]k8s[.]io|[ -~]){0,12}") {
            let headers = accept(&value);
            let (values, plain) = (values(&headers), json(&headers));
            prop_assert!(!plain || values.is_some());
            // A failure is written in the form of the value where that has none of its own.
            if let Some((form, Shape::List)) = values && !value.contains("as=") {
                prop_assert_eq!(failure(&headers), form);
            }
            discovery(&headers);
        }
    }
}
