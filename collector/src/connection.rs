//! One HTTP client per way of reaching endpoints, with its files followed.
//!
//! Endpoints that are reached alike share a client and so its connections. Certificates and tokens are rotated under a running
//! process (a mounted Secret, a bound service account token), so their files are read again; one that cannot be read any more keeps
//! what was last read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use weir_datastore::Scheme;

use crate::access::{Access, Restrict};
use crate::client::Client;
use crate::tls;

/// The largest file of certificates, in bytes.
const LARGEST_CA_FILE: usize = 1024 * 1024;
/// The largest token, in bytes; a service account's is about 1 KB.
const LARGEST_TOKEN: usize = 16 * 1024;
/// Share of a scrape's time in which the connection must stand: what is left tells "no connection" from "no answer".
const CONNECT_SHARE: f64 = 0.9;

/// Endpoints with the same key share a client.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ConnectionKey {
    pub(crate) scheme: Scheme,
    pub(crate) access: Access,
}

/// A client and what goes with each request.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) client: Client,
    pub(crate) authorization: Option<HeaderValue>,
}

/// A way of reaching endpoints, as its files say at present.
#[derive(Debug)]
pub(crate) struct Connection {
    key: ConnectionKey,
    timeout: Duration,
    current: ArcSwap<Result<Ready, String>>,
    /// The files' content that `current` was made of.
    files: Mutex<Option<Files>>,
}

#[derive(Debug, Eq, PartialEq)]
struct Files {
    ca: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
}

/// What reading the files again led to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Refreshed {
    /// Nothing new.
    Same,
    /// New content is in force.
    Renewed,
    /// Why the files cannot be used; what was last read stays in force.
    Kept(String),
    /// Why the files cannot be used; nothing was ever read.
    Unusable(String),
}

impl Connection {
    /// Reads the files and builds the client. Blocks.
    pub(crate) fn open(key: ConnectionKey, timeout: Duration) -> Self {
        let read = read_files(&key.access);
        let current = match &read {
            Ok(files) => ready(&key, files, None, timeout),
            Err(error) => Err(error.clone()),
        };
        let files = read.ok().filter(|_| current.is_ok());
        Self { key, timeout, current: ArcSwap::from_pointee(current), files: Mutex::new(files) }
    }

    /// The client at present, or why there is none.
    pub(crate) fn current(&self) -> Arc<Result<Ready, String>> {
        self.current.load_full()
    }

    pub(crate) fn restrict(&self) -> Restrict {
        self.key.access.restrict
    }

    /// The port of the endpoints' pages, where it is not their own.
    pub(crate) fn port(&self) -> Option<u16> {
        self.key.access.port
    }

    pub(crate) fn has_files(&self) -> bool {
        self.key.access.has_files()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.current.load().is_ok()
    }

    /// Reads the files again. Blocks.
    pub(crate) fn refresh(&self) -> Refreshed {
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = read_files(&self.key.access).and_then(|files| {
            if known.as_ref() == Some(&files) {
                return Ok(None);
            }
            // New certificates need a new client; a new token goes into the header alone and keeps the connections.
            let before = self.current();
            let same_certificates = known.as_ref().is_some_and(|known| known.ca == files.ca);
            let client = before.as_ref().as_ref().ok().filter(|_| same_certificates).map(|ready| ready.client.clone());
            Ok(Some((ready(&self.key, &files, client, self.timeout)?, files)))
        });
        match renewed {
            Ok(None) => Refreshed::Same,
            Ok(Some((ready, files))) => {
                self.current.store(Arc::new(Ok(ready)));
                *known = Some(files);
                Refreshed::Renewed
            }
            Err(error) if self.is_usable() => Refreshed::Kept(error),
            Err(error) => {
                self.current.store(Arc::new(Err(error.clone())));
                Refreshed::Unusable(error)
            }
        }
    }
}

/// What is wrong with the files that `access` names: the field, and why.
pub(crate) fn file_errors(access: &Access) -> Vec<(&'static str, String)> {
    let ca = access.ca_file.as_deref().map(|path| ("caFile", read_ca(path).map(drop)));
    let token = access.bearer_token_file.as_deref().map(|path| ("bearerTokenFile", read_token(path).map(drop)));
    [ca, token].into_iter().flatten().filter_map(|(field, read)| Some((field, read.err()?))).collect()
}

fn read_files(access: &Access) -> Result<Files, String> {
    let ca = access.ca_file.as_deref().map(|path| read_ca(path).map_err(|error| format!("caFile {error}"))).transpose()?;
    let token = access.bearer_token_file.as_deref();
    let token = token.filter(|path| !(access.bearer_token_may_be_absent && is_absent(path)));
    let token = token.map(|path| read_token(path).map_err(|error| format!("bearerTokenFile {error}"))).transpose()?;
    Ok(Files { ca, token })
}

fn is_absent(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    let pem = read_bounded(path, LARGEST_CA_FILE)?;
    tls::certificates(&pem).map_err(|error| format!("{} {error}", path.display()))?;
    Ok(pem)
}

fn read_token(path: &Path) -> Result<Vec<u8>, String> {
    let token = read_bounded(path, LARGEST_TOKEN)?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(format!("{} is empty: it must hold the token", path.display()));
    }
    bearer(token).ok_or_else(|| format!("{} does not hold one token in printable characters", path.display()))?;
    Ok(token.to_vec())
}

fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() > limit => Err(format!("{} is larger than {limit} bytes", path.display())),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn bearer(token: &[u8]) -> Option<HeaderValue> {
    if !token.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn ready(key: &ConnectionKey, files: &Files, client: Option<Client>, timeout: Duration) -> Result<Ready, String> {
    let client = match client {
        Some(client) => client,
        None => build_client(key, files, timeout)?,
    };
    Ok(Ready { client, authorization: files.token.as_deref().and_then(bearer) })
}

fn build_client(key: &ConnectionKey, files: &Files, timeout: Duration) -> Result<Client, String> {
    let tls = match (key.scheme, &key.access) {
        // No certificates are loaded that nobody asks for: an image without any still reads plain pages.
        (Scheme::Http, _) => tls::no_roots()?,
        (Scheme::Https, access) if access.insecure_skip_verify => tls::unchecked()?,
        (Scheme::Https, access) => tls::client_config(files.ca.as_deref(), access.server_name.as_deref())?,
    };
    Ok(Client::new(tls, timeout.mul_f64(CONNECT_SHARE)))
}
