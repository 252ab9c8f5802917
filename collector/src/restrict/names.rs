//! What a restricted page is asked for, and what a page shows of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use url::Url;
use weir_datastore::engine::{CustomFamily, Engine, families};
use weir_datastore::page::{Effort, FamilyIndex, Format, PageError, Sample, ScanLimits, Wanted, scan};

/// When the server's process started: shown by servers in Python, and how a restart is seen.
const STARTED: &str = "process_start_time_seconds";
/// The longest URL that is asked for; proxies take 8 KB, and the largest table of an engine makes 700 bytes.
const LONGEST_URL: usize = 4096;

/// The names that matter of one engine, and of what a pool names itself.
#[derive(Debug)]
pub(crate) struct Names {
    engine: Engine,
    names: Vec<String>,
    wanted: Wanted,
    started: FamilyIndex,
}

/// Which of the wanted names a page shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Glance {
    pub(super) families: BTreeSet<FamilyIndex>,
    /// When the server's process started, as it says.
    pub(super) started: Option<f64>,
    pub(super) bytes: usize,
}

/// The same, and the identities of their series: what two pages are compared by. Values move between them, series do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sighting {
    pub(super) glance: Glance,
    pub(super) series: BTreeSet<(FamilyIndex, u64)>,
}

impl Names {
    fn new(engine: Engine, custom: &[CustomFamily]) -> Self {
        // Every name of the engine, not those on the page alone: a family may appear later, as vLLM's adapters do with their first
        // request, and a server passes over the names that it does not have.
        let own = families(engine).into_iter().map(|family| family.name.into_owned());
        let mut names = Vec::new();
        for name in own.chain(custom.iter().map(|family| family.name.clone())).chain([STARTED.to_owned()]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let wanted = Wanted::new(names.iter().map(String::as_str));
        let started = names.iter().position(|name| name == STARTED).and_then(|position| position.try_into().ok());
        Self { engine, names, wanted, started: started.unwrap_or(FamilyIndex::MAX) }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    pub(crate) fn name(&self, family: FamilyIndex) -> &str {
        self.names.get(usize::from(family)).map_or("", String::as_str)
    }

    /// Where the restricted page is; none where that URL would be too long.
    pub(crate) fn url(&self, page: &Url) -> Option<Url> {
        self.url_with(page, [])
    }

    /// The same with `more` names.
    pub(crate) fn url_with(&self, page: &Url, more: impl IntoIterator<Item = &'static str>) -> Option<Url> {
        let mut url = page.clone();
        // Names of samples, not of families: prometheus_client has nothing under a counter's name without `_total`.
        url.query_pairs_mut()
            .extend_pairs(self.names.iter().map(|name| ("name[]", name)))
            .extend_pairs(more.into_iter().map(|name| ("name[]", name)));
        (url.as_str().len() <= LONGEST_URL).then_some(url)
    }

    /// Which of these names `page` shows.
    ///
    /// # Errors
    /// Where the page cannot be used as a whole.
    pub(crate) fn glance(&self, page: &[u8], format: Format) -> Result<Glance, PageError> {
        Ok(self.glance_at(page, &self.samples(page, format)?))
    }

    /// Which series of these names `page` shows.
    ///
    /// # Errors
    /// As [`Self::glance`].
    pub(crate) fn sighting(&self, page: &[u8], format: Format) -> Result<Sighting, PageError> {
        let samples = self.samples(page, format)?;
        let series = samples.iter().map(|sample| (sample.family, sample.labels.identity())).collect();
        Ok(Sighting { glance: self.glance_at(page, &samples), series })
    }

    fn samples<'page>(&self, page: &'page [u8], format: Format) -> Result<Vec<Sample<'page>>, PageError> {
        let mut samples = Vec::new();
        scan(page, format, &self.wanted, Effort::WantedLines, ScanLimits::default(), &mut samples)?;
        Ok(samples)
    }

    fn glance_at(&self, page: &[u8], samples: &[Sample<'_>]) -> Glance {
        let started = samples.iter().find(|sample| sample.family == self.started).map(|sample| sample.value);
        Glance { families: samples.iter().map(|sample| sample.family).collect(), started, bytes: page.len() }
    }
}

type Kind = (Engine, Arc<[CustomFamily]>);

/// The names in use: endpoints of one kind share theirs.
#[derive(Debug, Default)]
pub(crate) struct NamesInUse(Mutex<HashMap<Kind, Weak<Names>>>);

impl NamesInUse {
    pub(crate) fn of(&self, engine: Engine, custom: &Arc<[CustomFamily]>) -> Arc<Names> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = (engine, custom.clone());
        if let Some(names) = known.get(&kind).and_then(Weak::upgrade) {
            return names;
        }
        known.retain(|_, names| names.strong_count() > 0);
        let names = Arc::new(Names::new(engine, custom));
        known.insert(kind, Arc::downgrade(&names));
        names
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use weir_datastore::LoadSignal;
    use weir_datastore::engine::Several;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn every_name_of_the_engine_is_asked_for_and_what_the_path_asks_for_stays() {
        for engine in Engine::DETECTED {
            let names = Names::new(engine, &[]);
            let asked = names.url(&url("http://10.0.0.1:8000/metrics?x=1")).unwrap();
            let pairs: Vec<_> = asked.query_pairs().into_owned().collect();
            assert_eq!(pairs[0], ("x".to_owned(), "1".to_owned()));
            for family in families(engine) {
                assert!(pairs.contains(&("name[]".to_owned(), family.name.to_string())), "{engine}: {asked}");
            }
            assert_eq!(pairs.last(), Some(&("name[]".to_owned(), STARTED.to_owned())));
            assert!(asked.as_str().len() < 1000, "{asked}");
        }
    }

    #[test]
    fn a_url_without_end_is_not_asked_for() {
        let custom = |count: usize| -> Vec<CustomFamily> {
            let family = |index| CustomFamily {
                name: format!("{index:0>200}"),
                labels: BTreeMap::new(),
                signal: LoadSignal::Running,
                several: Several::Sum,
            };
            (0..count).map(family).collect()
        };
        let page = url("http://10.0.0.1:8000/metrics");
        assert!(Names::new(Engine::Custom, &custom(15)).url(&page).is_some());
        assert!(Names::new(Engine::Custom, &custom(30)).url(&page).is_none());
    }

    #[test]
    fn a_sighting_knows_series_and_start_but_not_values() {
        let names = Names::new(Engine::Vllm, &[]);
        let see = |page: &str| names.sighting(page.as_bytes(), Format::Text).unwrap();
        let first = see("vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 1\nprocess_start_time_seconds 1.5e9\nother 3\n");
        let later = see("vllm:num_requests_running{model_name=\"m\",engine=\"0\"} 7\nprocess_start_time_seconds 1.5e9\nother 3\n");
        assert_eq!((&first.series, first.glance.started), (&later.series, Some(1.5e9)));
        assert_eq!(first.series.len(), 2);
        let other_engine = see("vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 1\n");
        assert_ne!(first.series, other_engine.series);
        assert_eq!(other_engine.glance.started, None);
        assert_eq!(
            names.glance(b"vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 1\n", Format::Text),
            Ok(other_engine.glance)
        );
        assert!(names.sighting(b"<html>", Format::Text).is_err() && names.glance(b"<html>", Format::Text).is_err());
    }

    #[test]
    fn endpoints_of_one_kind_share_their_names_for_as_long_as_they_are_used() {
        let in_use = NamesInUse::default();
        let none: Arc<[CustomFamily]> = Arc::default();
        let one = in_use.of(Engine::Vllm, &none);
        assert!(Arc::ptr_eq(&one, &in_use.of(Engine::Vllm, &none)));
        assert!(!Arc::ptr_eq(&one, &in_use.of(Engine::Sglang, &none)));
        drop(one);
        drop(in_use.of(Engine::Tgi, &none));
        assert_eq!(in_use.0.lock().unwrap().len(), 1);
    }
}
