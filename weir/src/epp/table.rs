//! The flags: those of the Go picker since v0.2 and of its successor, and weir's own.

use crate::go_flags::Effect::{Heeded, Instead, Needless, OnlyDefault, Own};
use crate::go_flags::Kind::{Bool, Duration, Number, Port, Ports, Text};
use crate::go_flags::{Flag, Program, flag};

/// The picker's command line.
pub(super) const PICKER: Program = Program {
    name: "epp",
    head: "The endpoint picker of one InferencePool, with the command line of the Go picker (docs/epp.md)\n\n\
           Usage: weir epp [FLAGS], or under the name epp\n\n\
           -flag is --flag, and the spellings of v0.2 to v0.5 (poolName) are understood.\n",
    table: TABLE,
    other_spellings: &OTHER_SPELLINGS,
};

const ENGINES: &str = "engines are recognised by their pages, whose families weir knows (docs/engines.md)";

/// Every flag, in the order of the help.
#[rustfmt::skip]
pub(super) const TABLE: &[Flag] = &[
    flag("pool-name", Text, "", Heeded, "The InferencePool"),
    flag("pool-namespace", Text, "$NAMESPACE, else default", Heeded, "Its namespace"),
    flag("pool-group", Text, "inference.networking.k8s.io", Heeded, "Its API group; old spellings of flags mean the x-k8s.io one"),
    flag("endpoint-selector", Text, "", Heeded, "Without an InferencePool: labels of its pods, app=vllm,tier=fast"),
    flag("endpoint-target-ports", Ports, "", Heeded, "Without an InferencePool: 1 to 8 ports of each pod"),
    flag("disable-endpoint-subset-filter", Bool, "false", Heeded, "Pass over the gateway's subset of endpoints"),
    flag("config-file", Text, "", Heeded, "An EndpointPickerConfig (docs/plugins.md)"),
    flag("config-text", Text, "", Heeded, "The same, its text"),
    flag("grpc-port", Port, "9002", Heeded, "Port of ext_proc"),
    flag("grpc-health-port", Port, "9003", Heeded, "Port of gRPC health, plain text"),
    flag("metrics-port", Port, "9090", Heeded, "Port of the metrics page and the pool's stream"),
    flag("secure-serving", Bool, "true", Heeded, "TLS on ext_proc"),
    flag("cert-path", Text, "", Heeded, "Directory of tls.crt and tls.key; without it weir makes a certificate"),
    flag("metrics-endpoint-auth", Bool, "true", Heeded, "In a cluster: the page is for whom the API server lets get it"),
    flag("metrics-cert-dir", Text, "", Heeded, "TLS on the metrics port, with tls.crt and tls.key of this directory"),
    flag("metrics-client-ca-file", Text, "", Heeded, "Callers of the metrics port bring a certificate of this authority"),
    flag("refresh-metrics-interval", Duration, "50ms", Heeded, "How often a server at work is read; an idle one twice a second"),
    flag("model-server-metrics-port", Port, "0", Heeded, "Port of the servers' pages; 0: the target port"),
    flag("model-server-metrics-path", Text, "/metrics", Heeded, "Path of the servers' pages"),
    flag("model-server-metrics-scheme", Text, "http", Heeded, "http or https"),
    flag("model-server-metrics-https-insecure-skip-verify", Bool, "true", Heeded, "Take any certificate of the servers"),
    flag("drain-timeout", Duration, "15s in a cluster, else 0s", Heeded, "How long to go on accepting after SIGTERM"),
    flag("v", Number, "2", Heeded, "How much is logged: 4 debug, 5 trace"),
    flag("zap-log-level", Text, "", Heeded, "The same as debug, info, error or a number; goes before -v"),
    flag("zap-encoder", Text, "console", Heeded, "json or console"),
    flag("tracing", Bool, "true", Heeded, "Send spans, where OTEL_* variables name a collector (docs/tracing.md)"),
    flag("kubeconfig", Text, "", Heeded, "A kubeconfig, for use outside of a cluster"),
    flag("zap-devel", Bool, "true", Needless, ""),
    flag("zap-stacktrace-level", Text, "", Needless, ""),
    flag("zap-time-encoding", Text, "", Needless, ""),
    flag("enable-cert-reload", Bool, "false", Needless, "Certificates are always read again when they change"),
    flag("health-checking", Bool, "false", Needless, "ext_proc's port always answers health as well"),
    flag("refresh-prometheus-metrics-interval", Duration, "5s", Needless, "The page is computed when it is read"),
    flag("allow-experimental-plugins", Bool, "false", Needless, "The configuration says which plugins run"),
    flag("metrics-staleness-threshold", Duration, "2s", Instead("2s", "a page counts for three intervals, 5 s at most"), ""),
    flag("ha-enable-leader-election", Bool, "false", Instead("false", "every replica answers, none waits to lead"), ""),
    flag("enable-pprof", Bool, "true", Instead("false", "there are no /debug/pprof pages"), ""),
    flag("emit-endpoint-scores", Bool, "false", Instead("false", "scores are not told to the gateway"), ""),
    flag("enable-grpc-stream-metrics", Bool, "false", Instead("false", "weir_ext_proc_streams is always there"), ""),
    flag("grpc-max-recv-msg-size", Number, "", Instead("", "a request's body may have 16 MiB"), ""),
    flag("grpc-max-send-msg-size", Number, "", Instead("", "pieces of a body have 24 KiB"), ""),
    flag("tls-min-version", Text, "", Instead("", "TLS 1.2 and 1.3 are spoken"), ""),
    flag("tls-cipher-suites", Text, "", Instead("", "the suites are those of rustls"), ""),
    flag("total-queued-requests-metric", Text, "", Instead("vllm:num_requests_waiting", ENGINES), ""),
    flag("total-running-requests-metric", Text, "", Instead("vllm:num_requests_running", ENGINES), ""),
    flag("kv-cache-usage-percentage-metric", Text, "", Instead("vllm:kv_cache_usage_perc", ENGINES), ""),
    flag("lora-info-metric", Text, "", Instead("vllm:lora_requests_info", ENGINES), ""),
    flag("cache-info-metric", Text, "", Instead("vllm:cache_config_info", ENGINES), ""),
    flag("destination-endpoint-hint-key", Text, "x-gateway-destination-endpoint",
        OnlyDefault("let the gateway read x-gateway-destination-endpoint"), ""),
    flag("destination-endpoint-hint-metadata-namespace", Text, "envoy.lb",
        OnlyDefault("let the gateway read the metadata of envoy.lb"), ""),
    flag("error-prefix", Text, "inference error", Own, "What refusals begin with; `inference gateway` as up to v1.4"),
    flag("pools", Text, "", Own, "Without a cluster: a file of pools (docs/pools-file.md); --pool-name chooses among several"),
    flag("rules", Text, "", Own, "Without a cluster: InferenceObjectives, InferenceModelRewrites, InferenceModels as YAML"),
    flag("ask-for-bodies", Bool, "false", Own, "Ask gateways that send no bodies for them; they must have allow_mode_override"),
    flag("hold-empty", Text, "auto", Own, "Whether requests wait for a pool without endpoints: auto, always, never (docs/epp.md)"),
    flag("unknown-models", Text, "pass", Own, "pass or refuse: 404 for models that no server lists on /v1/models, with near names"),
    flag("served-header", Text, "", Own, "The header of answers that tells which endpoint served"),
    flag("http", Text, "", Own, "Without a gateway: ADDRESS:PORT where clients are served, each request where it is placed"),
    flag("http-cert-path", Text, "", Own, "TLS there, with tls.crt and tls.key of this directory"),
    flag("http-idle-timeout", Duration, "10m", Own, "How long a model server may say nothing there"),
    flag("http-keep-alive", Duration, "15s", Own, "How often who waits there for a streamed answer hears a comment; 0s: never"),
    flag("http-body-timeout", Duration, "30s", Own, "How long a client there may send nothing of a body that it has begun"),
    flag("http-backend-scheme", Text, "http", Own, "How model servers are spoken to there: http or https"),
    flag("http-backend-ca-file", Text, "", Own, "The authority of their certificates, PEM; the system's where not given"),
    flag("http-backend-server-name", Text, "", Own, "The name in their certificates; without it each must name its IP address"),
    flag("http-backend-insecure-skip-verify", Bool, "false", Own, "Take any certificate of theirs"),
    flag("access-log", Text, "", Own, "A line of JSON for each request, to this file; - is standard output"),
    flag("context", Text, "", Own, "Which context of the kubeconfig"),
    flag("bind-address", Text, ":: or 0.0.0.0", Own, "The address of all ports; a port 0 takes a free one"),
];

/// Spellings that are neither.
const OTHER_SPELLINGS: [(&str, &str); 1] =
    [("DestinationEndpointHintMetadataNamespace", "destination-endpoint-hint-metadata-namespace")];
