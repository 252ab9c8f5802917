//! An OpenAPI 2 document in protobuf, the only form in which Go's discovery client takes one. Field numbers are those of
//! `openapiv2/OpenAPIv2.proto` of gnostic; only what our document has is written.

use serde_json::{Map, Value};

use crate::protobuf::Message;

/// What Go's servers call the form.
pub(crate) const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `document` in protobuf.
pub(crate) fn version_2(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    texts(&mut message, document, &[(1, "swagger")]);
    let mut info = Message::default();
    texts(&mut info, &document["info"], &[(1, "title"), (2, "version")]);
    message.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in entries(&document["paths"]) {
        paths.message(2, &named(path, &path_item(item)));
    }
    message.message(8, &paths);
    message.message(9, &schemas(&document["definitions"]));
    message.into_bytes()
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    message.message(2, &operation(&item["get"]));
    for given in list(&item["parameters"]) {
        message.message(9, &parameter(given));
    }
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    strings(&mut message, 1, &operation["tags"]);
    texts(&mut message, operation, &[(3, "description"), (5, "operationId")]);
    strings(&mut message, 6, &operation["produces"]);
    for given in list(&operation["parameters"]) {
        message.message(8, &parameter(given));
    }
    let mut responses = Message::default();
    for (code, given) in entries(&operation["responses"]) {
        let mut response = Message::default();
        texts(&mut response, given, &[(1, "description")]);
        response.message(2, &wrapped(&[1], schema(&given["schema"])));
        responses.message(1, &named(code, &wrapped(&[1], response)));
    }
    message.message(9, &responses);
    strings(&mut message, 10, &operation["schemes"]);
    extensions(&mut message, 13, operation);
    message
}

/// A parameter of the path or of the query; the two kinds number their fields differently.
fn parameter(parameter: &Value) -> Message {
    let mut message = Message::default();
    if parameter["required"] == Value::Bool(true) {
        message.number(1, 1);
    }
    texts(&mut message, parameter, &[(2, "in"), (3, "description"), (4, "name")]);
    let is_path = parameter["in"] == "path";
    texts(&mut message, parameter, &[(if is_path { 5 } else { 6 }, "type")]);
    if parameter["uniqueItems"] == Value::Bool(true) {
        message.number(if is_path { 19 } else { 20 }, 1);
    }
    wrapped(&[if is_path { 4 } else { 3 }, 2, 1], message)
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default();
    texts(&mut message, schema, &[(1, "$ref"), (2, "format"), (4, "description")]);
    strings(&mut message, 19, &schema["required"]);
    if let additional @ Value::Object(_) = &schema["additionalProperties"] {
        message.message(21, &wrapped(&[1], self::schema(additional)));
    }
    if let Some(text) = schema["type"].as_str() {
        let mut item = Message::default();
        item.string(1, text);
        message.message(22, &item);
    }
    if let items @ Value::Object(_) = &schema["items"] {
        message.message(23, &wrapped(&[1], self::schema(items)));
    }
    if schema["properties"].is_object() {
        message.message(25, &schemas(&schema["properties"]));
    }
    extensions(&mut message, 31, schema);
    message
}

/// Schemas by name.
fn schemas(by_name: &Value) -> Message {
    let mut message = Message::default();
    for (name, given) in entries(by_name) {
        message.message(1, &named(name, &schema(given)));
    }
    message
}

/// `message` inside of others, as their only field each, the innermost number first.
fn wrapped(fields: &[u8], message: Message) -> Message {
    fields.iter().fold(message, |inner, field| {
        let mut outer = Message::default();
        outer.message(*field, &inner);
        outer
    })
}

fn named(name: &str, value: &Message) -> Message {
    let mut message = Message::default();
    message.string(1, name);
    message.message(2, value);
    message
}

/// The extensions of Kubernetes, whose values are YAML, which JSON is.
fn extensions(message: &mut Message, field: u8, object: &Value) {
    for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
        let mut any = Message::default();
        any.string(2, &value.to_string());
        message.message(field, &named(name, &any));
    }
}

fn texts(message: &mut Message, object: &Value, fields: &[(u8, &str)]) {
    for (field, key) in fields {
        if let Some(text) = object.get(key).and_then(Value::as_str) {
            message.string(*field, text);
        }
    }
}

fn strings(message: &mut Message, field: u8, texts: &Value) {
    list(texts).iter().filter_map(Value::as_str).for_each(|text| message.string(field, text));
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protobuf::tests::{at, fields};

    #[test]
    fn every_part_of_the_document_is_in_its_field() {
        let document = json!({
            "swagger": "2.0", "info": { "title": "weir", "version": "v1" },
            "paths": { "/a/{b}": {
                "get": {
                    "tags": ["t"], "description": "d", "operationId": "o", "produces": ["p", "q"], "schemes": ["https"],
                    "parameters": [{ "name": "s", "in": "query", "type": "string", "uniqueItems": true }],
                    "responses": { "200": { "description": "OK", "schema": { "$ref": "#/definitions/L" } } },
                    "x-kubernetes-action": "list",
                },
                "parameters": [{ "name": "b", "in": "path", "type": "string", "required": true, "uniqueItems": true }],
            } },
            "definitions": { "L": {
                "type": "object", "required": ["i"],
                "properties": {
                    "i": { "type": "array", "items": { "type": "string", "format": "f" } },
                    "m": { "type": "object", "additionalProperties": { "type": "string" } },
                },
                "x-kubernetes-group-version-kind": [{ "kind": "L" }],
            } },
        });
        let written = version_2(&document);
        let text = |path: &[u64]| String::from_utf8(at(&written, path)).unwrap();
        let get = |path: &[u64]| text(&[&[8, 2, 2, 2], path].concat());
        let definition = |path: &[u64]| text(&[&[9, 1, 2], path].concat());
        for (found, expected) in [
            (text(&[1]), "2.0"),
            (text(&[2, 1]), "weir"),
            (text(&[2, 2]), "v1"),
            (text(&[8, 2, 1]), "/a/{b}"),
            (get(&[1]), "t"),
            (get(&[3]), "d"),
            (get(&[5]), "o"),
            (get(&[6]), "p"),
            (get(&[8, 1, 2, 3, 4]), "s"),
            (get(&[8, 1, 2, 3, 6]), "string"),
            (get(&[8, 1, 2, 3, 20]), "1"),
            (get(&[9, 1, 1]), "200"),
            (get(&[9, 1, 2, 1, 1]), "OK"),
            (get(&[9, 1, 2, 1, 2, 1, 1]), "#/definitions/L"),
            (get(&[10]), "https"),
            (get(&[13, 1]), "x-kubernetes-action"),
            (get(&[13, 2, 2]), "\"list\""),
            (text(&[8, 2, 2, 9, 1, 2, 4, 4]), "b"),
            (text(&[8, 2, 2, 9, 1, 2, 4, 1]), "1"),
            (text(&[8, 2, 2, 9, 1, 2, 4, 5]), "string"),
            (text(&[9, 1, 1]), "L"),
            (definition(&[19]), "i"),
            (definition(&[22, 1]), "object"),
            (definition(&[25, 1, 1]), "i"),
            (definition(&[25, 1, 2, 22, 1]), "array"),
            (definition(&[25, 1, 2, 23, 1, 2]), "f"),
            (definition(&[31, 1]), "x-kubernetes-group-version-kind"),
            (definition(&[31, 2, 2]), "[{\"kind\":\"L\"}]"),
        ] {
            assert_eq!(found, expected);
        }
        let properties = fields(&at(&written, &[9, 1, 2, 25]));
        assert_eq!(at(&properties[1].1, &[2, 21, 1, 22, 1]), b"string");
    }
}
