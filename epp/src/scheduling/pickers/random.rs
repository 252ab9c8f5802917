//! `random-picker`

use rand::seq::index;
use rand::{Rng, RngExt};

use crate::scheduling::Picker;

/// Any, scores do not matter.
#[derive(Clone, Copy, Debug)]
pub struct RandomPicker {
    /// Endpoints to choose.
    pub most: usize,
}

impl Picker for RandomPicker {
    fn most(&self) -> usize {
        self.most
    }

    fn pick(&self, totals: &[f64], most: usize, rng: &mut dyn Rng, picked: &mut Vec<usize>) {
        match (totals.len(), most) {
            (0, _) | (_, 0) => {}
            (count, 1) => picked.push(rng.random_range(0..count)),
            (count, most) => picked.extend(index::sample(rng, count, most.min(count))),
        }
    }
}
