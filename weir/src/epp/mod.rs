//! `weir epp`: the endpoint picker of one pool, in the place of the Go picker and with its command line.
//!
//! 1. `table`: the flags of all versions.
//! 2. `options`: flags and environment to what the picker is to do.
//! 3. `config`, `reload`, `rules`: scheduling, also while its file changes, and what users say about requests.
//! 4. `pool`, `http`, `ready`: where the pool comes from, clients without a gateway, whether there is a pool to pick from.
//! 5. `known_models`: what servers list, where requests for other models are refused.
//! 6. [`run`]: all of it together.

mod config;
mod http;
mod known_models;
mod options;
mod pool;
mod ready;
mod reload;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_collector::{Activity, Collector, CollectorConfig};
use weir_datastore::datastore;
use weir_epp::director::{DirectorSettings, PoolDirector, SNAPSHOT_LASTS, TellActivity};
use weir_epp::exchange::Settings;
use weir_epp::frontend::{Certificate, Frontend, Servers};
use weir_epp::journal::{AccessLog, Journal};
use weir_epp::metrics::EppMetrics;
use weir_epp::standalone::Proxy;
use weir_serving::{Drain, Health, Server, Shutdown};
use weir_traces::Exporter;

use self::config::Configuration;
use self::options::Options;
use self::pool::Source;
use self::ready::{PoolWatch, first_look};
use self::reload::Follower;
use self::table::PICKER;
use crate::args::GoArguments;
use crate::go_flags::{Given, Program};
use crate::metrics_server::MetricsServer;
use crate::process::{Base, ENDPOINTS_TOLD, until_ended};

/// How often an idle server is read, at least: one that died has lost its requests well within a second.
const IDLE: Duration = Duration::from_millis(500);
/// Pages of servers at work that are read a second, at most: a tenth of a core. What a picker has sent since it knows itself.
const MOST_BUSY_READS: u32 = 2_000;
/// What is left of the pod's 130 s for answers to end, some of which take a minute.
const GRACE: Duration = Duration::from_secs(100);
/// Series per pool that name an endpoint, at most.
const ENDPOINT_SERIES: usize = 1024;
/// How long the last lines of the access log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// What the picker itself is called where it has no pod.
const OWN_NAME: &str = "self";

/// Its command line.
pub(crate) fn program() -> &'static Program {
    &PICKER
}

/// Picks until a signal, then drains.
pub(crate) async fn run(arguments: GoArguments) -> anyhow::Result<()> {
    let told = |wrong: Vec<String>| anyhow::anyhow!("{}", wrong.join("\n"));
    let given = Given::read(&PICKER, &arguments.arguments).map_err(told)?;
    if given.help {
        print!("{}", PICKER.help());
        return Ok(());
    }
    let mut options = Options::of(&given, &|name| std::env::var(name).ok()).map_err(told)?;
    let shutdown = Shutdown::on_signals().context("signals cannot be watched")?;
    let mut running = start(&mut options, shutdown.token()).await?;
    until_ended(&shutdown, &mut running.tasks).await
}

/// A picker at work.
pub(crate) struct Running {
    /// All that it does; ends with what it was started with.
    pub(crate) tasks: JoinSet<()>,
    /// Where its page and its stream are.
    pub(crate) metrics: SocketAddr,
    /// Where clients are served without a gateway.
    pub(crate) http: Option<SocketAddr>,
}

/// A picker for the demo: as with this command line, looking at the pools file every `poll`.
pub(crate) async fn start_for_demo(line: &[String], poll: Duration, leaving: CancellationToken) -> anyhow::Result<Running> {
    let told = |wrong: Vec<String>| anyhow::anyhow!("{}", wrong.join("\n"));
    let given = Given::read(&PICKER, line).map_err(told)?;
    let mut options = Options::of(&given, &|_| None).map_err(told)?;
    options.pools_poll = Some(poll);
    start(&mut options, leaving).await
}

/// Starts everything; all ends with `leaving`.
async fn start(options: &mut Options, leaving: CancellationToken) -> anyhow::Result<Running> {
    let mut notes = std::mem::take(&mut options.notes);
    let Base { mut registry, metrics: serving } = Base::default();
    let configuration = Configuration {
        source: options.config.clone(),
        saturation: options.saturation,
        hold_empty: options.hold_empty,
        old: options.old,
    };
    let configuration = Follower::new(configuration, &mut notes, &mut registry)?;
    let scheduling = configuration.in_force().clone();
    let (health, mut tasks, drained) = (Health::new(), JoinSet::new(), CancellationToken::new());

    let source = Source::of(options, &scheduling.data_layer, &mut notes, &mut registry).await?;
    notes.iter().for_each(|note| warn!("{note}"));
    configuration.tell_of_idle_scorers();
    let Source { pool, wanted, resources, client, .. } = &source;
    let (pool, wanted, resources) = (pool.clone(), wanted.clone(), resources.clone());
    let metrics_server = MetricsServer::new(&options.metrics_access, client.as_ref(), &serving)?;
    let drain =
        Drain { delay: options.drain.unwrap_or(if client.is_some() { ENDPOINTS_TOLD } else { Duration::ZERO }), grace: GRACE };

    let (store, topology) = datastore();
    let refresh = scheduling.data_layer.source.interval.map_or(options.refresh, options::refresh_within_bounds);
    let pace = CollectorConfig {
        busy_interval: refresh,
        most_busy_reads: NonZeroU32::new(MOST_BUSY_READS),
        idle_interval: IDLE.max(refresh),
        ..CollectorConfig::default()
    };
    let mut collector = Collector::new(pace, topology, &mut registry)?;
    let writers = collector.own_picker(own_name().into());

    let build = (option_env!("WEIR_COMMIT").unwrap_or("unknown"), env!("CARGO_PKG_VERSION"));
    let metrics = EppMetrics::register(&mut registry, &pool.name, &scheduling, build.0, build.1);
    let settings = Settings {
        several_endpoints: true,
        subset_filter: options.honour_subset,
        served_verifier: scheduling.verify_served,
        ask_for_bodies: options.ask_for_bodies,
        parsers: scheduling.parsers.clone(),
        reporters: scheduling.reporters.clone(),
        error_prefix: options.error_prefix,
        served_header: options.served_header.as_deref().map(Into::into),
        ..Settings::default()
    };
    let for_director =
        DirectorSettings { pool: pool.clone(), scheduling, honour_subset: options.honour_subset, snapshot_lasts: SNAPSHOT_LASTS };
    let tell = tell_activity(collector.activity());
    let director = PoolDirector::new(for_director, store.clone(), resources, metrics, tell, rand::make_rng(), Instant::now());
    let frontend =
        Frontend::new(Arc::new(director.clone()), settings, rand::make_rng(), health.clone(), leaving.clone(), &mut registry)?;
    let Told { journal, exporter } = Told::of(options, &mut registry)?;
    let access_log = journal.access_log.clone();
    let frontend = frontend.telling(journal);
    let proxy = match &options.http {
        Some(http) => Some((http, Proxy::new(frontend.clone(), http.proxy()?, &mut registry))),
        None => None,
    };
    let certificate = match (options.secure, &options.cert_path) {
        (false, _) => Certificate::PlainText,
        (true, Some(directory)) => Certificate::Directory(directory.clone()),
        (true, None) => Certificate::SelfMade,
    };
    let bind = options.bind.unwrap_or_else(any_address);
    let at = |port| SocketAddr::new(bind, port);
    let http = match proxy {
        Some((http, proxy)) => Some(http.bind(proxy.router(), bind, serving.clone(), health.clone(), drain.clone()).await?),
        None => None,
    };
    let servers = Servers::bind(
        frontend,
        at(options.ext_proc_port),
        at(options.health_port),
        certificate,
        drain,
        serving.clone(),
        SystemTime::now(),
    )
    .await?;
    let watch = PoolWatch::new(pool.clone(), wanted.clone(), source.cluster(), source.way_out.clone(), &health, &mut registry);
    let look = || first_look(store.clone(), pool.clone(), watch.missing());
    let (before_ext_proc, before_http) = (look(), look());
    let streams = weir_exporter::register(&mut registry, store.clone(), ENDPOINT_SERIES);
    let page = weir_exporter::router(store, Arc::new(registry), streams).merge(configuration.router());
    let page = metrics_server.bind(page, at(options.metrics_port), serving, health).await?;
    let (ext_proc, health_at, metrics_at) = (servers.ext_proc_addr(), servers.health_addr(), page.local_addr());
    let http_at = http.as_ref().map(Server::local_addr);
    let http_shown = http_at.map(tracing::field::display);
    info!(%pool, %ext_proc, health = %health_at, metrics = %metrics_at, http = http_shown, "picking endpoints");

    if options.refuse_unknown_models {
        let lists = known_models::follow(wanted.clone(), pool.clone(), options.model_server.clone(), director.clone());
        let ended = drained.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = lists => {}
                () = ended.cancelled() => {}
            }
        });
    }
    tasks.spawn(collector.run(wanted, drained.clone()));
    tasks.spawn(watch.run(drained.clone()));
    if let Some(promises) = source.promises(&director) {
        let ended = drained.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = promises => {}
                () = ended.cancelled() => {}
            }
        });
    }
    source.follow(&mut tasks, &drained);
    tasks.spawn(configuration.run(director.clone(), drained.clone()));
    let dispatcher = director.clone();
    let no_more_waiting = leaving.clone();
    tasks.spawn(async move { dispatcher.dispatch(no_more_waiting).await });
    let publishing = drained.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = director.publish(writers) => {}
            () = publishing.cancelled() => {}
        }
    });
    if let Some(exporter) = exporter {
        tasks.spawn(exporter.run(drained.clone()));
    }
    // The page and what answers depend on go on until the last request has its answer.
    let last = drained.clone();
    tasks.spawn(async move { drop(page.serve(last).await) });
    tasks.spawn(async move {
        let http = async {
            if let Some(http) = http {
                tokio::select! {
                    () = before_http => {}
                    () = leaving.cancelled() => {}
                }
                drop(http.serve(leaving.clone()).await);
            }
        };
        let (_report, ()) = tokio::join!(servers.serve(before_ext_proc), http);
        drained.cancel();
        if let Some(log) = access_log {
            log.flush(LAST_LINES).await;
        }
    });
    Ok(Running { tasks, metrics: metrics_at, http: http_at })
}

/// What is told of each request, and what sends it on.
struct Told {
    journal: Journal,
    exporter: Option<Exporter>,
}

impl Told {
    fn of(options: &Options, registry: &mut Registry) -> anyhow::Result<Self> {
        let mut told = Self { journal: Journal::default(), exporter: None };
        if let Some(target) = &options.access_log {
            let (log, writer) = AccessLog::new(target, registry).with_context(|| format!("--access-log: {target}"))?;
            writer.start().context("the access log needs a thread")?;
            told.journal.access_log = Some(log);
        }
        if let Some(settings) = &options.traces {
            let (tracer, exporter) = Exporter::new(settings, env!("CARGO_PKG_VERSION"), registry)?;
            info!(endpoint = settings.endpoint, protocol = ?settings.protocol, "sending spans");
            (told.journal.tracer, told.exporter) = (Some(tracer), Some(exporter));
        }
        Ok(told)
    }
}

fn tell_activity(activity: Activity) -> TellActivity {
    Arc::new(move |pool, at| {
        let cell = activity.endpoint(pool, at);
        Box::new(move |busy| cell.set(busy))
    })
}

/// What the picker is called on the stream: two weirs that follow it must know it for one.
fn own_name() -> String {
    std::env::var("POD_NAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| OWN_NAME.into())
}

/// Every address, of both versions of IP where there are two.
pub(crate) fn any_address() -> IpAddr {
    match std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}
