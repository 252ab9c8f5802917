//! Families by model. Clients name models, so their number is bounded.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use weir_datastore::latency::Latency;

use super::latency::Latencies;
use super::{Histograms, MODEL_SERVER_ERROR, buckets, code_label};
use crate::inference::{Code, Usage};

/// Pairs of model and target that have series of their own, beside the configured ones. Each makes 260 lines of the page.
pub(super) const MOST_PAIRS: usize = 250;
/// Bytes of a name that has series of its own.
const LONGEST_NAME: usize = 256;
/// The name of what has none.
pub(super) const OTHER: &str = "other";

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ModelLabels {
    model_name: Arc<str>,
    target_model_name: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    model_name: Arc<str>,
    target_model_name: Arc<str>,
    priority: i32,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ErrorLabels {
    model_name: Arc<str>,
    target_model_name: Arc<str>,
    error_code: &'static str,
}

/// By model, by target.
type Pairs = HashMap<Arc<str>, HashMap<Arc<str>, Arc<ModelMetrics>>>;

/// The families and the pairs that have series.
#[derive(Debug)]
pub(super) struct Models {
    pairs: RwLock<Pairs>,
    /// Pairs that count against the limit.
    counted: AtomicUsize,
    configured: ArcSwap<HashSet<Arc<str>>>,
    other: OnceLock<Arc<ModelMetrics>>,
    folded: Counter,
    families: Families,
}

#[derive(Clone, Debug)]
struct Families {
    requests: Family<RequestLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    durations: Histograms<ModelLabels>,
    request_sizes: Histograms<ModelLabels>,
    response_sizes: Histograms<ModelLabels>,
    input_tokens: Histograms<ModelLabels>,
    output_tokens: Histograms<ModelLabels>,
    cached_tokens: Histograms<ModelLabels>,
    per_token: Histograms<ModelLabels>,
    first_tokens: Histograms<ModelLabels>,
    output_token_times: Histograms<ModelLabels>,
    gaps: Histograms<ModelLabels>,
    running: Family<[(&'static str, Arc<str>); 1], Gauge>,
    latencies: Latencies,
}

/// The metrics of one pair of model and target.
#[derive(Debug)]
pub struct ModelMetrics {
    labels: ModelLabels,
    families: Families,
    durations: Histogram,
    request_sizes: Histogram,
    response_sizes: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
    cached_tokens: Histogram,
    per_token: Histogram,
    first_tokens: Histogram,
    output_token_times: Histogram,
    gaps: Histogram,
    /// None without a model: upstream leaves such requests out.
    running: Option<Gauge>,
}

impl Families {
    fn register(registry: &mut Registry, latencies: Latencies) -> Self {
        let families = Self {
            requests: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(buckets::REQUEST)),
            request_sizes: Family::new_with_constructor(|| Histogram::new(buckets::request_bytes())),
            response_sizes: Family::new_with_constructor(|| Histogram::new(buckets::TOKENS[..buckets::RESPONSE_BYTES].to_vec())),
            input_tokens: Family::new_with_constructor(|| Histogram::new(buckets::TOKENS)),
            output_tokens: Family::new_with_constructor(|| Histogram::new(buckets::TOKENS[..buckets::OUTPUT_TOKENS].to_vec())),
            cached_tokens: Family::new_with_constructor(|| Histogram::new(buckets::TOKENS)),
            per_token: Family::new_with_constructor(|| Histogram::new(buckets::PER_TOKEN)),
            first_tokens: Family::new_with_constructor(|| Histogram::new(buckets::REQUEST)),
            output_token_times: Family::new_with_constructor(|| Histogram::new(buckets::STREAMED_TOKEN)),
            gaps: Family::new_with_constructor(|| Histogram::new(buckets::STREAMED_TOKEN)),
            running: Family::default(),
            latencies,
        };
        let help = "[ALPHA] Requests that were given an endpoint";
        registry.register("inference_objective_request", help, families.requests.clone());
        let help = "[ALPHA] Requests that failed, by the picker's code or as ModelServerError";
        registry.register("inference_objective_request_error", help, families.errors.clone());
        let help = "[ALPHA] Time from a request's headers to the end of its response";
        registry.register("inference_objective_request_duration_seconds", help, families.durations.clone());
        let help = "[ALPHA] Bytes of requests' bodies";
        registry.register("inference_objective_request_sizes", help, families.request_sizes.clone());
        let help = "[ALPHA] Bytes of responses' bodies";
        registry.register("inference_objective_response_sizes", help, families.response_sizes.clone());
        let help = "[ALPHA] Tokens of prompts, as the server counted them";
        registry.register("inference_objective_input_tokens", help, families.input_tokens.clone());
        let help = "[ALPHA] Tokens generated, as the server counted them";
        registry.register("inference_objective_output_tokens", help, families.output_tokens.clone());
        let help = "[ALPHA] Tokens of prompts that the server found in its prefix cache";
        registry.register("inference_objective_prompt_cached_tokens", help, families.cached_tokens.clone());
        let help = "[ALPHA] Requests that have an endpoint and have not ended";
        registry.register("inference_objective_running_requests", help, families.running.clone());
        let help = "[ALPHA] Duration of a request divided by the tokens that it generated";
        registry.register("inference_objective_normalized_time_per_output_token_seconds", help, families.per_token.clone());
        let help = "[ALPHA] Time from a request's headers to the first bytes of its streamed answer";
        registry.register("inference_objective_request_ttft_seconds", help, families.first_tokens.clone());
        let help = "[ALPHA] Time from the first bytes of a streamed answer to its last, per token after the first";
        registry.register("inference_objective_request_tpot_seconds", help, families.output_token_times.clone());
        let help = "[ALPHA] Time between two pieces of a streamed answer, as the gateway passes them";
        registry.register("llm_d_epp_request_streaming_itl_seconds", help, families.gaps.clone());
        families
    }

    fn of(&self, model_name: Arc<str>, target_model_name: Arc<str>) -> ModelMetrics {
        let running = (!model_name.is_empty()).then(|| self.running.get_or_create_owned(&[("model_name", model_name.clone())]));
        let labels = ModelLabels { model_name, target_model_name };
        ModelMetrics {
            durations: self.durations.get_or_create_owned(&labels),
            request_sizes: self.request_sizes.get_or_create_owned(&labels),
            response_sizes: self.response_sizes.get_or_create_owned(&labels),
            input_tokens: self.input_tokens.get_or_create_owned(&labels),
            output_tokens: self.output_tokens.get_or_create_owned(&labels),
            cached_tokens: self.cached_tokens.get_or_create_owned(&labels),
            per_token: self.per_token.get_or_create_owned(&labels),
            first_tokens: self.first_tokens.get_or_create_owned(&labels),
            output_token_times: self.output_token_times.get_or_create_owned(&labels),
            gaps: self.gaps.get_or_create_owned(&labels),
            families: self.clone(),
            running,
            labels,
        }
    }
}

impl Models {
    pub(super) fn register(registry: &mut Registry, latencies: Latencies) -> Self {
        let families = Families::register(registry, latencies);
        let folded = Counter::default();
        let help = "Requests counted under the model name `other`, since too many names are in use or this one is too long";
        registry.register("weir_epp_folded_model_names", help, folded.clone());
        Self {
            pairs: RwLock::default(),
            counted: AtomicUsize::new(0),
            configured: ArcSwap::default(),
            other: OnceLock::new(),
            folded,
            families,
        }
    }

    pub(super) fn configure(&self, names: HashSet<Arc<str>>) {
        self.configured.store(Arc::new(names));
    }

    pub(super) fn of(&self, model: &str, target: &str) -> Arc<ModelMetrics> {
        let known = |pairs: &Pairs| pairs.get(model)?.get(target).cloned();
        if let Some(known) = known(&self.pairs.read().unwrap_or_else(PoisonError::into_inner)) {
            return known;
        }
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known(&pairs) {
            return known;
        }
        let configured = self.configured.load();
        let free = configured.contains(model) && configured.contains(target);
        let short = model.len().max(target.len()) <= LONGEST_NAME;
        if !free && (!short || self.counted.load(Ordering::Relaxed) >= MOST_PAIRS) {
            self.folded.inc();
            return self.other.get_or_init(|| Arc::new(self.families.of(OTHER.into(), OTHER.into()))).clone();
        }
        if !free {
            self.counted.fetch_add(1, Ordering::Relaxed);
        }
        let (model, target): (Arc<str>, Arc<str>) = (model.into(), target.into());
        let metrics = Arc::new(self.families.of(model.clone(), target.clone()));
        pairs.entry(model).or_default().insert(target, metrics.clone());
        metrics
    }
}

impl ModelMetrics {
    /// The label `model_name`.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.labels.model_name
    }

    /// The label `target_model_name`.
    pub(crate) fn target(&self) -> &Arc<str> {
        &self.labels.target_model_name
    }

    /// A request of `priority` was given an endpoint. It runs until [`Self::ended`].
    pub(crate) fn placed(&self, priority: i32, body_bytes: usize) {
        let ModelLabels { model_name, target_model_name } = self.labels.clone();
        self.families.requests.get_or_create(&RequestLabels { model_name, target_model_name, priority }).inc();
        self.request_sizes.observe(body_bytes as f64);
        if let Some(running) = &self.running {
            running.inc();
        }
    }

    pub(crate) fn ended(&self) {
        if let Some(running) = &self.running {
            running.dec();
        }
    }

    /// The response is complete, `took` after the request came.
    pub(crate) fn completed(&self, took: Duration, response_bytes: usize, usage: Option<Usage>) {
        self.durations.observe(took.as_secs_f64());
        self.response_sizes.observe(response_bytes as f64);
        let generated = usage.map_or(0, |usage| usage.completion_tokens);
        if generated > 0 {
            self.per_token.observe(took.as_secs_f64() / generated as f64);
        }
    }

    /// A request took its time, of the last minute's.
    pub(crate) fn measured(&self, signal: Latency, took: Duration) {
        self.families.latencies.observe(&self.labels.model_name, signal, took);
    }

    /// The first bytes of a streamed answer came, `after` the request.
    pub(crate) fn first_bytes(&self, after: Duration) {
        self.first_tokens.observe(after.as_secs_f64());
        self.measured(Latency::TimeToFirstToken, after);
    }

    /// More bytes of a streamed answer came, `gap` after those before.
    pub(crate) fn further_bytes(&self, gap: Duration) {
        self.gaps.observe(gap.as_secs_f64());
    }

    /// A streamed answer is complete; from its first bytes to its last `took` passed, for `tokens` after the first.
    pub(crate) fn streamed(&self, took: Duration, tokens: u64) {
        if tokens > 0 {
            self.output_token_times.observe(took.as_secs_f64() / tokens as f64);
            self.measured(Latency::TimePerOutputToken, took.div_f64(tokens as f64));
        }
    }

    /// The server counted tokens.
    pub(crate) fn used(&self, usage: Usage) {
        if usage.prompt_tokens > 0 {
            self.input_tokens.observe(usage.prompt_tokens as f64);
            self.families.latencies.prompt(&self.labels.model_name, usage.prompt_tokens);
        }
        if usage.completion_tokens > 0 {
            self.output_tokens.observe(usage.completion_tokens as f64);
        }
        self.cached_tokens.observe(usage.cached_tokens as f64);
    }

    /// The picker refused the request.
    pub(crate) fn refused(&self, code: Code) {
        self.failed(code_label(code));
    }

    /// The model server answered with an error.
    pub(crate) fn server_failed(&self) {
        self.failed(MODEL_SERVER_ERROR);
    }

    fn failed(&self, error_code: &'static str) {
        let ModelLabels { model_name, target_model_name } = self.labels.clone();
        self.families.errors.get_or_create(&ErrorLabels { model_name, target_model_name, error_code }).inc();
    }
}
