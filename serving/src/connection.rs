//! One connection: when it is idle, stuck or old, and how it is asked to go away.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    ServeError,
    activity::{Activity, Ended, TrackedBody, Watched},
    client_verification::Peer,
    newcomers::Standing,
};

/// Bounds on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections open at once, 1024; one more is closed as it arrives, and counted.
    pub connections: usize,
    /// Time for the TLS handshake, 10 s.
    pub handshake: Duration,
    /// Time from a connection's start to its first request, and from a later request's first byte to the end of
    /// its head (HTTP/1), 10 s.
    pub header_read: Duration,
    /// Time without a request, 90 s.
    pub idle: Duration,
    /// Time a client may leave an answer unread once the socket is full, 60 s.
    pub write_stall: Duration,
    /// Bytes of a request's head, 64 KiB; 8 KiB to 1 MiB. Above it 431.
    pub header_bytes: u32,
    /// HTTP/2 streams open at once on a connection, 100.
    pub streams: u32,
    /// Bytes of requests' bodies on the way over a connection that are not read yet, 1 MiB; at least 64 KiB. A stream's are 256 KiB.
    pub window: u32,
    /// Age at which a connection is told to go away (GOAWAY, `Connection: close`), drawn for each between these,
    /// 5 and 10 min: clients that keep connections for ever spread over replicas.
    pub age: (Duration, Duration),
    /// Time for a connection without a request in flight to go away once told, 5 s.
    pub linger: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            write_stall: Duration::from_secs(60),
            header_bytes: 64 << 10,
            streams: 100,
            window: 1 << 20,
            age: (Duration::from_secs(300), Duration::from_secs(600)),
            linger: Duration::from_secs(5),
        }
    }
}

impl ConnectionLimits {
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let problem = if self.connections == 0 {
            "connections must be at least 1"
        } else if self.streams == 0 {
            "streams must be at least 1"
        } else if !(8 << 10..=1 << 20).contains(&self.header_bytes) {
            "header_bytes must be between 8 KiB and 1 MiB"
        } else if !(64 << 10..=1 << 30).contains(&self.window) {
            "window must be between 64 KiB and 1 GiB"
        } else if self.age.0 > self.age.1 {
            "age must be a range from the younger to the older"
        } else {
            return Ok(());
        };
        Err(ServeError::Setting { setting: "connection limits", problem: problem.into() })
    }

    /// How HTTP is spoken. Times are watched here, not there: hyper's header timeout also runs between requests,
    /// which would end every kept-alive connection after it.
    pub(crate) fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(self.header_bytes as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_bytes)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(128)
            .initial_stream_window_size(256 << 10)
            .initial_connection_window_size(self.window)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
    }
}

/// The connection a request came over: an extension of every request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    peer: SocketAddr,
    local: SocketAddr,
    closing: CancellationToken,
    standing: Arc<Standing>,
}

impl ConnectionInfo {
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr, closing: CancellationToken, standing: Arc<Standing>) -> Self {
        Self { peer, local, closing, standing }
    }

    /// A caller that is let in asks over it: it no longer has to make room for others.
    pub(crate) fn prove(&self) {
        self.standing.prove();
    }

    /// Address of the other side.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Address it reached.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Cancelled once the connection should go away: too old, refused, or the server drains. An answer that
    /// streams without end must end then.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Asks the connection to go away after the requests in flight.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

/// What a connection is served with.
pub(crate) struct Conversation<'a> {
    pub(crate) http: &'a auto::Builder<TokioExecutor>,
    pub(crate) limits: &'a ConnectionLimits,
    pub(crate) router: Router,
    pub(crate) info: ConnectionInfo,
    pub(crate) peer: Peer,
    pub(crate) activity: Arc<Activity>,
    /// How old it may get.
    pub(crate) age: Duration,
}

impl Conversation<'_> {
    /// Serves until either side ends it.
    pub(crate) async fn hold<T>(self, transport: T) -> Ended
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let closing = self.info.closing().clone();
        let activity = Arc::clone(&self.activity);
        let limits = self.limits;
        let io = TokioIo::new(Watched::new(transport, Arc::clone(&activity)));
        let http = self.http;
        let mut too_old = pin!(sleep(self.age));
        let service = service_fn(move |request| self.answer(request));
        let mut connection = pin!(http.serve_connection(io, service));
        let mut told: Option<(Instant, Ended)> = None;
        loop {
            let expiry = activity.expiry(limits, told.map(|(since, _)| since));
            let expires = async {
                match expiry {
                    Some((at, why)) => {
                        sleep_until(at).await;
                        why
                    }
                    None => std::future::pending().await,
                }
            };
            let leave = tokio::select! {
                biased;
                outcome = connection.as_mut() => {
                    return match (told, outcome) {
                        (Some((_, why)), _) => why,
                        (None, Ok(())) => Ended::Finished,
                        (None, Err(error)) => {
                            tracing::debug!(%error, "connection broke");
                            Ended::Broken
                        }
                    };
                }
                () = closing.cancelled(), if told.is_none() => Ended::Asked,
                () = &mut too_old, if told.is_none() => {
                    closing.cancel();
                    Ended::Age
                }
                () = activity.changed.notified() => continue,
                why = expires => match why {
                    Ended::Idle => {
                        closing.cancel();
                        why
                    }
                    // It was told, and had its time.
                    Ended::Asked => return told.map_or(why, |(_, why)| why),
                    _ => return why,
                },
            };
            told = Some((Instant::now(), leave));
            connection.as_mut().graceful_shutdown();
        }
    }

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Result<Response<TrackedBody>, Infallible>> + use<> {
        let in_flight = self.activity.begin(request.version());
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.info.peer()));
        extensions.insert(self.info.clone());
        if let Some(certificate) = &self.peer.certificate {
            extensions.insert(certificate.clone());
        }
        if let Some(chain) = &self.peer.chain {
            extensions.insert(chain.clone());
        }
        let answer = self.router.clone().call(request);
        async move {
            let response = answer.await?;
            Ok(response.map(|body| TrackedBody::new(body, in_flight)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_are_refused() {
        let ok = ConnectionLimits::default();
        assert!(ok.check().is_ok());
        let backwards = (Duration::from_secs(2), Duration::from_secs(1));
        for bad in [
            ConnectionLimits { connections: 0, ..ok.clone() },
            ConnectionLimits { streams: 0, ..ok.clone() },
            ConnectionLimits { window: 65_535, ..ok.clone() },
            ConnectionLimits { header_bytes: 8191, ..ok.clone() },
            ConnectionLimits { header_bytes: (1 << 20) + 1, ..ok.clone() },
            ConnectionLimits { age: backwards, ..ok.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
