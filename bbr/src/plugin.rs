//! Upstream's plugins of body-based routing, as its flag `--plugin` names them.

use std::sync::Arc;

use serde::Deserialize;

/// The header with the model, by default.
pub const MODEL_HEADER: &str = "x-gateway-model-name";
/// The header with the base model.
pub const BASE_MODEL_HEADER: &str = "x-gateway-base-model-name";
/// The header with the provider that a name begins with, where a rule routes on it.
pub const PROVIDER_HEADER: &str = "x-gateway-model-provider";
/// The header that tells what the classifier decided.
pub const CLASSIFIER_HEADER: &str = "x-weir-classifier";
/// The field with the model.
pub const MODEL: &str = "model";

/// One of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plugin {
    /// `body-field-to-header`: a top-level field's value as a header.
    FieldToHeader {
        /// What its metrics call it.
        name: Arc<str>,
        /// The field.
        field: Arc<str>,
        /// The header, in lower case.
        header: Arc<str>,
    },
    /// `base-model-to-header`: the base model of the model as [`BASE_MODEL_HEADER`].
    BaseModel {
        /// What its metrics call it.
        name: Arc<str>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FieldParameters {
    field_name: String,
    header_name: String,
}

const FIELD_TO_HEADER: &str = "body-field-to-header";
const BASE_MODEL: &str = "base-model-to-header";

impl Plugin {
    /// Those without any `--plugin`.
    pub fn defaults() -> Vec<Self> {
        let field = Self::FieldToHeader { name: "model-extractor".into(), field: MODEL.into(), header: MODEL_HEADER.into() };
        vec![field, Self::BaseModel { name: "base-model-mapper".into() }]
    }

    /// Reads `<type>:<name>[:<json>]`.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').ok_or("write TYPE:NAME or TYPE:NAME:PARAMETERS, the parameters as JSON")?;
        let (name, parameters) = rest.split_once(':').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err("its name is missing: write TYPE:NAME".to_owned());
        }
        match kind {
            FIELD_TO_HEADER => {
                let FieldParameters { field_name, header_name } = serde_json::from_str(parameters).map_err(|error| {
                    format!("parameters of {FIELD_TO_HEADER}: {error}: write {{\"fieldName\":\"model\",\"headerName\":\"X-Gateway-Model-Name\"}}")
                })?;
                if field_name.is_empty() {
                    return Err("fieldName: is empty: name a top-level field of the body".to_owned());
                }
                let letter = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter);
                if header_name.is_empty() || header_name.len() > 256 || !header_name.chars().all(letter) {
                    return Err(format!("headerName: `{}` is no name of a header", header_name.escape_debug()));
                }
                let header = header_name.to_ascii_lowercase();
                if matches!(&*header, "host" | "content-length" | "transfer-encoding" | "connection" | "te" | "upgrade") {
                    return Err(format!("headerName: {header} is not the body's to say: choose another"));
                }
                Ok(Self::FieldToHeader { name: name.into(), field: field_name.into(), header: header.into() })
            }
            BASE_MODEL if parameters.is_empty() || parameters.trim() == "{}" => Ok(Self::BaseModel { name: name.into() }),
            BASE_MODEL => Err(format!("{BASE_MODEL} has no parameters")),
            _ => Err(format!("`{}` is no plugin: there are {FIELD_TO_HEADER} and {BASE_MODEL}", kind.escape_debug())),
        }
    }

    /// Its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FieldToHeader { .. } => FIELD_TO_HEADER,
            Self::BaseModel { .. } => BASE_MODEL,
        }
    }

    /// What its metrics call it.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::FieldToHeader { name, .. } | Self::BaseModel { name } => name,
        }
    }

    /// The header that it sets.
    pub fn header(&self) -> &str {
        match self {
            Self::FieldToHeader { header, .. } => header,
            Self::BaseModel { .. } => BASE_MODEL_HEADER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_s_flags_are_the_defaults() {
        let chart = [
            r#"body-field-to-header:model-extractor:{"fieldName":"model","headerName":"X-Gateway-Model-Name"}"#,
            "base-model-to-header:base-model-mapper",
        ];
        assert_eq!(chart.map(|text| Plugin::parse(text).unwrap()).to_vec(), Plugin::defaults());
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, wanted) in [
            ("x", "write TYPE:NAME"),
            ("base-model-to-header:", "its name is missing"),
            ("base-model-to-header:a:{\"x\":1}", "has no parameters"),
            ("model-to-header:a", "`model-to-header` is no plugin"),
            ("body-field-to-header:a", "write {\"fieldName\""),
            (r#"body-field-to-header:a:{"fieldName":"","headerName":"x"}"#, "fieldName: is empty"),
            (r#"body-field-to-header:a:{"fieldName":"m","headerName":"a b"}"#, "`a b` is no name of a header"),
            (r#"body-field-to-header:a:{"fieldName":"m","headerName":":path"}"#, "`:path` is no name of a header"),
            (r#"body-field-to-header:a:{"fieldName":"m","headerName":"Host"}"#, "host is not the body's to say"),
        ] {
            let problem = Plugin::parse(text).unwrap_err();
            assert!(problem.contains(wanted), "{text}: {problem}");
        }
    }
}
