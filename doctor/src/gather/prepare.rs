//! What the API leaves out and thereby says, and what must not be taken in.

use serde_json::{Map, Value};

use crate::facts::gateway::{DestinationRule, Gateway, Grant, Route};
use crate::facts::monitoring::{PodMonitor, PodMonitoring, Prometheus, ServiceMonitor};
use crate::facts::pool::{Model, Objective, Pool, Rewrite};
use crate::facts::scaling::{ApiService, Autoscaler, ScaledObject};
use crate::facts::scrub;
use crate::facts::workload::{Crd, DisruptionBudget, Event, Job, Node, Pod, Service, Workload};

/// How deep an object is gone through.
const DEEPEST: usize = 32;

/// Fills in of any object what the API tells by leaving it out, and takes out what looks like a credential.
pub(super) fn prepare(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
        metadata.entry("ownerReferences").or_insert_with(|| Value::Array(Vec::new()));
    }
    clean(object, 0);
}

fn clean(value: &mut Value, depth: usize) {
    if depth > DEEPEST {
        *value = Value::Null;
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(message) if key == "message" => *message = scrub::text(message),
                    Value::Object(annotations) if key == "annotations" => {
                        annotations.retain(|key, _| crate::facts::meta::KEPT_ANNOTATIONS.iter().any(|kept| key.starts_with(kept)));
                    }
                    other => clean(other, depth + 1),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, depth + 1)),
        _ => {}
    }
}

/// A kind of object: what of it the API tells by leaving it out.
pub(super) trait Fact {
    /// Fills that in.
    fn settle(&mut self) {}
}

impl Fact for Gateway {}
impl Fact for Grant {}
impl Fact for DestinationRule {}
impl Fact for Pool {}
impl Fact for Objective {}
impl Fact for Rewrite {}
impl Fact for Model {}
impl Fact for Service {}
impl Fact for Workload {}
impl Fact for Job {}
impl Fact for Node {}
impl Fact for DisruptionBudget {}
impl Fact for Event {}
impl Fact for Crd {}
impl Fact for Autoscaler {}
impl Fact for ScaledObject {}
impl Fact for ApiService {}
impl Fact for PodMonitor {}
impl Fact for PodMonitoring {}
impl Fact for Prometheus {}

impl Fact for Route {
    fn settle(&mut self) {
        // Nobody has looked at it.
        self.status.get_or_insert_default().parents.get_or_insert_default();
    }
}

impl Fact for ServiceMonitor {
    fn settle(&mut self) {
        for endpoint in self.spec.iter_mut().flat_map(|spec| spec.endpoints.iter_mut().flatten()) {
            endpoint.honor_labels.get_or_insert(false);
        }
    }
}

impl Fact for Pod {
    fn settle(&mut self) {
        for container in self.spec.iter_mut().flat_map(|spec| spec.containers.iter_mut().flatten()) {
            container.args.get_or_insert_default();
            container.resources.get_or_insert_default().requests.get_or_insert_default();
        }
        scrub::pod(self);
    }
}
