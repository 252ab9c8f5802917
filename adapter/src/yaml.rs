//! Objects as YAML, in block style, keys sorted: what Kubernetes' own servers write of the same objects.

use serde::Serialize;
use serde_json::Value;

/// `object` as a document.
///
/// # Errors
/// Where the object cannot be serialised at all.
pub(crate) fn document(object: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    match serde_json::to_value(object)? {
        Value::Object(map) if !map.is_empty() => write_map(&mut text, &map, 0),
        other => {
            write_scalar(&mut text, &other);
            text.push('\n');
        }
    }
    Ok(text)
}

fn write_map(text: &mut String, map: &serde_json::Map<String, Value>, depth: usize) {
    for (position, (key, value)) in map.iter().enumerate() {
        // The first key of a map in a list stands behind the dash.
        if position > 0 || depth == 0 || text.ends_with('\n') {
            indent(text, depth);
        }
        write_string(text, key);
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                write_map(text, map, depth + 1);
            }
            Value::Array(list) if !list.is_empty() => {
                text.push('\n');
                write_list(text, list, depth);
            }
            scalar => {
                text.push(' ');
                write_scalar(text, scalar);
                text.push('\n');
            }
        }
    }
}

fn write_list(text: &mut String, list: &[Value], depth: usize) {
    for (position, value) in list.iter().enumerate() {
        if position > 0 || text.ends_with('\n') {
            indent(text, depth);
        }
        text.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => write_map(text, map, depth + 1),
            Value::Array(list) if !list.is_empty() => write_list(text, list, depth + 1),
            other => {
                write_scalar(text, other);
                text.push('\n');
            }
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn write_scalar(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => write_string(text, string),
        other => text.push_str(&other.to_string()),
    }
}

/// Plain where nothing else can be meant, otherwise in double quotes.
fn write_string(text: &mut String, string: &str) {
    let is_word = string.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && string.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/'));
    // What some version of YAML takes for a value that is no string.
    let is_reserved =
        ["true", "false", "yes", "no", "on", "off", "null", "y", "n"].iter().any(|word| string.eq_ignore_ascii_case(word));
    if is_word && !is_reserved {
        text.push_str(string);
        return;
    }
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            // Printable in YAML's sense; the rest is escaped.
            ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' => {
                text.push(character);
            }
            other => text.push_str(&format!("\\U{:08x}", u32::from(other))),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_in_block_style() {
        let object = json!({
            "kind": "List", "metadata": {}, "empty": [], "none": null, "code": 404, "true": true, "value": "850m", "number": "12",
            "items": [{"name": "a b", "labels": {"k/l": "no"}, "args": ["x", 1]}, {"b": "\"\n"}, []],
        });
        let expected = "code: 404\nempty: []\nitems:\n- args:\n  - x\n  - 1\n  labels:\n    k/l: \"no\"\n  name: \"a b\"\n- b: \"\\\"\\n\"\n- []\n\
                        kind: List\nmetadata: {}\nnone: null\nnumber: \"12\"\n\"true\": true\nvalue: \"850m\"\n";
        assert_eq!(document(&object).unwrap(), expected);
        assert_eq!(document(&json!({})).unwrap(), "{}\n");
    }

    fn objects() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "\\PC{0,12}",
            "[ -~\n\t\u{0}\u{7f}\u{85}\u{2028}\u{feff}]{0,12}",
            "(yes|no|null|~|1e3|0x1|-|: |#|2026-01-01|.inf|\\*)"
        ];
        let scalar = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.prop_map(Value::from)
        ];
        scalar.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z.~ #:-]{1,6}|\\PC{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(objects in proptest::collection::btree_map("[a-z]{1,4}", objects(), 1..4)) {
            let object = Value::Object(objects.into_iter().collect());
            let written = document(&object).unwrap();
            let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
            prop_assert_eq!(read, object, "{}", written);
        }
    }
}
