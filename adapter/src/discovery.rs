//! Discovery: which groups, versions and resources there are. Static: an empty list, or one that changes with the data, breaks
//! clients.
//!
//! Legacy documents, one per path, and the aggregated one, which Kubernetes' API server asks every backend for each minute. Its ETag
//! is the SHA-512 of the body, so that the next time the answer is 304.

use std::borrow::Cow;

use serde::Serialize;
use weir_datastore::catalog::FAMILIES;

use crate::EXTERNAL;
use crate::document::Document;
use crate::groups::{Described, Group, GroupVersion, Groups, discovered_kind};
use crate::wire::Empty;

/// The documents of discovery.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// `/apis`.
    pub(crate) groups: Document,
    /// `/apis`, aggregated, in `v2` and `v2beta1`.
    aggregated: [(&'static str, Document); 2],
    /// `/apis/G`.
    group: Vec<(&'static str, Document)>,
    /// `/apis/G/V`.
    resources: Vec<(&'static str, Document)>,
    /// `/version`.
    pub(crate) version: Document,
}

impl Discovery {
    pub(crate) fn new(groups: Groups) -> Self {
        let aggregated =
            |version, api_version, media_type| (version, Document::of(&Aggregated::new(groups, api_version), media_type));
        let versions = || groups.served().flat_map(|group| group.versions.iter().copied());
        Self {
            groups: Document::json(&GroupList::new(groups)),
            aggregated: [
                aggregated("v2", "apidiscovery.k8s.io/v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
                aggregated(
                    "v2beta1",
                    "apidiscovery.k8s.io/v2beta1",
                    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                ),
            ],
            group: groups.served().map(|group| (group.name, Document::json(&OneGroup::new(group)))).collect(),
            resources: versions().map(|version| (version.name, Document::json(&ResourceList::new(version)))).collect(),
            version: Document::json(&Version::of_this_build()),
        }
    }

    pub(crate) fn aggregated(&self, version: &str) -> Option<&Document> {
        self.aggregated.iter().find(|(known, _)| *known == version).map(|(_, document)| document)
    }

    pub(crate) fn group(&self, group: &Group) -> Option<&Document> {
        self.group.iter().find(|(name, _)| *name == group.name).map(|(_, document)| document)
    }

    pub(crate) fn resources(&self, version: &GroupVersion) -> Option<&Document> {
        self.resources.iter().find(|(name, _)| *name == version.name).map(|(_, document)| document)
    }
}

/// `v1 APIGroupList`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<GroupEntry>,
}

/// `v1 APIGroup`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OneGroup {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    group: GroupEntry,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupEntry {
    name: &'static str,
    versions: Vec<VersionEntry>,
    preferred_version: Option<VersionEntry>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionEntry {
    group_version: &'static str,
    version: &'static str,
}

impl GroupEntry {
    fn new(group: &Group) -> Self {
        let entry = |version: &&GroupVersion| VersionEntry { group_version: version.name, version: version.version };
        let versions: Vec<_> = group.versions.iter().map(entry).collect();
        Self { name: group.name, preferred_version: versions.first().copied(), versions }
    }
}

impl GroupList {
    fn new(groups: Groups) -> Self {
        Self { kind: "APIGroupList", api_version: "v1", groups: groups.served().map(GroupEntry::new).collect() }
    }
}

impl OneGroup {
    fn new(group: &Group) -> Self {
        Self { kind: "APIGroup", api_version: "v1", group: GroupEntry::new(group) }
    }
}

/// `v1 APIResourceList`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: &'static str,
    resources: Vec<Resource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    kind: Cow<'static, str>,
    verbs: [&'static str; 1],
}

impl ResourceList {
    fn new(version: &'static GroupVersion) -> Self {
        let resource = |name, namespaced, kind| Resource { name, singular_name: "", namespaced, kind, verbs: ["get"] };
        let resources = if *version == EXTERNAL {
            FAMILIES.iter().map(|family| resource(family.name.to_owned(), true, discovered_kind(family.name).into())).collect()
        } else {
            let of_one = |(described, metrics): (Described, Vec<&str>)| {
                let name = |metric| format!("{}/{metric}", described.resource);
                metrics
                    .into_iter()
                    .map(|metric| resource(name(metric), described.is_namespaced(), version.list_kind.into()))
                    .collect::<Vec<_>>()
            };
            Described::all().into_iter().flat_map(of_one).collect()
        };
        Self { kind: "APIResourceList", api_version: "v1", group_version: version.name, resources }
    }
}

/// `apidiscovery.k8s.io APIGroupDiscoveryList`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Aggregated {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    items: Vec<AggregatedGroup>,
}

#[derive(Serialize)]
struct AggregatedGroup {
    metadata: Name,
    versions: Vec<AggregatedVersion>,
}

#[derive(Serialize)]
struct Name {
    name: &'static str,
}

#[derive(Serialize)]
struct AggregatedVersion {
    version: &'static str,
    resources: Vec<AggregatedResource>,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AggregatedResource {
    resource: &'static str,
    response_kind: ResponseKind,
    scope: &'static str,
    singular_resource: &'static str,
    verbs: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<Subresource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subresource {
    subresource: &'static str,
    response_kind: ResponseKind,
    verbs: [&'static str; 1],
}

#[derive(Serialize)]
struct ResponseKind {
    group: &'static str,
    version: &'static str,
    kind: Cow<'static, str>,
}

impl Aggregated {
    fn new(groups: Groups, api_version: &'static str) -> Self {
        let group = |group: &'static Group| AggregatedGroup {
            metadata: Name { name: group.name },
            versions: group.versions.iter().map(|version| AggregatedVersion::new(version)).collect(),
        };
        Self { kind: "APIGroupDiscoveryList", api_version, metadata: Empty {}, items: groups.served().map(group).collect() }
    }
}

impl AggregatedVersion {
    fn new(version: &'static GroupVersion) -> Self {
        let response_kind = |kind| ResponseKind { group: version.group, version: version.version, kind };
        let external = FAMILIES.iter().map(|family| AggregatedResource {
            resource: family.name,
            response_kind: response_kind(discovered_kind(family.name).into()),
            scope: "Namespaced",
            singular_resource: "",
            verbs: vec!["get"],
            subresources: Vec::new(),
        });
        let custom = Described::all().into_iter().map(|(described, metrics)| AggregatedResource {
            resource: described.resource,
            // Only the metrics can be had. The kind is there since clients of Kubernetes 1.26 cannot do without, and empty so that
            // newer ones pass over the object itself.
            response_kind: ResponseKind { group: "", version: "", kind: "".into() },
            scope: if described.is_namespaced() { "Namespaced" } else { "Cluster" },
            singular_resource: "",
            verbs: Vec::new(),
            subresources: metrics
                .into_iter()
                .map(|metric| Subresource {
                    subresource: metric,
                    response_kind: response_kind(version.list_kind.into()),
                    verbs: ["get"],
                })
                .collect(),
        });
        let resources = if *version == EXTERNAL { external.collect() } else { custom.collect() };
        Self { version: version.version, resources, freshness: "Current" }
    }
}

/// `version.Info`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    major: &'static str,
    minor: &'static str,
    git_version: String,
    git_commit: &'static str,
    git_tree_state: &'static str,
    build_date: &'static str,
    go_version: &'static str,
    compiler: &'static str,
    platform: String,
}

impl Version {
    fn of_this_build() -> Self {
        // The names of processors that Kubernetes uses.
        let processor = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            major: env!("CARGO_PKG_VERSION_MAJOR"),
            minor: env!("CARGO_PKG_VERSION_MINOR"),
            git_version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
            git_commit: "",
            git_tree_state: "",
            build_date: "",
            go_version: "",
            compiler: "rustc",
            platform: format!("{}/{processor}", std::env::consts::OS),
        }
    }
}
