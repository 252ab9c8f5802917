//! Every type of plugin: a new one is one line in [`TABLE`].

use std::sync::Arc;

use weir_datastore::Thresholds;

use super::parameters::Parameters;
use super::reporter::reporter;
use crate::request::Parser;
use crate::response::AttributeReporter;
use crate::scheduling::filters::HeaderTestingFilter;
use crate::scheduling::pickers::{MaxScorePicker, RandomPicker, WeightedRandomPicker};
use crate::scheduling::prefix::PrefixSettings;
use crate::scheduling::scorers::{KvCacheUtilizationScorer, LoraAffinityScorer, QueueScorer, RunningRequestsScorer};
use crate::scheduling::{Filter, Picker, SaturationDetector, Scorer};

/// What a plugin is.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Filter(Arc<dyn Filter>),
    Scorer(Arc<dyn Scorer>),
    Picker(Arc<dyn Picker>),
    /// Says how full the pool is, and is a filter in a profile.
    Detector(SaturationDetector),
    /// Makes what the prefix scorer reads.
    PrefixProducer(PrefixSettings),
    /// The scorer; with settings where its parameters are meant for the producer.
    PrefixScorer(Option<PrefixSettings>),
    /// Asks the frontend to say on responses which endpoint served.
    ServedVerifier,
    /// Says how bodies are read, where a parser is asked for by name.
    Parser(Parser),
    /// Tells the gateway a number of each response.
    Reporter(AttributeReporter),
    /// What could not be read, and was told of.
    Broken,
    /// What weir does in any case, so that there is nothing to make.
    BuiltIn,
}

/// How a plugin is made from its parameters.
type Build = fn(&mut Parameters<'_, '_>) -> Part;

/// Types by upstream's names.
pub(super) const TABLE: [(&str, Build); 22] = [
    ("queue-scorer", |_| scorer(QueueScorer)),
    ("kv-cache-utilization-scorer", |_| scorer(KvCacheUtilizationScorer)),
    ("running-requests-size-scorer", |_| scorer(RunningRequestsScorer)),
    ("lora-affinity-scorer", |_| scorer(LoraAffinityScorer)),
    ("prefix-cache-scorer", |parameters| {
        let given = parameters.any();
        let settings = prefix_settings(parameters);
        Part::PrefixScorer(given.then_some(settings))
    }),
    ("approx-prefix-cache-producer", |parameters| Part::PrefixProducer(prefix_settings(parameters))),
    ("max-score-picker", |parameters| picker(MaxScorePicker { most: most_endpoints(parameters) })),
    ("random-picker", |parameters| picker(RandomPicker { most: most_endpoints(parameters) })),
    ("weighted-random-picker", |parameters| picker(WeightedRandomPicker { most: most_endpoints(parameters) })),
    ("header-based-testing-filter", |_| Part::Filter(Arc::new(HeaderTestingFilter))),
    ("utilization-detector", |parameters| Part::Detector(utilization(parameters))),
    ("concurrency-detector", |parameters| Part::Detector(concurrency(parameters))),
    ("single-profile-handler", |_| Part::BuiltIn),
    ("openai-parser", |_| Part::Parser(Parser::OpenAi)),
    ("anthropic-parser", |_| Part::Parser(Parser::Anthropic)),
    ("vllmhttp-parser", |_| Part::Parser(Parser::VllmHttp)),
    ("sglanghttp-parser", |_| Part::Parser(Parser::SglangHttp)),
    ("vllmgrpc-parser", |_| Part::Parser(Parser::VllmGrpc)),
    ("vertexai-parser", |_| Part::Parser(Parser::VertexAi)),
    ("passthrough-parser", |_| Part::Parser(Parser::Passthrough)),
    ("request-attribute-reporter", |parameters| parameters.required("attributes", reporter).map_or(Part::Broken, Part::Reporter)),
    ("destination-endpoint-served-verifier", |_| Part::ServedVerifier),
];

/// Upstream's types that are not there, so that they are told from misspelt ones.
pub(super) const NOT_BUILT: [&str; 46] = [
    "active-request-scorer",
    "agent-identity",
    "always-disagg-multimodal-decider",
    "always-disagg-pd-decider",
    "context-length-aware",
    "core-metrics-extractor",
    "data-parallel-profile-handler",
    "decode-filter",
    "disagg-profile-handler",
    "edf-ordering-policy",
    "encode-filter",
    "endpoint-attribute-filter",
    "endpoint-attribute-scorer",
    "endpoint-notification-source",
    "fcfs-ordering-policy",
    "file-discovery",
    "global-strict-fairness-policy",
    "header-label-affinity-scorer",
    "header-profile-handler",
    "inflight-load-producer",
    "k8s-notification-source",
    "label-selector-filter",
    "latency-scorer",
    "latency-slo-admitter",
    "load-aware-scorer",
    "metrics-data-source",
    "no-hit-lru-scorer",
    "pd-profile-handler",
    "precise-prefix-cache-scorer",
    "predicted-latency-producer",
    "predicted-latency-scorer",
    "prefill-filter",
    "prefix-based-pd-decider",
    "prefix-cache-affinity-filter",
    "priority-holdback-policy",
    "probabilistic-admitter",
    "round-robin-fairness-policy",
    "session-affinity-filter",
    "session-affinity-scorer",
    "slo-deadline-ordering-policy",
    "slo-headroom-tier-filter",
    "static-usage-limit-policy",
    "token-load-scorer",
    "topology-affinity-filter",
    "topology-affinity-scorer",
    "utilization-filter",
];

fn scorer(scorer: impl Scorer + 'static) -> Part {
    Part::Scorer(Arc::new(scorer))
}

fn picker(picker: impl Picker + 'static) -> Part {
    Part::Picker(Arc::new(picker))
}

/// Endpoints of one answer: beyond that a header grows, and no gateway tries so many.
const MOST_ENDPOINTS: usize = 64;

/// `maxNumOfEndpoints`; below 1 means 1, as upstream has it.
fn most_endpoints(parameters: &mut Parameters<'_, '_>) -> usize {
    parameters.whole("maxNumOfEndpoints", 1, 0..=MOST_ENDPOINTS).max(1)
}

fn prefix_settings(parameters: &mut Parameters<'_, '_>) -> PrefixSettings {
    let default = PrefixSettings::default();
    parameters.refused("blockSize", "is the old name, in characters: write `blockSizeTokens`, a quarter of it");
    PrefixSettings {
        auto_tune: parameters.boolean("autoTune", default.auto_tune),
        block_size_tokens: parameters.whole("blockSizeTokens", default.block_size_tokens, 1..=65_536),
        most_blocks: parameters.whole("maxPrefixBlocksToMatch", default.most_blocks, 1..=65_536),
        most_tokens: parameters.whole("maxPrefixTokensToMatch", default.most_tokens, 0..=4_194_304),
        capacity_per_server: parameters.whole("lruCapacityPerServer", default.capacity_per_server, 1..=2_000_000),
    }
}

fn headroom(parameters: &mut Parameters<'_, '_>) -> f64 {
    parameters.real("headroom", 0.0, |number| number >= 0.0, "a number of 0 or above")
}

fn utilization(parameters: &mut Parameters<'_, '_>) -> SaturationDetector {
    let Thresholds { queue, kv_cache_utilization } = Thresholds::default();
    let queue = parameters.real("queueDepthThreshold", queue, |number| number > 0.0, "a number above 0");
    let within = |number: f64| number > 0.0 && number <= 1.0;
    let cache = parameters.real("kvCacheUtilThreshold", kv_cache_utilization, within, "a number above 0, at most 1");
    SaturationDetector::Utilization {
        thresholds: Thresholds { queue, kv_cache_utilization: cache },
        page_age: parameters.duration("metricsStalenessThreshold"),
        headroom: headroom(parameters),
    }
}

fn concurrency(parameters: &mut Parameters<'_, '_>) -> SaturationDetector {
    parameters.choice("concurrencyMode", &["requests"], &["tokens", "hybrid"]);
    parameters.refused("maxTokenConcurrency", "not built yet: counting tokens in flight; `maxConcurrency` counts requests");
    SaturationDetector::Concurrency {
        most: parameters.whole("maxConcurrency", 100, 1..=1_000_000) as u64,
        headroom: headroom(parameters),
    }
}
