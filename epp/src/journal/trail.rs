//! What the director notes of a request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::EppMetrics;
use crate::scheduling::{ExtensionPoint, Observer, PluginName};

/// Runs of plugins that are kept of one request: a request that waits may be weighed again and again.
const MOST_RUNS: usize = 64;

/// One plugin's turn.
#[derive(Clone, Debug)]
pub struct PluginRun {
    /// Where it was called.
    pub point: ExtensionPoint,
    /// Which.
    pub plugin: PluginName,
    /// From when to when.
    pub took: (Instant, Instant),
}

/// What is known of a request's way through the director.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) priority: Option<i32>,
    pub(crate) target_model: Option<Arc<str>>,
    /// Since when it waited, and until when.
    pub(crate) waited: Option<(Instant, Option<Instant>)>,
    /// The last time that it was scheduled, and among how many endpoints.
    pub(crate) scheduled: Option<(Instant, Instant, usize)>,
    pub(crate) runs: Vec<PluginRun>,
}

/// A request's way through the director, noted as it goes. Of one that nobody follows there is none.
#[derive(Debug)]
pub struct Trail {
    plugins: bool,
    steps: Mutex<Steps>,
}

impl Trail {
    /// `plugins`: whether each plugin's turn is noted, too.
    pub fn new(plugins: bool) -> Self {
        Self { plugins, steps: Mutex::default() }
    }

    fn note(&self, note: impl FnOnce(&mut Steps)) {
        note(&mut self.steps.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn steps(&self) -> Steps {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn resolved(&self, priority: i32, target_model: Option<&Arc<str>>) {
        self.note(|steps| (steps.priority, steps.target_model) = (Some(priority), target_model.cloned()));
    }

    pub(crate) fn waits(&self, since: Instant) {
        self.note(|steps| steps.waited = Some((since, None)));
    }

    pub(crate) fn waited(&self, until: Instant) {
        self.note(|steps| {
            if let Some((_, end)) = &mut steps.waited {
                *end = Some(until);
            }
        });
    }

    /// It is scheduled anew: what was noted of an earlier turn is of no use.
    pub(crate) fn schedules(&self) {
        if self.plugins {
            self.note(|steps| steps.runs.clear());
        }
    }

    pub(crate) fn scheduled(&self, from: Instant, took: Duration, candidates: usize) {
        self.note(|steps| steps.scheduled = Some((from, from + took, candidates)));
    }

    fn ran(&self, point: ExtensionPoint, plugin: &PluginName, took: Duration) {
        if self.plugins {
            let until = Instant::now();
            let took = (until.checked_sub(took).unwrap_or(until), until);
            self.note(|steps| {
                if steps.runs.len() < MOST_RUNS {
                    steps.runs.push(PluginRun { point, plugin: plugin.clone(), took });
                }
            });
        }
    }
}

/// Counts what plugins take, and notes it of one request.
pub(crate) struct Followed<'a> {
    pub(crate) metrics: &'a EppMetrics,
    pub(crate) trail: &'a Trail,
}

impl Observer for Followed<'_> {
    fn plugin_ran(&self, point: ExtensionPoint, plugin: &PluginName, took: Duration) {
        self.metrics.plugin_ran(point, plugin, took);
        self.trail.ran(point, plugin, took);
    }
}
