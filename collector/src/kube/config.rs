//! Which pools are followed, and how what is found there is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_datastore::engine::{CustomFamily, Engine};
use weir_datastore::{MetricsSource, PoolId, Scheme};
use weir_k8s::{ANNOTATION_PREFIX, PoolVersion, RequestResource};

use crate::access::{Access, page_path};
use crate::collector::ConfigError;

/// Which pools are followed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Scope {
    /// Those of all namespaces: needs a ClusterRole.
    #[default]
    All,
    /// Those of one namespace: needs a Role there.
    Namespace(String),
    /// One pool: needs a Role in its namespace.
    Pool(PoolId),
    /// The pods of one namespace that have these labels, without an InferencePool: needs a Role there.
    Pods(PodsScope),
}

/// A pool that no InferencePool describes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodsScope {
    /// What it is called, and the namespace of its pods.
    pub pool: PoolId,
    /// Labels that its pods have; not empty.
    pub labels: BTreeMap<String, String>,
    /// The ports of each pod, in order: each once.
    pub target_ports: Vec<u16>,
}

/// Which groups pools are looked for in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PoolGroups {
    /// Both; where a pool is in both, v1 counts.
    #[default]
    Auto,
    /// This one.
    Only(PoolVersion),
}

/// How the pages of pods are read, where the pool's annotations say nothing else.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PodMetrics {
    /// Where, beginning with `/`. Default: `/metrics`.
    pub path: Arc<str>,
    /// Over what. Default: HTTP.
    pub scheme: Scheme,
    /// On which port; none: each target port. Holds for pools with one target port, as upstream's flag does.
    pub port: Option<u16>,
    /// What writes them; none: whatever they show.
    pub engine: Option<Engine>,
    /// Families in place of the engine's own for the same signals.
    pub families: Arc<[CustomFamily]>,
    /// TLS and credentials. Only what may travel over the scheme is used; `port` is overwritten.
    pub access: Access,
}

/// How the pages of picker pods are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PickerPages {
    /// Whether pickers are looked for at all. Default: yes.
    pub read: bool,
    /// Where the page is. Default: `/metrics`.
    pub path: Arc<str>,
    /// Over what. Default: HTTP.
    pub scheme: Scheme,
    /// The port, where neither container nor Service has one called `http-metrics`. Default: 9090.
    pub port: u16,
    /// TLS and credentials. A token goes to whatever pods a pool's Service selects: give one to trusted pools only.
    pub access: Access,
}

/// What is followed, and how what is found there is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubeDiscoveryConfig {
    /// Which pools.
    pub scope: Scope,
    /// Of which groups.
    pub groups: PoolGroups,
    /// The pods' pages.
    pub metrics: PodMetrics,
    /// The pickers' pages.
    pub pickers: PickerPages,
    /// Whether what users say about requests is followed: [`super::KubeDiscovery::rules`]. Default: no.
    pub rules: bool,
    /// Whether autoscalers that may bring the pool back from zero are followed: [`super::KubeDiscovery::promise`]. Of one pool alone.
    /// Default: no.
    pub promises: bool,
    /// Before the names of the annotations that are read off a pool. Default: [`ANNOTATION_PREFIX`].
    pub annotation_prefix: String,
}

impl Default for PodMetrics {
    fn default() -> Self {
        let MetricsSource { path, scheme, .. } = MetricsSource::default();
        Self { path, scheme, port: None, engine: None, families: Arc::default(), access: Access::default() }
    }
}

impl Default for PickerPages {
    fn default() -> Self {
        let MetricsSource { path, scheme, .. } = MetricsSource::default();
        Self { read: true, path, scheme, port: 9090, access: Access::default() }
    }
}

impl Default for KubeDiscoveryConfig {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            groups: PoolGroups::default(),
            metrics: PodMetrics::default(),
            pickers: PickerPages::default(),
            rules: false,
            promises: false,
            annotation_prefix: ANNOTATION_PREFIX.to_owned(),
        }
    }
}

impl KubeDiscoveryConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for path in [&self.metrics.path, &self.pickers.path] {
            page_path(path).map_err(|reason| ConfigError::Path { reason })?;
        }
        let domain = self.annotation_prefix.strip_suffix('/');
        if !domain.is_some_and(|domain| !domain.is_empty() && !domain.contains('/')) {
            return Err(ConfigError::AnnotationPrefix { given: self.annotation_prefix.clone() });
        }
        Ok(())
    }

    /// The pool whose autoscalers are followed.
    pub(super) fn promised(&self) -> Option<&PoolId> {
        match &self.scope {
            Scope::Pool(id) | Scope::Pods(PodsScope { pool: id, .. }) => Some(id).filter(|_| self.promises),
            Scope::All | Scope::Namespace(_) => None,
        }
    }

    pub(super) fn resources(&self) -> &'static [RequestResource] {
        if self.rules { &RequestResource::ALL } else { &[] }
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = PoolVersion> {
        let (groups, none) = (self.groups, matches!(self.scope, Scope::Pods(_)));
        PoolVersion::ALL.into_iter().filter(move |version| match groups {
            _ if none => false,
            PoolGroups::Auto => true,
            PoolGroups::Only(only) => only == *version,
        })
    }
}
