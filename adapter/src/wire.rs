//! The objects of the API as JSON, field for field as Kubernetes' own servers write them.

use std::collections::BTreeMap;

use serde::Serialize;
use weir_datastore::catalog::FAMILIES;

use crate::quantity::Quantity;
use crate::{GROUP, GroupVersion};

/// `external.metrics.k8s.io/v1beta1 ExternalMetricValueList`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ValueList {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    /// One per series: the autoscaler adds them up.
    pub(crate) items: Vec<Value>,
}

/// `ExternalMetricValue`. It is no average over time, so the optional `window` is left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Value {
    pub(crate) metric_name: String,
    pub(crate) metric_labels: BTreeMap<String, String>,
    /// RFC 3339, whole seconds, UTC.
    pub(crate) timestamp: String,
    pub(crate) value: Quantity,
}

/// `metav1.Status` of a failure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    code: u16,
}

/// What a failure is about.
#[derive(Debug, Serialize)]
pub(crate) struct Details {
    pub(crate) group: &'static str,
    pub(crate) kind: String,
}

/// `metadata` of what has none.
#[derive(Debug, Serialize)]
struct Empty {}

impl ValueList {
    pub(crate) fn new(items: Vec<Value>) -> Self {
        Self { kind: "ExternalMetricValueList", api_version: GROUP.name, metadata: Empty {}, items }
    }
}

impl Status {
    pub(crate) fn failure(code: u16, reason: &'static str, message: String, details: Option<Details>) -> Self {
        Self { kind: "Status", api_version: "v1", metadata: Empty {}, status: "Failure", message, reason, details, code }
    }
}

/// The body of `/apis`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<GroupEntry>,
}

/// The body of `/apis/G`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    group: GroupEntry,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupEntry {
    name: &'static str,
    versions: [Version; 1],
    preferred_version: Version,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: &'static str,
    version: &'static str,
}

/// The body of `/apis/G/V`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: &'static str,
    resources: Vec<Resource>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: &'static str,
    singular_name: &'static str,
    namespaced: bool,
    kind: &'static str,
    verbs: [&'static str; 1],
}

impl GroupList {
    pub(crate) fn new() -> Self {
        Self { kind: "APIGroupList", api_version: "v1", groups: vec![GroupEntry::new(GROUP)] }
    }
}

impl Group {
    pub(crate) fn new() -> Self {
        Self { kind: "APIGroup", api_version: "v1", group: GroupEntry::new(GROUP) }
    }
}

impl GroupEntry {
    fn new(group: GroupVersion) -> Self {
        let version = || Version { group_version: group.name, version: group.version };
        Self { name: group.group, versions: [version()], preferred_version: version() }
    }
}

impl ResourceList {
    /// One resource per family, whatever pools there are: an empty list, or one that changes with the data, breaks clients.
    pub(crate) fn new() -> Self {
        let resource =
            |name| Resource { name, singular_name: "", namespaced: true, kind: "ExternalMetricValueList", verbs: ["get"] };
        let resources = FAMILIES.iter().map(|family| resource(family.name)).collect();
        Self { kind: "APIResourceList", api_version: "v1", group_version: GROUP.name, resources }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn values_are_written_as_kubernetes_writes_them() {
        let value = Value {
            metric_name: "kv".into(),
            metric_labels: BTreeMap::from([("name".into(), "pool".into())]),
            timestamp: "2026-01-01T00:00:00Z".into(),
            value: Quantity::from_f64(0.85).unwrap(),
        };
        assert_eq!(
            json(&ValueList::new(vec![value])),
            r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":"kv","metricLabels":{"name":"pool"},"timestamp":"2026-01-01T00:00:00Z","value":"850m"}]}"#
        );
        assert_eq!(
            json(&ValueList::new(Vec::new())),
            r#"{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[]}"#
        );
    }

    #[test]
    fn a_failure_is_a_status() {
        assert_eq!(
            json(&Status::failure(404, "NotFound", "no \"x\"".into(), None)),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no \"x\"","reason":"NotFound","code":404}"#
        );
        let details = Details { group: "g", kind: "m".into() };
        assert_eq!(
            json(&Status::failure(403, "Forbidden", String::new(), Some(details))),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"","reason":"Forbidden","details":{"group":"g","kind":"m"},"code":403}"#
        );
    }

    #[test]
    fn discovery_lists_the_group_and_each_family_once() {
        let version = r#"{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}"#;
        let group = format!(r#""name":"external.metrics.k8s.io","versions":[{version}],"preferredVersion":{version}"#);
        assert_eq!(json(&GroupList::new()), format!(r#"{{"kind":"APIGroupList","apiVersion":"v1","groups":[{{{group}}}]}}"#));
        assert_eq!(json(&Group::new()), format!(r#"{{"kind":"APIGroup","apiVersion":"v1",{group}}}"#));
        let resource = |family: &weir_datastore::catalog::Family| {
            let name = family.name;
            format!(r#"{{"name":"{name}","singularName":"","namespaced":true,"kind":"ExternalMetricValueList","verbs":["get"]}}"#)
        };
        let resources = FAMILIES.iter().map(resource).collect::<Vec<_>>().join(",");
        assert!(resources.contains(r#""name":"inference_pool_total_inflight_requests""#));
        assert_eq!(
            json(&ResourceList::new()),
            format!(
                r#"{{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"external.metrics.k8s.io/v1beta1","resources":[{resources}]}}"#
            )
        );
    }
}
