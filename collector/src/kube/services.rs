//! The Services of the scope: which pods are behind each, and where their metrics are.

use std::collections::HashMap;
use std::sync::Arc;

use weir_k8s::{Service, TargetPort};

use super::follow::Change;
use super::pods::Labels;

/// The name of the port of a picker's metrics page, upstream's.
pub(super) const METRICS_PORT: &str = "http-metrics";

/// A Service as a watch tells of it.
#[derive(Debug)]
pub(super) struct ServiceFacts {
    key: ServiceKey,
    entry: ServiceEntry,
}

/// Namespace and name of a Service.
pub(super) type ServiceKey = (Arc<str>, Arc<str>);

/// What is kept of one Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServiceEntry {
    pub(super) selector: Labels,
    pub(super) external_name: bool,
    /// What its port `http-metrics` is at the pods.
    pub(super) metrics_port: Option<TargetPort>,
}

impl ServiceFacts {
    pub(super) fn of(service: Service) -> Self {
        let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
        let metrics = service.ports().iter().find(|port| port.name == METRICS_PORT);
        let entry = ServiceEntry {
            selector: service.selector().clone(),
            external_name: service.is_external_name(),
            metrics_port: metrics.map(|port| port.target_port.clone().unwrap_or(TargetPort::Number(port.port))),
        };
        Self { key: (text(&service.metadata.namespace), text(&service.metadata.name)), entry }
    }
}

/// The Services of the scope.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: HashMap<ServiceKey, ServiceEntry>,
}

/// What a change of Services touches.
#[derive(Debug)]
pub(super) enum TouchedServices {
    One(ServiceKey),
    All,
}

impl Services {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.known.get(key)
    }

    /// Takes `change` in; none where nothing of it counts.
    pub(super) fn apply(&mut self, change: Change<ServiceFacts>) -> Option<TouchedServices> {
        match change {
            Change::All(all) => {
                self.known = all.into_iter().map(|facts| (facts.key, facts.entry)).collect();
                Some(TouchedServices::All)
            }
            Change::Applied(ServiceFacts { key, entry }) => {
                let same = self.known.get(&key) == Some(&entry);
                self.known.insert(key.clone(), entry);
                (!same).then_some(TouchedServices::One(key))
            }
            Change::Deleted(facts) => self.known.remove(&facts.key).map(|_| TouchedServices::One(facts.key)),
            Change::Absent | Change::Forbidden => Some(TouchedServices::All),
        }
    }
}
