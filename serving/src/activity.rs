//! What a connection is doing: its requests in flight, its bytes that arrive and those that do not leave.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::Body;
use http::Version;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::ConnectionLimits;

/// Why a connection ended; label of `weir_serving_closed_connections`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client closed it, or both sides agreed to.
    Finished,
    /// Nothing was asked for too long.
    Idle,
    /// A request's head did not arrive in time.
    HeaderTimeout,
    /// The client stopped reading.
    Stalled,
    /// Told to go away for its age.
    Age,
    /// Told to go away by a layer or the drain.
    Asked,
    /// The transport or the protocol broke.
    Broken,
    /// Cut at the end of the drain.
    Cut,
    /// The TLS handshake failed.
    Handshake,
    /// Made room for a newer one before anything allowed was asked over it.
    Evicted,
}

impl Ended {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header_timeout",
            Self::Stalled => "stalled",
            Self::Age => "age",
            Self::Asked => "asked",
            Self::Broken => "broken",
            Self::Cut => "cut",
            Self::Handshake => "handshake",
            Self::Evicted => "evicted",
        }
    }
}

/// What a connection was doing, and since when.
#[derive(Clone, Debug)]
struct Observed {
    opened: Instant,
    requests_in_flight: usize,
    requests_begun: u64,
    http1: bool,
    idle_since: Instant,
    head_begun: Option<Instant>,
    write_blocked: Option<Instant>,
}

impl Observed {
    /// When the connection has to end if nothing more happens, and why. `told` is since when it is asked to go.
    fn expiry(&self, limits: &ConnectionLimits, told: Option<Instant>) -> Option<(Instant, Ended)> {
        if let Some(since) = self.write_blocked {
            return Some((since + limits.write_stall, Ended::Stalled));
        }
        if self.requests_in_flight > 0 {
            return None;
        }
        if let Some(told) = told {
            return Some((told.max(self.idle_since) + limits.linger, Ended::Asked));
        }
        if self.requests_begun == 0 {
            return Some((self.opened + limits.header_read, Ended::HeaderTimeout));
        }
        match self.head_begun {
            Some(since) if self.http1 => Some((since + limits.header_read, Ended::HeaderTimeout)),
            _ => Some((self.idle_since + limits.idle, Ended::Idle)),
        }
    }
}

/// Shared by a connection's transport, its requests and the task that drives it.
#[derive(Debug)]
pub(crate) struct Activity {
    observed: Mutex<Observed>,
    /// Told when the expiry may have moved.
    pub(crate) changed: Notify,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            observed: Mutex::new(Observed {
                opened: now,
                requests_in_flight: 0,
                requests_begun: 0,
                http1: true,
                idle_since: now,
                head_begun: None,
                write_blocked: None,
            }),
            changed: Notify::new(),
        })
    }

    pub(crate) fn requests_in_flight(&self) -> usize {
        self.observe().requests_in_flight
    }

    /// When the connection has to end if nothing more happens, and why; never while a request is being answered.
    pub(crate) fn expiry(&self, limits: &ConnectionLimits, told: Option<Instant>) -> Option<(Instant, Ended)> {
        self.observe().expiry(limits, told)
    }

    fn observe(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> RequestInFlight {
        let mut observed = self.observe();
        observed.requests_in_flight += 1;
        observed.requests_begun += 1;
        observed.http1 = version < Version::HTTP_2;
        observed.head_begun = None;
        let first = observed.requests_in_flight == 1;
        drop(observed);
        if first {
            // The wait for a request is over: its end must not cut the one that came.
            self.changed.notify_one();
        }
        RequestInFlight(Arc::clone(self))
    }

    fn bytes_arrived(&self, now: Instant) {
        let mut observed = self.observe();
        if observed.requests_in_flight == 0 && observed.head_begun.is_none() {
            observed.head_begun = Some(now);
            self.changed.notify_one();
        }
    }

    fn wrote(&self, blocked: bool, now: Instant) {
        let mut observed = self.observe();
        match (blocked, observed.write_blocked) {
            (true, None) => {
                observed.write_blocked = Some(now);
                self.changed.notify_one();
            }
            (false, Some(_)) => {
                observed.write_blocked = None;
                self.changed.notify_one();
            }
            _ => {}
        }
    }
}

/// A request from its head to the last byte of its answer handed to the transport.
pub(crate) struct RequestInFlight(Arc<Activity>);

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let mut observed = self.0.observe();
        observed.requests_in_flight = observed.requests_in_flight.saturating_sub(1);
        observed.idle_since = Instant::now();
        let last = observed.requests_in_flight == 0;
        drop(observed);
        if last {
            // While others are answered, nothing ends by itself.
            self.0.changed.notify_one();
        }
    }
}

/// An answer's body that keeps its request in flight.
pub(crate) struct TrackedBody {
    body: Body,
    _in_flight: RequestInFlight,
}

impl TrackedBody {
    pub(crate) fn new(body: Body, in_flight: RequestInFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl HttpBody for TrackedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A transport that tells when bytes arrive and when they do not leave.
pub(crate) struct Watched<T> {
    transport: T,
    activity: Arc<Activity>,
}

impl<T> Watched<T> {
    pub(crate) fn new(transport: T, activity: Arc<Activity>) -> Self {
        Self { transport, activity }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.transport).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.bytes_arrived(Instant::now());
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    fn watch<R>(&self, outcome: Poll<R>) -> Poll<R> {
        self.activity.wrote(outcome.is_pending(), Instant::now());
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.watch(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.transport).poll_write_vectored(context, parts);
        self.watch(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.transport).poll_flush(context);
        self.watch(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.transport).poll_shutdown(context);
        self.watch(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn observed(opened: Instant) -> Observed {
        Observed {
            opened,
            requests_in_flight: 0,
            requests_begun: 0,
            http1: true,
            idle_since: opened,
            head_begun: None,
            write_blocked: None,
        }
    }

    #[test]
    fn each_state_of_a_connection_has_its_end() {
        let limits = ConnectionLimits::default();
        let start = Instant::now();
        let fresh = observed(start);
        assert_eq!(
            fresh.expiry(&limits, None),
            Some((start + limits.header_read, Ended::HeaderTimeout)),
            "a client that never asks"
        );
        let answering = Observed { requests_in_flight: 1, requests_begun: 1, ..fresh.clone() };
        assert_eq!(answering.expiry(&limits, None), None);
        assert_eq!(answering.expiry(&limits, Some(start)), None, "let it end");
        let idle = Observed { requests_begun: 1, idle_since: start + SECOND, ..fresh.clone() };
        let idle_end = Some((start + SECOND + limits.idle, Ended::Idle));
        assert_eq!(idle.expiry(&limits, None), idle_end);
        let trickling = Observed { head_begun: Some(start + 2 * SECOND), ..idle.clone() };
        assert_eq!(trickling.expiry(&limits, None), Some((start + 2 * SECOND + limits.header_read, Ended::HeaderTimeout)));
        let pinging = Observed { http1: false, ..trickling };
        assert_eq!(pinging.expiry(&limits, None), idle_end, "frames that are no request");
        assert_eq!(idle.expiry(&limits, Some(start)), Some((start + SECOND + limits.linger, Ended::Asked)));
        let stuck = Observed { write_blocked: Some(start), ..answering };
        assert_eq!(stuck.expiry(&limits, Some(start)), Some((start + limits.write_stall, Ended::Stalled)));
    }
}
