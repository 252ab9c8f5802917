//! The command line. Flags also read their environment variable, `WEIR_…`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_datastore::RequiredOptions;
use weir_datastore::engine::Engine;
use weir_demand::RecordTarget;
use weir_k8s::ClientOptions;

/// Scale LLM inference pools on what their servers report.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) log: LogArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct LogArguments {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module; info, in the demo warn
    #[arg(long, global = true, env = "WEIR_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, default_value = "text", env = "WEIR_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what weir sees on one metrics page
    Read(ReadArguments),
    /// Serve the pools' metrics as a Prometheus page
    Exporter(ExporterArguments),
    /// Serve the pools' metrics as the Kubernetes external and custom metrics APIs
    Adapter(AdapterArguments),
    /// Exporter and adapter on one measurement
    Serve(ServeArguments),
    /// Pick endpoints for a gateway, with the command line of the Go picker
    Epp(GoArguments),
    /// Set headers from bodies for a gateway to route on, with the command line of the Go body-based router
    Bbr(GoArguments),
    /// See what rules for names of models come to
    Names(NamesArguments),
    /// Scale idle pools to zero, and back for the first held request
    Scaler(ScalerArguments),
    /// Write pods' deletion cost: which pod of a pool goes first when there are to be fewer
    DeletionCost(DeletionCostArguments),
    /// Replay a load and see what HorizontalPodAutoscalers would have done
    Simulate(crate::what_if::WhatIfArguments),
    /// Play model servers without a GPU
    SimulateServer(SimulateArguments),
    /// The whole line on this machine: servers, load, metrics, autoscaling
    Demo(DemoArguments),
    /// Find what is wrong with pools, gateways, metrics and autoscalers, from outside; returns 0, 1 (warnings), 2 (errors), 3 (could not look)
    Doctor(DoctorArguments),
    /// Show an autoscaler's arithmetic with the numbers of this moment and what it will do next, or a pool's numbers
    Explain(ExplainArguments),
}

/// Which cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// A kubeconfig, for use outside of a cluster
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
}

impl ClusterArguments {
    /// How its API server is reached.
    pub(crate) fn options(&self) -> ClientOptions {
        ClientOptions { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    /// Whether one is named; else it is that around the pod.
    pub(crate) fn is_given(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// What is explained
    #[arg(value_name = "KIND")]
    pub(crate) kind: ExplainKind,
    /// Its name; without it, all HorizontalPodAutoscalers of the namespace
    #[arg(value_name = "NAME", required_if_eq("kind", "pool"))]
    pub(crate) name: Option<String>,
    /// For people, or for programs
    #[arg(long, short, default_value = "text", value_name = "FORM")]
    pub(crate) output: DoctorOutput,
    /// Its namespace; without it, that of the kubeconfig's context
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How long one call may take
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExplainKind {
    /// A HorizontalPodAutoscaler
    Hpa,
    /// An InferencePool
    Pool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// One namespace alone; without it, all that may be read
    #[arg(long, short, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// What concerns one pool: NAME or NAMESPACE/NAME
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// How to show it
    #[arg(long, short, default_value = "text")]
    pub(crate) output: DoctorOutput,
    /// Write down what was seen: to attach to a bug report, without secrets
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Examine what was written down, without a cluster
    #[arg(long, value_name = "FILE", conflicts_with_all = ["namespace", "record", "kubeconfig", "context", "timeout"])]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How long one call may take
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DoctorOutput {
    /// For people
    Text,
    /// For programs: one object
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ReadArguments {
    /// A URL, a file (plain or gzip), or - for standard input
    #[arg(value_name = "URL|FILE|-")]
    pub(crate) page: String,
    /// The engine that wrote the page: auto, or a name
    #[arg(long, default_value = "auto", value_parser = parse_engine)]
    pub(crate) engine: EngineChoice,
    /// How to show it
    #[arg(long, short, default_value = "table")]
    pub(crate) output: ReadOutput,
    /// How long a URL may take
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Accept any certificate from a URL
    #[arg(long)]
    pub(crate) insecure_skip_verify: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ReadOutput {
    /// For people
    Table,
    /// For programs: keys that are not known are absent
    Json,
}

/// An engine, or whatever a page shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineChoice(pub(crate) Option<Engine>);

fn parse_engine(name: &str) -> Result<EngineChoice, String> {
    match name {
        "auto" => Ok(EngineChoice(None)),
        name => name.parse().map(Some).map(EngineChoice),
    }
}

/// Where pools come from, and how their servers are read.
#[derive(Debug, Args)]
pub(crate) struct PoolsArguments {
    /// The pools and their endpoints from a file, read again when it changes
    #[arg(long, env = "WEIR_POOLS", value_name = "FILE", conflicts_with_all = ["namespace", "all_namespaces"])]
    pub(crate) pools: Option<PathBuf>,
    /// The InferencePools of one namespace, and their pods
    #[arg(long, env = "WEIR_NAMESPACE", value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// The InferencePools of all namespaces, and their pods
    #[arg(long, env = "WEIR_ALL_NAMESPACES")]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    /// How long to go on answering after SIGTERM while endpoints of the Service are still being told; in a cluster 15s, else 0s
    #[arg(long, env = "WEIR_SHUTDOWN_DELAY", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) shutdown_delay: Option<Duration>,
    #[command(flatten)]
    pub(crate) demand: DemandArguments,
}

/// The replicas that pools require, and where what is learned for them is kept.
#[derive(Debug, Args)]
pub(crate) struct DemandArguments {
    /// Leave inference_pool_required_replicas out: nothing is computed for it, learned or kept
    #[arg(long, env = "WEIR_NO_REQUIRED_REPLICAS")]
    pub(crate) no_required_replicas: bool,
    /// Ask for pods ahead of the hours at which two of the last three days needed them; pools may say otherwise (docs/scaling.md: prices)
    #[arg(long, env = "WEIR_REQUIRED_DAILY")]
    pub(crate) required_daily: bool,
    /// Keep the level of bursts that come again and again; pools may say otherwise
    #[arg(long, env = "WEIR_REQUIRED_RECURRING")]
    pub(crate) required_recurring: bool,
    /// Replicas asked for on top; pools may say otherwise
    #[arg(long, env = "WEIR_REQUIRED_SPARES", default_value = "0", value_parser = |text: &str| option("spares", text), value_name = "COUNT")]
    pub(crate) required_spares: RequiredOptions,
    /// Share of its capacity at which a replica is run, 0.3 to 1; pools may say otherwise
    #[arg(long, env = "WEIR_REQUIRED_UTILISATION", default_value = "0.85", value_parser = |text: &str| option("utilisation", text), value_name = "SHARE")]
    pub(crate) required_utilisation: RequiredOptions,
    /// Keep what is learned for required replicas in this file, where there is no cluster to keep it in
    #[arg(long, env = "WEIR_LEARNED", value_name = "FILE", conflicts_with = "no_required_replicas")]
    pub(crate) learned: Option<PathBuf>,
    /// The ConfigMap in which a cluster keeps it, and the Lease of the replica that writes it
    #[arg(long, env = "WEIR_LEARNED_CONFIG_MAP", default_value = "weir-learned", value_name = "NAME")]
    pub(crate) learned_config_map: String,
    /// The namespace of both; the pod's own. Outside of a pod nothing is kept unless it is given
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) learned_namespace: Option<String>,
    /// What this replica is called in the Lease
    #[arg(long, env = "POD_NAME", default_value = "weir", value_name = "NAME")]
    pub(crate) identity: String,
}

fn option(name: &str, text: &str) -> Result<RequiredOptions, String> {
    let mut options = RequiredOptions::default();
    options.set(name, text).map(|()| options)
}

impl DemandArguments {
    /// What counts for all pools that say nothing else.
    pub(crate) fn options(&self) -> RequiredOptions {
        let switches = RequiredOptions {
            daily: Some(self.required_daily),
            recurring: Some(self.required_recurring),
            ..RequiredOptions::default()
        };
        switches.or(self.required_spares).or(self.required_utilisation)
    }
}

/// How pools and the pages of their servers are read.
#[derive(Debug, Args)]
pub(crate) struct ReadingArguments {
    /// The API group of InferencePools: auto (both, the newer one first), or one version
    #[arg(long, env = "WEIR_POOL_GROUP", default_value = "auto", value_name = "GROUP")]
    pub(crate) pool_group: PoolGroup,
    /// Path of the pods' metrics pages
    #[arg(long, env = "WEIR_METRICS_PATH", default_value = "/metrics", value_name = "PATH")]
    pub(crate) metrics_path: String,
    /// Port of the pods' metrics pages, where it is not the pool's target port
    #[arg(long, env = "WEIR_METRICS_PORT", value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,
    /// The token for pickers that ask for one, sent in the clear (docs/kubernetes-discovery.md); while the file is absent, none
    #[arg(long, env = "WEIR_PICKER_TOKEN_FILE", value_name = "FILE")]
    pub(crate) picker_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// How often each endpoint's page is read, at most 1.6s: no value may be older than 5s
    #[arg(long, env = "WEIR_SCRAPE_INTERVAL", default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) scrape_interval: Duration,
    /// How long one page may take
    #[arg(long, env = "WEIR_SCRAPE_TIMEOUT", default_value = "1s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) scrape_timeout: Duration,
}

/// Which InferencePools there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PoolGroup {
    /// Whatever the API server has; of two pools of one name the newer kind
    Auto,
    /// inference.networking.k8s.io/v1
    #[value(name = "inference.networking.k8s.io")]
    V1,
    /// inference.networking.x-k8s.io/v1alpha2
    #[value(name = "inference.networking.x-k8s.io")]
    V1Alpha2,
}

#[derive(Debug, Args)]
pub(crate) struct ExporterListenArguments {
    /// Where the exporter listens
    #[arg(long, env = "WEIR_EXPORTER_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub(crate) exporter_listen: SocketAddr,
    /// Who may read the page: everyone who reaches the address, or callers whom the API server allows to get /metrics;
    /// reviewed in a cluster, else everyone
    #[arg(long, env = "WEIR_EXPORTER_ACCESS", value_name = "WHO")]
    pub(crate) exporter_access: Option<ExporterAccess>,
    /// Series per pool that name an endpoint, at most; 0 leaves them out
    #[arg(long, env = "WEIR_ENDPOINT_SERIES", default_value_t = 256, value_name = "COUNT")]
    pub(crate) endpoint_series: usize,
    /// Write what arrives at a pool to a trace for `weir simulate --trace`: FILE where there is one pool, else [NAMESPACE/]POOL=FILE, once
    /// for each pool
    #[arg(long, env = "WEIR_RECORD", value_delimiter = ',', value_name = "[POOL=]FILE")]
    pub(crate) record: Vec<RecordTarget>,
}

/// Who may read the exporter's page.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ExporterAccess {
    /// Everyone who reaches the address
    Everyone,
    /// Callers with a token or certificate whom the API server allows to get the path
    Reviewed,
}

#[derive(Debug, Args)]
pub(crate) struct AdapterListenArguments {
    /// Where the adapter listens, with TLS
    #[arg(long, env = "WEIR_ADAPTER_LISTEN", default_value = "0.0.0.0:6443", value_name = "ADDRESS")]
    pub(crate) adapter_listen: SocketAddr,
    /// Certificate chain in PEM; without one the adapter makes its own
    #[arg(long, env = "WEIR_TLS_CERT_FILE", requires = "tls_private_key_file", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, env = "WEIR_TLS_PRIVATE_KEY_FILE", requires = "tls_cert_file", value_name = "FILE")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// The Service through which the API server reaches the adapter: its certificate is for that name, and the APIServices
    /// that point to it are kept up to date
    #[arg(long, env = "WEIR_SERVICE", value_name = "NAMESPACE/NAME")]
    pub(crate) service: Option<ServiceName>,
    /// The Secret, in the Service's namespace, with the certificate authority that all replicas share
    #[arg(long, env = "WEIR_CA_SECRET", default_value = "weir-ca", value_name = "NAME", requires = "service")]
    pub(crate) ca_secret: String,
    /// The port of that Service
    #[arg(long, env = "WEIR_SERVICE_PORT", default_value_t = 443, value_name = "PORT")]
    pub(crate) service_port: u16,
    /// Create APIServices that are missing; the install manifests bring them, and take them away again
    #[arg(long = "create-apiservices", env = "WEIR_CREATE_APISERVICES", requires = "service")]
    pub(crate) create_api_services: bool,
    /// Make an APIService ours even where it points to another Service
    #[arg(long = "take-over-apiservices", env = "WEIR_TAKE_OVER_APISERVICES", requires = "service")]
    pub(crate) take_over_api_services: bool,
    /// How long the API server's word about a caller counts
    #[arg(long, env = "WEIR_REVIEW_TTL", default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) review_ttl: Duration,
    /// Further names in the certificate that the adapter makes, such as weir.weir-system.svc
    #[arg(long, env = "WEIR_TLS_NAME", value_delimiter = ',', value_name = "NAME")]
    pub(crate) tls_name: Vec<String>,
    /// Where to write the authority of the certificate that the adapter makes, for clients
    #[arg(long, env = "WEIR_TLS_CA_OUT", conflicts_with = "tls_cert_file", value_name = "FILE")]
    pub(crate) tls_ca_out: Option<PathBuf>,
    /// Callers with a client certificate of this authority (PEM) may read
    #[arg(long, env = "WEIR_CLIENT_CA_FILE", value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Callers with a bearer token in this file (one a line) may read
    #[arg(long, env = "WEIR_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Everybody may read; only where the adapter listens on a loopback address
    #[arg(long, env = "WEIR_OPEN_ON_LOOPBACK", conflicts_with_all = ["client_ca_file", "token_file"])]
    pub(crate) open_on_loopback: bool,
    /// Let a selector ask for pools of another namespace than the path's
    #[arg(long, env = "WEIR_ALLOW_CROSS_NAMESPACE")]
    pub(crate) allow_cross_namespace: bool,
    /// Which metrics APIs are served; another adapter may own the other one
    #[arg(long, env = "WEIR_METRICS_APIS", value_delimiter = ',', default_values = ["external", "custom"], value_name = "API")]
    pub(crate) metrics_apis: Vec<MetricsApi>,
    /// What `resource.labels.cluster` of a GKE selector is compared with; unset: nothing
    #[arg(long, env = "WEIR_GKE_CLUSTER", value_name = "NAME")]
    pub(crate) gke_cluster: Option<String>,
    /// What `resource.labels.location` of a GKE selector is compared with; unset: nothing
    #[arg(long, env = "WEIR_GKE_LOCATION", value_name = "REGION|ZONE")]
    pub(crate) gke_location: Option<String>,
    /// What `resource.labels.project_id` of a GKE selector is compared with; unset: nothing
    #[arg(long, env = "WEIR_GKE_PROJECT", value_name = "PROJECT")]
    pub(crate) gke_project: Option<String>,
}

/// A Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl std::str::FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let label = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&part.len()) && part.bytes().all(allowed) && !part.starts_with('-') && !part.ends_with('-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if label(namespace) && label(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("a Service is given as NAMESPACE/NAME, such as weir-system/weir".to_owned()),
        }
    }
}

/// A metrics API of Kubernetes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum MetricsApi {
    /// external.metrics.k8s.io
    External,
    /// custom.metrics.k8s.io
    Custom,
}

#[derive(Debug, Args)]
pub(crate) struct ExporterArguments {
    #[command(flatten)]
    pub(crate) pools: PoolsArguments,
    #[command(flatten)]
    pub(crate) listen: ExporterListenArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AdapterArguments {
    #[command(flatten)]
    pub(crate) pools: PoolsArguments,
    #[command(flatten)]
    pub(crate) listen: AdapterListenArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) pools: PoolsArguments,
    #[command(flatten)]
    pub(crate) exporter: ExporterListenArguments,
    #[command(flatten)]
    pub(crate) adapter: AdapterListenArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DeletionCostArguments {
    #[command(flatten)]
    pub(crate) pools: PoolsArguments,
    /// Where the metrics page and the health paths are served, to everyone
    #[arg(long, env = "WEIR_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// The Lease by which one of several replicas leads; in the namespace of the service account or the kubeconfig's context unless
    /// given as NAMESPACE/NAME
    #[arg(long, env = "WEIR_LEASE", default_value = "weir-deletion-cost", value_name = "NAME")]
    pub(crate) lease: String,
    /// Patches of pods a minute, the highest change first
    #[arg(long, env = "WEIR_PATCHES_PER_MINUTE", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=6000), value_name = "COUNT")]
    pub(crate) patches_per_minute: u32,
    /// A pod without requests keeps half of its average for so long
    #[arg(long, env = "WEIR_REQUESTS_HALF_LIFE", default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) requests_half_life: Duration,
    /// What a pod found in its prefix cache counts half after so long
    #[arg(long, env = "WEIR_WARMTH_HALF_LIFE", default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) warmth_half_life: Duration,
    /// Log and count what would be written; write nothing, the Lease neither
    #[arg(long, env = "WEIR_DRY_RUN")]
    pub(crate) dry_run: bool,
}

/// Read as Go programs read theirs, not by clap.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct GoArguments {
    /// The Go program's flags; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NamesArguments {
    #[command(subcommand)]
    pub(crate) what: NamesCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NamesCommand {
    /// Each step from a model's name to its effective name, and the headers that come of it
    Test {
        /// The name, as a client writes it; several one after another
        #[arg(value_name = "MODEL", required = true)]
        models: Vec<String>,
        /// The file of rules (docs/body-based-routing.md)
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
    },
    /// The rules as they are understood, defaults and files of keywords included
    Show {
        /// The file of rules
        #[arg(long, short, value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ScalerArguments {
    /// The namespaces whose annotated HorizontalPodAutoscalers are served: needs the Role weir-scaler in each
    #[arg(long = "namespace", env = "WEIR_NAMESPACE", value_delimiter = ',', required = true, value_name = "NAMESPACE")]
    pub(crate) namespaces: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArguments,
    /// Say in Events, log and metrics what would be scaled, and scale nothing
    #[arg(long, env = "WEIR_DRY_RUN")]
    pub(crate) dry_run: bool,
    /// Where the metrics page and the health checks are
    #[arg(long, env = "WEIR_SCALER_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Who may read the page: everyone who reaches the address, or callers whom the API server allows to get /metrics
    #[arg(long, env = "WEIR_SCALER_ACCESS", default_value = "everyone", value_name = "WHO")]
    pub(crate) access: ExporterAccess,
    /// The namespace of the Lease by which one replica leads; the pod's own
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// The name of that Lease
    #[arg(long, env = "WEIR_LEASE", default_value = "weir-scaler", value_name = "NAME")]
    pub(crate) lease: String,
    /// What this replica is called in Lease and Events
    #[arg(long, env = "POD_NAME", default_value = "weir-scaler", value_name = "NAME")]
    pub(crate) identity: String,
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    /// Where the first replica listens; port 0 takes a free one
    #[arg(long, default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000), value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// How many replicas; each takes the next address, or its own free port
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub(crate) replicas: usize,
    /// Whose names the metrics page has: vllm, sglang, trtllm
    #[arg(long, default_value = "vllm", value_name = "ENGINE")]
    pub(crate) engine: String,
    /// What hardware and model it plays
    #[arg(long, default_value = "small")]
    pub(crate) profile: Profile,
    /// The served model's name
    #[arg(long, default_value = "meta-llama/Llama-3.1-8B-Instruct", value_name = "NAME")]
    pub(crate) model: String,
    /// A LoRA adapter that is loaded, served by its name; given again for each
    #[arg(long, value_name = "NAME")]
    pub(crate) lora: Vec<String>,
    /// Names of the replicas: NAME-0, NAME-1, …
    #[arg(long, default_value = "simulator", value_name = "NAME")]
    pub(crate) name: String,
    /// How long a replica loads before it is ready
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) start_delay: Duration,
    /// Seed of the random draws
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Profile {
    /// 8 sequences: easy to fill by hand
    Small,
    /// Llama 3.1 8B on one H100
    Llama8b,
    /// Llama 3.1 70B on four H100
    Llama70b,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Stop after this long (at least 40s) and say whether everything worked; without it, go on until Ctrl-C
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) duration: Option<Duration>,
    /// Port of the picker, for requests, on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) picker_port: u16,
    /// Port of the exporter on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) exporter_port: u16,
    /// Port of the adapter on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub(crate) adapter_port: u16,
    /// Plain lines even on a terminal
    #[arg(long)]
    pub(crate) plain: bool,
    /// Seed of the random draws
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}
