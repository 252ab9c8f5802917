//! The ext_proc service.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use futures_util::Stream;
use futures_util::stream::unfold;
use prometheus_client::registry::Registry;
use rand::{Rng, rngs::StdRng};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use weir_ext_proc::protocol::{ExternalProcessor, ExternalProcessorServer, ProcessingRequest, ProcessingResponse};
use weir_ext_proc::{HealthService, Services};
use weir_serving::Health;

use super::metrics::FrontendMetrics;
use super::session::Session;
use crate::Director;
use crate::conversation::Conversation;
use crate::exchange::{Budget, Exchange, Note, SettingError, Settings};
use crate::journal::{Door, Journal};

/// What a message may take beside a body: heads, attributes, metadata.
const MESSAGE_OVERHEAD: usize = 1 << 20;

/// The ext_proc service of one director; cloning shares all of it.
#[derive(Clone)]
pub struct Frontend {
    shared: Arc<Shared>,
    /// What is told of each request, if anything is.
    journal: Option<Arc<Journal>>,
}

struct Shared {
    director: Arc<dyn Director>,
    settings: Arc<Settings>,
    budget: Budget,
    random: Mutex<StdRng>,
    metrics: FrontendMetrics,
    health: Health,
    leaving: CancellationToken,
}

impl std::fmt::Debug for Frontend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Frontend").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Frontend {
    /// A frontend of this director, its metrics exposed by `registry`. `random` makes ids; `health` says, with the director, whether it
    /// is ready; once `leaving` is cancelled, requests that wait are answered 503 and no other waits.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn new(
        director: Arc<dyn Director>,
        settings: Settings,
        random: StdRng,
        health: Health,
        leaving: CancellationToken,
        registry: &mut Registry,
    ) -> Result<Self, SettingError> {
        settings.check()?;
        let budget = Budget::new(settings.waiting_bytes);
        let metrics = FrontendMetrics::register(registry);
        FrontendMetrics::watch(budget.clone(), registry);
        let settings = Arc::new(settings);
        let random = Mutex::new(random);
        let shared = Arc::new(Shared { director, settings, budget, random, metrics, health, leaving });
        Ok(Self { shared, journal: None })
    }

    /// Tells of each request what `journal` wants to know.
    pub fn telling(self, journal: Journal) -> Self {
        Self { journal: journal.shared(), ..self }
    }

    /// Both services, ext_proc and health.
    pub fn router(&self) -> Router {
        // A longer message than a body may be is refused before it is read.
        let longest = self.shared.settings.request_bytes + MESSAGE_OVERHEAD;
        let processor =
            ExternalProcessorServer::new(self.clone()).max_decoding_message_size(longest).max_encoding_message_size(usize::MAX);
        Routes::new(processor).add_service(self.health_service().into_server()).into_axum_router()
    }

    /// Health alone.
    pub fn health_router(&self) -> Router {
        Routes::new(self.health_service().into_server()).into_axum_router()
    }

    fn health_service(&self) -> HealthService {
        let director = Arc::clone(&self.shared.director);
        HealthService::new(Arc::new(move || director.ready()), self.shared.health.clone())
    }

    #[cfg(test)]
    pub(super) fn metrics(&self) -> &FrontendMetrics {
        &self.shared.metrics
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// Another request, unless there are as many as there may be.
    pub(crate) fn conversation(&self, door: Door) -> Option<Conversation> {
        let shared = &self.shared;
        let Some(open) = shared.metrics.stream(shared.settings.streams) else {
            shared.metrics.count(Note::TooManyStreams);
            return None;
        };
        let random = {
            let mut random = shared.random.lock().unwrap_or_else(PoisonError::into_inner);
            u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
        };
        let exchange = Exchange::new(Arc::clone(&shared.settings), &shared.budget, random).wanting(shared.director.headers());
        let director = Arc::clone(&shared.director);
        let entry = self.journal.as_ref().map(|journal| journal.begin(door));
        Some(Conversation::new(exchange, director, shared.metrics.clone(), shared.leaving.clone(), open, entry))
    }

    /// Requests that may be open at once.
    pub(crate) fn most_streams(&self) -> usize {
        self.shared.settings.streams
    }

    fn session(&self, inbound: Streaming<ProcessingRequest>) -> Result<Session, Status> {
        let Some(conversation) = self.conversation(Door::ExtProc) else {
            let most = self.most_streams();
            return Err(Status::resource_exhausted(format!("{most} streams are open, as many as the picker's limit allows")));
        };
        Ok(Session::new(inbound, conversation, self.shared.settings.silence))
    }
}

impl From<Frontend> for Services {
    fn from(frontend: Frontend) -> Self {
        let Shared { health, leaving, .. } = &*frontend.shared;
        Self {
            ext_proc: frontend.router(),
            health_only: frontend.health_router(),
            health: health.clone(),
            leaving: leaving.clone(),
        }
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Frontend {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    /// Answers with the stream at once, before anything is read: gateways count the time to it.
    async fn process(&self, request: Request<Streaming<ProcessingRequest>>) -> Result<Response<Self::ProcessStream>, Status> {
        // Every reply moves it.
        let session = Box::new(self.session(request.into_inner())?);
        let replies = unfold(session, |mut session| async move {
            let reply = session.next().await?;
            Some((Ok(reply), session))
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
