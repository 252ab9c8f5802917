//! InferenceModel: how much a model's requests matter and what is served in its place, up to v0.5.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;

use crate::field::{FieldProblem, shown};
use crate::pool::PoolVersion;
use crate::reference::{Identity, PoolReference, Reader};

/// Targets of one model.
const MOST_TARGETS: usize = 10;

/// An InferenceModel (`inference.networking.x-k8s.io/v1alpha2`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InferenceModel {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, in seconds of Unix time.
    pub created: i64,
    /// The pool that it is for.
    pub pool: PoolReference,
    /// The model that requests name.
    pub model_name: Arc<str>,
    /// `Critical`, `Standard` or `Sheddable`; none where it says nothing.
    pub criticality: Option<Arc<str>>,
    /// What is served in its place; none: itself.
    pub targets: Vec<ModelTarget>,
}

/// A model that is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModelTarget {
    /// Its name.
    pub name: Arc<str>,
    /// Its share of the sum of weights, 1 to 1,000,000.
    pub weight: Option<u32>,
}

impl InferenceModel {
    /// Reads `object`.
    ///
    /// # Errors
    /// Everything without which it cannot be heeded: the pool, the model's name, a criticality or targets that are none.
    pub fn read(object: &DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        let mut reader = Reader::new(object);
        let spec = reader.spec;
        let pool = reader.pool(PoolVersion::V1Alpha2);
        let model_name = reader.text("spec.modelName", &spec["modelName"], "the model that requests name");
        let criticality = match &spec["criticality"] {
            Value::Null => None,
            Value::String(text) if ["Critical", "Standard", "Sheddable"].contains(&text.as_str()) => Some(Arc::from(text.as_str())),
            other => {
                reader.refuse("spec.criticality", format!("{} is not known: write Critical, Standard or Sheddable", shown(other)))
            }
        };
        let targets = targets(&mut reader, &spec["targetModels"]);
        let (Some(pool), Some(model_name), true) = (pool, model_name, reader.problems.is_empty()) else {
            return Err(reader.problems);
        };
        let Identity { namespace, name, created } = Identity::of(object);
        Ok(Self { namespace, name, created, pool, model_name, criticality, targets })
    }
}

fn targets(reader: &mut Reader<'_>, value: &Value) -> Vec<ModelTarget> {
    const FIELD: &str = "spec.targetModels";
    let list = match value {
        Value::Null => return Vec::new(),
        Value::Array(list) => list,
        other => return reader.refuse(FIELD, format!("{} is no list of models", shown(other))).unwrap_or_default(),
    };
    if list.len() > MOST_TARGETS {
        return reader.refuse(FIELD, format!("{} models: at most {MOST_TARGETS}", list.len())).unwrap_or_default();
    }
    let mut targets = Vec::with_capacity(list.len());
    for (position, entry) in list.iter().enumerate() {
        let name = reader.text(&format!("{FIELD}[{position}].name"), &entry["name"], "a model that the servers have");
        let weight = reader.weight(&format!("{FIELD}[{position}].weight"), &entry["weight"]);
        if let (Some(name), Ok(weight)) = (name, weight) {
            targets.push(ModelTarget { name, weight });
        }
    }
    if targets.iter().any(|target| target.weight.is_some()) && targets.iter().any(|target| target.weight.is_none()) {
        return reader.refuse(FIELD, "some have a weight and some have none: give all of them one, or none").unwrap_or_default();
    }
    targets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<InferenceModel, Vec<String>> {
        let metadata = json!({ "name": "m", "namespace": "n", "creationTimestamp": "1970-01-01T00:01:00Z" });
        let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        InferenceModel::read(&object).map_err(|problems| problems.iter().map(FieldProblem::to_string).collect())
    }

    #[test]
    fn a_model_is_read_with_its_targets() {
        let targets = json!([{ "name": "a", "weight": 1 }, { "name": "b", "weight": 3 }]);
        let spec = json!({ "modelName": "food", "criticality": "Sheddable", "poolRef": { "name": "p" }, "targetModels": targets });
        let model = read(spec).unwrap();
        assert_eq!((&*model.model_name, model.criticality.as_deref(), model.created), ("food", Some("Sheddable"), 60));
        assert_eq!(model.targets[1], ModelTarget { name: "b".into(), weight: Some(3) });
        assert_eq!(&*model.pool.group, "inference.networking.x-k8s.io");
        let least = read(json!({ "modelName": "x", "poolRef": { "name": "p" } })).unwrap();
        assert_eq!((least.criticality, least.targets.len()), (None, 0));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let with = |field: &str, value: Value| {
            let mut spec = json!({ "modelName": "x", "poolRef": { "name": "p" } });
            spec[field] = value;
            read(spec).unwrap_err()
        };
        for (field, value, expected) in [
            ("modelName", Value::Null, "spec.modelName: nothing is no text"),
            ("criticality", json!("Important"), "spec.criticality: `Important` is not known"),
            ("targetModels", json!("x"), "spec.targetModels: `x` is no list"),
            ("targetModels", json!([{ "name": "" }]), "spec.targetModels[0].name: `` is no text"),
            ("targetModels", json!([{ "name": "a", "weight": 0 }]), "spec.targetModels[0].weight: `0` is no weight"),
            ("targetModels", json!([{ "name": "a", "weight": 1 }, { "name": "b" }]), "give all of them one, or none"),
            ("targetModels", json!(vec![json!({ "name": "a" }); 11]), "11 models: at most 10"),
        ] {
            let problems = with(field, value);
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{field}: {problems:?}");
        }
    }
}
