//! The endpoints that a gateway allows.

use std::net::{IpAddr, SocketAddr};

use crate::Subset;

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
