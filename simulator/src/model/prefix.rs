//! A prefix cache reduced to what it saves: which leading blocks were computed lately.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};

/// The hash of one full block and everything before it.
pub type BlockHash = u64;

/// The least recently used of at most `capacity` block hashes leaves first.
#[derive(Clone, Debug)]
pub(crate) struct PrefixCache {
    capacity: usize,
    clock: u64,
    last_use: HashMap<BlockHash, u64>,
    by_last_use: BTreeMap<u64, BlockHash>,
}

impl PrefixCache {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity: capacity as usize, clock: 0, last_use: HashMap::new(), by_last_use: BTreeMap::new() }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.capacity > 0
    }

    pub(crate) fn len(&self) -> usize {
        self.last_use.len()
    }

    /// How many leading blocks are known; they count as used now.
    pub(crate) fn leading_hits(&mut self, blocks: &[BlockHash]) -> usize {
        let hits = blocks.iter().take_while(|block| self.last_use.contains_key(block)).count();
        self.remember(&blocks[..hits]);
        hits
    }

    /// Marks blocks as computed. Later blocks are older, so that a chain loses its end first.
    pub(crate) fn remember(&mut self, blocks: &[BlockHash]) {
        for block in blocks.iter().take(self.capacity).rev() {
            self.clock += 1;
            if let Some(previous) = self.last_use.insert(*block, self.clock) {
                self.by_last_use.remove(&previous);
            }
            self.by_last_use.insert(self.clock, *block);
        }
        while self.last_use.len() > self.capacity {
            let Some((_, oldest)) = self.by_last_use.pop_first() else { break };
            self.last_use.remove(&oldest);
        }
    }
}

/// Feeds a prompt piece by piece and yields the hash of every full block of `block_bytes` bytes.
///
/// `salt` keeps caches apart: the same text under another LoRA adapter has other keys and values.
#[derive(Debug)]
pub struct PrefixHasher {
    hasher: DefaultHasher,
    block_bytes: usize,
    filled: usize,
    blocks: Vec<BlockHash>,
}

impl PrefixHasher {
    /// Starts an empty prompt. A block of 0 bytes is taken as 1.
    pub fn new(block_bytes: usize, salt: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(salt.as_bytes());
        hasher.write_u8(0xff);
        Self { hasher, block_bytes: block_bytes.max(1), filled: 0, blocks: Vec::new() }
    }

    /// Appends a piece of the prompt.
    pub fn write(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let take = piece.len().min(self.block_bytes - self.filled);
            let (head, rest) = piece.split_at(take);
            for byte in head {
                self.hasher.write_u8(*byte);
            }
            self.filled += take;
            if self.filled == self.block_bytes {
                self.blocks.push(self.hasher.finish());
                self.filled = 0;
            }
            piece = rest;
        }
    }

    /// The hashes of the full blocks; a partial last block has none.
    pub fn finish(self) -> Vec<BlockHash> {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(text: &str, salt: &str) -> Vec<BlockHash> {
        let mut hasher = PrefixHasher::new(4, salt);
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    #[test]
    fn hashes_chain_and_do_not_depend_on_pieces() {
        let whole = hashes("aaaabbbbcc", "");
        assert_eq!(whole.len(), 2);
        let mut pieces = PrefixHasher::new(4, "");
        for piece in ["a", "aaab", "", "bbbcc"] {
            pieces.write(piece.as_bytes());
        }
        assert_eq!(pieces.finish(), whole);
        assert_eq!(hashes("aaaaXXXX", "")[0], whole[0]);
        assert_ne!(hashes("XXXXbbbb", "")[1], whole[1], "a block's hash covers what is before it");
        assert_ne!(hashes("aaaabbbb", "adapter"), whole);
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_the_least_recently_used() {
        let mut cache = PrefixCache::new(3);
        cache.remember(&[1, 2]);
        cache.remember(&[3]);
        assert_eq!(cache.leading_hits(&[1, 2, 9]), 2);
        cache.remember(&[4]);
        assert_eq!(cache.len(), 3);
        assert_eq!(cache.leading_hits(&[3]), 0, "3 was used longest ago");
        assert_eq!(cache.leading_hits(&[1, 2]), 2);
        cache.remember(&[10, 11, 12, 13, 14]);
        assert_eq!((cache.len(), cache.by_last_use.len()), (3, 3));
        assert_eq!(cache.leading_hits(&[10, 11, 12]), 3);
    }

    #[test]
    fn a_cache_of_zero_blocks_remembers_nothing() {
        let mut cache = PrefixCache::new(0);
        cache.remember(&[1]);
        assert_eq!(cache.leading_hits(&[1]), 0);
        assert!(!cache.is_enabled());
    }
}
