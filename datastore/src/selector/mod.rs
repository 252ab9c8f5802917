//! Label selectors with the grammar, the meaning and the error texts of Kubernetes (`k8s.io/apimachinery/pkg/labels`).
//!
//! Operators and users read these errors in `kubectl describe hpa`, so they are the ones they know. `grammar` reads text, `words` says
//! what a key and a value may be.

mod grammar;
mod words;

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

/// Which objects or series are meant: all requirements must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must be true of it.
    pub operator: Operator,
    /// What it is compared with: none for `Exists` and `DoesNotExist`, one for `=`, `!=`, `>` and `<`.
    pub values: BTreeSet<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `key in (…)`, `key = value`, `key == value`: the label has one of the values.
    In,
    /// `key notin (…)`, `key != value`: the label has none of the values, or is absent.
    NotIn,
    /// `key`: the label is there.
    Exists,
    /// `!key`: the label is absent.
    DoesNotExist,
    /// `key > integer`.
    GreaterThan,
    /// `key < integer`.
    LessThan,
}

/// A selector that does not follow the grammar; the text is Kubernetes' own.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum SelectorError {
    /// The words do not form a requirement.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// Something stands where something else must.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What must.
        expected: &'static str,
    },
}

impl Selector {
    /// Matches whatever there is.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of these requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self { requirements }
    }

    /// Reads `text`; empty text matches everything.
    ///
    /// # Errors
    /// [`SelectorError`] with the text of Kubernetes' own parser.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { requirements: grammar::requirements(text)? })
    }

    /// The requirements, in the order written.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it matches whatever there is.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all requirements hold for the labels that `label` looks up.
    pub fn matches<'value>(&self, label: impl Fn(&str) -> Option<&'value str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl Requirement {
    /// Whether the requirement holds where the label has `value`, or is absent.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let compare = |holds: fn(&i64, &i64) -> bool| {
            let number = |text: &str| text.parse::<i64>().ok();
            let bound = self.values.first().and_then(|bound| number(bound));
            value.and_then(number).zip(bound).is_some_and(|(value, bound)| holds(&value, &bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, requirement) in self.requirements.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            requirement.fmt(formatter)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let joined = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (self.operator, self.values.len()) {
            (Operator::In, 1) => write!(formatter, "{key}={}", joined()),
            (Operator::NotIn, 1) => write!(formatter, "{key}!={}", joined()),
            (Operator::In, _) => write!(formatter, "{key} in ({})", joined()),
            (Operator::NotIn, _) => write!(formatter, "{key} notin ({})", joined()),
            (Operator::Exists, _) => write!(formatter, "{key}"),
            (Operator::DoesNotExist, _) => write!(formatter, "!{key}"),
            (Operator::GreaterThan, _) => write!(formatter, "{key}>{}", joined()),
            (Operator::LessThan, _) => write!(formatter, "{key}<{}", joined()),
        }
    }
}

#[cfg(test)]
mod tests;
