//! How many prompt tokens arrive, told when they arrive.
//!
//! A server says how many tokens a prompt had when it has answered: exact, and late by as long as answers take, which is when an
//! autoscaler needs it. So what arrives is counted by its bytes at once, and what servers say teaches how many bytes make a token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};

use crate::inference::InferenceRequest;

/// Tokens per byte before any server has counted: four bytes make one.
const USUAL: f64 = 0.25;
/// What a token may be: a byte at least, and up to a hundred.
const BELIEVED: (f64, f64) = (0.01, 1.0);
/// What is left of an answer's weight with each that follows: the last hundred or so count.
const REMEMBERED: f64 = 0.99;

/// A counter of prompt tokens, and what it learns from.
#[derive(Debug)]
pub(super) struct PromptTokens {
    total: AtomicU64,
    /// Bits of the tokens per byte.
    per_byte: AtomicU64,
    /// Tokens and bytes of the last answers.
    counted: Mutex<(f64, f64)>,
}

impl Default for PromptTokens {
    fn default() -> Self {
        Self { total: AtomicU64::new(0), per_byte: AtomicU64::new(USUAL.to_bits()), counted: Mutex::default() }
    }
}

/// The bytes of the prompt; of the whole body where nothing in it is known to be one.
pub(super) fn prompt_bytes(request: &InferenceRequest) -> usize {
    if request.prefix.is_empty() { request.body_bytes } else { request.prefix.len() }
}

impl PromptTokens {
    /// A prompt of so many bytes arrived.
    pub(super) fn arrived(&self, bytes: usize) {
        let per_byte = f64::from_bits(self.per_byte.load(Ordering::Relaxed));
        // The cast saturates.
        self.total.fetch_add((bytes as f64 * per_byte).round() as u64, Ordering::Relaxed);
    }

    /// A server counted so many tokens in a prompt of so many bytes.
    pub(super) fn counted(&self, bytes: usize, tokens: u64) {
        if bytes == 0 || tokens == 0 {
            return;
        }
        // Of two answers at once one is enough to learn from.
        let mut counted = match self.counted.try_lock() {
            Ok(counted) => counted,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        *counted = (counted.0 * REMEMBERED + tokens as f64, counted.1 * REMEMBERED + bytes as f64);
        let per_byte = (counted.0 / counted.1).clamp(BELIEVED.0, BELIEVED.1);
        self.per_byte.store(per_byte.to_bits(), Ordering::Relaxed);
    }

    /// Tokens of all that arrived.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_are_a_token_until_servers_count_otherwise() {
        let prompts = PromptTokens::default();
        prompts.arrived(400);
        assert_eq!(prompts.total(), 100);
        (0..10).for_each(|_| prompts.counted(1000, 500));
        prompts.arrived(400);
        assert_eq!(prompts.total(), 300);
        // What cannot be is not learned.
        prompts.counted(0, 10);
        prompts.counted(10, 0);
        (0..1000).for_each(|_| prompts.counted(1, u64::MAX));
        prompts.arrived(400);
        assert_eq!(prompts.total(), 700);
    }
}
