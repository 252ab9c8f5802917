//! The port of the metrics page of a program in a Go program's place, and who may read there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tracing::warn;
use weir_serving::{
    AccessReviewSettings, AccessReviews, Authentication, Authenticator, Authorization, ClientCertificates, Drain, Health,
    RequestReviews, ServeError, Server, ServingMetrics, Tls, TokenReviewSettings, TokenReviews,
};

use crate::go_flags::Given;

/// After the last request nobody waits for the page.
const DRAIN: Drain = Drain { delay: Duration::ZERO, grace: Duration::from_secs(1) };

/// Who may read, as flags say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access {
    /// In a cluster: whom the API server lets get the page.
    pub(crate) auth: bool,
    /// TLS, with `tls.crt` and `tls.key` of this directory.
    pub(crate) cert_dir: Option<PathBuf>,
    /// Callers bring a certificate of this authority.
    pub(crate) client_ca: Option<PathBuf>,
}

impl Access {
    /// As a command line has it.
    pub(crate) fn of(given: &Given) -> Self {
        Self {
            auth: given.switch("metrics-endpoint-auth").unwrap_or(true),
            cert_dir: given.text("metrics-cert-dir").map(PathBuf::from),
            client_ca: given.text("metrics-client-ca-file").map(PathBuf::from),
        }
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        let wrong = self.client_ca.is_some() && self.cert_dir.is_none();
        wrong.then(|| "--metrics-client-ca-file: callers bring certificates over TLS alone: give --metrics-cert-dir".to_owned())
    }
}

/// How the metrics port is to be served.
pub(crate) struct MetricsServer {
    tls: Option<Tls>,
    authentication: Authentication,
    authorization: Option<Authorization>,
}

impl MetricsServer {
    /// As `access` says. The API server is asked where there is one.
    ///
    /// # Errors
    /// A system that gives no random numbers.
    pub(crate) fn new(access: &Access, client: Option<&kube::Client>, metrics: &ServingMetrics) -> Result<Self, ServeError> {
        let file = |directory: &PathBuf, name| directory.join(name);
        let tls = access.cert_dir.as_ref().map(|at| Tls::files(file(at, "tls.crt"), file(at, "tls.key")));
        let (mut tls, mut ways) = (tls, Vec::<Arc<dyn Authenticator>>::new());
        if let Some(authority) = &access.client_ca {
            tls = tls.map(|tls| tls.client_ca(authority));
            ways.push(Arc::new(ClientCertificates));
        }
        let mut authorization = None;
        match client.filter(|_| access.auth) {
            Some(client) => {
                ways.push(Arc::new(TokenReviews::new(client.clone(), TokenReviewSettings::default(), metrics)?));
                let reviews = AccessReviews::new(client.clone(), AccessReviewSettings::default(), metrics);
                authorization = Some(Authorization::Reviews(RequestReviews::new(Arc::new(reviews))));
            }
            None if ways.is_empty() => warn!("everyone who reaches the metrics port may read there: no cluster is asked who may"),
            None => {}
        }
        let authentication = if ways.is_empty() { Authentication::Everyone } else { Authentication::AnyOf(ways) };
        Ok(Self { tls, authentication, authorization })
    }

    /// Listens.
    ///
    /// # Errors
    /// An address that cannot be had, a certificate that cannot be read.
    pub(crate) async fn bind(
        self,
        page: Router,
        listen: SocketAddr,
        metrics: ServingMetrics,
        health: Health,
    ) -> Result<Server, ServeError> {
        let server = Server::builder(page).name("metrics").listen(listen).metrics(metrics).health(health).drain(DRAIN);
        let server = server.authentication(self.authentication);
        let server = match self.authorization {
            Some(authorization) => server.authorization(authorization),
            None => server,
        };
        match self.tls {
            Some(tls) => server.tls(tls).bind().await,
            None => server.bind().await,
        }
    }
}
