//! InferencePools of both versions, and what users say about their requests.

use super::facts;
use super::meta::{Condition, Labels, Meta};

facts! {
    /// InferencePool: the fields of `v1` and of `v1alpha2` beside each other.
    Pool { metadata: Meta, spec: PoolSpec, status: PoolStatus, }
    PoolSpec {
        selector: PoolSelector,
        target_ports: Vec<TargetPort>,
        endpoint_picker_ref: PickerReference,
        /// `v1alpha2`.
        target_port_number: i64,
        /// `v1alpha2`.
        extension_ref: PickerReference,
    }
    TargetPort { number: i64, }
    PickerReference { kind: String, name: String, port: TargetPort, port_number: i64, failure_mode: String, }
    PoolStatus { parents: Vec<PoolParent>, }
    PoolParent { parent_ref: PoolParentReference, controller_name: String, conditions: Vec<Condition>, }
    PoolParentReference { kind: String, namespace: String, name: String, }

    /// InferenceObjective.
    Objective { metadata: Meta, spec: ObjectiveSpec, }
    ObjectiveSpec { pool_ref: PoolReference, priority: i64, }
    PoolReference { group: String, kind: String, name: String, }

    /// InferenceModelRewrite.
    Rewrite { metadata: Meta, spec: RewriteSpec, }
    RewriteSpec { pool_ref: PoolReference, rules: Vec<RewriteRule>, }
    RewriteRule { targets: Vec<RewriteTarget>, }
    RewriteTarget { model_rewrite: String, }

    /// InferenceModel (up to v0.5).
    Model { metadata: Meta, spec: ModelSpec, }
    ModelSpec { model_name: String, pool_ref: PoolReference, target_models: Vec<ModelTarget>, }
    ModelTarget { name: String, }
}

/// `spec.selector`: labels alone in `v1alpha2`, under `matchLabels` in `v1`.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub(crate) struct PoolSelector(std::collections::BTreeMap<String, SelectorEntry>);

#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
enum SelectorEntry {
    Value(String),
    Labels(Labels),
}

impl PoolSelector {
    /// The labels that a pod must have; none where there are none, and so no pod is selected.
    pub(crate) fn labels(&self) -> Option<Labels> {
        let mut labels = Labels::new();
        for (key, entry) in &self.0 {
            match entry {
                SelectorEntry::Value(value) => drop(labels.insert(key.clone(), value.clone())),
                SelectorEntry::Labels(inner) if key == "matchLabels" => labels.extend(inner.clone()),
                SelectorEntry::Labels(_) => {}
            }
        }
        (!labels.is_empty()).then_some(labels)
    }
}

impl Pool {
    /// The ports its servers listen on.
    pub(crate) fn ports(&self) -> Vec<i64> {
        let Some(spec) = &self.spec else { return Vec::new() };
        let listed = spec.target_ports.iter().flatten().filter_map(|port| port.number);
        listed.chain(spec.target_port_number).collect()
    }

    /// Its picker's Service.
    pub(crate) fn picker(&self) -> Option<&PickerReference> {
        let spec = self.spec.as_ref()?;
        let reference = spec.endpoint_picker_ref.as_ref().or(spec.extension_ref.as_ref())?;
        reference.kind.as_deref().is_none_or(|kind| kind == "Service").then_some(reference)
    }
}

impl PickerReference {
    /// The Service's port: implied where `v1alpha2` says nothing.
    pub(crate) fn port(&self) -> i64 {
        self.port.as_ref().and_then(|port| port.number).or(self.port_number).unwrap_or(9002)
    }
}
