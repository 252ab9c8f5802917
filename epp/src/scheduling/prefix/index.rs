//! Which endpoint was given which blocks.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::blocks::Blocks;

/// Blocks remembered over all endpoints: about 30 bytes each. Where the endpoints' capacities are more, each gets its part.
const MOST_BLOCKS: usize = 2_000_000;

/// An endpoint in the index.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Holder(u32);

/// Which endpoint was given which blocks last. Requests wait for each other only where they go to one endpoint.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    blocks_of: RwLock<HashMap<Holder, Mutex<Blocks>>>,
    /// Of the first blocks of prompts: where they are, the others may be. Locked last, and shortly.
    holders_of: RwLock<HashMap<u64, Holders>>,
    keys: RandomState,
    next: AtomicU32,
    blocks: AtomicUsize,
}

/// Who has a block. Mostly it is one.
#[derive(Clone, Debug)]
enum Holders {
    One(Holder),
    Several(Vec<Holder>),
}

impl Holders {
    fn as_slice(&self) -> &[Holder] {
        match self {
            Self::One(holder) => std::slice::from_ref(holder),
            Self::Several(holders) => holders,
        }
    }

    fn add(&mut self, holder: Holder) {
        match self {
            Self::One(one) => *self = Self::Several(vec![*one, holder]),
            Self::Several(holders) => holders.push(holder),
        }
    }

    /// True where nobody is left.
    fn remove(&mut self, holder: Holder) -> bool {
        match self {
            Self::One(one) => *one == holder,
            Self::Several(holders) => {
                holders.retain(|one| *one != holder);
                holders.is_empty()
            }
        }
    }
}

impl PrefixIndex {
    /// A new endpoint, which has nothing.
    pub fn add_holder(&self) -> Holder {
        let holder = Holder(self.next.fetch_add(1, Ordering::Relaxed));
        self.holders_mut().insert(holder, self.nothing(holder));
        holder
    }

    /// The endpoint is gone, and what it had with it.
    pub fn remove_holder(&self, holder: Holder) {
        self.take(&mut self.holders_mut(), holder);
    }

    /// The endpoint has nothing any more: its server started anew.
    pub fn empty_holder(&self, holder: Holder) {
        let mut blocks_of = self.holders_mut();
        if self.take(&mut blocks_of, holder) {
            blocks_of.insert(holder, self.nothing(holder));
        }
    }

    /// How many of `hashes`, from the first on without a gap, each endpoint has. Endpoints that have none are left out.
    ///
    /// An endpoint that has a block has all that come before it in its chain: they are given with it and forgotten after it. So the
    /// end of its run is found by halving.
    pub fn matches(&self, hashes: &[u64]) -> HashMap<Holder, usize> {
        let Some(holders) = hashes.first().and_then(|first| self.beginnings().get(first).cloned()) else { return HashMap::new() };
        let blocks_of = self.holders();
        let run = |holder: &Holder| {
            let blocks = lock(blocks_of.get(holder)?);
            let run = hashes.partition_point(|hash| blocks.contains(*hash));
            // It may have been forgotten meanwhile.
            (run > 0).then_some((*holder, run))
        };
        holders.as_slice().iter().filter_map(run).collect()
    }

    /// `holder` was given a prompt with `hashes`. It remembers `capacity` blocks, the least recently given are forgotten first; of
    /// one prompt the end goes before the beginning, without which it would be worth nothing.
    pub fn record(&self, holder: Holder, hashes: &[u64], capacity: usize) {
        let blocks_of = self.holders();
        let share = MOST_BLOCKS / blocks_of.len().max(1);
        let capacity = capacity.min(share).max(1);
        let Some(blocks) = blocks_of.get(&holder) else { return };
        let mut blocks = lock(blocks);
        let before = blocks.len();
        for (at, hash) in hashes.iter().enumerate().take(capacity).rev() {
            if blocks.give(*hash, at == 0) && at == 0 {
                let mut beginnings = self.beginnings_mut();
                beginnings.entry(*hash).and_modify(|holders| holders.add(holder)).or_insert(Holders::One(holder));
            }
        }
        while blocks.len() > capacity
            && let Some((forgotten, began)) = blocks.forget_oldest()
        {
            if began {
                forget(&mut self.beginnings_mut(), forgotten, holder);
            }
        }
        if blocks.len() >= before {
            self.blocks.fetch_add(blocks.len() - before, Ordering::Relaxed);
        } else {
            self.blocks.fetch_sub(before - blocks.len(), Ordering::Relaxed);
        }
    }

    /// Blocks remembered, over all endpoints.
    pub fn len(&self) -> usize {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn nothing(&self, holder: Holder) -> Mutex<Blocks> {
        Mutex::new(Blocks::new(self.keys.hash_one(holder)))
    }

    /// Takes an endpoint out; false where it is not there.
    fn take(&self, blocks_of: &mut HashMap<Holder, Mutex<Blocks>>, holder: Holder) -> bool {
        let Some(blocks) = blocks_of.remove(&holder) else { return false };
        let blocks = blocks.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.blocks.fetch_sub(blocks.len(), Ordering::Relaxed);
        let mut beginnings = self.beginnings_mut();
        blocks.beginnings().for_each(|hash| forget(&mut beginnings, hash, holder));
        true
    }

    fn holders(&self) -> RwLockReadGuard<'_, HashMap<Holder, Mutex<Blocks>>> {
        self.blocks_of.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders_mut(&self) -> RwLockWriteGuard<'_, HashMap<Holder, Mutex<Blocks>>> {
        self.blocks_of.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn beginnings(&self) -> RwLockReadGuard<'_, HashMap<u64, Holders>> {
        self.holders_of.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn beginnings_mut(&self) -> RwLockWriteGuard<'_, HashMap<u64, Holders>> {
        self.holders_of.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(blocks: &Mutex<Blocks>) -> MutexGuard<'_, Blocks> {
    blocks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget(beginnings: &mut HashMap<u64, Holders>, hash: u64, holder: Holder) {
    if let Some(holders) = beginnings.get_mut(&hash)
        && holders.remove(holder)
    {
        beginnings.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_match_has_no_gap() {
        let index = PrefixIndex::default();
        let (whole, gap, none) = (index.add_holder(), index.add_holder(), index.add_holder());
        index.record(whole, &[1, 2, 3, 4], 100);
        index.record(gap, &[1, 2, 30, 40], 100);
        let matches = index.matches(&[1, 2, 3, 4, 5]);
        assert_eq!((matches.get(&whole), matches.get(&gap), matches.get(&none)), (Some(&4), Some(&2), None));
        assert!(index.matches(&[9, 1]).is_empty() && index.matches(&[]).is_empty());
        // Of two prompts with one beginning the older loses its own end first.
        index.record(whole, &[1, 2, 50, 60], 5);
        assert_eq!(index.matches(&[1, 2, 3, 4])[&whole], 3);
        assert_eq!(index.matches(&[1, 2, 50, 60])[&whole], 4);
    }

    #[test]
    fn capacity_is_honoured_and_beginnings_outlive_ends() {
        let index = PrefixIndex::default();
        let holder = index.add_holder();
        index.record(holder, &[1, 2, 3], 4);
        index.record(holder, &[10, 11], 4);
        assert_eq!(index.len(), 4);
        assert_eq!(index.matches(&[1, 2, 3])[&holder], 2, "the end of the oldest went");
        index.record(holder, &[1, 2, 3], 4);
        assert_eq!(index.matches(&[1, 2, 3])[&holder], 3);
        assert_eq!(index.matches(&[10, 11])[&holder], 1);
        index.record(holder, &[20, 21, 22, 23, 24, 25], 4);
        assert_eq!((index.len(), index.matches(&[20, 21, 22, 23, 24])[&holder]), (4, 4), "longer than the whole cache");
        index.record(holder, &[30], 2);
        assert_eq!(index.len(), 2, "a smaller capacity holds at once");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let index = PrefixIndex::default();
        let (stays, goes) = (index.add_holder(), index.add_holder());
        index.record(stays, &[1], 10);
        index.record(goes, &[1, 2], 10);
        index.remove_holder(goes);
        index.remove_holder(goes);
        index.record(goes, &[1, 2, 3], 10);
        assert_eq!(index.matches(&[1, 2]), HashMap::from([(stays, 1)]));
        index.empty_holder(goes);
        assert_eq!(index.len(), 1);
        index.empty_holder(stays);
        assert!(index.is_empty() && index.matches(&[1]).is_empty());
        index.record(stays, &[1], 10);
        assert_eq!((index.beginnings().len(), index.holders().len()), (1, 1));
    }

    #[test]
    fn many_endpoints_share_the_bound() {
        let index = PrefixIndex::default();
        let holders: Vec<_> = (0..2000).map(|_| index.add_holder()).collect();
        let hashes: Vec<u64> = (0..5000).collect();
        holders.iter().take(3).for_each(|holder| index.record(*holder, &hashes, usize::MAX));
        assert_eq!(index.len(), 3 * MOST_BLOCKS / 2000);
    }

    /// Prompts 0 and 1 have their first two blocks in common, as chains can; 2 shares nothing.
    fn chain(prompt: u64, blocks: u64) -> Vec<u64> {
        (0..blocks).map(|block| if prompt < 2 && block < 2 { block } else { prompt * 100 + 10 + block }).collect()
    }

    proptest! {
        /// Against the plain model: each endpoint's blocks in the order of their last use.
        #[test]
        fn as_the_plain_model(prompts in prop::collection::vec((0usize..3, 0u64..3, 1u64..6), 1..60)) {
            const CAPACITY: usize = 7;
            let index = PrefixIndex::default();
            let holders = [index.add_holder(), index.add_holder(), index.add_holder()];
            let mut model: [Vec<u64>; 3] = Default::default();
            for (holder, prompt, blocks) in prompts {
                let hashes = chain(prompt, blocks);
                index.record(holders[holder], &hashes, CAPACITY);
                let blocks = &mut model[holder];
                for hash in hashes.iter().rev() {
                    blocks.retain(|one| one != hash);
                    blocks.push(*hash);
                }
                let surplus = blocks.len().saturating_sub(CAPACITY);
                blocks.drain(..surplus);
            }
            prop_assert_eq!(index.len(), model.iter().map(Vec::len).sum::<usize>());
            for prompt in 0..3 {
                let hashes = chain(prompt, 6);
                let matches = index.matches(&hashes);
                for (holder, blocks) in holders.iter().zip(&model) {
                    let expected = hashes.iter().take_while(|hash| blocks.contains(hash)).count();
                    prop_assert_eq!(matches.get(holder).copied().unwrap_or(0), expected);
                }
            }
        }
    }
}
