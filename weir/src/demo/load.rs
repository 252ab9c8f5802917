//! The users of the demo: chat requests over HTTP, to the picker, at a rate that rises, falls, and is nothing for a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deployment::MODEL;

/// Requests per second while little is going on.
const QUIET: f64 = 1.0;

/// Requests per second after the silence.
const BACK: f64 = 4.0;

/// Requests per second at the top.
const BUSY: f64 = 12.0;

/// Tokens each answer has.
const ANSWER_TOKENS: u32 = 48;

/// Characters of a prompt, about 350 tokens.
const PROMPT_CHARACTERS: usize = 1400;

/// Requests under way at once, at most: a bound for the demo's own memory and sockets.
const MOST_UNDER_WAY: usize = 400;

/// A load that rises, falls and is silent once per cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    cycle: Duration,
}

impl Shape {
    /// Rises, falls and is silent once in `cycle`.
    pub(crate) fn new(cycle: Duration) -> Self {
        Self { cycle }
    }

    /// Requests per second at `elapsed`: quiet, a rise, a plateau, a fall, nothing for as long as it takes to go to zero, some.
    pub(crate) fn rate(self, elapsed: Duration) -> f64 {
        let position = (elapsed.as_secs_f64() / self.cycle.as_secs_f64()).fract();
        let share = match position {
            rising if rising < 0.04 => 0.0,
            rising if rising < 0.2 => (rising - 0.04) / 0.16,
            plateau if plateau < 0.34 => 1.0,
            falling if falling < 0.42 => (0.42 - falling) / 0.08,
            silent if silent < 0.74 => return 0.0,
            _ => return BACK,
        };
        QUIET + (BUSY - QUIET) * share
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    /// Sent.
    pub(crate) sent: u64,
    /// Answered with 200 and whole.
    pub(crate) served: u64,
    /// Refused by a full server (429).
    pub(crate) refused: u64,
    /// Anything else.
    pub(crate) failed: u64,
    /// What the last failure was.
    pub(crate) last_failure: Option<String>,
}

#[derive(Default)]
struct Shared {
    sent: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    last_failure: std::sync::Mutex<Option<String>>,
}

/// Users at work.
pub(crate) struct Users {
    shared: Arc<Shared>,
    shape: Shape,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Users {
    /// Starts sending to `picker`.
    pub(crate) fn start(shape: Shape, picker: SocketAddr, seed: u64, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared::default());
        let stop = stop.child_token();
        let task = tokio::spawn(send(shape, format!("http://{picker}").into(), seed, shared.clone(), stop.clone()));
        Self { shared, shape, stop, task }
    }

    /// Requests per second that the users send at `elapsed`.
    pub(crate) fn rate(&self, elapsed: Duration) -> f64 {
        self.shape.rate(elapsed)
    }

    /// What became of the requests so far.
    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.shared.sent),
            served: read(&self.shared.served),
            refused: read(&self.shared.refused),
            failed: read(&self.shared.failed),
            last_failure: self.shared.last_failure.lock().ok().and_then(|failure| failure.clone()),
        }
    }

    /// Stops sending and drops what is under way.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A panic of the task is one of the demo's own; its requests are then missing from the counts and show there.
        drop(self.task.await);
    }
}

async fn send(shape: Shape, picker: Arc<str>, seed: u64, shared: Arc<Shared>, stop: CancellationToken) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap_or_default();
    let mut random = StdRng::seed_from_u64(seed);
    let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
    let mut requests = JoinSet::new();
    let started = Instant::now();
    let mut next = started;
    loop {
        // Exponential gaps of the busiest load, thinned to that of the moment: arrivals are as uneven as real ones.
        let gap = -random.random_range(f64::EPSILON..1.0).ln() / BUSY;
        next += Duration::from_secs_f64(gap);
        if random.random_range(0.0..BUSY) >= shape.rate(next - started) {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(next) => {}
        }
        while requests.try_join_next().is_some() {}
        let Ok(permit) = under_way.clone().try_acquire_owned() else { continue };
        // Prompts that share no beginning, so that the prefix cache does not make them free.
        let prompt: String = (0..PROMPT_CHARACTERS).map(|_| random.random_range('a'..='z')).collect();
        let (client, shared, picker) = (client.clone(), shared.clone(), picker.clone());
        shared.sent.fetch_add(1, Ordering::Relaxed);
        requests.spawn(async move {
            ask(&client, &picker, &prompt, &shared).await;
            drop(permit);
        });
    }
}

async fn ask(client: &reqwest::Client, url: &str, prompt: &str, shared: &Shared) {
    let body = serde_json::json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": ANSWER_TOKENS,
        "stream": true,
    });
    let request =
        client.post(format!("{url}/v1/chat/completions")).header("content-type", "application/json").body(body.to_string());
    let failure = match request.send().await {
        Ok(response) if response.status() == 200 => match whole(response).await {
            Ok(()) => {
                shared.served.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => format!("{url}: {error}"),
        },
        Ok(response) if response.status() == 429 => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Ok(response) => format!("{url}: status {}", response.status()),
        Err(error) => format!("{url}: {error}"),
    };
    shared.failed.fetch_add(1, Ordering::Relaxed);
    if let Ok(mut last) = shared.last_failure.lock() {
        *last = Some(failure);
    }
}

/// Reads a streamed answer to its end.
async fn whole(mut response: reqwest::Response) -> Result<(), String> {
    let (mut last, mut refused) = (Vec::new(), false);
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                // A refusal after comments is an event.
                refused |= piece.starts_with(b"data: {\"error\"");
                last = piece.to_vec();
            }
            Ok(None) if refused => return Err(format!("refused: {}", String::from_utf8_lossy(&last).trim())),
            Ok(None) if last.ends_with(b"data: [DONE]\n\n") => return Ok(()),
            Ok(None) => return Err("the answer ended before its end".into()),
            Err(error) => return Err(format!("the answer broke off: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_rises_and_falls_once_a_cycle_and_leaves_time_to_go_to_zero() {
        let shape = Shape::new(Duration::from_secs(60));
        let rate = |seconds| shape.rate(Duration::from_secs(seconds));
        assert_eq!((rate(0), rate(15), rate(30), rate(44), rate(59)), (QUIET, BUSY, 0.0, 0.0, BACK));
        assert!(rate(10) > QUIET && rate(10) < BUSY);
        assert_eq!(rate(75), rate(15), "it repeats");
    }
}
