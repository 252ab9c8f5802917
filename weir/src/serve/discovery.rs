//! Where pools come from: a file, or the InferencePools of a cluster.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_collector::{
    Access, CollectorConfig, KubeDiscovery, KubeDiscoveryConfig, PickerPages, PodMetrics, PoolGroups, PoolsFile, PoolsFileWatcher,
    Scope, WantedPool,
};
use weir_k8s::PoolVersion;
use weir_serving::Health;

use crate::args::{PoolGroup, PoolsArguments, ReadingArguments};

/// Which pools are wanted, as the source last said.
pub(crate) type Wanted = watch::Receiver<Arc<Vec<WantedPool>>>;

/// A source of pools.
pub(crate) enum Source {
    File(PoolsFileWatcher),
    Cluster(Box<KubeDiscovery>),
}

impl Source {
    /// The file at `pools`, looked at every `poll_every` if given.
    pub(crate) fn file(pools: &Path, poll_every: Option<Duration>, registry: &mut Registry) -> anyhow::Result<(Self, Wanted)> {
        let (watcher, wanted) = PoolsFile::load(pools)?.watch(registry);
        let watcher = match poll_every {
            Some(interval) => watcher.poll_every(interval),
            None => watcher,
        };
        Ok((Self::File(watcher), wanted))
    }

    /// What the arguments ask for.
    pub(crate) fn of(
        arguments: &PoolsArguments,
        client: Option<&kube::Client>,
        registry: &mut Registry,
    ) -> anyhow::Result<(Self, Wanted)> {
        let scope = match (&arguments.pools, &arguments.namespace, arguments.all_namespaces) {
            (Some(file), ..) => return Self::file(file, None, registry),
            (None, Some(namespace), _) => Scope::Namespace(namespace.clone()),
            (None, None, true) => Scope::All,
            (None, None, false) => bail!(
                "which pools? --pools FILE describes them; in a cluster --all-namespaces or --namespace NAMESPACE takes its InferencePools"
            ),
        };
        let client = client.context("InferencePools are read from a cluster")?.clone();
        let (discovery, wanted) = in_cluster(&arguments.reading, scope, client, registry)?;
        Ok((Self::Cluster(Box::new(discovery)), wanted))
    }

    /// Follows the source until `stop`; `health` is not ready before it was read once.
    pub(crate) fn follow(self, health: &Health, tasks: &mut JoinSet<()>, stop: CancellationToken) {
        match self {
            Self::File(watcher) => {
                tasks.spawn(watcher.run(stop));
            }
            Self::Cluster(discovery) => {
                let blocker = health.block("informer-sync");
                blocker.because("InferencePools and pods have not been listed yet");
                let mut synced = discovery.synced();
                tasks.spawn(async move {
                    // An end without a list is the end of the process.
                    if synced.wait_for(|synced| *synced).await.is_ok() {
                        drop(blocker);
                    }
                });
                tasks.spawn(discovery.run(stop));
            }
        }
    }
}

/// Discovery of the pools of `scope`, whose pages are read as the arguments say.
pub(crate) fn in_cluster(
    arguments: &ReadingArguments,
    scope: Scope,
    client: kube::Client,
    registry: &mut Registry,
) -> anyhow::Result<(KubeDiscovery, Wanted)> {
    let groups = match arguments.pool_group {
        PoolGroup::Auto => PoolGroups::Auto,
        PoolGroup::V1 => PoolGroups::Only(PoolVersion::V1),
        PoolGroup::V1Alpha2 => PoolGroups::Only(PoolVersion::V1Alpha2),
    };
    let metrics =
        PodMetrics { path: arguments.metrics_path.as_str().into(), port: arguments.metrics_port, ..PodMetrics::default() };
    let access =
        Access { bearer_token_file: arguments.picker_token_file.clone(), bearer_token_may_be_absent: true, ..Access::default() };
    let pickers = PickerPages { access, ..PickerPages::default() };
    let config = KubeDiscoveryConfig { scope, groups, metrics, pickers, ..KubeDiscoveryConfig::default() };
    Ok(KubeDiscovery::new(client, config, registry)?)
}

/// How the arguments want pages read.
pub(crate) fn collector_config(arguments: &ReadingArguments) -> CollectorConfig {
    CollectorConfig { timeout: arguments.scrape_timeout, ..CollectorConfig::default() }.every(arguments.scrape_interval)
}
