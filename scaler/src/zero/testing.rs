//! An autoscaler and its target, for tests of what is done about them.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_k8s::{Autoscaler, FieldManager, ScaleTarget, TargetReference};

/// The autoscaler's `idle-after`.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(600);

/// One that asks for zero.
pub(super) fn autoscaler() -> Autoscaler {
    let target = TargetReference { group: "apps".into(), version: "v1".into(), kind: "Deployment".into(), name: "d".into() };
    Autoscaler {
        namespace: "n".into(),
        name: "a".into(),
        uid: "u".into(),
        deleting: false,
        target,
        min_replicas: 1,
        max_replicas: 4,
        keda: None,
        idle_after: Some(Ok(IDLE_AFTER)),
        wake_replicas: None,
        problems: Vec::new(),
    }
}

/// A target with so many replicas, written last by `managers`.
pub(super) fn target(replicas: u32, managers: Vec<FieldManager>) -> ScaleTarget {
    ScaleTarget {
        namespace: "n".into(),
        name: "d".into(),
        uid: "t".into(),
        resource_version: "1".into(),
        deleting: false,
        replicas,
        paused: false,
        template_labels: BTreeMap::new(),
        replicas_managers: managers,
    }
}
