//! Pods and what makes, finds, carries or protects them.

use super::facts;
use super::meta::{Condition, Labels, Meta, Selector};

facts! {
    /// A CustomResourceDefinition: which versions of it are served.
    Crd { metadata: Meta, spec: CrdSpec, }
    CrdSpec { versions: Vec<CrdVersion>, }
    CrdVersion { name: String, served: bool, }

    Pod { metadata: Meta, spec: PodSpec, status: PodStatus, }
    PodSpec { node_name: String, containers: Vec<Container>, volumes: Vec<Volume>, }
    Container {
        name: String,
        image: String,
        /// Only flags of [`super::scrub::KEPT_FLAGS`].
        args: Vec<String>,
        ports: Vec<ContainerPort>,
        resources: Resources,
        /// ConfigMaps are looked up for a picker's configuration.
        volume_mounts: Vec<VolumeMount>,
    }
    ContainerPort { name: String, container_port: i64, }
    Resources { requests: Labels, }
    VolumeMount { name: String, mount_path: String, }
    Volume { name: String, config_map: ConfigMapVolume, empty_dir: Empty, host_path: Empty, }
    ConfigMapVolume { name: String, }
    /// Something of which only the presence counts.
    Empty {}
    PodStatus { phase: String, reason: String, pod_ip: String, start_time: String, conditions: Vec<Condition>, container_statuses: Vec<ContainerStatus>, }
    ContainerStatus { name: String, ready: bool, restart_count: i64, state: ContainerState, last_state: ContainerState, }
    ContainerState { waiting: Waiting, terminated: Terminated, running: Running, }
    Waiting { reason: String, message: String, }
    Terminated { reason: String, exit_code: i64, finished_at: String, }
    Running { started_at: String, }

    Service { metadata: Meta, spec: ServiceSpec, }
    ServiceSpec { r#type: String, selector: Labels, ports: Vec<ServicePort>, }
    ServicePort { name: String, port: i64, target_port: IntOrName, protocol: String, app_protocol: String, }

    /// What an autoscaler scales: Deployment, StatefulSet, LeaderWorkerSet.
    Workload { metadata: Meta, spec: WorkloadSpec, status: WorkloadStatus, }
    WorkloadSpec { replicas: i64, selector: Selector, template: Template, leader_worker_template: LeaderWorkerTemplate, }
    LeaderWorkerTemplate { leader_template: Template, worker_template: Template, }
    Template { metadata: Meta, }
    WorkloadStatus { replicas: i64, ready_replicas: i64, }

    Job { metadata: Meta, spec: JobSpec, status: JobStatus, }
    JobSpec { suspend: bool, backoff_limit: i64, }
    JobStatus { active: i64, failed: i64, succeeded: i64, start_time: String, completion_time: String, conditions: Vec<Condition>, }

    Node { metadata: Meta, spec: NodeSpec, status: NodeStatus, }
    NodeSpec { unschedulable: bool, }
    NodeStatus { allocatable: Labels, conditions: Vec<Condition>, }

    DisruptionBudget { metadata: Meta, spec: DisruptionBudgetSpec, status: DisruptionBudgetStatus, }
    DisruptionBudgetSpec { selector: Selector, }
    DisruptionBudgetStatus { disruptions_allowed: i64, expected_pods: i64, }

    /// An Event that warns.
    Event { metadata: Meta, involved_object: Involved, reason: String, message: String, last_timestamp: String, count: i64, }
    Involved { kind: String, namespace: String, name: String, }
}

/// A number, or the name of a port.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum IntOrName {
    /// The number.
    Number(i64),
    /// The name.
    Name(String),
}

impl Pod {
    pub(crate) fn meta(&self) -> &Meta {
        static NOTHING: std::sync::OnceLock<Meta> = std::sync::OnceLock::new();
        self.metadata.as_ref().unwrap_or_else(|| NOTHING.get_or_init(Meta::default))
    }

    /// Whether it is Ready; none where that is not known.
    pub(crate) fn ready(&self) -> Option<bool> {
        let conditions = self.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|condition| condition.r#type.as_deref() == Some("Ready"))?;
        Some(ready.status.as_deref()? == "True")
    }

    pub(crate) fn phase(&self) -> Option<&str> {
        self.status.as_ref()?.phase.as_deref()
    }

    /// Neither done nor told to go.
    pub(crate) fn counts(&self) -> bool {
        !self.meta().deleting() && !matches!(self.phase(), Some("Succeeded" | "Failed"))
    }

    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.iter().flat_map(|spec| spec.containers.iter().flatten())
    }

    pub(crate) fn container_statuses(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
    }

    /// Why the scheduler has no node for it.
    pub(crate) fn unschedulable(&self) -> Option<&Condition> {
        let conditions = self.status.as_ref()?.conditions.as_ref();
        // Gated pods wait for something else.
        super::meta::condition(conditions, "PodScheduled", "False")
            .filter(|condition| condition.reason.as_deref() == Some("Unschedulable"))
    }

    /// How much of `resource` its containers ask for.
    pub(crate) fn requests(&self, resource: &str) -> bool {
        let asks = |container: &Container| {
            container.resources.as_ref()?.requests.as_ref()?.get(resource).filter(|amount| *amount != "0").map(drop)
        };
        self.containers().any(|container| asks(container).is_some())
    }

    /// The value of `flag` in the arguments of any container: `--flag=value` or `--flag value`, with one dash or two.
    pub(crate) fn flag(&self, flag: &str) -> Option<&str> {
        self.containers().find_map(|container| flag_of(container.args.as_deref()?, flag))
    }
}

/// The value of `flag` in `arguments`.
pub(crate) fn flag_of<'facts>(arguments: &'facts [String], flag: &str) -> Option<&'facts str> {
    let mut rest = arguments.iter().peekable();
    let mut found = None;
    while let Some(argument) = rest.next() {
        let Some(name) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else { continue };
        match name.split_once('=') {
            Some((name, value)) if name == flag => found = Some(value),
            None if name == flag => found = Some(rest.next_if(|next| !next.starts_with('-')).map_or("true", String::as_str)),
            _ => {}
        }
    }
    found
}

impl Workload {
    /// The labels of the pods that take requests.
    pub(crate) fn pod_labels(&self) -> Option<&Labels> {
        let spec = self.spec.as_ref()?;
        let group = spec.leader_worker_template.as_ref();
        let leader = group.and_then(|group| group.leader_template.as_ref().or(group.worker_template.as_ref()));
        leader.or(spec.template.as_ref())?.metadata.as_ref()?.labels.as_ref()
    }
}
