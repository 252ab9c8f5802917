//! Every type of plugin: a new one is one line in [`TABLE`].

use std::sync::Arc;

use super::data_layer::{Extraction, PageSource, extraction, page_source};
use super::handlers::HandlerParameters;
use super::parameters::Parameters;
use super::reporter::reporter;
use crate::flow::{Fairness, Holdback, HoldbackDomain, Ordering, UsageLimit};
use crate::request::Parser;
use crate::response::AttributeReporter;
use crate::scheduling::admitters::ProbabilisticAdmitter;
use crate::scheduling::deciders::{AlwaysDecider, MultimodalDecider, PrefixBasedDecider};
use crate::scheduling::filters::{
    ByLabelFilter, HeaderTestingFilter, PrefixAffinityFilter, SessionAffinityFilter, TopologyFilter, UtilizationFilter,
};
use crate::scheduling::pickers::{MaxScorePicker, RandomPicker, WeightedRandomPicker};
use crate::scheduling::prefix::PrefixSettings;
use crate::scheduling::scorers::{
    ActiveRequestScorer, ContextLengthAware, HeaderLabelScorer, KvCacheUtilizationScorer, LatencyScorer, LoadAwareScorer,
    LoraAffinityScorer, NoHitLruScorer, PrefixCacheScorer, QueueScorer, RunningRequestsScorer, SessionAffinityScorer,
    TokenLoadScorer, TopologyScorer,
};
use crate::scheduling::{Admitter, Decider, Filter, Learner, Picker, SaturationDetector, Scorer, TokenEstimate, TopologyLabels};

/// What a plugin is.
#[derive(Clone, Debug)]
pub(super) enum Part {
    /// It takes part in profiles.
    Profile(Roles),
    Picker(Arc<dyn Picker>),
    Handler(HandlerParameters),
    Decider(Arc<dyn Decider>),
    Admitter(Arc<dyn Admitter>),
    /// Says how full the pool is, and is a filter in a profile.
    Detector(SaturationDetector),
    /// Makes what is read of prefixes.
    PrefixProducer(PrefixSettings),
    /// Says how many tokens are in flight.
    TokenProducer(TokenEstimate),
    /// Asks the frontend to say on responses which endpoint served.
    ServedVerifier,
    /// Says where pages are.
    PageSource(PageSource),
    /// Says what of pages counts.
    Extraction(Extraction),
    /// Says how bodies are read, where a parser is asked for by name.
    Parser(Parser),
    /// Tells the gateway a number of each response.
    Reporter(AttributeReporter),
    /// Says which flow is next.
    Fairness(Fairness),
    /// Says which request of a flow is next.
    Ordering(Ordering),
    /// Says up to which saturation a band is served.
    UsageLimit(UsageLimit),
    /// What could not be read, and was told of.
    Broken,
    /// What weir does in any case, or what changes nothing without predictions of latencies: there is nothing to make.
    BuiltIn,
}

/// What a plugin does in a profile: one of these, or several.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    pub(super) filter: Option<Arc<dyn Filter>>,
    pub(super) scorer: Option<Arc<dyn Scorer>>,
    pub(super) learner: Option<Arc<dyn Learner>>,
}

/// How a plugin is made from its parameters.
type Build = fn(&mut Parameters<'_, '_>) -> Part;

/// Types by upstream's names.
pub(super) const TABLE: [(&str, Build); 66] = [
    ("queue-scorer", |_| scorer(QueueScorer)),
    ("kv-cache-utilization-scorer", |_| scorer(KvCacheUtilizationScorer)),
    ("running-requests-size-scorer", |_| scorer(RunningRequestsScorer)),
    ("lora-affinity-scorer", |_| scorer(LoraAffinityScorer)),
    ("prefix-cache-scorer", prefix_scorer),
    ("token-load-scorer", |parameters| scorer(TokenLoadScorer::read(parameters))),
    ("latency-scorer", |parameters| scorer(LatencyScorer::read(parameters))),
    ("load-aware-scorer", |parameters| scorer(LoadAwareScorer::read(parameters))),
    ("active-request-scorer", |parameters| scorer(ActiveRequestScorer::read(parameters))),
    ("no-hit-lru-scorer", |parameters| learning_scorer(NoHitLruScorer::read(parameters))),
    ("session-affinity-scorer", |parameters| learning_scorer(SessionAffinityScorer::read(parameters))),
    ("context-length-aware", |parameters| {
        let plugin = Arc::new(ContextLengthAware::read(parameters));
        let filter = plugin.filters.then(|| plugin.clone() as Arc<dyn Filter>);
        Part::Profile(Roles { filter, scorer: Some(plugin), learner: None })
    }),
    ("header-label-affinity-scorer", |parameters| scorer(HeaderLabelScorer::read(parameters))),
    ("topology-affinity-scorer", |parameters| scorer(TopologyScorer::read(parameters))),
    ("prefix-cache-affinity-filter", |parameters| filter(PrefixAffinityFilter::read(parameters))),
    ("slo-headroom-tier-filter", |parameters| {
        parameters.real("epsilonExploreNeg", 0.01, |number| (0.0..=1.0).contains(&number), "a number from 0 to 1");
        unpredicted(parameters)
    }),
    ("utilization-filter", |parameters| filter(UtilizationFilter::read(parameters))),
    ("session-affinity-filter", |parameters| {
        let plugin = Arc::new(SessionAffinityFilter::read(parameters));
        Part::Profile(Roles { filter: Some(plugin.clone()), scorer: None, learner: Some(plugin) })
    }),
    ("label-selector-filter", |parameters| filter(ByLabelFilter::read_selector(parameters))),
    ("by-label-selector", |parameters| filter(ByLabelFilter::read_selector(parameters))),
    ("by-label", |parameters| filter(ByLabelFilter::read_values(parameters))),
    ("decode-filter", |parameters| filter(ByLabelFilter::decode(parameters))),
    ("prefill-filter", |parameters| filter(ByLabelFilter::prefill(parameters))),
    ("encode-filter", |parameters| filter(ByLabelFilter::encode(parameters))),
    ("topology-affinity-filter", |parameters| filter(TopologyFilter::read(parameters))),
    ("header-based-testing-filter", |_| filter(HeaderTestingFilter)),
    ("max-score-picker", |parameters| picker(MaxScorePicker { most: most_endpoints(parameters) })),
    ("random-picker", |parameters| picker(RandomPicker { most: most_endpoints(parameters) })),
    ("weighted-random-picker", |parameters| picker(WeightedRandomPicker { most: most_endpoints(parameters) })),
    ("single-profile-handler", |_| Part::Handler(HandlerParameters::Single)),
    ("header-profile-handler", |parameters| Part::Handler(HandlerParameters::by_header(parameters))),
    ("data-parallel-profile-handler", |parameters| Part::Handler(HandlerParameters::data_parallel(parameters))),
    ("disagg-profile-handler", |parameters| Part::Handler(HandlerParameters::disaggregated(parameters))),
    ("pd-profile-handler", |parameters| Part::Handler(HandlerParameters::prefill_decode(parameters))),
    ("disagg-headers-handler", headers_handler),
    ("prefill-header-handler", headers_handler),
    ("prefix-based-pd-decider", |parameters| Part::Decider(Arc::new(PrefixBasedDecider::read(parameters)))),
    ("always-disagg-pd-decider", |_| Part::Decider(Arc::new(AlwaysDecider))),
    ("always-disagg-multimodal-decider", |_| Part::Decider(Arc::new(MultimodalDecider))),
    ("latency-slo-admitter", unpredicted),
    ("probabilistic-admitter", |parameters| Part::Admitter(Arc::new(ProbabilisticAdmitter::read(parameters)))),
    ("approx-prefix-cache-producer", |parameters| Part::PrefixProducer(prefix_settings(parameters))),
    ("inflight-load-producer", |parameters| Part::TokenProducer(TokenEstimate::read(parameters))),
    ("topology-extractor", |parameters| {
        let labels = TopologyLabels::read(parameters);
        parameters.needs().topology_labels(labels);
        Part::BuiltIn
    }),
    ("utilization-detector", |parameters| Part::Detector(SaturationDetector::read_utilization(parameters))),
    ("concurrency-detector", |parameters| Part::Detector(SaturationDetector::read_concurrency(parameters))),
    ("metrics-data-source", |parameters| Part::PageSource(page_source(parameters))),
    ("core-metrics-extractor", |parameters| Part::Extraction(extraction(parameters))),
    ("endpoint-notification-source", |_| Part::BuiltIn),
    ("openai-parser", |_| Part::Parser(Parser::OpenAi)),
    ("anthropic-parser", |_| Part::Parser(Parser::Anthropic)),
    ("vllmhttp-parser", |_| Part::Parser(Parser::VllmHttp)),
    ("sglanghttp-parser", |_| Part::Parser(Parser::SglangHttp)),
    ("vllmgrpc-parser", |_| Part::Parser(Parser::VllmGrpc)),
    ("vertexai-parser", |_| Part::Parser(Parser::VertexAi)),
    ("passthrough-parser", |_| Part::Parser(Parser::Passthrough)),
    ("request-attribute-reporter", |parameters| parameters.required("attributes", reporter).map_or(Part::Broken, Part::Reporter)),
    ("destination-endpoint-served-verifier", |_| Part::ServedVerifier),
    ("global-strict-fairness-policy", |_| Part::Fairness(Fairness::GlobalStrict)),
    ("round-robin-fairness-policy", |_| Part::Fairness(Fairness::RoundRobin)),
    ("fcfs-ordering-policy", |_| Part::Ordering(Ordering::Fcfs)),
    ("edf-ordering-policy", |_| Part::Ordering(Ordering::Edf)),
    ("slo-deadline-ordering-policy", |_| Part::Ordering(Ordering::SloDeadline)),
    ("static-usage-limit-policy", |parameters| {
        Part::UsageLimit(UsageLimit::Static(parameters.real("threshold", 1.0, |number| number > 0.0, "a number above 0")))
    }),
    ("priority-holdback-policy", holdback),
    ("soft-reflective-ceiling-policy", |_| Part::UsageLimit(UsageLimit::SoftReflective)),
];

fn scorer(scorer: impl Scorer + 'static) -> Part {
    Part::Profile(Roles { scorer: Some(Arc::new(scorer)), ..Roles::default() })
}

fn learning_scorer(scorer: impl Scorer + Learner + 'static) -> Part {
    let plugin = Arc::new(scorer);
    Part::Profile(Roles { filter: None, scorer: Some(plugin.clone()), learner: Some(plugin) })
}

fn filter(filter: impl Filter + 'static) -> Part {
    Part::Profile(Roles { filter: Some(Arc::new(filter)), ..Roles::default() })
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

/// The scorer, whose parameters may also be meant for the producer.
fn prefix_scorer(parameters: &mut Parameters<'_, '_>) -> Part {
    let given = parameters.any();
    let plugin = PrefixCacheScorer::read(parameters);
    let settings = prefix_settings(parameters);
    let needs = parameters.needs();
    needs.prefix();
    if given {
        needs.prefix_settings.get_or_insert(settings);
    }
    scorer(plugin)
}

fn prefix_settings(parameters: &mut Parameters<'_, '_>) -> PrefixSettings {
    let default = if parameters.llm_d() { PrefixSettings::llm_d() } else { PrefixSettings::default() };
    parameters.refused("blockSize", "is the old name, in characters: write `blockSizeTokens`, a quarter of it");
    PrefixSettings {
        auto_tune: parameters.boolean("autoTune", default.auto_tune),
        block_size_tokens: parameters.whole("blockSizeTokens", default.block_size_tokens, 1..=65_536),
        most_blocks: parameters.whole("maxPrefixBlocksToMatch", default.most_blocks, 1..=65_536),
        most_tokens: parameters.whole("maxPrefixTokensToMatch", default.most_tokens, 0..=4_194_304),
        capacity_per_server: parameters.whole("lruCapacityPerServer", default.capacity_per_server, 1..=2_000_000),
        ..default
    }
}

/// The profile handler sets the headers itself.
fn headers_handler(parameters: &mut Parameters<'_, '_>) -> Part {
    parameters.ignored("prefillProfile");
    parameters.ignored("encodeProfile");
    Part::BuiltIn
}

fn holdback(parameters: &mut Parameters<'_, '_>) -> Part {
    parameters.choice("shape", (), &[("linear", ())]);
    let domains = [("rank", HoldbackDomain::Rank), ("value", HoldbackDomain::Value)];
    let domain = parameters.choice("domain", HoldbackDomain::Rank, &domains);
    if !parameters.given("minCeiling") {
        parameters.missing("minCeiling", "write the ceiling of the lowest band, from 0 to below 1");
    }
    let within = |number: f64| (0.0..1.0).contains(&number);
    let lowest = parameters.real("minCeiling", 0.0, within, "a number from 0 to below 1");
    let highest = parameters.real("maxCeiling", 1.0, |number| number > 0.0 && number <= 1.0, "a number above 0, at most 1");
    if lowest > highest {
        parameters.contradiction(format!("`minCeiling` {lowest} is above `maxCeiling` {highest}: exchange them"));
    }
    Part::UsageLimit(UsageLimit::Holdback(Holdback { domain, lowest, highest }))
}

fn unpredicted(parameters: &mut Parameters<'_, '_>) -> Part {
    parameters.refused("latencyPredictionInfoProducerName", "names a predictor of latencies, which weir has not: remove it");
    Part::BuiltIn
}
