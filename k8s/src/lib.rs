//! Kubernetes resources that weir reads, and the client it reads them with.
//!
//! What is read is no more than what is needed, so that ten thousand pods cost little. One object that is not as it should be is an
//! error of that object alone: it names the object, the field and the way out.
//!
//! 1. [`ClientOptions`]: from a kubeconfig or from inside a cluster to a client.
//! 2. [`InferencePool`]: both versions of the resource in one form; [`FieldProblem`]: what is wrong with an object.
//! 3. [`InferenceObjective`], [`InferenceModelRewrite`], [`InferenceModel`]: what users say about a pool's requests.
//! 4. [`Pod`], [`Service`]: the few fields of them that count here.
//! 5. [`Autoscaler`], [`ScaleTarget`]: what scales a pool's pods, between which bounds, and who wrote the number last.
//! 6. [`Leadership`], [`Leader`]: one of several replicas leads, and only it writes; [`EventRecorder`]: Events that say why.

mod autoscaler;
mod client;
mod event;
mod field;
mod lease;
mod meta;
mod model;
mod objective;
mod pod;
mod pool;
mod reference;
mod rewrite;
mod service;
mod target;

pub use autoscaler::Autoscaler;
pub use client::{ClientError, ClientOptions, USER_AGENT, told};
pub use event::{Event, EventMetrics, EventRecorder, EventType, Reporter};
pub use field::FieldProblem;
pub use lease::{Leader, Leadership, LeaseMetrics, LeaseSettings, LeaseSettingsError, NotLeading};
pub use model::{InferenceModel, ModelTarget};
pub use objective::InferenceObjective;
pub use pod::{ContainerPort, Pod, PodCondition};
pub use pool::{InferencePool, PickerReference, PoolVersion};
pub use reference::{PoolReference, RequestResource};
pub use rewrite::{InferenceModelRewrite, RewriteRule, RewriteTarget};
pub use service::{Service, ServicePort, TargetPort};
pub use target::{FieldManager, ScaleTarget, TargetReference};

/// Before the names of the annotations that weir reads off a pool, where no other is set.
pub const ANNOTATION_PREFIX: &str = "weir.internal/";

/// The field manager under which weir's scaler writes `/scale`: a zero that nobody else owns is one that it made.
pub const SCALER_MANAGER: &str = "weir-scaler";
