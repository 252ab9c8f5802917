//! What is wrong with an object.

use std::fmt;

use serde_json::Value;

/// Characters of a wrong value that an error repeats.
const SHOWN: usize = 64;

/// A field that is not as it should be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FieldProblem {
    /// Where, as `kubectl explain` writes it: `spec.targetPorts[0].number`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl FieldProblem {
    /// A problem with `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

/// The beginning of a text, as an error repeats it.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A wrong value as an error repeats it.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => format!("`{}`", bounded(text).escape_debug()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
        other => format!("`{other}`"),
    }
}
