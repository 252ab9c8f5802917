//! Names and values of headers and metadata that gateways and pickers share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The pick, as header and as key of dynamic metadata.
pub const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The endpoint that served, as key of dynamic metadata.
pub const SERVED: &str = "x-gateway-destination-endpoint-served";
/// The endpoints allowed, as key of filter metadata.
pub const SUBSET: &str = "x-gateway-destination-endpoint-subset";
/// Namespace of filter metadata that holds [`SUBSET`].
pub const SUBSET_NAMESPACE: &str = "envoy.lb.subset_hint";
/// Namespace of dynamic metadata that holds [`DESTINATION`] and [`SERVED`].
pub const LB_NAMESPACE: &str = "envoy.lb";

/// Which endpoints a gateway allows for a request.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subset {
    /// Every one of the pool.
    #[default]
    All,
    /// These alone; an empty list allows none. Without a port every rank of the address is meant.
    Only(Arc<[(IpAddr, Option<u16>)]>),
}

/// A number by name, as dynamic metadata.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attribute {
    /// Namespace of the metadata.
    pub namespace: Arc<str>,
    /// Key within it.
    pub name: Arc<str>,
    /// The number.
    pub value: i64,
}

/// The subset of these entries, each an address with or without a port. What is no address allows nothing.
pub fn subset_of<'a>(entries: impl IntoIterator<Item = &'a str>) -> Subset {
    Subset::Only(entries.into_iter().filter_map(|entry| entry_of(entry.trim())).collect())
}

fn entry_of(entry: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = entry.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), None))
}
