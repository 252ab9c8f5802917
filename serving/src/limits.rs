//! What a request may cost, and what every answer carries.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Body as _;
use rand::{Rng, rngs::StdRng};
use tokio::{sync::Semaphore, time::Instant};

use crate::{Caller, ServeError, ServingMetrics, status};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const MAX_AUDIT_ID: usize = 64;
/// Kubernetes' superusers: the API server's own checks must not be shed, or the whole API counts as down.
pub(crate) const MASTERS: &str = "system:masters";

/// Bounds on requests. The defaults are those of Kubernetes' API server library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests being answered at once, 400; above it 429. Health checks and `system:masters` are not counted. A
    /// streamed answer counts until its head is sent.
    pub in_flight: usize,
    /// Time until the answer's head, 60 s; then 504. The body of a streamed answer may take longer.
    pub deadline: Duration,
    /// Bytes of a request's body, 3 MiB; above it 413.
    pub body_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { in_flight: 400, deadline: Duration::from_secs(60), body_bytes: 3 << 20 }
    }
}

impl RequestLimits {
    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let problem = if self.in_flight == 0 || self.in_flight > Semaphore::MAX_PERMITS {
            Some("in_flight must be at least 1")
        } else if self.deadline.is_zero() {
            Some("deadline must be longer than 0")
        } else {
            None
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(ServeError::Setting { setting: "request limits", problem: problem.into() }),
        }
    }
}

/// The request's audit id: the client's own where it is sane, else a random UUID. A request extension, and the
/// `Audit-Id` header of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditId(Arc<str>);

impl AuditId {
    /// As sent in the answer's header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(request: &Request, random: impl FnOnce() -> u128) -> Self {
        let given = request.headers().get(AUDIT_ID);
        let given = given.and_then(|value| value.to_str().ok());
        match given {
            Some(id) if is_sane(id) => Self(id.into()),
            _ => Self(uuid(random()).into()),
        }
    }
}

/// Short, and nothing that means something in a log, a header or a page.
fn is_sane(id: &str) -> bool {
    (1..=MAX_AUDIT_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A version 4 UUID (RFC 9562 §5.4) from random bits.
fn uuid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

/// Random numbers of one server; a lock held for a few nanoseconds.
pub(crate) type SharedRandom = Arc<Mutex<StdRng>>;

pub(crate) fn draw(random: &SharedRandom) -> u128 {
    let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}

/// The audit id, and no caching unless the handler allows it.
pub(crate) async fn common_headers<F>(random: &SharedRandom, mut request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let id = AuditId::of(&request, || draw(random));
    let value = HeaderValue::from_str(id.as_str());
    request.extensions_mut().insert(id);
    let mut response = next(request).await;
    let headers = response.headers_mut();
    if let Ok(value) = value {
        headers.insert(AUDIT_ID, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    response
}

/// What the panic guard needs.
pub(crate) struct PanicGuard {
    pub(crate) metrics: ServingMetrics,
    pub(crate) component: &'static str,
}

/// A handler that panics answers 500 and nothing of why; the panic's text is where the process' panic hook puts it.
pub(crate) async fn guard_against_panics<F>(guard: &PanicGuard, request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let mut answer = pin!(next(request));
    let outcome = std::future::poll_fn(|context| {
        // After a panic the future is never polled again.
        match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Err(_panic) => Poll::Ready(None),
        }
    });
    match outcome.await {
        Some(response) => response,
        None => {
            guard.metrics.count_panic(guard.component);
            tracing::error!(component = guard.component, "request handler panicked, answered 500");
            status::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "Internal error occurred")
        }
    }
}

/// When the answer's head must be there: a request extension. What asks others on behalf of the request gives up
/// before, so that the caller is told why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDeadline(pub Instant);

impl RequestDeadline {
    /// The last moment to wait for somebody else: nine tenths of the time left at `now`.
    pub fn to_wait(self, now: Instant) -> Instant {
        now + self.0.saturating_duration_since(now) * 9 / 10
    }
}

/// 504 when the answer's head is not there in time.
pub(crate) async fn deadline<F>(deadline: Duration, mut request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    request.extensions_mut().insert(RequestDeadline(Instant::now() + deadline));
    match tokio::time::timeout(deadline, next(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            status::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", "Timeout: request did not complete within the allotted timeout")
        }
    }
}

/// What the bound on requests in flight needs.
pub(crate) struct InFlight {
    pub(crate) permits: Semaphore,
    pub(crate) metrics: ServingMetrics,
    pub(crate) component: &'static str,
}

/// 429 above the limit, at once, so that a client's retry finds another replica.
pub(crate) async fn in_flight<F>(limit: &InFlight, request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let exempt = request.extensions().get::<Caller>().is_some_and(|caller| caller.is_in(MASTERS));
    let permit = if exempt {
        None
    } else {
        match limit.permits.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_full) => return too_many_requests(),
        }
    };
    let counted = limit.metrics.enter(limit.component, request.method());
    let response = next(request).await;
    drop((permit, counted));
    response
}

fn too_many_requests() -> Response {
    let mut response = status::plain(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Layer: 413 for a body announced as too long; one that turns out so fails while it is read.
pub(crate) async fn body_limit(State(limit): State<usize>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > limit as u64 {
        return status::failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            &format!("Request entity too large: limit is {limit}"),
        );
    }
    next.run(request.map(|body| Body::new(http_body_util::Limited::new(body, limit)))).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    fn id_for(given: &[u8]) -> AuditId {
        let value = HeaderValue::from_bytes(given).unwrap();
        let request = Request::builder().header(AUDIT_ID, value);
        AuditId::of(&request.body(Body::empty()).unwrap(), || 0)
    }

    #[test]
    fn a_sane_audit_id_is_kept_and_any_other_replaced() {
        let kept = "7f1a2c3d-0000-4000-8000-00000000abcd";
        assert_eq!(id_for(kept.as_bytes()).as_str(), kept);
        let made = "00000000-0000-4000-8000-000000000000";
        for bad in ["", "a b", "a\"b", &"a".repeat(65), "a/b", "ü"] {
            assert_eq!(id_for(bad.as_bytes()).as_str(), made, "{bad:?}");
        }
        assert_eq!(id_for(b"\xff").as_str(), made);
    }

    #[test]
    fn a_seed_gives_the_same_ids_again() {
        let ids = |seed| {
            let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
            [(); 3].map(|()| uuid(draw(&random)))
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    proptest! {
        #[test]
        fn generated_ids_are_version_4_uuids(random in any::<u128>()) {
            let id = uuid(random);
            prop_assert!(is_sane(&id));
            let groups: Vec<&str> = id.split('-').collect();
            let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
            prop_assert_eq!(lengths, [8, 4, 4, 4, 12]);
            prop_assert!(groups[2].starts_with('4'));
            prop_assert!(groups[3].starts_with(['8', '9', 'a', 'b']));
        }
    }
}
