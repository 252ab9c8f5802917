//! OpenAPI documents, made of the same table as the routes: version 2 for all groups, version 3 for each group and version.
//!
//! Kubernetes' API server merges them into its own; from there `kubectl explain` and generated clients know the group. Schemas of
//! `meta/v1` are written in place, so that none collides with the API server's.

use serde_json::{Map, Value, json};

use crate::document::Document;
use crate::groups::{Group, GroupVersion, Groups, Part};
use crate::path::template_path;
use crate::{CUSTOM_V1BETA1, EXTERNAL, openapi_protobuf};

/// The documents of `/openapi`.
#[derive(Debug)]
pub(crate) struct OpenApi {
    /// `/openapi/v2`.
    pub(crate) v2: Document,
    /// The same in protobuf.
    pub(crate) v2_protobuf: Document,
    /// `/openapi/v3`.
    pub(crate) index: Document,
    /// `/openapi/v3/apis/G/V`.
    v3: Vec<(&'static str, Document)>,
}

impl OpenApi {
    pub(crate) fn new(groups: Groups) -> Self {
        let served = || groups.served().flat_map(|group| group.versions.iter().map(move |version| (group, *version)));
        let v3: Vec<_> = served().map(|(group, version)| (version.name, Document::json(&version_3(group, version)))).collect();
        let entry = |(name, document): &(&str, Document)| {
            let url = format!("/openapi/v3/apis/{name}?hash={}", document.hash());
            (format!("apis/{name}"), json!({ "serverRelativeURL": url }))
        };
        let index = json!({ "paths": v3.iter().map(entry).collect::<Map<_, _>>() });
        let v2 = version_2(served());
        let v2_protobuf = Document::bytes(openapi_protobuf::version_2(&v2), openapi_protobuf::MEDIA_TYPE);
        Self { v2: Document::json(&v2), v2_protobuf, index: Document::json(&index), v3 }
    }

    pub(crate) fn v3(&self, version: &GroupVersion) -> Option<&Document> {
        self.v3.iter().find(|(name, _)| *name == version.name).map(|(_, document)| document)
    }
}

fn info() -> Value {
    json!({ "title": "weir", "version": concat!("v", env!("CARGO_PKG_VERSION")) })
}

fn version_2(served: impl Iterator<Item = (&'static Group, &'static GroupVersion)>) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for (group, version) in served {
        definitions.extend(schemas(version, "#/definitions/"));
        for template in group.templates {
            let parameter = |name: &str, place: &str, description: &str| {
                let required = place == "path";
                let mut parameter =
                    json!({ "name": name, "in": place, "type": "string", "uniqueItems": true, "description": description });
                if required {
                    parameter["required"] = true.into();
                }
                parameter
            };
            let operation = operation(
                version,
                template,
                parameter,
                |media_types, schema| (json!({ "description": "OK", "schema": schema }), Some(json!(media_types))),
                "#/definitions/",
            );
            paths.insert(template_path(version, template), operation);
        }
    }
    json!({ "swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions })
}

fn version_3(group: &Group, version: &'static GroupVersion) -> Value {
    let mut paths = Map::new();
    for template in group.templates {
        let parameter = |name: &str, place: &str, description: &str| {
            let required = place == "path";
            let schema = json!({ "type": "string", "uniqueItems": true });
            let mut parameter = json!({ "name": name, "in": place, "description": description, "schema": schema });
            if required {
                parameter["required"] = true.into();
            }
            parameter
        };
        let operation = operation(
            version,
            template,
            parameter,
            |media_types, schema| {
                let content: Map<_, _> = media_types.iter().map(|name| ((*name).to_owned(), json!({ "schema": schema }))).collect();
                (json!({ "description": "OK", "content": content }), None)
            },
            "#/components/schemas/",
        );
        paths.insert(template_path(version, template), operation);
    }
    json!({
        "openapi": "3.0.0", "info": info(), "paths": paths,
        "components": { "schemas": schemas(version, "#/components/schemas/") },
    })
}

/// What values are written as.
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

/// The one operation of a path: to read.
fn operation(
    version: &GroupVersion,
    template: &[Part],
    parameter: impl Fn(&str, &str, &str) -> Value,
    response: impl Fn(&[&'static str], Value) -> (Value, Option<Value>),
    prefix: &str,
) -> Value {
    let of_path = template.iter().filter_map(|part| match part {
        Part::Word(_) => None,
        Part::Namespace => Some(parameter("namespace", "path", "Namespace of the pools.")),
        Part::Resource => Some(parameter(
            "resource",
            "path",
            "Plural of the objects that the metric describes, with their group: pods, inferencepools.inference.networking.k8s.io.",
        )),
        Part::Name => Some(parameter("name", "path", "Name of the object; * for all that labelSelector matches.")),
        Part::Metric => Some(parameter("metric", "path", "Name of the metric.")),
    });
    let is_external = *version == EXTERNAL;
    let mut of_query = vec![];
    let names_objects = template.contains(&Part::Name);
    if is_external {
        of_query.push(parameter("labelSelector", "query", "Which pools: name=POOL and others."));
    } else {
        if names_objects {
            of_query.push(parameter("labelSelector", "query", "Which objects, where the name is *."));
        }
        of_query.push(parameter("metricLabelSelector", "query", "Which series of the metric: name=POOL and others."));
    }
    of_query.push(parameter("pretty", "query", "Whether the body is indented: true or false."));
    let name = |list_kind: &str, of: &str| {
        let group: String = version.group.split('.').take(1).map(capitalised).collect();
        format!("list{group}{}{}{of}", capitalised(version.version), list_kind.trim_end_matches("List"))
    };
    let schema = json!({ "$ref": format!("{prefix}{}", schema_name(version, version.list_kind)) });
    let (answer, produces) = response(&MEDIA_TYPES, schema);
    let mut get = json!({
        "description": "Current values of a metric.",
        "operationId": name(version.list_kind, if is_external || names_objects { "" } else { "OfNamespace" }),
        "tags": [version.name.replace(['.', '/'], "_")],
        "parameters": of_query,
        "responses": { "200": answer },
        "x-kubernetes-action": "list",
        "x-kubernetes-group-version-kind": { "group": version.group, "version": version.version, "kind": version.list_kind },
    });
    if let Some(produces) = produces {
        get["produces"] = produces;
        get["schemes"] = json!(["https"]);
    }
    json!({ "get": get, "parameters": of_path.collect::<Vec<_>>() })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

/// The name under which Go's packages have the kind.
fn schema_name(version: &GroupVersion, kind: &str) -> String {
    let package = if *version == EXTERNAL { "external_metrics" } else { "custom_metrics" };
    format!("io.k8s.metrics.pkg.apis.{package}.{}.{kind}", version.version)
}

/// The kinds of a version: the list and its items.
fn schemas(version: &'static GroupVersion, prefix: &str) -> Map<String, Value> {
    let kind = version.list_kind.trim_end_matches("List");
    let text = |description: &str| json!({ "type": "string", "description": description });
    let labels =
        |description: &str| json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": description });
    let expression = json!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": text("The label's key."),
            "operator": text("In, NotIn, Exists or DoesNotExist."),
            "values": { "type": "array", "items": { "type": "string" }, "description": "What it is compared with." },
        },
    });
    let selector = json!({
        "type": "object",
        "description": "The selector that the metric was asked for with.",
        "properties": {
            "matchLabels": labels("Labels that must have these values."),
            "matchExpressions": { "type": "array", "items": expression, "description": "Further conditions." },
        },
    });
    let object = json!({
        "type": "object",
        "description": "The object that the value describes.",
        "properties": {
            "kind": text("Its kind."), "namespace": text("Its namespace."), "name": text("Its name."),
            "apiVersion": text("The group and version of its kind."),
        },
    });
    let timestamp = json!({ "type": "string", "format": "date-time", "description": "When the oldest page was read that the value is made of." });
    let window = json!({ "type": "integer", "format": "int64", "description": "Seconds that the value is an average over; absent where it is none." });
    let value = json!({ "type": "string", "description": "A quantity: 850m is 0.85." });
    let metric_name = text("Name of the metric as it was asked for.");
    let (properties, required) = if *version == EXTERNAL {
        let properties = json!({
            "metricName": metric_name, "metricLabels": labels("Labels of the series."), "timestamp": timestamp,
            "window": window, "value": value,
        });
        (properties, json!(["metricName", "metricLabels", "timestamp", "value"]))
    } else if *version == CUSTOM_V1BETA1 {
        let properties = json!({
            "describedObject": object, "metricName": metric_name, "timestamp": timestamp, "window": window, "value": value,
            "selector": selector,
        });
        (properties, json!(["describedObject", "metricName", "timestamp", "value", "selector"]))
    } else {
        let metric = json!({
            "type": "object", "required": ["name"], "description": "The metric.",
            "properties": { "name": metric_name, "selector": selector },
        });
        let properties = json!({
            "describedObject": object, "metric": metric, "timestamp": timestamp, "windowSeconds": window, "value": value,
        });
        (properties, json!(["describedObject", "metric", "timestamp", "value"]))
    };
    let item = json!({ "type": "object", "description": "One value of a metric.", "required": required, "properties": properties });
    let items = json!({
        "type": "array", "description": "One per series or object.",
        "items": { "$ref": format!("{prefix}{}", schema_name(version, kind)) },
    });
    let list = json!({
        "type": "object",
        "description": "Values of a metric.",
        "required": ["items"],
        "properties": {
            "apiVersion": text("Group and version."), "kind": text("The kind of the list."),
            "metadata": { "type": "object", "description": "Always empty." }, "items": items,
        },
        "x-kubernetes-group-version-kind": [{ "group": version.group, "version": version.version, "kind": version.list_kind }],
    });
    Map::from_iter([(schema_name(version, kind), item), (schema_name(version, version.list_kind), list)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Groups = Groups { external: true, custom: true };

    /// Whether everything in the document that refers to something finds it, and what is named in a path is a parameter.
    fn assert_sound(document: &Value) {
        let mut references = Vec::new();
        collect(document, "$ref", &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.as_str().and_then(|reference| reference.strip_prefix('#')).unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let mut operations = Vec::new();
        collect(document, "operationId", &mut operations);
        let count = operations.len();
        operations.sort_by_key(Value::to_string);
        operations.dedup();
        assert_eq!(operations.len(), count, "{operations:?}");
        for (path, item) in document["paths"].as_object().unwrap() {
            let named: Vec<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = item["parameters"].as_array().unwrap();
            let parameters: Vec<_> = parameters
                .iter()
                .map(|parameter| {
                    assert_eq!((&parameter["in"], &parameter["required"]), (&json!("path"), &json!(true)));
                    parameter["name"].as_str().unwrap()
                })
                .collect();
            assert_eq!(named, parameters, "{path}");
            let of_kind = &item["get"]["x-kubernetes-group-version-kind"];
            assert!(path.contains(&format!("/{}/{}/", of_kind["group"].as_str().unwrap(), of_kind["version"].as_str().unwrap())));
        }
    }

    fn collect(value: &Value, key: &str, into: &mut Vec<Value>) {
        match value {
            Value::Object(map) => {
                into.extend(map.get(key).cloned());
                map.values().for_each(|value| collect(value, key, into));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, key, into)),
            _ => {}
        }
    }

    #[test]
    fn each_document_is_sound() {
        for groups in [BOTH, Groups { external: false, ..BOTH }, Groups { custom: false, ..BOTH }] {
            let served = || groups.served().flat_map(|group| group.versions.iter().map(move |version| (group, *version)));
            let document = version_2(served());
            assert_sound(&document);
            let paths = document["paths"].as_object().unwrap();
            assert_eq!(paths.len(), served().map(|(group, _)| group.templates.len()).sum::<usize>());
            for (group, version) in served() {
                let document = version_3(group, version);
                assert_sound(&document);
                assert!(paths.keys().any(|path| document["paths"].get(path).is_some()));
            }
        }
    }

    #[test]
    fn a_path_that_is_documented_is_a_route() {
        for (path, _) in
            version_2(BOTH.served().flat_map(|group| group.versions.iter().map(move |version| (group, *version))))["paths"]
                .as_object()
                .unwrap()
        {
            let path = path.replace("{resource}", "pods").replace(['{', '}'], "");
            assert!(crate::path::Route::read(&path, BOTH).is_ok(), "{path}");
        }
    }

    #[test]
    fn the_schemas_have_the_fields_that_are_written() {
        let fields = |version: &'static GroupVersion, list: &crate::wire::ValueList| {
            let written = serde_json::to_value(list).unwrap();
            let schemas = schemas(version, "#/");
            let required = &schemas[&schema_name(version, version.list_kind.trim_end_matches("List"))]["required"];
            let mut required: Vec<_> = required.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            required.sort();
            assert_eq!(required, written["items"][0].as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        };
        fields(&EXTERNAL, &crate::wire::tests::external());
        for version in [&CUSTOM_V1BETA1, &crate::CUSTOM_V1BETA2] {
            fields(version, &crate::wire::tests::custom(version, "name=p"));
        }
    }
}
