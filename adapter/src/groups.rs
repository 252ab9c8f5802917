//! The one table of what is served: groups, versions, paths and the objects that metrics describe. The router, discovery and the
//! OpenAPI documents are made of it.

use weir_datastore::catalog::FAMILIES;

use crate::pods::POD_FAMILIES;

/// An API group and one of its versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupVersion {
    /// The group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// Both, as objects name them in `apiVersion`.
    pub name: &'static str,
    /// The kind of its answers.
    pub list_kind: &'static str,
}

/// External metrics: what HorizontalPodAutoscalers of type `External` read.
pub const EXTERNAL: GroupVersion = GroupVersion {
    group: "external.metrics.k8s.io",
    version: "v1beta1",
    name: "external.metrics.k8s.io/v1beta1",
    list_kind: "ExternalMetricValueList",
};

/// Custom metrics, the older version.
pub const CUSTOM_V1BETA1: GroupVersion = GroupVersion {
    group: "custom.metrics.k8s.io",
    version: "v1beta1",
    name: "custom.metrics.k8s.io/v1beta1",
    list_kind: "MetricValueList",
};

/// Custom metrics, the version that autoscalers prefer: types `Object` and `Pods`.
pub const CUSTOM_V1BETA2: GroupVersion = GroupVersion {
    group: "custom.metrics.k8s.io",
    version: "v1beta2",
    name: "custom.metrics.k8s.io/v1beta2",
    list_kind: "MetricValueList",
};

/// A group.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Its versions, the preferred one first.
    pub(crate) versions: &'static [&'static GroupVersion],
    /// What follows `/apis/GROUP/VERSION/`, the first that fits.
    pub(crate) templates: &'static [&'static [Part]],
}

/// One segment of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// This word.
    Word(&'static str),
    /// The namespace.
    Namespace,
    /// What kind of object the metric describes.
    Resource,
    /// The object's name, or `*` for those that a selector matches.
    Name,
    /// The metric.
    Metric,
}

static EXTERNAL_GROUP: Group = Group {
    name: EXTERNAL.group,
    versions: &[&EXTERNAL],
    templates: &[&[Part::Word("namespaces"), Part::Namespace, Part::Metric]],
};

static CUSTOM_GROUP: Group = Group {
    name: CUSTOM_V1BETA2.group,
    versions: &[&CUSTOM_V1BETA2, &CUSTOM_V1BETA1],
    templates: &[
        &[Part::Word("namespaces"), Part::Namespace, Part::Word("metrics"), Part::Metric],
        &[Part::Word("namespaces"), Part::Namespace, Part::Resource, Part::Name, Part::Metric],
    ],
};

/// Which groups are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    pub(crate) external: bool,
    pub(crate) custom: bool,
}

impl Groups {
    /// Those that are, in the order of discovery.
    pub(crate) fn served(self) -> impl Iterator<Item = &'static Group> {
        [(self.external, &EXTERNAL_GROUP), (self.custom, &CUSTOM_GROUP)]
            .into_iter()
            .filter_map(|(is_served, group)| is_served.then_some(group))
    }

    pub(crate) fn group(self, name: &str) -> Option<&'static Group> {
        self.served().find(|group| group.name == name)
    }
}

impl Group {
    pub(crate) fn version(&self, version: &str) -> Option<&'static GroupVersion> {
        self.versions.iter().copied().find(|known| known.version == version)
    }

    /// Whether its metrics describe objects of the cluster.
    pub(crate) fn describes_objects(&self) -> bool {
        self.name == CUSTOM_V1BETA2.group
    }
}

/// The kind that discovery gives an external metric: its name in Kubernetes' spelling of kinds. The answer's kind is the same for
/// all, but kubectl goes from resource to kind and from there back to a resource: with one kind for all it would show the values of
/// another metric than the one that was asked for.
pub(crate) fn discovered_kind(metric: &str) -> String {
    let mut kind = String::with_capacity(metric.len());
    for word in metric.split('_') {
        let mut letters = word.chars();
        kind.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        kind.push_str(letters.as_str());
    }
    kind
}

/// What a custom metric describes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Described {
    pub(crate) kind: DescribedKind,
    /// As in paths and discovery: `plural` or `plural.group`.
    pub(crate) resource: &'static str,
    pub(crate) api_version: &'static str,
}

/// The kinds that are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DescribedKind {
    InferencePool,
    Pod,
    Namespace,
}

impl DescribedKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InferencePool => "InferencePool",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
        }
    }
}

/// A pool of the stable API.
pub(crate) const POOLS: Described = Described {
    kind: DescribedKind::InferencePool,
    resource: "inferencepools.inference.networking.k8s.io",
    api_version: "inference.networking.k8s.io/v1",
};

/// The same pool in the words of the API before.
const POOLS_BEFORE: Described = Described {
    kind: DescribedKind::InferencePool,
    resource: "inferencepools.inference.networking.x-k8s.io",
    api_version: "inference.networking.x-k8s.io/v1alpha2",
};

/// A model server's pod.
pub(crate) const PODS: Described = Described { kind: DescribedKind::Pod, resource: "pods", api_version: "v1" };

/// A namespace with the pools in it.
pub(crate) const NAMESPACES: Described = Described { kind: DescribedKind::Namespace, resource: "namespaces", api_version: "v1" };

impl Described {
    /// What a path calls `resource`: `plural` or `plural.group`; singular is understood too.
    pub(crate) fn find(resource: &str) -> Option<Self> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        match (plural, group) {
            ("pods" | "pod", "") => Some(PODS),
            ("inferencepools" | "inferencepool", "" | "inference.networking.k8s.io") => Some(POOLS),
            ("inferencepools" | "inferencepool", "inference.networking.x-k8s.io") => Some(POOLS_BEFORE),
            _ => None,
        }
    }

    /// What discovery lists, each with the metrics of it.
    pub(crate) fn all() -> [(Self, Vec<&'static str>); 3] {
        let of_pools: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        let of_pods = POD_FAMILIES.iter().map(|family| family.name).collect();
        [(POOLS, of_pools.clone()), (PODS, of_pods), (NAMESPACES, of_pools)]
    }

    pub(crate) fn is_namespaced(self) -> bool {
        self.kind != DescribedKind::Namespace
    }
}
