//! The few fields of a pod that count here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::meta::{core_resource, or_default, slim};

/// A pod, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Names, labels, annotations, `deletionTimestamp`; nothing else.
    #[serde(default, deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

core_resource!(Pod, "pods");

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    containers: Vec<Container>,
    /// Those that keep running are sidecars, whose ports count.
    #[serde(default, rename = "initContainers", deserialize_with = "or_default")]
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Container {
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
}

/// A port that a container names.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq)]
pub struct ContainerPort {
    /// Its name; empty for none.
    #[serde(default)]
    pub name: Box<str>,
    /// Its number.
    #[serde(rename = "containerPort")]
    pub number: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: String,
    #[serde(default, rename = "podIP")]
    pod_ip: String,
    #[serde(default, deserialize_with = "or_default")]
    conditions: Vec<PodCondition>,
}

/// One of `status.conditions`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct PodCondition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Pod {
    /// `status.phase`; empty where nobody has said.
    pub fn phase(&self) -> &str {
        &self.status.phase
    }

    /// Whether its containers have ended for good: what address it has may be another pod's by now.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase(), "Failed" | "Succeeded")
    }

    /// `status.podIP`; empty where it has none yet.
    pub fn ip(&self) -> &str {
        &self.status.pod_ip
    }

    /// Whether its condition `Ready` is `True`.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }

    /// Whether it was told to go.
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The ports that have names, of all containers.
    pub fn named_ports(&self) -> impl Iterator<Item = &ContainerPort> {
        let containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        containers.flat_map(|container| &container.ports).filter(|port| !port.name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_read_and_the_rest_is_left() {
        let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"7",
            "deletionTimestamp":"2026-11-21T10:00:00Z","labels":{"app":"x"},
            "annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","k":"v"},
            "managedFields":[{"manager":"m","fieldsV1":{"f:a":{}}}]},
            "spec":{"nodeName":"node","containers":[{"name":"c","image":"i","ports":[{"containerPort":8000},
            {"name":"http-metrics","containerPort":9091,"protocol":"TCP"}]},{"name":"d","ports":null}],"initContainers":null},
            "status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],
            "conditions":[{"type":"Ready","status":"True","lastTransitionTime":null}]}}"#;
        let pod: Pod = serde_json::from_str(text).unwrap();
        assert!(pod.is_ready() && pod.is_terminating() && !pod.has_ended());
        assert_eq!((pod.ip(), pod.phase()), ("10.0.0.1", "Running"));
        let ports: Vec<_> = pod.named_ports().map(|port| (&*port.name, port.number)).collect();
        assert_eq!(ports, [("http-metrics", 9091)]);
        assert_eq!(pod.metadata.annotations.unwrap().into_keys().collect::<Vec<_>>(), ["k"]);
        assert!(pod.metadata.managed_fields.is_none());
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_yet_is_read() {
        let pod: Pod = serde_json::from_str(r#"{"metadata":{"name":"a"},"spec":{"containers":[]},"status":{}}"#).unwrap();
        assert!(!pod.is_ready() && !pod.is_terminating() && !pod.has_ended());
        assert_eq!(pod.ip(), "");
    }
}
