//! `--http`: the port for clients where there is no gateway.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use rustls::ClientConfig;
use weir_collector::tls;
use weir_epp::frontend::request_limits;
use weir_epp::standalone::ProxySettings;
use weir_serving::{Authentication, ConnectionLimits, Drain, Health, RequestLimits, ServeError, Server, ServingMetrics, Tls};

/// Upstream's standalone gateway ends a request that was held and served after as long.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How clients reach the picker without a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Http {
    /// The address; none: that of the other ports.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    /// `tls.crt` and `tls.key`.
    pub(super) cert_path: Option<PathBuf>,
    /// How long a model server may say nothing.
    pub(super) patience: Duration,
    /// How long a client may send nothing of a body.
    pub(super) body_idle: Duration,
    /// How model servers are spoken to; in plain text where none.
    pub(super) backend: Option<Backend>,
    /// How often who waits for a streamed answer hears a comment; none: never.
    pub(super) comments: Option<Duration>,
}

/// TLS to model servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Backend {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    pub(super) insecure: bool,
}

impl Backend {
    fn client(&self) -> anyhow::Result<ClientConfig> {
        if self.insecure {
            return tls::unchecked().map_err(anyhow::Error::msg);
        }
        let pem = match &self.ca_file {
            None => None,
            Some(path) => {
                Some(std::fs::read(path).with_context(|| format!("--http-backend-ca-file: {} cannot be read", path.display()))?)
            }
        };
        let config = tls::client_config(pem.as_deref(), self.server_name.as_deref());
        config.map_err(|why| anyhow::anyhow!("--http-backend-ca-file, --http-backend-server-name: {why}"))
    }
}

impl Http {
    /// `ADDRESS:PORT`, `:PORT` or `PORT`.
    pub(super) fn listen(text: &str) -> Option<(Option<IpAddr>, u16)> {
        let port = |text: &str| Some((None, text.parse().ok()?));
        match text.parse::<SocketAddr>() {
            Ok(address) => Some((Some(address.ip()), address.port())),
            Err(_) => port(text.strip_prefix(':').unwrap_or(text)),
        }
    }

    /// The settings of the proxy.
    ///
    /// # Errors
    /// An authority that cannot be used.
    pub(super) fn proxy(&self) -> anyhow::Result<ProxySettings> {
        let server_tls = self.backend.as_ref().map(Backend::client).transpose()?.map(Arc::new);
        Ok(ProxySettings {
            patience: self.patience,
            comments: self.comments,
            body_idle: self.body_idle,
            client_tls: self.cert_path.is_some(),
            server_tls,
            ..ProxySettings::default()
        })
    }

    /// Listens.
    ///
    /// # Errors
    /// An address that cannot be had, a certificate that cannot be read.
    pub(super) async fn bind(
        &self,
        router: Router,
        others: IpAddr,
        metrics: ServingMetrics,
        health: Health,
        drain: Drain,
    ) -> Result<Server, ServeError> {
        let limits = RequestLimits { deadline: LONGEST, ..request_limits() };
        let server = Server::builder(router)
            .name("http")
            .listen(SocketAddr::new(self.address.unwrap_or(others), self.port))
            .authentication(Authentication::Everyone)
            .metrics(metrics)
            .health(health)
            .drain(drain)
            .request_limits(limits)
            .connection_limits(ConnectionLimits { connections: 65_536, ..ConnectionLimits::default() });
        match &self.cert_path {
            Some(directory) => server.tls(Tls::files(directory.join("tls.crt"), directory.join("tls.key"))).bind().await,
            None => server.bind().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_port_alone() {
        assert_eq!(Http::listen("127.0.0.1:8080"), Some((Some([127, 0, 0, 1].into()), 8080)));
        assert_eq!(Http::listen(":8080"), Some((None, 8080)));
        assert_eq!(Http::listen("0"), Some((None, 0)));
        assert_eq!(Http::listen("localhost:8080"), None);
        assert_eq!(Http::listen("80800"), None);
    }
}
