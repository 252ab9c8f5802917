//! The users of the demo: chat requests over HTTP at a rate that rises and falls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deployment::ServerUrl;

/// Requests per second while little is going on.
const QUIET: f64 = 1.0;

/// Requests per second at the top.
const BUSY: f64 = 12.0;

/// Tokens each answer has.
const ANSWER_TOKENS: u32 = 48;

/// Characters of a prompt, about 350 tokens.
const PROMPT_CHARACTERS: usize = 1400;

/// Requests under way at once, at most: a bound for the demo's own memory and sockets.
const MOST_UNDER_WAY: usize = 400;

/// A load that rises and falls once per cycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    cycle: Duration,
}

impl Shape {
    /// Rises and falls once in `cycle`.
    pub(crate) fn new(cycle: Duration) -> Self {
        Self { cycle }
    }

    /// Requests per second at `elapsed`: quiet, a rise, a plateau, a fall, quiet for as long as scaling down takes.
    pub(crate) fn rate(self, elapsed: Duration) -> f64 {
        let position = (elapsed.as_secs_f64() / self.cycle.as_secs_f64()).fract();
        let share = match position {
            rising if rising < 0.06 => 0.0,
            rising if rising < 0.3 => (rising - 0.06) / 0.24,
            plateau if plateau < 0.45 => 1.0,
            falling if falling < 0.55 => (0.55 - falling) / 0.1,
            _ => 0.0,
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
    /// Starts sending to `servers` in turn.
    pub(crate) fn start(shape: Shape, servers: watch::Receiver<Vec<ServerUrl>>, seed: u64, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared::default());
        let stop = stop.child_token();
        let task = tokio::spawn(send(shape, servers, seed, shared.clone(), stop.clone()));
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

async fn send(shape: Shape, servers: watch::Receiver<Vec<ServerUrl>>, seed: u64, shared: Arc<Shared>, stop: CancellationToken) {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap_or_default();
    let mut random = StdRng::seed_from_u64(seed);
    let under_way = Arc::new(Semaphore::new(MOST_UNDER_WAY));
    let mut requests = JoinSet::new();
    let started = Instant::now();
    let mut next = started;
    for number in 0u64.. {
        // Exponential gaps: arrivals are as uneven as real ones.
        let gap = -random.random_range(f64::EPSILON..1.0).ln() / shape.rate(started.elapsed());
        next += Duration::from_secs_f64(gap);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(next) => {}
        }
        while requests.try_join_next().is_some() {}
        let Ok(permit) = under_way.clone().try_acquire_owned() else { continue };
        let url = {
            let servers = servers.borrow();
            match servers.len() {
                0 => continue,
                count => servers[number as usize % count].clone(),
            }
        };
        // Prompts that share no beginning, so that the prefix cache does not make them free.
        let prompt: String = (0..PROMPT_CHARACTERS).map(|_| random.random_range('a'..='z')).collect();
        let (client, shared) = (client.clone(), shared.clone());
        shared.sent.fetch_add(1, Ordering::Relaxed);
        requests.spawn(async move {
            ask(&client, &url, &prompt, &shared).await;
            drop(permit);
        });
    }
}

async fn ask(client: &reqwest::Client, url: &str, prompt: &str, shared: &Shared) {
    let body = serde_json::json!({
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": ANSWER_TOKENS,
        "stream": true,
    });
    let request =
        client.post(format!("{url}/v1/chat/completions")).header("content-type", "application/json").body(body.to_string());
    let failure = match request.send().await {
        Ok(mut response) if response.status() == 200 => loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    shared.served.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(error) => break format!("{url}: the answer broke off: {error}"),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_rises_and_falls_once_a_cycle_and_leaves_time_to_scale_down() {
        let shape = Shape::new(Duration::from_secs(60));
        let rate = |seconds| shape.rate(Duration::from_secs(seconds));
        assert_eq!((rate(0), rate(20), rate(40), rate(59)), (QUIET, BUSY, QUIET, QUIET));
        assert!(rate(10) > QUIET && rate(10) < BUSY);
        assert_eq!(rate(80), rate(20), "it repeats");
    }
}
