//! What the picker says of itself, under upstream's names (Gateway API Inference Extension v1.5.0), types, labels and bounds.
//!
//! The families of a pool (`inference_pool_*`) are the exporter's: one table makes them wherever they are shown. Of upstream's
//! others, those that only its latency predictor fills are not here.

mod attempts;
mod buckets;
mod flow;
mod latency;
mod models;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use attempts::AttemptLabels;
pub use attempts::EndpointAttempts;
pub(crate) use flow::{FlowMetrics, FlowSeries};
use latency::Latencies;
pub use models::ModelMetrics;
use models::Models;

use crate::inference::Code;
use crate::scheduling::{Evidence, ExtensionPoint, Observer, PluginName, Profile, SchedulingConfig};

/// Plugins of the configuration, each with its histogram.
type KnownPlugins = Vec<(ExtensionPoint, PluginName, Histogram)>;

/// A family of histograms.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PluginLabels {
    extension_point: &'static str,
    plugin_type: &'static str,
    plugin_name: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DisaggregationLabels {
    plugin_name: Arc<str>,
    plugin_type: &'static str,
    model_name: Arc<str>,
    decision_type: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RewriteLabels {
    model_rewrite_name: Arc<str>,
    model_name: Arc<str>,
    target_model: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PoolLabels {
    inference_pool: Arc<str>,
}

/// The label `error_code`.
pub(crate) fn code_label(code: Code) -> &'static str {
    match code {
        Code::BadRequest => "BadRequest",
        Code::NotFound => "NotFound",
        Code::PayloadTooLarge => "PayloadTooLarge",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::Internal => "Internal",
        Code::ServiceUnavailable => "ServiceUnavailable",
    }
}

/// The `error_code` of requests that the model server answered with an error.
pub(crate) const MODEL_SERVER_ERROR: &str = "ModelServerError";

/// The families. Clones share them.
#[derive(Clone, Debug)]
pub struct EppMetrics {
    models: Arc<Models>,
    attempts: Family<AttemptLabels, Counter>,
    scheduling: Histogram,
    plugins: Histograms<PluginLabels>,
    /// Those of the configuration: a family looks each up behind a lock.
    known_plugins: Arc<ArcSwap<KnownPlugins>>,
    disaggregations: Family<DisaggregationLabels, Counter>,
    rewrites: Family<RewriteLabels, Counter>,
    saturations: Family<PoolLabels, Gauge<f64, AtomicU64>>,
    /// The label set of the pool in `saturations`.
    pool: PoolLabels,
    prefix_blocks: Gauge,
    prefix_ratio: Histogram,
    prefix_bytes: Histogram,
    ejections: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) recoveries: Counter,
    ejected: Gauge,
    pub(crate) explorations: Counter,
    unroutable: Gauge,
    pub(crate) unknown_served: Counter,
    pub(crate) flow: FlowMetrics,
    pub(crate) latencies: Latencies,
}

impl EppMetrics {
    /// Registers the families of the picker of the pool called `pool` (its name, without namespace), once per registry.
    /// `commit` and `build_ref` say which build runs.
    pub fn register(registry: &mut Registry, pool: &str, config: &SchedulingConfig, commit: &str, build_ref: &str) -> Self {
        let plugins: Histograms<PluginLabels> = Family::new_with_constructor(|| Histogram::new(buckets::SHORT));
        let latencies = Latencies::new(Instant::now());
        let metrics = Self {
            models: Arc::new(Models::register(registry, latencies.clone())),
            attempts: Family::default(),
            scheduling: Histogram::new(buckets::SHORT),
            plugins,
            known_plugins: Arc::default(),
            disaggregations: Family::default(),
            rewrites: Family::default(),
            saturations: Family::default(),
            pool: PoolLabels { inference_pool: pool.into() },
            prefix_blocks: Gauge::default(),
            prefix_ratio: Histogram::new(buckets::RATIO),
            prefix_bytes: Histogram::new(buckets::prefix_bytes()),
            ejections: Family::default(),
            recoveries: Counter::default(),
            ejected: Gauge::default(),
            explorations: Counter::default(),
            unroutable: Gauge::default(),
            unknown_served: Counter::default(),
            flow: FlowMetrics::register(registry, pool),
            latencies,
        };
        metrics.configure_plugins(config);
        metrics.register_upstream(registry, commit, build_ref);
        metrics.register_own(registry);
        metrics
    }

    /// The families of requests for `target` in place of `model`; those of others together once there are too many names.
    pub fn model(&self, model: &str, target: &str) -> Arc<ModelMetrics> {
        self.models.of(model, target)
    }

    /// Makes `names` all the model names that always have series of their own.
    pub fn configure_models<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) {
        self.models.configure(names.cloned().collect());
    }

    /// Makes those of `config` all the plugins that are looked up quickly.
    pub fn configure_plugins(&self, config: &SchedulingConfig) {
        let known = plugins_of(config).map(|(point, plugin)| {
            let histogram = self.plugins.get_or_create_owned(&plugin_labels(point, &plugin));
            (point, plugin, histogram)
        });
        self.known_plugins.store(Arc::new(known.collect()));
    }

    /// The attempts of one endpoint, which go from the page when this is dropped.
    pub fn endpoint(&self, pod: Arc<str>, namespace: Arc<str>, port: u16) -> EndpointAttempts {
        EndpointAttempts::new(self.attempts.clone(), pod, namespace, port)
    }

    pub(crate) fn scheduling_failed(&self, target: &ModelMetrics, took: Duration) {
        self.scheduling.observe(took.as_secs_f64());
        self.attempts.get_or_create(&AttemptLabels::failure(target.target())).inc();
    }

    pub(crate) fn scheduled(&self, endpoint: &EndpointAttempts, target: &ModelMetrics, took: Duration) {
        self.scheduling.observe(took.as_secs_f64());
        endpoint.succeeded(target.target());
    }

    /// A rewrite replaced the model of a request; names are those of `model`, so their number is bounded.
    pub(crate) fn rewritten(&self, rewrite: &Arc<str>, model: &ModelMetrics) {
        let (model_name, target_model) = (model.model().clone(), model.target().clone());
        self.rewrites.get_or_create(&RewriteLabels { model_rewrite_name: rewrite.clone(), model_name, target_model }).inc();
    }

    /// The stages of a request for `model` are apart so, by the profile handler `plugin`; the model's name is one of a bounded number.
    pub(crate) fn disaggregated(&self, plugin: &PluginName, model: &ModelMetrics, decision: &'static str) {
        let labels = DisaggregationLabels {
            plugin_name: plugin.name.clone(),
            plugin_type: plugin.kind,
            model_name: model.target().clone(),
            decision_type: decision,
        };
        self.disaggregations.get_or_create(&labels).inc();
    }

    /// How full the pool is; none where nobody can say: the series goes.
    pub(crate) fn saturated(&self, saturation: Option<f64>) {
        match saturation {
            Some(saturation) => drop(self.saturations.get_or_create(&self.pool).set(saturation)),
            None => drop(self.saturations.remove(&self.pool)),
        }
    }

    /// The chosen endpoint had `matched` of the `total` blocks of `block_bytes`.
    pub(crate) fn prefix(&self, matched: usize, total: usize, block_bytes: usize) {
        self.prefix_ratio.observe(matched as f64 / total as f64);
        self.prefix_bytes.observe(matched.saturating_mul(block_bytes) as f64);
    }

    pub(crate) fn prefix_remembered(&self, blocks: usize) {
        self.prefix_blocks.set(i64::try_from(blocks).unwrap_or(i64::MAX));
    }

    pub(crate) fn ejected(&self, by: Evidence) {
        self.ejections.get_or_create(&[("evidence", by.label())]).inc();
    }

    pub(crate) fn endpoints(&self, ejected: usize, unroutable: usize) {
        self.ejected.set(i64::try_from(ejected).unwrap_or(i64::MAX));
        self.unroutable.set(i64::try_from(unroutable).unwrap_or(i64::MAX));
    }

    fn register_upstream(&self, registry: &mut Registry, commit: &str, build_ref: &str) {
        let help = "[ALPHA] Time that scheduling of a request took";
        registry.register("inference_extension_scheduler_e2e_duration_seconds", help, self.scheduling.clone());
        let help = "[ALPHA] Requests that were scheduled or could not be, by status and chosen endpoint";
        registry.register("inference_extension_scheduler_attempts", help, self.attempts.clone());
        let help = "[ALPHA] Time that a call of a plugin took";
        registry.register("inference_extension_plugin_duration_seconds", help, self.plugins.clone());
        let help = "[ALPHA] Blocks of prompts that are remembered, over all endpoints";
        registry.register("inference_extension_prefix_indexer_size", help, self.prefix_blocks.clone());
        let help = "[ALPHA] Share of a prompt's blocks that the chosen endpoint was given before";
        registry.register("inference_extension_prefix_indexer_hit_ratio", help, self.prefix_ratio.clone());
        let help = "[ALPHA] Bytes of a prompt that the chosen endpoint was given before";
        registry.register("inference_extension_prefix_indexer_hit_bytes", help, self.prefix_bytes.clone());
        let help = "[ALPHA] Requests whose model an InferenceModelRewrite replaced";
        registry.register("inference_extension_model_rewrite_decisions", help, self.rewrites.clone());
        let help = "[ALPHA] Requests by which of their stages have servers of their own";
        registry.register("llm_d_epp_disagg_decision", help, self.disaggregations.clone());
        let help = "[ALPHA] How full the endpoints of a pool are, as requests find them: 1 is full";
        registry.register("inference_extension_flow_control_pool_saturation", help, self.saturations.clone());
        let info = Family::<[(&'static str, String); 2], Gauge>::default();
        info.get_or_create(&[("commit", commit.to_owned()), ("build_ref", build_ref.to_owned())]).set(1);
        registry.register("inference_extension_info", "[ALPHA] Which build runs", info);
    }

    fn register_own(&self, registry: &mut Registry) {
        for evidence in [Evidence::ServerError, Evidence::PassedOver, Evidence::Unreached, Evidence::NoAnswer] {
            drop(self.ejections.get_or_create(&[("evidence", evidence.label())]));
        }
        let help = "Endpoints kept out after failures, by the last piece of evidence";
        registry.register("weir_epp_ejections", help, self.ejections.clone());
        let help = "Ejected endpoints that answered again";
        registry.register("weir_epp_recoveries", help, self.recoveries.clone());
        registry.register("weir_epp_ejected_endpoints", "Endpoints kept out at present", self.ejected.clone());
        let help = "Requests sent to an endpoint of unknown load though known ones existed";
        registry.register("weir_epp_explorations", help, self.explorations.clone());
        let help = "Endpoints that cannot be picked since their address is a name: write an IP address";
        registry.register("weir_epp_unroutable_endpoints", help, self.unroutable.clone());
        let help = "Responses of an endpoint that is not of the pool, as the gateway names it";
        registry.register("weir_epp_unknown_served_endpoints", help, self.unknown_served.clone());
    }
}

impl Observer for EppMetrics {
    fn plugin_ran(&self, point: ExtensionPoint, plugin: &PluginName, took: Duration) {
        let known = self.known_plugins.load();
        let known = known.iter().find(|(at, known, _)| *at == point && Arc::ptr_eq(&known.name, &plugin.name));
        match known {
            Some((_, _, histogram)) => histogram.observe(took.as_secs_f64()),
            None => self.plugins.get_or_create(&plugin_labels(point, plugin)).observe(took.as_secs_f64()),
        }
    }
}

fn plugin_labels(point: ExtensionPoint, plugin: &PluginName) -> PluginLabels {
    PluginLabels { extension_point: point.label(), plugin_type: plugin.kind, plugin_name: plugin.name.clone() }
}

fn plugins_of(config: &SchedulingConfig) -> impl Iterator<Item = (ExtensionPoint, PluginName)> {
    let of_profile = |profile: &Profile| {
        let filters = profile.filters.iter().map(|filter| (ExtensionPoint::Filter, filter.name.clone()));
        let scorers = profile.scorers.iter().map(|weighted| (ExtensionPoint::Scorer, weighted.scorer.name.clone()));
        filters.chain(scorers).chain([(ExtensionPoint::Picker, profile.picker.name.clone())]).collect::<Vec<_>>()
    };
    let admitters = config.admitters.iter().map(|admitter| (ExtensionPoint::Admit, admitter.name.clone()));
    let learners = config.learners.iter().map(|learner| (ExtensionPoint::PreRequest, learner.name.clone()));
    config.profiles.iter().flat_map(of_profile).chain(admitters).chain(learners)
}
