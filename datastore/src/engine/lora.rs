//! Which LoRA adapters a vLLM server uses.

use std::sync::Arc;

use crate::load::LoraLoad;
use crate::page::Sample;

/// How far in the future a value may lie before it cannot be a time of this server.
const FUTURE_SECONDS: f64 = 3600.0;

/// Finds the newest of the info series. The value of `vllm:lora_requests_info` is the wall-clock time of its last update and old
/// combinations never leave the page. With several API processes the values are *summed*, and such a sum beats every real time:
/// values from the future are passed over while any other is left.
pub(super) struct NewestLora {
    latest_credible: f64,
    best: Option<(bool, f64, LoraLoad)>,
}

impl NewestLora {
    pub(super) fn new(wall_ms: i64) -> Self {
        Self { latest_credible: wall_ms as f64 / 1000.0 + FUTURE_SECONDS, best: None }
    }

    pub(super) fn add(&mut self, sample: &Sample<'_>) {
        let credible = sample.value <= self.latest_credible;
        let newer = match &self.best {
            None => true,
            // Of equal times the first on the page counts.
            Some((best_credible, best, _)) => (credible, sample.value) > (*best_credible, *best),
        };
        if newer {
            let adapters = |label| sample.labels.get(label).map_or_else(Vec::new, |names| split(&names));
            let load = LoraLoad {
                max: sample.labels.get("max_lora").and_then(|max| max.parse().ok()),
                running: adapters("running_lora_adapters"),
                waiting: adapters("waiting_lora_adapters"),
            };
            self.best = Some((credible, sample.value, load));
        }
    }

    pub(super) fn finish(self) -> Option<LoraLoad> {
        self.best.map(|(_, _, load)| load)
    }
}

fn split(names: &str) -> Vec<Arc<str>> {
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Arc::from).collect()
}
