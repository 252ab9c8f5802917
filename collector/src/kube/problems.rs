//! What is wrong with which object: said when it comes up, and when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prometheus_client::metrics::gauge::Gauge;
use tracing::field::display;
use tracing::{info, warn};
use weir_datastore::PoolId;

/// Lines that one round of changes may log; what is beyond is counted.
const MOST_LINES: usize = 20;

/// Something of an object that is not as it should be.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Problem {
    /// The cause's name, where it has one.
    pub(super) code: Option<&'static str>,
    /// Kind, namespace and name.
    pub(super) object: String,
    /// Where in it.
    pub(super) field: String,
    /// What is wrong, and the way out.
    pub(super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// The problems of each pool, and those of the objects that speak of requests.
#[derive(Debug, Default)]
pub(super) struct Problems {
    known: BTreeMap<PoolId, BTreeSet<Problem>>,
    rules: BTreeSet<Problem>,
    gauge: Gauge,
    /// Lines of the present round.
    lines: usize,
}

impl Problems {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { gauge, ..Self::default() }
    }

    /// Makes `problems` all that is wrong with what belongs to `pool`.
    pub(super) fn set(&mut self, pool: &PoolId, problems: BTreeSet<Problem>) {
        let before = self.known.remove(pool).unwrap_or_default();
        self.log(Some(pool), &before, &problems);
        if !problems.is_empty() {
            self.known.insert(pool.clone(), problems);
        }
    }

    /// Makes `problems` all that is wrong with the objects that speak of requests.
    pub(super) fn set_rules(&mut self, problems: BTreeSet<Problem>) {
        let before = std::mem::take(&mut self.rules);
        self.log(None, &before, &problems);
        self.rules = problems;
    }

    fn log(&mut self, pool: Option<&PoolId>, before: &BTreeSet<Problem>, after: &BTreeSet<Problem>) {
        let pool = pool.map(display);
        for problem in after.difference(before) {
            self.line(|| {
                let code = problem.code;
                warn!(pool, code, object = problem.object, field = problem.field, error = problem.message, "not as it should be")
            });
        }
        for problem in before.difference(after) {
            self.line(|| info!(pool, object = problem.object, field = problem.field, "as it should be again, or gone"));
        }
    }

    /// Ends a round.
    pub(super) fn told(&mut self) {
        if let Some(more) = self.lines.checked_sub(MOST_LINES).filter(|more| *more > 0) {
            warn!(more, "more objects are not, or again, as they should be: see weir_kubernetes_problems");
        }
        self.lines = 0;
        let count: usize = self.known.values().map(BTreeSet::len).sum::<usize>() + self.rules.len();
        self.gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn line(&mut self, log: impl FnOnce()) {
        self.lines += 1;
        if self.lines <= MOST_LINES {
            log();
        }
    }
}
