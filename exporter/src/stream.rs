//! A pool as a stream: what weir tells weir, one JSON object a line ([`weir_datastore::stream`]).
//!
//! The body is made as it is read: a reader that falls behind finds newer data in its next frame, never a queue of old ones, and
//! memory does not grow with it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use weir_datastore::stream::{EndpointFrame, FRAMES_APART, Frame, HEARTBEAT, LatencyFrame, PickerFrame, VERSION};
use weir_datastore::{Datastore, EndpointAddress, FRESH_AT_MOST, PickerView, PoolChanges, PoolId, PoolSnapshot, Selector};

/// On every answer of the stream's route, also on a refusal: it tells a follower that this is a weir.
const MARK: HeaderName = HeaderName::from_static("weir-stream");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");
/// Streams served at once.
const MOST_STREAMS: usize = 64;
/// A frame for a held request comes at once, but not sooner than this after the frame before.
const RISES_APART: Duration = Duration::from_millis(10);
/// The age of a picker that has never been read: beyond any that a reader takes for one.
const NEVER_READ: u64 = u64::MAX;

/// The streams being served, bounded and counted.
#[derive(Clone, Debug)]
pub struct Streams {
    permits: Arc<Semaphore>,
    served: Gauge,
}

impl Streams {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let served = Gauge::default();
        registry.register("weir_stream_served", "Streams of pools being served", served.clone());
        Self { permits: Arc::new(Semaphore::new(MOST_STREAMS)), served }
    }

    /// The answer to a request for the stream of `pool`, which ends once `closing` is cancelled.
    pub(crate) fn answer(&self, datastore: &Datastore, pool: PoolId, closing: Option<CancellationToken>) -> Response {
        let mut generation = datastore.generation();
        generation.mark_unchanged();
        let Some(changes) = datastore.changes(&pool) else {
            return refusal(StatusCode::NOT_FOUND, &super::no_pool(datastore, &pool));
        };
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            let message =
                format!("{MOST_STREAMS} streams are being served, and no more at once: follow another replica, or let one go");
            let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, &message);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            return response;
        };
        self.served.inc();
        let telling = Telling {
            generation,
            datastore: datastore.clone(),
            pool,
            changes,
            closing: closing.unwrap_or_default(),
            version: 0,
            sequence: 0,
            sent_at: Instant::now(),
            looked_at: Instant::now(),
            told: HashMap::new(),
            told_latencies: HashMap::new(),
            pickers: Vec::new(),
            last: None,
            ended: false,
            _served: Served { gauge: self.served.clone(), _permit: permit },
        };
        let body = Body::from_stream(futures_util::stream::unfold(telling, Telling::next));
        ([(header::CONTENT_TYPE, CONTENT_TYPE), (MARK, version())], body).into_response()
    }
}

/// Whether the query of a request asks for the stream.
///
/// # Errors
/// A sentence on a value of `watch` that is neither yes nor no.
pub(crate) fn is_asked_for(query: Option<&str>) -> Result<bool, String> {
    let mut asked_for = false;
    for parameter in query.unwrap_or_default().split('&') {
        asked_for = match parameter.split_once('=').unwrap_or((parameter, "1")) {
            ("watch", "1" | "true") => true,
            ("watch", "0" | "false" | "") => false,
            ("watch", _) => return Err("watch: write watch=1 for the stream, or leave it out for one answer".to_owned()),
            _ => asked_for,
        };
    }
    Ok(asked_for)
}

pub(crate) fn refusal(status: StatusCode, message: &str) -> Response {
    (status, [(MARK, version())], Json(serde_json::json!({ "error": message }))).into_response()
}

fn version() -> HeaderValue {
    HeaderValue::from(VERSION)
}

/// Counts a stream while it lasts.
struct Served {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// One stream.
struct Telling {
    datastore: Datastore,
    pool: PoolId,
    changes: PoolChanges,
    /// Changes when the pool may have gone, or have become another of the same name.
    generation: watch::Receiver<u64>,
    closing: CancellationToken,
    /// Of the pool, as of the last frame that was made.
    version: u64,
    sequence: u64,
    /// When the last frame was sent.
    sent_at: Instant,
    /// When the pool was looked at last, whether or not there was something to tell.
    looked_at: Instant,
    /// When the page of each endpoint was asked for that was told last.
    told: HashMap<EndpointAddress, Instant>,
    /// When each picker summed up what it measured that was told last.
    told_latencies: HashMap<Arc<str>, Instant>,
    /// As told last.
    pickers: Vec<PickerView>,
    /// What the last frame was made of.
    last: Option<PoolSnapshot>,
    ended: bool,
    _served: Served,
}

/// What the wait for the next frame ended with.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Woken {
    /// A held request: to be told in any case.
    Now,
    /// Something was written, perhaps nothing to tell of.
    Changed,
    /// Nothing was told for a while.
    Heartbeat,
    /// The pool is gone.
    Gone,
    /// The server wants the connection to end.
    Closing,
}

impl Telling {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        loop {
            let woken = if self.sequence == 0 { Woken::Now } else { self.wake().await };
            let now = Instant::now();
            // Before the snapshot: what is written in between is looked for once more, never missed.
            let version = self.changes.version();
            let snapshot = match woken {
                Woken::Gone => None,
                _ => self.datastore.snapshot(&self.pool, &Selector::everything(), now),
            };
            self.ended = matches!(woken, Woken::Gone | Woken::Closing) || snapshot.is_none();
            // A pool that is gone is told of a last time as it was: its cells are still there.
            let snapshot = snapshot.or_else(|| self.last.take())?;
            let pickers_before = std::mem::replace(&mut self.pickers, snapshot.pickers.clone());
            let frame = self.frame(&snapshot, now);
            self.last = Some(snapshot);
            self.version = version;
            self.looked_at = now;
            if woken == Woken::Changed
                && frame.endpoints.is_empty()
                && frame.latencies.is_empty()
                && same(&pickers_before, &self.pickers)
            {
                continue;
            }
            self.sequence += 1;
            self.sent_at = now;
            let mut line = match serde_json::to_vec(&frame) {
                Ok(line) => line,
                Err(error) => {
                    tracing::error!(pool = %self.pool, %error, "frame of the stream could not be written");
                    return None;
                }
            };
            line.push(b'\n');
            return Some((Ok(line.into()), self));
        }
    }

    /// Waits until there may be something to tell.
    async fn wake(&mut self) -> Woken {
        let heartbeat_at = self.sent_at + HEARTBEAT;
        let mut look_at = self.looked_at + FRAMES_APART;
        loop {
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return Woken::Closing,
                changed = self.generation.changed() => match self.datastore.changes(&self.pool) {
                    Some(changes) if changed.is_ok() => {
                        // Rises up to here are not waited for any more: they are looked for.
                        self.changes = changes;
                        sleep_until(self.looked_at + RISES_APART).await;
                        return Woken::Changed;
                    }
                    _ => return Woken::Gone,
                },
                () = self.changes.held_rose() => {
                    sleep_until(self.sent_at + RISES_APART).await;
                    return Woken::Now;
                }
                () = sleep_until(look_at.min(heartbeat_at)) => {
                    let now = Instant::now();
                    if now >= heartbeat_at {
                        return Woken::Heartbeat;
                    }
                    if self.changes.version() != self.version {
                        return Woken::Changed;
                    }
                    look_at = now + FRAMES_APART;
                }
            }
        }
    }

    /// What is new of the endpoints, and every picker.
    fn frame(&mut self, snapshot: &PoolSnapshot, now: Instant) -> Frame {
        let mut endpoints: HashMap<&EndpointAddress, EndpointFrame> = HashMap::new();
        for view in &snapshot.endpoints {
            let address = &view.endpoint.spec.address;
            let status = view.endpoint.status();
            let Some(load) = &status.load else { continue };
            let news = self.told.get(address).is_none_or(|told| load.scraped_at > *told);
            if news && now.saturating_duration_since(load.scraped_at) <= FRESH_AT_MOST {
                self.told.insert(address.clone(), load.scraped_at);
                endpoints.insert(address, EndpointFrame::of(address, load, status.interval, now));
            }
        }
        if self.told.len() > snapshot.endpoints.len() {
            let present: std::collections::HashSet<_> = snapshot.endpoints.iter().map(|view| &view.endpoint.spec.address).collect();
            self.told.retain(|address, _| present.contains(address));
        }
        let pickers = snapshot.pickers.iter().map(|picker| match &picker.status.load {
            Some(load) => PickerFrame::of(picker.name.clone(), load, now),
            // It may hold requests: a reader must not take the others for all.
            None => PickerFrame {
                name: picker.name.clone(),
                age_ms: NEVER_READ,
                held: None,
                in_flight: None,
                arrivals: 0,
                prompt_tokens: None,
            },
        });
        let mut latencies = Vec::new();
        for (picker, measured) in snapshot.pickers_measured() {
            if self.told_latencies.insert(picker.clone(), measured.as_of) != Some(measured.as_of) {
                latencies.push(LatencyFrame::of(picker.clone(), measured, now));
            }
        }
        self.told_latencies.retain(|picker, _| snapshot.pickers_measured().any(|(name, _)| name == picker));
        Frame {
            version: VERSION,
            sequence: self.sequence,
            namespace: self.pool.namespace.to_string(),
            name: self.pool.name.to_string(),
            endpoints: endpoints.into_values().collect(),
            pickers: pickers.collect(),
            latencies,
        }
    }
}

fn same(before: &[PickerView], after: &[PickerView]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| before.name == after.name && before.status.load == after.status.load)
}

#[cfg(test)]
mod tests;
