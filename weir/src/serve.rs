//! `weir exporter`, `weir adapter`, `weir serve`: discovery, scraping and servers on one datastore.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_adapter::{AdapterConfig, ResourceLabels};
use weir_collector::{Collector, CollectorConfig, PoolsFile};
use weir_datastore::{Datastore, datastore};
use weir_serving::{
    Authentication, Authenticator, BearerTokens, CertificateAuthority, ClientCertificates, Drain, Health, RequestLimits, Server,
    ServingMetrics, Shutdown, Tls,
};

use crate::args::{
    AdapterArguments, AdapterListenArguments, ExporterArguments, ExporterListenArguments, MetricsApi, PoolsArguments,
    ServeArguments,
};

/// How often the demo looks at its pools file: its servers come and go within seconds.
const DEMO_POLL: Duration = Duration::from_millis(100);

/// An HPA controller has five workers for all HPAs of a cluster: none of them is to wait long for an answer.
const ADAPTER_DEADLINE: Duration = Duration::from_millis(900);

/// Endpoints that the demo's page names, at most.
const DEMO_ENDPOINT_SERIES: usize = 256;

/// `weir exporter`.
pub(crate) async fn exporter(arguments: ExporterArguments) -> anyhow::Result<()> {
    run(&arguments.pools, Some(&arguments.listen), None).await
}

/// `weir adapter`.
pub(crate) async fn adapter(arguments: AdapterArguments) -> anyhow::Result<()> {
    run(&arguments.pools, None, Some(&arguments.listen)).await
}

/// `weir serve`.
pub(crate) async fn both(arguments: ServeArguments) -> anyhow::Result<()> {
    run(&arguments.pools, Some(&arguments.exporter), Some(&arguments.adapter)).await
}

/// Serves until a signal, then drains.
async fn run(
    pools: &PoolsArguments,
    exporter: Option<&ExporterListenArguments>,
    adapter: Option<&AdapterListenArguments>,
) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be watched")?;
    let config = CollectorConfig { timeout: pools.scrape_timeout, ..CollectorConfig::default() }.every(pools.scrape_interval);
    let mut line = Line::new(&pools.pools, config, None)?;
    let mut servers = Vec::new();
    if let Some(adapter) = adapter {
        let api = weir_adapter::router(line.datastore.clone(), adapter_config(adapter), &mut line.registry);
        let limits = RequestLimits { deadline: ADAPTER_DEADLINE, ..RequestLimits::default() };
        let server = line.server("adapter", api, adapter.adapter_listen).request_limits(limits);
        let (tls, authority) = tls(adapter)?;
        let server = server.tls(tls).authentication(authentication(adapter)?).bind().await?;
        if let (Some(path), Some(authority)) = (&adapter.tls_ca_out, authority) {
            std::fs::write(path, authority.ca_pem()).with_context(|| format!("--tls-ca-out {}", path.display()))?;
        }
        servers.push(server);
    }
    let endpoint_series = exporter.map_or(0, |exporter| exporter.endpoint_series);
    let streams = weir_exporter::register(&mut line.registry, line.datastore.clone(), endpoint_series);
    let registry = Arc::new(std::mem::take(&mut line.registry));
    if let Some(exporter) = exporter {
        let pages = weir_exporter::router(line.datastore.clone(), registry, streams);
        let server = line.server("exporter", pages, exporter.exporter_listen);
        servers.push(server.authentication(Authentication::Everyone).bind().await?);
    }
    let mut tasks = line.start(servers, shutdown.token());
    tokio::select! {
        code = shutdown.insisted() => bail!("ended at once by a second signal (exit code {code} in a shell)"),
        () = finished(&mut tasks) => Ok(()),
    }
}

/// What servers share: one datastore, what fills it, one registry.
struct Line {
    datastore: Datastore,
    registry: Registry,
    metrics: ServingMetrics,
    health: Health,
    collector: Collector,
    watcher: weir_collector::PoolsFileWatcher,
    wanted: tokio::sync::watch::Receiver<Arc<Vec<weir_collector::WantedPool>>>,
}

impl Line {
    fn new(pools: &Path, config: CollectorConfig, poll_every: Option<Duration>) -> anyhow::Result<Self> {
        let loaded = PoolsFile::load(pools)?;
        let mut registry = Registry::default();
        weir_serving::process_metrics::register(&mut registry);
        let metrics = ServingMetrics::register(&mut registry);
        let (store, topology) = datastore();
        let collector = Collector::new(config, topology, &mut registry)?;
        let (watcher, wanted) = loaded.watch(&mut registry);
        let watcher = match poll_every {
            Some(interval) => watcher.poll_every(interval),
            None => watcher,
        };
        Ok(Self { datastore: store, registry, metrics, health: Health::new(), collector, watcher, wanted })
    }

    fn server(&self, name: &'static str, router: Router, listen: SocketAddr) -> weir_serving::ServerBuilder {
        Server::builder(router).name(name).listen(listen).metrics(self.metrics.clone()).health(self.health.clone())
    }

    /// Starts everything; all ends with `shutdown`.
    fn start(self, servers: Vec<Server>, shutdown: CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        // Scraping goes on while servers drain: what is still asked is still answered.
        let drained = CancellationToken::new();
        tasks.spawn(self.collector.run(self.wanted, drained.clone()));
        tasks.spawn(self.watcher.run(drained.clone()));
        let mut serving = JoinSet::new();
        for server in servers {
            serving.spawn(server.serve(shutdown.clone()));
        }
        tasks.spawn(async move {
            while serving.join_next().await.is_some() {}
            drained.cancel();
        });
        tasks
    }
}

async fn finished(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task failed");
        }
    }
}

fn adapter_config(arguments: &AdapterListenArguments) -> AdapterConfig {
    AdapterConfig {
        external: arguments.metrics_apis.contains(&MetricsApi::External),
        custom: arguments.metrics_apis.contains(&MetricsApi::Custom),
        allow_cross_namespace: arguments.allow_cross_namespace,
        resource: ResourceLabels {
            cluster: arguments.gke_cluster.clone(),
            location: arguments.gke_location.clone(),
            project_id: arguments.gke_project.clone(),
            resource_type: None,
        },
        ..AdapterConfig::default()
    }
}

/// The adapter's certificate, and the authority of one that it makes itself.
fn tls(arguments: &AdapterListenArguments) -> anyhow::Result<(Tls, Option<Arc<CertificateAuthority>>)> {
    let (tls, authority) = match (&arguments.tls_cert_file, &arguments.tls_private_key_file) {
        (Some(certificate), Some(key)) => (Tls::files(certificate, key), None),
        _ => {
            let authority = Arc::new(CertificateAuthority::new(std::time::SystemTime::now())?);
            (Tls::self_made(authority.clone(), arguments.tls_name.iter().cloned()), Some(authority))
        }
    };
    Ok((
        match &arguments.client_ca_file {
            Some(client_ca) => tls.client_ca(client_ca),
            None => tls,
        },
        authority,
    ))
}

fn authentication(arguments: &AdapterListenArguments) -> anyhow::Result<Authentication> {
    if arguments.open_on_loopback {
        return Ok(Authentication::OpenOnLoopback);
    }
    let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
    if arguments.client_ca_file.is_some() {
        ways.push(Arc::new(ClientCertificates));
    }
    if let Some(tokens) = &arguments.token_file {
        ways.push(Arc::new(BearerTokens::from_file(tokens)?));
    }
    if ways.is_empty() {
        bail!(
            "nobody may read the metrics API yet: give --token-file or --client-ca-file; to try things out on this machine, \
             --open-on-loopback with --adapter-listen 127.0.0.1:6443"
        );
    }
    Ok(Authentication::AnyOf(ways))
}

/// What the demo asks for.
pub(crate) struct DemoServers {
    /// The pools file.
    pub(crate) pools: PathBuf,
    /// Where the exporter listens.
    pub(crate) exporter: SocketAddr,
    /// Where the adapter listens.
    pub(crate) adapter: SocketAddr,
}

/// Exporter and adapter at work.
pub(crate) struct RunningServers {
    /// What they answer from.
    pub(crate) datastore: Datastore,
    /// Where the exporter listens.
    pub(crate) exporter: SocketAddr,
    /// Where the adapter listens.
    pub(crate) adapter: SocketAddr,
    /// The authority of the adapter's certificate.
    pub(crate) ca_pem: String,
    tasks: JoinSet<()>,
}

impl RunningServers {
    /// Waits until everything has ended.
    pub(crate) async fn finished(mut self) {
        finished(&mut self.tasks).await;
    }
}

/// Exporter and adapter for the demo: as `weir serve`, open on loopback, looking at the pools file more often.
pub(crate) async fn start_for_demo(options: DemoServers, stop: CancellationToken) -> anyhow::Result<RunningServers> {
    let mut line = Line::new(&options.pools, CollectorConfig::default(), Some(DEMO_POLL))?;
    let authority = Arc::new(CertificateAuthority::new(std::time::SystemTime::now())?);
    let ca_pem = authority.ca_pem().to_owned();
    let drain = Drain { delay: Duration::ZERO, grace: Duration::from_secs(1) };
    let api = weir_adapter::router(line.datastore.clone(), AdapterConfig::default(), &mut line.registry);
    let tls = Tls::self_made(authority, Vec::<String>::new());
    let adapter = line.server("adapter", api, options.adapter).tls(tls).drain(drain.clone()).bind().await?;
    let streams = weir_exporter::register(&mut line.registry, line.datastore.clone(), DEMO_ENDPOINT_SERIES);
    let pages = weir_exporter::router(line.datastore.clone(), Arc::new(std::mem::take(&mut line.registry)), streams);
    let exporter = line.server("exporter", pages, options.exporter).drain(drain).bind().await?;
    Ok(RunningServers {
        datastore: line.datastore.clone(),
        exporter: exporter.local_addr(),
        adapter: adapter.local_addr(),
        ca_pem,
        tasks: line.start(vec![adapter, exporter], stop),
    })
}
