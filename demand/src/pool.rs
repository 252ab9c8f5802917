//! One pool: its level, and what is known of its servers.

use std::time::Duration;

use weir_datastore::{PoolSnapshot, RequiredOptions};
use weir_hpa::required::{Learned, Level, Options, RequiredReplicas};

use crate::fingerprint::{fingerprint, is_of};
use crate::observe::{Memory, observe};

/// For how long arrivals are watched before they make a number: the first seconds of a process say little, and two replicas are to answer
/// alike. A pool without ready endpoints need not wait, or a restart of weir would delay its waking.
const WATCHED: Duration = Duration::from_secs(20);

/// The options of the level.
pub(crate) fn chosen(options: RequiredOptions) -> Options {
    let default = Options::default();
    Options {
        daily: options.daily.unwrap_or(default.daily),
        recurring: options.recurring.unwrap_or(default.recurring),
        spares: options.spares.unwrap_or(default.spares),
        utilisation: options.utilisation.map_or(default.utilisation, |hundredths| f64::from(hundredths) / 100.0),
    }
}

/// A pool's level, from one second to the next.
#[derive(Debug)]
pub(crate) struct PoolDemand {
    options: Options,
    /// What its servers are; empty before anything told.
    fingerprint: String,
    /// Whether the servers themselves said so, and not a document.
    seen: bool,
    required: RequiredReplicas,
    memory: Memory,
    /// Since when arrivals are watched, since the Unix epoch.
    since: Option<Duration>,
    /// Whether that is too short a time for a number, and how long it is.
    too_short: Option<Duration>,
    pub(crate) level: Option<Level>,
    /// When the level was last computed, since the Unix epoch.
    pub(crate) at: Duration,
    /// Why what was kept is not used.
    pub(crate) problem: Option<String>,
}

impl PoolDemand {
    /// A pool of which `kept` was learned before, if anything.
    pub(crate) fn new(options: Options, kept: Option<&Learned>) -> Self {
        let mut pool = Self {
            options,
            fingerprint: String::new(),
            seen: false,
            required: RequiredReplicas::new("", options),
            memory: Memory::default(),
            since: None,
            too_short: None,
            level: None,
            at: Duration::ZERO,
            problem: None,
        };
        if let Some(kept) = kept {
            pool.take_over(kept);
        }
        pool
    }

    /// One turn; `all`: what counts for all pools.
    pub(crate) fn turn(&mut self, snapshot: &PoolSnapshot, now: Duration, kept: Option<&Learned>, all: RequiredOptions) {
        let options = chosen(snapshot.options.or(all));
        if self.options != options {
            self.options = options;
            self.required.set_options(options);
        }
        if let Some(found) = fingerprint(snapshot, &self.fingerprint) {
            self.servers_are(found, kept);
        }
        self.at = now;
        let watched = now.saturating_sub(*self.since.get_or_insert(now));
        self.too_short = (watched < WATCHED && snapshot.coverage.ready() > 0).then_some(watched);
        let second = observe(snapshot, &mut self.memory, now);
        self.level = Some(self.required.turn(&second));
    }

    fn servers_are(&mut self, found: String, kept: Option<&Learned>) {
        self.seen = true;
        if self.fingerprint == found {
            return;
        }
        if is_of(&self.fingerprint, &found) {
            self.required.set_fingerprint(found.clone());
            self.fingerprint = found;
            return;
        }
        self.required = RequiredReplicas::new(found.clone(), self.options);
        self.fingerprint = found;
        self.since = None;
        if let Some(kept) = kept {
            self.take_over(kept);
        }
    }

    /// Why the level is not to be told, where it is known.
    pub(crate) fn reserve(&self) -> Option<String> {
        let watched = self.too_short?.as_secs();
        Some(format!("arrivals have been watched for {watched} s only, {} are needed", WATCHED.as_secs()))
    }

    /// What another replica or an earlier process learned.
    pub(crate) fn take_over(&mut self, kept: &Learned) {
        let mut kept = std::borrow::Cow::Borrowed(kept);
        if self.seen && is_of(&kept.fingerprint, &self.fingerprint) {
            // Of whatever image.
            kept.to_mut().fingerprint.clone_from(&self.fingerprint);
        }
        if !self.seen && self.fingerprint != kept.fingerprint {
            // At zero nobody says what the servers will be: what they were.
            self.required = RequiredReplicas::new(kept.fingerprint.clone(), self.options);
            self.fingerprint.clone_from(&kept.fingerprint);
        }
        self.problem = self.required.restore(&kept).err().map(|error| error.to_string());
    }

    /// Somebody deleted what was learned.
    pub(crate) fn forget(&mut self) {
        self.problem = None;
        self.required.reset();
    }

    pub(crate) fn options(&self) -> Options {
        self.required.options()
    }

    pub(crate) fn learned(&self) -> Learned {
        self.required.learned()
    }

    pub(crate) fn servers(&self) -> Option<&str> {
        Some(self.fingerprint.as_str()).filter(|fingerprint| !fingerprint.is_empty())
    }
}
