//! The servers of the demo: what a Deployment and its pods are in a cluster. Its state is published as files of pools: one for the
//! picker, one for the exporter and the adapter, which follow the picker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_hpa::Replicas;
use weir_simulator::{Server, ServerConfig, ServerProfile};

use super::{NAMESPACE, POOL};

/// How long a server loads before it is ready. Minutes on a GPU.
pub(crate) const START_DELAY: Duration = Duration::from_secs(3);

/// How long a server off the list still takes requests from those who have not noticed: a pod's `preStop` sleep.
const STOP_DELAY: Duration = Duration::from_millis(500);

/// What the servers serve.
pub(crate) const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// Requests one server runs at once.
pub(crate) const MAX_RUNNING: u32 = 16;

/// The demo's servers.
pub(crate) struct Deployment {
    folder: PathBuf,
    picker: Option<SocketAddr>,
    seed: u64,
    started: usize,
    servers: Vec<Replica>,
    leaving: JoinSet<()>,
}

struct Replica {
    server: Server,
    ready_at: Instant,
    listed: bool,
}

impl Deployment {
    /// One server, ready at once; the files are in `folder`.
    pub(crate) async fn start(folder: &Path, seed: u64) -> anyhow::Result<Self> {
        let folder = folder.to_owned();
        let mut deployment = Self { folder, picker: None, seed, started: 0, servers: Vec::new(), leaving: JoinSet::new() };
        deployment.add(Duration::ZERO).await?;
        deployment.settle().await?;
        Ok(deployment)
    }

    /// The file of pools for the picker: the ready servers.
    pub(crate) fn picker_file(&self) -> PathBuf {
        self.folder.join("picker.yaml")
    }

    /// The file of pools for the exporter and the adapter: the servers, and the picker in front of them.
    pub(crate) fn pools_file(&self) -> PathBuf {
        self.folder.join("pools.yaml")
    }

    /// The picker in front of the servers has its page here.
    pub(crate) async fn behind(&mut self, picker: SocketAddr) -> anyhow::Result<()> {
        self.picker = Some(picker);
        self.publish().await
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
            model: MODEL.into(),
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

    /// Writes the list of ready servers.
    async fn publish(&mut self) -> anyhow::Result<()> {
        let ready = self.servers.iter().filter(|replica| replica.listed);
        let endpoints: Vec<_> = ready.map(|replica| format!("\"{}\"", replica.server.addr())).collect();
        let endpoints = endpoints.join(", ");
        let pool = format!(
            "apiVersion: weir/v1\npools:\n- name: {POOL}\n  namespace: {NAMESPACE}\n  engine: vllm\n  endpoints: [{endpoints}]\n"
        );
        let pickers = self.picker.map_or_else(String::new, |picker| format!("  pickers: [\"http://{picker}/metrics\"]\n"));
        written(&self.picker_file(), &pool).await?;
        written(&self.pools_file(), &format!("{pool}{pickers}")).await
    }
}

/// Writes a file such that no reader ever sees half of it.
async fn written(path: &Path, content: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let done = async {
        tokio::fs::write(&new, content).await?;
        tokio::fs::rename(&new, path).await
    };
    done.await.with_context(|| format!("{} cannot be written", path.display()))
}
