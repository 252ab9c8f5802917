//! The two kinds of servers of the table, and their calibration.
//!
//! With `n` running and `f` of the full rate arriving, `n = f·A / (1 - f·K)`: `A` is the work of steps, `K` that of sequences and
//! prompts. Both profiles have `n` = 256 (vLLM's default) at `f` = 1 and 33, 45, 66, 81 % of that at 0.7, 0.8, 0.9, 0.95.

use crate::replica::ReplicaProfile;

/// A model on its GPUs, with the requests it usually gets and what its users expect.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSize {
    /// How it is called.
    pub name: &'static str,
    /// What a replica can do.
    pub profile: ReplicaProfile,
    /// Mean tokens of a prompt.
    pub prompt_tokens: f64,
    /// Mean tokens of an answer.
    pub output_tokens: f64,
    /// The service level: seconds to the first token.
    pub slo: f64,
}

impl ModelSize {
    /// An 8B model on one H100: 22.5 requests a second of 512 + 200 tokens; first token within 2 s.
    pub fn small() -> Self {
        let profile = ReplicaProfile {
            step: 0.012,
            per_sequence: 0.000_047_25,
            per_prompt_token: 0.000_05,
            max_sequences: 256,
            max_step_tokens: 8192,
            kv_tokens: 432_000,
            gpus: 1,
        };
        Self { name: "8B", profile, prompt_tokens: 512.0, output_tokens: 200.0, slo: 2.0 }
    }

    /// A 70B model on four H100: 4.5 requests a second of 1,024 + 400 tokens; first token within 5 s.
    pub fn large() -> Self {
        let profile = ReplicaProfile {
            step: 0.031,
            per_sequence: 0.000_121,
            per_prompt_token: 0.000_122_5,
            max_sequences: 256,
            max_step_tokens: 8192,
            kv_tokens: 416_000,
            gpus: 4,
        };
        Self { name: "70B", profile, prompt_tokens: 1024.0, output_tokens: 400.0, slo: 5.0 }
    }

    /// The one of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::small(), Self::large()].into_iter().find(|size| size.name.eq_ignore_ascii_case(name))
    }

    /// Requests a second of a full replica at the usual mix.
    pub fn full_rate(&self) -> f64 {
        1.0 / self.profile.work(self.prompt_tokens, self.output_tokens)
    }
}
