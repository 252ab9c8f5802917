//! A JSON body, read for a few of its top-level fields without a copy, and edited in place: bytes stay bytes.

use std::borrow::Cow;
use std::ops::Range;
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The JSON object that `bytes` are, as `T` reads it: usually its fields as [`RawValue`]s, whose place [`within`] tells.
///
/// # Errors
/// What is wrong, and where.
pub fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = str::from_utf8(bytes).map_err(|error| format!("the body is not UTF-8 text at byte {}", error.valid_up_to()))?;
    // A list would be read as the fields in their order.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Err("the body is not a JSON object".into()),
            Err(error) => Err(error.to_string()),
        };
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

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
