//! The table of names: engine by engine, the families that carry a signal.
//!
//! Source: the servers' own metric definitions, read by version; see `docs/engines.md`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::load::LoadSignal;

/// What kind of server writes a page.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Engine {
    /// vLLM, every version since 0.6.
    Vllm,
    /// llm-d-inference-sim: vLLM's names without an engine.
    LlmDInferenceSim,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM's own server; metrics at `/prometheus/metrics`.
    TrtllmServe,
    /// Triton with the TensorRT-LLM backend.
    TritonTensorrtLlm,
    /// Triton with another backend (vLLM): waiting requests only.
    Triton,
    /// Hugging Face text-generation-inference.
    Tgi,
    /// llama.cpp's server.
    LlamaCpp,
    /// LMDeploy.
    LmDeploy,
    /// Only the families that the pool itself names.
    Custom,
}

impl Engine {
    /// Every engine that a page can be recognised by, in the order in which detection prefers them.
    pub const DETECTED: [Self; 8] = [
        Self::Vllm,
        Self::Sglang,
        Self::TrtllmServe,
        Self::TritonTensorrtLlm,
        Self::Triton,
        Self::Tgi,
        Self::LlamaCpp,
        Self::LmDeploy,
    ];

    const NAMES: [(&'static str, Self); 14] = [
        ("vllm", Self::Vllm),
        ("llm-d-inference-sim", Self::LlmDInferenceSim),
        ("sglang", Self::Sglang),
        ("trtllm-serve", Self::TrtllmServe),
        ("triton-tensorrt-llm", Self::TritonTensorrtLlm),
        ("triton", Self::Triton),
        ("tgi", Self::Tgi),
        ("llamacpp", Self::LlamaCpp),
        ("lmdeploy", Self::LmDeploy),
        ("custom", Self::Custom),
        // What people write as well.
        ("trtllm", Self::TrtllmServe),
        ("triton-trtllm", Self::TritonTensorrtLlm),
        ("triton-vllm", Self::Triton),
        ("llama.cpp", Self::LlamaCpp),
    ];

    /// Pod labels that name the engine: the Gateway API Inference Extension's and llm-d's.
    pub const POD_LABELS: [&'static str; 2] = ["inference.networking.k8s.io/engine-type", "llm-d.ai/engine-type"];

    /// The name used in `pools.yaml`, on pages and in output; upstream's where its pickers know the engine.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, engine)| *engine == self).map_or("custom", |(name, _)| name)
    }

    /// The engine whose names this one uses.
    pub(crate) fn table(self) -> Self {
        match self {
            Self::LlmDInferenceSim => Self::Vllm,
            other => other,
        }
    }

    /// The label that tells the engines (data-parallel ranks) of one server apart.
    pub(crate) fn rank_label(self) -> Option<&'static str> {
        match self {
            Self::Vllm | Self::LlmDInferenceSim | Self::LmDeploy => Some("engine"),
            Self::Sglang => Some("dp_rank"),
            _ => None,
        }
    }

    /// The label that names the model.
    pub(crate) fn model_label(self) -> Option<&'static str> {
        match self {
            Self::Vllm | Self::LlmDInferenceSim | Self::Sglang | Self::TrtllmServe | Self::LmDeploy => Some("model_name"),
            Self::TritonTensorrtLlm | Self::Triton => Some("model"),
            Self::Tgi | Self::LlamaCpp | Self::Custom => None,
        }
    }

    /// Whether a family that is not on the page yet stands at zero: text-generation-inference shows a gauge only after its first use.
    pub(crate) fn absent_is_zero(self) -> bool {
        self == Self::Tgi
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, engine)| *engine).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().filter(|(name, engine)| engine.name() == *name).map(|(name, _)| *name).collect();
            format!("unknown engine `{name}`: one of auto, {}", known.join(", "))
        })
    }
}

/// What a family says.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Signal {
    /// Requests in execution (gauge).
    Running,
    /// Requests queued in the server (gauge).
    Waiting,
    /// Share of the KV cache in use, 0..1 (gauge).
    KvCacheUtilization,
    /// Prompt tokens processed (counter).
    PromptTokens,
    /// Tokens generated (counter).
    GenerationTokens,
    /// Requests pushed out of execution for want of memory (counter).
    Preemptions,
    /// Prompt tokens looked up in the prefix cache (counter).
    PrefixQueries,
    /// Of those, found (counter).
    PrefixHits,
    /// Requests whose first token came (counter: the count of the histogram of times to it).
    FirstTokens,
    /// Requests that ended, however (counter).
    Completed,
    /// Requests queued in the API process in front of the engine (gauge); not part of [`Signal::Waiting`].
    ApiWaiting,
    /// Most requests in execution at once (gauge).
    MaxRunning,
    /// Tokens per KV block (gauge).
    BlockSize,
    /// KV blocks in all (gauge).
    Blocks,
    /// Tokens that the KV cache holds in all (gauge).
    CacheTokens,
    /// Block size and blocks as labels of an info series.
    CacheInfo,
    /// LoRA adapters as labels of an info series whose value is a wall-clock time.
    LoraInfo,
    /// A family whose presence tells look-alikes apart.
    Marker,
}

impl Signal {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Marker as usize + 1;

    /// The signals that pools aggregate: a page without any of them says nothing of load.
    pub(crate) const LOAD: [Self; 3] = [Self::Running, Self::Waiting, Self::KvCacheUtilization];

    /// The key used in output.
    pub fn key(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::KvCacheUtilization => "kv_cache_utilization",
            Self::PromptTokens => "prompt_tokens",
            Self::GenerationTokens => "generation_tokens",
            Self::Preemptions => "preemptions",
            Self::PrefixQueries => "prefix_queries",
            Self::PrefixHits => "prefix_hits",
            Self::FirstTokens => "first_tokens",
            Self::Completed => "completed",
            Self::ApiWaiting => "api_waiting",
            Self::MaxRunning => "max_running",
            Self::BlockSize => "block_size",
            Self::Blocks => "blocks",
            Self::CacheTokens => "cache_tokens",
            Self::CacheInfo => "cache_info",
            Self::LoraInfo => "lora",
            Self::Marker => "marker",
        }
    }

    /// Whether `value` can be true of this signal. What cannot is counted and left out, never clamped: a KV use of 73.4 is a
    /// percentage or a bug, and 1.0 would be a guess.
    pub(crate) fn admits(self, value: f64) -> bool {
        /// More requests than any server can hold: beyond it a number is garbage.
        const MOST_REQUESTS: f64 = 1e9;
        match self {
            Self::Running | Self::Waiting | Self::ApiWaiting | Self::MaxRunning => (0.0..=MOST_REQUESTS).contains(&value),
            Self::KvCacheUtilization => (0.0..=1.0).contains(&value),
            Self::Marker | Self::CacheInfo | Self::LoraInfo => !value.is_nan(),
            _ => value.is_finite() && value >= 0.0,
        }
    }
}

/// Some signals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signals(u32);

impl Signals {
    pub(super) fn insert(&mut self, signal: Signal) {
        self.0 |= 1 << signal as u32;
    }

    pub(super) fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << signal as u32) != 0
    }

    /// How many of those that pools aggregate.
    pub(super) fn load(self) -> usize {
        Signal::LOAD.into_iter().filter(|signal| self.contains(*signal)).count()
    }
}

/// How several series of one signal of one server become one number.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Several {
    /// Added.
    Sum,
    /// Averaged.
    Mean,
    /// The largest.
    Max,
}

/// One wanted family.
#[derive(Clone, Debug)]
pub struct FamilySpec {
    /// Sample name as on the page.
    pub name: Cow<'static, str>,
    /// Only series with these labels, where one family carries many meanings.
    pub only: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// What it says.
    pub signal: Signal,
    /// Of several names for one signal the lowest number present on a page is read, the others are passed over: both names of a
    /// renamed pair are never added.
    pub preference: u8,
    /// How its series combine; none: requests add, utilisations average.
    pub several: Option<Several>,
}

/// A family that a pool names itself: for an engine that weir does not know, or in place of one of an engine's own.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CustomFamily {
    /// Sample name as on the page.
    pub name: String,
    /// Only series with these labels.
    pub labels: BTreeMap<String, String>,
    /// Which of running, waiting and KV cache utilization it says.
    pub signal: LoadSignal,
    /// How its series combine.
    pub several: Several,
}

impl CustomFamily {
    pub(crate) fn spec(&self) -> FamilySpec {
        FamilySpec {
            name: self.name.clone().into(),
            only: self.labels.iter().map(|(label, value)| (label.clone().into(), value.clone().into())).collect(),
            signal: match self.signal {
                LoadSignal::Running => Signal::Running,
                LoadSignal::Waiting => Signal::Waiting,
                LoadSignal::KvCacheUtilization => Signal::KvCacheUtilization,
            },
            preference: 0,
            several: Some(self.several),
        }
    }
}

/// A row of the table: name, label that a series must have, signal, preference.
type Row = (&'static str, Option<(&'static str, &'static str)>, Signal, u8);

const fn family(name: &'static str, signal: Signal) -> Row {
    (name, None, signal, 0)
}

const fn older(name: &'static str, signal: Signal) -> Row {
    (name, None, signal, 1)
}

const fn labelled(name: &'static str, only: (&'static str, &'static str), signal: Signal) -> Row {
    (name, Some(only), signal, 0)
}

/// vLLM: V1 names first, then what earlier versions called the same.
const VLLM: &[Row] = &[
    family("vllm:num_requests_running", Signal::Running),
    family("vllm:num_requests_waiting", Signal::Waiting),
    family("vllm:kv_cache_usage_perc", Signal::KvCacheUtilization),
    older("vllm:gpu_cache_usage_perc", Signal::KvCacheUtilization),
    family("vllm:prompt_tokens_total", Signal::PromptTokens),
    family("vllm:generation_tokens_total", Signal::GenerationTokens),
    family("vllm:num_preemptions_total", Signal::Preemptions),
    family("vllm:prefix_cache_queries_total", Signal::PrefixQueries),
    older("vllm:gpu_prefix_cache_queries_total", Signal::PrefixQueries),
    family("vllm:prefix_cache_hits_total", Signal::PrefixHits),
    older("vllm:gpu_prefix_cache_hits_total", Signal::PrefixHits),
    family("vllm:time_to_first_token_seconds_count", Signal::FirstTokens),
    family("vllm:request_success_total", Signal::Completed),
    family("vllm:cache_config_info", Signal::CacheInfo),
    family("vllm:lora_requests_info", Signal::LoraInfo),
    // vLLM's own name is `request_max_num_generation_tokens`; only the simulator writes this one.
    family("vllm:max_num_generation_tokens_count", Signal::Marker),
];

const SGLANG: &[Row] = &[
    family("sglang:num_running_reqs", Signal::Running),
    family("sglang:num_queue_reqs", Signal::Waiting),
    family("sglang:token_usage", Signal::KvCacheUtilization),
    family("sglang:prompt_tokens_total", Signal::PromptTokens),
    family("sglang:generation_tokens_total", Signal::GenerationTokens),
    family("sglang:num_retracted_requests_total", Signal::Preemptions),
    family("sglang:cached_tokens_total", Signal::PrefixHits),
    // Answers that are not streamed are counted at their end.
    family("sglang:time_to_first_token_seconds_count", Signal::FirstTokens),
    family("sglang:num_requests_total", Signal::Completed),
    family("sglang:page_size", Signal::BlockSize),
    family("sglang:num_pages", Signal::Blocks),
    family("sglang:max_total_num_tokens", Signal::CacheTokens),
    family("sglang:cache_config_info", Signal::CacheInfo),
];

const TRTLLM_SERVE: &[Row] = &[
    family("trtllm_num_requests_running", Signal::Running),
    family("trtllm_num_requests_waiting", Signal::Waiting),
    family("trtllm_kv_cache_utilization", Signal::KvCacheUtilization),
    family("trtllm_max_num_active_requests", Signal::MaxRunning),
    family("trtllm_kv_cache_tokens_per_block", Signal::BlockSize),
    family("trtllm_kv_cache_max_blocks", Signal::Blocks),
    family("trtllm_prompt_tokens_total", Signal::PromptTokens),
    family("trtllm_generation_tokens_total", Signal::GenerationTokens),
    family("trtllm_time_to_first_token_seconds_count", Signal::FirstTokens),
    family("trtllm_request_success_total", Signal::Completed),
];

/// One family, many meanings by label.
const TRITON_TENSORRT_LLM: &[Row] = &[
    labelled("nv_trt_llm_request_metrics", ("request_type", "scheduled"), Signal::Running),
    labelled("nv_trt_llm_request_metrics", ("request_type", "waiting"), Signal::Waiting),
    labelled("nv_trt_llm_request_metrics", ("request_type", "max"), Signal::MaxRunning),
    labelled("nv_trt_llm_kv_cache_block_metrics", ("kv_cache_block_type", "fraction"), Signal::KvCacheUtilization),
    labelled("nv_trt_llm_kv_cache_block_metrics", ("kv_cache_block_type", "tokens_per"), Signal::BlockSize),
    labelled("nv_trt_llm_kv_cache_block_metrics", ("kv_cache_block_type", "max"), Signal::Blocks),
];

/// Triton's vLLM backend has vLLM's counters and none of its gauges.
const TRITON: &[Row] = &[
    family("nv_inference_pending_request_count", Signal::Waiting),
    family("vllm:prompt_tokens_total", Signal::PromptTokens),
    family("vllm:generation_tokens_total", Signal::GenerationTokens),
    family("vllm:time_to_first_token_seconds_count", Signal::FirstTokens),
    family("vllm:e2e_request_latency_seconds_count", Signal::Completed),
];

const TGI: &[Row] = &[
    family("tgi_batch_current_size", Signal::Running),
    family("tgi_queue_size", Signal::Waiting),
    family("tgi_request_input_length_sum", Signal::PromptTokens),
    family("tgi_request_generated_tokens_sum", Signal::GenerationTokens),
    // No count of first tokens: all of its histograms are written when a request ends.
    family("tgi_request_success", Signal::Completed),
    // On the page from the start of the first request on, before any gauge.
    family("tgi_request_count", Signal::Marker),
];

const LLAMA_CPP: &[Row] = &[
    family("llamacpp:requests_processing", Signal::Running),
    family("llamacpp:requests_deferred", Signal::Waiting),
    // Builds before spring 2025 only.
    family("llamacpp:kv_cache_usage_ratio", Signal::KvCacheUtilization),
    family("llamacpp:prompt_tokens_total", Signal::PromptTokens),
    family("llamacpp:tokens_predicted_total", Signal::GenerationTokens),
];

const LMDEPLOY: &[Row] = &[
    family("lmdeploy:num_requests_running", Signal::Running),
    family("lmdeploy:num_requests_waiting", Signal::Waiting),
    family("lmdeploy:gpu_cache_usage_perc", Signal::KvCacheUtilization),
    family("lmdeploy:num_api_requests_waiting", Signal::ApiWaiting),
    family("lmdeploy:prompt_tokens_total", Signal::PromptTokens),
    family("lmdeploy:generation_tokens_total", Signal::GenerationTokens),
    family("lmdeploy:time_to_first_token_seconds_count", Signal::FirstTokens),
    family("lmdeploy:request_success_total", Signal::Completed),
    family("lmdeploy:backend_config_info", Signal::CacheInfo),
];

/// The families of `engine`.
pub fn families(engine: Engine) -> Vec<FamilySpec> {
    let rows = match engine.table() {
        Engine::Vllm | Engine::LlmDInferenceSim => VLLM,
        Engine::Sglang => SGLANG,
        Engine::TrtllmServe => TRTLLM_SERVE,
        Engine::TritonTensorrtLlm => TRITON_TENSORRT_LLM,
        Engine::Triton => TRITON,
        Engine::Tgi => TGI,
        Engine::LlamaCpp => LLAMA_CPP,
        Engine::LmDeploy => LMDEPLOY,
        Engine::Custom => &[],
    };
    let spec = |(name, only, signal, preference): &Row| FamilySpec {
        name: (*name).into(),
        only: only.iter().map(|(label, value)| ((*label).into(), (*value).into())).collect(),
        signal: *signal,
        preference: *preference,
        several: None,
    };
    rows.iter().map(spec).collect()
}
