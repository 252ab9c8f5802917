//! The endpoints that a gateway allows.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use crate::inference::Subset;

/// A subset made ready to be asked about each endpoint of a pool.
pub(super) enum Allowed {
    All,
    Only(HashSet<(IpAddr, Option<u16>)>),
}

impl Allowed {
    pub(super) fn new(subset: &Subset) -> Self {
        match subset {
            Subset::All => Self::All,
            Subset::Only(list) => Self::Only(list.iter().map(|(ip, port)| (ip.to_canonical(), *port)).collect()),
        }
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => {
                let ip = address.ip().to_canonical();
                list.contains(&(ip, None)) || list.contains(&(ip, Some(address.port())))
            }
        }
    }
}
