//! Parameters of `request-attribute-reporter`.

use super::yaml::{Reading, Value};
use crate::response::AttributeReporter;
use weir_ext_proc::LB_NAMESPACE;

/// The one attribute of `attributes`.
pub(super) fn reporter(reading: &mut Reading, value: &Value<'_>) -> Option<AttributeReporter> {
    let attributes = reading.list(value, "a list of one attribute");
    let [attribute] = attributes.as_slice() else {
        reading.refuse(value, format!("has {} entries: write exactly one, with `key` and `expression`", attributes.len()));
        return None;
    };
    let fields = reading.fields(attribute, "`key`, `expression` and `condition`", &["key", "expression", "condition"])?;
    let Some(key) = fields.get("key") else {
        reading.refuse(attribute, "`key` is missing: write `key: { name: … }`");
        return None;
    };
    let key_fields = reading.fields(&key, "`name` and `namespace`", &["name", "namespace"])?;
    let name = key_fields.get("name").map(|value| reading.text(&value, "a name"));
    let namespace = key_fields.get("namespace").map(|value| reading.text(&value, "a namespace"));
    let Some(expression) = fields.get("expression") else {
        reading.refuse(attribute, "`expression` is missing: write CEL, as `usage.completion_tokens`");
        return None;
    };
    let source = reading.text(&expression, "CEL, as `usage.completion_tokens`");
    let condition = fields.get("condition").map(|value| reading.text(&value, "CEL, as `has(usage.completion_tokens)`"));
    let (name, source, condition) = (name.unwrap_or(Some(""))?, source?, condition.unwrap_or(Some(""))?);
    if name.is_empty() {
        reading.refuse(&key, "`name` is missing: under which the gateway finds the number");
        return None;
    }
    let namespace = Some(namespace.unwrap_or(Some(""))?).filter(|namespace| !namespace.is_empty()).unwrap_or(LB_NAMESPACE);
    match AttributeReporter::new(namespace, name, source, condition) {
        Ok(reporter) => Some(reporter),
        Err(problem) => {
            reading.refuse(attribute, problem);
            None
        }
    }
}
