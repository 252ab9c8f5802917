//! Latencies, token rates and the prompts that wait, over a pool.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::PoolSnapshot;
use crate::latency::{
    ByBounds, COUNTS_FOR, EndpointLatencies, Latency, MOST_MODELS, PickerLatencies, Quantile, TokenRates, WINDOW, least_requests,
};
use crate::measurement::{Measured, Measurement, Unknown};
use crate::store::slo::counts;

impl PoolSnapshot {
    /// The same, with latencies of the requests for `model` alone.
    ///
    /// Label selectors of Kubernetes cannot name every model: what a label value must not have may be written as `_`.
    #[must_use]
    pub fn for_model(mut self, model: &str) -> Self {
        let wanted = self.models().into_iter().find(|known| **known == *model || as_label(known) == model);
        self.model = Some(wanted.unwrap_or_else(|| model.into()));
        self
    }

    /// From now on latencies of the requests for `model` alone, one of [`Self::models`]; none: of all.
    pub fn set_model(&mut self, model: Option<Arc<str>>) {
        self.model = model;
    }

    /// The models that latencies are known of, at most 32.
    pub fn models(&self) -> Vec<Arc<str>> {
        let told = self.pickers_measured().flat_map(|(_, told)| told.models.iter().map(|found| &found.model));
        let read = self.endpoint_latencies().flat_map(|(_, found)| found.models().cloned().collect::<Vec<_>>());
        let named: BTreeSet<Arc<str>> = told.cloned().chain(read).filter(|model| !model.is_empty()).collect();
        named.into_iter().take(MOST_MODELS).collect()
    }

    /// What pickers measured and told lately.
    pub fn pickers_measured(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<PickerLatencies>)> {
        self.measured.iter().filter(|(_, told)| counts(told, self.taken_at))
    }

    /// The time that the share `quantile` of the last minute's requests did not exceed.
    ///
    /// By the pickers that measure their requests themselves, whatever endpoints a selector chose; where there are none, by the
    /// histograms of the endpoints. Zero where there are no endpoints and nothing is held, and where the pool was idle for the
    /// whole minute: nobody waited.
    ///
    /// # Errors
    /// [`Unknown`] where nothing is measured, or too few requests were.
    pub fn latency(&self, signal: Latency, quantile: f64) -> Result<(Quantile, Instant), Unknown> {
        let what = signal.words();
        let mut all = ByBounds::default();
        let mut as_of = self.taken_at;
        let mut sources = 0;
        for (_, told) in self.pickers_measured() {
            told.add_to(&mut all, signal, self.model.as_deref());
            (as_of, sources) = (as_of.min(told.as_of), sources + 1);
        }
        if sources == 0 {
            for (read_at, found) in self.endpoint_latencies() {
                found.add_to(&mut all, signal, self.model.as_deref());
                (as_of, sources) = (as_of.min(read_at), sources + 1);
            }
        }
        let seen = all.count();
        let least = least_requests(quantile);
        match all.quantile(quantile, least) {
            Some(found) => Ok((found, as_of)),
            None if seen == 0 && self.nobody_waited() => Ok((Quantile { value: 0.0, at_least: false }, self.taken_at)),
            None if sources == 0 => Err(self.nothing_fresh_of_some().unwrap_or(Unknown::NotMeasured { what })),
            None if seen == 0 && all.0.is_empty() && self.model.is_none() && self.pickers_measured().next().is_none() => {
                Err(Unknown::NotMeasured { what })
            }
            None => Err(Unknown::TooFewRequests { what, seen, least }),
        }
    }

    /// [`Self::latency`] as a value.
    pub fn latency_seconds(&self, signal: Latency, quantile: f64) -> Measurement {
        self.latency(signal, quantile).map(|(found, as_of)| Measured { value: found.value, as_of })
    }

    /// Prompt tokens a second that the pool's servers were given in the last minute. No endpoints: 0.
    pub fn prompt_tokens_per_second(&self) -> Measurement {
        self.token_rate("prompt token rate", |rates| rates.prompt)
    }

    /// Tokens a second that the pool's servers generated in the last minute. No endpoints: 0.
    pub fn generation_tokens_per_second(&self) -> Measurement {
        self.token_rate("generated token rate", |rates| rates.generation)
    }

    /// Prompt tokens of the requests that wait, in servers and pickers: as many requests, times the mean length of a prompt in the
    /// last minute.
    ///
    /// # Errors
    /// [`Unknown`] where the number of requests is, or requests wait and fewer than 10 prompts were seen.
    pub fn prefill_backlog_tokens(&self) -> Measurement {
        let waiting = self.total_queue_size()?;
        if waiting.value <= 0.0 {
            return Ok(waiting);
        }
        let length = self.mean_prompt_tokens()?;
        Ok(Measured { value: waiting.value * length.value, as_of: waiting.as_of.min(length.as_of) })
    }

    /// The time that the pool would take to read the prompts that wait, at the rate at which its servers read prompts while requests
    /// waited for them: the mean of those of which it is known, for every ready one.
    ///
    /// # Errors
    /// [`Unknown`] where the backlog is, or requests wait and no server showed its rate.
    pub fn prefill_backlog_seconds(&self) -> Measurement {
        let backlog = self.prefill_backlog_tokens()?;
        if backlog.value <= 0.0 {
            return Ok(backlog);
        }
        let busy: Vec<_> = self.token_rates().filter_map(|rates| Some((rates.as_of?, rates.busy_prompt?))).collect();
        let mean = busy.iter().map(|(_, rate)| rate).sum::<f64>() / busy.len().max(1) as f64;
        let rate = mean * self.coverage.ready() as f64;
        if rate <= 0.0 {
            return Err(Unknown::NeverBusy);
        }
        let as_of = busy.iter().map(|(as_of, _)| *as_of).fold(backlog.as_of, Instant::min);
        Ok(Measured { value: backlog.value / rate, as_of })
    }

    /// Whether there was no request that could have waited.
    fn nobody_waited(&self) -> bool {
        let nothing_held = self.held.as_ref().map_or(!self.held_counts, |held| held.value <= 0.0);
        if self.coverage.present() == 0 {
            return nothing_held;
        }
        nothing_held && self.coverage.fresh > 0 && self.idle_seconds().is_ok_and(|idle| idle.value >= WINDOW.as_secs_f64())
    }

    fn nothing_fresh_of_some(&self) -> Option<Unknown> {
        (self.coverage.present() > 0).then(|| self.nothing_fresh()).flatten()
    }

    fn endpoint_latencies(&self) -> impl Iterator<Item = (Instant, Arc<EndpointLatencies>)> {
        self.endpoints.iter().filter_map(|view| {
            let found = view.endpoint.slo.latencies.load_full()?;
            let as_of = found.as_of.filter(|as_of| self.taken_at.saturating_duration_since(*as_of) <= COUNTS_FOR)?;
            Some((as_of, found))
        })
    }

    /// Of the endpoints that count.
    fn token_rates(&self) -> impl Iterator<Item = Arc<TokenRates>> {
        self.endpoints.iter().filter(|view| view.fresh_load().is_some()).filter_map(|view| view.endpoint.slo.tokens.load_full())
    }

    fn token_rate(&self, what: &'static str, rate: impl Fn(&TokenRates) -> Option<f64>) -> Measurement {
        if self.coverage.present() == 0 {
            return Ok(self.zero());
        }
        if let Some(unknown) = self.nothing_fresh() {
            return Err(unknown);
        }
        let known: Vec<_> = self.token_rates().filter_map(|rates| Some((rates.as_of?, rate(&rates)?))).collect();
        let ready = self.coverage.ready();
        let Some(as_of) = known.iter().map(|(as_of, _)| *as_of).min() else { return Err(Unknown::NotMeasured { what }) };
        if 2 * known.len() < ready {
            return Err(Unknown::BelowHalf { fresh: known.len(), ready, problem: self.problem() });
        }
        let mean = known.iter().map(|(_, rate)| rate).sum::<f64>() / known.len() as f64;
        Ok(Measured { value: mean * ready as f64, as_of })
    }

    fn mean_prompt_tokens(&self) -> Measurement {
        const WHAT: &str = "prompt length";
        let least = least_requests(0.5);
        let enough = |prompts: f64, tokens: f64, as_of| match prompts >= least as f64 {
            true => Ok(Measured { value: tokens / prompts, as_of }),
            false => Err(Unknown::TooFewRequests { what: WHAT, seen: prompts as u64, least }),
        };
        let mut told = None;
        for (_, one) in self.pickers_measured() {
            let (prompts, tokens, as_of) = told.get_or_insert((0.0, 0.0, one.as_of));
            *prompts += one.models.iter().map(|model| model.prompts as f64).sum::<f64>();
            *tokens += one.models.iter().map(|model| model.prompt_tokens as f64).sum::<f64>();
            *as_of = one.as_of.min(*as_of);
        }
        if let Some((prompts, tokens, as_of)) = told {
            return enough(prompts, tokens, as_of);
        }
        // Two windows of about the same minute: a rate through a rate.
        let (mut prompts, mut tokens, mut oldest) = (0.0, 0.0, None::<Instant>);
        for view in &self.endpoints {
            let (Some(found), Some(rates)) = (view.endpoint.slo.latencies.load_full(), view.endpoint.slo.tokens.load_full()) else {
                continue;
            };
            let fresh =
                |as_of: Option<Instant>| as_of.filter(|as_of| self.taken_at.saturating_duration_since(*as_of) <= COUNTS_FOR);
            if let (Some(read_at), Some(_), Some(rate)) = (fresh(found.as_of), fresh(rates.as_of), rates.prompt) {
                let of = |signal| {
                    let mut all = ByBounds::default();
                    found.add_to(&mut all, signal, None);
                    all.count()
                };
                // Of SGLang only streaming requests have a first token; of a growing load fewer have ended than begun.
                prompts += of(Latency::TimeToFirstToken).max(of(Latency::EndToEnd)) as f64;
                tokens += rate * found.seconds;
                oldest = Some(oldest.map_or(read_at, |oldest| oldest.min(read_at)));
            }
        }
        enough(prompts, tokens, oldest.ok_or(Unknown::NotMeasured { what: WHAT })?)
    }
}

/// `model` with `_` for what the value of a label must not have.
fn as_label(model: &str) -> String {
    model.chars().map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' }).collect()
}

#[cfg(test)]
#[path = "slo_tests.rs"]
mod tests;
