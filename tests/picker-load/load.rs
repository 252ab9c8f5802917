//! Loads: so many requests at once, or so many a second; what they saw.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::stream::{Times, Traffic, one};

/// How long requests that are in flight at the end may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests of an open load in flight at once; beyond them the load has failed.
const MOST_IN_FLIGHT: usize = 20_000;

/// How requests come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// So many at once, the next one when one has ended.
    Closed(usize),
    /// So many a second, whatever becomes of them; what they take counts from when they were due.
    Open(u64),
}

impl std::fmt::Display for Load {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(at_once) => write!(formatter, "{at_once} in flight"),
            Self::Open(rate) => write!(formatter, "{rate}/s"),
        }
    }
}

/// What the requests of the window saw.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Microseconds from the last message of the request to its pick.
    pub(crate) picks: Vec<u32>,
    /// Microseconds from the request's beginning to its end.
    pub(crate) wholes: Vec<u32>,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that ended within the window, whenever they were due.
    pub(crate) ended: u64,
}

impl Outcome {
    fn add(&mut self, times: Result<Times, String>, due: Option<Instant>) {
        match times {
            Ok(Times { began, asked, picked, ended }) => {
                self.picks.push(micros(picked - due.unwrap_or(asked)));
                self.wholes.push(micros(ended - due.unwrap_or(began)));
            }
            Err(error) => *self.errors.entry(error).or_default() += 1,
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Runs `load` for `warm_up`, then for `window`. `at` is called as the window begins and as it ends.
pub(crate) async fn run(
    load: Load,
    connections: &[SendRequest<Bytes>],
    traffic: &Arc<Traffic>,
    warm_up: Duration,
    window: Duration,
    mut at: impl FnMut(),
) -> Result<Outcome, String> {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let counts = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let begins = Instant::now() + warm_up;
    match load {
        Load::Closed(at_once) => {
            for worker in 0..at_once {
                let connection = connections[worker % connections.len()].clone();
                let (traffic, outcome, counts, over) = (traffic.clone(), outcome.clone(), counts.clone(), over.clone());
                tasks.spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        let times = one(connection.clone(), &traffic).await;
                        let failed = times.is_err();
                        if counts.load(Ordering::Relaxed) || failed {
                            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                            outcome.ended += u64::from(!failed);
                            outcome.add(times, None);
                        }
                        if failed {
                            // Not a million of them.
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                });
            }
        }
        Load::Open(rate) => {
            let mut due = clock(rate, over.clone());
            let connections = connections.to_vec();
            let (traffic, outcome) = (traffic.clone(), outcome.clone());
            tasks.spawn(async move {
                let mut requests = JoinSet::new();
                let mut number = 0;
                while let Some(due) = due.recv().await {
                    while requests.try_join_next().is_some() {}
                    if requests.len() >= MOST_IN_FLIGHT {
                        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                        *outcome.errors.entry(format!("not sent: {MOST_IN_FLIGHT} in flight")).or_default() += 1;
                        continue;
                    }
                    let connection = connections[number % connections.len()].clone();
                    number += 1;
                    let (traffic, outcome) = (traffic.clone(), outcome.clone());
                    requests.spawn(async move {
                        let times = one(connection, &traffic).await;
                        let within = |at: Instant| at >= begins && at < begins + window;
                        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                        outcome.ended += u64::from(times.as_ref().is_ok_and(|times| within(times.ended)));
                        if within(due) || times.is_err() {
                            outcome.add(times, Some(due));
                        }
                    });
                }
                while requests.join_next().await.is_some() {}
            });
        }
    }
    sleep_until(begins).await;
    at();
    counts.store(true, Ordering::Relaxed);
    sleep_until(begins + window).await;
    counts.store(false, Ordering::Relaxed);
    at();
    over.store(true, Ordering::Relaxed);
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(PATIENCE, ended).await.is_err() {
        *outcome.lock().unwrap_or_else(PoisonError::into_inner).errors.entry("never answered".into()).or_default() += 1;
    }
    tasks.abort_all();
    let mut outcome = std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner));
    outcome.picks.sort_unstable();
    outcome.wholes.sort_unstable();
    Ok(outcome)
}

/// Says when requests are due. A thread of its own: the runtime's timers tick in milliseconds.
fn clock(rate: u64, over: Arc<AtomicBool>) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let start = Instant::now();
        for number in 0_u64.. {
            let due = start + Duration::from_nanos(number * 1_000_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if over.load(Ordering::Relaxed) || sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
