//! What is done, or not, told to people: as an Event, a line of the log and a metric, each once per change.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{info, warn};
use weir_k8s::{Autoscaler, Event, EventRecorder, EventType, ScaleTarget, TargetReference};

use crate::zero::metrics::ScalerMetrics;
use crate::zero::policy::{Action, Decision, Reason};
use crate::zero::targets::TargetError;

/// The action of every Event.
const SCALE: &str = "Scale";

/// Tells of the targets of one namespace.
pub(crate) struct Telling {
    pub(crate) namespace: Arc<str>,
    pub(crate) recorder: EventRecorder,
    pub(crate) metrics: ScalerMetrics,
}

impl Telling {
    /// What a target stays at has changed.
    pub(crate) fn stays(&self, autoscaler: &Autoscaler, decision: &Decision, was_warned: bool) {
        let (reason, hpa, target) = (&decision.reason, self.name(autoscaler), &autoscaler.target);
        let code = reason.code();
        self.metrics.decided(&self.namespace, decision);
        match reason.event() {
            Some((EventType::Warning, name)) => {
                warn!(hpa, %target, code, reason = reason.label(), "{reason}");
                self.event(autoscaler, EventType::Warning, name, reason.to_string());
            }
            Some((EventType::Normal, name)) => {
                info!(hpa, %target, code, reason = reason.label(), "{reason}");
                self.event(autoscaler, EventType::Normal, name, reason.to_string());
            }
            None if was_warned => info!(hpa, %target, reason = reason.label(), "as it should be again: {reason}"),
            None => tracing::debug!(hpa, %target, reason = reason.label(), "{reason}"),
        }
    }

    /// The number of replicas was written; with `dry_run` it would have been.
    pub(crate) fn scaled(&self, autoscaler: &Autoscaler, from: u32, decision: &Decision, dry_run: bool) {
        let Some(to) = decision.action.replicas() else { return };
        let (reason, hpa, target) = (&decision.reason, self.name(autoscaler), &autoscaler.target);
        self.metrics.decided(&self.namespace, decision);
        self.metrics.wrote(&self.namespace, if dry_run { "dry_run" } else { "written" });
        let verb = if dry_run { "dry run: would scale" } else { "scaled" };
        info!(hpa, %target, from, to, reason = reason.label(), "{verb} from {from} to {to}: {reason}");
        let name = reason.event().map_or("Scaled", |(_, name)| name);
        let name = if dry_run { "DryRun" } else { name };
        self.event(autoscaler, EventType::Normal, name, format!("{verb} {target} from {from} to {to}: {reason}"));
    }

    /// A write that was wanted failed.
    pub(crate) fn failed(&self, autoscaler: &Autoscaler, decision: &Decision, error: &TargetError) {
        let hpa = self.name(autoscaler);
        let wanted = match decision.action {
            Action::Sleep => "was to go to zero",
            Action::Wake(_) | Action::Stay => "was to be woken",
        };
        let reason = &decision.reason;
        warn!(hpa, target = %autoscaler.target, error = %error, "the target {wanted} ({reason}), and could not be scaled");
        let note = format!("{} {wanted} ({reason}), and could not be scaled: {error}", autoscaler.target);
        self.event(autoscaler, EventType::Warning, "FailedScale", note);
    }

    /// The autoscaler of a zero of ours has gone.
    pub(crate) fn orphaned(&self, autoscaler: &Autoscaler, target: &ScaleTarget) {
        let reference = &autoscaler.target;
        let command = format!("kubectl scale -n {} {reference} --replicas=1", self.namespace);
        let hpa = self.name(autoscaler);
        warn!(hpa, target = %reference, fix = command, "the HPA of a target that weir took to zero has gone: nobody wakes it any more");
        let note = format!(
            "HorizontalPodAutoscaler {} has gone while the target was at weir's zero, and nobody wakes it any more: {command}, or create an \
             HPA with the annotation {} again",
            autoscaler.name,
            Autoscaler::IDLE_AFTER,
        );
        let regarding = of_target(&self.namespace, reference, &target.uid);
        self.tell(regarding, EventType::Warning, "OrphanedZero", note);
    }

    /// An HPA that cannot be read at all is passed over.
    pub(crate) fn unreadable(&self, name: &str, problem: &str) {
        warn!(hpa = format!("{}/{name}", self.namespace), error = problem, "this HPA cannot be read, and is passed over");
    }

    /// An annotation that is passed over while the rest counts.
    pub(crate) fn problem(&self, autoscaler: &Autoscaler, problem: &str) {
        warn!(hpa = self.name(autoscaler), error = problem, "not as it should be");
        self.event(autoscaler, EventType::Warning, "BrokenAnnotation", problem.to_owned());
    }

    fn name(&self, autoscaler: &Autoscaler) -> String {
        format!("{}/{}", self.namespace, autoscaler.name)
    }

    fn event(&self, autoscaler: &Autoscaler, type_: EventType, reason: &str, note: String) {
        let regarding = ObjectReference {
            api_version: Some("autoscaling/v2".into()),
            kind: Some("HorizontalPodAutoscaler".into()),
            namespace: Some(self.namespace.to_string()),
            name: Some(autoscaler.name.to_string()),
            uid: Some(autoscaler.uid.to_string()),
            ..ObjectReference::default()
        };
        self.tell(regarding, type_, reason, note);
    }

    fn tell(&self, regarding: ObjectReference, type_: EventType, reason: &str, note: String) {
        self.recorder.tell(Event { regarding, type_, reason: reason.to_owned(), action: SCALE.to_owned(), note });
    }
}

/// Whether people were warned of it.
pub(crate) fn is_warning(reason: &Reason) -> bool {
    matches!(reason.event(), Some((EventType::Warning, _)))
}

fn of_target(namespace: &str, reference: &TargetReference, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(reference.api_version()),
        kind: Some(reference.kind.to_string()),
        namespace: Some(namespace.to_owned()),
        name: Some(reference.name.to_string()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
