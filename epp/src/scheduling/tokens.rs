//! `inflight-load-producer`: how many tokens a request is taken for while it is in flight.

use super::config::Parameters;
use crate::InferenceRequest;

/// Bytes that stand for a token, as upstream estimates.
const BYTES_PER_TOKEN: usize = 4;
/// Tokens generated for each of the prompt, as upstream estimates.
const OUTPUT_RATIO: f64 = 1.5;

/// Tokens of a text of `bytes`.
pub(super) fn tokens_of_bytes(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN) as u64
}

/// How tokens in flight are estimated: nobody tells them before the answer is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenEstimate {
    /// What of a request counts as its prompt.
    pub input: TokenInput,
    /// Tokens generated for each of the prompt; none: what is generated is not counted, and the prompt only until the first token.
    pub output_ratio: Option<f64>,
    /// No more than so many are counted as generated.
    pub most_output: Option<u64>,
}

/// What of a request counts as its prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenInput {
    /// Its whole body, at least one token (v1.5.0).
    Body,
    /// Its prompt, less what the chosen server has of it already (llm-d).
    UncachedPrompt,
}

impl Default for TokenEstimate {
    /// Upstream's, v1.5.0.
    fn default() -> Self {
        Self { input: TokenInput::Body, output_ratio: Some(OUTPUT_RATIO), most_output: None }
    }
}

impl TokenEstimate {
    /// llm-d's default: the uncached prompt alone.
    pub fn llm_d() -> Self {
        Self { input: TokenInput::UncachedPrompt, output_ratio: None, most_output: None }
    }

    pub(super) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let default = if parameters.llm_d() { Self::llm_d() } else { Self::default() };
        let counted = parameters.boolean("addEstimatedOutputTokens", default.output_ratio.is_some());
        let ratio = parameters.real("outputRatio", OUTPUT_RATIO, |ratio| ratio >= 0.0, "a number of 0 or above");
        parameters.ignored("syncCrossReplicaState");
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        let most_output = parameters.given("maxEstimatedOutputTokens");
        let most = parameters.whole("maxEstimatedOutputTokens", 0, 0..=1 << 40) as u64;
        Self { input: default.input, output_ratio: counted.then_some(ratio), most_output: most_output.then_some(most) }
    }

    /// Whether a request's tokens are in flight only until its first token is there.
    pub fn until_first_token(&self) -> bool {
        self.output_ratio.is_none()
    }

    /// Tokens that `request` is to a server that has `matched` of the `blocks` of `block_tokens` of its prompt.
    pub fn of(&self, request: &InferenceRequest, blocks: usize, block_tokens: usize, matched: usize) -> u64 {
        let (input, uncached) = match self.input {
            TokenInput::Body => {
                let tokens = (request.body_bytes / BYTES_PER_TOKEN).max(1) as u64;
                (tokens, tokens)
            }
            TokenInput::UncachedPrompt => {
                let tokens = tokens_of_bytes(request.prefix.len());
                // What is left over after the last whole block is in no cache; a block's share of a tokenizer's estimate may exceed it.
                let indexed = blocks.saturating_mul(block_tokens) as u64;
                let uncached = (blocks.saturating_sub(matched)).saturating_mul(block_tokens) as u64;
                (tokens, uncached.saturating_add(tokens.saturating_sub(indexed)))
            }
        };
        let Some(ratio) = self.output_ratio else { return uncached };
        let output = (input as f64 * ratio).round() as u64;
        let asked_for = request.max_output_tokens.unwrap_or(u64::MAX);
        uncached.saturating_add(output.min(asked_for).min(self.most_output.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::request;

    #[test]
    fn the_formulas_of_both() {
        let mut request = request();
        request.body_bytes = 103;
        request.prefix = vec![b'x'; 90].into();
        let estimate = TokenEstimate::default();
        // 103 / 4 = 25; 25 · 1.5 = 37.5, rounded 38.
        assert_eq!(estimate.of(&request, 2, 10, 1), 25 + 38);
        assert_eq!(TokenEstimate { most_output: Some(9), ..estimate }.of(&request, 0, 0, 0), 25 + 9);
        request.max_output_tokens = Some(4);
        assert_eq!(TokenEstimate { most_output: Some(9), ..estimate }.of(&request, 0, 0, 0), 25 + 4);
        // 90 / 4, rounded up, = 23; 20 of them in two blocks, one of which is cached.
        assert_eq!(TokenEstimate::llm_d().of(&request, 2, 10, 1), 10 + 3);
        assert_eq!(TokenEstimate::llm_d().of(&request, 0, 0, 0), 23);
        assert_eq!(TokenEstimate::llm_d().of(&request, 2, 10, 9), 3, "never below what is in no block");
        let counted = TokenEstimate { output_ratio: Some(2.0), ..TokenEstimate::llm_d() };
        assert_eq!(counted.of(&request, 2, 10, 1), 13 + 4);
        request.body_bytes = 0;
        request.prefix = bytes::Bytes::new();
        request.max_output_tokens = None;
        assert_eq!((estimate.of(&request, 0, 0, 0), TokenEstimate::llm_d().of(&request, 0, 0, 0)), (1 + 2, 0));
    }
}
