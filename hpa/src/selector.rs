//! A label selector, only as far as the controller prints it into events and conditions.

use std::collections::BTreeMap;
use std::fmt;

/// `metric.selector` of a metric. It changes no arithmetic: the adapter applies it. It is kept because
/// the controller prints it, and an operator searches for that text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// `matchLabels`.
    pub match_labels: BTreeMap<String, String>,
    /// `matchExpressions`, in the order written.
    pub match_expressions: Vec<LabelRequirement>,
}

/// One `matchExpressions` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRequirement {
    /// Label key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values; empty for the existence operators.
    pub values: Vec<String>,
}

impl LabelSelector {
    /// A selector of `matchLabels` only.
    pub fn labels<K: Into<String>, V: Into<String>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        let match_labels = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { match_labels, match_expressions: Vec::new() }
    }

    /// How the controller prints an optional selector: `nil` when there is none.
    pub(crate) fn printed(selector: Option<&Self>) -> String {
        selector.map_or_else(|| "nil".to_owned(), ToString::to_string)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("&LabelSelector{MatchLabels:map[string]string{")?;
        for (key, value) in &self.match_labels {
            write!(f, "{key}: {value},")?;
        }
        f.write_str("},MatchExpressions:[]LabelSelectorRequirement{")?;
        for requirement in &self.match_expressions {
            let values = requirement.values.join(" ");
            write!(f, "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", requirement.key, requirement.operator)?;
        }
        f.write_str("},}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_controller_does() {
        let selector = LabelSelector::labels([("name", "pool"), ("a", "b")]);
        assert_eq!(
            selector.to_string(),
            "&LabelSelector{MatchLabels:map[string]string{a: b,name: pool,},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
        assert_eq!(LabelSelector::printed(None), "nil");
        let selector = LabelSelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![LabelRequirement {
                key: "k".into(),
                operator: "In".into(),
                values: vec!["x".into(), "y".into()],
            }],
        };
        assert_eq!(
            selector.to_string(),
            "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
