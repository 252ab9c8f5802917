//! The pods of a pool's picker, by way of its Service.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_datastore::{EndpointAddress, EndpointState, Scheme, codes};
use weir_k8s::{InferencePool, PickerReference, TargetPort};

use super::PickerPages;
use super::pods::{PodEntry, Pods, Selected};
use super::problems::Problem;
use super::services::{METRICS_PORT, ServiceEntry, Services};
use crate::access::{Access, WantedPicker};

/// Replicas of one pool's picker.
const MOST_PICKERS: usize = 64;

/// The ready pods behind `reference`, by name, and why there are none.
pub(super) fn pickers_of(
    pool: &InferencePool,
    reference: &PickerReference,
    pods: &Pods,
    services: &Services,
    services_known: bool,
    pages: &PickerPages,
) -> (Vec<WantedPicker>, Option<Problem>) {
    let object = format!("Service {}/{}", pool.namespace, reference.service);
    let none = |code: &'static str, field: &str, message: &str| {
        let message = format!("{message}; what the pool's pickers hold is not known");
        (Vec::new(), Some(Problem { code: Some(code), object: object.clone(), field: field.to_owned(), message }))
    };
    let service = services.get(&(pool.namespace.clone(), reference.service.clone()));
    let service = match service {
        Some(service) if service.external_name => {
            return none(codes::PICKER_NO_PODS, "spec.type", "ExternalName leads to no pods: upstream forbids it");
        }
        Some(service) if service.selector.is_empty() => {
            return none(codes::PICKER_NO_PODS, "spec.selector", "selects no pods: write the picker's labels");
        }
        Some(service) => service,
        None if !services_known => {
            return none(codes::PICKER_FORBIDDEN, "metadata", "Services may not be listed: add `services` to the role");
        }
        None => return none(codes::PICKER_SERVICE_MISSING, "metadata.name", "is not there: the pool's endpointPickerRef names it"),
    };
    let mut ready: Vec<_> = pods.select(&pool.namespace, &service.selector).filter(is_ready).collect();
    ready.sort_unstable_by_key(|pod| pod.name);
    let problem = match ready.len() {
        0 => return none(codes::PICKER_NOT_READY, "spec.selector", "no pod that it selects is ready"),
        count if count > MOST_PICKERS => Some(Problem {
            code: None,
            object: object.clone(),
            field: "spec.selector".to_owned(),
            message: format!("{count} ready pods: the first {MOST_PICKERS} by name are read, does it select other pods too?"),
        }),
        _ => None,
    };
    let picker = |pod: Selected<'_>| {
        let address = SocketAddr::new(pod.entry.ip?, metrics_port(pod.entry, service, pages.port));
        let address = EndpointAddress::from(address);
        let url = format!("{}://{address}{}", pages.scheme.as_str(), pages.path);
        Some(WantedPicker { name: pod.name.clone(), url: url.into(), access: access_of(pages) })
    };
    (ready.into_iter().take(MOST_PICKERS).filter_map(picker).collect(), problem)
}

/// The names that the pool's spec has for `pickers`.
pub(super) fn names(pickers: &[WantedPicker]) -> Vec<Arc<str>> {
    pickers.iter().map(|picker| picker.name.clone()).collect()
}

fn is_ready(pod: &Selected<'_>) -> bool {
    pod.entry.state == EndpointState::Ready && pod.entry.ip.is_some()
}

/// The container's port of that name, else the Service's, else `default`.
fn metrics_port(pod: &PodEntry, service: &ServiceEntry, default: u16) -> u16 {
    let named = |name: &str| pod.ports.iter().find(|port| *port.name == *name).map(|port| port.number);
    let of_service = || match &service.metrics_port {
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => named(name),
        None => None,
    };
    named(METRICS_PORT).or_else(of_service).filter(|port| *port > 0).unwrap_or(default)
}

/// Over plain HTTP there is no TLS; a token goes all the same, since Go pickers ask for one there.
fn access_of(pages: &PickerPages) -> Access {
    let access = pages.access.clone();
    match pages.scheme {
        Scheme::Https => Access { port: None, ..access },
        Scheme::Http => Access { ca_file: None, server_name: None, insecure_skip_verify: false, port: None, ..access },
    }
}
