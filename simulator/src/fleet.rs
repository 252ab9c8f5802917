//! Replicas as running servers: one, or hundreds in one process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

mod listen;
#[cfg(test)]
mod tests;

use crate::model::ModelView;
use crate::page::Engine;
use crate::profile::{ProfileError, ServerProfile};
use crate::server::faults::Faults;
use crate::server::replica::Replica;
use crate::server::router;

/// Largest request body by default, in bytes: a prompt of a million tokens.
pub const DEFAULT_MAX_BODY_BYTES: usize = 4 << 20;

/// One replica's settings.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its name, sent as `x-inference-pod`.
    pub name: String,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The served model name.
    pub model: String,
    /// Names of LoRA adapters, usable as model names.
    pub adapters: Vec<String>,
    /// Which server it pretends to be.
    pub engine: Engine,
    /// What it can do.
    pub profile: ServerProfile,
    /// For jitter, drawn lengths and answer ids: equal seeds and requests give equal draws.
    pub seed: u64,
    /// How long it loads its model: until then health and completions answer 503. (A real server does not even listen.)
    pub start_delay: Duration,
    /// Largest request body in bytes; more is 413.
    pub max_body_bytes: usize,
    /// Pads the full metrics page to at least this many bytes; 0 leaves it as it is.
    pub pad_page_to: usize,
    /// Cancelling it aborts the server.
    pub cancel: CancellationToken,
}

impl Default for ServerConfig {
    /// A small vLLM on a free port of 127.0.0.1.
    fn default() -> Self {
        Self {
            name: "simulator-0".into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            model: "meta-llama/Llama-3.1-8B-Instruct".into(),
            adapters: Vec::new(),
            engine: Engine::default(),
            profile: ServerProfile::small_demo(),
            seed: 0,
            start_delay: Duration::ZERO,
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            pad_page_to: 0,
            cancel: CancellationToken::new(),
        }
    }
}

impl ServerConfig {
    /// `count` replicas like this one: `NAME-0`, `NAME-1` ..., seeds counting up. With port 0 each takes a free port of the same address,
    /// else the address counts up (`127.1.0.1:8000`, `127.1.0.2:8000`, ...).
    pub fn replicas(&self, count: usize) -> Result<Vec<Self>, StartError> {
        let replica = |index: usize| {
            let listen = if self.listen.port() == 0 { Some(self.listen) } else { address_after(self.listen, index) };
            let listen = listen.ok_or(StartError::Addresses { first: self.listen, count })?;
            let name = format!("{}-{index}", self.name);
            Ok(Self { name, listen, seed: self.seed.wrapping_add(index as u64), ..self.clone() })
        };
        (0..count).map(replica).collect()
    }
}

fn address_after(first: SocketAddr, steps: usize) -> Option<SocketAddr> {
    let ip = match first.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().checked_add(u32::try_from(steps).ok()?)?)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().checked_add(steps as u128)?)),
    };
    Some(SocketAddr::new(ip, first.port()))
}

/// A replica that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's: choose another.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The profile is impossible: change the field it names.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The name cannot be sent as a header: use printable ASCII.
    #[error("the replica name {name:?} is not a valid header value")]
    Name {
        /// The name.
        name: String,
    },
    /// There are not so many addresses: start lower, or use port 0.
    #[error("there are no {count} addresses from {first} on")]
    Addresses {
        /// The first replica's address.
        first: SocketAddr,
        /// How many were asked for.
        count: usize,
    },
}

/// A running replica. Dropped, it is aborted.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    replica: Arc<Replica>,
    faults: Faults,
    /// No new connections; open ones end when their requests do.
    drain: CancellationToken,
    /// Everything ends now.
    abort: CancellationToken,
    /// `Some` until stopped.
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds and serves. When this returns, connections are accepted.
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        let address = config.listen;
        let abort = config.cancel.child_token();
        let drain = CancellationToken::new();
        let replica = Arc::new(Replica::new(config)?);
        let bind = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let task =
            tokio::spawn(listen::serve(listener, router(Arc::clone(&replica)), Arc::clone(&replica), drain.clone(), abort.clone()));
        debug!(pod = replica.name, %address, "simulated server started");
        let faults = Faults::new(Arc::clone(&replica));
        Ok(Self { address, replica, faults, drain, abort, task: Some(task) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.replica.name
    }

    /// Which server it pretends to be.
    pub fn engine(&self) -> Engine {
        self.replica.engine
    }

    /// Its fault switches; clone them to use elsewhere.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The model as it is, whatever faults the page has.
    pub fn view(&self) -> ModelView {
        self.replica.view()
    }

    /// Refuses new connections, lets requests finish for at most `grace`, then closes what is left. All its tasks have ended on return.
    pub async fn stop(mut self, grace: Duration) {
        self.drain.cancel();
        let Some(mut task) = self.task.take() else { return };
        if tokio::time::timeout(grace, &mut task).await.is_err() {
            debug!(pod = self.replica.name, ?grace, "simulated server cut off requests after its grace");
            self.abort.cancel();
            self.join(task).await;
        }
    }

    /// Closes everything at once, as a killed process. All its tasks have ended on return.
    pub async fn abort(mut self) {
        self.abort.cancel();
        if let Some(task) = self.task.take() {
            self.join(task).await;
        }
    }

    async fn join(&self, task: JoinHandle<()>) {
        if let Err(error) = task.await {
            tracing::error!(pod = self.replica.name, %error, "simulated server task failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The serving task sees it, ends the tasks it owns, and ends.
        self.abort.cancel();
    }
}

/// Many replicas in one process.
#[derive(Debug)]
pub struct Fleet {
    servers: Vec<Server>,
}

impl Fleet {
    /// Starts all, or none: at the first that cannot start those before it are aborted.
    pub async fn start(configs: impl IntoIterator<Item = ServerConfig>) -> Result<Self, StartError> {
        let mut fleet = Self { servers: Vec::new() };
        for config in configs {
            match Server::start(config).await {
                Ok(server) => fleet.servers.push(server),
                Err(error) => {
                    fleet.abort().await;
                    return Err(error);
                }
            }
        }
        info!(servers = fleet.servers.len(), "simulated fleet started");
        Ok(fleet)
    }

    /// The replicas, in the order of their settings.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Hands the replicas out one by one, for instance to kill some.
    pub fn into_servers(self) -> Vec<Server> {
        self.servers
    }

    /// [`Server::stop`] for all at the same time.
    pub async fn stop(self, grace: Duration) {
        join_all(self.servers.into_iter().map(|server| server.stop(grace))).await;
    }

    /// [`Server::abort`] for all.
    pub async fn abort(self) {
        join_all(self.servers.into_iter().map(Server::abort)).await;
    }
}
