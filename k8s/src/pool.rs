//! InferencePool: two versions, one form.
//!
//! Sources: the CRDs `inferencepools.inference.networking.k8s.io` (v1) and `inferencepools.inference.networking.x-k8s.io` (v1alpha2)
//! of the Gateway API Inference Extension. There is no conversion between the two groups.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::field::{FieldProblem, bounded, shown};

/// Target ports of one pool, in v1.
const MOST_PORTS: usize = 8;

/// The versions of InferencePool, the preferred one first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PoolVersion {
    /// `inference.networking.k8s.io/v1`.
    V1,
    /// `inference.networking.x-k8s.io/v1alpha2`.
    V1Alpha2,
}

impl PoolVersion {
    /// Both, the preferred one first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V1Alpha2];

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::V1 => "inference.networking.k8s.io",
            Self::V1Alpha2 => "inference.networking.x-k8s.io",
        }
    }

    /// The version within the group.
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Alpha2 => "v1alpha2",
        }
    }

    /// What a client of dynamic objects asks for.
    pub fn resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group(), self.version(), "InferencePool");
        ApiResource::from_gvk_with_plural(&kind, "inferencepools")
    }
}

impl fmt::Display for PoolVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.group(), self.version())
    }
}

/// A pool, whichever version it was written in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InferencePool {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Tells it from its namesake before it.
    pub uid: Arc<str>,
    /// What it was written in.
    pub version: PoolVersion,
    /// Labels that its pods have; never empty.
    pub selector: BTreeMap<String, String>,
    /// The ports of each pod, in order ("ranks"): 1 to 8, each once.
    pub target_ports: Vec<u16>,
    /// `spec.appProtocol`: `http` where it says nothing, or `kubernetes.io/h2c`.
    pub app_protocol: Arc<str>,
    /// Where its picker is; none where it names none that can be found.
    pub picker: Option<PickerReference>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What of it is not good, and was passed over.
    pub problems: Vec<FieldProblem>,
}

/// `spec.endpointPickerRef`, in v1alpha2 `spec.extensionRef`: a Service in the pool's namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PickerReference {
    /// The Service's name.
    pub service: Arc<str>,
    /// The Service's port of ext_proc.
    pub port: u16,
    /// Whether the gateway picks by itself where the picker does not answer.
    pub fail_open: bool,
}

impl InferencePool {
    /// Reads `object`, which was asked for as `version`.
    ///
    /// # Errors
    /// Everything without which there is no pool: the selector, the ports.
    pub fn read(version: PoolVersion, object: DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        let mut reader = Reader { version, problems: Vec::new() };
        let spec = &object.data["spec"];
        let selector = reader.selector(spec);
        let target_ports = reader.target_ports(spec);
        let (Some(selector), Some(target_ports)) = (selector, target_ports) else { return Err(reader.problems) };
        let app_protocol = reader.app_protocol(spec);
        let picker = reader.picker(spec);
        let text = |text: Option<String>| Arc::from(text.unwrap_or_default());
        Ok(Self {
            namespace: text(object.metadata.namespace),
            name: text(object.metadata.name),
            uid: text(object.metadata.uid),
            version,
            selector,
            target_ports,
            app_protocol,
            picker,
            annotations: object.metadata.annotations.unwrap_or_default(),
            problems: reader.problems,
        })
    }
}

struct Reader {
    version: PoolVersion,
    problems: Vec<FieldProblem>,
}

impl Reader {
    fn refuse<T>(&mut self, field: impl Into<String>, message: impl Into<String>) -> Option<T> {
        self.problems.push(FieldProblem::new(field, message));
        None
    }

    fn selector(&mut self, spec: &Value) -> Option<BTreeMap<String, String>> {
        let (field, value) = match self.version {
            PoolVersion::V1 => ("spec.selector.matchLabels", &spec["selector"]["matchLabels"]),
            PoolVersion::V1Alpha2 => ("spec.selector", &spec["selector"]),
        };
        let Some(labels) = value.as_object().filter(|labels| !labels.is_empty()) else {
            return self.refuse(field, "names no labels: write those that the pool's pods have, as `app: vllm`");
        };
        let mut selector = BTreeMap::new();
        for (key, value) in labels {
            let Some(value) = value.as_str() else {
                return self.refuse(format!("{field}[{}]", bounded(key)), format!("{} is no text: put it in quotes", shown(value)));
            };
            selector.insert(key.clone(), value.to_owned());
        }
        Some(selector)
    }

    fn target_ports(&mut self, spec: &Value) -> Option<Vec<u16>> {
        if self.version == PoolVersion::V1Alpha2 {
            return Some(vec![self.port("spec.targetPortNumber", &spec["targetPortNumber"])?]);
        }
        let Some(list) = spec["targetPorts"].as_array().filter(|list| !list.is_empty()) else {
            return self.refuse("spec.targetPorts", "names no port: write `- number: 8000`");
        };
        if list.len() > MOST_PORTS {
            return self.refuse("spec.targetPorts", format!("{} ports: at most {MOST_PORTS}", list.len()));
        }
        let mut seen = HashSet::new();
        let mut ports = Vec::with_capacity(list.len());
        for (position, entry) in list.iter().enumerate() {
            let field = format!("spec.targetPorts[{position}].number");
            let port = self.port(&field, &entry["number"])?;
            if !seen.insert(port) {
                return self.refuse(field, format!("port {port} is already in the list: remove one"));
            }
            ports.push(port);
        }
        Some(ports)
    }

    fn port(&mut self, field: &str, value: &Value) -> Option<u16> {
        match value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0) {
            Some(port) => Some(port),
            None => self.refuse(field, format!("{} is no port: write a number from 1 to 65535", shown(value))),
        }
    }

    fn app_protocol(&mut self, spec: &Value) -> Arc<str> {
        match &spec["appProtocol"] {
            Value::Null => "http".into(),
            Value::String(text) if text == "http" || text == "kubernetes.io/h2c" => text.as_str().into(),
            other => {
                let message = format!("{} is not known and is taken for http: write http or kubernetes.io/h2c", shown(other));
                self.problems.push(FieldProblem::new("spec.appProtocol", message));
                "http".into()
            }
        }
    }

    fn picker(&mut self, spec: &Value) -> Option<PickerReference> {
        let field = match self.version {
            PoolVersion::V1 => "endpointPickerRef",
            PoolVersion::V1Alpha2 => "extensionRef",
        };
        let reference = &spec[field];
        if reference.is_null() {
            return None;
        }
        let text = |name: &str, default: &'static str| match &reference[name] {
            Value::Null => Some(default.to_owned()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        let (group, kind) = (text("group", ""), text("kind", "Service"));
        if group.as_deref() != Some("") || kind.as_deref() != Some("Service") {
            let found = format!("kind {} of group {}", shown(&reference["kind"]), shown(&reference["group"]));
            let way_out = "its picker is not read: only a Service (group \"\") leads to pods";
            return self.refuse(format!("spec.{field}"), format!("{found}: {way_out}"));
        }
        let Some(service) = reference["name"].as_str().filter(|name| !name.is_empty()) else {
            return self.refuse(format!("spec.{field}.name"), "no name: write that of the picker's Service");
        };
        let (port_field, port) = match self.version {
            PoolVersion::V1 => (format!("spec.{field}.port.number"), &reference["port"]["number"]),
            PoolVersion::V1Alpha2 => (format!("spec.{field}.portNumber"), &reference["portNumber"]),
        };
        // Both versions mean 9002; v1 demands that it be written.
        let port = if port.is_null() { Some(9002) } else { self.port(&port_field, port) };
        let fail_open = match &reference["failureMode"] {
            Value::String(mode) if mode == "FailOpen" => true,
            Value::Null => false,
            Value::String(mode) if mode == "FailClose" => false,
            other => {
                let message = format!("{} is taken for FailClose: write FailOpen or FailClose", shown(other));
                self.problems.push(FieldProblem::new(format!("spec.{field}.failureMode"), message));
                false
            }
        };
        Some(PickerReference { service: service.into(), port: port.unwrap_or(9002), fail_open })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(version: PoolVersion, spec: Value) -> Result<InferencePool, Vec<String>> {
        let object = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec });
        let problems = |problems: Vec<FieldProblem>| problems.iter().map(FieldProblem::to_string).collect();
        InferencePool::read(version, serde_json::from_value(object).unwrap()).map_err(problems)
    }

    #[test]
    fn both_versions_become_the_same() {
        let v1 = read(
            PoolVersion::V1,
            json!({ "selector": { "matchLabels": { "app": "x" } }, "targetPorts": [{ "number": 8000 }],
                    "endpointPickerRef": { "name": "epp", "port": { "number": 9002 }, "failureMode": "FailOpen" } }),
        )
        .unwrap();
        let old = read(
            PoolVersion::V1Alpha2,
            json!({ "selector": { "app": "x" }, "targetPortNumber": 8000, "extensionRef": { "name": "epp", "failureMode": "FailOpen" } }),
        )
        .unwrap();
        assert_eq!(v1, InferencePool { version: PoolVersion::V1, ..old });
        assert_eq!(v1.target_ports, [8000]);
        assert_eq!(v1.picker, Some(PickerReference { service: "epp".into(), port: 9002, fail_open: true }));
        assert_eq!((&*v1.app_protocol, v1.problems.len()), ("http", 0));
    }

    #[test]
    fn what_a_pool_cannot_do_without_is_named_with_its_field() {
        let selector = json!({ "matchLabels": { "app": "x" } });
        let ports = json!([{ "number": 1 }]);
        for (spec, expected) in [
            (json!({}), "spec.selector.matchLabels: names no labels"),
            (json!({ "selector": { "matchLabels": { "app": 7 } }, "targetPorts": ports }), "matchLabels[app]: `7` is no text"),
            (json!({ "selector": [], "targetPorts": ports }), "spec.selector.matchLabels: names no labels"),
            (json!({ "selector": selector }), "spec.targetPorts: names no port"),
            (json!({ "selector": selector, "targetPorts": [7] }), "spec.targetPorts[0].number: nothing is no port"),
            (json!({ "selector": selector, "targetPorts": [{ "number": 65536 }] }), "`65536` is no port"),
            (json!({ "selector": selector, "targetPorts": [{ "number": "x\n" }] }), "`x\\n` is no port"),
            (json!({ "selector": selector, "targetPorts": [{ "number": 1 }, { "number": 1 }] }), "[1].number: port 1 is already"),
            (json!({ "selector": selector, "targetPorts": vec![json!({ "number": 1 }); 9] }), "9 ports: at most 8"),
        ] {
            let problems = read(PoolVersion::V1, spec.clone()).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{spec}: {problems:?}");
        }
        let problems = read(PoolVersion::V1Alpha2, json!({ "selector": { "app": "x" }, "targetPortNumber": 0 })).unwrap_err();
        assert_eq!(problems, ["spec.targetPortNumber: `0` is no port: write a number from 1 to 65535"]);
        assert_eq!(read(PoolVersion::V1, Value::Null).unwrap_err().len(), 2);
    }

    #[test]
    fn a_picker_that_cannot_be_followed_leaves_the_pool() {
        let with = |reference: Value| {
            let spec = json!({ "selector": { "matchLabels": { "a": "b" } }, "targetPorts": [{ "number": 1 }], "endpointPickerRef": reference });
            let pool = read(PoolVersion::V1, spec).unwrap();
            (pool.picker, pool.problems.iter().map(FieldProblem::to_string).collect::<Vec<_>>())
        };
        assert_eq!(with(Value::Null), (None, vec![]));
        for (reference, field) in [
            (json!({ "name": "x", "kind": "Thing" }), "spec.endpointPickerRef: kind `Thing`"),
            (json!({ "name": "x", "group": "g" }), "spec.endpointPickerRef: kind nothing of group `g`"),
            (json!({ "port": { "number": 1 } }), "spec.endpointPickerRef.name: no name"),
            (json!("x"), "spec.endpointPickerRef.name: no name"),
        ] {
            let (picker, problems) = with(reference);
            assert_eq!(picker, None);
            assert!(problems[0].starts_with(field), "{problems:?}");
        }
        let (picker, problems) = with(json!({ "name": "x", "port": { "number": -1 }, "failureMode": "Maybe" }));
        assert_eq!(picker.unwrap().port, 9002);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
