//! A histogram with fixed bounds, and the bounds each engine uses.

use std::sync::Arc;

/// Counts per bucket, their number and their sum.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    /// One count per bound and one above the last; not cumulative.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty histogram; `bounds` are the upper bounds in rising order, without `+Inf`.
    pub fn new(bounds: &Arc<[f64]>) -> Self {
        Self { bounds: Arc::clone(bounds), counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts one value.
    pub fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the counted values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Upper bounds with cumulative counts; the last is `+Inf` with [`Self::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        }))
    }

    /// Both histograms together; they must have the same bounds (both come from one [`Bounds`]).
    pub fn merged(&self, other: &Self) -> Self {
        debug_assert_eq!(self.bounds, other.bounds);
        let counts = self.counts.iter().zip(&other.counts).map(|(a, b)| a + b).collect();
        Self { bounds: Arc::clone(&self.bounds), counts, sum: self.sum + other.sum }
    }
}

/// The bucket bounds of one engine's page, by what is measured.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Seconds to the first token.
    pub time_to_first_token: Arc<[f64]>,
    /// Seconds between two tokens, and mean seconds per token of a request.
    pub inter_token: Arc<[f64]>,
    /// Seconds from arrival to end.
    pub request: Arc<[f64]>,
    /// Seconds waiting.
    pub queue: Arc<[f64]>,
    /// Seconds from first scheduling to the first token.
    pub prefill: Arc<[f64]>,
    /// Tokens of a prompt or an output.
    pub tokens: Arc<[f64]>,
    /// Prompt tokens found in the prefix cache.
    pub cached_tokens: Arc<[f64]>,
    /// Tokens computed in one step.
    pub iteration_tokens: Arc<[f64]>,
    /// The `n` parameter.
    pub choices: Arc<[f64]>,
    /// SGLang's page: a request that does not stream reports its end as its first token.
    pub blocking_first_token_is_end: bool,
}

const TIME_TO_FIRST_TOKEN: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0,
    2560.0,
];
const INTER_TOKEN: [f64; 19] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const REQUEST: [f64; 21] =
    [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0];
const TRTLLM_PREFILL: [f64; 18] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0];
const TRTLLM_CACHED_TOKENS: [f64; 9] = [0.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
const ITERATION_TOKENS: [f64; 13] = [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const CHOICES: [f64; 5] = [1.0, 2.0, 5.0, 10.0, 20.0];
/// Also the first bounds of SGLang's end-to-end histogram.
const SGLANG_FIRST_TOKEN: [f64; 18] =
    [0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0];
const SGLANG_REQUEST_REST: [f64; 4] = [600.0, 1200.0, 1800.0, 2400.0];
const SGLANG_INTER_TOKEN: [f64; 23] = [
    0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0,
    6.0, 8.0,
];
const SGLANG_QUEUE: [f64; 40] = [
    0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0,
    90.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0, 1000.0, 1200.0, 1400.0, 1600.0, 1800.0, 2000.0, 2500.0,
    3000.0,
];
const SGLANG_TOKENS: [f64; 35] = [
    100.0, 300.0, 500.0, 700.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 7000.0, 8000.0, 9000.0, 10000.0, 12500.0,
    15000.0, 17500.0, 20000.0, 22500.0, 25000.0, 27500.0, 30000.0, 35000.0, 40000.0, 60000.0, 80000.0, 100000.0, 200000.0,
    300000.0, 400000.0, 600000.0, 800000.0, 1000000.0, 1100000.0,
];

impl Bounds {
    /// vLLM 0.29; token bounds follow 1-2-5 up to the model's length.
    pub fn vllm(max_model_len: u32) -> Self {
        Self {
            time_to_first_token: Arc::from(TIME_TO_FIRST_TOKEN),
            inter_token: Arc::from(INTER_TOKEN),
            request: Arc::from(REQUEST),
            queue: Arc::from(REQUEST),
            prefill: Arc::from(REQUEST),
            tokens: one_two_five(max_model_len),
            cached_tokens: Arc::from(TRTLLM_CACHED_TOKENS),
            iteration_tokens: Arc::from(ITERATION_TOKENS),
            choices: Arc::from(CHOICES),
            blocking_first_token_is_end: false,
        }
    }

    /// SGLang 0.5.20's defaults.
    pub fn sglang(max_model_len: u32) -> Self {
        let request: Vec<f64> = SGLANG_FIRST_TOKEN.into_iter().chain(SGLANG_REQUEST_REST).collect();
        Self {
            time_to_first_token: Arc::from(SGLANG_FIRST_TOKEN),
            inter_token: Arc::from(SGLANG_INTER_TOKEN),
            request: Arc::from(request),
            queue: Arc::from(SGLANG_QUEUE),
            tokens: Arc::from(SGLANG_TOKENS),
            blocking_first_token_is_end: true,
            ..Self::vllm(max_model_len)
        }
    }

    /// TensorRT-LLM 1.2: vLLM's but for prefill.
    pub fn trtllm(max_model_len: u32) -> Self {
        Self { prefill: Arc::from(TRTLLM_PREFILL), ..Self::vllm(max_model_len) }
    }
}

/// 1, 2, 5, 10, 20, 50 ... up to `last`.
fn one_two_five(last: u32) -> Arc<[f64]> {
    let decades = (0..10).map(|exponent| 10f64.powi(exponent));
    decades
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|mantissa| mantissa * decade))
        .take_while(|bound| *bound <= f64::from(last))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_it() {
        let mut histogram = Histogram::new(&Arc::from([1.0, 2.0]));
        for value in [1.0, 1.5, 2.0, 9.0] {
            histogram.observe(value);
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets, [(1.0, 1), (2.0, 3), (f64::INFINITY, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 13.5));
        assert_eq!(histogram.merged(&histogram).count(), 8);
    }

    #[test]
    fn bounds_rise_and_follow_the_model_length() {
        for bounds in [Bounds::vllm(8192), Bounds::sglang(8192), Bounds::trtllm(8192)] {
            for set in
                [&bounds.time_to_first_token, &bounds.inter_token, &bounds.request, &bounds.queue, &bounds.prefill, &bounds.tokens]
            {
                assert!(set.is_sorted_by(|a, b| a < b), "{set:?}");
            }
        }
        assert_eq!(Bounds::vllm(8192).tokens.last(), Some(&5000.0));
        assert_eq!(one_two_five(u32::MAX).last(), Some(&2e9));
    }
}
