//! A stream of another weir, from its request to its end.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};
use url::Url;
use weir_datastore::stream::{Frame, FrameError, SILENCE};
use weir_datastore::{FailureKind, PoolId};

use super::lines::Lines;
use super::metrics::{Followed, StreamMetrics};
use crate::client::chunk;
use crate::connection::Ready;
use crate::failure::{Progress, ScrapeFailure};

/// What a weir's answers carry that are about a stream, refusals too.
const MARK: &str = "weir-stream";
const FRAMES: &str = "application/x-ndjson";
/// Of a refusal so much is read and told.
const REFUSAL_BYTES: usize = 1024;
/// Pickers that one frame may tell of.
const MOST_PICKERS: usize = 1024;
/// Bytes of a picker's name.
const LONGEST_NAME: usize = 512;
/// More requests than any picker can hold.
const MOST_REQUESTS: u64 = 1_000_000_000_000_000;

/// What is at the place of a stream.
pub(crate) enum Found {
    /// A stream.
    Stream(Box<Stream>),
    /// A server, but none that speaks of streams.
    NoStream,
}

/// How a stream ended.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Ended {
    /// By the other side, in order: it drains, or its connection got old.
    #[error("the other weir closed the stream")]
    Closed,
    /// The connection broke.
    #[error("the connection broke ({0})")]
    Broken(String),
    /// Nothing came for [`SILENCE`].
    #[error(
        "nothing was heard for {SILENCE:?}, though a word is due every second: the other weir hangs, or the network drops packets"
    )]
    Silent,
    /// Frames are missing.
    #[error("frame {found} came where {expected} was due: does something between the weirs change the stream?")]
    Gap {
        /// The frame that was due.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// A line that does not end.
    #[error("a frame is longer than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A line that is no frame of the pool.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What is said of pickers cannot be true.
    #[error("frame {sequence} says of pickers what cannot be true: {problem}")]
    Pickers {
        /// Which frame.
        sequence: u64,
        /// What is wrong.
        problem: String,
    },
}

impl Ended {
    /// Every reason, and that of a stream that could not be opened.
    pub(crate) const REASONS: [&str; 9] =
        ["closed", "broken", "silence", "gap", "too_large", "malformed", "version", "pool", Self::NOT_OPENED];
    /// The reason where a stream could not be opened again.
    pub(crate) const NOT_OPENED: &str = "not_opened";

    /// The label on our own page.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::Silent => "silence",
            Self::Gap { .. } => "gap",
            Self::TooLong { .. } => "too_large",
            Self::Frame(FrameError::Version { .. }) => "version",
            Self::Frame(FrameError::Pool { .. }) => "pool",
            Self::Frame(_) | Self::Pickers { .. } => "malformed",
        }
    }

    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Closed | Self::Broken(_) | Self::Gap { .. } => FailureKind::Transfer,
            Self::Silent => FailureKind::Timeout,
            Self::TooLong { .. } => FailureKind::TooLarge,
            Self::Frame(_) | Self::Pickers { .. } => FailureKind::NotMetrics,
        }
    }
}

/// A stream that is being followed.
pub(crate) struct Stream {
    body: Incoming,
    pool: PoolId,
    lines: Lines,
    limit: usize,
    expected: u64,
    heard_at: Instant,
    metrics: StreamMetrics,
    _followed: Followed,
}

/// Where the stream of `pool` would be, on the server of `page`.
pub(crate) fn stream_url(page: &Url, pool: &PoolId) -> Url {
    let mut url = page.clone();
    url.set_path(&format!("/api/v1/pools/{}/{}", pool.namespace, pool.name));
    url.set_query(Some("watch=1"));
    url.set_fragment(None);
    url
}

/// Asks for the stream of `pool` at `url`, whose frames have at most `limit` bytes.
pub(crate) async fn open(
    ready: &Ready,
    url: &Url,
    pool: &PoolId,
    timeout: Duration,
    limit: usize,
    metrics: &StreamMetrics,
) -> Result<Found, ScrapeFailure> {
    let asked = async {
        let accept = HeaderValue::from_static(FRAMES);
        let response = match ready.client.get_as(accept, url, ready.authorization.as_ref()).await {
            Ok(response) => response,
            Err(error) => return Err(ScrapeFailure::of_transport(url, &error, timeout, Progress::Asked)),
        };
        let is_weir = response.headers().contains_key(MARK);
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let frames = content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(FRAMES));
        match response.status() {
            StatusCode::OK if frames => Ok(Some(response.into_body())),
            status if is_weir => Err(refused(url, status, response.into_body()).await),
            _ => Ok(None),
        }
    };
    let body = match tokio::time::timeout(timeout, asked).await {
        Ok(asked) => asked?,
        Err(_) => return Err(ScrapeFailure::of_timeout(url, timeout, Progress::Asked)),
    };
    let Some(body) = body else { return Ok(Found::NoStream) };
    Ok(Found::Stream(Box::new(Stream {
        body,
        pool: pool.clone(),
        lines: Lines::new(limit),
        limit,
        expected: 0,
        heard_at: Instant::now(),
        metrics: metrics.clone(),
        _followed: metrics.following(),
    })))
}

/// What a weir says to a request for a stream that it does not serve.
async fn refused(url: &Url, status: StatusCode, mut body: Incoming) -> ScrapeFailure {
    let mut said = Vec::new();
    while said.len() < REFUSAL_BYTES {
        match chunk(&mut body).await {
            Ok(Some(chunk)) => said.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES)]),
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&said);
    let text = text.trim().trim_start_matches("{\"error\":\"").trim_end_matches("\"}");
    let hint = match status {
        StatusCode::NOT_FOUND => ": is the pool in the other weir's pools.yaml, under the same namespace and name?",
        _ => "",
    };
    ScrapeFailure::new(FailureKind::Status, url.as_str(), &format!("HTTP {status}: {text}{hint}"))
}

impl Stream {
    /// The next frame, checked, and when it was heard. Nothing is lost where the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<(Frame, Instant), Ended> {
        loop {
            let line = self.lines.next().map_err(|_| Ended::TooLong { limit: self.limit })?;
            if let Some(line) = line {
                let frame = Frame::parse(line)?;
                self.check(&frame)?;
                self.expected += 1;
                self.heard_at = Instant::now();
                self.metrics.frames.inc();
                return Ok((frame, self.heard_at));
            }
            let chunk = tokio::select! {
                chunk = chunk(&mut self.body) => chunk,
                // Of whole frames: bytes that trickle in are none.
                () = sleep_until(self.heard_at + SILENCE) => return Err(Ended::Silent),
            };
            match chunk {
                Ok(Some(chunk)) => {
                    self.metrics.bytes.inc_by(chunk.len() as u64);
                    self.lines.push(&chunk);
                }
                Ok(None) => return Err(Ended::Closed),
                Err(error) => return Err(Ended::Broken(error.to_string())),
            }
        }
    }

    fn check(&self, frame: &Frame) -> Result<(), Ended> {
        check(frame, self.expected, &self.pool)
    }
}

/// Whether `frame` is number `expected` of the stream of `pool`, and what it says of pickers can be true.
fn check(frame: &Frame, expected: u64, pool: &PoolId) -> Result<(), Ended> {
    if (frame.namespace.as_str(), frame.name.as_str()) != (&*pool.namespace, &*pool.name) {
        let bounded = |text: &str| text.chars().take(64).collect::<String>();
        let found = format!("{}/{}", bounded(&frame.namespace), bounded(&frame.name));
        return Err(FrameError::Pool { wanted: pool.to_string(), found }.into());
    }
    if frame.sequence != expected {
        return Err(Ended::Gap { expected, found: frame.sequence });
    }
    let wrong = |problem: String| Err(Ended::Pickers { sequence: frame.sequence, problem });
    if frame.pickers.len() > MOST_PICKERS {
        return wrong(format!("{} of them", frame.pickers.len()));
    }
    for picker in &frame.pickers {
        if picker.name.is_empty() || picker.name.len() > LONGEST_NAME {
            return wrong(format!("a name of {} bytes", picker.name.len()));
        }
        if picker.held.is_some_and(|held| held > MOST_REQUESTS) || picker.arrivals > MOST_REQUESTS {
            return wrong(format!("{:?} requests held, {} arrived", picker.held, picker.arrivals));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_datastore::stream::{PickerFrame, VERSION};

    use super::*;

    fn frame(sequence: u64) -> Frame {
        let picker = PickerFrame { name: "a".into(), age_ms: 5, held: Some(1), in_flight: None, arrivals: 2, prompt_tokens: None };
        Frame {
            version: VERSION,
            sequence,
            namespace: "default".into(),
            name: "p".into(),
            endpoints: Vec::new(),
            pickers: vec![picker],
            latencies: Vec::new(),
        }
    }

    #[test]
    fn only_the_next_frame_of_the_pool_is_taken() {
        let pool = PoolId::new("default", "p");
        assert_eq!(check(&frame(0), 0, &pool), Ok(()));
        assert_eq!(check(&frame(7), 7, &pool), Ok(()));
        assert_eq!(check(&frame(8), 7, &pool), Err(Ended::Gap { expected: 7, found: 8 }));
        assert_eq!(check(&frame(6), 7, &pool).unwrap_err().reason(), "gap");
        let other = check(&frame(0), 0, &PoolId::new("default", "q")).unwrap_err();
        assert_eq!((other.reason(), other.to_string().as_str()), ("pool", "of pool default/p, not of default/q"));
    }

    #[test]
    fn pickers_that_cannot_be_are_refused() {
        let pool = PoolId::new("default", "p");
        let refused = |change: fn(&mut Frame)| {
            let mut changed = frame(0);
            change(&mut changed);
            check(&changed, 0, &pool).unwrap_err().to_string()
        };
        assert!(refused(|frame| frame.pickers[0].held = Some(u64::MAX)).contains("18446744073709551615"));
        assert!(refused(|frame| frame.pickers[0].name = "".into()).contains("a name of 0 bytes"));
        assert!(refused(|frame| frame.pickers = vec![frame.pickers[0].clone(); 1025]).contains("1025 of them"));
    }

    #[test]
    fn the_stream_is_on_the_server_of_the_page() {
        let page = Url::parse("https://[::1]:9090/some/metrics?x=y").unwrap();
        let url = stream_url(&page, &PoolId::new("team-a", "llama"));
        assert_eq!(url.as_str(), "https://[::1]:9090/api/v1/pools/team-a/llama?watch=1");
    }

    #[test]
    fn every_end_has_a_reason_that_is_on_the_page_from_the_start() {
        let ends = [
            Ended::Closed,
            Ended::Broken("reset".into()),
            Ended::Silent,
            Ended::Gap { expected: 1, found: 3 },
            Ended::TooLong { limit: 1 },
            FrameError::Malformed("x".into()).into(),
            FrameError::Version { found: 2 }.into(),
            FrameError::Pool { wanted: "a/b".into(), found: "a/c".into() }.into(),
            Ended::Pickers { sequence: 0, problem: "x".into() },
        ];
        for end in ends {
            assert!(Ended::REASONS.contains(&end.reason()), "{end:?}");
        }
    }
}
