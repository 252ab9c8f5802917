//! Which endpoint was given which prompts: the approximate prefix cache.
//!
//! A prompt is cut into blocks, each hashed together with what comes before it ([`PrefixHashes`]); an index keeps, for each
//! endpoint, the hashes it was given last ([`PrefixIndex`]). The longest run of hashes from the beginning that one endpoint has is
//! what its cache may spare it. "Approximate", since nobody asks the servers.

mod blocks;
mod hashes;
mod index;

pub use hashes::{PrefixHashes, hash_prefix};
pub use index::{Holder, PrefixIndex};

/// How prompts are cut and how much is remembered: the parameters of `approx-prefix-cache-producer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrefixSettings {
    /// Whether block size and capacity are those that servers tell, where they do.
    pub auto_tune: bool,
    /// Tokens a block.
    pub block_size_tokens: usize,
    /// Blocks of a prompt that are looked at.
    pub most_blocks: usize,
    /// Tokens of a prompt that are looked at, in place of the blocks; 0: as many as the blocks have.
    pub most_tokens: usize,
    /// Blocks remembered of each endpoint.
    pub capacity_per_server: usize,
    /// Tokens of the smallest block that servers may ask for: SGLang tells pages of one token, and 256 of those are one short
    /// sentence.
    pub smallest_told_block: usize,
}

impl Default for PrefixSettings {
    /// Upstream's, v1.5.0.
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: 16,
            most_blocks: 256,
            most_tokens: 0,
            capacity_per_server: 31_250,
            smallest_told_block: 16,
        }
    }
}

/// Bytes that stand for a token.
const BYTES_PER_TOKEN: usize = 4;

impl PrefixSettings {
    /// llm-d's defaults: long prompts whole, in larger blocks.
    pub fn llm_d() -> Self {
        Self { most_blocks: 2048, most_tokens: 131_072, smallest_told_block: 64, ..Self::default() }
    }

    /// Tokens a block, where the servers tell `told`.
    pub fn block_tokens(&self, told: Option<u64>) -> usize {
        let told = told.filter(|told| self.auto_tune && *told > 0).and_then(|told| usize::try_from(told).ok());
        told.map_or(self.block_size_tokens, |told| told.max(self.smallest_told_block)).max(1)
    }

    /// Blocks to remember of a server that tells its `geometry` of (tokens a block, blocks), with blocks of `block_tokens`.
    pub fn capacity(&self, geometry: Option<(u64, u64)>, block_tokens: usize) -> usize {
        let told = geometry.filter(|_| self.auto_tune).map(|(size, blocks)| size.saturating_mul(blocks) / block_tokens as u64);
        told.filter(|blocks| *blocks > 0).and_then(|blocks| usize::try_from(blocks).ok()).unwrap_or(self.capacity_per_server)
    }

    /// Bytes of a block of `block_tokens`.
    pub fn block_bytes(block_tokens: usize) -> usize {
        block_tokens.saturating_mul(BYTES_PER_TOKEN)
    }

    /// Blocks of a prompt to look at.
    fn blocks(&self, block_tokens: usize) -> usize {
        if self.most_tokens > 0 { self.most_tokens / block_tokens } else { self.most_blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_tell_block_size_and_capacity_where_that_is_wanted() {
        let settings = PrefixSettings::default();
        assert_eq!((settings.block_tokens(Some(32)), settings.block_tokens(None)), (32, 16));
        assert_eq!(settings.block_tokens(Some(1)), 16, "pages of one token");
        assert_eq!(settings.capacity(Some((1, 160_000)), 16), 10_000, "as many tokens as the server has");
        assert_eq!(settings.capacity(Some((16, 0)), 16), 31_250);
        let fixed = PrefixSettings { auto_tune: false, block_size_tokens: 64, capacity_per_server: 7, ..settings };
        assert_eq!((fixed.block_tokens(Some(32)), fixed.capacity(Some((16, 1000)), 64)), (64, 7));
        assert_eq!((PrefixSettings::llm_d().block_tokens(Some(16)), PrefixSettings::llm_d().blocks(64)), (64, 2048));
        assert_eq!(PrefixSettings { most_tokens: 1000, ..settings }.blocks(16), 62);
    }
}
