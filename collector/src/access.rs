//! What a source of discovery hands to the collector.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use weir_datastore::PoolSpec;

/// Whether servers are asked for the wanted series alone, with `?name[]=`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Restrict {
    /// Where a trial has shown that the server answers such pages rightly.
    #[default]
    Auto,
    /// Never: always for the whole page.
    Never,
}

/// How the pages of a pool may be asked for: its TLS, its credentials, whole or restricted.
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
    /// Whether that file may be absent: requests then go without a token until it is there.
    pub bearer_token_may_be_absent: bool,
    /// Whether pages are restricted to the wanted series.
    pub restrict: Restrict,
    /// The port of the endpoints' pages, where it is not the endpoint's own.
    pub port: Option<u16>,
}

impl Access {
    pub(crate) fn has_files(&self) -> bool {
        self.ca_file.is_some() || self.bearer_token_file.is_some()
    }
}

/// The path of a page as `text` gives it.
pub(crate) fn page_path(text: &str) -> Result<Arc<str>, String> {
    if !text.starts_with('/') {
        let way_out = if text.contains("://") { "host and port are the endpoints'" } else { "a path begins with `/`" };
        return Err(format!("`{}` is not a path: {way_out}", text.escape_debug()));
    }
    if text.contains('#') || text.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(format!("`{}` is not a path: it holds a blank or `#`", text.escape_debug()));
    }
    Ok(text.into())
}

/// A pool as a source of discovery wants it read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedPool {
    /// The pool.
    pub spec: PoolSpec,
    /// How its endpoints may be reached.
    pub access: Access,
    /// How its pickers may be reached: those of the spec that are read over the network.
    pub pickers: Vec<WantedPicker>,
    /// Labels that its pods have; empty where no labels make it.
    pub selector: Arc<BTreeMap<String, String>>,
}

/// All pools that are wanted, as they become.
pub type WantedPools = watch::Receiver<Arc<Vec<WantedPool>>>;

/// One replica of a pool's picker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedPicker {
    /// Its name in the spec's `pickers`.
    pub name: Arc<str>,
    /// The URL of its metrics page. Where the same server serves weir's stream of the pool, that is followed instead.
    pub url: Arc<str>,
    /// Its TLS and credentials.
    pub access: Access,
}

impl From<PoolSpec> for WantedPool {
    fn from(spec: PoolSpec) -> Self {
        Self { spec, access: Access::default(), pickers: Vec::new(), selector: Arc::default() }
    }
}
