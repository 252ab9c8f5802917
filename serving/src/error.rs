//! Why a server cannot start.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why a server, or a part of one, cannot start. Nothing here happens once a server is serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on: choose another, or retry once it is free.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// Without authentication only this machine may call.
    #[error(
        "refusing to serve {address} to everyone without authentication: listen on a loopback address (--listen 127.0.0.1:{port}), or say who may call (--token-file, or --client-ca-file with TLS)",
        port = address.port()
    )]
    OpenToOthers {
        /// The address that is not a loopback address.
        address: SocketAddr,
    },
    /// A file cannot be used: correct it, the text says what is wrong with it.
    #[error("cannot use {what} file {}: {problem}", path.display())]
    File {
        /// What the file is for: `certificate`, `private key`, `client CA`, `token`.
        what: &'static str,
        /// The file as it was named.
        path: PathBuf,
        /// What is wrong with it. Never any of its content.
        problem: String,
        /// The system's error, where reading failed.
        #[source]
        source: Option<io::Error>,
    },
    /// A certificate cannot be made in memory with these names.
    #[error("cannot make a certificate: {problem}")]
    Certificate {
        /// The name or the step at fault.
        problem: String,
    },
    /// A setting is out of range or contradicts another: correct the configuration.
    #[error("{setting}: {problem}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong, and the range or the way out.
        problem: String,
    },
}
