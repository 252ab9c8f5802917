//! `prefix-based-pd-decider`

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, Decider, SchedulingRequest};

/// Prompts of which the decoding server has so many tokens yet to compute.
#[derive(Clone, Copy, Debug)]
pub struct PrefixBasedDecider {
    /// Tokens of the prompt that the server does not have; 0: never.
    pub uncached_tokens: u64,
    /// Tokens of the prompt altogether.
    pub prompt_tokens: u64,
}

impl PrefixBasedDecider {
    pub(in crate::scheduling) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.needs().prefix();
        let mut tokens = |name| parameters.whole(name, 0, 0..=1_000_000_000) as u64;
        Self { uncached_tokens: tokens("nonCachedTokens"), prompt_tokens: tokens("promptTokens") }
    }
}

impl Decider for PrefixBasedDecider {
    fn disaggregates(&self, request: &SchedulingRequest<'_>, decode: Option<&Candidate<'_>>) -> bool {
        let Some(decode) = decode.filter(|_| self.uncached_tokens > 0) else { return false };
        let input = request.input_tokens();
        let cached = decode.matched_blocks.saturating_mul(request.block_tokens) as u64;
        input >= self.prompt_tokens && input.saturating_sub(cached) >= self.uncached_tokens
    }
}
