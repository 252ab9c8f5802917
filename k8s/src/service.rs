//! The few fields of a Service that count here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::meta::{core_resource, or_default, slim};

/// A Service, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    /// Names and labels; nothing else.
    #[serde(default, deserialize_with = "slim")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

core_resource!(Service, "services");

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "or_default")]
    selector: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ServicePort>,
    #[serde(default, rename = "type")]
    kind: String,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name; empty for none.
    #[serde(default)]
    pub name: String,
    /// Its number at the Service.
    pub port: u16,
    /// What it is at the pods; none: the same number.
    #[serde(default)]
    pub target_port: Option<TargetPort>,
}

/// A port of a pod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The container port of this name.
    Name(String),
}

impl Service {
    /// `spec.selector`: which pods are behind it; empty: whoever is written into its EndpointSlices.
    pub fn selector(&self) -> &BTreeMap<String, String> {
        &self.spec.selector
    }

    /// `spec.ports`.
    pub fn ports(&self) -> &[ServicePort] {
        &self.spec.ports
    }

    /// Whether it is only another name for a host.
    pub fn is_external_name(&self) -> bool {
        self.spec.kind == "ExternalName"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_selector_are_read() {
        let text = r#"{"metadata":{"name":"epp","namespace":"n"},"spec":{"selector":{"app":"epp"},"type":"ClusterIP","ports":[
            {"name":"grpc","port":9002},{"name":"http-metrics","port":80,"targetPort":"metrics"},{"port":81,"targetPort":9090}]}}"#;
        let service: Service = serde_json::from_str(text).unwrap();
        assert_eq!(service.selector()["app"], "epp");
        let targets: Vec<_> = service.ports().iter().map(|port| port.target_port.clone()).collect();
        assert_eq!(targets, [None, Some(TargetPort::Name("metrics".into())), Some(TargetPort::Number(9090))]);
        let external: Service = serde_json::from_str(r#"{"spec":{"type":"ExternalName","externalName":"x"}}"#).unwrap();
        assert!(external.is_external_name() && external.selector().is_empty());
    }
}
