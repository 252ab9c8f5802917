//! A JSON body, read for a few of its top-level fields without a copy, and edited in place: bytes stay bytes.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The JSON object that `bytes` are, as `T` reads it: usually its fields as [`RawValue`]s, whose place [`within`] tells.
///
/// # Errors
/// What is wrong, and where.
pub fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_str(text_of(bytes)?).map_err(|error| error.to_string())
}

/// The values of the top-level fields with these names, in their order. A field that comes twice is refused: a gateway and a model
/// server could read different ones.
///
/// # Errors
/// What is wrong, and where.
pub fn fields<'a>(bytes: &'a [u8], names: &[&str]) -> Result<Vec<Option<&'a RawValue>>, String> {
    let mut reader = serde_json::Deserializer::from_str(text_of(bytes)?);
    let found = Wanted(names).deserialize(&mut reader).and_then(|found| reader.end().map(|()| found));
    found.map_err(|error| error.to_string())
}

/// The text of what begins like an object.
fn text_of(bytes: &[u8]) -> Result<&str, String> {
    let text = str::from_utf8(bytes).map_err(|error| format!("the body is not UTF-8 text at byte {}", error.valid_up_to()))?;
    // A list would be read as the fields in their order.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Err("the body is not a JSON object".into()),
            Err(error) => Err(error.to_string()),
        };
    }
    Ok(text)
}

/// The names of fields, to be read from an object.
struct Wanted<'names>(&'names [&'names str]);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(Key(name)) = entries.next_key()? {
            match self.0.iter().position(|wanted| *wanted == name) {
                None => drop(entries.next_value::<IgnoredAny>()?),
                Some(at) if found[at].is_some() => return Err(Error::custom(format_args!("duplicate field `{}`", self.0[at]))),
                Some(at) => found[at] = Some(entries.next_value()?),
            }
        }
        Ok(found)
    }
}

/// A field's name, without a copy where nothing in it is escaped.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The string that this value is; nothing for another value, or a longer one than `longest` bytes.
pub fn string(raw: &RawValue, longest: usize) -> Option<Arc<str>> {
    // Six bytes at most write one (`\u0061`).
    if raw.get().len() > 6 * longest + 2 {
        return None;
    }
    let value: Cow<'_, str> = serde_json::from_str(raw.get()).ok()?;
    Some(value.as_ref().into()).filter(|value: &Arc<str>| value.len() <= longest)
}

/// Where in `bytes` this value lies, quotes included; it must have been read from them.
pub fn within(raw: &RawValue, bytes: &[u8]) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - bytes.as_ptr() as usize;
    start..start + raw.get().len()
}

/// `bytes` with the string `value` in the place of the one at `at`; every other byte stays.
pub fn replaced(bytes: &Bytes, at: Range<usize>, value: &str) -> Bytes {
    let value = serde_json::Value::from(value).to_string();
    let (before, after) = (&bytes[..at.start], &bytes[at.end..]);
    let mut edited = Vec::with_capacity(before.len() + value.len() + after.len());
    edited.extend_from_slice(before);
    edited.extend_from_slice(value.as_bytes());
    edited.extend_from_slice(after);
    edited.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<Vec<Option<String>>, String> {
        let found = fields(body.as_bytes(), &["model", "stream"])?;
        Ok(found.into_iter().map(|raw| raw.map(|raw| raw.get().to_owned())).collect())
    }

    #[test]
    fn fields_are_found_as_they_stand() {
        assert_eq!(
            texts(" {\"x\": [1, {\"model\": 2}], \"mod\\u0065l\" : \"a\", \"stream\":true} ").unwrap(),
            [Some("\"a\"".into()), Some("true".into())]
        );
        assert_eq!(texts("{}").unwrap(), [None, None]);
        assert_eq!(texts("{\"model\": null}").unwrap(), [Some("null".into()), None]);
        assert_eq!(texts("{\"x\": 1, \"x\": 2}").unwrap(), [None, None], "nobody reads it");
    }

    #[test]
    fn what_is_no_object_is_refused_by_its_place() {
        for (body, wanted) in [
            ("", "EOF"),
            ("[{\"model\": 1}]", "not a JSON object"),
            ("{\"model\": 1", "EOF while parsing an object at line 1"),
            ("{\"model\": 1} x", "trailing characters"),
            ("{\"model\": 1, \"model\": 2}", "duplicate field `model`"),
            ("{\"model\": 1, \"mod\\u0065l\": 2}", "duplicate field `model`"),
        ] {
            let problem = texts(body).unwrap_err();
            assert!(problem.contains(wanted), "{body}: {problem}");
        }
        assert!(fields(b"\x1f\x8b\x08", &["model"]).unwrap_err().contains("not UTF-8 text at byte 1"));
    }

    #[test]
    fn one_string_is_replaced_and_every_other_byte_stays() {
        let body = Bytes::from_static(b"{ \"model\" : \"a\\u0062\" , \"n\": 1e2 }");
        let raw = fields(&body, &["model"]).unwrap()[0].unwrap();
        assert_eq!(string(raw, 9).as_deref(), Some("ab"));
        let edited = replaced(&body, within(raw, &body), "x\"y");
        assert_eq!(edited, "{ \"model\" : \"x\\\"y\" , \"n\": 1e2 }");
    }
}
