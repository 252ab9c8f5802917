//! What an autoscaler scales: how many replicas it asks for, which labels its pods get, and who wrote the number last.
//!
//! Sources: `apps/v1`; LeaderWorkerSet (`leaderworkerset.x-k8s.io/v1`); `metadata.managedFields` as the API server keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;

use crate::field::{FieldProblem, shown};

/// A reference to a scale target in the same namespace.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TargetReference {
    /// The API group; empty for the core's.
    pub group: Arc<str>,
    /// The version within the group.
    pub version: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl TargetReference {
    /// Reads `value`, which stands in `field`.
    ///
    /// # Errors
    /// Where kind or name are missing.
    pub(crate) fn read(field: &str, value: &Value) -> Result<Self, FieldProblem> {
        if !value.is_object() {
            return Err(FieldProblem::new(field, "names nothing: write apiVersion, kind and name"));
        }
        let text = |name: &str| value[name].as_str().filter(|text| !text.is_empty());
        let missing = |name: &str| FieldProblem::new(format!("{field}.{name}"), format!("no {name}: write that of what is scaled"));
        let kind = text("kind").ok_or_else(|| missing("kind"))?;
        let name = text("name").ok_or_else(|| missing("name"))?;
        let api_version = text("apiVersion").unwrap_or("v1");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Ok(Self { group: group.into(), version: version.into(), kind: kind.into(), name: name.into() })
    }

    /// Group and version as an object writes them.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// As kubectl takes it: `Deployment.apps/name`.
impl fmt::Display for TargetReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.group {
            "" => write!(formatter, "{}/{}", self.kind, self.name),
            group => write!(formatter, "{}.{group}/{}", self.kind, self.name),
        }
    }
}

/// A scale target, as far as it is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScaleTarget {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Tells it from its namesake before it.
    pub uid: Arc<str>,
    /// Which state of it this is: what a write must still find.
    pub resource_version: Arc<str>,
    /// Whether it was told to go.
    pub deleting: bool,
    /// `spec.replicas`; 1 where it says nothing.
    pub replicas: u32,
    /// `spec.paused`: a rollout that waits. Scaling goes on meanwhile.
    pub paused: bool,
    /// The labels of the pods it makes that take requests.
    pub template_labels: BTreeMap<String, String>,
    /// Who owns `spec.replicas`, as the API server keeps it.
    pub replicas_managers: Vec<FieldManager>,
}

/// One that owns a field: an entry of `metadata.managedFields`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FieldManager {
    /// What it called itself.
    pub name: Arc<str>,
    /// Whether it applied the field (server-side), which it then wants to stay; else it wrote it once.
    pub applied: bool,
    /// The subresource it wrote through; empty for the object itself.
    pub subresource: Arc<str>,
}

impl fmt::Display for FieldManager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl ScaleTarget {
    /// Reads `object`: a Deployment, StatefulSet, ReplicaSet, LeaderWorkerSet, or whatever else keeps its number in `spec.replicas` and
    /// the labels of its pods in `spec.template.metadata.labels`.
    ///
    /// # Errors
    /// The field without which nobody can say which pods it makes, or how many.
    pub fn read(object: DynamicObject) -> Result<Self, FieldProblem> {
        let spec = &object.data["spec"];
        let replicas = match &spec["replicas"] {
            Value::Null => 1,
            value => value.as_u64().and_then(|count| u32::try_from(count).ok()).ok_or_else(|| {
                FieldProblem::new("spec.replicas", format!("{} is no number of replicas: write a whole number", shown(value)))
            })?,
        };
        let template_labels = template_labels(spec)?;
        let metadata = object.metadata;
        let managers = metadata.managed_fields.unwrap_or_default().into_iter().filter_map(|entry| {
            entry.fields_v1.as_ref()?.0.pointer("/f:spec/f:replicas")?;
            Some(FieldManager {
                name: entry.manager.unwrap_or_default().into(),
                applied: entry.operation.as_deref() == Some("Apply"),
                subresource: entry.subresource.unwrap_or_default().into(),
            })
        });
        let mut replicas_managers: Vec<_> = managers.collect();
        replicas_managers.sort_unstable();
        let text = |text: Option<String>| Arc::from(text.unwrap_or_default());
        Ok(Self {
            namespace: text(metadata.namespace),
            name: text(metadata.name),
            uid: text(metadata.uid),
            resource_version: text(metadata.resource_version),
            deleting: metadata.deletion_timestamp.is_some(),
            replicas,
            paused: spec["paused"].as_bool().unwrap_or(false),
            template_labels,
            replicas_managers,
        })
    }

    /// Whether `manager` alone owns the number of replicas, by having applied it through `/scale`. Only an applied zero has an owner:
    /// in an update of a Scale, zero is the field's absence, so nobody owns it afterwards.
    pub fn is_scaled_only_by(&self, manager: &str) -> bool {
        let is_ours = |owner: &FieldManager| &*owner.name == manager && owner.applied && &*owner.subresource == "scale";
        !self.replicas_managers.is_empty() && self.replicas_managers.iter().all(is_ours)
    }

    /// Whether its pods have all labels of `selector`, as those of an InferencePool do.
    pub fn is_selected_by(&self, selector: &BTreeMap<String, String>) -> bool {
        !selector.is_empty() && selector.iter().all(|(key, value)| self.template_labels.get(key) == Some(value))
    }
}

/// The labels of the pods that take requests. Those of a LeaderWorkerSet are the leaders, which its workers' template makes too where
/// it has no other.
fn template_labels(spec: &Value) -> Result<BTreeMap<String, String>, FieldProblem> {
    let (field, template) = match &spec["leaderWorkerTemplate"] {
        Value::Null => ("spec.template", &spec["template"]),
        group if group["leaderTemplate"].is_object() => ("spec.leaderWorkerTemplate.leaderTemplate", &group["leaderTemplate"]),
        group => ("spec.leaderWorkerTemplate.workerTemplate", &group["workerTemplate"]),
    };
    if !template.is_object() {
        let message = "no template: which labels its pods get cannot be said; Deployments, StatefulSets, ReplicaSets and LeaderWorkerSets \
                       have one";
        return Err(FieldProblem::new(field, message));
    }
    let labels = template["metadata"]["labels"].as_object();
    let pairs = labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    Ok(pairs.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value, managed: Value) -> Result<ScaleTarget, String> {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "managedFields": managed}, "spec": spec,
        });
        ScaleTarget::read(serde_json::from_value(object).unwrap()).map_err(|problem| problem.to_string())
    }

    fn entry(manager: &str, operation: &str, subresource: Option<&str>, fields: Value) -> Value {
        let mut entry = json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
        if let Some(subresource) = subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    #[test]
    fn number_labels_and_pause_are_read() {
        let template = json!({"metadata": {"labels": {"app": "x", "gpu": "h100"}}});
        let target = read(json!({"replicas": 3, "paused": true, "template": template}), json!(null)).unwrap();
        assert_eq!((target.replicas, target.paused, &*target.resource_version), (3, true, "7"));
        let selector = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert!(target.is_selected_by(&selector(&[("app", "x")])));
        assert!(!target.is_selected_by(&selector(&[("app", "x"), ("gpu", "a100")])));
        assert!(!target.is_selected_by(&BTreeMap::new()));
        assert_eq!(read(json!({"template": {}}), json!(null)).unwrap().replicas, 1);
    }

    #[test]
    fn the_leaders_of_a_group_take_requests() {
        let labelled = |role: &str| json!({"metadata": {"labels": {"role": role}}});
        let group =
            json!({"replicas": 1, "leaderWorkerTemplate": {"leaderTemplate": labelled("leader"), "workerTemplate": labelled("w")}});
        assert_eq!(read(group, json!(null)).unwrap().template_labels["role"], "leader");
        let alike = json!({"leaderWorkerTemplate": {"workerTemplate": labelled("all")}});
        assert_eq!(read(alike, json!(null)).unwrap().template_labels["role"], "all");
    }

    #[test]
    fn what_makes_no_pods_that_can_be_known_is_refused() {
        let refused = read(json!({"replicas": 1}), json!(null)).unwrap_err();
        assert!(refused.starts_with("spec.template: no template"), "{refused}");
        assert!(read(json!({"replicas": -1, "template": {}}), json!(null)).unwrap_err().starts_with("spec.replicas: `-1`"));
    }

    #[test]
    fn a_zero_is_ours_only_where_nobody_else_owns_it() {
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        let ours = || entry("weir-scaler", "Apply", Some("scale"), replicas.clone());
        let image = entry("kubectl-set", "Update", None, json!({"f:spec": {"f:template": {}}}));
        let owned =
            |managed: Value| read(json!({"replicas": 0, "template": {}}), managed).unwrap().is_scaled_only_by("weir-scaler");
        assert!(owned(json!([image, ours()])));
        assert!(!owned(json!([ours(), entry("kubectl", "Apply", None, replicas.clone())])));
        assert!(!owned(json!([entry("kubectl", "Update", Some("scale"), replicas.clone())])));
        assert!(!owned(json!([entry("weir-scaler", "Apply", None, replicas.clone())])));
        assert!(!owned(json!([entry("weir-scaler", "Update", Some("scale"), replicas.clone())])));
        assert!(!owned(json!([image])) && !owned(json!(null)));
        let two = read(json!({"template": {}}), json!([ours(), entry("kubectl", "Apply", None, replicas.clone())])).unwrap();
        assert_eq!(two.replicas_managers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["kubectl", "weir-scaler"]);
    }

    #[test]
    fn a_reference_shows_as_kubectl_takes_it() {
        let read = |value: Value| TargetReference::read("r", &value);
        let deployment = read(json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"})).unwrap();
        assert_eq!((deployment.to_string(), deployment.api_version()), ("Deployment.apps/d".into(), "apps/v1".into()));
        let core = read(json!({"kind": "ReplicationController", "name": "d"})).unwrap();
        assert_eq!((core.to_string(), core.api_version()), ("ReplicationController/d".into(), "v1".into()));
    }
}
