//! What a source of discovery hands to the collector.

use std::path::PathBuf;

use weir_datastore::PoolSpec;

/// How the endpoints of a pool may be reached: what the pool's TLS and credentials are.
///
/// The datastore knows nothing of it: a change here keeps every cell.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Access {
    /// PEM certificates that sign the servers' ones; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that certificates are checked against instead of the endpoint's host. The TLS handshake still asks for the
    /// endpoint's host (an IP address asks for nothing).
    pub server_name: Option<String>,
    /// Certificates are not checked at all.
    pub insecure_skip_verify: bool,
    /// A file with the token that goes with each request; read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
}

impl Access {
    pub(crate) fn has_files(&self) -> bool {
        self.ca_file.is_some() || self.bearer_token_file.is_some()
    }
}

/// A pool as a source of discovery wants it read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedPool {
    /// The pool.
    pub spec: PoolSpec,
    /// How its endpoints may be reached.
    pub access: Access,
}

impl From<PoolSpec> for WantedPool {
    fn from(spec: PoolSpec) -> Self {
        Self { spec, access: Access::default() }
    }
}
