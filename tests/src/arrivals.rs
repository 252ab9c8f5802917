//! Requests that come when they come, whatever has become of those before: what a load is, other than users who wait for their answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep_until};

use crate::workload::{Wish, ask};

/// A stretch of a load.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// How long.
    pub seconds: f64,
    /// Requests a second, in the mean: they come at random (Poisson).
    pub rate: f64,
}

#[derive(Debug, Default)]
struct Shared {
    sent: Mutex<Vec<SystemTime>>,
    served: AtomicU64,
    failed: AtomicU64,
    failure: Mutex<Option<String>>,
}

/// A load under way. It ends when dropped.
///
/// Start it on a thread that is in the network in which the servers are.
#[derive(Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
    planned: u64,
    _runtime: Runtime,
}

impl Arrivals {
    /// Begins: requests of about `prompt` tokens, `answer` to be generated, to the `servers` in turn.
    pub fn start(servers: Vec<SocketAddr>, phases: &[Phase], prompt: usize, answer: u32) -> Self {
        weir_serving::install_crypto_provider();
        let plan = plan(phases);
        let planned = plan.len() as u64;
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        let notes = shared.clone();
        runtime.spawn(async move {
            let origin = Instant::now();
            for (index, at) in plan.into_iter().enumerate() {
                sleep_until(origin + at).await;
                let (client, server, notes) = (client.clone(), servers[index % servers.len()], notes.clone());
                tokio::spawn(async move {
                    notes.sent.lock().expect("nobody panics while it holds this").push(SystemTime::now());
                    match ask(&client, server, (0, index), Wish { prompt, answer, streams: false }).await {
                        Ok(()) => notes.served.fetch_add(1, Ordering::Relaxed),
                        Err(failure) => {
                            *notes.failure.lock().expect("nobody panics while it holds this") = Some(format!("{failure:?}"));
                            notes.failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                });
            }
        });
        Self { shared, planned, _runtime: runtime }
    }

    /// When the requests were sent, as far as they were.
    pub fn sent(&self) -> Vec<SystemTime> {
        self.shared.sent.lock().expect("nobody panics while it holds this").clone()
    }

    /// How many were answered, and how many otherwise came to an end.
    pub fn ended(&self) -> (u64, u64) {
        (self.shared.served.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// Once all have come to an end: how many were answered and how many were not.
    ///
    /// # Errors
    /// How far it is.
    pub fn all_ended(&self) -> Result<(u64, u64), String> {
        let (served, failed) = self.ended();
        let failure = self.shared.failure.lock().expect("nobody panics while it holds this").clone();
        if served + failed == self.planned {
            return Ok((served, failed));
        }
        Err(format!("{served} served and {failed} not, of {}: {}", self.planned, failure.unwrap_or_default()))
    }
}

/// When requests come, after the start.
fn plan(phases: &[Phase]) -> Vec<Duration> {
    let mut rng = StdRng::seed_from_u64(7);
    let (mut times, mut begin) = (Vec::new(), 0.0);
    for phase in phases {
        let mut at = begin;
        begin += phase.seconds;
        // Without requests the first would come after for ever.
        loop {
            at += -(1.0 - rng.random::<f64>()).ln() / phase.rate;
            if at.is_nan() || at >= begin {
                break;
            }
            times.push(Duration::from_secs_f64(at));
        }
    }
    times
}
