//! What all objects have: names, labels, conditions, selectors.

use std::collections::BTreeMap;

use super::facts;

/// Labels, or the part of annotations that is kept.
pub(crate) type Labels = BTreeMap<String, String>;

facts! {
    /// `metadata`.
    Meta {
        name: String,
        namespace: String,
        generation: i64,
        creation_timestamp: String,
        deletion_timestamp: String,
        labels: Labels,
        /// Only those of [`KEPT_ANNOTATIONS`].
        annotations: Labels,
        owner_references: Vec<Owner>,
    }
    /// An entry of `ownerReferences`.
    Owner { kind: String, name: String, }
    /// An entry of `status.conditions`.
    Condition {
        r#type: String,
        status: String,
        reason: String,
        message: String,
        last_transition_time: String,
        observed_generation: i64,
    }
    /// A label selector.
    Selector { match_labels: Labels, match_expressions: Vec<Expression>, }
    /// An entry of `matchExpressions`.
    Expression { key: String, operator: String, values: Vec<String>, }
}

/// Beginnings of the annotations that are kept: others may hold anything, the last applied configuration among it.
pub(crate) const KEPT_ANNOTATIONS: [&str; 4] = [
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "karpenter.sh/do-not-disrupt",
    weir_k8s::ANNOTATION_PREFIX,
    "autoscaling.keda.sh/paused",
];

impl Meta {
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("?")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    /// `namespace/name`, or the name alone where it has no namespace.
    pub(crate) fn path(&self) -> String {
        match self.namespace() {
            "" => self.name().to_owned(),
            namespace => format!("{namespace}/{}", self.name()),
        }
    }

    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace() == namespace && self.name() == name
    }

    pub(crate) fn deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

impl Condition {
    /// What it says: `Reason: message`.
    pub(crate) fn told(&self) -> String {
        match (self.reason.as_deref().unwrap_or(""), self.message.as_deref().unwrap_or("")) {
            (reason, "") => reason.to_owned(),
            ("", message) => message.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }

    pub(crate) fn is(&self, kind: &str, status: &str) -> bool {
        self.r#type.as_deref() == Some(kind) && self.status.as_deref() == Some(status)
    }
}

/// The condition `kind` of `conditions`, where it has `status`.
pub(crate) fn condition<'facts>(conditions: Option<&'facts Vec<Condition>>, kind: &str, status: &str) -> Option<&'facts Condition> {
    conditions?.iter().find(|condition| condition.is(kind, status))
}

impl Selector {
    /// Whether `labels` match; an empty selector matches everything, as Kubernetes has it. None where an operator is not known.
    pub(crate) fn matches(&self, labels: &Labels) -> Option<bool> {
        let equal = self.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        let mut all = equal;
        for expression in self.match_expressions.iter().flatten() {
            let value = labels.get(expression.key.as_deref()?);
            let listed = || value.is_some_and(|value| expression.values.iter().flatten().any(|listed| listed == value));
            all &= match expression.operator.as_deref()? {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => return None,
            };
        }
        Some(all)
    }

    /// As kubectl takes it.
    pub(crate) fn shown(&self) -> String {
        let equal = self.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let others = self.match_expressions.iter().flatten().map(|expression| {
            let key = expression.key.as_deref().unwrap_or("?");
            let values = expression.values.as_deref().unwrap_or_default().join(",");
            match expression.operator.as_deref().unwrap_or("?") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                "DoesNotExist" => format!("!{key}"),
                other => format!("{key} {other} ({values})"),
            }
        });
        equal.chain(others).collect::<Vec<_>>().join(",")
    }
}

/// Labels as kubectl takes them.
pub(crate) fn labels_shown(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
