//! The table of names: engine by engine, the families that carry a signal.
//!
//! Source: the servers' own metric definitions, read by version; see `docs/engines.md`.

use std::fmt;
use std::str::FromStr;

/// What kind of server writes a page.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Engine {
    /// vLLM, every version since 0.6.
    Vllm,
    /// llm-d-inference-sim: vLLM's names without an engine.
    LlmDInferenceSim,
    /// SGLang.
    Sglang,
}

impl Engine {
    /// Every engine, in the order in which detection prefers them.
    pub const ALL: [Self; 3] = [Self::Vllm, Self::LlmDInferenceSim, Self::Sglang];

    /// The name used in `pools.yaml`, on pages and in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::LlmDInferenceSim => "llm-d-inference-sim",
            Self::Sglang => "sglang",
        }
    }

    /// The engine whose names this one uses.
    pub(crate) fn table(self) -> Self {
        match self {
            Self::Vllm | Self::LlmDInferenceSim => Self::Vllm,
            Self::Sglang => Self::Sglang,
        }
    }

    /// The label that tells the engines (data-parallel ranks) of one server apart.
    pub(crate) fn rank_label(self) -> &'static str {
        match self {
            Self::Vllm | Self::LlmDInferenceSim => "engine",
            Self::Sglang => "dp_rank",
        }
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
        Self::ALL.into_iter().find(|engine| engine.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|engine| engine.name()).collect();
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
            Self::Running | Self::Waiting => (0.0..=MOST_REQUESTS).contains(&value),
            Self::KvCacheUtilization => (0.0..=1.0).contains(&value),
            Self::Marker | Self::CacheInfo | Self::LoraInfo => !value.is_nan(),
            _ => value.is_finite() && value >= 0.0,
        }
    }
}

/// One wanted family.
#[derive(Clone, Copy, Debug)]
pub struct FamilySpec {
    /// Sample name as on the page.
    pub name: &'static str,
    /// What it says.
    pub signal: Signal,
    /// Of several names for one signal the lowest number present on a page is read, the others are passed over: both names of a
    /// renamed pair are never added.
    pub preference: u8,
}

const fn family(name: &'static str, signal: Signal) -> FamilySpec {
    FamilySpec { name, signal, preference: 0 }
}

const fn older(name: &'static str, signal: Signal) -> FamilySpec {
    FamilySpec { name, signal, preference: 1 }
}

/// vLLM: V1 names first, then what earlier versions called the same.
const VLLM: &[FamilySpec] = &[
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
    family("vllm:cache_config_info", Signal::CacheInfo),
    family("vllm:lora_requests_info", Signal::LoraInfo),
    // vLLM's own name is `request_max_num_generation_tokens`; only the simulator writes this one.
    family("vllm:max_num_generation_tokens_count", Signal::Marker),
];

const SGLANG: &[FamilySpec] = &[
    family("sglang:num_running_reqs", Signal::Running),
    family("sglang:num_queue_reqs", Signal::Waiting),
    family("sglang:token_usage", Signal::KvCacheUtilization),
    family("sglang:prompt_tokens_total", Signal::PromptTokens),
    family("sglang:generation_tokens_total", Signal::GenerationTokens),
    family("sglang:num_retracted_requests_total", Signal::Preemptions),
    family("sglang:cached_tokens_total", Signal::PrefixHits),
    family("sglang:page_size", Signal::BlockSize),
    family("sglang:num_pages", Signal::Blocks),
    family("sglang:max_total_num_tokens", Signal::CacheTokens),
    family("sglang:cache_config_info", Signal::CacheInfo),
];

/// The families of `engine`.
pub fn families(engine: Engine) -> &'static [FamilySpec] {
    match engine {
        Engine::Vllm | Engine::LlmDInferenceSim => VLLM,
        Engine::Sglang => SGLANG,
    }
}
