//! The pods as far as this needs them: metadata alone, and of it who wrote the annotation.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;

/// What the ReplicaSet controller reads.
pub const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// As whom the annotation is written: what is another's is left alone.
pub const FIELD_MANAGER: &str = "weir-deletion-cost";

/// The annotation of one pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Annotated {
    /// There is none, which counts as 0.
    Absent,
    /// Written by this program, or an earlier run of it; none when it is no number.
    Ours(Option<i32>),
    /// Written by somebody else, or brought by the pod's template.
    Foreign,
}

/// One pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PodRecord {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) annotated: Annotated,
    /// Whether its controller is a ReplicaSet, the only one that reads the annotation.
    pub(super) of_replica_set: bool,
}

impl PodRecord {
    pub(super) fn of(metadata: &ObjectMeta) -> Option<(String, Self)> {
        let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        let annotated = match annotation {
            None => Annotated::Absent,
            Some(value) if is_ours(metadata) => Annotated::Ours(value.parse().ok()),
            Some(_) => Annotated::Foreign,
        };
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        let of_replica_set = owners.iter().any(|owner| owner.kind == "ReplicaSet" && owner.controller == Some(true));
        let record = Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone()?,
            annotated,
            of_replica_set,
        };
        Some((metadata.uid.clone()?, record))
    }
}

/// Whether the annotation was written by this program, as the API server keeps account.
fn is_ours(metadata: &ObjectMeta) -> bool {
    let field = format!("f:{ANNOTATION}");
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    let owns =
        |fields: &serde_json::Value| fields.pointer("/f:metadata/f:annotations").is_some_and(|keys| keys.get(&field).is_some());
    let mut owners = managers.iter().filter(|manager| manager.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)));
    let only = owners.next();
    only.is_some_and(|manager| manager.manager.as_deref() == Some(FIELD_MANAGER)) && owners.next().is_none()
}

/// All pods that are there, by uid.
#[derive(Debug, Default)]
pub(super) struct Pods {
    known: HashMap<String, PodRecord>,
    /// What a list has brought so far, while one lasts.
    listed: Option<HashMap<String, PodRecord>>,
    /// Whether a list was ever seen whole.
    pub(super) synced: bool,
}

impl Pods {
    pub(super) fn take_in(&mut self, event: Event<PartialObjectMeta<Pod>>) {
        match event {
            Event::Init => self.listed = Some(HashMap::new()),
            Event::InitApply(pod) => self.listed.get_or_insert_default().extend(PodRecord::of(&pod.metadata)),
            Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                self.synced = true;
            }
            Event::Apply(pod) => self.known.extend(PodRecord::of(&pod.metadata)),
            Event::Delete(pod) => {
                self.known.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&PodRecord> {
        self.known.get(uid)
    }

    /// The cost of this pod is this now, without waiting for the watch to tell it.
    pub(super) fn wrote(&mut self, uid: &str, cost: i32) {
        if let Some(pod) = self.known.get_mut(uid) {
            pod.annotated = Annotated::Ours(Some(cost));
        }
    }

    pub(super) fn forget(&mut self, uid: &str) {
        self.known.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(cost: Option<&str>, managers: &[&str]) -> ObjectMeta {
        let fields = json!({ "f:metadata": { "f:annotations": { ".": {}, format!("f:{ANNOTATION}"): {} } } });
        let managed: Vec<_> = managers.iter().map(|name| json!({ "manager": name, "fieldsV1": fields })).collect();
        serde_json::from_value(json!({
            "name": "p", "namespace": "n", "uid": "u",
            "annotations": cost.map(|cost| json!({ ANNOTATION: cost })).unwrap_or(json!({})),
            "managedFields": managed,
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v", "controller": true }],
        }))
        .unwrap()
    }

    #[test]
    fn who_wrote_the_annotation_decides_whose_it_is() {
        let annotated = |cost, managers: &[&str]| PodRecord::of(&metadata(cost, managers)).unwrap().1.annotated;
        assert_eq!(annotated(None, &[]), Annotated::Absent);
        assert_eq!(annotated(Some("-10"), &[FIELD_MANAGER]), Annotated::Ours(Some(-10)));
        assert_eq!(annotated(Some("much"), &[FIELD_MANAGER]), Annotated::Ours(None));
        assert_eq!(annotated(Some("-10"), &["kubectl-annotate"]), Annotated::Foreign);
        assert_eq!(annotated(Some("-10"), &[FIELD_MANAGER, "kubectl"]), Annotated::Foreign, "both wrote the same");
        assert_eq!(annotated(Some("-10"), &[]), Annotated::Foreign);
    }

    #[test]
    fn pods_come_change_and_go_and_a_list_replaces_all() {
        let pod =
            |cost: Option<&str>| PartialObjectMeta::<Pod> { metadata: metadata(cost, &[FIELD_MANAGER]), ..Default::default() };
        let mut pods = Pods::default();
        pods.take_in(Event::Init);
        pods.take_in(Event::InitApply(pod(None)));
        assert!(pods.get("u").is_none() && !pods.synced, "half a list is never seen");
        pods.take_in(Event::InitDone);
        assert!(pods.synced && pods.get("u").unwrap().of_replica_set);
        pods.take_in(Event::Apply(pod(Some("20"))));
        assert_eq!(pods.get("u").unwrap().annotated, Annotated::Ours(Some(20)));
        pods.take_in(Event::Delete(pod(None)));
        assert!(pods.get("u").is_none());
    }
}
