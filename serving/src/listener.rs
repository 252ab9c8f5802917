//! Accepts connections within limits, and lets them finish when the server drains.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::Router;
use hyper_util::{rt::TokioExecutor, server::conn::auto};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    ServingMetrics,
    activity::{Activity, Ended},
    client_verification::Peer,
    connection::{ConnectionInfo, ConnectionLimits, Conversation},
    limits::{SharedRandom, draw},
    newcomers::{Newcomers, Standing},
    tls::LiveTls,
};

/// How a server ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time between failing `/readyz` and no longer accepting, 0 by default. Behind a Service 5–15 s: so long do
    /// clients take to learn of it.
    pub delay: Duration,
    /// Time for requests in flight to finish after that, 30 s; then they are cut.
    pub grace: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::ZERO, grace: Duration::from_secs(30) }
    }
}

/// What a drain did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DrainReport {
    /// Connections that were open and ended in time.
    pub connections_finished: usize,
    /// Connections cut at the end of the grace period.
    pub connections_cut: usize,
    /// Requests that were in flight on those.
    pub requests_cut: usize,
    /// Time from no longer accepting to the end.
    pub took: Duration,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "drained in {:.1} s: {} connections finished, {} cut with {} requests in flight",
            self.took.as_secs_f64(),
            self.connections_finished,
            self.connections_cut,
            self.requests_cut
        )
    }
}

/// After the grace period a connection's task needs only to notice it.
const TIME_TO_CUT: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What every connection of a server shares.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) tls: Option<Arc<LiveTls>>,
    pub(crate) limits: ConnectionLimits,
    pub(crate) http: auto::Builder<TokioExecutor>,
    pub(crate) metrics: ServingMetrics,
    pub(crate) component: &'static str,
    pub(crate) random: SharedRandom,
    /// Tells connections to go away.
    pub(crate) closing: CancellationToken,
    /// Ends them at once.
    pub(crate) cut: CancellationToken,
}

/// How one connection's task ended.
struct Outcome {
    ended: Ended,
    requests_in_flight: usize,
}

/// Accepts until `stop`, then drains for `grace`.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, grace: Duration) -> DrainReport {
    let mut connections = JoinSet::new();
    accept(&listener, &shared, &stop, &mut connections).await;
    drop(listener);
    drain(&shared, grace, &mut connections).await
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, stop: &CancellationToken, connections: &mut JoinSet<Outcome>) {
    let component = shared.component;
    let mut paused: Option<Pause> = None;
    let mut full = false;
    let mut newcomers = Newcomers::default();
    loop {
        let resume_at = paused.as_ref().and_then(|pause| pause.until);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                note(shared, ended);
                if full && connections.len() < shared.limits.connections {
                    full = false;
                    tracing::info!(component, "connections are below their limit again");
                }
            }
            () = sleep_until(resume_at.unwrap_or_else(Instant::now)), if resume_at.is_some() => {
                if let Some(pause) = &mut paused {
                    pause.until = None;
                }
            }
            accepted = listener.accept(), if resume_at.is_none() => match accepted {
                Ok((stream, peer)) => {
                    if paused.take().is_some() {
                        tracing::info!(component, "accepting connections again");
                    }
                    let limit = shared.limits.connections;
                    if connections.len() >= limit && !full {
                        full = true;
                        tracing::warn!(component, limit, "too many connections, those that asked nothing yet make room, oldest first");
                    }
                    if connections.len() < limit || newcomers.evict_oldest() {
                        let standing = Arc::new(Standing::default());
                        newcomers.add(&standing, limit);
                        connections.spawn(serve(Arc::clone(shared), stream, peer, standing));
                    } else {
                        shared.metrics.connection_refused(component);
                        drop(stream);
                    }
                }
                // The client's fault, gone with it.
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    shared.metrics.accept_failed(component);
                    if paused.is_none() {
                        tracing::error!(component, %error, "cannot accept connections, pausing; are there enough file descriptors?");
                    }
                    paused = Some(Pause::after(paused.as_ref(), Instant::now()));
                }
            },
        }
    }
}

/// Accepting failed for want of something: descriptors, memory. Asking again at once would only burn a processor.
#[derive(Debug, PartialEq, Eq)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
}

impl Pause {
    fn after(previous: Option<&Self>, now: Instant) -> Self {
        let length = match previous {
            None => SHORTEST_PAUSE,
            Some(previous) => (previous.length * 2).min(LONGEST_PAUSE),
        };
        Self { length, until: Some(now + length) }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn note(shared: &Shared, ended: Result<Outcome, JoinError>) -> Option<Outcome> {
    match ended {
        Ok(outcome) => {
            let reason = outcome.ended.label();
            shared.metrics.connection_closed(shared.component, reason);
            Some(outcome)
        }
        Err(error) => {
            shared.metrics.connection_closed(shared.component, "panic");
            tracing::error!(component = shared.component, %error, "connection task failed");
            None
        }
    }
}

async fn drain(shared: &Shared, grace: Duration, connections: &mut JoinSet<Outcome>) -> DrainReport {
    let started = Instant::now();
    let mut report = DrainReport::default();
    let mut collect = |ended| match note(shared, ended) {
        Some(Outcome { ended: Ended::Cut, requests_in_flight }) => {
            report.connections_cut += 1;
            report.requests_cut += requests_in_flight;
        }
        _ => report.connections_finished += 1,
    };
    shared.closing.cancel();
    while let Ok(Some(ended)) = timeout_at(started + grace, connections.join_next()).await {
        collect(ended);
    }
    shared.cut.cancel();
    let last = Instant::now() + TIME_TO_CUT;
    while let Ok(Some(ended)) = timeout_at(last, connections.join_next()).await {
        collect(ended);
    }
    // A handler that blocks its thread cannot be stopped, only left behind.
    report.connections_cut += connections.len();
    connections.abort_all();
    report.took = started.elapsed();
    report
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, standing: Arc<Standing>) -> Outcome {
    let _open = shared.metrics.connection_accepted(shared.component);
    let activity = Activity::new(Instant::now());
    let ended = tokio::select! {
        biased;
        () = shared.cut.cancelled() => Ended::Cut,
        () = standing.evicted.cancelled() => Ended::Evicted,
        ended = converse(&shared, stream, peer, &standing, Arc::clone(&activity)) => ended,
    };
    Outcome { ended, requests_in_flight: activity.requests_in_flight() }
}

async fn converse(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
    standing: &Arc<Standing>,
    activity: Arc<Activity>,
) -> Ended {
    let closing = shared.closing.child_token();
    // Answers are small and wanted now. Both calls fail only on a connection that is gone already.
    let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else {
        return Ended::Broken;
    };
    let conversation = Conversation {
        http: &shared.http,
        limits: &shared.limits,
        router: shared.router.clone(),
        info: ConnectionInfo::new(peer, local, closing.clone(), Arc::clone(standing)),
        peer: Peer::default(),
        activity,
        age: age_between(shared.limits.age, draw(&shared.random)),
    };
    let Some(tls) = &shared.tls else {
        return conversation.hold(stream).await;
    };
    let tls = tls.current();
    let handshake = timeout(shared.limits.handshake, TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream));
    let failure = tokio::select! {
        () = closing.cancelled() => return Ended::Asked,
        outcome = handshake => match outcome {
            Err(_elapsed) => "timeout",
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "TLS handshake failed");
                handshake_failure(&error)
            }
            Ok(Ok(stream)) => match tls.peer(stream.get_ref().1.peer_certificates(), SystemTime::now()) {
                Ok(peer) => {
                    // Held for minutes: not the configuration of its beginning.
                    drop(tls);
                    return Conversation { peer, ..conversation }.hold(stream).await;
                }
                Err(error) => {
                    tracing::debug!(%peer, error, "client certificate cannot be read");
                    "client_certificate"
                }
            },
        },
    };
    shared.metrics.handshake_failed(shared.component, failure);
    Ended::Handshake
}

/// Why a handshake failed, as a label.
fn handshake_failure(error: &io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => "client_certificate",
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => "incompatible",
        Some(rustls::Error::AlertReceived(_)) => "refused_by_client",
        Some(_) => "protocol",
        None => "closed",
    }
}

/// A point of the range, by random bits.
fn age_between((youngest, oldest): (Duration, Duration), random: u128) -> Duration {
    let spread = oldest.saturating_sub(youngest).as_nanos() + 1;
    let extra = u64::try_from(random % spread).unwrap_or(u64::MAX);
    (youngest + Duration::from_nanos(extra)).min(oldest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let now = Instant::now();
        let mut pause = Pause::after(None, now);
        let mut lengths = Vec::new();
        for _ in 0..9 {
            lengths.push(pause.length.as_millis());
            assert_eq!(pause.until, Some(now + pause.length));
            pause = Pause::after(Some(&pause), now);
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn only_errors_of_one_connection_are_passed_over() {
        const TOO_MANY_OPEN_FILES: i32 = 24;
        let errors = [TOO_MANY_OPEN_FILES].map(io::Error::from_raw_os_error);
        assert!(!errors.iter().any(concerns_one_connection));
        assert!(concerns_one_connection(&io::ErrorKind::ConnectionAborted.into()));
    }

    proptest! {
        #[test]
        fn ages_lie_in_their_range(youngest in 0_u64..1 << 40, spread in 0_u64..1 << 40, random in any::<u128>()) {
            let range = (Duration::from_nanos(youngest), Duration::from_nanos(youngest + spread));
            let age = age_between(range, random);
            prop_assert!(range.0 <= age && age <= range.1);
        }
    }
}
