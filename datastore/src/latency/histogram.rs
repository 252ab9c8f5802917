//! Counts between bounds.

use std::sync::Arc;

/// How many observations lie between which bounds. Not cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    /// One more than bounds: the last is what lies above all of them.
    counts: Vec<u64>,
}

/// A quantile of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// In seconds.
    pub value: f64,
    /// Whether it lies above the highest bound, which `value` is then: all that is known is that it is no less.
    pub at_least: bool,
}

impl Histogram {
    /// Nothing counted yet between the finite, rising `bounds`.
    pub fn empty(bounds: Arc<[f64]>) -> Self {
        let counts = vec![0; bounds.len() + 1];
        Self { bounds, counts }
    }

    /// The upper bounds of all buckets but the last.
    pub fn bounds(&self) -> &Arc<[f64]> {
        &self.bounds
    }

    /// Counts `more` in the bucket at `index`; what has no bucket is in the highest.
    pub fn count_in(&mut self, index: usize, more: u64) {
        let last = self.bounds.len();
        let count = &mut self.counts[index.min(last)];
        *count = count.saturating_add(more);
    }

    /// Observations in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether `bounds` are its own.
    pub fn has_bounds(&self, bounds: &Arc<[f64]>) -> bool {
        Arc::ptr_eq(&self.bounds, bounds) || self.bounds == *bounds
    }

    /// Adds the observations of `other`, if it has the same bounds; whether it has.
    pub fn merge(&mut self, other: &Self) -> bool {
        let same = self.has_bounds(&other.bounds);
        if same {
            for (index, more) in other.counts.iter().enumerate() {
                self.count_in(index, *more);
            }
        }
        same
    }

    /// The value that the share `quantile` (above 0, below 1) of the observations does not exceed, as if those of one bucket were
    /// spread evenly over it; the first bucket begins at 0. None without observations.
    pub fn quantile(&self, quantile: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = quantile * count as f64;
        let mut below = 0.0;
        let mut lower = 0.0_f64;
        for (bound, inside) in self.bounds.iter().zip(&self.counts) {
            let inside = *inside as f64;
            if inside > 0.0 && below + inside >= rank {
                let lower = lower.min(*bound);
                return Some(Quantile { value: lower + (bound - lower) * ((rank - below) / inside), at_least: false });
            }
            below += inside;
            lower = *bound;
        }
        Some(Quantile { value: lower, at_least: true })
    }
}

/// Histograms by their bounds: those of equal bounds are one, others stay apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ByBounds(pub(crate) Vec<Histogram>);

impl ByBounds {
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        if !self.0.iter_mut().any(|known| known.merge(histogram)) {
            self.0.push(histogram.clone());
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, histogram| sum.saturating_add(histogram.count()))
    }

    /// The quantile over all. Of histograms of different bounds the highest answer counts, of those with at least `least`
    /// observations: the quantile of all together cannot be above it, and none of them is late without being heard.
    pub(crate) fn quantile(&self, quantile: f64, least: u64) -> Option<Quantile> {
        let enough = self.0.iter().filter(|histogram| histogram.count() >= least.max(1));
        enough.filter_map(|histogram| histogram.quantile(quantile)).max_by(|one, other| one.value.total_cmp(&other.value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds() -> Arc<[f64]> {
        [0.1, 0.25, 0.5, 1.0, 2.5].into()
    }

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::empty(bounds());
        for value in values {
            histogram.count_in(bounds().partition_point(|bound| bound < value), 1);
        }
        histogram
    }

    /// The smallest of `values` that the share `quantile` of them does not exceed.
    fn exact(values: &[f64], quantile: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[((quantile * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
    }

    #[test]
    fn observations_are_spread_evenly_over_their_bucket() {
        let ten = of(&[0.3; 10]);
        assert_eq!(ten.quantile(0.5), Some(Quantile { value: 0.375, at_least: false }));
        assert_eq!(of(&[0.01; 4]).quantile(0.5).map(|found| found.value), Some(0.05), "the first bucket begins at 0");
        assert_eq!(of(&[]).quantile(0.5), None);
    }

    #[test]
    fn above_the_highest_bound_it_is_at_least_that() {
        assert_eq!(of(&[9.0; 10]).quantile(0.9), Some(Quantile { value: 2.5, at_least: true }));
    }

    #[test]
    fn other_bounds_are_never_merged_and_the_slower_ones_are_heard() {
        let mut coarse = Histogram::empty([1.0, 8.0].into());
        coarse.count_in(1, 20);
        let mut all = ByBounds::default();
        [of(&[0.3; 10]), coarse.clone(), of(&[0.2; 10])].iter().for_each(|histogram| all.add(histogram));
        assert_eq!((all.0.len(), all.count()), (2, 40));
        assert_eq!(all.quantile(0.5, 10), coarse.quantile(0.5));
        assert_eq!(all.quantile(0.5, 21), None);
    }

    proptest! {
        #[test]
        fn the_exact_quantile_lies_in_the_same_bucket(
            values in prop::collection::vec(0.001..4.0_f64, 1..200), quantile in 0.01..0.99_f64,
        ) {
            let found = of(&values).quantile(quantile).unwrap();
            let exact = exact(&values, quantile);
            let bounds = bounds();
            let place = bounds.partition_point(|bound| *bound < exact);
            let lower = if place == 0 { 0.0 } else { bounds[place - 1] };
            match bounds.get(place) {
                Some(upper) => prop_assert!(!found.at_least && (lower..=*upper).contains(&found.value), "{found:?} {exact}"),
                None => prop_assert_eq!(found, Quantile { value: lower, at_least: true }),
            }
        }

        #[test]
        fn merging_is_counting_all_at_once(
            one in prop::collection::vec(0.001..4.0_f64, 0..50), other in prop::collection::vec(0.001..4.0_f64, 0..50),
        ) {
            let mut merged = of(&one);
            prop_assert!(merged.merge(&of(&other)));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }
    }
}
