//! `weighted-random-picker`

use rand::{Rng, RngExt};

use super::highest;
use crate::scheduling::Picker;

/// In proportion to the scores, without putting back (A-Res of Efraimidis and Spirakis: keys U^(1/score)); any where all scores
/// are 0.
#[derive(Clone, Copy, Debug)]
pub struct WeightedRandomPicker {
    /// Endpoints to choose.
    pub most: usize,
}

impl Picker for WeightedRandomPicker {
    fn most(&self) -> usize {
        self.most
    }

    fn pick(&self, totals: &[f64], most: usize, rng: &mut dyn Rng, picked: &mut Vec<usize>) {
        let keyed = totals.iter().enumerate().map(|(position, total)| {
            let key = if *total > 0.0 { rng.random::<f64>().powf(1.0 / total) } else { 0.0 };
            (key, rng.next_u64(), position)
        });
        highest(keyed, most, picked);
    }
}
