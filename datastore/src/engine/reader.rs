//! From a page to an [`EndpointLoad`].

use std::borrow::Cow;

use thiserror::Error;
use tokio::time::Instant;

use super::combine::Combiner;
use super::families::{Engine, FamilySpec, Signal, families};
use crate::load::EndpointLoad;
use crate::page::{Effort, Format, PageError, PageReport, Sample, ScanLimits, Wanted, scan};

/// When a page was read.
#[derive(Clone, Copy, Debug)]
pub struct PageClock {
    /// When the page was asked for.
    pub asked_at: Instant,
    /// The same as milliseconds since the Unix epoch, for samples that carry a timestamp of their own.
    pub wall_ms: i64,
    /// Samples whose own timestamp is older than this, in milliseconds, are left out.
    pub stale_after_ms: i64,
}

/// Why a page gives no load.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum ReadError {
    /// The page cannot be used at all.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A metrics page, but not of the expected engine.
    #[error("a metrics page of {sample_lines} samples, none of them {expected}{hint}")]
    NoEngine {
        /// What was looked for, with an example.
        expected: String,
        /// What the page looks like instead, if anything.
        hint: String,
        /// Samples on the page.
        sample_lines: u32,
    },
}

/// What became of a series on the page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeriesVerdict {
    /// Part of the result.
    Used,
    /// A name that a newer one on the same page replaces.
    OlderName,
    /// A part of a total that is on the page too.
    PartOfTotal,
    /// Another tensor-parallel rank that repeats the same queue.
    OtherRank,
    /// The page has the series already: the first sample counts.
    Duplicate,
    /// The value cannot be true of the signal.
    Invalid,
    /// The sample's own timestamp is older than the staleness limit.
    Outdated,
}

impl SeriesVerdict {
    /// The word used in output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::OlderName => "older name, not added",
            Self::PartOfTotal => "part of a total, not added",
            Self::OtherRank => "other rank, not added",
            Self::Duplicate => "duplicate, not added",
            Self::Invalid => "invalid",
            Self::Outdated => "outdated",
        }
    }
}

/// A wanted series of a page and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesUse {
    /// Line number, counted from 1.
    pub line: u32,
    /// Name and labels as written.
    pub series: String,
    /// Value as read.
    pub value: f64,
    /// What the series says.
    pub signal: Signal,
    /// What became of it.
    pub verdict: SeriesVerdict,
}

/// A page explained: for people, and for tests.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The load; absent where the page has no family of a known engine.
    pub load: Option<EndpointLoad>,
    /// How the scan went, every line looked at.
    pub report: PageReport,
    /// Each wanted series in page order.
    pub series: Vec<SeriesUse>,
}

/// Reads the pages of one kind of server.
#[derive(Clone, Debug)]
pub struct PageReader {
    engine: Option<Engine>,
    specs: Vec<(Engine, FamilySpec)>,
    wanted: Wanted,
    limits: ScanLimits,
}

impl PageReader {
    /// A reader for pages of `engine`, or of whatever engine a page shows where that is none.
    pub fn new(engine: Option<Engine>) -> Self {
        // Look-alikes share one table; their names are wanted once.
        let tables = match engine {
            Some(engine) => vec![engine],
            None => vec![Engine::Vllm, Engine::Sglang],
        };
        let specs: Vec<_> =
            tables.into_iter().flat_map(|engine| families(engine).iter().map(move |spec| (engine, *spec))).collect();
        let wanted = Wanted::new(specs.iter().map(|(_, spec)| spec.name));
        Self { engine, specs, wanted, limits: ScanLimits::default() }
    }

    /// The load that `page` shows.
    ///
    /// # Errors
    /// [`ReadError`] where the page cannot be used or shows no family of the engine.
    pub fn read(&self, page: &[u8], format: Format, clock: PageClock) -> Result<EndpointLoad, ReadError> {
        let mut samples = Vec::with_capacity(64);
        let report = scan(page, format, &self.wanted, Effort::WantedLines, self.limits, &mut samples)?;
        match self.combine(&samples, &report, clock, |_, _| {}) {
            Some(load) => Ok(load),
            None => Err(self.no_engine(page, format, &report)),
        }
    }

    /// What `page` shows, every line of it looked at and each wanted series accounted for.
    ///
    /// # Errors
    /// [`PageError`] where the page cannot be used as a whole.
    pub fn explain(&self, page: &[u8], format: Format, clock: PageClock) -> Result<Reading, PageError> {
        let mut samples = Vec::new();
        let report = scan(page, format, &self.wanted, Effort::EveryLine, self.limits, &mut samples)?;
        let mut series = Vec::with_capacity(samples.len());
        let load = self.combine(&samples, &report, clock, |sample, verdict| {
            let spec = self.specs[usize::from(sample.family)].1;
            let labels = match sample.labels.as_written() {
                "" => String::new(),
                labels => format!("{{{labels}}}"),
            };
            let series_name = format!("{}{labels}", spec.name);
            series.push(SeriesUse { line: sample.line, series: series_name, value: sample.value, signal: spec.signal, verdict });
        });
        Ok(Reading { load, report, series })
    }

    fn combine<'page>(
        &self,
        samples: &[Sample<'page>],
        report: &PageReport,
        clock: PageClock,
        mut told: impl FnMut(&Sample<'page>, SeriesVerdict),
    ) -> Option<EndpointLoad> {
        let engine = self.engine.or_else(|| self.detect(samples))?;
        let mut combiner = Combiner::new(engine, clock);
        let of_engine = || {
            samples.iter().filter_map(|sample| {
                let (owner, spec) = self.specs[usize::from(sample.family)];
                (owner.table() == engine.table()).then_some((sample, spec))
            })
        };
        of_engine().for_each(|(_, spec)| combiner.sees(spec));
        for (sample, spec) in of_engine() {
            let verdict = combiner.add(sample, spec);
            told(sample, verdict);
        }
        combiner.finish(report)
    }

    /// The engine whose load signals the page shows; of several the one with the most series.
    fn detect(&self, samples: &[Sample<'_>]) -> Option<Engine> {
        let count = |engine: Engine| {
            let of_engine = |sample: &&Sample<'_>| {
                let (owner, spec) = self.specs[usize::from(sample.family)];
                owner == engine && matches!(spec.signal, Signal::Running | Signal::Waiting | Signal::KvCacheUtilization)
            };
            samples.iter().filter(of_engine).count()
        };
        let vllm = count(Engine::Vllm);
        let sglang = count(Engine::Sglang);
        match (vllm, sglang) {
            (0, 0) => None,
            _ if sglang > vllm => Some(Engine::Sglang),
            _ => {
                let simulated = samples.iter().any(|sample| self.specs[usize::from(sample.family)].1.signal == Signal::Marker);
                Some(if simulated { Engine::LlmDInferenceSim } else { Engine::Vllm })
            }
        }
    }

    fn no_engine(&self, page: &[u8], format: Format, report: &PageReport) -> ReadError {
        let example = |engine: Engine| families(engine)[0].name;
        let expected = match self.engine {
            Some(engine) => format!("of {engine} (such as {})", example(engine)),
            None => format!("of a known engine (such as {})", Engine::ALL.map(example)[0]),
        };
        let looks_like = self.engine.and_then(|_| Self::new(None).explain_engine(page, format));
        let hint: Cow<'static, str> = match looks_like {
            Some(engine) => format!("; it looks like {engine}: set `engine: {engine}` or `engine: auto`").into(),
            None if report.sample_lines == 0 => "; the page is empty: the server may be starting, or its metrics are off".into(),
            None => "; the address or port may be another program's, or the server's metrics are off".into(),
        };
        ReadError::NoEngine { expected, hint: hint.into_owned(), sample_lines: report.sample_lines }
    }

    fn explain_engine(&self, page: &[u8], format: Format) -> Option<Engine> {
        let mut samples = Vec::new();
        scan(page, format, &self.wanted, Effort::WantedLines, self.limits, &mut samples).ok()?;
        self.detect(&samples)
    }
}
