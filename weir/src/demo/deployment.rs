//! The servers of the demo: what a Deployment and its pods are in a cluster. Its state is published as `pools.yaml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_hpa::Replicas;
use weir_simulator::{Server, ServerConfig, ServerProfile};

use super::{NAMESPACE, POOL};

/// How long a server loads before it is ready. Minutes on a GPU.
pub(crate) const START_DELAY: Duration = Duration::from_secs(3);

/// How long a server off the list still takes requests from those who have not noticed: a pod's `preStop` sleep.
const STOP_DELAY: Duration = Duration::from_millis(500);

/// Requests one server runs at once.
pub(crate) const MAX_RUNNING: u32 = 16;

/// Address of a server, as its users see it.
pub(crate) type ServerUrl = Arc<str>;

/// The demo's servers.
pub(crate) struct Deployment {
    pools_file: PathBuf,
    seed: u64,
    started: usize,
    servers: Vec<Replica>,
    ready: watch::Sender<Vec<ServerUrl>>,
    leaving: JoinSet<()>,
}

struct Replica {
    server: Server,
    ready_at: Instant,
    listed: bool,
}

impl Deployment {
    /// One server, ready at once.
    pub(crate) async fn start(pools_file: PathBuf, seed: u64) -> anyhow::Result<Self> {
        let (ready, _) = watch::channel(Vec::new());
        let mut deployment = Self { pools_file, seed, started: 0, servers: Vec::new(), ready, leaving: JoinSet::new() };
        deployment.add(Duration::ZERO).await?;
        deployment.settle().await?;
        Ok(deployment)
    }

    /// The file that names the ready servers.
    pub(crate) fn pools_file(&self) -> &Path {
        &self.pools_file
    }

    /// The ready servers, as they change.
    pub(crate) fn ready_servers(&self) -> watch::Receiver<Vec<ServerUrl>> {
        self.ready.subscribe()
    }

    /// How many servers there are.
    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// How many of them take requests.
    pub(crate) fn ready_count(&self) -> usize {
        self.servers.iter().filter(|replica| replica.listed).count()
    }

    /// What the autoscaler sees of the target.
    pub(crate) fn replicas(&self) -> Replicas {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Replicas::partly_ready(count(self.count()), count(self.ready_count()))
    }

    /// Lists servers that became ready.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let waiting = self.servers.iter_mut().filter(|replica| !replica.listed && replica.ready_at <= now);
        let became_ready = waiting.fold(0, |count, replica| {
            replica.listed = true;
            count + 1
        });
        while self.leaving.try_join_next().is_some() {}
        if became_ready == 0 { Ok(()) } else { self.publish().await }
    }

    /// Starts or stops servers until there are `desired`. A server that goes is taken off the list first and finishes its requests.
    pub(crate) async fn scale_to(&mut self, desired: u32) -> anyhow::Result<()> {
        let desired = desired as usize;
        while self.count() < desired {
            self.add(START_DELAY).await?;
        }
        if self.count() > desired {
            let gone = self.servers.split_off(desired);
            self.publish().await?;
            for replica in gone {
                self.leaving.spawn(async move {
                    tokio::time::sleep(STOP_DELAY).await;
                    replica.server.stop(Duration::from_secs(30)).await;
                });
            }
        }
        Ok(())
    }

    /// Stops everything at once.
    pub(crate) async fn stop(mut self) {
        self.leaving.shutdown().await;
        for replica in self.servers {
            replica.server.abort().await;
        }
    }

    async fn add(&mut self, start_delay: Duration) -> anyhow::Result<()> {
        let profile = ServerProfile { max_num_seqs: MAX_RUNNING, ..ServerProfile::small_demo() };
        let config = ServerConfig {
            name: format!("{POOL}-{}", self.started),
            model: "meta-llama/Llama-3.1-8B-Instruct".into(),
            profile,
            seed: self.seed.wrapping_add(self.started as u64),
            start_delay,
            ..ServerConfig::default()
        };
        let server = Server::start(config).await.context("a simulated server cannot be started")?;
        self.started += 1;
        self.servers.push(Replica { server, ready_at: Instant::now() + start_delay, listed: false });
        Ok(())
    }

    /// Writes the list of ready servers for weir, then tells the users.
    async fn publish(&mut self) -> anyhow::Result<()> {
        let addresses: Vec<_> = self.servers.iter().filter(|replica| replica.listed).map(|replica| replica.server.addr()).collect();
        let endpoints: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let endpoints = endpoints.join(", ");
        let file = format!(
            "apiVersion: weir/v1\npools:\n- name: {POOL}\n  namespace: {NAMESPACE}\n  engine: vllm\n  endpoints: [{endpoints}]\n"
        );
        let new = self.pools_file.with_extension("new");
        // A rename, so that no reader ever sees half a file.
        let written = async {
            tokio::fs::write(&new, file).await?;
            tokio::fs::rename(&new, &self.pools_file).await
        };
        written.await.with_context(|| format!("{} cannot be written", self.pools_file.display()))?;
        let urls = addresses.iter().map(|address| format!("http://{address}").into()).collect();
        self.ready.send_replace(urls);
        Ok(())
    }
}
