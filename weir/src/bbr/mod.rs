//! `weir bbr`: body-based routing, in the place of the Go body-based router and with its command line.

mod options;
mod table;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::Router;
use axum::routing::get;
use kube::Api;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_bbr::decide::Routing;
use weir_bbr::exchange::Settings;
use weir_bbr::table::Table;
use weir_bbr::{BbrMetrics, Follower, Service};
use weir_ext_proc::{BodyMode, Certificate, Modes, Servers};
use weir_serving::{Drain, Health, Shutdown};

use self::options::Options;
use self::table::ROUTER;
use crate::args::GoArguments;
use crate::epp::any_address;
use crate::go_flags::{Given, Program};
use crate::metrics_server::MetricsServer;
use crate::process::{Base, ENDPOINTS_TOLD, until_ended};

/// What is left of the pod's time for answers to end: their streams are open as long.
const GRACE: Duration = Duration::from_secs(100);
/// For so long nobody is served at the start while mappings are not known: their requests would miss a header.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Its command line.
pub(crate) fn program() -> &'static Program {
    &ROUTER
}

/// Routes until a signal, then drains.
pub(crate) async fn run(arguments: GoArguments) -> anyhow::Result<()> {
    let told = |wrong: Vec<String>| anyhow::anyhow!("{}", wrong.join("\n"));
    let given = Given::read(&ROUTER, &arguments.arguments).map_err(told)?;
    if given.help {
        print!("{}", ROUTER.help());
        return Ok(());
    }
    let options = Options::of(&given, &|name| std::env::var(name).ok()).map_err(told)?;
    let shutdown = Shutdown::on_signals().context("signals cannot be watched")?;
    let mut tasks = start(&options, shutdown.token()).await?;
    until_ended(&shutdown, &mut tasks).await
}

async fn start(options: &Options, leaving: CancellationToken) -> anyhow::Result<JoinSet<()>> {
    options.notes.iter().for_each(|note| warn!("{note}"));
    let Base { mut registry, metrics: serving } = Base::default();
    let commit = option_env!("WEIR_COMMIT").unwrap_or("unknown");
    let metrics = BbrMetrics::register(&mut registry, &options.plugins, commit, env!("CARGO_PKG_VERSION"));
    let follower = Follower::new(options.rules.clone(), metrics.clone(), &mut registry).context("--rules")?;
    let client = match &options.cluster {
        Some(cluster) => Some(cluster.connect().await.context("no cluster")?),
        None => None,
    };
    let config_maps = client.clone().map(|client| match &options.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    });
    let mode = if options.streaming { BodyMode::FullDuplex } else { BodyMode::Buffered };
    let settings = Settings { untold_modes: Modes { request: mode, response: mode }, ..Settings::default() };
    let (health, mut tasks, drained) = (Health::new(), JoinSet::new(), CancellationToken::new());
    let table = follower.table();
    let service = Service::new(
        settings,
        Routing::new(options.plugins.clone()),
        table.clone(),
        rand::make_rng(),
        metrics,
        health.clone(),
        leaving.clone(),
    );
    let certificate = match (options.secure, &options.cert_path) {
        (false, _) => Certificate::PlainText,
        (true, Some(directory)) => Certificate::Directory(directory.clone()),
        (true, None) => Certificate::SelfMade,
    };
    let drain =
        Drain { delay: options.drain.unwrap_or(if client.is_some() { ENDPOINTS_TOLD } else { Duration::ZERO }), grace: GRACE };
    let bind = options.bind.unwrap_or_else(any_address);
    let at = |port| SocketAddr::new(bind, port);
    let (ext_proc, health_port) = (at(options.ext_proc_port), at(options.health_port));
    let servers = Servers::bind(service, ext_proc, health_port, certificate, drain, serving.clone(), SystemTime::now()).await?;
    let access = MetricsServer::new(&options.metrics_access, client.as_ref(), &serving)?;
    let page = weir_exporter::metrics_router(Arc::new(registry)).merge(rules_page(table));
    let page = access.bind(page, at(options.metrics_port), serving, health.clone()).await?;
    let (ext_proc, health_at, metrics_at) = (servers.ext_proc_addr(), servers.health_addr(), page.local_addr());
    info!(%ext_proc, health = %health_at, metrics = %metrics_at, "routing on bodies");

    let mut synced = follower.synced();
    let known = async move { drop(synced.wait_for(|synced| *synced).await) };
    let mut synced = follower.synced();
    let blocker = health.block("mappings");
    blocker.because("ConfigMaps with mappings have not been listed yet");
    let until = drained.clone();
    tasks.spawn(async move {
        tokio::select! {
            _ = synced.wait_for(|synced| *synced) => drop(blocker),
            () = until.cancelled() => {}
        }
    });
    tasks.spawn(follower.run(config_maps, drained.clone()));
    let last = drained.clone();
    tasks.spawn(async move { drop(page.serve(last).await) });
    tasks.spawn(async move {
        drop(servers.serve(async move { drop(timeout(FIRST_LOOK, known).await) }).await);
        drained.cancel();
    });
    Ok(tasks)
}

/// `GET /debug/rules`: what is in force.
fn rules_page(table: Arc<ArcSwap<Table>>) -> Router {
    Router::new().route("/debug/rules", get(move || async move { axum::Json(table.load().effective().clone()) }))
}
