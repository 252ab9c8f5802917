//! Discovery without a cluster: pools and endpoints from `pools.yaml`.
//!
//! ```yaml
//! apiVersion: weir/v1
//! pools:
//! - name: vllm-llama3
//!   namespace: default                       # optional
//!   engine: auto                             # optional: or vllm, sglang, …; custom: only `metrics.families`
//!   endpoints:
//!   - 127.0.0.1:8000                         # host:port
//!   - address: 10.0.0.7:8000                 # or with what a cluster would know of it
//!     pod: vllm-1                            # optional: endpoints of one pod share it
//!     labels: { role: decode }               # optional: the pod's labels
//!   pickers:                                 # optional: the replicas of the pool's picker
//!   - http://10.0.1.5:9090/metrics           # its page; where weir serves its stream there, that is followed
//!   - url: https://10.0.1.6:9090/metrics     # or with caFile, serverName, insecureSkipVerify, bearerTokenFile as below
//!     name: picker-1                         # optional: host:port without this
//!   metrics:                                 # optional
//!     path: /metrics
//!     scheme: https                          # http without this
//!     restrict: auto                         # or never: always ask for whole pages
//!     families:                              # with a named engine only: in place of its own for the same signals
//!     - signal: running                      # or waiting, kv_cache_utilization
//!       name: my_server_requests             # the sample's name on the page
//!       labels: { state: active }            # optional: only series with these labels
//!       combine: sum                         # optional: or mean, max; several series, one number
//!     caFile: ca.pem                         # this and below with https only; paths start at this file's folder
//!     serverName: vllm.internal
//!     insecureSkipVerify: false
//!     bearerTokenFile: token
//!   required:                                # optional: of inference_pool_required_replicas
//!     daily: true                            # ask ahead of what two of the last three days needed
//!     recurring: true                        # keep the level of bursts that come again
//!     spares: 1                              # replicas on top
//!     utilisation: 0.75                      # share of its capacity at which a replica is run
//! ```
//!
//! A file is good as a whole or not at all, and all that is wrong with it is said at once. [`Loaded::watch`] follows it: a version
//! that is not good leaves the last good one in force.

mod families;
mod names;
mod node;
mod pickers;
mod pools;
mod problem;
mod reading;
mod watch;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use problem::{PoolsFileError, Problem};
pub use watch::PoolsFileWatcher;

use crate::access::WantedPool;

/// The largest file, in bytes.
const LARGEST_FILE: usize = 1024 * 1024;

/// `pools.yaml`.
#[derive(Clone, Copy, Debug)]
pub struct PoolsFile;

/// A good file, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its pools, in the order of the file.
    pub pools: Arc<Vec<WantedPool>>,
    path: PathBuf,
    content: Vec<u8>,
}

impl PoolsFile {
    /// Reads the file at `path`, and looks at the files that it names. Blocks.
    ///
    /// # Errors
    /// [`PoolsFileError`] with everything that is wrong, each with its place.
    pub fn load(path: impl AsRef<Path>) -> Result<Loaded, PoolsFileError> {
        let path = path.as_ref();
        Self::parse(path, read(path)?)
    }

    /// The same of `content`, as if it had been read at `path`.
    ///
    /// # Errors
    /// As [`Self::load`], but for what can go wrong in reading.
    pub fn parse(path: impl Into<PathBuf>, content: Vec<u8>) -> Result<Loaded, PoolsFileError> {
        let path = path.into();
        let content = bounded(&path, content)?;
        let pools = pools::parse(&path, &content)?;
        Ok(Loaded { pools: Arc::new(pools), path, content })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PoolsFileError> {
    let unreadable = |source| PoolsFileError::Unreadable { path: path.to_owned(), source };
    // A pipe would block for ever.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("not a file")));
    }
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LARGEST_FILE as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    bounded(path, content)
}

fn bounded(path: &Path, content: Vec<u8>) -> Result<Vec<u8>, PoolsFileError> {
    if content.len() > LARGEST_FILE {
        return Err(PoolsFileError::TooLarge { path: path.to_owned(), limit: LARGEST_FILE });
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
