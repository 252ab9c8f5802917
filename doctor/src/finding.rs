//! What a check is, and what comes of it.

use serde::Serialize;

use crate::facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, but worse than it could, or will stop working.
    Warning,
    /// Requests fail, or nothing is scaled.
    Error,
}

impl Severity {
    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a check is about: the way of a request, then that of a measurement.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// From the gateway to the pool.
    Route,
    /// The pool, its servers and its picker.
    Pool,
    /// From the servers' pages to Prometheus.
    Scraping,
    /// From the metrics APIs to replicas.
    Scaling,
}

impl Family {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Route, Self::Pool, Self::Scraping, Self::Scaling];

    /// As printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "Route and gateway",
            Self::Pool => "Pool and picker",
            Self::Scraping => "Scraping",
            Self::Scaling => "Scaling",
        }
    }
}

/// Where else than in `weir doctor` a cause is named.
#[derive(Clone, Copy, Debug)]
pub enum Elsewhere {
    /// Servers of weir's meet it.
    Told {
        /// Whether a log line has the code; else the metric alone tells it.
        log: bool,
        /// The metric that shows it, as a query would name it.
        metric: &'static str,
    },
    /// None of them does: why.
    Outside(&'static str),
}

/// One check: a line of the table.
#[derive(Debug)]
pub struct Check {
    /// Its name, the same wherever the cause is named.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub family: Family,
    /// What happens then, what it looks like from outside, and what mends it.
    pub about: &'static str,
    /// Where servers of weir's name the same cause.
    pub elsewhere: Elsewhere,
    /// Which facts it cannot do without, by their name in a record.
    pub needs: &'static [&'static str],
    /// Finds it. Pure.
    pub(crate) run: fn(&Facts) -> Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check's name.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// With which object: `Kind namespace/name`.
    pub object: String,
    /// The pool that suffers, as `namespace/name`; none where it is not one pool alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What is wrong.
    pub what: String,
    /// By what it shows.
    pub evidence: String,
    /// A command, or a line of YAML, that mends it.
    pub remedy: String,
}

impl Finding {
    /// A finding of the check that is running, which fills in its code and severity.
    pub(crate) fn new(kind: &str, path: impl AsRef<str>, what: impl Into<String>) -> Self {
        Self {
            code: "",
            severity: Severity::Note,
            object: format!("{kind} {}", path.as_ref()),
            pool: None,
            what: what.into(),
            evidence: String::new(),
            remedy: String::new(),
        }
    }

    pub(crate) fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(crate) fn pool(mut self, pool: impl Into<String>) -> Self {
        self.pool = Some(pool.into());
        self
    }
}

/// Facts that could not be had.
#[derive(Clone, Debug, Serialize)]
pub struct NotKnown {
    /// Which, by their name in a record.
    pub facts: &'static str,
    /// Why.
    pub why: String,
    /// The checks that say nothing, or not all, without them.
    pub checks: Vec<&'static str>,
}

/// What all checks found.
#[derive(Clone, Debug, Serialize)]
pub struct Examination {
    /// Worst first; within that in the order of a request's way.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub not_known: Vec<NotKnown>,
    /// How many pools were seen.
    pub pools: usize,
    /// How many checks there are.
    pub checks: usize,
}

impl Examination {
    /// The worst there is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// What a program returns: 0 nothing but notes, 1 warnings, 2 errors.
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            None | Some(Severity::Note) => 0,
            Some(Severity::Warning) => 1,
            Some(Severity::Error) => 2,
        }
    }

    /// Only what concerns `pool`, a name or `namespace/name`, and what concerns no pool alone.
    #[must_use]
    pub fn about(mut self, pool: &str) -> Self {
        let is_it = |found: &str| found == pool || found.rsplit_once('/').is_some_and(|(_, name)| name == pool);
        self.findings.retain(|finding| finding.pool.as_deref().is_none_or(is_it));
        self
    }
}
