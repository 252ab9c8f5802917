//! A request that was placed, until it has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use weir_datastore::SeenStart;
use weir_datastore::latency::Latency;

use super::Shared;
use super::prompts::prompt_bytes;
use super::roster::State;
use crate::inference::{Failure, InferenceRequest, Ticket, Usage};
use crate::metrics::ModelMetrics;
use crate::scheduling::{Evidence, Stage};

/// The first status that says that the model server failed the request.
const FIRST_ERROR: u16 = 400;
/// The first status that says that the server, not the request, is at fault.
const FIRST_SERVER_ERROR: u16 = 500;

/// A stage of the request, in flight at one endpoint; when dropped, it has ended.
pub(super) struct Charge {
    state: Arc<State>,
    stage: Stage,
    tokens: u64,
    /// Whether it still counts.
    counts: bool,
}

impl Charge {
    pub(super) fn new(state: Arc<State>, tokens: u64, stage: Stage, now: Instant) -> Self {
        state.in_flight.began(now);
        state.tokens.fetch_add(tokens, Ordering::Relaxed);
        Self { state, stage, tokens, counts: true }
    }

    /// It has ended.
    fn end(&mut self, now: Instant) {
        self.release_tokens();
        if std::mem::take(&mut self.counts) {
            self.state.in_flight.ended(now);
        }
    }

    /// The server has read its tokens.
    fn release_tokens(&mut self) {
        self.state.tokens.fetch_sub(std::mem::take(&mut self.tokens), Ordering::Relaxed);
    }

    /// It goes on at another endpoint.
    fn moved(&mut self, state: &Arc<State>, now: Instant) {
        let tokens = self.tokens;
        self.end(now);
        *self = Self::new(state.clone(), tokens, self.stage, now);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.end(Instant::now());
    }
}

/// Where the stages of a request are in flight.
pub(super) struct Stages {
    /// Where it was sent.
    pub(super) charge: Charge,
    /// The other stages of it.
    pub(super) others: Vec<Charge>,
    /// What the gateway was told in place of endpoints' own addresses.
    pub(super) aliases: Vec<(SocketAddr, Arc<State>)>,
    /// Whether its tokens count only until the first one of the answer.
    pub(super) until_first_token: bool,
}

impl Stages {
    /// The answer begins: what prefilled is done, and prompts are read.
    fn answer_begins(&mut self) {
        self.others.retain(|other| other.stage != Stage::Prefill);
        if self.until_first_token {
            self.others.iter_mut().chain([&mut self.charge]).for_each(Charge::release_tokens);
        }
    }
}

/// Counts the request as in flight where it was sent; when dropped, it has ended.
pub(super) struct Placed {
    shared: Arc<Shared>,
    stages: Stages,
    /// Whether this request shows whether the ejected endpoint is back.
    tries: bool,
    model: Arc<ModelMetrics>,
    received: Instant,
    /// The start of the endpoint's pod, where this is the first stream there, and when it was placed.
    first_there: Option<(Arc<SeenStart>, Instant)>,
    status: Option<u16>,
    bytes: usize,
    /// None where no stream was asked for.
    streamed: Option<Streamed>,
    usage: Option<Usage>,
    prompt_bytes: usize,
    completed: bool,
}

/// When the pieces of a streamed answer came.
#[derive(Clone, Copy, Debug, Default)]
struct Streamed {
    pieces: u64,
    first_and_last: Option<(Instant, Instant)>,
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Placed")
            .field("endpoint", &self.stages.charge.state.address)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Placed {
    pub(super) fn new(
        shared: Arc<Shared>,
        stages: Stages,
        model: Arc<ModelMetrics>,
        request: &InferenceRequest,
        now: Instant,
    ) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let tries = stages.charge.state.health.chosen();
        let received = request.received;
        model.measured(Latency::Queue, now.saturating_duration_since(received));
        let streamed = request.streaming.then(Streamed::default);
        let start = stages.charge.state.start.as_ref().filter(|start| request.streaming && start.is_first());
        let first_there = start.map(|start| (start.clone(), now));
        Self {
            shared,
            stages,
            tries,
            model,
            received,
            first_there,
            status: None,
            bytes: 0,
            streamed,
            usage: None,
            prompt_bytes: prompt_bytes(request),
            completed: false,
        }
    }

    /// Nobody is to be tried any more.
    fn tried(&mut self) {
        if std::mem::take(&mut self.tries) {
            self.stages.charge.state.health.tried();
        }
    }
}

impl Ticket for Placed {
    fn served_name(&self) -> Option<Arc<str>> {
        Some(self.stages.charge.state.name.clone())
    }

    fn served_by(&mut self, endpoint: SocketAddr) {
        let roster = self.shared.roster.load();
        let alias = self.stages.aliases.iter().find(|(told, _)| *told == endpoint).map(|(_, state)| state.clone());
        let Some(state) = alias.or_else(|| roster.at(endpoint).cloned()) else {
            self.shared.metrics.unknown_served.inc();
            return;
        };
        if Arc::ptr_eq(&state, &self.stages.charge.state) {
            return;
        }
        self.first_there = None;
        let now = Instant::now();
        self.shared.showed(&self.stages.charge.state, Evidence::PassedOver, now);
        self.tried();
        self.stages.charge.moved(&state, now);
    }

    fn response_started(&mut self, status: u16, at: Instant) {
        if self.status.replace(status).is_none() {
            let evidence = if status < FIRST_SERVER_ERROR { Evidence::Answered } else { Evidence::ServerError };
            self.shared.showed(&self.stages.charge.state, evidence, at);
        }
    }

    fn gateway_answered(&mut self, status: u16, why: Failure, at: Instant) {
        if self.status.replace(status).is_none() {
            match why {
                Failure::Unreached => self.shared.showed(&self.stages.charge.state, Evidence::Unreached, at),
                Failure::TimedOut => self.shared.showed(&self.stages.charge.state, Evidence::NoAnswer, at),
                Failure::Elsewhere => {}
            }
        }
    }

    fn response_bytes(&mut self, bytes: usize, at: Instant) {
        if self.bytes == 0 && bytes > 0 {
            self.stages.answer_begins();
        }
        self.bytes = self.bytes.saturating_add(bytes);
        // What comes with an error is no token.
        let Some(streamed) = self.streamed.as_mut().filter(|_| self.status.is_some_and(|status| status < FIRST_ERROR)) else {
            return;
        };
        let first = match streamed.first_and_last {
            None => {
                if let Some((start, placed)) = self.first_there.take() {
                    start.first_token(at.saturating_duration_since(placed));
                }
                self.model.first_bytes(at.saturating_duration_since(self.received));
                at
            }
            Some((first, last)) => {
                self.model.further_bytes(at.saturating_duration_since(last));
                first
            }
        };
        streamed.first_and_last = Some((first, at));
        streamed.pieces += 1;
    }

    fn usage(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    fn completed(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.completed, true) {
            self.model.completed(at.saturating_duration_since(self.received), self.bytes, self.usage);
            // An error that comes at once is not a fast answer.
            if self.status.is_some_and(|status| status < FIRST_ERROR) {
                self.model.measured(Latency::EndToEnd, at.saturating_duration_since(self.received));
            }
            if let Some(Streamed { pieces, first_and_last: Some((first, last)) }) = self.streamed {
                // Without a count of the server's, a piece is about a token.
                let tokens = self.usage.map_or(pieces, |usage| usage.completion_tokens);
                self.model.streamed(last.saturating_duration_since(first), tokens.saturating_sub(1));
            }
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.status.is_none() && !self.completed {
            self.shared.showed(&self.stages.charge.state, Evidence::NoAnswer, now);
        }
        if self.status.is_some_and(|status| status >= FIRST_ERROR) {
            self.model.server_failed();
        }
        if let Some(usage) = self.usage {
            self.shared.prompts.counted(self.prompt_bytes, usage.prompt_tokens);
            self.model.used(usage);
        }
        self.model.ended();
        self.tried();
        self.stages.charge.end(now);
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shared.gate.stir();
    }
}
