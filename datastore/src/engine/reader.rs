//! From a page to an [`EndpointLoad`].

use std::borrow::Cow;

use super::combine::Combiner;
use super::families::{CustomFamily, Engine, FamilySpec, Signal, Signals, families};
use super::memory::PageMemory;
use super::reading::{PageClock, ReadError, Reading, SeriesUse, SeriesVerdict};
use crate::load::EndpointLoad;
use crate::page::{Effort, Format, PageError, PageReport, Sample, ScanLimits, Wanted, scan};

/// Reads the pages of one kind of server.
#[derive(Clone, Debug)]
pub struct PageReader {
    engine: Option<Engine>,
    /// What each wanted name may say, by its position in `wanted`: for each engine that uses the name, by label.
    by_name: Vec<Vec<(Engine, FamilySpec)>>,
    wanted: Wanted,
    limits: ScanLimits,
}

impl PageReader {
    /// A reader for pages of `engine`, or of whatever engine a page shows where that is none. `custom` families take the place of the
    /// engine's own for the signals they name.
    pub fn new(engine: Option<Engine>, custom: &[CustomFamily]) -> Self {
        let engines: Vec<_> = engine.map_or_else(|| Engine::DETECTED.to_vec(), |engine| vec![engine.table()]);
        let own: Vec<_> = custom.iter().map(CustomFamily::spec).collect();
        let mut names: Vec<Cow<'static, str>> = Vec::new();
        let mut by_name: Vec<Vec<_>> = Vec::new();
        for owner in engines {
            let replaced = |spec: &FamilySpec| own.iter().any(|custom| custom.signal == spec.signal);
            let specs = families(owner).into_iter().filter(|spec| !replaced(spec)).chain(own.iter().cloned());
            for spec in specs {
                let known = names.iter().position(|name| *name == spec.name);
                let position = known.unwrap_or_else(|| {
                    names.push(spec.name.clone());
                    by_name.push(Vec::new());
                    names.len() - 1
                });
                by_name[position].push((owner, spec));
            }
        }
        let wanted = Wanted::new(names.iter().map(AsRef::as_ref));
        Self { engine, by_name, wanted, limits: ScanLimits::default() }
    }

    /// The load that `page` shows. `memory` is what the reader remembers of the server's earlier pages.
    ///
    /// # Errors
    /// [`ReadError`] where the page cannot be used or shows no family of the engine.
    pub fn read(&self, page: &[u8], format: Format, clock: PageClock, memory: &mut PageMemory) -> Result<EndpointLoad, ReadError> {
        let mut samples = Vec::with_capacity(64);
        let report = scan(page, format, &self.wanted, Effort::WantedLines, self.limits, &mut samples)?;
        match self.combine(&samples, &report, clock, memory, |_, _, _| {}) {
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
        let load = self.combine(&samples, &report, clock, &mut PageMemory::default(), |sample, spec, verdict| {
            let labels = match sample.labels.as_written() {
                "" => String::new(),
                labels => format!("{{{labels}}}"),
            };
            series.push(SeriesUse {
                line: sample.line,
                series: format!("{}{labels}", spec.name),
                value: sample.value,
                timestamp_ms: sample.timestamp_ms,
                signal: spec.signal,
                verdict,
            });
        });
        Ok(Reading { load, report, series })
    }

    /// What `sample` says where `engine` wrote the page.
    fn meaning(&self, sample: &Sample<'_>, engine: Engine) -> Option<&FamilySpec> {
        let says = |spec: &FamilySpec| spec.only.iter().all(|(label, value)| sample.labels.get(label).as_deref() == Some(&**value));
        let meanings = self.by_name[usize::from(sample.family)].iter();
        meanings.filter(|(owner, _)| *owner == engine.table()).map(|(_, spec)| spec).find(|spec| says(spec))
    }

    fn combine<'page>(
        &self,
        samples: &[Sample<'page>],
        report: &PageReport,
        clock: PageClock,
        memory: &mut PageMemory,
        mut told: impl FnMut(&Sample<'page>, &FamilySpec, SeriesVerdict),
    ) -> Option<EndpointLoad> {
        let engine = self.engine.or_else(|| self.detect(samples))?;
        let meant: Vec<_> = samples.iter().filter_map(|sample| Some((sample, self.meaning(sample, engine)?))).collect();
        let mut combiner = Combiner::new(engine, clock, memory.live_process(engine, &meant));
        meant.iter().for_each(|(_, spec)| combiner.sees(spec));
        for (sample, spec) in meant {
            let verdict = combiner.add(sample, spec);
            told(sample, spec, verdict);
        }
        combiner.finish(report)
    }

    /// The engine of whose load signals the page shows the most.
    fn detect(&self, samples: &[Sample<'_>]) -> Option<Engine> {
        let mut best = None;
        for engine in Engine::DETECTED {
            let mut signals = Signals::default();
            let meanings = samples.iter().filter_map(|sample| self.meaning(sample, engine));
            meanings.for_each(|spec| signals.insert(spec.signal));
            let shown = signals.load();
            let recognised = shown > 0 || (engine.absent_is_zero() && signals.contains(Signal::Marker));
            if recognised && best.is_none_or(|(_, most)| shown > most) {
                let simulated = engine == Engine::Vllm && signals.contains(Signal::Marker);
                best = Some((if simulated { Engine::LlmDInferenceSim } else { engine }, shown));
            }
        }
        best.map(|(engine, _)| engine)
    }

    fn no_engine(&self, page: &[u8], format: Format, report: &PageReport) -> ReadError {
        let example = self.by_name.iter().flatten().map(|(_, spec)| spec.name.as_ref()).next().unwrap_or("none");
        let expected = match self.engine {
            Some(engine) => format!("of {engine} (such as {example})"),
            None => format!("of a known engine (such as {example})"),
        };
        let looks_like = self.engine.and_then(|_| Self::new(None, &[]).engine_of(page, format));
        let hint = match looks_like {
            Some(engine) => format!("; it looks like {engine}: set `engine: {engine}` or `engine: auto`"),
            None if report.sample_lines == 0 => "; the page is empty: the server may be starting, or its metrics are off".into(),
            None => "; the address or port may be another program's, or the server's metrics are off".into(),
        };
        ReadError::NoEngine { expected, hint, sample_lines: report.sample_lines }
    }

    fn engine_of(&self, page: &[u8], format: Format) -> Option<Engine> {
        let mut samples = Vec::new();
        scan(page, format, &self.wanted, Effort::WantedLines, self.limits, &mut samples).ok()?;
        self.detect(&samples)
    }
}
