//! `inference_extension_scheduler_attempts_total`: its series go with the endpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::models::OTHER;

/// Models told apart on one endpoint: a server has one base model and a few adapters.
const MOST_MODELS: usize = 20;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct AttemptLabels {
    status: &'static str,
    target_model_name: Arc<str>,
    pod_name: Arc<str>,
    namespace: Arc<str>,
    port: Arc<str>,
}

impl AttemptLabels {
    /// No endpoint was found.
    pub(super) fn failure(target: &Arc<str>) -> Self {
        let none: Arc<str> = "".into();
        Self { status: "failure", target_model_name: target.clone(), pod_name: none.clone(), namespace: none.clone(), port: none }
    }
}

/// The requests that were sent to one endpoint, by model.
#[derive(Debug)]
pub struct EndpointAttempts {
    family: Family<AttemptLabels, Counter>,
    base: AttemptLabels,
    counters: Mutex<HashMap<Arc<str>, Counter>>,
}

impl EndpointAttempts {
    pub(super) fn new(family: Family<AttemptLabels, Counter>, pod_name: Arc<str>, namespace: Arc<str>, port: u16) -> Self {
        let port = port.to_string().into();
        let base = AttemptLabels { status: "success", target_model_name: "".into(), pod_name, namespace, port };
        Self { family, base, counters: Mutex::default() }
    }

    pub(super) fn succeeded(&self, target: &Arc<str>) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counters.len() >= MOST_MODELS;
        if let Some(counter) = counters.get(target) {
            counter.inc();
            return;
        }
        let target = if full { OTHER.into() } else { target.clone() };
        let labels = AttemptLabels { target_model_name: target.clone(), ..self.base.clone() };
        counters.entry(target).or_insert_with(|| self.family.get_or_create_owned(&labels)).inc();
    }
}

impl Drop for EndpointAttempts {
    fn drop(&mut self) {
        let counters = self.counters.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (target, _) in counters.drain() {
            self.family.remove(&AttemptLabels { target_model_name: target, ..self.base.clone() });
        }
    }
}
