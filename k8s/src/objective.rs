//! InferenceObjective: the priority of requests that name it.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;

use crate::field::{FieldProblem, shown};
use crate::pool::PoolVersion;
use crate::reference::{Identity, PoolReference, Reader};

/// An InferenceObjective (`v1alpha2`), of either group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InferenceObjective {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name, as requests name it in `x-gateway-inference-objective`.
    pub name: Arc<str>,
    /// The pool that it is for.
    pub pool: PoolReference,
    /// `spec.priority`; 0 where it says nothing, below 0 requests may be shed.
    pub priority: i32,
}

impl InferenceObjective {
    /// Reads `object`.
    ///
    /// # Errors
    /// Everything without which it says nothing: the pool, a priority that is none.
    pub fn read(object: &DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        let mut reader = Reader::new(object);
        let pool = reader.pool(PoolVersion::V1);
        let priority = match &reader.spec["priority"] {
            Value::Null => Some(0),
            value => match value.as_i64().and_then(|priority| i32::try_from(priority).ok()) {
                Some(priority) => Some(priority),
                None => reader.refuse("spec.priority", format!("{} is no priority: write a whole number", shown(value))),
            },
        };
        let (Some(pool), Some(priority)) = (pool, priority) else { return Err(reader.problems) };
        let Identity { namespace, name, .. } = Identity::of(object);
        Ok(Self { namespace, name, pool, priority })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<InferenceObjective, Vec<String>> {
        let object = json!({ "metadata": { "name": "o", "namespace": "n" }, "spec": spec });
        let object = serde_json::from_value(object).unwrap();
        InferenceObjective::read(&object).map_err(|problems| problems.iter().map(FieldProblem::to_string).collect())
    }

    #[test]
    fn defaults_are_those_of_the_crd() {
        let objective = read(json!({ "poolRef": { "name": "p" } })).unwrap();
        assert_eq!((objective.priority, &*objective.pool.group, &*objective.pool.name), (0, "inference.networking.k8s.io", "p"));
        let full = json!({ "priority": -5, "poolRef": { "group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "q" } });
        let objective = read(full).unwrap();
        assert_eq!((objective.priority, &*objective.pool.group), (-5, "inference.networking.x-k8s.io"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let reference = json!({ "name": "p" });
        for (spec, expected) in [
            (Value::Null, "spec.poolRef.name: no name"),
            (json!({ "poolRef": { "name": 7 } }), "spec.poolRef.name: no name"),
            (json!({ "poolRef": { "name": "p", "kind": "Thing" } }), "spec.poolRef.kind: `Thing` is not known"),
            (json!({ "poolRef": { "name": "p", "group": [] } }), "spec.poolRef.group: a list is no API group"),
            (json!({ "poolRef": reference, "priority": "high" }), "spec.priority: `high` is no priority"),
            (json!({ "poolRef": reference, "priority": 1_i64 << 40 }), "spec.priority: `1099511627776` is no priority"),
        ] {
            let problems = read(spec.clone()).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{spec}: {problems:?}");
        }
    }
}
