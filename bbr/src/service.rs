//! The ext_proc service: a stream per request, each with an exchange.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use weir_ext_proc::protocol::{
    ExternalProcessor, ExternalProcessorServer, ProcessingRequest, ProcessingResponse, incoming, outgoing,
};
use weir_ext_proc::{Budget, HealthService, Refusal, Services};
use weir_serving::Health;

use crate::decide::{Plan, Routing};
use crate::exchange::{Action, Decide, Exchange, Note, Settings};
use crate::metrics::{BbrMetrics, Open};
use crate::table::Table;

/// What a message may take beside a body: heads, attributes, metadata.
const MESSAGE_OVERHEAD: usize = 1 << 20;

/// The service; cloning shares all of it.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    settings: Arc<Settings>,
    routing: Arc<Routing>,
    table: Arc<ArcSwap<Table>>,
    budget: Budget,
    seeds: Mutex<StdRng>,
    metrics: BbrMetrics,
    health: Health,
    leaving: CancellationToken,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Service").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Service {
    /// A service that does `routing` by `table` as it is at each moment, and draws lots from `random`. `health` says whether it is
    /// ready; once `leaving` is cancelled, it drains.
    pub fn new(
        settings: Settings,
        routing: Routing,
        table: Arc<ArcSwap<Table>>,
        random: StdRng,
        metrics: BbrMetrics,
        health: Health,
        leaving: CancellationToken,
    ) -> Self {
        let budget = Budget::new(settings.waiting_bytes);
        let (settings, routing, seeds) = (Arc::new(settings), Arc::new(routing), Mutex::new(random));
        Self(Arc::new(Shared { settings, routing, table, budget, seeds, metrics, health, leaving }))
    }

    fn health_service(&self) -> HealthService {
        HealthService::new(Arc::new(|| true), self.0.health.clone())
    }

    fn session(&self, inbound: Streaming<ProcessingRequest>) -> Result<Session, Status> {
        let shared = &self.0;
        let most = shared.settings.streams;
        let Some(open) = shared.metrics.stream(most) else {
            shared.metrics.count(Note::TooManyStreams);
            return Err(Status::resource_exhausted(format!("{most} streams are open, as many as the limit allows")));
        };
        let exchange = Exchange::new(Arc::clone(&shared.settings), Arc::clone(&shared.routing), &shared.budget);
        Ok(Session { inbound: Some(inbound), exchange, shared: Arc::clone(shared), next: VecDeque::new(), _open: open })
    }
}

impl From<Service> for Services {
    fn from(service: Service) -> Self {
        // A longer message than a body may be is refused before it is read.
        let longest = service.0.settings.request_bytes + MESSAGE_OVERHEAD;
        let processor = ExternalProcessorServer::new(service.clone());
        let processor = processor.max_decoding_message_size(longest).max_encoding_message_size(usize::MAX);
        Self {
            ext_proc: Routes::new(processor).add_service(service.health_service().into_server()).into_axum_router(),
            health_only: Routes::new(service.health_service().into_server()).into_axum_router(),
            health: service.0.health.clone(),
            leaving: service.0.leaving.clone(),
        }
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    async fn process(&self, request: Request<Streaming<ProcessingRequest>>) -> Result<Response<Self::ProcessStream>, Status> {
        let session = Box::new(self.session(request.into_inner())?);
        let replies = unfold(session, |mut session| async move {
            let reply = session.next().await?;
            Some((Ok(reply), session))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// One stream.
struct Session {
    inbound: Option<Streaming<ProcessingRequest>>,
    exchange: Exchange,
    shared: Arc<Shared>,
    next: VecDeque<Action>,
    _open: Open,
}

impl Session {
    /// The next message to the gateway; nothing once the stream is to end.
    async fn next(&mut self) -> Option<ProcessingResponse> {
        loop {
            match self.next.pop_front() {
                Some(Action::Reply(reply)) => return Some(outgoing(reply)),
                Some(Action::Note(note)) => self.note(note),
                Some(Action::End) => return None,
                None => self.hear().await?,
            }
        }
    }

    /// Hears one message; nothing where there is none any more, which is how every gateway ends a stream.
    async fn hear(&mut self) -> Option<()> {
        let mut out = Vec::new();
        match self.inbound.as_mut()?.message().await {
            Ok(Some(message)) => self.exchange.message(incoming(message), &mut Decider(&self.shared), &mut out),
            Err(status) if status.code() == Code::OutOfRange => {
                self.inbound = None;
                self.exchange.oversized(&mut out);
            }
            Ok(None) | Err(_) => return None,
        }
        self.next.extend(out);
        Some(())
    }

    /// Said once: the metric tells how often.
    fn note(&self, note: Note) {
        let first = self.shared.metrics.count(note);
        if first && note == Note::BodyNotShown {
            tracing::warn!(
                "a gateway shows no whole bodies, so that no header can be set: let its ext_proc filter's request_body_mode be \
                 FULL_DUPLEX_STREAMED or BUFFERED"
            );
        }
    }
}

struct Decider<'a>(&'a Shared);

impl Decide for Decider<'_> {
    fn decide(&mut self, body: &Bytes) -> Result<Plan, Refusal> {
        let seed = self.0.seeds.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        let mut facts = Vec::new();
        let table = self.0.table.load();
        let plan = self.0.routing.decide(body, &table, &mut StdRng::seed_from_u64(seed), &Instant::now, &mut facts);
        self.0.metrics.decided(&facts, plan.is_ok());
        plan
    }
}
