//! Where the pool comes from: a cluster or files.

use std::sync::Arc;

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_collector::{
    Access, KubeDiscovery, KubeDiscoveryConfig, Obstacles, PickerPages, PodMetrics, PodsScope, PoolGroups, PoolsFile,
    PoolsFileWatcher, Promise, Scope, WantedPools,
};
use weir_datastore::PoolId;
use weir_epp::director::PoolDirector;
use weir_epp::flow::Expectation;
use weir_epp::resources::Resources;
use weir_epp::scheduling::config::DataLayer;
use weir_k8s::ClientOptions;

use super::options::{ModelServerMetrics, Options, PoolSource};
use super::rules::{Belongs, of_file};

/// The pool of a picker, and what users say about its requests.
pub(super) struct Source {
    pub(super) pool: PoolId,
    pub(super) wanted: WantedPools,
    pub(super) resources: watch::Receiver<Arc<Resources>>,
    /// The cluster, if there is one.
    pub(super) client: Option<kube::Client>,
    /// What to do where the pool is not there.
    pub(super) way_out: String,
    told: watch::Sender<Arc<Resources>>,
    kind: Kind,
}

enum Kind {
    File(PoolsFileWatcher),
    Cluster(Box<KubeDiscovery>, Belongs),
}

impl Source {
    /// What the options ask for, its pages read as `data_layer` says.
    pub(super) async fn of(
        options: &Options,
        data_layer: &DataLayer,
        notes: &mut Vec<String>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        match &options.pool {
            PoolSource::File { path, pool } => {
                if *data_layer != DataLayer::default() {
                    notes.push(format!(
                        "the parameters of metrics-data-source and core-metrics-extractor are passed over: {} says how pages are read",
                        path.display()
                    ));
                }
                let (told, resources) = watch::channel(Arc::default());
                let loaded = PoolsFile::load(path)?;
                let pools: Vec<PoolId> = loaded.pools.iter().map(|pool| pool.spec.id.clone()).collect();
                let known = || pools.iter().map(PoolId::to_string).collect::<Vec<_>>().join(", ");
                let pool = match (pool, &pools[..]) {
                    (Some((namespace, name)), _) => {
                        let pool = PoolId::new(namespace, name);
                        if !pools.contains(&pool) {
                            bail!("--pools {}: has no pool {pool}, but {}", path.display(), known());
                        }
                        pool
                    }
                    (None, [only]) => only.clone(),
                    (None, _) => bail!("--pools {}: which pool? Choose with --pool-name: {}", path.display(), known()),
                };
                if let Some(rules) = &options.rules {
                    let belongs = Belongs { pool: pool.clone(), group: None };
                    told.send_replace(Arc::new(belongs.resources(&of_file(rules)?)));
                }
                let (watcher, wanted) = loaded.watch(registry);
                let watcher = match options.pools_poll {
                    Some(interval) => watcher.poll_every(interval),
                    None => watcher,
                };
                let way_out = format!("write it into {} again", path.display());
                Ok(Self { pool, wanted, resources, client: None, way_out, told, kind: Kind::File(watcher) })
            }
            PoolSource::Cluster { namespace, name, version } => {
                let pool = PoolId::new(namespace, name);
                let way_out = format!("create it in {version}, or correct --pool-name, --pool-namespace or --pool-group");
                let belongs = Belongs { pool: pool.clone(), group: Some(version.group()) };
                let (scope, groups) = (Scope::Pool(pool), PoolGroups::Only(*version));
                Self::of_cluster(options, data_layer, scope, groups, belongs, way_out, registry).await
            }
            PoolSource::Selector { namespace, name, labels, ports } => {
                let pool = PoolId::new(namespace, name);
                let scope = Scope::Pods(PodsScope { pool: pool.clone(), labels: labels.clone(), target_ports: ports.clone() });
                // Nothing can refer to a pool that no object describes.
                let belongs = Belongs { pool, group: Some("") };
                Self::of_cluster(options, data_layer, scope, PoolGroups::default(), belongs, String::new(), registry).await
            }
        }
    }

    async fn of_cluster(
        options: &Options,
        data_layer: &DataLayer,
        scope: Scope,
        groups: PoolGroups,
        belongs: Belongs,
        way_out: String,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        if options.rules.is_some() {
            bail!("--rules goes with --pools: in a cluster InferenceObjectives and their kin are followed there");
        }
        let client = ClientOptions { kubeconfig: options.kubeconfig.clone(), context: options.context.clone() };
        let client = client.connect().await.context("no cluster (--pools FILE works without one)")?;
        let config = KubeDiscoveryConfig {
            rules: matches!(scope, Scope::Pool(_)),
            promises: true,
            scope,
            groups,
            metrics: pages(&options.model_server, data_layer),
            // This is the picker.
            pickers: PickerPages { read: false, ..PickerPages::default() },
            ..KubeDiscoveryConfig::default()
        };
        let (discovery, wanted) = KubeDiscovery::new(client.clone(), config, registry)?;
        let (told, resources) = watch::channel(Arc::default());
        let pool = belongs.pool.clone();
        let kind = Kind::Cluster(Box::new(discovery), belongs);
        Ok(Self { pool, wanted, resources, client: Some(client), way_out, told, kind })
    }

    /// What a cluster keeps back, and whether everything there was listed.
    pub(super) fn cluster(&self) -> Option<(watch::Receiver<Obstacles>, watch::Receiver<bool>)> {
        match &self.kind {
            Kind::File(_) => None,
            Kind::Cluster(discovery, _) => Some((discovery.obstacles(), discovery.synced())),
        }
    }

    /// Tells `director` what brings the pool back from zero, as that becomes.
    pub(super) fn promises(&self, director: &PoolDirector) -> Option<impl Future<Output = ()> + Send + 'static> {
        let Kind::Cluster(discovery, _) = &self.kind else { return None };
        let (mut promise, director) = (discovery.promise(), director.clone());
        Some(async move {
            loop {
                let expectation = match &*promise.borrow_and_update() {
                    Promise::Nothing => Expectation::Nothing,
                    Promise::Endpoint(what) => Expectation::Endpoint(what.clone()),
                    Promise::Pods(what) => Expectation::Pods(what.clone()),
                    Promise::Hindered(why) => Expectation::Hindered(why.clone()),
                };
                director.expectation().send_replace(expectation);
                if promise.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// Follows it until `stop`.
    pub(super) fn follow(self, tasks: &mut JoinSet<()>, stop: &CancellationToken) {
        match self.kind {
            Kind::File(watcher) => {
                let (told, stop) = (self.told, stop.clone());
                tasks.spawn(async move {
                    watcher.run(stop).await;
                    drop(told);
                });
            }
            Kind::Cluster(discovery, belongs) => {
                tasks.spawn(belongs.follow(discovery.rules(), self.told, stop.clone()));
                tasks.spawn(discovery.run(stop.clone()));
            }
        }
    }
}

/// How pods' pages are read: what the configuration says goes before the flags, as upstream has it.
fn pages(flags: &ModelServerMetrics, DataLayer { source, engine, families }: &DataLayer) -> PodMetrics {
    let access = Access {
        // Who names an authority wants it asked.
        insecure_skip_verify: source.insecure_skip_verify.unwrap_or(flags.insecure_skip_verify && source.ca_file.is_none()),
        ca_file: source.ca_file.clone(),
        ..Access::default()
    };
    PodMetrics {
        path: source.path.clone().unwrap_or_else(|| flags.path.as_str().into()),
        scheme: source.scheme.unwrap_or(flags.scheme),
        port: source.port.or(flags.port),
        engine: *engine,
        families: families.clone(),
        access,
    }
}
