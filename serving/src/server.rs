//! A router made into a server: built, bound, served, drained.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use rand::rngs::StdRng;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    Authentication, Authorization, ConnectionLimits, Drain, DrainReport, Health, Reload, RequestLimits, ServeError, ServingMetrics,
    Tls,
    auth::{self, Gate},
    authorization,
    limits::{self, InFlight, PanicGuard, SharedRandom},
    listener::{self, Shared},
    observe::{self, Observer},
    tls::LiveTls,
};

/// A server that listens, and serves once it is told to.
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    authentication: Authentication,
    health: Health,
    drain: Drain,
    reload_every: Duration,
    ca_pem: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Server")
            .field("component", &self.shared.component)
            .field("local_addr", &self.local_addr)
            .field("authentication", &self.authentication)
            .finish_non_exhaustive()
    }
}

/// What a server is made of; every part but the router has a safe default.
#[derive(Debug)]
#[must_use = "nothing listens before bind"]
pub struct ServerBuilder {
    router: Router,
    name: &'static str,
    listen: SocketAddr,
    tls: Option<Tls>,
    authentication: Authentication,
    authorization: Authorization,
    metrics: ServingMetrics,
    health: Health,
    request_limits: RequestLimits,
    connection_limits: ConnectionLimits,
    drain: Drain,
    reload_every: Duration,
    random: Option<StdRng>,
}

impl ServerBuilder {
    /// What the server is called in metrics (`component`) and logs; `server` by default.
    pub fn name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// Where to listen; any free port of 127.0.0.1 by default.
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Serve TLS; plain text by default.
    pub fn tls(self, tls: Tls) -> Self {
        let tls = Some(tls);
        Self { tls, ..self }
    }

    /// Who may call; by default everyone on this machine and a refusal to listen elsewhere.
    pub fn authentication(self, authentication: Authentication) -> Self {
        Self { authentication, ..self }
    }

    /// What those who may call may do; everything by default.
    pub fn authorization(self, authorization: Authorization) -> Self {
        Self { authorization, ..self }
    }

    /// Where to count.
    pub fn metrics(self, metrics: ServingMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// What `/readyz` tells; shared with what decides it. Its routes take precedence over the router's.
    pub fn health(self, health: Health) -> Self {
        Self { health, ..self }
    }

    /// Bounds on requests.
    pub fn request_limits(self, request_limits: RequestLimits) -> Self {
        Self { request_limits, ..self }
    }

    /// Bounds on connections.
    pub fn connection_limits(self, connection_limits: ConnectionLimits) -> Self {
        Self { connection_limits, ..self }
    }

    /// How it ends.
    pub fn drain(self, drain: Drain) -> Self {
        Self { drain, ..self }
    }

    /// How often files are looked at for changes, 5 s by default.
    pub fn reload_every(self, reload_every: Duration) -> Self {
        Self { reload_every, ..self }
    }

    /// Source of audit ids and connection ages; seeded by the system by default.
    pub fn random(self, random: StdRng) -> Self {
        let random = Some(random);
        Self { random, ..self }
    }

    /// Loads every file and listens: what can be wrong is found here. Clients can connect from now on; they are
    /// answered once [`Server::serve`] runs.
    ///
    /// # Errors
    /// Any [`ServeError`]; the text names the setting, file or address, and the way out.
    pub async fn bind(self) -> Result<Server, ServeError> {
        self.request_limits.check()?;
        self.connection_limits.check()?;
        if self.reload_every.is_zero() {
            return Err(ServeError::Setting { setting: "reload interval", problem: "must be longer than 0".into() });
        }
        self.authorization.check()?;
        let asks = self.tls.as_ref().is_some_and(Tls::asks_for_client_certificates);
        self.authentication.check(self.listen, self.tls.is_some(), asks)?;
        let ca_pem = self.tls.as_ref().and_then(Tls::ca_pem).map(String::from);
        let component = self.name;
        let tls = match self.tls {
            None => None,
            Some(tls) => Some(Arc::new(LiveTls::load(&tls, SystemTime::now())?)),
        };
        if let Some(tls) = &tls {
            self.metrics.certificate_ends(component, tls.not_after());
        }
        let cannot_listen = |source| ServeError::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(cannot_listen)?;
        let local_addr = listener.local_addr().map_err(cannot_listen)?;
        let random: SharedRandom = Arc::new(Mutex::new(self.random.unwrap_or_else(rand::make_rng)));
        let router = Layers { component, metrics: &self.metrics, random: &random, limits: &self.request_limits }.around(
            self.router,
            &self.authentication,
            self.authorization,
            &self.health,
        );
        Ok(Server {
            listener,
            local_addr,
            shared: Arc::new(Shared {
                router,
                tls,
                http: self.connection_limits.http(),
                limits: self.connection_limits,
                metrics: self.metrics,
                component,
                random,
                closing: CancellationToken::new(),
                cut: CancellationToken::new(),
            }),
            authentication: self.authentication,
            health: self.health,
            drain: self.drain,
            reload_every: self.reload_every,
            ca_pem,
        })
    }
}

/// The layers of one server, see the crate's page for their order.
struct Layers<'a> {
    component: &'static str,
    metrics: &'a ServingMetrics,
    random: &'a SharedRandom,
    limits: &'a RequestLimits,
}

impl Layers<'_> {
    fn around(self, router: Router, authentication: &Authentication, authorization: Authorization, health: &Health) -> Router {
        let gate = Gate {
            authentication: authentication.clone(),
            metrics: self.metrics.clone(),
            component: self.component,
            anonymous: authorization.judges_anonymous(),
        };
        let in_flight =
            InFlight { permits: Semaphore::new(self.limits.in_flight), metrics: self.metrics.clone(), component: self.component };
        // The last layer added is the first a request meets. Each costs every request allocations, so what does nothing is left out.
        let mut guarded = router.layer(DefaultBodyLimit::disable());
        if self.limits.body_bytes < usize::MAX {
            guarded = guarded.layer(from_fn_with_state(self.limits.body_bytes, limits::body_limit));
        }
        if let Authorization::Reviews(_) = authorization {
            guarded = guarded.layer(from_fn_with_state(authorization, authorization::authorize));
        }
        let gates = Gates { deadline: self.limits.deadline, gate, in_flight };
        let guarded = guarded.layer(from_fn_with_state(Arc::new(gates), let_in));
        // By structure, not by comparing paths, health is neither authenticated nor shed.
        self.outer(health.router()).fallback_service(self.outer(guarded))
    }

    fn outer(&self, router: Router) -> Router {
        let outside = Outside {
            random: Arc::clone(self.random),
            observer: Observer { metrics: self.metrics.clone(), component: self.component },
            guard: PanicGuard { metrics: self.metrics.clone(), component: self.component },
        };
        router.layer(from_fn_with_state(Arc::new(outside), around))
    }
}

/// What every request passes.
struct Outside {
    random: SharedRandom,
    observer: Observer,
    guard: PanicGuard,
}

/// Layer: audit id, count and log line, and a 500 after a panic.
async fn around(State(outside): State<Arc<Outside>>, request: Request, next: Next) -> Response {
    let guarded = |request| limits::guard_against_panics(&outside.guard, request, |request| next.run(request));
    let observed = |request| observe::observe(&outside.observer, request, guarded);
    limits::common_headers(&outside.random, request, observed).await
}

/// What every request but those for health passes then.
struct Gates {
    deadline: Duration,
    gate: Gate,
    in_flight: InFlight,
}

/// Layer: who calls, whether there is room, and how long it may take.
async fn let_in(State(gates): State<Arc<Gates>>, request: Request, next: Next) -> Response {
    let with_room = |request| limits::in_flight(&gates.in_flight, request, |request| next.run(request));
    let known = |request| auth::authenticate(&gates.gate, request, with_room);
    limits::deadline(gates.deadline, request, known).await
}

impl Server {
    /// A server of this router, to be configured.
    pub fn builder(router: Router) -> ServerBuilder {
        ServerBuilder {
            router,
            name: "server",
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            metrics: ServingMetrics::default(),
            health: Health::new(),
            request_limits: RequestLimits::default(),
            connection_limits: ConnectionLimits::default(),
            drain: Drain::default(),
            reload_every: Duration::from_secs(5),
            random: None,
        }
    }

    /// Where it listens, the port chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Of a self-made certificate, the authority that clients must trust, PEM.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Serves until `shutdown` is cancelled, then drains: `/readyz` fails, after a delay nothing is accepted any
    /// more, connections are told to go away, and what is left after the grace period is cut.
    pub async fn serve(self, shutdown: CancellationToken) -> DrainReport {
        let component = self.shared.component;
        tracing::info!(component, address = %self.local_addr, tls = self.shared.tls.is_some(), authentication = ?self.authentication, "serving");
        let stop = CancellationToken::new();
        let announce = async {
            shutdown.cancelled().await;
            self.health.shut_down();
            tracing::info!(component, delay = ?self.drain.delay, grace = ?self.drain.grace, "draining");
            tokio::time::sleep(self.drain.delay).await;
            stop.cancel();
            std::future::pending::<Infallible>().await
        };
        let reload = watch_files(Arc::clone(&self.shared), self.authentication, self.reload_every);
        let serving = listener::run(self.listener, Arc::clone(&self.shared), stop.clone(), self.drain.grace);
        let report = tokio::select! {
            report = serving => report,
            never = announce => match never {},
            never = reload => match never {},
        };
        tracing::info!(
            component,
            finished = report.connections_finished,
            cut = report.connections_cut,
            requests_cut = report.requests_cut,
            "drained"
        );
        report
    }
}

/// Looks at certificate and token files for ever.
async fn watch_files(shared: Arc<Shared>, authentication: Authentication, every: Duration) -> Infallible {
    let component = shared.component;
    let mut changes = shared.tls.as_ref().map(|tls| tls.changes()).unwrap_or_default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = changes.next() => {}
        }
        let tls = shared.tls.clone();
        let authenticators = authentication.authenticators().to_vec();
        let looked = tokio::task::spawn_blocking(move || {
            let mut outcomes = tls.map_or_else(Vec::new, |tls| tls.reload(SystemTime::now()));
            outcomes.extend(authenticators.iter().filter_map(|one| one.refresh()));
            outcomes
        });
        let outcomes = match looked.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(component, %error, "looking at certificate and token files failed");
                continue;
            }
        };
        for outcome in outcomes {
            match outcome {
                Reload::Loaded { subject } => {
                    shared.metrics.reloaded(component, subject, "loaded");
                    tracing::info!(component, subject, "loaded new content");
                }
                Reload::Refused { subject, error } => {
                    shared.metrics.reloaded(component, subject, "refused");
                    tracing::error!(component, subject, %error, "new content refused, the old stays in use");
                }
            }
        }
        if let Some(tls) = &shared.tls {
            shared.metrics.certificate_ends(component, tls.not_after());
        }
    }
}
