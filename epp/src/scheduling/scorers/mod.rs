//! Scorers, one file each; formulas are those of the Gateway API Inference Extension v1.5.0 and of llm-d's router.

mod active_request;
mod context_length;

/// The scorer that `docs/plugins.md` shows how to write.
#[cfg(test)]
pub mod example_label;
mod header_label;
mod kv_cache;
mod latency;
mod load_aware;
mod lora;
mod no_hit_lru;
mod prefix;
mod queue;
mod running;
mod session_affinity;
mod token_load;
mod topology;

pub use active_request::ActiveRequestScorer;
pub use context_length::ContextLengthAware;
pub use header_label::HeaderLabelScorer;
pub use kv_cache::KvCacheUtilizationScorer;
pub use latency::LatencyScorer;
pub use load_aware::LoadAwareScorer;
pub use lora::LoraAffinityScorer;
pub use no_hit_lru::NoHitLruScorer;
pub use prefix::PrefixCacheScorer;
pub use queue::QueueScorer;
pub use running::RunningRequestsScorer;
pub use session_affinity::SessionAffinityScorer;
pub use token_load::TokenLoadScorer;
pub use topology::TopologyScorer;

use super::candidate::{Candidate, Load};

/// The least of a signal among the candidates is 1, the most is 0; 1 for all where all are equal.
fn least_is_best(candidates: &[Candidate<'_>], scores: &mut [Option<f64>], signal: impl Fn(&Load<'_>) -> Option<f64>) {
    let of = |candidate: &Candidate<'_>| candidate.load.as_ref().and_then(&signal);
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in candidates.iter().filter_map(of) {
        (least, most) = (least.min(value), most.max(value));
    }
    for (score, candidate) in scores.iter_mut().zip(candidates) {
        *score = of(candidate).map(|value| if most > least { (most - value) / (most - least) } else { 1.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::example_label::ExampleLabelScorer;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_scorer_of_the_documentation_is_this_one_and_works() {
        let documentation = include_str!("../../../../docs/plugins.md");
        assert!(documentation.contains(include_str!("example_label.rs")));
        let mut loads = Loads::waiting(&[0.0]);
        assert_eq!(scores(&ExampleLabelScorer, &loads), [Some(0.0)]);
        loads.labels[0].insert("tier".to_owned(), "fast".to_owned());
        assert_eq!(scores(&ExampleLabelScorer, &loads), [Some(1.0)]);
    }
}
