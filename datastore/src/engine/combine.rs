//! Several series, one number: combining by meaning.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::families::{Engine, FamilySpec, Several, Signal, Signals};
use super::lora::NewestLora;
use super::memory::process;
use super::reading::{PageClock, SeriesVerdict};
use crate::load::{Combined, Counters, EndpointLoad, UnitLoad, Unused};
use crate::page::{Labels, PageReport, Sample};

/// One model on one rank, as the page names them.
type UnitKey<'page> = (Option<Cow<'page, str>>, Option<Cow<'page, str>>);

/// Collects the samples of one page.
pub(super) struct Combiner<'page> {
    engine: Engine,
    clock: PageClock,
    /// The signals that the page has a name of.
    shown: Signals,
    /// The best name seen on the page for each signal.
    preferred: [u8; Signal::COUNT],
    /// The labels of the sample before: on most pages all have the same.
    before: Before<'page>,
    seen: HashSet<(Signal, u8, u64)>,
    unit_of: HashMap<UnitKey<'page>, usize>,
    units: Vec<Unit<'page>>,
    counters: Vec<(Signal, f64)>,
    /// By rank; under none where the page names no rank.
    geometry: HashMap<Option<Arc<str>>, Geometry>,
    lora: NewestLora,
    /// The process whose series count, where series name theirs.
    live_process: Option<u64>,
    unused: Unused,
}

/// What was found out about a label set.
#[derive(Default)]
struct Before<'page> {
    labels: Labels<'page>,
    /// None before the first sample.
    identity: Option<u64>,
    unit: Option<usize>,
}

struct Unit<'page> {
    key: UnitKey<'page>,
    values: Vec<(Signal, Series)>,
}

/// The series of one signal of one unit.
struct Series {
    /// The tensor-parallel (pipeline, expert) rank whose series count.
    parallel_rank: u64,
    sum: f64,
    highest: f64,
    count: f64,
    several: Several,
}

impl Series {
    fn value(&self) -> f64 {
        match self.several {
            Several::Sum => self.sum,
            Several::Mean => self.sum / self.count,
            Several::Max => self.highest,
        }
    }
}

/// Block size and blocks of a rank.
struct Geometry {
    block_size: Option<u64>,
    blocks: Option<u64>,
}

impl<'page> Combiner<'page> {
    pub(super) fn new(engine: Engine, clock: PageClock, live_process: Option<u64>) -> Self {
        Self {
            engine,
            clock,
            shown: Signals::default(),
            preferred: [u8::MAX; Signal::COUNT],
            before: Before::default(),
            seen: HashSet::new(),
            unit_of: HashMap::new(),
            units: Vec::new(),
            counters: Vec::new(),
            geometry: HashMap::new(),
            lora: NewestLora::new(clock.wall_ms),
            live_process,
            unused: Unused::default(),
        }
    }

    /// To be told of every name on the page before the first [`Self::add`].
    pub(super) fn sees(&mut self, spec: &FamilySpec) {
        self.shown.insert(spec.signal);
        let best = &mut self.preferred[spec.signal as usize];
        *best = spec.preference.min(*best);
    }

    pub(super) fn add(&mut self, sample: &Sample<'page>, spec: &FamilySpec) -> SeriesVerdict {
        if self.preferred[spec.signal as usize] < spec.preference {
            return SeriesVerdict::OlderName;
        }
        // SGLang writes the total over request priorities with an empty label, and the parts beside it.
        if self.engine == Engine::Sglang && sample.labels.get("priority").is_some_and(|priority| !priority.is_empty()) {
            return SeriesVerdict::PartOfTotal;
        }
        if self.live_process.is_some() && process(sample).is_some_and(|process| Some(process) != self.live_process) {
            return SeriesVerdict::DeadProcess;
        }
        let identity = self.identity(sample.labels);
        if !self.seen.insert((spec.signal, spec.preference, identity)) {
            self.unused.duplicates += 1;
            return SeriesVerdict::Duplicate;
        }
        if sample.timestamp_ms.is_some_and(|at| at < self.clock.wall_ms.saturating_sub(self.clock.stale_after_ms)) {
            self.unused.outdated += 1;
            return SeriesVerdict::Outdated;
        }
        if !spec.signal.admits(sample.value) {
            self.unused.invalid += 1;
            return SeriesVerdict::Invalid;
        }
        match spec.signal {
            Signal::Marker => {}
            Signal::LoraInfo => self.lora.add(sample),
            Signal::CacheInfo => {
                let rank = self.engine.rank_label().and_then(|label| sample.labels.get(label)).map(Arc::from);
                self.geometry.entry(rank).or_insert_with(|| geometry(&sample.labels, self.engine));
            }
            Signal::Running
            | Signal::Waiting
            | Signal::KvCacheUtilization
            | Signal::ApiWaiting
            | Signal::MaxRunning
            | Signal::BlockSize
            | Signal::Blocks
            | Signal::CacheTokens => return self.add_to_unit(sample, spec),
            counter => match self.counters.iter_mut().find(|(signal, _)| *signal == counter) {
                Some((_, sum)) => *sum += sample.value,
                None => self.counters.push((counter, sample.value)),
            },
        }
        SeriesVerdict::Used
    }

    fn identity(&mut self, labels: Labels<'page>) -> u64 {
        match self.before.identity {
            Some(identity) if self.before.labels == labels => identity,
            _ => {
                let identity = labels.identity();
                self.before = Before { labels, identity: Some(identity), unit: None };
                identity
            }
        }
    }

    /// The unit that the last sample given to [`Self::identity`] is of.
    fn unit(&mut self) -> usize {
        if let Some(unit) = self.before.unit {
            return unit;
        }
        let label = |name: Option<&str>| name.and_then(|name| self.before.labels.get(name));
        let key = (label(self.engine.model_label()), label(self.engine.rank_label()));
        let unit = match self.unit_of.get(&key) {
            Some(known) => *known,
            None => {
                self.unit_of.insert(key.clone(), self.units.len());
                self.units.push(Unit { key, values: Vec::new() });
                self.units.len() - 1
            }
        };
        self.before.unit = Some(unit);
        unit
    }

    fn add_to_unit(&mut self, sample: &Sample<'page>, spec: &FamilySpec) -> SeriesVerdict {
        let signal = spec.signal;
        let parallel_rank = parallel_rank(&sample.labels, self.engine);
        let several = spec.several.unwrap_or(if signal == Signal::KvCacheUtilization { Several::Mean } else { Several::Sum });
        let fresh = Series { parallel_rank, sum: sample.value, highest: sample.value, count: 1.0, several };
        let unit = self.unit();
        let values = &mut self.units[unit].values;
        match values.iter_mut().find(|(known, _)| *known == signal) {
            None => values.push((signal, fresh)),
            Some((_, series)) if parallel_rank < series.parallel_rank => *series = fresh,
            Some((_, series)) if parallel_rank > series.parallel_rank => return SeriesVerdict::OtherRank,
            Some((_, series)) => {
                series.sum += sample.value;
                series.highest = series.highest.max(sample.value);
                series.count += 1.0;
            }
        }
        SeriesVerdict::Used
    }

    /// The load, or nothing where the page has no load signal of the engine at all.
    pub(super) fn finish(self, report: &PageReport) -> Option<EndpointLoad> {
        let shown = |signal| self.shown.contains(signal);
        let idle_so_far = self.engine.absent_is_zero();
        let says_something = self.shown.load() > 0 || (idle_so_far && shown(Signal::Marker));
        if !says_something {
            return None;
        }
        let zero_if_absent = |signal, combined: Option<Combined>| match combined {
            None if idle_so_far && !shown(signal) => Some(Combined { value: 0.0, hottest: 0.0 }),
            combined => combined,
        };
        let unused = Unused { dropped_lines: report.dropped, ..self.unused };
        let units: Vec<_> = self.units.iter().map(|unit| unit.load(&self.geometry)).collect();
        let counter = |wanted| self.counters.iter().find(|(signal, _)| *signal == wanted).map(|(_, sum)| *sum);
        Some(EndpointLoad {
            engine: self.engine,
            scraped_at: self.clock.asked_at,
            running: zero_if_absent(Signal::Running, added(units.iter().filter_map(|unit| unit.running))),
            waiting: zero_if_absent(Signal::Waiting, added(units.iter().filter_map(|unit| unit.waiting))),
            kv_cache_utilization: averaged(units.iter().filter_map(|unit| unit.kv_cache_utilization)),
            counters: Counters {
                prompt_tokens: counter(Signal::PromptTokens),
                generation_tokens: counter(Signal::GenerationTokens),
                preemptions: counter(Signal::Preemptions),
                prefix_queries: counter(Signal::PrefixQueries),
                prefix_hits: counter(Signal::PrefixHits),
                first_tokens: counter(Signal::FirstTokens),
                completed: counter(Signal::Completed),
            },
            lora: self.lora.finish(),
            units,
            unused,
        })
    }
}

impl Unit<'_> {
    fn load(&self, geometry: &HashMap<Option<Arc<str>>, Geometry>) -> UnitLoad {
        let series = |wanted| self.values.iter().find(|(signal, _)| *signal == wanted).map(|(_, series)| series);
        let value = |wanted| series(wanted).map(Series::value);
        let whole = |wanted| value(wanted).map(|value| value as u64);
        let (model, rank) = &self.key;
        let rank = rank.as_deref().map(Arc::from);
        let of_rank = geometry.get(&rank).or_else(|| geometry.get(&None));
        UnitLoad {
            model: model.as_deref().map(Arc::from),
            rank: rank.clone().filter(|rank: &Arc<str>| !rank.is_empty()),
            running: value(Signal::Running),
            waiting: value(Signal::Waiting),
            kv_cache_utilization: value(Signal::KvCacheUtilization),
            api_waiting: value(Signal::ApiWaiting),
            max_running: value(Signal::MaxRunning),
            block_size: whole(Signal::BlockSize).or_else(|| of_rank?.block_size),
            blocks: whole(Signal::Blocks).or_else(|| of_rank?.blocks),
        }
    }
}

/// Requests of several units add up.
fn added(values: impl Iterator<Item = f64> + Clone) -> Option<Combined> {
    let hottest = values.clone().reduce(f64::max)?;
    Some(Combined { value: values.sum(), hottest })
}

/// Utilisations of several units average.
fn averaged(values: impl Iterator<Item = f64> + Clone) -> Option<Combined> {
    let hottest = values.clone().reduce(f64::max)?;
    let count = values.clone().count() as f64;
    Some(Combined { value: values.sum::<f64>() / count, hottest })
}

/// SGLang's schedulers of one data-parallel rank all report the same queue when every one of them is asked to: the lowest counts.
fn parallel_rank(labels: &Labels<'_>, engine: Engine) -> u64 {
    if engine != Engine::Sglang {
        return 0;
    }
    let rank = |label| labels.get(label).and_then(|rank| rank.parse::<u16>().ok()).map_or(0, u64::from);
    (rank("pp_rank") << 32) | (rank("tp_rank") << 16) | rank("moe_ep_rank")
}

fn geometry(labels: &Labels<'_>, engine: Engine) -> Geometry {
    // "None" is what Python writes while the number is not known yet.
    let number = |label: &str| labels.get(label).and_then(|text| text.parse().ok());
    let (block_size, blocks) = match engine {
        Engine::Sglang => ("page_size", "num_pages"),
        // LMDeploy writes 0 for a number of blocks that it does not know.
        Engine::LmDeploy => ("block_size", ""),
        _ => ("block_size", "num_gpu_blocks"),
    };
    Geometry { block_size: number(block_size), blocks: number(blocks) }
}
