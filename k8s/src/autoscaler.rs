//! HorizontalPodAutoscaler, as far as it is read: what it scales, between which bounds, and what its annotations ask of weir.
//!
//! Sources: `autoscaling/v2`; KEDA labels the HPAs that it makes with `scaledobject.keda.sh/name` and owns them by a ScaledObject.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::field::{FieldProblem, bounded, shown};
use crate::target::TargetReference;

/// The label of an HPA that KEDA made: the ScaledObject's name.
const KEDA_LABEL: &str = "scaledobject.keda.sh/name";
/// The kind that owns an HPA that KEDA made.
const KEDA_OWNER: &str = "ScaledObject";

/// An autoscaler.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Autoscaler {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Tells it from its namesake before it.
    pub uid: Arc<str>,
    /// Whether it was told to go.
    pub deleting: bool,
    /// `spec.scaleTargetRef`: an object of its namespace.
    pub target: TargetReference,
    /// `spec.minReplicas`; 1 where it says nothing.
    pub min_replicas: u32,
    /// `spec.maxReplicas`.
    pub max_replicas: u32,
    /// The ScaledObject behind it, where KEDA made it; empty where only the owner's kind says so.
    pub keda: Option<Arc<str>>,
    /// Annotation `<prefix>idle-after`: after how long without a request its target goes to zero; none where there is no such
    /// annotation, the problem where it cannot be read.
    pub idle_after: Option<Result<Duration, FieldProblem>>,
    /// Annotation `<prefix>wake-replicas`: how many replicas a held request brings; none where it says nothing that can be read.
    pub wake_replicas: Option<u32>,
    /// What of it is not good, and was passed over.
    pub problems: Vec<FieldProblem>,
}

impl Autoscaler {
    /// The annotation, after the prefix, that asks for zero replicas when nothing is to do.
    pub const IDLE_AFTER: &str = "idle-after";
    /// The annotation, after the prefix, that says how many replicas a held request brings.
    pub const WAKE_REPLICAS: &str = "wake-replicas";
    /// The shortest `idle-after`: below it no pool is proven idle.
    pub const IDLE_AFTER_AT_LEAST: Duration = Duration::from_secs(10);
    /// The longest `idle-after`.
    pub const IDLE_AFTER_AT_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// What a client of dynamic objects asks for.
    pub fn resource() -> ApiResource {
        let kind = GroupVersionKind::gvk("autoscaling", "v2", "HorizontalPodAutoscaler");
        ApiResource::from_gvk_with_plural(&kind, "horizontalpodautoscalers")
    }

    /// Reads `object`, whose annotations begin with `prefix`.
    ///
    /// # Errors
    /// Everything without which it scales nothing: the target, the bounds.
    pub fn read(prefix: &str, object: DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let spec = &object.data["spec"];
        let target =
            TargetReference::read("spec.scaleTargetRef", &spec["scaleTargetRef"]).map_err(|problem| problems.push(problem));
        let mut count = |field: &str, value: &Value| match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) => Ok(count),
            None => {
                let message = format!("{} is no number of replicas: write a whole number", shown(value));
                problems.push(FieldProblem::new(field, message));
                Err(())
            }
        };
        let max_replicas = count("spec.maxReplicas", &spec["maxReplicas"]);
        let min_replicas = match &spec["minReplicas"] {
            Value::Null => Ok(1),
            value => count("spec.minReplicas", value),
        };
        let (Ok(target), Ok(min_replicas), Ok(max_replicas)) = (target, min_replicas, max_replicas) else { return Err(problems) };
        let metadata = object.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        let idle_after = annotation(&annotations, prefix, Self::IDLE_AFTER, idle_after);
        let wake_replicas = annotation(&annotations, prefix, Self::WAKE_REPLICAS, wake_replicas);
        problems.extend(idle_after.iter().filter_map(|idle_after| idle_after.as_ref().err()).cloned());
        let wake_replicas = wake_replicas.and_then(|wake_replicas| wake_replicas.map_err(|problem| problems.push(problem)).ok());
        let label = metadata.labels.and_then(|mut labels| labels.remove(KEDA_LABEL));
        let owner = metadata.owner_references.into_iter().flatten().find(|owner| owner.kind == KEDA_OWNER).map(|owner| owner.name);
        let text = |text: Option<String>| Arc::from(text.unwrap_or_default());
        Ok(Self {
            namespace: text(metadata.namespace),
            name: text(metadata.name),
            uid: text(metadata.uid),
            deleting: metadata.deletion_timestamp.is_some(),
            target,
            min_replicas,
            max_replicas,
            keda: label.or(owner).map(Arc::from),
            idle_after,
            wake_replicas,
            problems,
        })
    }

    /// Whether somebody brings its target back from zero: KEDA, the HPA itself (`minReplicas: 0`), or weir's scaler on behalf of the
    /// annotation.
    pub fn leaves_zero(&self) -> bool {
        !self.deleting && self.max_replicas > 0 && (self.keda.is_some() || self.min_replicas == 0 || self.idle_after.is_some())
    }
}

/// The annotation `name`, read by `read`; a problem names it.
fn annotation<T>(
    annotations: &BTreeMap<String, String>,
    prefix: &str,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Result<T, FieldProblem>> {
    let key = format!("{prefix}{name}");
    let value = annotations.get(&key)?;
    Some(read(value).map_err(|message| FieldProblem::new(format!("metadata.annotations[{key}]"), message)))
}

fn idle_after(text: &str) -> Result<Duration, String> {
    let shown = bounded(text).escape_debug().to_string();
    let duration =
        humantime::parse_duration(text.trim()).map_err(|_| format!("`{shown}` is no duration: write 10m, 90s or 1h 30m"))?;
    if (Autoscaler::IDLE_AFTER_AT_LEAST..=Autoscaler::IDLE_AFTER_AT_MOST).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("`{shown}` is out of bounds: write 10s to 30d"))
    }
}

fn wake_replicas(text: &str) -> Result<u32, String> {
    let shown = || bounded(text).escape_debug().to_string();
    let count = text.trim().parse::<u32>().ok().filter(|count| *count > 0);
    count.ok_or_else(|| format!("`{}` is no number of replicas: write 1 or more, in quotes; minReplicas counts till then", shown()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Autoscaler, Vec<String>> {
        let mut object = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 4},
        });
        change(&mut object);
        let problems = |problems: Vec<FieldProblem>| problems.iter().map(FieldProblem::to_string).collect();
        Autoscaler::read("weir.internal/", serde_json::from_value(object).unwrap()).map_err(problems)
    }

    fn annotated(idle_after: &str, wake_replicas: &str) -> Autoscaler {
        let annotations = json!({"weir.internal/idle-after": idle_after, "weir.internal/wake-replicas": wake_replicas});
        read(|object| object["metadata"]["annotations"] = annotations).unwrap()
    }

    #[test]
    fn what_it_does_not_say_has_kubernetes_defaults() {
        let plain = read(|_| ()).unwrap();
        assert_eq!((plain.min_replicas, plain.max_replicas, &*plain.target.name), (1, 4, "d"));
        assert!(plain.idle_after.is_none() && plain.wake_replicas.is_none() && plain.keda.is_none() && !plain.leaves_zero());
        assert!(read(|object| object["spec"]["minReplicas"] = json!(0)).unwrap().leaves_zero());
        let going = read(|object| {
            object["spec"]["minReplicas"] = json!(0);
            object["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
        });
        assert!(!going.unwrap().leaves_zero());
    }

    #[test]
    fn annotations_are_read_and_a_broken_one_is_named() {
        let good = annotated("1h 30m", " 2 ");
        assert_eq!((good.idle_after.clone(), good.wake_replicas), (Some(Ok(Duration::from_secs(5400))), Some(2)));
        assert!(good.problems.is_empty() && good.leaves_zero());
        let long = "9".repeat(200_000);
        for (idle_after, wake_replicas, expected) in [
            ("soon", "1", "metadata.annotations[weir.internal/idle-after]: `soon` is no duration"),
            ("9s", "1", "`9s` is out of bounds: write 10s to 30d"),
            ("31d", "1", "`31d` is out of bounds"),
            ("", "1", "`` is no duration"),
            ("-5m", "1", "is no duration"),
            (&long, "1", "is no duration"),
            ("5m", "0", "metadata.annotations[weir.internal/wake-replicas]: `0` is no number of replicas"),
            ("5m", "two\n", "`two\\n` is no number"),
            ("5m", "4294967296", "is no number"),
        ] {
            let read = annotated(idle_after, wake_replicas);
            let problems: Vec<String> = read.problems.iter().map(FieldProblem::to_string).collect();
            assert!(problems.len() == 1 && problems[0].contains(expected) && problems[0].len() < 300, "{problems:?}");
        }
    }

    #[test]
    fn kedas_own_is_known_by_label_and_by_owner() {
        let labelled = read(|object| object["metadata"]["labels"] = json!({"scaledobject.keda.sh/name": "so"})).unwrap();
        assert_eq!(labelled.keda.as_deref(), Some("so"));
        let owner = json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "owner", "uid": "x"}]);
        let owned = read(|object| object["metadata"]["ownerReferences"] = owner).unwrap();
        assert_eq!(owned.keda.as_deref(), Some("owner"));
        assert!(owned.leaves_zero());
    }

    #[test]
    fn without_target_or_bounds_there_is_none() {
        for (change, expected) in [
            (json!({"maxReplicas": 1}), "spec.scaleTargetRef: names nothing"),
            (json!({"scaleTargetRef": {"kind": "Deployment"}, "maxReplicas": 1}), "spec.scaleTargetRef.name: no name"),
            (json!({"scaleTargetRef": {"kind": "D", "name": "d"}}), "spec.maxReplicas: nothing is no number"),
            (json!({"scaleTargetRef": {"kind": "D", "name": "d"}, "maxReplicas": 1, "minReplicas": -1}), "spec.minReplicas: `-1`"),
        ] {
            let problems = read(|object| object["spec"] = change).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{problems:?}");
        }
    }
}
