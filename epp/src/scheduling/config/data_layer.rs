//! Where endpoints' pages are and what on them counts: `metrics-data-source` and `core-metrics-extractor`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weir_datastore::engine::{CustomFamily, Engine, Several};
use weir_datastore::{LoadSignal, Scheme};

use super::Reader;
use super::parameters::Parameters;
use super::table::Part;
use super::yaml::Value;

/// How pages are read, where the configuration says so; what is none is left to flags, annotations and what a page shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DataLayer {
    /// Where pages are.
    pub source: PageSource,
    /// What writes them.
    pub engine: Option<Engine>,
    /// Families in place of the engine's own.
    pub families: Arc<[CustomFamily]>,
}

/// Where pages are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PageSource {
    /// `scheme`
    pub scheme: Option<Scheme>,
    /// `path`, beginning with `/`.
    pub path: Option<Arc<str>>,
    /// `port`; with several target ports each keeps its own.
    pub port: Option<u16>,
    /// `interval`: how often a server at work is read.
    pub interval: Option<Duration>,
    /// `insecureSkipVerify`
    pub insecure_skip_verify: Option<bool>,
    /// `caCertPath`: PEM certificates that sign the servers'.
    pub ca_file: Option<PathBuf>,
}

/// What of a page counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Extraction {
    engine: Option<Engine>,
    families: Vec<CustomFamily>,
}

impl DataLayer {
    pub(super) fn new(source: PageSource, Extraction { engine, families }: Extraction) -> Self {
        Self { source, engine, families: families.into() }
    }
}

impl Reader {
    /// `dataLayer`: its sources name plugins of the list, whose parameters count wherever they are named.
    pub(super) fn data_layer(&mut self, value: &Value<'_>) {
        let known =
            ["sources", "injectDefaults", "discovery", "peerDiscovery", "crossReplicaSyncerPluginRef", "crossReplicaSyncInterval"];
        let Some(fields) = self.reading.fields(value, "`sources`", &known) else { return };
        for (name, why) in [
            ("discovery", "is not offered: without a cluster `--pools FILE` names the endpoints (docs/pools-file.md)"),
            ("peerDiscovery", PEERS),
            ("crossReplicaSyncerPluginRef", PEERS),
            ("crossReplicaSyncInterval", PEERS),
        ] {
            if let Some(value) = fields.get(name) {
                self.reading.refuse(&value, why);
            }
        }
        if let Some(value) = fields.get("injectDefaults") {
            self.reading.boolean(&value);
        }
        let Some(sources) = fields.get("sources") else { return };
        for source in self.reading.list(&sources, "a list of sources, each with `pluginRef`") {
            let Some(fields) = self.reading.fields(&source, "`pluginRef` and `extractors`", &["pluginRef", "extractors"]) else {
                continue;
            };
            let named = self.referenced(&fields);
            if let Some(plugin) = named.filter(|plugin| !matches!(plugin.part, Part::PageSource(_) | Part::Broken)) {
                self.reading.refuse(&source, format!("`{}` is no source of data: name a metrics-data-source", plugin.name.name));
            }
            let Some(extractors) = fields.get("extractors") else { continue };
            for extractor in self.reading.list(&extractors, "a list of `pluginRef`") {
                let Some(fields) = self.reading.fields(&extractor, "`pluginRef`", &["pluginRef"]) else { continue };
                let named = self.referenced(&fields);
                let extracts = |part: &Part| matches!(part, Part::Extraction(_) | Part::BuiltIn | Part::Broken);
                if let Some(plugin) = named.filter(|plugin| !extracts(&plugin.part)) {
                    let message = format!("`{}` is no extractor: name a core-metrics-extractor", plugin.name.name);
                    self.reading.refuse(&extractor, message);
                }
            }
        }
    }
}

const PEERS: &str = "is not offered: pickers do not tell each other of requests; each sees the others' in the servers' own numbers";

/// The parameters of `metrics-data-source`.
pub(super) fn page_source(parameters: &mut Parameters<'_, '_>) -> PageSource {
    const NO_CERTIFICATE: &str =
        "is not offered: servers are shown no certificate; leave it out, or let them take requests for the page without one";
    parameters.refused("clientCertPath", NO_CERTIFICATE);
    parameters.refused("clientKeyPath", NO_CERTIFICATE);
    let path = parameters.text("path");
    if path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(char::is_whitespace)) {
        parameters.refused("path", "is no path: write one as /metrics");
    }
    let insecure = parameters.boolean("insecureSkipVerify", true);
    let port = parameters.whole("port", 0, 0..=65_535);
    PageSource {
        scheme: parameters.choice("scheme", None, &[("http", Some(Scheme::Http)), ("https", Some(Scheme::Https))]),
        path: path.map(Into::into),
        port: u16::try_from(port).ok().filter(|port| *port > 0),
        interval: parameters.duration("interval"),
        insecure_skip_verify: parameters.given("insecureSkipVerify").then_some(insecure),
        ca_file: parameters.text("caCertPath").map(PathBuf::from),
    }
}

/// Upstream's engines with their specs of queue, running and KV cache: naming them again changes nothing.
const UPSTREAM: [(&str, [&str; 3]); 4] = [
    ("vllm", ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"]),
    ("sglang", ["sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage"]),
    ("trtllm-serve", ["trtllm_num_requests_waiting", "trtllm_num_requests_running", "trtllm_kv_cache_utilization"]),
    (
        "triton-tensorrt-llm",
        [
            "nv_trt_llm_request_metrics{request_type=waiting}",
            "nv_trt_llm_request_metrics{request_type=scheduled}",
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
        ],
    ),
];

/// Specs that are read as upstream's engines have them and can be no others.
const FIXED: [(&str, &[&str]); 7] = [
    ("loraSpec", &["vllm:lora_requests_info"]),
    ("cacheInfoSpec", &["vllm:cache_config_info", "sglang:cache_config_info"]),
    ("cacheBlockSizeLabelName", &["block_size", "page_size"]),
    ("cacheNumBlocksLabelName", &["num_gpu_blocks", "num_pages"]),
    (
        "cacheBlockSizeSpec",
        &["trtllm_kv_cache_tokens_per_block", "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"],
    ),
    ("cacheNumBlocksSpec", &["trtllm_kv_cache_max_blocks", "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"]),
    ("customMetrics", &[]),
];

/// The parameters of `core-metrics-extractor`.
pub(super) fn extraction(parameters: &mut Parameters<'_, '_>) -> Extraction {
    if parameters.text("engineLabelKey").is_some_and(|label| !Engine::POD_LABELS.contains(&label.as_str())) {
        let [first, second] = Engine::POD_LABELS;
        parameters.refused(
            "engineLabelKey",
            &format!("is not read: the pod labels {first} and {second} name the engine, else its page shows it"),
        );
    }
    let default = parameters.text("defaultEngine").unwrap_or_else(|| "vllm".to_owned());
    let configs = parameters.each("engineConfigs", engine_config);
    let count = configs.len();
    let mut own: Vec<_> = configs.into_iter().filter(|(_, families)| !families.is_empty()).collect();
    if own.len() > 1 {
        let names: Vec<_> = own.iter().map(|(name, _)| name.as_str()).collect();
        parameters.contradiction(format!(
            "engines {} have specs of their own: of one pool one engine can; leave upstream's out, they are recognised by their pages",
            names.join(", ")
        ));
    }
    let Some((name, families)) = own.pop() else { return Extraction::default() };
    if name != default && count > 1 {
        parameters
            .contradiction(format!("`{name}` has specs of its own and is not the default engine: write `defaultEngine: {name}`"));
    }
    Extraction { engine: Some(name.parse().unwrap_or(Engine::Custom)), families }
}

/// One of `engineConfigs`: its name, and families where they are not upstream's.
fn engine_config(parameters: &mut Parameters<'_, '_>) -> (String, Vec<CustomFamily>) {
    let name = parameters.required_text("name", "name the engine, as pods' labels do");
    for (field, known) in FIXED {
        if parameters.given(field) {
            let fixed = field != "customMetrics"
                && parameters.text(field).is_some_and(|spec| known.contains(&spec.replace('"', "").as_str()));
            if !fixed {
                parameters.refused(
                    field,
                    "is not offered: adapters and cache geometry are read as the known engines write them (docs/engines.md)",
                );
            }
        }
    }
    let upstream = UPSTREAM.iter().find(|(engine, _)| *engine == name).map(|(_, specs)| *specs);
    let signals = [
        ("queuedRequestsSpec", LoadSignal::Waiting, Several::Sum),
        ("runningRequestsSpec", LoadSignal::Running, Several::Sum),
        ("kvUsageSpec", LoadSignal::KvCacheUtilization, Several::Mean),
    ];
    let mut families = Vec::new();
    for (position, (field, signal, several)) in signals.into_iter().enumerate() {
        let Some(spec) = parameters.text(field) else { continue };
        if upstream.is_some_and(|specs| specs[position] == spec.replace('"', "")) {
            continue;
        }
        match selector(&spec) {
            Some((name, labels)) => families.push(CustomFamily { name, labels, signal, several }),
            None => parameters.refused(field, "is no series: write its name, or name{label=\"value\"} with equal signs alone"),
        }
    }
    (name, families)
}

/// A vector selector of PromQL with `=` alone; values may go without quotes, as upstream's do.
fn selector(spec: &str) -> Option<(String, BTreeMap<String, String>)> {
    let is_name = |name: &str, also: &str| {
        !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || also.contains(letter))
    };
    let (name, matchers) = match spec.trim().split_once('{') {
        Some((name, rest)) => (name.trim(), rest.trim_end().strip_suffix('}')?),
        None => (spec.trim(), ""),
    };
    let mut labels = BTreeMap::new();
    for matcher in matchers.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
        let (label, value) = matcher.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').map_or(Some(value), |value| value.strip_suffix('"'))?;
        let plain = !value.starts_with(['~', '=']) && !value.contains(['"', '\\', '{', '}']);
        if !is_name(label.trim(), "_") || !plain || labels.insert(label.trim().to_owned(), value.to_owned()).is_some() {
            return None;
        }
    }
    is_name(name, "_:").then(|| (name.to_owned(), labels))
}

#[cfg(test)]
mod tests {
    use super::super::SchedulingConfig;
    use super::*;

    fn read(plugins: &str) -> Result<DataLayer, String> {
        let text = format!("apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}");
        SchedulingConfig::parse(&text).map(|config| config.data_layer).map_err(|error| error.to_string())
    }

    #[test]
    fn pages_are_where_the_configuration_says() {
        assert_eq!(read("- type: metrics-data-source\n").unwrap(), DataLayer::default(), "nothing said: flags and defaults");
        let source = "- type: metrics-data-source\n  parameters: { scheme: https, path: /m, port: 9000, interval: 100ms, insecureSkipVerify: false, caCertPath: /ca.pem }\n";
        let expected = PageSource {
            scheme: Some(Scheme::Https),
            path: Some("/m".into()),
            port: Some(9000),
            interval: Some(Duration::from_millis(100)),
            insecure_skip_verify: Some(false),
            ca_file: Some("/ca.pem".into()),
        };
        assert_eq!(read(source).unwrap().source, expected);
        let error = read("- type: metrics-data-source\n  parameters: { path: metrics, clientCertPath: /c }\n").unwrap_err();
        assert!(
            error.contains("plugins[0].parameters.path: is no path") && error.contains("servers are shown no certificate"),
            "{error}"
        );
    }

    #[test]
    fn series_of_ones_own_take_the_place_of_an_engines() {
        let extractor = |configs: &str| read(&format!("- type: core-metrics-extractor\n  parameters:\n    {configs}\n"));
        let vllm = "engineConfigs: [{ name: vllm, queuedRequestsSpec: \"vllm:num_requests_waiting\", loraSpec: \"vllm:lora_requests_info\" }]";
        assert_eq!(extractor(vllm).unwrap(), DataLayer::default(), "upstream's own");
        let mine = extractor("engineConfigs: [{ name: mine, queuedRequestsSpec: 'q{kind=waiting, tier=\"a\"}', kvUsageSpec: kv }]")
            .unwrap();
        assert_eq!(mine.engine, Some(Engine::Custom));
        let labels = [("kind", "waiting"), ("tier", "a")].map(|(label, value)| (label.to_owned(), value.to_owned()));
        assert_eq!(
            *mine.families,
            [
                CustomFamily { name: "q".into(), labels: labels.into(), signal: LoadSignal::Waiting, several: Several::Sum },
                CustomFamily {
                    name: "kv".into(),
                    labels: BTreeMap::new(),
                    signal: LoadSignal::KvCacheUtilization,
                    several: Several::Mean
                },
            ]
        );
        let renamed = extractor("engineConfigs: [{ name: sglang, runningRequestsSpec: 'my:running' }]").unwrap();
        assert_eq!((renamed.engine, renamed.families.len()), (Some(Engine::Sglang), 1));
        for (wrong, told) in [
            ("engineLabelKey: my.org/engine", "is not read: the pod labels"),
            ("engineConfigs: [{ name: a, kvUsageSpec: 'kv{a=~\"b\"}' }]", "is no series"),
            ("engineConfigs: [{ name: a, kvUsageSpec: 'rate(kv)' }]", "is no series"),
            ("engineConfigs: [{ name: a, kvUsageSpec: 'kv{a=b' }]", "is no series"),
            ("engineConfigs: [{ kvUsageSpec: kv }]", "name: is missing"),
            (
                "engineConfigs: [{ name: a, kvUsageSpec: kv }, { name: b, kvUsageSpec: cache }]",
                "engines a, b have specs of their own",
            ),
            ("engineConfigs: [{ name: a, kvUsageSpec: x }, { name: vllm }]", "write `defaultEngine: a`"),
            ("engineConfigs: [{ name: a, loraSpec: mine }]", "is not offered"),
        ] {
            let error = extractor(wrong).unwrap_err();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }
}
