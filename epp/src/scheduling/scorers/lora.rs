//! `lora-affinity-scorer`

use weir_datastore::LoraLoad;

use crate::scheduling::{Candidate, SchedulingRequest, Scorer};

/// Prefers servers that have the request's adapter: 1 where it is active, 0.8 where there is room for one more, 0.6 where requests
/// wait for it already, else 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoraAffinityScorer;

impl Scorer for LoraAffinityScorer {
    fn score(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>], scores: &mut [Option<f64>]) {
        for (score, candidate) in scores.iter_mut().zip(candidates) {
            *score = candidate.load.map(|load| load.lora().map_or(0.0, |lora| affinity(lora, request.target_model)));
        }
    }
}

fn affinity(lora: &LoraLoad, model: Option<&str>) -> f64 {
    let among = |adapters: &[std::sync::Arc<str>]| model.is_some_and(|model| adapters.iter().any(|adapter| **adapter == *model));
    if among(&lora.running) {
        1.0
    } else if ((lora.running.len() + lora.waiting.len()) as u64) < lora.max.unwrap_or(0) {
        0.8
    } else if among(&lora.waiting) {
        0.6
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling::testing::{Loads, scores};

    #[test]
    fn the_four_steps() {
        let lora = |max, running: &[&str], waiting: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
            Some(LoraLoad { max, running: names(running), waiting: names(waiting) })
        };
        let mut loads = Loads::waiting(&[0.0; 6]);
        loads.pages[0].lora = lora(Some(1), &["target"], &[]);
        loads.pages[1].lora = lora(Some(2), &["other"], &[]);
        loads.pages[2].lora = lora(Some(2), &["other"], &["target"]);
        loads.pages[3].lora = lora(Some(1), &["other"], &[]);
        loads.pages[4].lora = lora(None, &[], &[]);
        loads.pages[5].lora = None;
        let expected = [Some(1.0), Some(0.8), Some(0.6), Some(0.0), Some(0.0), Some(0.0)];
        assert_eq!(scores(&LoraAffinityScorer, &loads), expected);
    }
}
