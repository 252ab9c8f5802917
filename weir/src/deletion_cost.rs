//! `weir deletion-cost`: discovery, scraping, a Lease, and the patches.

use std::sync::Arc;

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use weir_collector::Collector;
use weir_datastore::datastore;
use weir_k8s::{Leadership, LeaseMetrics, LeaseSettings};
use weir_scaler::deletion_cost::cost::Memory;
use weir_scaler::deletion_cost::{DeletionCost, DeletionCostMetrics, DeletionCostSettings, Writes};
use weir_serving::{Authentication, Health, Server, Shutdown};

use crate::args::DeletionCostArguments;
use crate::process::{Base, until_ended};
use crate::serve::discovery::{Source, collector_config};

/// Runs until a signal; what was written stays.
pub(crate) async fn run(arguments: DeletionCostArguments) -> anyhow::Result<()> {
    let pools = &arguments.pools;
    if pools.pools.is_some() {
        bail!("pods are a cluster's: give --namespace or --all-namespaces in place of --pools");
    }
    let shutdown = Shutdown::on_signals().context("signals cannot be watched")?;
    let stop = shutdown.token();
    let Base { mut registry, metrics } = Base::default();
    let reading = &pools.reading;
    let client = reading.cluster.options().connect().await?;
    let (source, wanted) = Source::of(pools, Some(&client), &mut registry)?;
    let (store, topology) = datastore();
    let collector = Collector::new(collector_config(reading), topology, &mut registry)?;
    let health = Health::new();
    let mut tasks = JoinSet::new();

    let lease_metrics = LeaseMetrics::register(&mut registry);
    let writes = if arguments.dry_run {
        Writes::DryRun
    } else {
        let settings = lease(&arguments.lease, client.default_namespace())?;
        let leadership = Leadership::run(client.clone(), settings, lease_metrics, stop.clone())?;
        let leader = leadership.leader();
        tasks.spawn(leadership.ended());
        Writes::WhileLeading(leader)
    };
    let settings = DeletionCostSettings {
        namespace: pools.namespace.clone(),
        patches_per_minute: arguments.patches_per_minute,
        memory: Memory { requests: arguments.requests_half_life, warmth: arguments.warmth_half_life },
    };
    let cost_metrics = DeletionCostMetrics::register(&mut registry);
    let cost = DeletionCost::new(client, store, settings, writes, cost_metrics);
    let blocker = health.block("pods-sync");
    blocker.because("pods have not been listed yet");
    let mut synced = cost.synced();
    tasks.spawn(async move {
        if synced.wait_for(|synced| *synced).await.is_ok() {
            drop(blocker);
        }
    });

    let page = weir_exporter::metrics_router(Arc::new(registry));
    let server = Server::builder(page).name("deletion-cost").listen(arguments.listen).metrics(metrics).health(health.clone());
    let server = server.authentication(Authentication::Everyone).bind().await?;
    tasks.spawn(collector.run(wanted, stop.clone()));
    source.follow(&health, &mut tasks, stop.clone());
    tasks.spawn(cost.run(stop.clone()));
    tasks.spawn(async move {
        let report = server.serve(stop).await;
        tracing::info!(%report, "metrics page no longer served");
    });
    until_ended(&shutdown, &mut tasks).await
}

/// The Lease that is meant, with an identity that no other process has: a pod's host name is the pod's.
fn lease(name: &str, own_namespace: &str) -> anyhow::Result<LeaseSettings> {
    let (namespace, name) = name.split_once('/').unwrap_or((own_namespace, name));
    if namespace.is_empty() || name.is_empty() {
        bail!("--lease is NAME or NAMESPACE/NAME, such as weir-system/weir-deletion-cost");
    }
    let system = rustix::system::uname();
    let mut rng: StdRng = rand::make_rng();
    let identity = LeaseSettings::identity(&system.nodename().to_string_lossy(), &mut rng);
    Ok(LeaseSettings::new(namespace, name, identity))
}
