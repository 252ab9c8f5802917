//! `weir exporter`, `weir adapter`, `weir serve`: discovery, scraping and servers on one datastore.

pub(crate) mod cluster;
mod demand;
pub(crate) mod discovery;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use axum::Router;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_adapter::registration::{Bundle, Registration, RegistrationSettings};
use weir_adapter::{AdapterConfig, ResourceLabels, ReviewedNamespaces, SharedAuthorizer};
use weir_collector::{Collector, CollectorConfig};
use weir_datastore::{Datastore, RequiredOptions, RequiredWriter, datastore};
use weir_serving::{
    Authentication, Authenticator, Authorization, BearerTokens, CertificateAuthority, ClientCertificates, Drain, Health,
    RequestLimits, RequestReviews, Server, ServerBuilder, ServingMetrics, Shutdown, Tls,
};

use self::cluster::Cluster;
use self::discovery::{Source, Wanted, collector_config};
use crate::args::{
    AdapterArguments, AdapterListenArguments, ExporterAccess, ExporterArguments, ExporterListenArguments, MetricsApi,
    PoolsArguments, ServeArguments, ServiceName,
};
use crate::process::{Base, ENDPOINTS_TOLD, finished, until_ended};

/// How often the demo looks at its pools file: its servers come and go within seconds.
pub(crate) const DEMO_POLL: Duration = Duration::from_millis(100);

/// An HPA controller has five workers for all HPAs of a cluster: none of them is to wait long for an answer.
const ADAPTER_DEADLINE: Duration = Duration::from_millis(900);

/// Endpoints that the demo's page names, at most.
const DEMO_ENDPOINT_SERIES: usize = 256;

/// What counts for the exporter alone: it has no flag of its own for it.
pub(crate) const DEFAULT_REVIEW_TTL: Duration = Duration::from_secs(10);

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
    let config = collector_config(&pools.reading);
    let mut base = Base::default();
    let review_ttl = adapter.map_or(DEFAULT_REVIEW_TTL, |adapter| adapter.review_ttl);
    let cluster = Cluster::of(pools, review_ttl, &base.metrics).await?;
    let source = Source::of(pools, cluster.as_ref().map(|cluster| &cluster.client), &mut base.registry)?;
    let mut line = Line::new(base, config, source)?;
    line.drain.delay = match (pools.shutdown_delay, &cluster) {
        (Some(delay), _) => delay,
        (None, Some(_)) => ENDPOINTS_TOLD,
        (None, None) => Duration::ZERO,
    };
    if let Some(cluster) = &cluster {
        cluster.follow(&line.health, &mut line.tasks, line.drained.clone());
    }
    let ledger = line.demand(&pools.demand, cluster.as_ref())?;
    line.record(exporter.map_or(&[], |exporter| &exporter.record));
    let mut servers = Vec::new();
    if let Some(adapter) = adapter {
        servers.push(line.adapter(adapter, cluster.as_ref()).await?);
    }
    let endpoint_series = exporter.map_or(0, |exporter| exporter.endpoint_series);
    let streams = weir_exporter::register(&mut line.registry, line.datastore.clone(), endpoint_series);
    let registry = Arc::new(std::mem::take(&mut line.registry));
    if let Some(exporter) = exporter {
        let mut pages = weir_exporter::router(line.datastore.clone(), registry, streams);
        if let Some(ledger) = ledger {
            pages = pages.merge(weir_demand::router(ledger));
        }
        let server = line.server("exporter", pages, exporter.exporter_listen);
        servers.push(reviewed_exporter(server, exporter.exporter_access, cluster.as_ref())?.bind().await?);
    }
    let mut tasks = line.start(servers, shutdown.token());
    until_ended(&shutdown, &mut tasks).await
}

/// What servers share: one datastore, what fills it, one registry.
struct Line {
    datastore: Datastore,
    registry: Registry,
    metrics: ServingMetrics,
    health: Health,
    drain: Drain,
    collector: Collector,
    source: Source,
    wanted: Wanted,
    /// Until it is given away.
    required: Option<RequiredWriter>,
    tasks: JoinSet<()>,
    /// Cancelled once no server answers any more: until then everything that answers depend on goes on.
    drained: CancellationToken,
}

impl Line {
    fn new(base: Base, config: CollectorConfig, (source, wanted): (Source, Wanted)) -> anyhow::Result<Self> {
        let Base { mut registry, metrics } = base;
        let (store, topology) = datastore();
        let required = Some(topology.required_writer());
        let collector = Collector::new(config, topology, &mut registry)?;
        Ok(Self {
            datastore: store,
            registry,
            metrics,
            health: Health::new(),
            drain: Drain::default(),
            collector,
            source,
            wanted,
            required,
            tasks: JoinSet::new(),
            drained: CancellationToken::new(),
        })
    }

    fn server(&self, name: &'static str, router: Router, listen: SocketAddr) -> ServerBuilder {
        let server = Server::builder(router).name(name).listen(listen);
        server.metrics(self.metrics.clone()).health(self.health.clone()).drain(self.drain.clone())
    }

    /// The metrics API: with TLS, and with the cluster's word on who may read what.
    async fn adapter(&mut self, arguments: &AdapterListenArguments, cluster: Option<&Cluster>) -> anyhow::Result<Server> {
        let config = adapter_config(arguments, cluster);
        let api = weir_adapter::router(self.datastore.clone(), config, &mut self.registry);
        let limits = RequestLimits { deadline: ADAPTER_DEADLINE, ..RequestLimits::default() };
        let mut server = self.server("adapter", api, arguments.adapter_listen).request_limits(limits);
        let (tls, authority) = self.tls(arguments, cluster)?;
        server = server.tls(tls).authentication(authentication(arguments, cluster)?);
        if let Some(cluster) = cluster.filter(|_| !arguments.open_on_loopback) {
            let reviews = RequestReviews::new(cluster.reviews.clone()).describe(weir_adapter::request_attributes);
            server = server.authorization(Authorization::Reviews(reviews));
        }
        let server = server.bind().await?;
        if let (Some(path), Some(authority)) = (&arguments.tls_ca_out, authority) {
            std::fs::write(path, authority.ca_pem()).with_context(|| format!("--tls-ca-out {}", path.display()))?;
        }
        Ok(server)
    }

    /// The adapter's certificate: from files, from the authority that all replicas share, or from one of its own.
    fn tls(
        &mut self,
        arguments: &AdapterListenArguments,
        cluster: Option<&Cluster>,
    ) -> anyhow::Result<(Tls, Option<Arc<CertificateAuthority>>)> {
        let files = arguments.tls_cert_file.as_ref().zip(arguments.tls_private_key_file.as_ref());
        let names = arguments.tls_name.iter().cloned();
        let (mut tls, authority) = match (files, cluster, &arguments.service) {
            (Some((certificate, key)), ..) => {
                if let (Some(cluster), Some(service)) = (cluster, &arguments.service) {
                    self.register(arguments, service, cluster, None);
                }
                (Tls::files(certificate, key), None)
            }
            (None, Some(cluster), Some(service)) => {
                let authority = cluster.shared_authority(service, &arguments.ca_secret, &self.metrics)?;
                self.tasks.spawn(authority.keep(cluster.client.clone(), &self.health, self.drained.clone()));
                self.register(arguments, service, cluster, Some(authority.bundle()));
                let names = names.chain(weir_serving::service_names(&service.name, &service.namespace));
                (Tls::shared(authority, names), None)
            }
            (None, None, Some(_)) => bail!("--service is a Service of a cluster: leave it out, or give --kubeconfig"),
            (None, _, None) => {
                let authority = Arc::new(CertificateAuthority::new(SystemTime::now())?);
                (Tls::self_made(authority.clone(), names), Some(authority))
            }
        };
        if let Some(client_ca) = &arguments.client_ca_file {
            tls = tls.client_ca(client_ca);
        }
        if let Some(cluster) = cluster {
            tls = tls.cluster(cluster.trust.clone());
        }
        Ok((tls, authority))
    }

    /// Keeps the APIServices that point to `service`; their `caBundle` too, where the authority is weir's own.
    fn register(&mut self, arguments: &AdapterListenArguments, service: &ServiceName, cluster: &Cluster, bundle: Option<Bundle>) {
        let settings = RegistrationSettings {
            service: service.name.clone(),
            namespace: service.namespace.clone(),
            port: arguments.service_port,
            versions: adapter_config(arguments, None).versions(),
            take_over: arguments.take_over_api_services,
            create: arguments.create_api_services,
        };
        let registration = Registration::new(settings, &mut self.registry);
        self.tasks.spawn(registration.run(cluster.client.clone(), bundle, self.drained.clone()));
    }

    /// Starts everything; all ends with `shutdown`.
    fn start(self, servers: Vec<Server>, shutdown: CancellationToken) -> JoinSet<()> {
        let Self { mut tasks, drained, .. } = self;
        // Scraping goes on while servers drain: what is still asked is still answered.
        tasks.spawn(self.collector.run(self.wanted, drained.clone()));
        self.source.follow(&self.health, &mut tasks, drained.clone());
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

fn adapter_config(arguments: &AdapterListenArguments, cluster: Option<&Cluster>) -> AdapterConfig {
    let config = AdapterConfig {
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
    };
    match cluster {
        Some(cluster) => AdapterConfig {
            authorizer: SharedAuthorizer::new(ReviewedNamespaces::new(cluster.reviews.clone(), ADAPTER_DEADLINE / 2)),
            ..config
        },
        None => config,
    }
}

fn authentication(arguments: &AdapterListenArguments, cluster: Option<&Cluster>) -> anyhow::Result<Authentication> {
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
    if let Some(cluster) = cluster {
        ways.extend(cluster.authenticators(true));
    }
    if ways.is_empty() {
        bail!(
            "nobody may read the metrics API yet: give --token-file or --client-ca-file; to try things out on this machine, \
             --open-on-loopback with --adapter-listen 127.0.0.1:6443"
        );
    }
    Ok(Authentication::AnyOf(ways))
}

/// The exporter's page is for everyone, or for those whom the cluster allows to get its path.
pub(crate) fn reviewed_exporter(
    server: ServerBuilder,
    access: Option<ExporterAccess>,
    cluster: Option<&Cluster>,
) -> anyhow::Result<ServerBuilder> {
    match (access, cluster) {
        (Some(ExporterAccess::Everyone), _) | (None, None) => Ok(server.authentication(Authentication::Everyone)),
        (Some(ExporterAccess::Reviewed), None) => {
            bail!("--exporter-access reviewed asks the API server of a cluster: give --kubeconfig, or leave it out")
        }
        (Some(ExporterAccess::Reviewed) | None, Some(cluster)) => {
            let reviews = RequestReviews::new(cluster.reviews.clone());
            let server = server.authentication(Authentication::AnyOf(cluster.authenticators(false)));
            Ok(server.authorization(Authorization::Reviews(reviews)))
        }
    }
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
    let mut base = Base::default();
    let source = Source::file(&options.pools, Some(DEMO_POLL), &mut base.registry)?;
    let mut line = Line::new(base, CollectorConfig::default(), source)?;
    line.drain = Drain { delay: Duration::ZERO, grace: Duration::from_secs(1) };
    let ledger = line.levels(RequiredOptions::default());
    let authority = Arc::new(CertificateAuthority::new(SystemTime::now())?);
    let ca_pem = authority.ca_pem().to_owned();
    let api = weir_adapter::router(line.datastore.clone(), AdapterConfig::default(), &mut line.registry);
    let tls = Tls::self_made(authority, Vec::<String>::new());
    let adapter = line.server("adapter", api, options.adapter).tls(tls).bind().await?;
    let streams = weir_exporter::register(&mut line.registry, line.datastore.clone(), DEMO_ENDPOINT_SERIES);
    let pages = weir_exporter::router(line.datastore.clone(), Arc::new(std::mem::take(&mut line.registry)), streams);
    let pages = match ledger {
        Some(ledger) => pages.merge(weir_demand::router(ledger)),
        None => pages,
    };
    let exporter = line.server("exporter", pages, options.exporter).bind().await?;
    Ok(RunningServers {
        datastore: line.datastore.clone(),
        exporter: exporter.local_addr(),
        adapter: adapter.local_addr(),
        ca_pem,
        tasks: line.start(vec![adapter, exporter], stop),
    })
}
