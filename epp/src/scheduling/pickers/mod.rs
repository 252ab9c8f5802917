//! Pickers, one file each.

mod max_score;
mod random;
mod weighted_random;

pub use max_score::MaxScorePicker;
pub use random::RandomPicker;
pub use weighted_random::WeightedRandomPicker;

/// A position with its key, and a lot for those of equal keys.
type Keyed = (f64, u64, usize);

/// The positions of the highest keys, the highest first.
fn highest(keyed: impl Iterator<Item = Keyed>, most: usize, picked: &mut Vec<usize>) {
    let order = |one: &Keyed, other: &Keyed| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1));
    if most == 1 {
        return picked.extend(keyed.max_by(order).map(|(_, _, position)| position));
    }
    let mut keyed: Vec<Keyed> = keyed.collect();
    keyed.sort_unstable_by(|one, other| order(other, one));
    picked.extend(keyed.into_iter().take(most).map(|(_, _, position)| position));
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::scheduling::Picker;

    /// How often each of `totals` is picked first in 30,000 draws.
    fn shares(picker: &dyn Picker, totals: &[f64]) -> Vec<f64> {
        const DRAWS: usize = 30_000;
        let mut rng = StdRng::seed_from_u64(11);
        let mut counts = vec![0.0; totals.len()];
        for _ in 0..DRAWS {
            let mut picked = Vec::new();
            picker.pick(totals, 1, &mut rng, &mut picked);
            assert_eq!(picked.len(), 1);
            counts[picked[0]] += 1.0;
        }
        counts.iter().map(|count| count / DRAWS as f64).collect()
    }

    /// Five standard deviations of a share of one half over 30,000 draws are 0.0144.
    fn close(shares: &[f64], expected: &[f64]) {
        for (share, expected) in shares.iter().zip(expected) {
            assert!((share - expected).abs() < 0.0145, "{shares:?} is not {expected:?}");
        }
    }

    #[test]
    fn the_highest_score_wins_and_ties_are_drawn() {
        let picker = MaxScorePicker { most: 1 };
        close(&shares(&picker, &[1.0, 7.0, 7.0, 2.0, 7.0]), &[0.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]);
        assert_eq!(shares(&picker, &[3.0, 2.9]), [1.0, 0.0]);
    }

    #[test]
    fn random_does_not_look_at_scores() {
        close(&shares(&RandomPicker { most: 1 }, &[9.0, 0.0, 1.0, 0.0]), &[0.25; 4]);
    }

    #[test]
    fn weighted_random_is_in_proportion_to_scores() {
        let picker = WeightedRandomPicker { most: 1 };
        close(&shares(&picker, &[1.0, 3.0, 6.0, 0.0]), &[0.1, 0.3, 0.6, 0.0]);
        close(&shares(&picker, &[0.0, 0.0, 0.0]), &[1.0 / 3.0; 3]);
    }

    #[test]
    fn several_are_ordered_and_different() {
        let mut rng = StdRng::seed_from_u64(5);
        let totals = [1.0, 5.0, 3.0, 5.0];
        for _ in 0..100 {
            let mut picked = Vec::new();
            MaxScorePicker { most: 3 }.pick(&totals, 3, &mut rng, &mut picked);
            assert!(picked == [1, 3, 2] || picked == [3, 1, 2], "{picked:?}");
        }
        for picker in [&RandomPicker { most: 9 } as &dyn Picker, &WeightedRandomPicker { most: 9 }, &MaxScorePicker { most: 9 }] {
            let mut picked = Vec::new();
            picker.pick(&totals, 9, &mut rng, &mut picked);
            picked.sort_unstable();
            assert_eq!(picked, [0, 1, 2, 3]);
        }
    }
}
