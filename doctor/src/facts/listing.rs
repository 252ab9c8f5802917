//! Whether objects of one kind could be listed, and where.

use serde::{Deserialize, Serialize};

/// The objects of one kind, as far as they could be read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct Listing<T> {
    /// What was listed; none where nothing could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) items: Option<Vec<T>>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<Reason>,
    /// The only namespaces that were listed; none: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespaces: Option<Vec<String>>,
    /// Whether there are more than were taken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
    /// Objects that could not be understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<String>,
}

/// Why nothing was listed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Reason {
    /// The API server does not have the kind: its CRD is not installed.
    NotServed,
    /// Not allowed: verb, resource and namespace.
    Forbidden(String),
    /// No answer, or none that can be read.
    Failed(String),
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { items: None, why: None, namespaces: None, cut: false, unreadable: Vec::new() }
    }
}

/// What can be told from others of its kind.
pub(crate) trait Identified {
    /// Whether its name is known, and its namespace where it has one: one that is not may be whatever is looked for.
    fn identified(&self) -> bool;
}

/// Kinds of objects: `namespaced` or not.
macro_rules! identified {
    ($($kind:path: $namespaced:literal,)*) => {$(
        impl Identified for $kind {
            fn identified(&self) -> bool {
                self.metadata.as_ref().is_some_and(|meta| meta.name.is_some() && (meta.namespace.is_some() || !$namespaced))
            }
        }
    )*};
}

identified! {
    super::workload::Crd: false,
    super::workload::Node: false,
    super::workload::Pod: true,
    super::workload::Service: true,
    super::workload::Workload: true,
    super::workload::Job: true,
    super::workload::DisruptionBudget: true,
    super::gateway::Gateway: true,
    super::gateway::Route: true,
    super::gateway::Grant: true,
    super::gateway::DestinationRule: true,
    super::pool::Pool: true,
    super::pool::Objective: true,
    super::pool::Rewrite: true,
    super::pool::Model: true,
    super::scaling::Autoscaler: true,
    super::scaling::ScaledObject: true,
    super::scaling::ApiService: false,
    super::monitoring::ServiceMonitor: true,
    super::monitoring::PodMonitor: true,
    super::monitoring::PodMonitoring: true,
    super::monitoring::Prometheus: true,
}

impl<T> Listing<T> {
    /// Everything there is.
    pub(crate) fn of(items: Vec<T>) -> Self {
        Self { items: Some(items), ..Self::default() }
    }

    /// Nothing, and why.
    pub(crate) fn none(why: Reason) -> Self {
        Self { why: Some(why), ..Self::default() }
    }

    /// What is known to be there.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.as_deref().unwrap_or_default().iter()
    }

    /// Whether the API server is known not to have the kind.
    pub(crate) fn not_served(&self) -> bool {
        self.why == Some(Reason::NotServed)
    }
}

impl<T: Identified> Listing<T> {
    /// All of them, in whatever namespace; none where some may be unknown. Only from this may absence be concluded.
    pub(crate) fn all(&self) -> Option<&[T]> {
        self.whole(self.namespaces.is_none())
    }

    /// All that `namespace` can have of them, among others; none where some may be unknown.
    pub(crate) fn all_in(&self, namespace: &str) -> Option<&[T]> {
        // An object whose own namespace is not known.
        if namespace.is_empty() {
            return None;
        }
        self.whole(self.namespaces.as_ref().is_none_or(|namespaces| namespaces.iter().any(|listed| listed == namespace)))
    }

    fn whole(&self, listed: bool) -> Option<&[T]> {
        match (&self.items, &self.why) {
            (Some(items), _) if listed && !self.cut && self.unreadable.is_empty() && items.iter().all(T::identified) => Some(items),
            // What the API server does not have, there are none of.
            (None, Some(Reason::NotServed)) => Some(&[]),
            _ => None,
        }
    }
}
