//! What a replica can do: its limits and its step times.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Limits and latencies of one replica. Fields are public: start from a preset and change what matters.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerProfile {
    /// Most sequences running at once (vLLM `--max-num-seqs`).
    pub max_num_seqs: u32,
    /// KV cache size in blocks (vLLM `num_gpu_blocks`).
    pub kv_blocks: u32,
    /// Tokens in a KV block.
    pub block_size: u32,
    /// Most tokens one step computes, prefill chunks and decodes together (vLLM `--max-num-batched-tokens`).
    pub max_num_batched_tokens: u32,
    /// Longest prompt plus output in tokens (vLLM `--max-model-len`); never above the KV cache.
    pub max_model_len: u32,
    /// Requests that may wait; one more is refused with 429.
    pub waiting_limit: u32,
    /// Fixed time of the step in which a prompt starts.
    pub prefill_overhead: Duration,
    /// Time per computed prompt token.
    pub prefill_time_per_token: Duration,
    /// Time of a step that only decodes, with one sequence running.
    pub inter_token_latency: Duration,
    /// How much slower a step is with `max_num_seqs` running than with one; at least 1.
    pub time_factor_under_load: f64,
    /// Standard deviation of a step's time as a share of its mean, 0 to 0.3; cut at ±70 %.
    pub jitter: f64,
    /// Blocks the prefix cache remembers; 0 turns it off.
    pub prefix_cache_blocks: u32,
    /// LoRA adapters that may run in one step (vLLM `--max-loras`).
    pub max_loras: u32,
    /// Mean output length in tokens of a request that names no maximum.
    pub mean_output_tokens: u32,
}

/// A profile no replica could run with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("server profile: {field} {problem}")]
pub struct ProfileError {
    /// The field to change.
    pub field: &'static str,
    /// What it must be.
    pub problem: String,
}

const LONGEST_LATENCY: Duration = Duration::from_secs(3600);
const LARGEST_TIME_FACTOR: f64 = 1000.0;
const LARGEST_JITTER: f64 = 0.3;
const JITTER_CUT: f64 = 0.7;
/// Spread (σ of the logarithm) of drawn output lengths: a third of the answers is shorter than half the mean.
const OUTPUT_LENGTH_SPREAD: f64 = 0.7;

impl ServerProfile {
    /// A replica small enough to saturate by hand: 8 sequences, 8,192 tokens of KV cache, 40 tokens/s per stream when idle.
    pub fn small_demo() -> Self {
        Self {
            max_num_seqs: 8,
            kv_blocks: 512,
            block_size: 16,
            max_num_batched_tokens: 2048,
            max_model_len: 4096,
            waiting_limit: 100,
            prefill_overhead: Duration::from_millis(30),
            prefill_time_per_token: Duration::from_micros(200),
            inter_token_latency: Duration::from_millis(25),
            time_factor_under_load: 2.0,
            jitter: 0.1,
            prefix_cache_blocks: 512,
            max_loras: 4,
            mean_output_tokens: 128,
        }
    }

    /// Llama 3.1 8B in bf16 on one H100: about 54 GB of KV cache at 128 KiB a token.
    pub fn llama_8b_h100() -> Self {
        Self {
            max_num_seqs: 256,
            kv_blocks: 27_000,
            block_size: 16,
            max_num_batched_tokens: 8192,
            max_model_len: 32_768,
            waiting_limit: 1000,
            prefill_overhead: Duration::from_millis(30),
            prefill_time_per_token: Duration::from_micros(200),
            inter_token_latency: Duration::from_millis(12),
            time_factor_under_load: 2.0,
            jitter: 0.1,
            prefix_cache_blocks: 27_000,
            max_loras: 4,
            mean_output_tokens: 256,
        }
    }

    /// Llama 3.1 70B in bf16 on four H100: about 130 GB of KV cache at 320 KiB a token.
    pub fn llama_70b_tp4() -> Self {
        Self {
            kv_blocks: 26_000,
            prefill_overhead: Duration::from_millis(90),
            prefill_time_per_token: Duration::from_micros(750),
            inter_token_latency: Duration::from_millis(32),
            prefix_cache_blocks: 26_000,
            ..Self::llama_8b_h100()
        }
    }

    /// The preset of that name (`small-demo`, `llama-8b-h100`, `llama-70b-tp4`).
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "small-demo" => Some(Self::small_demo()),
            "llama-8b-h100" => Some(Self::llama_8b_h100()),
            "llama-70b-tp4" => Some(Self::llama_70b_tp4()),
            _ => None,
        }
    }

    /// Names [`Self::by_name`] knows.
    pub const NAMES: [&'static str; 3] = ["small-demo", "llama-8b-h100", "llama-70b-tp4"];

    /// Checks that a replica can run with it: every accepted request can finish, and no time overflows.
    pub fn validate(&self) -> Result<(), ProfileError> {
        let positive = [
            ("max_num_seqs", self.max_num_seqs),
            ("kv_blocks", self.kv_blocks),
            ("block_size", self.block_size),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_loras", self.max_loras),
            ("mean_output_tokens", self.mean_output_tokens),
        ];
        for (field, value) in positive {
            if value == 0 {
                return Err(ProfileError { field, problem: "must be at least 1".into() });
            }
        }
        let Some(capacity) = self.kv_blocks.checked_mul(self.block_size) else {
            let problem = format!("times block_size {} must be below {} tokens", self.block_size, u32::MAX);
            return Err(ProfileError { field: "kv_blocks", problem });
        };
        if self.max_model_len < 2 || self.max_model_len > capacity {
            let problem = format!("is {}, must be 2 to {capacity} (kv_blocks × block_size)", self.max_model_len);
            return Err(ProfileError { field: "max_model_len", problem });
        }
        let latencies = [
            ("prefill_overhead", self.prefill_overhead),
            ("prefill_time_per_token", self.prefill_time_per_token),
            ("inter_token_latency", self.inter_token_latency),
        ];
        for (field, latency) in latencies {
            if latency > LONGEST_LATENCY {
                return Err(ProfileError { field, problem: format!("must be at most {LONGEST_LATENCY:?}") });
            }
        }
        if !(1.0..=LARGEST_TIME_FACTOR).contains(&self.time_factor_under_load) {
            let problem = format!("is {}, must be 1 to {LARGEST_TIME_FACTOR}", self.time_factor_under_load);
            return Err(ProfileError { field: "time_factor_under_load", problem });
        }
        if !(0.0..=LARGEST_JITTER).contains(&self.jitter) {
            let problem = format!("is {}, must be 0 to {LARGEST_JITTER}", self.jitter);
            return Err(ProfileError { field: "jitter", problem });
        }
        Ok(())
    }

    /// Tokens the KV cache holds.
    pub fn kv_tokens(&self) -> u32 {
        self.kv_blocks.saturating_mul(self.block_size)
    }

    /// Blocks that `tokens` tokens fill or begin.
    pub fn blocks_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_size)
    }

    /// The factor on every step time with `running` sequences: 1 with one, `time_factor_under_load` with `max_num_seqs`.
    pub fn load(&self, running: usize) -> f64 {
        if self.max_num_seqs <= 1 || running == 0 {
            return 1.0;
        }
        let share = (running as f64 - 1.0) / (f64::from(self.max_num_seqs) - 1.0);
        1.0 + (self.time_factor_under_load - 1.0) * share
    }

    /// A factor around 1 for one step, normal with the profile's `jitter`.
    pub(crate) fn draw_jitter(&self, rng: &mut impl Rng) -> f64 {
        if self.jitter == 0.0 {
            return 1.0;
        }
        1.0 + (self.jitter * draw_normal(rng)).clamp(-JITTER_CUT, JITTER_CUT)
    }

    /// An output length for a request that names none: log-normal around `mean_output_tokens`, at most `room`, at least 1.
    pub fn draw_output_tokens(&self, room: u32, rng: &mut impl Rng) -> u32 {
        let location = f64::from(self.mean_output_tokens).ln() - OUTPUT_LENGTH_SPREAD.powi(2) / 2.0;
        let drawn = (location + OUTPUT_LENGTH_SPREAD * draw_normal(rng)).exp();
        // `as` saturates: an absurdly long draw becomes the room.
        (drawn.round() as u32).clamp(1, room.max(1))
    }
}

/// A standard normal value (Box–Muller): rand's own distributions live in another crate.
fn draw_normal(rng: &mut impl Rng) -> f64 {
    let radius_seed: f64 = 1.0 - rng.random::<f64>();
    let angle: f64 = rng.random::<f64>() * std::f64::consts::TAU;
    (-2.0 * radius_seed.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn presets_are_valid_and_named() {
        for name in ServerProfile::NAMES {
            let profile = ServerProfile::by_name(name).unwrap();
            assert_eq!(profile.validate(), Ok(()), "{name}");
        }
        assert_eq!(ServerProfile::by_name("llama"), None);
    }

    #[test]
    fn load_goes_from_one_to_the_time_factor() {
        let profile = ServerProfile { max_num_seqs: 5, time_factor_under_load: 3.0, ..ServerProfile::small_demo() };
        assert_eq!(profile.load(1), 1.0);
        assert_eq!(profile.load(3), 2.0);
        assert_eq!(profile.load(5), 3.0);
        let single = ServerProfile { max_num_seqs: 1, ..profile };
        assert_eq!(single.load(1), 1.0);
    }

    #[test]
    fn impossible_profiles_name_the_field() {
        let demo = ServerProfile::small_demo();
        let broken = [
            ("max_num_seqs", ServerProfile { max_num_seqs: 0, ..demo.clone() }),
            ("kv_blocks", ServerProfile { kv_blocks: u32::MAX, ..demo.clone() }),
            ("max_model_len", ServerProfile { max_model_len: 8193, ..demo.clone() }),
            ("prefill_overhead", ServerProfile { prefill_overhead: Duration::MAX, ..demo.clone() }),
            ("time_factor_under_load", ServerProfile { time_factor_under_load: f64::NAN, ..demo.clone() }),
            ("jitter", ServerProfile { jitter: 0.31, ..demo.clone() }),
        ];
        for (field, profile) in broken {
            assert_eq!(profile.validate().unwrap_err().field, field);
        }
    }

    #[test]
    fn drawn_values_have_their_means_and_bounds() {
        let profile = ServerProfile { jitter: 0.2, mean_output_tokens: 100, ..ServerProfile::small_demo() };
        let mut rng = StdRng::seed_from_u64(7);
        let draws = 20_000;
        let mut jitter_sum = 0.0;
        let mut length_sum = 0.0;
        for _ in 0..draws {
            let jitter = profile.draw_jitter(&mut rng);
            assert!((0.3..=1.7).contains(&jitter));
            jitter_sum += jitter;
            length_sum += f64::from(profile.draw_output_tokens(u32::MAX, &mut rng));
        }
        let jitter_mean = jitter_sum / f64::from(draws);
        let length_mean = length_sum / f64::from(draws);
        assert!((jitter_mean - 1.0).abs() < 0.01, "{jitter_mean}");
        assert!((length_mean - 100.0).abs() < 3.0, "{length_mean}");
        assert_eq!(profile.draw_output_tokens(1, &mut rng), 1);
    }
}
