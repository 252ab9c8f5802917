//! `weir scaler`: discovery, measurement and scaling of each namespace, by whichever replica leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_collector::{Collector, Scope};
use weir_datastore::datastore;
use weir_k8s::{ANNOTATION_PREFIX, EventMetrics, EventRecorder, Leader, Leadership, LeaseMetrics, LeaseSettings, Reporter};
use weir_scaler::zero::{Scaler, ScalerMetrics, ScalerSettings, Selectors, SharedBudget};
use weir_serving::{Drain, Health, Server, Shutdown};

use crate::args::ScalerArguments;
use crate::process::{Base, until_ended};
use crate::serve::cluster::Cluster;
use crate::serve::discovery::{Wanted, collector_config, in_cluster};
use crate::serve::{DEFAULT_REVIEW_TTL, reviewed_exporter};

/// Nobody waits for the page.
const DRAIN: Drain = Drain { delay: Duration::ZERO, grace: Duration::from_secs(1) };
/// Namespaces of one process: each has watches and connections of its own.
const MOST_NAMESPACES: usize = 100;

/// Scales until a signal; then the Lease is released, so that another replica leads at once.
pub(crate) async fn run(arguments: ScalerArguments) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be watched")?;
    let stop = shutdown.token();
    let namespaces: BTreeSet<&str> = arguments.namespaces.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    if namespaces.is_empty() || namespaces.len() > MOST_NAMESPACES {
        bail!("{} namespaces: name 1 to {MOST_NAMESPACES} with --namespace", namespaces.len());
    }
    let Base { mut registry, metrics } = Base::default();
    let cluster = Cluster::connect(&arguments.reading, DEFAULT_REVIEW_TTL, &metrics).await.context("no cluster")?;
    let client = &cluster.client;
    let (lease_metrics, event_metrics) = (LeaseMetrics::register(&mut registry), EventMetrics::register(&mut registry));
    let common = Common { scaler_metrics: ScalerMetrics::register(&mut registry), budget: SharedBudget::new(Instant::now()) };
    let health = Health::new();
    let home = arguments.lease_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = LeaseSettings::identity(&arguments.identity, &mut rand::make_rng::<StdRng>());
    let lease = LeaseSettings::new(home, &arguments.lease, identity);
    let leadership = Leadership::run(client.clone(), lease, lease_metrics, stop.clone())?;
    let reporter = Reporter { controller: format!("{ANNOTATION_PREFIX}scaler"), instance: arguments.identity.clone() };
    let (recorder, events) = EventRecorder::start(client.clone(), reporter, event_metrics);
    let mut tasks = JoinSet::new();
    let listed = namespaces.iter().map(|namespace| {
        let registry = registry.sub_registry_with_label(("watched_namespace".into(), (*namespace).to_owned().into()));
        let handles = Handles { client: client.clone(), leader: leadership.leader(), recorder: recorder.clone() };
        begin(&arguments, namespace, registry, handles, &common, &mut tasks, &stop)
    });
    let listed: Vec<_> = listed.collect::<anyhow::Result<_>>()?;
    drop(recorder);
    ready_once(listed, &health, &mut tasks, stop.clone());
    let page = weir_exporter::metrics_router(Arc::new(registry));
    let server = Server::builder(page).name("scaler").listen(arguments.listen).metrics(metrics).health(health).drain(DRAIN);
    let server = reviewed_exporter(server, Some(arguments.access), Some(&cluster))?.bind().await?;
    tasks.spawn(async move { drop(server.serve(stop).await) });
    let ended = until_ended(&shutdown, &mut tasks).await;
    leadership.ended().await;
    // What was told last is written.
    if let Err(error) = events.await {
        tracing::error!(%error, "the task that writes Events failed");
    }
    ended
}

/// What the scalers of all namespaces share.
struct Common {
    scaler_metrics: ScalerMetrics,
    budget: SharedBudget,
}

/// What each of them works through.
struct Handles {
    client: kube::Client,
    leader: Leader,
    recorder: EventRecorder,
}

/// Starts all that one namespace needs; what comes out ends once everything there was listed.
fn begin(
    arguments: &ScalerArguments,
    namespace: &str,
    registry: &mut Registry,
    handles: Handles,
    common: &Common,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<(String, impl Future<Output = ()> + Send + use<>)> {
    let scope = Scope::Namespace(namespace.to_owned());
    let (discovery, wanted) = in_cluster(&arguments.reading, scope, handles.client.clone(), registry)?;
    let (store, topology) = datastore();
    let collector = Collector::new(collector_config(&arguments.reading), topology, registry)?;
    let (sender, selectors) = watch::channel(None);
    tasks.spawn(follow_selectors(wanted.clone(), discovery.synced(), sender));
    tasks.spawn(collector.run(wanted, stop.clone()));
    tasks.spawn(discovery.run(stop.clone()));
    let settings = ScalerSettings {
        namespace: namespace.to_owned(),
        annotation_prefix: ANNOTATION_PREFIX.to_owned(),
        dry_run: arguments.dry_run,
    };
    let Handles { client, leader, recorder } = handles;
    let scaler = Scaler::new(
        client,
        settings,
        store,
        selectors,
        leader,
        recorder,
        common.budget.clone(),
        common.scaler_metrics.clone(),
        stop.clone(),
    );
    let listed = scaler.listed();
    tasks.spawn(scaler.run(stop.clone()));
    Ok((namespace.to_owned(), listed))
}

/// Which labels each pool's pods have, once pools were listed.
async fn follow_selectors(mut wanted: Wanted, mut synced: watch::Receiver<bool>, sender: watch::Sender<Option<Arc<Selectors>>>) {
    if synced.wait_for(|synced| *synced).await.is_err() {
        return;
    }
    loop {
        let selectors: Selectors =
            wanted.borrow_and_update().iter().map(|pool| (pool.spec.id.clone(), pool.selector.clone())).collect();
        sender.send_if_modified(|known| {
            let changed = known.as_deref() != Some(&selectors);
            *known = Some(Arc::new(selectors));
            changed
        });
        // Ends with discovery.
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Not ready before every namespace was listed: says which are missing.
fn ready_once(
    listed: Vec<(String, impl Future<Output = ()> + Send + 'static)>,
    health: &Health,
    tasks: &mut JoinSet<()>,
    stop: CancellationToken,
) {
    let blocker = health.block("informer-sync");
    let mut missing: BTreeSet<String> = listed.iter().map(|(namespace, _)| namespace.clone()).collect();
    let mut all = JoinSet::new();
    for (namespace, listed) in listed {
        all.spawn(async move {
            listed.await;
            namespace
        });
    }
    tasks.spawn(async move {
        while !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(String::as_str).collect();
            blocker.because(format!(
                "HorizontalPodAutoscalers, InferencePools or pods have not been listed yet in: {}; see the log for missing rights",
                names.join(", ")
            ));
            tokio::select! {
                () = stop.cancelled() => return,
                Some(Ok(namespace)) = all.join_next() => drop(missing.remove(&namespace)),
                else => return,
            }
        }
        drop(blocker);
    });
}
