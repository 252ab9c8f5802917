//! A request that was placed, until it has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Shared;
use super::roster::State;
use crate::inference::{InferenceRequest, Ticket, Usage};
use crate::metrics::ModelMetrics;
use crate::scheduling::Evidence;

/// The first status that says that the model server failed the request.
const FIRST_ERROR: u16 = 400;
/// The first status that says that the server, not the request, is at fault.
const FIRST_SERVER_ERROR: u16 = 500;

/// Counts the request as in flight at one endpoint; when dropped, it has ended.
pub(super) struct Placed {
    shared: Arc<Shared>,
    state: Arc<State>,
    /// Whether this request shows whether the ejected endpoint is back.
    tries: bool,
    model: Arc<ModelMetrics>,
    received: Instant,
    status: Option<u16>,
    bytes: usize,
    /// None where no stream was asked for.
    streamed: Option<Streamed>,
    usage: Option<Usage>,
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
            .field("endpoint", &self.state.address)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Placed {
    pub(super) fn new(
        shared: Arc<Shared>,
        state: Arc<State>,
        model: Arc<ModelMetrics>,
        request: &InferenceRequest,
        now: Instant,
    ) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        state.in_flight.began(now);
        let tries = state.health.chosen();
        let received = request.received;
        let streamed = request.streaming.then(Streamed::default);
        Self { shared, state, tries, model, received, status: None, bytes: 0, streamed, usage: None, completed: false }
    }

    /// The request is no longer at its endpoint.
    fn leave(&mut self, now: Instant) {
        self.state.in_flight.ended(now);
        if std::mem::take(&mut self.tries) {
            self.state.health.tried();
        }
    }
}

impl Ticket for Placed {
    fn served_by(&mut self, endpoint: SocketAddr) {
        let roster = self.shared.roster.load();
        let Some(state) = roster.at(endpoint) else {
            self.shared.metrics.unknown_served.inc();
            return;
        };
        if Arc::ptr_eq(state, &self.state) {
            return;
        }
        let now = Instant::now();
        self.shared.showed(&self.state, Evidence::PassedOver, now);
        self.leave(now);
        self.state = state.clone();
        self.state.in_flight.began(now);
    }

    fn response_started(&mut self, status: u16, at: Instant) {
        if self.status.replace(status).is_none() {
            let evidence = if status < FIRST_SERVER_ERROR { Evidence::Answered } else { Evidence::ServerError };
            self.shared.showed(&self.state, evidence, at);
        }
    }

    fn response_bytes(&mut self, bytes: usize, at: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
        // What comes with an error is no token.
        let Some(streamed) = self.streamed.as_mut().filter(|_| self.status.is_some_and(|status| status < FIRST_ERROR)) else {
            return;
        };
        let first = match streamed.first_and_last {
            None => {
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
            self.shared.showed(&self.state, Evidence::NoAnswer, now);
        }
        if self.status.is_some_and(|status| status >= FIRST_ERROR) {
            self.model.server_failed();
        }
        if let Some(usage) = self.usage {
            self.model.used(usage);
        }
        self.model.ended();
        self.leave(now);
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
