//! Memory that requests use one after the other, so that none of them asks for as much as there are endpoints.

use std::cell::Cell;

use super::candidate::Candidate;

/// Candidates beyond which a list is not kept: pools are smaller, and so is what every thread holds.
const MOST_KEPT: usize = 4096;

/// What scoring writes into.
#[derive(Debug, Default)]
pub struct Buffers {
    pub(super) totals: Vec<f64>,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) picked: Vec<usize>,
}

/// The memory of one request.
#[derive(Debug, Default)]
pub struct Scratch<'a> {
    /// Every endpoint that may take the request.
    pub candidates: Vec<Candidate<'a>>,
    /// Those of the profile that runs, where others run after it.
    pub profile: Vec<Candidate<'a>>,
    /// What scoring writes into.
    pub buffers: Buffers,
}

thread_local! {
    static KEPT: Cell<Option<Scratch<'static>>> = const { Cell::new(None) };
}

impl Scratch<'_> {
    /// Calls `place` with the memory of this thread.
    pub fn with<'a, T>(place: impl FnOnce(&mut Scratch<'a>) -> T) -> T {
        let kept = KEPT.take().unwrap_or_default();
        let mut scratch = Scratch { candidates: emptied(kept.candidates), profile: emptied(kept.profile), buffers: kept.buffers };
        let result = place(&mut scratch);
        if scratch.candidates.capacity() <= MOST_KEPT {
            let (candidates, profile) = (emptied(scratch.candidates), emptied(scratch.profile));
            KEPT.set(Some(Scratch { candidates, profile, buffers: scratch.buffers }));
        }
        result
    }
}

/// The memory of `candidates` without what is in it, for candidates of another request: collecting in place keeps it.
fn emptied<'before, 'after>(mut candidates: Vec<Candidate<'before>>) -> Vec<Candidate<'after>> {
    candidates.clear();
    candidates.into_iter().map_while(|_: Candidate<'before>| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::Loads;

    #[test]
    fn the_next_request_finds_the_memory_empty_and_in_its_place() {
        let loads = Loads::waiting(&[0.0; 100]);
        let memory = Scratch::with(|scratch| {
            scratch.candidates.extend(loads.candidates());
            scratch.candidates.as_ptr() as usize
        });
        Scratch::with(|scratch| {
            assert!(scratch.candidates.is_empty() && scratch.candidates.capacity() >= 100);
            assert_eq!(scratch.candidates.as_ptr() as usize, memory);
        });
    }
}
