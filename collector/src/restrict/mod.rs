//! Whether an endpoint is asked for its whole page or for the wanted names alone: pure.
//!
//! A page with `?name[]=` costs a server in Python a hundredth of the whole one: prometheus_client's ASGI app collects only what was
//! asked for. The same library over several processes (SGLang; vLLM with several API servers) finds nothing under any name and answers
//! 200 with no bytes; other servers do not know the parameter. So nothing is taken on trust: a restricted page must once have shown
//! every wanted series of a whole page read right before it, and must go on to show every family that was ever seen on one. Whatever
//! else it does, the whole page is asked for at once, so that no failure of a restricted page is ever a failure of the endpoint.
//!
//! ```text
//!              trial agrees
//!   Untried ───────────────────► Trusted ──┐ restricted page good
//!    ▲  │ ▲                       │  ▲  ▲  │
//!    │  │ └───────────────────────┘  │  └──┘
//!    │  │   bad page, other process  │
//!    │  │                            │
//!    │  └────────► Refused ──────────┘
//!    │  trial disagrees,   a trial an hour later, or after
//!    └─ three losses       the counters fell, agrees
//!       unreachable (from everywhere)
//! ```

mod names;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::Counters;
use weir_datastore::FailureKind;
use weir_datastore::page::FamilyIndex;

pub(crate) use names::{Glance, Names, NamesInUse, Sighting};

/// How long the outcome of a trial counts.
pub(crate) const RETEST: Duration = Duration::from_secs(3600);
/// How often trust may be lost before the server is asked for whole pages until the next trial is due.
const MOST_FALLS: u32 = 3;
/// A restricted page must be smaller than the whole one by this factor, or it is not worth the while.
const SMALLER: usize = 2;

/// What is known of an endpoint's restricted pages.
#[derive(Clone, Debug)]
pub(crate) struct Restriction {
    state: State,
    retest: Duration,
    /// How often trust was lost, or the server started anew, since the last trial that was due.
    falls: u32,
    /// Trust was lost, and no whole page was read since.
    fallen: bool,
    /// On the last page: they fall when a server starts anew.
    counters: Counters,
}

#[derive(Clone, Debug)]
enum State {
    /// No trial since the server was found, lost or started anew.
    Untried,
    /// Restricted pages are right.
    Trusted {
        /// What every restricted page must show.
        expected: BTreeSet<FamilyIndex>,
        started: Option<f64>,
        tried_at: Instant,
    },
    /// Restricted pages are of no use.
    Refused { tried_at: Instant },
}

/// What is wrong with a restricted page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Flaw {
    /// No bytes: what several processes answer.
    Empty,
    /// Not every wanted family or series is there; the first one that is missing.
    Missing(FamilyIndex),
    /// As large as the whole page, or nearly: the server does not know the parameter.
    NotSmaller,
    /// It could not be had or read.
    Failed,
    /// It would take too long a URL to ask for it.
    UrlTooLong,
}

impl Flaw {
    /// In words, for a log line.
    pub(crate) fn told(&self, names: &Names) -> String {
        match self {
            Self::Missing(family) => format!("{} is missing, or a series of it", names.name(*family)),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "no bytes: the server runs over several processes",
            Self::Missing(_) => "a family is missing",
            Self::NotSmaller => "not smaller than the whole page: the server does not know the parameter",
            Self::Failed => "it could not be had",
            Self::UrlTooLong => "the URL would be too long",
        })
    }
}

impl Default for Restriction {
    fn default() -> Self {
        Self::new(RETEST)
    }
}

impl Restriction {
    /// Nothing known; the outcome of a trial counts for `retest`.
    pub(crate) fn new(retest: Duration) -> Self {
        Self { state: State::Untried, retest, falls: 0, fallen: false, counters: Counters::default() }
    }

    /// Whether the next page is to be a restricted one.
    pub(crate) fn asks_restricted(&self, now: Instant) -> bool {
        matches!(&self.state, State::Trusted { tried_at, .. } if now < *tried_at + self.retest)
    }

    /// A whole page was read: whether a restricted one is to be tried against it.
    pub(crate) fn whole_page(&mut self, counters: Counters, now: Instant) -> bool {
        let restarted = self.started_anew(counters);
        if std::mem::take(&mut self.fallen) || restarted {
            self.falls += 1;
        }
        let tried_at = match self.state {
            State::Untried => None,
            State::Trusted { tried_at, .. } | State::Refused { tried_at } => Some(tried_at),
        };
        if tried_at.is_some_and(|tried_at| now >= tried_at + self.retest) {
            self.falls = 0;
            return true;
        }
        if self.falls >= MOST_FALLS {
            if !matches!(self.state, State::Refused { .. }) {
                self.state = State::Refused { tried_at: now };
            }
            return false;
        }
        tried_at.is_none() || restarted
    }

    /// The whole page could not be had. A server that nobody reaches may come back as another one.
    pub(crate) fn whole_page_failed(&mut self, kind: FailureKind) {
        self.fallen = false;
        if kind == FailureKind::Connect {
            self.state = State::Untried;
            self.falls = 0;
        }
    }

    /// A restricted page was tried against a whole one.
    pub(crate) fn tried(&mut self, whole: &Sighting, restricted: Result<Sighting, Flaw>, now: Instant) -> Result<(), Flaw> {
        let agreed = restricted.and_then(|restricted| agree(whole, &restricted).map(|()| restricted));
        match agreed {
            Ok(restricted) => {
                let Glance { families: expected, started, .. } = restricted.glance;
                self.state = State::Trusted { expected, started, tried_at: now };
                Ok(())
            }
            Err(flaw) => {
                self.state = State::Refused { tried_at: now };
                Err(flaw)
            }
        }
    }

    /// A restricted page was read instead of a whole one, with its counters if it can be used at all.
    ///
    /// # Errors
    /// What is wrong with it: the whole page must be asked for now.
    pub(crate) fn restricted_page(&mut self, page: Result<(&Glance, Option<Counters>), Flaw>) -> Result<(), Flaw> {
        let State::Trusted { expected, started, .. } = &mut self.state else { return Err(Flaw::Failed) };
        let checked = page.and_then(|(page, counters)| match expected.difference(&page.families).next() {
            _ if page.bytes == 0 => Err(Flaw::Empty),
            Some(missing) => Err(Flaw::Missing(*missing)),
            None => Ok((page, counters.ok_or(Flaw::Failed)?)),
        });
        let lost = match checked {
            Ok((page, counters)) => {
                expected.extend(&page.families);
                let other_process = page.started.map(f64::to_bits) != started.map(f64::to_bits);
                // Such a page is right, but it is another server's.
                (self.started_anew(counters) || other_process).then_some(Ok(()))
            }
            Err(flaw) => Some(Err(flaw)),
        };
        let Some(outcome) = lost else { return Ok(()) };
        self.state = State::Untried;
        self.fallen = true;
        outcome
    }

    /// Whether `counters` are those of a server that began to count again.
    fn started_anew(&mut self, counters: Counters) -> bool {
        let before = std::mem::replace(&mut self.counters, counters);
        let fell =
            |before: Option<f64>, after: Option<f64>| matches!((before, after), (Some(before), Some(after)) if after < before);
        fell(before.prompt_tokens, counters.prompt_tokens)
            || fell(before.generation_tokens, counters.generation_tokens)
            || fell(before.preemptions, counters.preemptions)
            || fell(before.prefix_queries, counters.prefix_queries)
    }
}

/// Whether `restricted` shows every wanted series that `whole` does. It may show more: series come into being between two pages.
fn agree(whole: &Sighting, restricted: &Sighting) -> Result<(), Flaw> {
    if restricted.glance.bytes == 0 {
        return Err(Flaw::Empty);
    }
    if let Some((missing, _)) = whole.series.difference(&restricted.series).next() {
        return Err(Flaw::Missing(*missing));
    }
    if restricted.glance.bytes.saturating_mul(SMALLER) > whole.glance.bytes {
        return Err(Flaw::NotSmaller);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
