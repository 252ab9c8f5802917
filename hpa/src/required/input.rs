//! What one turn sees of a pool.

use std::time::Duration;

/// A pool in one second. Counters only grow; a smaller one is a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Second {
    /// Time since any epoch, the same for all turns. The daily profile takes it for Unix time: a day begins at UTC midnight.
    pub now: Duration,
    /// The endpoint pickers in front of the pool.
    pub pickers: Pickers,
    /// The ready endpoints; `None` while discovery does not know them.
    pub endpoints: Option<Vec<Endpoint>>,
    /// Endpoints created, not ready, not terminating.
    pub pending: u32,
    /// How long the pods took from creation to first being ready that became so since the last turn.
    pub started: Vec<Duration>,
}

/// The pickers in front of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Pickers {
    /// There is none: clients reach the servers directly.
    #[default]
    None,
    /// There are some, and they cannot be read.
    Unreadable,
    /// What each says.
    Read(Vec<Picker>),
}

/// One picker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Picker {
    /// Which one it is: stays the same over turns.
    pub id: u64,
    /// Requests it holds back now.
    pub held: f64,
    /// Requests that arrived since its start; `None` where it does not tell (the Go picker's page).
    pub arrivals: Option<f64>,
    /// Their prompt tokens.
    pub prompt_tokens: Option<f64>,
}

/// One ready endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Endpoint {
    /// Which one it is: stays the same over turns, and changes with the pod.
    pub id: u64,
    /// Since when it is ready.
    pub ready_for: Duration,
    /// What its page says; `None` when it is not readable or too old.
    pub load: Option<Load>,
}

/// An endpoint's page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests running.
    pub running: f64,
    /// Requests waiting.
    pub waiting: f64,
    /// KV cache use, 0 to 1.
    pub kv: f64,
    /// Prompt tokens computed since its start.
    pub prompt_tokens: Option<f64>,
    /// Tokens generated since its start.
    pub generated_tokens: Option<f64>,
    /// Requests that had their first token since its start (the count of the histogram of times to first token).
    pub first_tokens: Option<f64>,
    /// Requests that ended since its start.
    pub completed: Option<f64>,
}

fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

fn is_counter(value: Option<f64>) -> bool {
    value.is_none_or(is_amount)
}

impl Load {
    /// Whether all of it are numbers a page may show.
    pub(super) fn is_sound(&self) -> bool {
        [self.running, self.waiting, self.kv].into_iter().all(is_amount)
            && [self.prompt_tokens, self.generated_tokens, self.first_tokens, self.completed].into_iter().all(is_counter)
    }
}

impl Picker {
    /// Whether all of it are numbers a page may show.
    pub(super) fn is_sound(&self) -> bool {
        is_amount(self.held) && is_counter(self.arrivals) && is_counter(self.prompt_tokens)
    }
}
