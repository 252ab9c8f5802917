//! `max-score-picker`

use rand::{Rng, RngExt};

use super::highest;
use crate::scheduling::Picker;

/// The highest score, ties drawn by lot.
#[derive(Clone, Copy, Debug)]
pub struct MaxScorePicker {
    /// Endpoints to choose.
    pub most: usize,
}

impl Picker for MaxScorePicker {
    fn most(&self) -> usize {
        self.most
    }

    fn pick(&self, totals: &[f64], most: usize, rng: &mut dyn Rng, picked: &mut Vec<usize>) {
        if most > 1 {
            let keyed = totals.iter().enumerate().map(|(position, total)| (*total, rng.next_u64(), position));
            return highest(keyed, most, picked);
        }
        // One pass: each further equal takes the place of the one before with probability 1/n.
        let mut best: Option<(f64, usize)> = None;
        let mut equals = 0_u32;
        for (position, total) in totals.iter().enumerate() {
            match best {
                Some((highest, _)) if *total < highest => {}
                Some((highest, _)) if *total == highest => {
                    equals += 1;
                    if rng.random_range(0..equals) == 0 {
                        best = Some((*total, position));
                    }
                }
                _ => (best, equals) = (Some((*total, position)), 1),
            }
        }
        picked.extend(best.filter(|_| most == 1).map(|(_, position)| position));
    }
}
