//! A prompt to the chain of hashes of its blocks.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use super::PrefixSettings;

/// One hash for each whole block, each standing for everything up to the end of its block.
pub type PrefixHashes = Vec<u64>;

/// The hashes of `prefix` in blocks of `block_tokens`, as upstream makes them: the first is chained to model and salt, so that
/// requests of another model or salt share none.
pub fn hash_prefix(
    settings: &PrefixSettings,
    block_tokens: usize,
    model: Option<&str>,
    cache_salt: Option<&str>,
    prefix: &[u8],
) -> PrefixHashes {
    let block = PrefixSettings::block_bytes(block_tokens).max(1);
    let blocks = (prefix.len() / block).min(settings.blocks(block_tokens));
    if blocks == 0 {
        return PrefixHashes::new();
    }
    let mut seed = Xxh64::new(0);
    seed.update(model.unwrap_or_default().as_bytes());
    seed.update(cache_salt.unwrap_or_default().as_bytes());
    let mut before = seed.digest();
    let mut chained = vec![0; block + size_of_val(&before)];
    let mut hashes = PrefixHashes::with_capacity(blocks);
    for text in prefix.chunks_exact(block).take(blocks) {
        let (own, chain) = chained.split_at_mut(block);
        own.copy_from_slice(text);
        chain.copy_from_slice(&before.to_le_bytes());
        before = xxh64(&chained, 0);
        hashes.push(before);
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str, model: &str, salt: Option<&str>) -> PrefixHashes {
        hash_prefix(&PrefixSettings::default(), 2, Some(model), salt, text.as_bytes())
    }

    #[test]
    fn whole_blocks_chained() {
        let hashes = hash("aaaabbbbccccddddee", "m", None);
        assert_eq!(hashes.len(), 2, "eight bytes each");
        let first = xxh64(&[b"aaaabbbb".as_slice(), &xxh64(b"m", 0).to_le_bytes()].concat(), 0);
        let second = xxh64(&[b"ccccdddd".as_slice(), &first.to_le_bytes()].concat(), 0);
        assert_eq!(hashes, [first, second]);
        assert_eq!(hash("aaaabbb", "m", None), [0_u64; 0], "shorter than a block");
        let (same, other) = (hash("aaaabbbbXXXXXXXX", "m", None), hash("XXXXXXXXccccdddd", "m", None));
        assert!(same[0] == hashes[0] && same[1] != hashes[1] && other[1] != hashes[1]);
    }

    #[test]
    fn models_and_salts_share_nothing() {
        let plain = hash("aaaabbbb", "m", None);
        assert_ne!(plain, hash("aaaabbbb", "n", None));
        assert_ne!(plain, hash("aaaabbbb", "m", Some("s")));
        assert_eq!(plain, hash("aaaabbbb", "m", Some("")));
    }

    #[test]
    fn only_so_many_blocks_are_looked_at() {
        let settings = PrefixSettings { most_blocks: 3, ..PrefixSettings::default() };
        assert_eq!(hash_prefix(&settings, 1, None, None, &[b'a'; 400]).len(), 3);
    }
}
