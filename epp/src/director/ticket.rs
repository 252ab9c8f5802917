//! A request that was placed, until it has ended.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::roster::State;
use crate::inference::{Failure, Ticket, Usage};
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
    usage: Option<Usage>,
    completed: bool,
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
    pub(super) fn new(shared: Arc<Shared>, state: Arc<State>, model: Arc<ModelMetrics>, received: Instant, now: Instant) -> Self {
        state.in_flight.began(now);
        let tries = state.health.chosen();
        Self { shared, state, tries, model, received, status: None, bytes: 0, usage: None, completed: false }
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

    fn gateway_answered(&mut self, status: u16, why: Failure, at: Instant) {
        if self.status.replace(status).is_none() {
            match why {
                Failure::Unreached => self.shared.showed(&self.state, Evidence::Unreached, at),
                Failure::TimedOut => self.shared.showed(&self.state, Evidence::NoAnswer, at),
                Failure::Elsewhere => {}
            }
        }
    }

    fn response_bytes(&mut self, bytes: usize, _at: Instant) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn usage(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    fn completed(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.completed, true) {
            self.model.completed(at.saturating_duration_since(self.received), self.bytes, self.usage);
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
    }
}
