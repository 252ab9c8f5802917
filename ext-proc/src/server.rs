//! The two servers of whoever speaks ext_proc.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use tokio_util::sync::CancellationToken;
use weir_serving::{
    Authentication, CertificateAuthority, ConnectionLimits, Drain, DrainReport, Health, RequestLimits, ServeError, Server,
    ServingMetrics, Tls,
};

/// How the ext_proc port is served.
#[derive(Clone, Debug, Default)]
pub enum Certificate {
    /// TLS with a certificate made here, which gateways take without verifying.
    #[default]
    SelfMade,
    /// TLS with `tls.crt` and `tls.key` of this directory, read again when they change.
    Directory(PathBuf),
    /// Plain text (`--secure-serving=false`).
    PlainText,
}

/// The ext_proc port with health, and the health port in plain text.
#[derive(Debug)]
pub struct Servers {
    ext_proc: Server,
    health: Server,
    leaving: CancellationToken,
}

/// What is served.
#[derive(Debug)]
pub struct Services {
    /// ext_proc and health.
    pub ext_proc: Router,
    /// Health alone.
    pub health_only: Router,
    /// Says whether it is ready.
    pub health: Health,
    /// Once cancelled, no new request is waited for.
    pub leaving: CancellationToken,
}

/// Few connections, each with as many streams as requests are held; a connection lasts as long as its gateway.
pub fn connection_limits() -> ConnectionLimits {
    ConnectionLimits {
        connections: 4096,
        streams: 65_536,
        // One connection carries the long prompts of all of a gateway's clients.
        window: 16 << 20,
        idle: Duration::from_secs(3600),
        // GOAWAY moves a gateway's new requests to other replicas too, its streams go on.
        age: (Duration::from_secs(1800), Duration::from_secs(3600)),
        ..ConnectionLimits::default()
    }
}

/// A stream carries a request and its response whole, for as long as they take: the exchange bounds what is kept.
pub fn request_limits() -> RequestLimits {
    RequestLimits { in_flight: 100_000, body_bytes: usize::MAX, ..RequestLimits::default() }
}

impl Servers {
    /// Listens on both ports. `now` is wall time.
    ///
    /// # Errors
    /// An address that cannot be had, a certificate that cannot be read or made.
    pub async fn bind(
        services: impl Into<Services>,
        ext_proc: SocketAddr,
        health: SocketAddr,
        certificate: Certificate,
        drain: Drain,
        metrics: ServingMetrics,
        now: SystemTime,
    ) -> Result<Self, ServeError> {
        let Services { ext_proc: main, health_only, health: readiness, leaving } = services.into();
        let server = |router, name, address| {
            Server::builder(router)
                .name(name)
                .listen(address)
                .authentication(Authentication::Everyone)
                .metrics(metrics.clone())
                .drain(drain.clone())
                .connection_limits(connection_limits())
                .request_limits(request_limits())
        };
        let main = server(main, "ext_proc", ext_proc).health(readiness);
        let main = match certificate {
            Certificate::PlainText => main,
            Certificate::Directory(directory) => main.tls(Tls::files(directory.join("tls.crt"), directory.join("tls.key"))),
            Certificate::SelfMade => {
                let authority = Arc::new(CertificateAuthority::new(now)?);
                main.tls(Tls::self_made(authority, [] as [&str; 0]))
            }
        };
        let ext_proc = main.bind().await?;
        // It outlives the other: whoever asks while that one drains is told so.
        let last = Drain { delay: Duration::ZERO, grace: Duration::from_secs(1) };
        let health = server(health_only, "health", health).health(Health::new()).drain(last).bind().await?;
        Ok(Self { ext_proc, health, leaving })
    }

    /// Where ext_proc listens.
    pub fn ext_proc_addr(&self) -> SocketAddr {
        self.ext_proc.local_addr()
    }

    /// Where health listens.
    pub fn health_addr(&self) -> SocketAddr {
        self.health.local_addr()
    }

    /// The authority of a certificate made here, PEM.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ext_proc.ca_pem()
    }

    /// Serves until it is told to leave, then drains: health fails, what waits is answered 503, responses go on to their end,
    /// or to the end of the grace period.
    ///
    /// On the ext_proc port nobody is served before `first_look` has ended: one that knows nothing yet would refuse
    /// every request. Connections made before wait in the system's queue. Who limits their time is the caller.
    pub async fn serve(self, first_look: impl Future<Output = ()>) -> DrainReport {
        let leaving = self.leaving.clone();
        let drained = CancellationToken::new();
        let ext_proc = async {
            tokio::select! {
                () = first_look => {}
                () = leaving.cancelled() => {}
            }
            let report = self.ext_proc.serve(leaving.clone()).await;
            drained.cancel();
            report
        };
        let (report, _) = tokio::join!(ext_proc, self.health.serve(drained.clone()));
        report
    }
}
