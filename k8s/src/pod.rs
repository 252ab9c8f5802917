//! The few fields of a pod that count here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use crate::meta::{core_resource, or_default, slim};

/// Why a container waits (`state.waiting.reason`) that does not run by itself: somebody must do something about it, or it has been
/// tried again and again.
const WAITS_FOR_EVER: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// Characters of a name that are shown.
const SHOWN: usize = 63;

/// A pod, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Names, labels, annotations, `creationTimestamp`, `deletionTimestamp`; nothing else.
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
    image: String,
    #[serde(default, deserialize_with = "or_default")]
    resources: Resources,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Resources {
    /// Quantities, as numbers or text.
    #[serde(default, deserialize_with = "or_default")]
    limits: BTreeMap<String, serde_json::Value>,
}

impl Resources {
    /// Those that a node has of its own, as `nvidia.com/gpu`.
    fn devices(&self) -> impl Iterator<Item = (&String, &serde_json::Value)> {
        self.limits.iter().filter(|(name, _)| name.contains('/'))
    }
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
    #[serde(default, rename = "containerStatuses", deserialize_with = "or_default")]
    containers: Vec<ContainerStatus>,
    #[serde(default, rename = "initContainerStatuses", deserialize_with = "or_default")]
    init_containers: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    #[serde(default)]
    name: String,
    #[serde(default)]
    restart_count: u32,
    #[serde(default)]
    ready: bool,
    #[serde(default, deserialize_with = "or_default")]
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<Running>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Waiting {
    #[serde(default, deserialize_with = "or_default")]
    reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Running {
    #[serde(rename = "startedAt")]
    started_at: Option<Time>,
}

/// One of `status.conditions`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct PodCondition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Since when.
    #[serde(default, rename = "lastTransitionTime")]
    pub since: Option<Time>,
}

impl Pod {
    /// The image of the container that serves, and its devices (`nvidia.com/gpu=4`), with commas between: of the first container with
    /// devices, else of the first. Empty where there is none.
    pub fn serves_with(&self) -> String {
        let containers = &self.spec.containers;
        let with_devices = containers.iter().find(|container| container.resources.devices().next().is_some());
        let Some(container) = with_devices.or(containers.first()) else { return String::new() };
        let quantity = |amount: &serde_json::Value| amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
        let devices = container.resources.devices().map(|(name, amount)| format!("{name}={}", quantity(amount)));
        std::iter::once(container.image.clone()).chain(devices).collect::<Vec<_>>().join(",")
    }

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

    /// Since when the condition `kind` has this status, in seconds since 1970.
    pub fn since(&self, kind: &str, status: &str) -> Option<i64> {
        let condition = self.status.conditions.iter().find(|condition| condition.kind == kind && condition.status == status)?;
        condition.since.as_ref().map(seconds)
    }

    /// When it was created, in seconds since 1970.
    pub fn created(&self) -> Option<i64> {
        self.metadata.creation_timestamp.as_ref().map(seconds)
    }

    /// Since when all its containers run: the last of their `state.running.startedAt`, in seconds since 1970.
    pub fn running_since(&self) -> Option<i64> {
        let started = |container: &ContainerStatus| container.state.running.as_ref()?.started_at.as_ref().map(seconds);
        self.status
            .containers
            .iter()
            .map(started)
            .try_fold(i64::MIN, |last, started| Some(last.max(started?)))
            .filter(|last| *last > i64::MIN)
    }

    /// Whether a container of it has started anew.
    pub fn has_restarted(&self) -> bool {
        self.status.containers.iter().any(|container| container.restart_count > 0)
    }

    /// What keeps a container from running, or from running for long, until somebody does something about it.
    pub fn obstacle(&self) -> Option<String> {
        let containers = self.status.init_containers.iter().chain(&self.status.containers);
        containers.filter(|container| !container.ready).find_map(|container| {
            let name: String = container.name.chars().take(SHOWN).collect();
            let reason = container.state.waiting.as_ref().map(|waiting| waiting.reason.as_str());
            let reason = WAITS_FOR_EVER.iter().find(|known| Some(**known) == reason)?;
            Some(format!("container {name} waits with {reason}"))
        })
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

fn seconds(time: &Time) -> i64 {
    time.0.as_second()
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
    fn the_container_with_devices_is_the_one_that_serves() {
        let of = |containers: &str| {
            let pod: Pod =
                serde_json::from_str(&format!(r#"{{"metadata":{{"name":"a"}},"spec":{{"containers":[{containers}]}}}}"#)).unwrap();
            pod.serves_with()
        };
        let sidecar = r#"{"name":"s","image":"proxy:1","resources":{"limits":{"cpu":"1","memory":"1Gi"}}}"#;
        let server = r#"{"name":"v","image":"vllm:2","resources":{"limits":{"cpu":8,"nvidia.com/gpu":"4","rdma/hca":1}}}"#;
        assert_eq!(of(&format!("{sidecar},{server}")), "vllm:2,nvidia.com/gpu=4,rdma/hca=1");
        assert_eq!(of(sidecar), "proxy:1");
        assert_eq!(of(r#"{"name":"v","resources":{"limits":null}}"#), "");
        assert_eq!(of(""), "");
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_yet_is_read() {
        let pod: Pod = serde_json::from_str(r#"{"metadata":{"name":"a"},"spec":{"containers":[]},"status":{}}"#).unwrap();
        assert!(!pod.is_ready() && !pod.is_terminating() && !pod.has_ended());
        assert_eq!(pod.ip(), "");
    }

    #[test]
    fn the_times_of_its_start_are_those_of_its_conditions_and_containers() {
        let text = r#"{"metadata":{"name":"a","creationTimestamp":"2026-11-21T10:00:00Z"},"spec":{"containers":[]},"status":{
            "conditions":[{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-11-21T10:00:02Z"},
            {"type":"Initialized","status":"True","lastTransitionTime":"2026-11-21T10:00:09Z"},
            {"type":"Ready","status":"False","lastTransitionTime":"2026-11-21T10:00:03Z"}],
            "initContainerStatuses":[{"name":"i","ready":true,"restartCount":9,"state":{"terminated":{"exitCode":0}}}],
            "containerStatuses":[{"name":"a","state":{"running":{"startedAt":"2026-11-21T10:01:00Z"}}},
            {"name":"b","state":{"running":{"startedAt":"2026-11-21T10:01:07Z"}}}]}}"#;
        let pod: Pod = serde_json::from_str(text).unwrap();
        let created = pod.created().unwrap();
        let after = |time: Option<i64>| time.map(|time| time - created);
        assert_eq!(after(pod.since("PodScheduled", "True")), Some(2));
        assert_eq!((after(pod.since("Initialized", "True")), pod.since("Ready", "True")), (Some(9), None));
        assert_eq!((after(pod.since("Ready", "False")), after(pod.running_since())), (Some(3), Some(67)));
        assert_eq!(pod.obstacle(), None);
        let one_waits =
            text.replace("\"running\":{\"startedAt\":\"2026-11-21T10:01:07Z\"}", "\"waiting\":{\"reason\":\"ContainerCreating\"}");
        let pod: Pod = serde_json::from_str(&one_waits).unwrap();
        assert_eq!((pod.running_since(), pod.obstacle()), (None, None));
    }

    #[test]
    fn what_will_not_run_by_itself_is_told_with_the_container() {
        let of = |status: &str| {
            let text = format!(r#"{{"metadata":{{"name":"a"}},"spec":{{"containers":[]}},"status":{status}}}"#);
            serde_json::from_str::<Pod>(&text).unwrap().obstacle()
        };
        for reason in WAITS_FOR_EVER {
            let status = format!(r#"{{"containerStatuses":[{{"name":"s","state":{{"waiting":{{"reason":"{reason}"}}}}}}]}}"#);
            assert_eq!(of(&status), Some(format!("container s waits with {reason}")));
            assert_eq!(
                of(&status.replace("containerStatuses", "initContainerStatuses")),
                Some(format!("container s waits with {reason}"))
            );
        }
        let restarted = r#"{"containerStatuses":[{"name":"s","restartCount":3,"state":{"running":{"startedAt":null}}}]}"#;
        assert_eq!(of(restarted), None);
        assert_eq!(of(r#"{"containerStatuses":null}"#), None);
    }
}
