//! Scale targets over the API server: read whole, written through `/scale` alone.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, Error};
use thiserror::Error;
use tokio::time::timeout;
use weir_k8s::{Autoscaler, SCALER_MANAGER, ScaleTarget, TargetReference};

/// The time in which the API server must have answered.
const ANSWER: Duration = Duration::from_secs(5);
/// Kinds beyond the known ones that are remembered.
const MOST_KINDS: usize = 64;
/// Characters of an error that are repeated.
const SHOWN: usize = 300;

/// What is known to have `/scale`, without a question: group, version, kind, plural.
const KNOWN: [(&str, &str, &str, &str); 4] = [
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets"),
];

/// Why an object could not be read or written.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum TargetError {
    /// It is not there.
    #[error("{0} does not exist: create it, or correct scaleTargetRef")]
    Absent(String),
    /// It has changed since it was read.
    #[error("{0} has changed meanwhile")]
    Conflict(String),
    /// A rule of RBAC is missing.
    #[error("{what} may not be {done}: add to the Role in namespace {namespace}: {rule}")]
    Forbidden {
        /// Which object.
        what: String,
        /// What was tried.
        done: &'static str,
        /// Where.
        namespace: String,
        /// The rule to add.
        rule: String,
    },
    /// It is not what can be scaled.
    #[error("{what}: {problem}")]
    Unfit {
        /// Which object.
        what: String,
        /// Why.
        problem: String,
    },
    /// No answer, or none that can be understood.
    #[error("the API server did not answer: {0}")]
    Unreachable(String),
}

impl TargetError {
    /// The label value on the page.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Absent(_) => "absent",
            Self::Conflict(_) => "conflict",
            Self::Forbidden { .. } => "forbidden",
            Self::Unfit { .. } => "unfit",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// The labels of all of them.
    pub(crate) const LABELS: [&'static str; 5] = ["absent", "conflict", "forbidden", "unfit", "unreachable"];
}

/// The objects of one namespace.
pub(crate) struct Targets {
    client: Client,
    namespace: String,
    /// What the prefix of annotations is.
    prefix: String,
    kinds: Mutex<HashMap<TargetKind, ApiResource>>,
}

type TargetKind = (String, String, String);

impl Targets {
    pub(crate) fn new(client: Client, namespace: String, prefix: String) -> Self {
        Self { client, namespace, prefix, kinds: Mutex::default() }
    }

    /// The autoscaler called `name` as it is now; none where it is gone.
    pub(crate) async fn autoscaler(&self, name: &str) -> Result<Option<Autoscaler>, TargetError> {
        let resource = Autoscaler::resource();
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let what = format!("HorizontalPodAutoscaler {}/{name}", self.namespace);
        let object = match self.answer(&what, "read", &resource, "horizontalpodautoscalers", "get", api.get_opt(name)).await? {
            Some(object) => object,
            None => return Ok(None),
        };
        let read = Autoscaler::read(&self.prefix, object);
        let problem = |problems: Vec<weir_k8s::FieldProblem>| {
            problems.first().map_or_else(|| "cannot be read".to_owned(), ToString::to_string)
        };
        read.map(Some).map_err(|problems| TargetError::Unfit { what, problem: problem(problems) })
    }

    /// What `reference` names, as it is now.
    pub(crate) async fn read(&self, reference: &TargetReference) -> Result<ScaleTarget, TargetError> {
        let resource = self.resource(reference).await?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let what = self.name(reference);
        let found = self.answer(&what, "read", &resource, &resource.plural, "get", api.get_opt(&reference.name)).await?;
        let object = found.ok_or_else(|| TargetError::Absent(what.clone()))?;
        ScaleTarget::read(object).map_err(|problem| TargetError::Unfit { what, problem: problem.to_string() })
    }

    /// Scales `target`, which is as it was read or is not written. Applied, not updated: the API server records no owner of a zero
    /// that is updated.
    pub(crate) async fn scale(&self, reference: &TargetReference, target: &ScaleTarget, replicas: u32) -> Result<(), TargetError> {
        let resource = self.resource(reference).await?;
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let what = self.name(reference);
        let metadata = ObjectMeta {
            name: Some(reference.name.to_string()),
            namespace: Some(self.namespace.clone()),
            uid: Some(target.uid.to_string()),
            resource_version: Some(target.resource_version.to_string()),
            ..ObjectMeta::default()
        };
        let spec = Some(ScaleSpec { replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)) });
        let scale = Scale { metadata, spec, status: None };
        let parameters = PatchParams::apply(SCALER_MANAGER).force();
        let plural = format!("{}/scale", resource.plural);
        let scale = Patch::Apply(&scale);
        let write = api.patch_scale(&reference.name, &parameters, &scale);
        self.answer(&what, "scaled", &resource, &plural, "patch", write).await.map(drop)
    }

    fn name(&self, reference: &TargetReference) -> String {
        format!("{} {}/{}", reference.kind, self.namespace, reference.name)
    }

    async fn resource(&self, reference: &TargetReference) -> Result<ApiResource, TargetError> {
        let (group, version, kind) = (&*reference.group, &*reference.version, &*reference.kind);
        let gvk = GroupVersionKind::gvk(group, version, kind);
        if let Some((.., plural)) = KNOWN.iter().find(|known| (known.0, known.1, known.2) == (group, version, kind)) {
            return Ok(ApiResource::from_gvk_with_plural(&gvk, plural));
        }
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        let lock = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return Ok(known.clone());
        }
        let what = self.name(reference);
        let unfit = |problem: String| TargetError::Unfit { what: what.clone(), problem };
        let (resource, capabilities) = match timeout(ANSWER, pinned_kind(&self.client, &gvk)).await {
            Err(_) => return Err(TargetError::Unreachable(format!("no answer within {ANSWER:?}"))),
            Ok(Ok(found)) => found,
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                return Err(unfit(format!("the cluster does not serve {}", reference.api_version())));
            }
            Ok(Err(Error::Discovery(_))) => {
                return Err(unfit(format!("the cluster has no kind {kind} in {}", reference.api_version())));
            }
            Ok(Err(error)) => return Err(TargetError::Unreachable(shortened(&error))),
        };
        let scales = capabilities
            .subresources
            .iter()
            .any(|(subresource, _)| subresource.plural == "scale" || subresource.plural.ends_with("/scale"));
        if capabilities.scope != Scope::Namespaced || !scales {
            return Err(unfit(format!("the kind {kind} has no /scale")));
        }
        let mut kinds = lock();
        if kinds.len() < MOST_KINDS {
            kinds.insert(key, resource.clone());
        }
        Ok(resource)
    }

    /// What a request comes to, in bounded time.
    async fn answer<T>(
        &self,
        what: &str,
        done: &'static str,
        resource: &ApiResource,
        plural: &str,
        verb: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, TargetError> {
        let error = match timeout(ANSWER, request).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => return Err(TargetError::Unreachable(format!("{what}: no answer within {ANSWER:?}"))),
        };
        let what = what.to_owned();
        Err(match error {
            Error::Api(status) => match status.code {
                403 => TargetError::Forbidden {
                    what,
                    done,
                    namespace: self.namespace.clone(),
                    rule: format!("{{apiGroups: [\"{}\"], resources: [\"{plural}\"], verbs: [\"{verb}\"]}}", resource.group),
                },
                404 => TargetError::Absent(what),
                409 => TargetError::Conflict(what),
                429 | 500.. => TargetError::Unreachable(format!("{what}: {}", shortened(&status.message))),
                _ => TargetError::Unfit { what, problem: shortened(&status.message) },
            },
            error => TargetError::Unreachable(format!("{what}: {}", shortened(&error))),
        })
    }
}

fn shortened(error: &impl ToString) -> String {
    error.to_string().chars().take(SHOWN).collect()
}
