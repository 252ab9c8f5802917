//! What a pool is: its name, its endpoints, how they are read.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::engine::{CustomFamily, Engine};
use crate::options::RequiredOptions;
use crate::start::StartingPod;

/// Namespace and name of a pool.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolId {
    /// Kubernetes namespace; `default` where there is no cluster and none was given.
    pub namespace: Arc<str>,
    /// Name of the InferencePool.
    pub name: Arc<str>,
}

impl PoolId {
    /// The pool `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// `host:port` of an endpoint: an IP address, or a host name where there is no cluster.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointAddress(Arc<str>);

impl EndpointAddress {
    /// As written in a URL: an IPv6 address in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The socket address, where the host is an IP address.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        self.0.parse().ok()
    }
}

impl From<SocketAddr> for EndpointAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl FromStr for EndpointAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(format!("`{text}`: port 0 cannot be connected to")),
                _ => Ok(address.into()),
            };
        }
        if text.contains("://") {
            return Err(format!("`{text}` is a URL: write host:port, and scheme and path under `metrics`"));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port: write host:port"))?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("`{text}`: the port must be a number from 1 to 65535"))?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name of digits and dots that is not an IP address is a mistyped one.
        let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if host.len() > 253 || numeric || !host.split('.').all(label) {
            return Err(format!("`{text}`: `{host}` is neither an IP address (IPv6 in brackets) nor a host name"));
        }
        Ok(Self(format!("{}:{port}", host.to_ascii_lowercase()).into()))
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The scheme pages are read over.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How the metrics pages of a pool's endpoints are read.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MetricsSource {
    /// Over what.
    pub scheme: Scheme,
    /// Where, beginning with `/`.
    pub path: Arc<str>,
    /// What writes the pages; none: whatever they show.
    pub engine: Option<Engine>,
    /// Families that the pool names itself, in place of the engine's own for the same signals.
    pub families: Arc<[CustomFamily]>,
}

impl Default for MetricsSource {
    fn default() -> Self {
        Self { scheme: Scheme::default(), path: "/metrics".into(), engine: None, families: Arc::default() }
    }
}

/// Whether an endpoint takes requests, as its source of discovery says.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EndpointState {
    /// Takes requests.
    #[default]
    Ready,
    /// Exists, but does not take requests (yet).
    Unready,
    /// Finishes what it has and goes away.
    Terminating,
}

/// One ip:port that serves the pool's models, as discovered. A pod with several target ports is several endpoints ("ranks").
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSpec {
    /// Where.
    pub address: EndpointAddress,
    /// The pod it belongs to: endpoints of one pod share this. Without a cluster, the address.
    pub pod: Arc<str>,
    /// Tells a pod from its namesake before it; empty without a cluster.
    pub pod_uid: Arc<str>,
    /// Position among the pod's target ports.
    pub rank: u16,
    /// The pod's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Whether it takes requests.
    pub state: EndpointState,
    /// Image and devices of the container that serves, as far as the source of discovery knows; empty where it does not.
    pub serves_with: Arc<str>,
}

impl EndpointSpec {
    /// The engine that the pod's labels name, if they name one that is known.
    pub fn labelled_engine(&self) -> Option<Engine> {
        // What a custom engine's families are, a label cannot say.
        let named = Engine::POD_LABELS.iter().find_map(|label| self.labels.get(*label)?.parse().ok());
        named.filter(|engine| *engine != Engine::Custom)
    }

    /// A ready endpoint that is its own pod: what a file describes.
    pub fn standalone(address: EndpointAddress) -> Self {
        Self {
            pod: address.as_str().into(),
            pod_uid: "".into(),
            rank: 0,
            labels: Arc::default(),
            state: EndpointState::Ready,
            serves_with: "".into(),
            address,
        }
    }
}

/// A pool as discovered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolSpec {
    /// Its name.
    pub id: PoolId,
    /// How its endpoints are read.
    pub metrics: MetricsSource,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// The names of its picker replicas (addresses or pods); none where the pool has no picker.
    pub pickers: Option<Vec<Arc<str>>>,
    /// Pods of it that have no address yet: they are no endpoints, but will be.
    pub pending: usize,
    /// Pods of it that start, that have started under its eyes, or are not ready; where nobody tells of pods, none.
    pub starts: Vec<StartingPod>,
    /// Whether requests are to wait for its first endpoint whatever is known of one.
    pub hold: bool,
    /// How its required replicas are computed.
    pub required: RequiredOptions,
}

impl PoolSpec {
    /// A pool without endpoints or picker.
    pub fn empty(id: PoolId) -> Self {
        Self {
            id,
            metrics: MetricsSource::default(),
            endpoints: Vec::new(),
            pickers: None,
            pending: 0,
            starts: Vec::new(),
            hold: false,
            required: RequiredOptions::default(),
        }
    }
}
