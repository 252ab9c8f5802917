//! Why something is done, or is not: in words, as a label, as an Event.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use weir_datastore::{PoolId, codes};
use weir_k8s::{EventType, FieldProblem};

/// Why a target is scaled, or left as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// The HPA has no annotation: it is no business of ours.
    NotAnnotated,
    /// HPA or target was told to go.
    Deleting,
    /// The annotation cannot be read.
    BrokenAnnotation(FieldProblem),
    /// The HPA goes to zero by itself.
    MinReplicasZero,
    /// KEDA goes to zero by itself.
    Keda(Arc<str>),
    /// Another HPA scales the same target.
    SecondAutoscaler(Arc<str>),
    /// More annotated HPAs than one namespace may have.
    TooMany(usize),
    /// The target cannot be read, or is none.
    UnreadableTarget(String),
    /// No pool selects the target's pods.
    NoPool,
    /// Nobody can say whether the pool is idle.
    Unknown(PoolId, String),
    /// Something runs, waits or is held.
    Working(PoolId),
    /// Idle, but not for long enough.
    Resting(PoolId, Duration),
    /// Somebody else scaled the target to zero.
    ForeignZero(Vec<Arc<str>>),
    /// At our own zero, with nothing to do.
    Asleep,
    /// At our own zero; requests are held, and pods of another target are there or come.
    OthersServe(PoolId),
    /// Idle for long enough.
    Idle(PoolId, Duration),
    /// Requests are held.
    Held(PoolId, u64),
    /// At our own zero, from which nobody would bring the target back.
    HandedBack(&'static str),
}

impl Reason {
    /// The label value on the page.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotAnnotated => "not_annotated",
            Self::Deleting => "deleting",
            Self::BrokenAnnotation(_) => "broken_annotation",
            Self::MinReplicasZero => "min_replicas_zero",
            Self::Keda(_) => "keda",
            Self::SecondAutoscaler(_) => "second_autoscaler",
            Self::TooMany(_) => "too_many",
            Self::UnreadableTarget(_) => "unreadable_target",
            Self::NoPool => "no_pool",
            Self::Unknown(..) => "unknown",
            Self::Working(_) => "working",
            Self::Resting(..) => "resting",
            Self::ForeignZero(_) => "foreign_zero",
            Self::Asleep => "asleep",
            Self::OthersServe(_) => "others_serve",
            Self::Idle(..) => "idle",
            Self::Held(..) => "held",
            Self::HandedBack(_) => "handed_back",
        }
    }

    /// The labels of what an annotated target can be at.
    pub const STATES: [&'static str; 17] = [
        "deleting",
        "broken_annotation",
        "min_replicas_zero",
        "keda",
        "second_autoscaler",
        "too_many",
        "unreadable_target",
        "no_pool",
        "unknown",
        "working",
        "resting",
        "foreign_zero",
        "asleep",
        "others_serve",
        "idle",
        "held",
        "handed_back",
    ];

    /// What an operator has to mend, as docs/troubleshooting.md calls it.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Keda(_) | Self::SecondAutoscaler(_) => Some(codes::TWO_SCALERS),
            Self::NoPool => Some(codes::HPA_SELECTS_NO_POOL),
            Self::Unknown(..) => Some(codes::HPA_METRIC_FAILED),
            Self::ForeignZero(_) => Some(codes::HPA_OFF_AT_ZERO),
            _ => None,
        }
    }

    /// The Event that tells it: its type, and its reason in one word. None for what is as usual.
    pub fn event(&self) -> Option<(EventType, &'static str)> {
        let warning = |reason| Some((EventType::Warning, reason));
        let normal = |reason| Some((EventType::Normal, reason));
        match self {
            Self::BrokenAnnotation(_) => warning("BrokenAnnotation"),
            Self::MinReplicasZero => warning("MinReplicasZero"),
            Self::Keda(_) => warning("ScaledByKeda"),
            Self::SecondAutoscaler(_) => warning("SecondAutoscaler"),
            Self::TooMany(_) => warning("TooManyTargets"),
            Self::UnreadableTarget(_) => warning("UnreadableTarget"),
            Self::NoPool => warning("NoPool"),
            Self::Unknown(..) => warning("IdlenessUnknown"),
            Self::ForeignZero(_) => normal("ZeroLeftAlone"),
            Self::OthersServe(_) => normal("OthersServe"),
            Self::Idle(..) => normal("ScaledToZero"),
            Self::Held(..) => normal("Woken"),
            Self::HandedBack(_) => normal("HandedBack"),
            Self::NotAnnotated | Self::Deleting | Self::Working(_) | Self::Resting(..) | Self::Asleep => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |duration: &Duration| duration.as_secs();
        match self {
            Self::NotAnnotated => formatter.write_str("the HPA does not ask for zero"),
            Self::Deleting => formatter.write_str("the HPA or its target is being deleted"),
            Self::BrokenAnnotation(problem) => write!(formatter, "{problem}; it does not go to zero until that is corrected"),
            Self::MinReplicasZero => formatter.write_str(
                "minReplicas is 0, so the HPA goes to zero and back by itself: remove the annotation idle-after, or set minReplicas to 1",
            ),
            Self::Keda(object) => write!(
                formatter,
                "KEDA scales the target (ScaledObject {object}) and goes to zero by itself: remove the annotation idle-after, or the \
                 ScaledObject"
            ),
            Self::SecondAutoscaler(other) => write!(
                formatter,
                "HPA {other} scales the same target, and two autoscalers work against each other: remove one of the two"
            ),
            Self::TooMany(most) => write!(
                formatter,
                "more than {most} annotated HPAs in the namespace; the first {most} by name count: remove annotations, or move pools to \
                 another namespace"
            ),
            Self::UnreadableTarget(problem) => formatter.write_str(problem),
            Self::NoPool => formatter.write_str(
                "no InferencePool of the namespace selects the labels of the target's pod template, so nobody can say whether it is idle: \
                 correct the pool's selector, or remove the annotation idle-after",
            ),
            Self::Unknown(pool, cause) => write!(formatter, "whether pool {pool} is idle is not known, so it does not go to zero: {cause}"),
            Self::Working(pool) => write!(formatter, "pool {pool} has requests"),
            Self::Resting(pool, left) => write!(formatter, "pool {pool} is idle, not yet for long enough: {} s more", seconds(left)),
            Self::ForeignZero(by) if by.is_empty() => {
                formatter.write_str("scaled to zero, and not by weir: it is left at zero until somebody scales it")
            }
            Self::ForeignZero(by) => {
                write!(formatter, "at the zero of {}, not at weir's: it is left there until somebody scales it", by.join(" and "))
            }
            Self::Asleep => formatter.write_str("at zero until a request is held"),
            Self::OthersServe(pool) => write!(
                formatter,
                "requests are held for pool {pool}, and pods of another target of it are there or come: this one stays at zero"
            ),
            Self::Idle(pool, idle) => write!(formatter, "pool {pool} was idle for {} s", seconds(idle)),
            Self::Held(pool, held) => write!(formatter, "{held} requests are held for pool {pool}"),
            Self::HandedBack(why) => write!(formatter, "at weir's zero, and {why}: nobody else would bring it back"),
        }
    }
}
