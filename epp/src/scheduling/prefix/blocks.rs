//! The blocks of one endpoint, in the order of their last use.
//!
//! A prompt touches hundreds of blocks at once, so each is small: 16 bytes in a list, 8 in a table that finds it. Neither is allocated
//! for a block, and what is forgotten makes room for what comes.

/// Marks both ends of the list; a slot that names it is empty.
const ANCHOR: u32 = 0;
const FEWEST_SLOTS: usize = 16;

/// Blocks, by the hash of each; the least recently used is the first to be forgotten.
#[derive(Debug)]
pub(super) struct Blocks {
    /// A ring: after the anchor comes the newest, before it the oldest.
    nodes: Vec<Node>,
    /// Whether the node's block is the first of a prompt.
    begins: Vec<bool>,
    free: Vec<u32>,
    /// Open addressing, linear probing; as many as a power of two.
    slots: Vec<Slot>,
    /// Odd and not known outside: clients make the hashes, and could make many that meet in one place.
    key: u64,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Upper bits of the keyed hash; the place in the table are the upper ones of these.
    tag: u32,
    node: u32,
}

const EMPTY: Slot = Slot { tag: 0, node: ANCHOR };

impl Blocks {
    /// None yet; `key` is random.
    pub(super) fn new(key: u64) -> Self {
        let anchor = Node { hash: 0, older: ANCHOR, newer: ANCHOR };
        Self { nodes: vec![anchor], begins: vec![false], free: Vec::new(), slots: vec![EMPTY; FEWEST_SLOTS], key: key | 1, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, hash: u64) -> bool {
        self.find(hash).is_some()
    }

    /// Makes the block the newest; whether it was not there. `begins`: it is the first of a prompt.
    pub(super) fn give(&mut self, hash: u64, begins: bool) -> bool {
        let found = self.find(hash);
        let node = match found {
            Some(slot) => {
                let node = self.slots[slot].node;
                self.unlink(node);
                node
            }
            None => self.insert(hash, begins),
        };
        self.link_newest(node);
        found.is_none()
    }

    /// Forgets the oldest block: its hash, and whether it was the first of a prompt.
    pub(super) fn forget_oldest(&mut self) -> Option<(u64, bool)> {
        let oldest = self.nodes[ANCHOR as usize].newer;
        if oldest == ANCHOR {
            return None;
        }
        let hash = self.nodes[oldest as usize].hash;
        self.unlink(oldest);
        if let Some(slot) = self.find(hash) {
            self.empty(slot);
        }
        self.free.push(oldest);
        self.len -= 1;
        Some((hash, self.begins[oldest as usize]))
    }

    /// The first blocks of prompts.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = u64> {
        let mut at = self.nodes[ANCHOR as usize].older;
        std::iter::from_fn(move || {
            while at != ANCHOR {
                let (node, begins) = (self.nodes[at as usize], self.begins[at as usize]);
                at = node.older;
                if begins {
                    return Some(node.hash);
                }
            }
            None
        })
    }

    fn tag(&self, hash: u64) -> u32 {
        (hash.wrapping_mul(self.key) >> 32) as u32
    }

    /// Where the search for a tag begins.
    fn home(&self, tag: u32) -> usize {
        // The table has 2^4 to 2^31 slots.
        (tag >> (32 - self.slots.len().trailing_zeros())) as usize
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let tag = self.tag(hash);
        let mut at = self.home(tag);
        loop {
            let slot = self.slots[at];
            if slot.node == ANCHOR {
                return None;
            }
            if slot.tag == tag && self.nodes[slot.node as usize].hash == hash {
                return Some(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// A node of this block, which is not there.
    fn insert(&mut self, hash: u64, begins: bool) -> u32 {
        let new = Node { hash, older: ANCHOR, newer: ANCHOR };
        let node = match self.free.pop() {
            Some(node) => {
                self.nodes[node as usize] = new;
                self.begins[node as usize] = begins;
                node
            }
            None => {
                self.nodes.push(new);
                self.begins.push(begins);
                (self.nodes.len() - 1) as u32
            }
        };
        self.len += 1;
        if self.len * 4 > self.slots.len() * 3 {
            let slots = vec![EMPTY; self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, slots) {
                if slot.node != ANCHOR {
                    self.put(slot);
                }
            }
        }
        self.put(Slot { tag: self.tag(hash), node });
        node
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.tag);
        while self.slots[at].node != ANCHOR {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
    }

    /// Empties a slot, and moves those after it up that were pushed past it.
    fn empty(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut at = (hole + 1) & mask;
        while self.slots[at].node != ANCHOR {
            let home = self.home(self.slots[at].tag);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.slots[hole] = EMPTY;
    }

    fn unlink(&mut self, node: u32) {
        let Node { older, newer, .. } = self.nodes[node as usize];
        self.nodes[older as usize].newer = newer;
        self.nodes[newer as usize].older = older;
    }

    fn link_newest(&mut self, node: u32) {
        let newest = self.nodes[ANCHOR as usize].older;
        self.nodes[node as usize].older = newest;
        self.nodes[node as usize].newer = ANCHOR;
        self.nodes[newest as usize].newer = node;
        self.nodes[ANCHOR as usize].older = node;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list, with hashes that meet in few places of the table.
        #[test]
        fn as_a_plain_list(key in any::<u64>(), steps in prop::collection::vec((0_u64..40, 0_u8..4), 1..400)) {
            let mut blocks = Blocks::new(key);
            let mut plain: Vec<(u64, bool)> = Vec::new();
            for (hash, what) in steps {
                let hash = hash << 58 | hash;
                if what == 0 {
                    let oldest = (!plain.is_empty()).then(|| plain.remove(0));
                    prop_assert_eq!(blocks.forget_oldest(), oldest);
                } else {
                    let known = plain.iter().position(|(one, _)| *one == hash).map(|at| plain.remove(at));
                    prop_assert_eq!(blocks.give(hash, what == 1), known.is_none());
                    plain.push(known.unwrap_or((hash, what == 1)));
                }
                prop_assert_eq!(blocks.len(), plain.len());
                let spread = |one: u64| one << 58 | one;
                let listed = |one: u64| plain.iter().any(|(hash, _)| *hash == one);
                prop_assert!((0..40).map(spread).all(|one| blocks.contains(one) == listed(one)));
                let beginnings = plain.iter().rev().filter(|(_, begins)| *begins).map(|(hash, _)| *hash);
                prop_assert!(blocks.beginnings().eq(beginnings));
            }
        }
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut blocks = Blocks::new(0x9e37_79b9_7f4a_7c15);
        for hash in 0..100_000 {
            blocks.give(hash, false);
            if blocks.len() > 1000 {
                assert_eq!(blocks.forget_oldest(), Some((hash - 1000, false)));
            }
        }
        assert!(blocks.nodes.len() <= 1002 && blocks.slots.len() <= 2048, "{} {}", blocks.nodes.len(), blocks.slots.len());
    }
}
