//! Whether something scales a pool from zero: what its autoscalers say, and what they scale.
//!
//! Sources: `autoscaling/v2`. From 1.36 an HPA with `minReplicas: 0` reads metrics at zero only where the condition `ScaledToZero` says
//! that it went there itself; else its condition `ScalingActive` is `False` with the reason `ScalingDisabled`.

use std::sync::Arc;
use std::time::Duration;

use kube::core::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;
use weir_k8s::{Autoscaler, FieldProblem, SCALER_MANAGER, ScaleTarget};

/// For so long an autoscaler may not know what to do: its metrics come and go with those who serve them.
const TROUBLE: Duration = Duration::from_secs(60);
/// Characters of an object's own words that are told on.
const SHOWN: usize = 200;

/// Whether something will bring a pool without endpoints its first one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Promise {
    /// Nothing that is known.
    #[default]
    Nothing,
    /// Something: what it is, for people.
    Endpoint(Arc<str>),
    /// Pods are wanted: those that are there say more.
    Pods(Arc<str>),
    /// Nothing, though there is something that might: what keeps it, and the way out, for people.
    Hindered(Arc<str>),
}

/// An autoscaler as a watch tells of it.
#[derive(Clone, Debug)]
pub(super) struct AutoscalerFacts {
    pub(super) name: Arc<str>,
    /// What is wrong with it, where it cannot be read.
    pub(super) read: Result<Autoscaler, Vec<FieldProblem>>,
    /// Why it does not scale, by its condition `ScalingActive`: reason and message.
    pub(super) inactive: Option<(Arc<str>, Arc<str>)>,
}

impl AutoscalerFacts {
    /// `object`, whose annotations begin with `prefix`.
    pub(super) fn of(prefix: &str, object: DynamicObject) -> Self {
        let name = object.metadata.name.as_deref().unwrap_or_default().into();
        let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
        let active = conditions.into_iter().flatten().find(|condition| condition["type"] == "ScalingActive");
        let text = |value: &Value| Arc::from(value.as_str().unwrap_or_default().chars().take(SHOWN).collect::<String>());
        let inactive =
            active.filter(|active| active["status"] == "False").map(|active| (text(&active["reason"]), text(&active["message"])));
        Self { name, read: Autoscaler::read(prefix, object), inactive }
    }

    /// The autoscaler, where its target may come back from zero.
    pub(super) fn waker(&self) -> Option<&Autoscaler> {
        self.read.as_ref().ok().filter(|autoscaler| autoscaler.leaves_zero())
    }
}

/// What `autoscaler` promises a pool whose selector chooses the pods of `target`. `inactive`: why it does not scale, and since when.
pub(super) fn promise(
    autoscaler: &Autoscaler,
    target: &ScaleTarget,
    inactive: Option<(&str, &str, Instant)>,
    now: Instant,
) -> Promise {
    let who = format!("HorizontalPodAutoscaler {}", autoscaler.name);
    let what = &autoscaler.target;
    if target.deleting {
        return Promise::Hindered(format!("{what} is being deleted").into());
    }
    if target.replicas > 0 {
        return Promise::Pods(format!("{what} wants {} replicas", target.replicas).into());
    }
    let by_hand = || {
        let way = "a zero that it did not make stays: scale it to 1 replica";
        Promise::Hindered(format!("{what} has 0 replicas, which {who} did not make it: {way}").into())
    };
    if autoscaler.keda.is_some() {
        return kedas();
    }
    if autoscaler.min_replicas == 0 {
        return match inactive {
            Some(("ScalingDisabled", _, _)) => by_hand(),
            Some((reason, message, since)) if now.saturating_duration_since(since) >= TROUBLE => {
                Promise::Hindered(format!("{who} cannot scale {what} from 0: {reason}: {message}").into())
            }
            _ => Promise::Endpoint(format!("{who} scales {what} from 0 (minReplicas 0)").into()),
        };
    }
    match &autoscaler.idle_after {
        // Whatever has become of the annotation's value since, the scaler wakes its own zero.
        Some(_) if target.is_scaled_only_by(SCALER_MANAGER) => {
            Promise::Endpoint(format!("weir's scaler wakes {what}, which it made idle for {who}").into())
        }
        Some(Ok(_)) => by_hand(),
        Some(Err(problem)) => Promise::Hindered(format!("{who}: {problem}").into()),
        None => Promise::Nothing,
    }
}

/// What an autoscaler of KEDA's promises: its ScaledObject is what would say so, and is not read. The pool's annotation `hold` does.
fn kedas() -> Promise {
    Promise::Nothing
}

/// What several promise together: one that brings an endpoint is enough.
pub(super) fn together(promises: impl IntoIterator<Item = Promise>) -> Promise {
    let rank = |promise: &Promise| match promise {
        Promise::Endpoint(_) => 0,
        Promise::Pods(_) => 1,
        Promise::Hindered(_) => 2,
        Promise::Nothing => 3,
    };
    promises.into_iter().min_by_key(rank).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(change: impl FnOnce(&mut Value)) -> AutoscalerFacts {
        let mut object = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 0, "maxReplicas": 4},
        });
        change(&mut object);
        AutoscalerFacts::of("weir.internal/", serde_json::from_value(object).unwrap())
    }

    fn target(replicas: u32, manager: &str) -> ScaleTarget {
        let managed = json!([{"manager": manager, "operation": "Apply", "subresource": "scale", "fieldsType": "FieldsV1",
                              "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "managedFields": managed},
                            "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "x"}}}}});
        ScaleTarget::read(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn promised(facts: &AutoscalerFacts, target: &ScaleTarget, inactive_for: u64) -> String {
        let now = Instant::now() + Duration::from_secs(10_000);
        let inactive =
            facts.inactive.as_ref().map(|(reason, message)| (&**reason, &**message, now - Duration::from_secs(inactive_for)));
        match promise(facts.waker().unwrap(), target, inactive, now) {
            Promise::Nothing => "nothing".into(),
            Promise::Endpoint(words) => format!("yes: {words}"),
            Promise::Pods(words) => format!("pods: {words}"),
            Promise::Hindered(words) => format!("no: {words}"),
        }
    }

    fn inactive(reason: &str) -> impl FnOnce(&mut Value) {
        let conditions = json!([{"type": "ScalingActive", "status": "False", "reason": reason, "message": "why"}]);
        move |object| object["status"] = json!({ "conditions": conditions })
    }

    #[test]
    fn an_autoscaler_with_min_replicas_0_scales_from_the_zero_it_made() {
        let hpa = "kube-controller-manager";
        assert!(
            promised(&facts(|_| ()), &target(0, hpa), 0)
                .starts_with("yes: HorizontalPodAutoscaler a scales Deployment.apps/d from 0")
        );
        assert_eq!(promised(&facts(|_| ()), &target(2, hpa), 0), "pods: Deployment.apps/d wants 2 replicas");
        let by_hand = promised(&facts(inactive("ScalingDisabled")), &target(0, "kubectl"), 0);
        assert!(by_hand.starts_with("no: Deployment.apps/d has 0 replicas") && by_hand.contains("scale it to 1"), "{by_hand}");
        let blind = facts(inactive("FailedGetExternalMetric"));
        assert!(promised(&blind, &target(0, hpa), 59).starts_with("yes: "));
        let words = "no: HorizontalPodAutoscaler a cannot scale Deployment.apps/d from 0: FailedGetExternalMetric: why";
        assert_eq!(promised(&blind, &target(0, hpa), 60), words);
        let going = ScaleTarget { deleting: true, ..target(0, hpa) };
        assert_eq!(promised(&facts(|_| ()), &going, 0), "no: Deployment.apps/d is being deleted");
    }

    #[test]
    fn weirs_scaler_wakes_its_own_zero_alone() {
        let annotated = |idle_after: &'static str| {
            facts(move |object| {
                object["spec"]["minReplicas"] = json!(1);
                object["metadata"]["annotations"] = json!({"weir.internal/idle-after": idle_after});
            })
        };
        assert!(
            promised(&annotated("10m"), &target(0, SCALER_MANAGER), 0).starts_with("yes: weir's scaler wakes Deployment.apps/d")
        );
        assert!(promised(&annotated("10m"), &target(0, "kubectl"), 0).starts_with("no: Deployment.apps/d has 0 replicas"));
        assert!(promised(&annotated("soon"), &target(0, SCALER_MANAGER), 0).starts_with("yes: "));
        assert!(promised(&annotated("soon"), &target(0, "kubectl"), 0).contains("`soon` is no duration"));
    }

    #[test]
    fn one_that_wakes_nothing_is_passed_over_and_kedas_says_nothing() {
        assert!(facts(|object| object["spec"]["minReplicas"] = json!(1)).waker().is_none());
        assert!(facts(|object| object["spec"] = json!(7)).waker().is_none());
        let keda = facts(|object| object["metadata"]["labels"] = json!({"scaledobject.keda.sh/name": "so"}));
        assert_eq!(promised(&keda, &target(0, "keda-operator"), 0), "nothing");
        let long = facts(|object| {
            object["status"]["conditions"] = json!([{"type": "ScalingActive", "status": "False", "message": "x".repeat(5000)}])
        });
        assert_eq!(long.inactive.unwrap().1.len(), SHOWN);
    }

    #[test]
    fn one_promise_is_enough() {
        let (yes, no) = (Promise::Endpoint("yes".into()), Promise::Hindered("no".into()));
        assert_eq!(together([Promise::Nothing, no.clone(), yes.clone()]), yes);
        assert_eq!(together([Promise::Nothing, no.clone()]), no);
        assert_eq!(together([]), Promise::Nothing);
    }
}
