//! What the resources that speak of a pool's requests have in common: their groups, and the pool that each is for.

use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

use crate::field::{FieldProblem, shown};
use crate::pool::PoolVersion;

/// The kinds of resources that say something about requests, each in the groups that have it.
///
/// Sources: the CRDs of the Gateway API Inference Extension (`inference.networking.x-k8s.io`) and of llm-d (`llm-d.ai`); all `v1alpha2`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RequestResource {
    /// `inferenceobjectives.llm-d.ai`; where it is served, the older group's objects do not count.
    ObjectiveLlmd,
    /// `inferenceobjectives.inference.networking.x-k8s.io`.
    Objective,
    /// `inferencemodelrewrites.llm-d.ai`; where it is served, the older group's objects do not count.
    RewriteLlmd,
    /// `inferencemodelrewrites.inference.networking.x-k8s.io`.
    Rewrite,
    /// `inferencemodels.inference.networking.x-k8s.io`, up to v0.5.
    Model,
}

impl RequestResource {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ObjectiveLlmd, Self::Objective, Self::RewriteLlmd, Self::Rewrite, Self::Model];

    /// Plural and group, as a CRD is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::ObjectiveLlmd => "inferenceobjectives.llm-d.ai",
            Self::Objective => "inferenceobjectives.inference.networking.x-k8s.io",
            Self::RewriteLlmd => "inferencemodelrewrites.llm-d.ai",
            Self::Rewrite => "inferencemodelrewrites.inference.networking.x-k8s.io",
            Self::Model => "inferencemodels.inference.networking.x-k8s.io",
        }
    }

    /// The kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ObjectiveLlmd | Self::Objective => "InferenceObjective",
            Self::RewriteLlmd | Self::Rewrite => "InferenceModelRewrite",
            Self::Model => "InferenceModel",
        }
    }

    /// The resource of an object that says this of itself.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.strip_suffix("/v1alpha2")?;
        Self::ALL.into_iter().find(|resource| resource.kind() == kind && resource.group() == group)
    }

    /// What a client of dynamic objects asks for.
    pub fn resource(self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group(), "v1alpha2", self.kind());
        let plural = self.name().split_once('.').map_or("", |(plural, _)| plural);
        ApiResource::from_gvk_with_plural(&kind, plural)
    }

    fn group(self) -> &'static str {
        self.name().split_once('.').map_or("", |(_, group)| group)
    }
}

/// `spec.poolRef`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolReference {
    /// The pool's API group.
    pub group: Arc<str>,
    /// The pool's name, in the object's namespace.
    pub name: Arc<str>,
}

/// Reads one object, and gathers what is wrong with it.
pub(crate) struct Reader<'object> {
    pub(crate) spec: &'object Value,
    pub(crate) problems: Vec<FieldProblem>,
}

impl<'object> Reader<'object> {
    pub(crate) fn new(object: &'object DynamicObject) -> Self {
        Self { spec: &object.data["spec"], problems: Vec::new() }
    }

    pub(crate) fn wrong(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(FieldProblem::new(field, message));
    }

    pub(crate) fn refuse<T>(&mut self, field: impl Into<String>, message: impl Into<String>) -> Option<T> {
        self.wrong(field, message);
        None
    }

    /// `spec.poolRef`, whose group is `default` where it says none.
    pub(crate) fn pool(&mut self, default: PoolVersion) -> Option<PoolReference> {
        let reference = &self.spec["poolRef"];
        let Some(name) = reference["name"].as_str().filter(|name| !name.is_empty()) else {
            return self.refuse("spec.poolRef.name", "no name: write that of an InferencePool of this namespace");
        };
        let group = match &reference["group"] {
            Value::Null => default.group(),
            Value::String(group) => group,
            other => {
                return self.refuse(
                    "spec.poolRef.group",
                    format!("{} is no API group: leave it out, or write {}", shown(other), PoolVersion::V1.group()),
                );
            }
        };
        match &reference["kind"] {
            Value::Null => {}
            Value::String(kind) if kind == "InferencePool" => {}
            other => {
                return self.refuse("spec.poolRef.kind", format!("{} is not known: write InferencePool", shown(other)));
            }
        }
        Some(PoolReference { group: group.into(), name: name.into() })
    }

    /// The text at `value`, which is not empty.
    pub(crate) fn text(&mut self, field: &str, value: &Value, what: &str) -> Option<Arc<str>> {
        match value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Some(text.into()),
            None => self.refuse(field, format!("{} is no text: write {what}", shown(value))),
        }
    }

    /// A weight; none where it says nothing.
    pub(crate) fn weight(&mut self, field: &str, value: &Value) -> Result<Option<u32>, ()> {
        const MOST: u64 = 1_000_000;
        match value {
            Value::Null => Ok(None),
            value => {
                match value.as_u64().filter(|weight| (1..=MOST).contains(weight)).and_then(|weight| u32::try_from(weight).ok()) {
                    Some(weight) => Ok(Some(weight)),
                    None => {
                        let message = format!("{} is no weight: leave it out, or write 1 to {MOST}", shown(value));
                        self.problems.push(FieldProblem::new(field, message));
                        Err(())
                    }
                }
            }
        }
    }
}

/// The names and the age of an object.
pub(crate) struct Identity {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) created: i64,
}

impl Identity {
    pub(crate) fn of(object: &DynamicObject) -> Self {
        let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
        let metadata = &object.metadata;
        let created = metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name), created }
    }
}
