//! Families of how long requests take, and of the tokens that they are made of.

use super::{Family, Kind, Unit};
use crate::latency::Latency;
use crate::measurement::Measurement;
use crate::snapshot::PoolSnapshot;

/// A quantile is of each request, however many servers there are: as a mean, it does not add up.
const fn quantile(name: &'static str, help: &'static str, measure: fn(&PoolSnapshot) -> Measurement) -> Family {
    Family { name, unit: Unit::Seconds, kind: Kind::Mean, help, measure }
}

pub(super) const TTFT_P50: Family = quantile(
    "inference_pool_ttft_p50_seconds",
    "Time to first token that 50 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimeToFirstToken, 0.5),
);
pub(super) const TTFT_P90: Family = quantile(
    "inference_pool_ttft_p90_seconds",
    "Time to first token that 90 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimeToFirstToken, 0.9),
);
pub(super) const TTFT_P99: Family = quantile(
    "inference_pool_ttft_p99_seconds",
    "Time to first token that 99 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimeToFirstToken, 0.99),
);
pub(super) const TPOT_P50: Family = quantile(
    "inference_pool_tpot_p50_seconds",
    "Time per output token that 50 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimePerOutputToken, 0.5),
);
pub(super) const TPOT_P90: Family = quantile(
    "inference_pool_tpot_p90_seconds",
    "Time per output token that 90 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimePerOutputToken, 0.9),
);
pub(super) const TPOT_P99: Family = quantile(
    "inference_pool_tpot_p99_seconds",
    "Time per output token that 99 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::TimePerOutputToken, 0.99),
);
pub(super) const REQUEST_DURATION_P50: Family = quantile(
    "inference_pool_request_duration_p50_seconds",
    "Time from arrival to the end of the answer that 50 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::EndToEnd, 0.5),
);
pub(super) const REQUEST_DURATION_P90: Family = quantile(
    "inference_pool_request_duration_p90_seconds",
    "Time from arrival to the end of the answer that 90 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::EndToEnd, 0.9),
);
pub(super) const REQUEST_DURATION_P99: Family = quantile(
    "inference_pool_request_duration_p99_seconds",
    "Time from arrival to the end of the answer that 99 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::EndToEnd, 0.99),
);
pub(super) const QUEUE_TIME_P50: Family = quantile(
    "inference_pool_queue_time_p50_seconds",
    "Time in a queue that 50 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::Queue, 0.5),
);
pub(super) const QUEUE_TIME_P90: Family = quantile(
    "inference_pool_queue_time_p90_seconds",
    "Time in a queue that 90 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::Queue, 0.9),
);
pub(super) const QUEUE_TIME_P99: Family = quantile(
    "inference_pool_queue_time_p99_seconds",
    "Time in a queue that 99 % of the last minute's requests did not exceed.",
    |pool| pool.latency_seconds(Latency::Queue, 0.99),
);

pub(super) const PROMPT_TOKENS: Family = Family {
    name: "inference_pool_prompt_tokens_per_second",
    unit: Unit::TokensPerSecond,
    kind: Kind::Total,
    help: "Prompt tokens a second that the pool's model servers processed in the last minute.",
    measure: PoolSnapshot::prompt_tokens_per_second,
};
pub(super) const GENERATION_TOKENS: Family = Family {
    name: "inference_pool_generation_tokens_per_second",
    unit: Unit::TokensPerSecond,
    kind: Kind::Total,
    help: "Tokens a second that the pool's model servers generated in the last minute.",
    measure: PoolSnapshot::generation_tokens_per_second,
};
pub(super) const PREFILL_BACKLOG_TOKENS: Family = Family {
    name: "inference_pool_prefill_backlog_tokens",
    unit: Unit::Tokens,
    kind: Kind::Total,
    help: "Prompt tokens of the requests that wait: their number times the mean prompt of the last minute.",
    measure: PoolSnapshot::prefill_backlog_tokens,
};
pub(super) const PREFILL_BACKLOG_SECONDS: Family = Family {
    name: "inference_pool_prefill_backlog_seconds",
    unit: Unit::Seconds,
    kind: Kind::Mean,
    help: "Time that the pool takes to read the prompts that wait, at the rate of its servers while they were busy.",
    measure: PoolSnapshot::prefill_backlog_seconds,
};

/// The signal and the quantile of a family that can be asked for one model.
pub(super) fn quantile_of(family: &Family) -> Option<(Latency, f64)> {
    BY_MODEL.iter().find(|(known, ..)| known.name == family.name).map(|(_, signal, quantile)| (*signal, *quantile))
}

const BY_MODEL: [(Family, Latency, f64); 12] = [
    (TTFT_P50, Latency::TimeToFirstToken, 0.5),
    (TTFT_P90, Latency::TimeToFirstToken, 0.9),
    (TTFT_P99, Latency::TimeToFirstToken, 0.99),
    (TPOT_P50, Latency::TimePerOutputToken, 0.5),
    (TPOT_P90, Latency::TimePerOutputToken, 0.9),
    (TPOT_P99, Latency::TimePerOutputToken, 0.99),
    (REQUEST_DURATION_P50, Latency::EndToEnd, 0.5),
    (REQUEST_DURATION_P90, Latency::EndToEnd, 0.9),
    (REQUEST_DURATION_P99, Latency::EndToEnd, 0.99),
    (QUEUE_TIME_P50, Latency::Queue, 0.5),
    (QUEUE_TIME_P90, Latency::Queue, 0.9),
    (QUEUE_TIME_P99, Latency::Queue, 0.99),
];
