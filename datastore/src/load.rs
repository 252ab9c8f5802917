//! What is known of the load of one endpoint or picker at one moment.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::engine::Engine;

/// A load signal that pools aggregate.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LoadSignal {
    /// Requests in execution.
    Running,
    /// Requests queued in servers.
    Waiting,
    /// Share of the KV cache in use.
    KvCacheUtilization,
}

impl LoadSignal {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Running => "running requests",
            Self::Waiting => "waiting requests",
            Self::KvCacheUtilization => "the KV cache utilization",
        }
    }
}

/// A signal over the engines (data-parallel ranks) and models of one server.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Combined {
    /// What the signal is for the server as a whole: a sum of requests, a mean of utilisations.
    pub value: f64,
    /// The largest single engine's.
    pub hottest: f64,
}

/// One model on one engine of a server: the finest grain that pages report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitLoad {
    /// The served model's name, where the page says it.
    pub model: Option<Arc<str>>,
    /// The data-parallel rank, where the page says it.
    pub rank: Option<Arc<str>>,
    /// Requests in execution.
    pub running: Option<f64>,
    /// Requests queued in the server.
    pub waiting: Option<f64>,
    /// Share of the KV cache in use, 0..1.
    pub kv_cache_utilization: Option<f64>,
    /// Requests queued in the API process in front of the engine; not part of `waiting`.
    pub api_waiting: Option<f64>,
    /// Most requests in execution at once.
    pub max_running: Option<f64>,
    /// Tokens per KV block.
    pub block_size: Option<u64>,
    /// KV blocks.
    pub blocks: Option<u64>,
}

/// Counters of a server since its start, summed over its engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Prompt tokens processed.
    pub prompt_tokens: Option<f64>,
    /// Tokens generated.
    pub generation_tokens: Option<f64>,
    /// Requests pushed out of execution.
    pub preemptions: Option<f64>,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: Option<f64>,
    /// Prompt tokens found there.
    pub prefix_hits: Option<f64>,
    /// Requests whose first token came.
    pub first_tokens: Option<f64>,
    /// Requests that ended, however.
    pub completed: Option<f64>,
}

/// LoRA adapters in use on a server, by its newest info series.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoraLoad {
    /// Most adapters that one batch may hold.
    pub max: Option<u64>,
    /// Adapters with running requests.
    pub running: Vec<Arc<str>>,
    /// Adapters with waiting requests.
    pub waiting: Vec<Arc<str>>,
}

/// Samples of a page that were not used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unused {
    /// Lines that could not be read.
    pub dropped_lines: u32,
    /// Values that cannot be true of their signal: NaN, negative counts, ratios outside 0..1.
    pub invalid: u32,
    /// Further samples of a series that the page already had.
    pub duplicates: u32,
    /// Samples whose own timestamp is older than the staleness limit.
    pub outdated: u32,
}

/// What one page says of one model server.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointLoad {
    /// The engine that wrote the page.
    pub engine: Engine,
    /// When the page was asked for: the numbers are no younger.
    pub scraped_at: Instant,
    /// Requests in execution; absent where the page does not say.
    pub running: Option<Combined>,
    /// Requests queued in the server; absent where the page does not say.
    pub waiting: Option<Combined>,
    /// Share of the KV cache in use, 0..1; absent where the page does not say.
    pub kv_cache_utilization: Option<Combined>,
    /// Counters since the server's start.
    pub counters: Counters,
    /// Adapters in use.
    pub lora: Option<LoraLoad>,
    /// The parts that the totals were made from.
    pub units: Vec<UnitLoad>,
    /// What was left out.
    pub unused: Unused,
}

impl EndpointLoad {
    /// The load signals that its page lacks though its engine tells them, for people. Pages of these engines may lack the KV cache's use:
    /// TGI has none, llama.cpp's builds since 2025 and Triton's backends do not tell it, and what is custom is told by whoever wrote it.
    pub fn lacks(&self) -> Vec<&'static str> {
        let without_cache = matches!(self.engine, Engine::Tgi | Engine::LlamaCpp | Engine::Triton | Engine::Custom);
        let signals = [
            ("waiting requests", self.waiting.is_none()),
            ("running requests", self.running.is_none()),
            ("KV cache use", self.kv_cache_utilization.is_none() && !without_cache),
        ];
        signals.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect()
    }

    /// Whether the server does something, or has since `earlier`.
    pub fn is_active_since(&self, earlier: Option<&Self>) -> bool {
        let busy = |signal: Option<Combined>| signal.is_some_and(|signal| signal.value > 0.0);
        busy(self.running)
            || busy(self.waiting)
            || earlier.is_some_and(|earlier| {
                self.counters.prompt_tokens != earlier.counters.prompt_tokens
                    || self.counters.generation_tokens != earlier.counters.generation_tokens
            })
    }
}

/// What one endpoint picker says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PickerLoad {
    /// When it was said.
    pub read_at: Instant,
    /// Requests that wait in the picker for an endpoint; none where the picker does not say: its flow control is off, or has nothing
    /// to tell yet. Nothing is held then.
    pub held: Option<u64>,
    /// Requests that it has sent to endpoints and that have not ended; none where the picker does not say.
    pub in_flight: Option<u64>,
    /// Requests that ever arrived, since the picker's start; of a Go picker, those that it has scheduled.
    pub arrivals: u64,
    /// Prompt tokens of those that arrived; none where the picker does not say.
    pub prompt_tokens: Option<u64>,
}

impl PickerLoad {
    /// [`Self::arrivals`] where they are counted as they come, held or not. The Go picker counts when it schedules, and is told by
    /// its saying nothing of requests in flight.
    pub fn counted_arrivals(&self) -> Option<u64> {
        self.in_flight.map(|_| self.arrivals)
    }
}

/// Why a page could not be had.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection: refused, unreachable, name unknown.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No complete page in time.
    Timeout,
    /// An HTTP status other than 200.
    Status,
    /// A redirect, which is not followed.
    Redirect,
    /// Larger than the limit.
    TooLarge,
    /// The transfer broke off.
    Transfer,
    /// What came is not a metrics page.
    NotMetrics,
    /// A metrics page without one family of the expected engine.
    NoEngine,
}

impl FailureKind {
    /// The label value used on the page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::TooLarge => "too_large",
            Self::Transfer => "transfer",
            Self::NotMetrics => "not_metrics",
            Self::NoEngine => "no_engine",
        }
    }
}

/// A run of failed attempts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What went wrong last.
    pub kind: FailureKind,
    /// In words, naming the address and the way out.
    pub message: Arc<str>,
    /// When the run began.
    pub since: Instant,
    /// Attempts that failed in it.
    pub attempts: u32,
}

/// All that is known of one endpoint: replaced as a whole, so a reader never sees half of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointStatus {
    /// The last page that could be read.
    pub load: Option<Arc<EndpointLoad>>,
    /// The current run of failures; none after a success.
    pub failure: Option<Failure>,
    /// How often the endpoint is read at present.
    pub interval: Duration,
    /// When the endpoint was last seen doing something.
    pub last_active: Option<Instant>,
}

/// All that is known of one picker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PickerStatus {
    /// The last thing it said.
    pub load: Option<PickerLoad>,
    /// The current run of failures; none after a success.
    pub failure: Option<Failure>,
    /// How often it is read at present.
    pub interval: Duration,
    /// When a request was last held by it or arrived at it.
    pub last_active: Option<Instant>,
}
