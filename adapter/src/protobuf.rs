//! The same objects in Kubernetes' protobuf encoding: four magic bytes, then a `runtime.Unknown` around the message.
//!
//! Field numbers are those of `generated.proto` of `k8s.io/metrics` and `k8s.io/apimachinery`. As their generated encoders do, empty
//! strings and zeros that are no pointers are written.

use crate::CUSTOM_V1BETA1;
use crate::quantity::Quantity;
use crate::wire::{About, LabelSelector, Object, Status, Value, ValueList};

/// Tells the encoding from JSON.
const MAGIC: &[u8] = b"k8s\0";

/// A list of values.
pub(crate) fn values(list: &ValueList) -> Vec<u8> {
    let mut message = Message::default();
    message.message(1, &list_metadata());
    for item in &list.items {
        message.message(2, &value(list, item));
    }
    enveloped(list.version.name, list.version.list_kind, &message)
}

/// A failure.
pub(crate) fn status(status: &Status) -> Vec<u8> {
    let mut message = Message::default();
    message.message(1, &list_metadata());
    message.string(2, status.status);
    message.string(3, &status.message);
    message.string(4, status.reason);
    if let Some(about) = &status.details {
        let mut details = Message::default();
        details.string(1, "");
        details.string(2, about.group);
        details.string(3, &about.kind);
        message.message(5, &details);
    }
    message.number(6, u64::from(status.code));
    enveloped("v1", "Status", &message)
}

fn enveloped(api_version: &str, kind: &str, raw: &Message) -> Vec<u8> {
    let mut type_meta = Message::default();
    type_meta.string(1, api_version);
    type_meta.string(2, kind);
    let mut envelope = Message { bytes: MAGIC.to_vec() };
    envelope.message(1, &type_meta);
    envelope.message(2, raw);
    // Content encoding and type.
    envelope.string(3, "");
    envelope.string(4, "");
    envelope.bytes
}

fn value(list: &ValueList, item: &Value) -> Message {
    let mut message = Message::default();
    match &item.about {
        About::Series(labels) => {
            message.string(1, &list.metric);
            for (key, value) in labels {
                message.message(2, &pair(key, value));
            }
            message.message(3, &time(item));
            message.message(5, &quantity(item.value));
        }
        About::Object(object) if *list.version == CUSTOM_V1BETA1 => {
            message.message(1, &reference(object));
            message.string(2, &list.metric);
            message.message(3, &time(item));
            message.message(5, &quantity(item.value));
            if let Some(given) = &list.selector {
                message.message(6, &selector(given));
            }
        }
        About::Object(object) => {
            message.message(1, &reference(object));
            let mut metric = Message::default();
            metric.string(1, &list.metric);
            if let Some(given) = &list.selector {
                metric.message(2, &selector(given));
            }
            message.message(2, &metric);
            message.message(3, &time(item));
            message.message(5, &quantity(item.value));
        }
    }
    message
}

/// `ListMeta` with nothing in it: no self link, resource version, continuation.
fn list_metadata() -> Message {
    let mut message = Message::default();
    for field in 1..=3 {
        message.string(field, "");
    }
    message
}

fn reference(object: &Object) -> Message {
    let mut message = Message::default();
    let (kind, api_version) = (object.described.kind.name(), object.described.api_version);
    // Kind, namespace, name, uid, version, resource version, field path.
    for (field, text) in (1..).zip([kind, object.within().unwrap_or_default(), &object.name, "", api_version, "", ""]) {
        message.string(field, text);
    }
    message
}

fn selector(selector: &LabelSelector) -> Message {
    let mut message = Message::default();
    for (key, value) in &selector.match_labels {
        message.message(1, &pair(key, value));
    }
    for expression in &selector.match_expressions {
        let mut requirement = Message::default();
        requirement.string(1, &expression.key);
        requirement.string(2, expression.operator);
        for value in &expression.values {
            requirement.string(3, value);
        }
        message.message(2, &requirement);
    }
    message
}

/// An entry of a map.
fn pair(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.string(1, key);
    message.string(2, value);
    message
}

fn time(item: &Value) -> Message {
    let mut message = Message::default();
    // The bits of a 64-bit number are written, whatever its sign.
    message.number(1, item.timestamp.second().cast_unsigned());
    message.number(2, 0);
    message
}

fn quantity(quantity: Quantity) -> Message {
    let mut message = Message::default();
    message.string(1, &quantity.to_string());
    message
}

/// A message as it is written.
#[derive(Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn number(&mut self, field: u8, number: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(number);
    }

    pub(crate) fn string(&mut self, field: u8, text: &str) {
        self.delimited(field, text.as_bytes());
    }

    pub(crate) fn message(&mut self, field: u8, message: &Self) {
        self.delimited(field, &message.bytes);
    }

    fn delimited(&mut self, field: u8, bytes: &[u8]) {
        self.varint((u64::from(field) << 3) | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::CUSTOM_V1BETA2;
    use crate::error::ApiError;
    use crate::wire::tests::{custom, external};

    /// A field as read back: number and payload; a number's payload is its decimal.
    pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let payload = match key & 7 {
                0 => varint(&mut bytes).to_string().into_bytes(),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (payload, rest) = bytes.split_at(length);
                    bytes = rest;
                    payload.to_vec()
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, payload));
        }
        fields
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a varint that ends");
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return number;
            }
        }
        panic!("a varint of more than 64 bits")
    }

    /// The payload at a path of field numbers; of a repeated field the first.
    pub(crate) fn at(bytes: &[u8], path: &[u64]) -> Vec<u8> {
        path.iter().fold(bytes.to_vec(), |bytes, number| {
            let fields = fields(&bytes);
            let found = fields.iter().find(|(field, _)| field == number);
            found.unwrap_or_else(|| panic!("no field {number} of {path:?} in {fields:?}")).1.clone()
        })
    }

    /// The same as text.
    pub(crate) fn text(message: &[u8], path: &[u64]) -> String {
        String::from_utf8(at(message.strip_prefix(MAGIC).expect("the magic bytes"), path)).unwrap()
    }

    fn from_hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn an_external_list_is_byte_for_byte_what_go_writes() {
        let vector = "6b3873000a3a0a1f65787465726e616c2e6d6574726963732e6b38732e696f2f76316265746131121745787465726e616c4d657472696356616c75654c697374122e0a060a0012001a0012240a026b76120c0a046e616d651204706f6f6c1a080880f2d6ca0610002a060a043835306d1a002200";
        assert_eq!(values(&external()), from_hex(vector));
    }

    #[test]
    fn custom_lists_have_the_fields_of_their_version() {
        let new = values(&custom(&CUSTOM_V1BETA2, "name=p,c in (y,x),b"));
        for (path, expected) in [
            (&[1, 1][..], "custom.metrics.k8s.io/v1beta2"),
            (&[1, 2], "MetricValueList"),
            (&[2, 2, 1, 1], "InferencePool"),
            (&[2, 2, 1, 2], "ns"),
            (&[2, 2, 1, 3], "p"),
            (&[2, 2, 1, 5], "inference.networking.k8s.io/v1"),
            (&[2, 2, 2, 1], "kv"),
            (&[2, 2, 2, 2, 1, 1], "name"),
            (&[2, 2, 2, 2, 1, 2], "p"),
            (&[2, 2, 2, 2, 2, 1], "b"),
            (&[2, 2, 2, 2, 2, 2], "Exists"),
            (&[2, 2, 3, 1], "1767225600"),
            (&[2, 2, 5, 1], "12"),
        ] {
            assert_eq!(text(&new, path), expected, "{path:?}");
        }
        let old = values(&custom(&CUSTOM_V1BETA1, "c in (y,x)"));
        for (path, expected) in [
            (&[1, 1][..], "custom.metrics.k8s.io/v1beta1"),
            (&[2, 2, 2], "kv"),
            (&[2, 2, 5, 1], "12"),
            (&[2, 2, 6, 2, 1], "c"),
            (&[2, 2, 6, 2, 2], "In"),
            (&[2, 2, 6, 2, 3], "x"),
        ] {
            assert_eq!(text(&old, path), expected, "{path:?}");
        }
        // One item for each object, and no selector where there was none.
        let plain = values(&custom(&CUSTOM_V1BETA1, ""));
        let raw = fields(&at(&plain[4..], &[2]));
        assert_eq!(raw.iter().filter(|(field, _)| *field == 2).count(), 3);
        assert!(raw.iter().all(|(_, item)| fields(item).iter().all(|(field, _)| *field != 6)));
    }

    #[test]
    fn a_failure_is_a_status_too() {
        let error = ApiError::OtherNamespace { metric: "m".into(), asked: "x".into(), namespace: "ns".into() };
        let written = status(&error.status());
        for (path, expected) in [
            (&[1, 1][..], "v1"),
            (&[1, 2], "Status"),
            (&[2, 2], "Failure"),
            (&[2, 3], &*error.to_string()),
            (&[2, 4], "Forbidden"),
            (&[2, 5, 2], "external.metrics.k8s.io"),
            (&[2, 5, 3], "m"),
            (&[2, 6], "403"),
        ] {
            assert_eq!(text(&written, path), expected, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(number: u64, field in 1_u8..16, words in "\\PC{0,300}") {
            let mut message = Message::default();
            message.number(field, number);
            message.string(field, &words);
            let expected = vec![(u64::from(field), number.to_string().into_bytes()), (u64::from(field), words.into_bytes())];
            prop_assert_eq!(fields(&message.bytes), expected);
        }
    }
}
