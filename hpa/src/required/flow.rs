//! From counters to what happened since the last turn.

use std::collections::HashMap;
use std::time::Duration;

use super::constants::GAP_SECONDS;
use super::input::{Endpoint, Load, Picker};

/// An endpoint that became ready this recently started from nothing.
const JUST_STARTED: Duration = Duration::from_secs(5);

/// What happened since the last turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow {
    /// Seconds since then.
    pub(super) seconds: f64,
    /// Whether that was too long to learn from.
    pub(super) gap: bool,
    /// Requests that arrived, where it can be told.
    pub(super) arrivals: Option<f64>,
    /// The same by requests that ended, and what runs and waits: for servers that do not count first tokens.
    pub(super) ended: Option<f64>,
    /// Their prompt tokens, and the requests these belong to.
    pub(super) prompts: Option<(f64, f64)>,
    /// Whether arrivals are the pickers' own count.
    pub(super) counted: bool,
    /// Tokens generated.
    pub(super) generated: f64,
    /// Requests that ended, half of the change of those running included; `None` without such a counter.
    pub(super) answers: Option<f64>,
    /// Readable endpoints.
    pub(super) endpoints: Vec<EndpointFlow>,
}

/// One endpoint's share.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointFlow {
    pub(super) id: u64,
    pub(super) ready_for: Duration,
    pub(super) load: Load,
    /// Prompt tokens computed since the last turn; `None` at first sight or without the counter.
    pub(super) prompt: Option<f64>,
    /// Tokens generated since then.
    pub(super) generated: Option<f64>,
}

/// Remembers the last counters of pickers and endpoints; as many as the last turn had.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    last: Option<Duration>,
    pickers: HashMap<u64, Picker>,
    endpoints: HashMap<u64, Load>,
}

/// Growth of a counter; a smaller one was restarted and began at 0.
fn growth(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    match (before, now) {
        (Some(before), Some(now)) if now >= before => Some(now - before),
        (Some(_), Some(now)) => Some(now),
        _ => None,
    }
}

impl Counters {
    /// When the last turn was.
    pub(super) fn last_turn(&self) -> Option<Duration> {
        self.last
    }

    /// The differences to the last turn; `None` in the first.
    pub(super) fn advance(&mut self, now: Duration, pickers: &[Picker], endpoints: &[Endpoint]) -> Option<Flow> {
        let last = self.last.replace(now);
        let seconds = last.map(|last| now.saturating_sub(last).as_secs_f64());
        let mut flow = Flow { seconds: seconds.unwrap_or_default(), ..Flow::default() };
        flow.gap = flow.seconds > GAP_SECONDS;
        let from_pickers = self.picked(pickers);
        let from_servers = self.served(endpoints, &mut flow);
        let held_change = self.held_change(pickers);
        flow.counted = from_pickers.is_some();
        flow.arrivals = from_pickers.map(|(arrivals, _)| arrivals);
        if flow.arrivals.is_none() {
            flow.arrivals = from_servers.first.map(|first| first + from_servers.waiting_change + held_change);
        }
        flow.ended = from_servers.ended.map(|ended| ended + from_servers.waiting_change + held_change);
        flow.prompts = match from_pickers {
            Some((arrivals, Some(tokens))) => Some((tokens, arrivals)),
            _ => from_servers.prompt.zip(from_servers.first),
        };
        self.pickers = pickers.iter().map(|picker| (picker.id, *picker)).collect();
        self.endpoints = endpoints.iter().filter_map(|endpoint| Some((endpoint.id, endpoint.load?))).collect();
        seconds.map(|_| flow)
    }

    /// Arrivals and prompt tokens as the pickers count them; `None` unless all do.
    fn picked(&self, pickers: &[Picker]) -> Option<(f64, Option<f64>)> {
        if pickers.is_empty() {
            return None;
        }
        let mut arrivals = 0.0;
        let mut tokens = Some(0.0);
        for picker in pickers {
            picker.arrivals?;
            // A picker seen for the first time may have counted for days.
            let Some(before) = self.pickers.get(&picker.id) else { continue };
            arrivals += growth(before.arrivals, picker.arrivals).unwrap_or_default();
            tokens = match (tokens, picker.prompt_tokens) {
                (Some(tokens), Some(_)) => Some(tokens + growth(before.prompt_tokens, picker.prompt_tokens).unwrap_or_default()),
                _ => None,
            };
        }
        Some((arrivals, tokens))
    }

    fn held_change(&self, pickers: &[Picker]) -> f64 {
        let change = |picker: &Picker| self.pickers.get(&picker.id).map(|before| picker.held - before.held);
        pickers.iter().filter_map(change).sum()
    }

    fn served(&self, endpoints: &[Endpoint], flow: &mut Flow) -> Served {
        let mut served = Served::default();
        let add = |sum: &mut Option<f64>, growth: Option<f64>| {
            if let Some(growth) = growth {
                *sum = Some(sum.unwrap_or_default() + growth);
            }
        };
        let mut completed = None;
        let mut running_change = 0.0;
        for endpoint in endpoints {
            let Some(load) = endpoint.load else { continue };
            let new = endpoint.ready_for <= JUST_STARTED;
            let zero = Load {
                prompt_tokens: Some(0.0),
                generated_tokens: Some(0.0),
                first_tokens: Some(0.0),
                completed: Some(0.0),
                ..Load::default()
            };
            let before = self.endpoints.get(&endpoint.id).copied().or(new.then_some(zero));
            let mut share = EndpointFlow { id: endpoint.id, ready_for: endpoint.ready_for, load, prompt: None, generated: None };
            if let Some(before) = before {
                share.prompt = growth(before.prompt_tokens, load.prompt_tokens);
                share.generated = growth(before.generated_tokens, load.generated_tokens);
                add(&mut served.prompt, share.prompt);
                flow.generated += share.generated.unwrap_or_default();
                add(&mut served.first, growth(before.first_tokens, load.first_tokens));
                add(&mut completed, growth(before.completed, load.completed));
                served.waiting_change += load.waiting - before.waiting;
                running_change += load.running - before.running;
            } else {
                // A pool of one that is seen for the first time did nothing that can be told.
                add(&mut served.first, load.first_tokens.map(|_| 0.0));
            }
            flow.endpoints.push(share);
        }
        flow.answers = completed.map(|completed: f64| completed + running_change / 2.0);
        served.ended = completed.map(|completed: f64| completed + running_change);
        if endpoints.is_empty() {
            // Without servers nothing has a first token: what arrives is held.
            served.first = Some(0.0);
        }
        served
    }
}

#[derive(Debug, Default)]
struct Served {
    prompt: Option<f64>,
    first: Option<f64>,
    ended: Option<f64>,
    waiting_change: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picker(arrivals: Option<f64>, held: f64) -> Picker {
        Picker { id: 1, held, arrivals, prompt_tokens: arrivals.map(|arrivals| arrivals * 100.0) }
    }

    fn endpoint(id: u64, first: f64, waiting: f64) -> Endpoint {
        let load = Load {
            waiting,
            running: 10.0,
            first_tokens: Some(first),
            completed: Some(first),
            prompt_tokens: Some(first * 50.0),
            generated_tokens: Some(first * 200.0),
            kv: 0.1,
        };
        Endpoint { id, ready_for: Duration::from_secs(100), load: Some(load) }
    }

    #[test]
    fn a_restarted_counter_began_at_nothing() {
        assert_eq!(growth(Some(10.0), Some(12.0)), Some(2.0));
        assert_eq!(growth(Some(10.0), Some(3.0)), Some(3.0));
        assert_eq!(growth(None, Some(3.0)), None);
        assert_eq!(growth(Some(3.0), None), None);
    }

    #[test]
    fn pickers_count_arrivals_and_servers_only_where_none_does() {
        let mut counters = Counters::default();
        assert!(counters.advance(Duration::from_secs(1), &[picker(Some(1000.0), 0.0)], &[endpoint(1, 500.0, 0.0)]).is_none());
        let flow = counters.advance(Duration::from_secs(2), &[picker(Some(1007.0), 0.0)], &[endpoint(1, 505.0, 2.0)]).unwrap();
        assert_eq!((flow.arrivals, flow.counted, flow.prompts), (Some(7.0), true, Some((700.0, 7.0))));
        assert_eq!((flow.generated, flow.answers), (1000.0, Some(5.0)));
        let flow = counters.advance(Duration::from_secs(3), &[picker(None, 0.0)], &[endpoint(1, 510.0, 3.0)]).unwrap();
        assert_eq!((flow.arrivals, flow.counted, flow.prompts), (Some(6.0), false, Some((250.0, 5.0))));
    }

    #[test]
    fn an_emptied_hold_is_no_arrival() {
        let mut counters = Counters::default();
        counters.advance(Duration::from_secs(1), &[picker(None, 40.0)], &[]);
        let new = Endpoint { ready_for: Duration::from_secs(1), ..endpoint(5, 0.0, 40.0) };
        let flow = counters.advance(Duration::from_secs(2), &[picker(None, 0.0)], &[new]).unwrap();
        assert_eq!(flow.arrivals, Some(0.0));
    }

    #[test]
    fn a_long_pause_is_a_gap() {
        let mut counters = Counters::default();
        counters.advance(Duration::from_secs(1), &[], &[]);
        assert!(!counters.advance(Duration::from_secs(4), &[], &[]).unwrap().gap);
        assert!(counters.advance(Duration::from_secs(8), &[], &[]).unwrap().gap);
    }
}
