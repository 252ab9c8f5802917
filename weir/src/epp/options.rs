//! What a picker is to do, from its command line and its environment. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_datastore::Scheme;
use weir_epp::exchange::ErrorPrefix;
use weir_epp::flow::HoldEmpty;
use weir_epp::journal::AccessLogTarget;
use weir_k8s::PoolVersion;

use super::http::{Backend, Http};
use crate::go_flags::{Given, bool_of, duration_of};
use crate::metrics_server::Access;

/// How often servers at work are read, unless set otherwise.
const REFRESH: Duration = Duration::from_millis(50);
/// The bounds of that: beyond them a page server does little else, or values are too old to count.
const REFRESH_BOUNDS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(1600));

/// How long a model server may say nothing to a client that is served without a gateway.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long such a client may send nothing of a body.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// Flags that say nothing without `--http`.
const HTTP_FLAGS: [&str; 8] = [
    "http-cert-path",
    "http-idle-timeout",
    "http-keep-alive",
    "http-body-timeout",
    "http-backend-scheme",
    "http-backend-ca-file",
    "http-backend-server-name",
    "http-backend-insecure-skip-verify",
];
/// How often such a client hears a comment while its streamed answer waits.
const COMMENTS: Duration = Duration::from_secs(15);

/// What spans say that they are of, where no variable says it: the Go picker's name.
const SERVICE: &str = "gateway-api-inference-extension/epp";

/// Where the pool is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PoolSource {
    /// An InferencePool of a cluster.
    Cluster { namespace: String, name: String, version: PoolVersion },
    /// The pods of a cluster that have these labels.
    Selector { namespace: String, name: String, labels: BTreeMap<String, String>, ports: Vec<u16> },
    /// The pool of a file; of several the one with this namespace and name.
    File { path: PathBuf, pool: Option<(String, String)> },
}

/// How the pods' pages are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ModelServerMetrics {
    pub(super) port: Option<u16>,
    pub(super) path: String,
    pub(super) scheme: Scheme,
    pub(super) insecure_skip_verify: bool,
}

/// Where the EndpointPickerConfig is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ConfigSource {
    Default,
    File(PathBuf),
    Text(String),
}

/// The thresholds of saturation that the environment sets (v0.4 to v1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SaturationVariables {
    pub(super) queue: Option<f64>,
    pub(super) kv_cache_utilization: Option<f64>,
    pub(super) page_age: Option<Duration>,
}

/// All that a picker is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) pool: PoolSource,
    pub(super) rules: Option<PathBuf>,
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) context: Option<String>,
    pub(super) bind: Option<IpAddr>,
    pub(super) ext_proc_port: u16,
    pub(super) health_port: u16,
    pub(super) metrics_port: u16,
    pub(super) config: ConfigSource,
    pub(super) saturation: SaturationVariables,
    pub(super) hold_empty: Option<HoldEmpty>,
    pub(super) refresh: Duration,
    pub(super) secure: bool,
    pub(super) cert_path: Option<PathBuf>,
    pub(super) metrics_access: Access,
    pub(super) honour_subset: bool,
    pub(super) ask_for_bodies: bool,
    pub(super) model_server: ModelServerMetrics,
    pub(super) drain: Option<Duration>,
    pub(super) error_prefix: ErrorPrefix,
    /// The header that tells who served, in lower case.
    pub(super) served_header: Option<String>,
    /// A model that no server lists is answered 404.
    pub(super) refuse_unknown_models: bool,
    /// Clients are served without a gateway.
    pub(super) http: Option<Http>,
    /// Spans are sent there.
    pub(super) traces: Option<weir_traces::Settings>,
    /// A line for each request goes there.
    pub(super) access_log: Option<AccessLogTarget>,
    /// How often the file of pools is looked at, where not as usual.
    pub(super) pools_poll: Option<Duration>,
    /// The command line is one of v0.2 to v0.5.
    pub(super) old: bool,
    /// What is passed over, each with what happens instead.
    pub(super) notes: Vec<String>,
}

/// The interval that is taken for `given`.
pub(super) fn refresh_within_bounds(given: Duration) -> Duration {
    given.clamp(REFRESH_BOUNDS.0, REFRESH_BOUNDS.1)
}

impl Options {
    /// What `given` and the variables of `env` ask for; flags go before variables.
    ///
    /// # Errors
    /// Everything that is wrong or missing.
    pub(super) fn of(given: &Given, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut reader = Reader { given, env, wrong: Vec::new(), notes: given.notes.clone() };
        reader.without_effect();
        let options = Self {
            pool: reader.pool(),
            rules: given.text("rules").map(PathBuf::from),
            kubeconfig: given.text("kubeconfig").map(PathBuf::from),
            context: given.text("context").map(str::to_owned),
            bind: reader.bind(),
            ext_proc_port: reader.port("grpc-port", Some("GRPC_PORT")).unwrap_or(9002),
            health_port: reader.port("grpc-health-port", Some("GRPC_HEALTH_PORT")).unwrap_or(9003),
            metrics_port: reader.port("metrics-port", None).unwrap_or(9090),
            config: reader.config(),
            saturation: reader.saturation(),
            hold_empty: reader.hold_empty(),
            refresh: reader.refresh(),
            secure: reader.switch("secure-serving", "SECURE_SERVING").unwrap_or(true),
            cert_path: given.text("cert-path").map(PathBuf::from),
            metrics_access: Access::of(given),
            ask_for_bodies: given.switch("ask-for-bodies").unwrap_or(false),
            honour_subset: !given.switch("disable-endpoint-subset-filter").unwrap_or(false),
            model_server: reader.model_server(),
            drain: given.duration("drain-timeout"),
            error_prefix: reader.error_prefix(),
            served_header: reader.served_header(),
            refuse_unknown_models: reader.refuse_unknown_models(),
            http: reader.http(),
            traces: reader.traces(),
            access_log: given.text("access-log").map(AccessLogTarget::of),
            pools_poll: None,
            old: given.old_spelling,
            notes: Vec::new(),
        };
        reader.wrong.extend(options.metrics_access.problem());
        let Reader { wrong, notes, .. } = reader;
        if wrong.is_empty() { Ok(Self { notes, ..options }) } else { Err(wrong) }
    }
}

struct Reader<'given> {
    given: &'given Given,
    env: &'given dyn Fn(&str) -> Option<String>,
    wrong: Vec<String>,
    notes: Vec<String>,
}

/// Variables that are passed over: what they asked for, what weir does.
const WITHOUT_EFFECT: [(&str, &str); 15] = [
    ("EXPERIMENTAL_USE_SCHEDULER_V2", SCHEDULING),
    ("ENABLE_PREFIX_CACHE_SCHEDULING", SCHEDULING),
    ("ENABLE_REQ_HEADER_BASED_SCHEDULER_FOR_TESTING", SCHEDULING),
    ("QUEUE_SCORE_WEIGHT", SCHEDULING),
    ("KV_CACHE_SCORE_WEIGHT", SCHEDULING),
    ("PREFIX_CACHE_SCORE_WEIGHT", SCHEDULING),
    ("PREFIX_CACHE_HASH_BLOCK_SIZE", SCHEDULING),
    ("PREFIX_CACHE_MAX_PREFIX_BLOCKS", SCHEDULING),
    ("PREFIX_CACHE_LRU_CAPACITY", SCHEDULING),
    ("QUEUING_THRESHOLD_LORA", SCHEDULING),
    ("LORA_AFFINITY_THRESHOLD", SCHEDULING),
    ("KV_CACHE_THRESHOLD", SCHEDULING),
    ("QUEUE_THRESHOLD_CRITICAL", SCHEDULING),
    ("ENABLE_EXPERIMENTAL_DATALAYER_V2", "there is one data layer, and it is on"),
    ("ENABLE_EXPERIMENTAL_FLOW_CONTROL_LAYER", "write `featureGates: [flowControl]` into the EndpointPickerConfig"),
];
const SCHEDULING: &str = "scheduling is what the EndpointPickerConfig says: name its plugins there";

impl Reader<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The variable `name` as `read` takes it. One that cannot be read is passed over: a Service called `grpc` sets `GRPC_PORT` to a
    /// URL in every pod of its namespace.
    fn read<T>(&mut self, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.variable(name)?;
        let read = read(&value);
        if read.is_none() {
            let shown: String = value.chars().take(64).collect();
            self.notes.push(format!("the variable {name} is `{}`, which is passed over: it cannot be read", shown.escape_debug()));
        }
        read
    }

    fn traces(&mut self) -> Option<weir_traces::Settings> {
        weir_traces::Settings::of(self.env, self.given.switch("tracing"), SERVICE, &mut self.notes)
    }

    fn without_effect(&mut self) {
        for (name, instead) in WITHOUT_EFFECT {
            if self.variable(name).is_some() {
                self.notes.push(format!("the variable {name} has no effect: {instead}"));
            }
        }
    }

    fn pool(&mut self) -> PoolSource {
        let name = self.given.text("pool-name").map(str::to_owned).or_else(|| self.variable("POOL_NAME"));
        let namespace = self.given.text("pool-namespace").map(str::to_owned);
        let namespace = namespace.or_else(|| self.variable("POOL_NAMESPACE")).or_else(|| self.variable("NAMESPACE"));
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let selector = self.given.text("endpoint-selector").map(str::to_owned);
        let ports = self.given.ports("endpoint-target-ports");
        if let Some(path) = self.given.text("pools") {
            return PoolSource::File { path: path.into(), pool: name.map(|name| (namespace, name)) };
        }
        match (name, selector) {
            (Some(_), Some(_)) => {
                self.wrong.push("--pool-name and --endpoint-selector: give one, an InferencePool says what its pods are".to_owned());
            }
            (Some(name), None) => {
                let version = self.version();
                return PoolSource::Cluster { namespace, name, version };
            }
            (None, Some(selector)) => {
                if !(1..=8).contains(&ports.len()) {
                    let count = ports.len();
                    self.wrong.push(format!("--endpoint-target-ports: {count} ports: --endpoint-selector needs 1 to 8"));
                }
                let name = self.variable("POD_NAME").and_then(|pod| deployment_of(&pod));
                let name = name.unwrap_or_else(|| "endpoints".to_owned());
                let labels = self.labels(&selector);
                return PoolSource::Selector { namespace, name, labels, ports };
            }
            (None, None) => self.wrong.push(
                "which pool? --pool-name NAME is an InferencePool, --endpoint-selector LABELS its pods without one, --pools FILE needs \
                 no cluster"
                    .to_owned(),
            ),
        }
        PoolSource::File { path: PathBuf::new(), pool: None }
    }

    /// `key=value`, with commas between.
    fn labels(&mut self, selector: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for pair in selector.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').map(|(key, value)| (key.trim(), value.trim_start_matches('=').trim())) {
                Some((key, value)) if !key.is_empty() && !key.ends_with('!') => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                _ => {
                    let wrong = format!("--endpoint-selector: `{}` is no label: write key=value,key=value", pair.escape_debug());
                    self.wrong.push(wrong);
                }
            }
        }
        if labels.is_empty() {
            self.wrong.push("--endpoint-selector: names no label: write key=value".to_owned());
        }
        labels
    }

    fn version(&mut self) -> PoolVersion {
        match self.given.text("pool-group") {
            None if self.given.old_spelling => PoolVersion::V1Alpha2,
            None => PoolVersion::V1,
            Some(group) => PoolVersion::ALL.into_iter().find(|version| version.group() == group).unwrap_or_else(|| {
                let groups = PoolVersion::ALL.map(PoolVersion::group).join(" or ");
                self.wrong.push(format!("--pool-group: `{}` is not known: give {groups}", group.escape_debug()));
                PoolVersion::V1
            }),
        }
    }

    fn bind(&mut self) -> Option<IpAddr> {
        let text = self.given.text("bind-address")?;
        let address = text.parse().ok();
        if address.is_none() {
            self.wrong.push(format!("--bind-address: `{}` is no IP address", text.escape_debug()));
        }
        address
    }

    fn http(&mut self) -> Option<Http> {
        let without = HTTP_FLAGS.into_iter().find(|flag| self.given.text(flag).is_some());
        let Some(text) = self.given.text("http") else {
            if let Some(flag) = without {
                self.wrong.push(format!("--{flag}: clients are served with --http ADDRESS:PORT alone: give that too"));
            }
            return None;
        };
        let Some((address, port)) = Http::listen(text) else {
            self.wrong.push(format!("--http: `{}`: give ADDRESS:PORT, :PORT or PORT, with an IP address", text.escape_debug()));
            return None;
        };
        let patience = self.given.duration("http-idle-timeout").unwrap_or(PATIENCE);
        if patience.is_zero() {
            self.wrong.push("--http-idle-timeout: a model server needs time to answer: give more than 0s".to_owned());
        }
        let comments = self.given.duration("http-keep-alive").unwrap_or(COMMENTS);
        let cert_path = self.given.text("http-cert-path").map(PathBuf::from);
        let body_idle = self.given.duration("http-body-timeout").unwrap_or(BODY_IDLE);
        if body_idle.is_zero() {
            self.wrong.push("--http-body-timeout: a client needs time to send a body: give more than 0s".to_owned());
        }
        let (backend, comments) = (self.backend(), (!comments.is_zero()).then_some(comments));
        Some(Http { address, port, cert_path, patience, body_idle, backend, comments })
    }

    /// TLS to model servers.
    fn backend(&mut self) -> Option<Backend> {
        let backend = Backend {
            ca_file: self.given.text("http-backend-ca-file").map(PathBuf::from),
            server_name: self.given.text("http-backend-server-name").map(str::to_owned),
            insecure: self.given.switch("http-backend-insecure-skip-verify").unwrap_or(false),
        };
        match self.given.text("http-backend-scheme") {
            Some("https") if backend.insecure && (backend.ca_file.is_some() || backend.server_name.is_some()) => {
                let wrong = "no certificate is checked then: leave out --http-backend-ca-file and --http-backend-server-name";
                self.wrong.push(format!("--http-backend-insecure-skip-verify: {wrong}"));
                None
            }
            Some("https") => Some(backend),
            None | Some("http") => {
                if backend != Backend::default() {
                    let wrong = "there are certificates over TLS alone: give --http-backend-scheme https";
                    self.wrong.push(format!("--http-backend-ca-file, -server-name, -insecure-skip-verify: {wrong}"));
                }
                None
            }
            Some(other) => {
                self.wrong.push(format!("--http-backend-scheme: `{}`: give http or https", other.escape_debug()));
                None
            }
        }
    }

    fn port(&mut self, flag: &str, variable: Option<&str>) -> Option<u16> {
        self.given.parsed(flag).or_else(|| self.read(variable?, |value| value.parse().ok()))
    }

    fn switch(&mut self, flag: &str, variable: &str) -> Option<bool> {
        self.given.switch(flag).or_else(|| self.read(variable, bool_of))
    }

    fn served_header(&mut self) -> Option<String> {
        let name = self.given.text("served-header")?;
        let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        if name.len() > 128 || !name.chars().all(letter) {
            self.wrong
                .push(format!("--served-header: `{}` is no name of a header: give letters, digits and `-`", name.escape_debug()));
        }
        Some(name.to_ascii_lowercase())
    }

    fn refuse_unknown_models(&mut self) -> bool {
        match self.given.text("unknown-models") {
            None | Some("pass") => false,
            Some("refuse") => true,
            Some(other) => {
                self.wrong.push(format!("--unknown-models: `{}` is not known: give pass or refuse", other.escape_debug()));
                false
            }
        }
    }

    fn error_prefix(&mut self) -> ErrorPrefix {
        match self.given.text("error-prefix").map(|text| text.trim_end_matches(':')) {
            None if self.given.old_spelling => ErrorPrefix::InferenceGateway,
            None | Some("inference error") => ErrorPrefix::InferenceError,
            Some("inference gateway") => ErrorPrefix::InferenceGateway,
            Some(other) => {
                let other = other.escape_debug();
                self.wrong.push(format!("--error-prefix: `{other}`: give `inference error` or `inference gateway`"));
                ErrorPrefix::default()
            }
        }
    }

    fn config(&mut self) -> ConfigSource {
        match (self.given.text("config-file"), self.given.text("config-text")) {
            (None, None) => ConfigSource::Default,
            (Some(path), None) => ConfigSource::File(path.into()),
            (None, Some(text)) => ConfigSource::Text(text.to_owned()),
            (Some(_), Some(_)) => {
                self.wrong.push("--config-file and --config-text: give one".to_owned());
                ConfigSource::Default
            }
        }
    }

    fn saturation(&mut self) -> SaturationVariables {
        let queue = |value: &str| value.parse().ok().filter(|queue: &f64| *queue > 0.0 && queue.is_finite());
        let share = |value: &str| value.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
        SaturationVariables {
            queue: self.read("SD_QUEUE_DEPTH_THRESHOLD", queue),
            kv_cache_utilization: self.read("SD_KV_CACHE_UTIL_THRESHOLD", share),
            page_age: self.read("SD_METRICS_STALENESS_THRESHOLD", |value| duration_of(value).filter(|age| !age.is_zero())),
        }
    }

    fn hold_empty(&mut self) -> Option<HoldEmpty> {
        let text = self.given.text("hold-empty")?;
        let known = HoldEmpty::NAMES.iter().find(|(name, _)| *name == text).map(|(_, hold)| *hold);
        if known.is_none() {
            self.wrong.push(format!("--hold-empty: `{}` is not known: give auto, always or never", text.escape_debug()));
        }
        known
    }

    fn refresh(&mut self) -> Duration {
        let variable = "REFRESH_METRICS_INTERVAL";
        let given = self.given.duration("refresh-metrics-interval").or_else(|| self.read(variable, duration_of)).unwrap_or(REFRESH);
        let (least, most) = REFRESH_BOUNDS;
        let taken = refresh_within_bounds(given);
        if taken != given {
            self.notes.push(format!(
                "--refresh-metrics-interval: {given:?} is taken for {taken:?}: it lies between {least:?} and {most:?}"
            ));
        }
        taken
    }

    fn model_server(&mut self) -> ModelServerMetrics {
        let text = |flag: &str, variable: &str| self.given.text(flag).map(str::to_owned).or_else(|| self.variable(variable));
        let path = text("model-server-metrics-path", "MODEL_SERVER_METRICS_PATH").unwrap_or_else(|| "/metrics".to_owned());
        let scheme = match text("model-server-metrics-scheme", "MODEL_SERVER_METRICS_SCHEME").as_deref() {
            None | Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => {
                let wrong = format!("--model-server-metrics-scheme: `{}` is neither http nor https", other.escape_debug());
                self.wrong.push(wrong);
                Scheme::Http
            }
        };
        let port = self.port("model-server-metrics-port", Some("MODEL_SERVER_METRICS_PORT")).filter(|port| *port > 0);
        let variable = "MODEL_SERVER_METRICS_HTTPS_INSECURE_SKIP_VERIFY";
        let insecure = self.switch("model-server-metrics-https-insecure-skip-verify", variable);
        let hint_key = "x-gateway-destination-endpoint";
        if self.variable("DESTINATION_ENDPOINT_HINT_KEY").is_some_and(|key| key != hint_key) {
            self.wrong
                .push(format!("the variable DESTINATION_ENDPOINT_HINT_KEY: only {hint_key} is built: let the gateway read that"));
        }
        ModelServerMetrics { port, path, scheme, insecure_skip_verify: insecure.unwrap_or(true) }
    }
}

/// The Deployment of the pod that is called so: without the hashes of its ReplicaSet and its own.
fn deployment_of(pod: &str) -> Option<String> {
    let mut parts = pod.rsplitn(3, '-');
    let (_, _, deployment) = (parts.next()?, parts.next()?, parts.next()?);
    (!deployment.is_empty()).then(|| deployment.to_owned())
}
