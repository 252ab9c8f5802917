//! The table while everything that it is of changes: the file of rules, and the ConfigMaps of a cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::mapping::{LABEL, Mapping, Source};
use crate::metrics::BbrMetrics;
use crate::rules::{Loaded, RulesError};
use crate::table::Table;

/// How often the file is looked at: a mounted ConfigMap changes within a minute, a file at once.
const LOOK: Duration = Duration::from_secs(1);
/// Between two reads that must agree, so that a half-written file is not taken for a shorter one.
const SETTLING: Duration = Duration::from_millis(50);
/// Characters of an error that the log repeats.
const SHOWN: usize = 400;

type Outcomes = Family<[(&'static str, &'static str); 1], Counter>;

/// Keeps the table.
pub struct Follower {
    table: Arc<ArcSwap<Table>>,
    path: Option<PathBuf>,
    loaded: Loaded,
    /// What was told last of a file that cannot be used: told once.
    complaint: Option<String>,
    cluster: BTreeMap<Arc<str>, Source>,
    /// Objects that cannot be used, and why; the last good version of each counts.
    wrong: BTreeMap<Arc<str>, String>,
    metrics: BbrMetrics,
    reloads: Outcomes,
    in_step: Gauge,
    problems: Gauge,
    failures: Outcomes,
    synced: watch::Sender<bool>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Follower").field("path", &self.path).finish_non_exhaustive()
    }
}

/// News of the cluster's ConfigMaps.
type News = Pin<Box<dyn Stream<Item = watcher::Result<Event<ConfigMap>>> + Send>>;

impl Follower {
    /// With the rules of this file, if there is one.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn new(path: Option<PathBuf>, metrics: BbrMetrics, registry: &mut Registry) -> Result<Self, RulesError> {
        let loaded = path.as_deref().map(Loaded::read).transpose()?.unwrap_or_default();
        let reloads = Outcomes::default();
        for outcome in ["ok", "refused", "unreadable"] {
            drop(reloads.get_or_create(&[("outcome", outcome)]));
        }
        let help = "Times that the file of rules had changed, or could not be read, by what came of it";
        registry.register("weir_bbr_rules_reloads", help, reloads.clone());
        let in_step = Gauge::default();
        in_step.set(1);
        let help = "1 while the rules in force are what their file says, 0 while the file cannot be used";
        registry.register("weir_bbr_rules_in_step", help, in_step.clone());
        let problems = Gauge::default();
        let help = "ConfigMaps with mappings that cannot be used as they are";
        registry.register("weir_bbr_wrong_config_maps", help, problems.clone());
        let failures = Outcomes::default();
        for reason in ["forbidden", "failed"] {
            drop(failures.get_or_create(&[("reason", reason)]));
        }
        let help = "Times that ConfigMaps could not be followed, by reason; what was known last stays";
        registry.register("weir_bbr_watch_failures", help, failures.clone());
        let follower = Self {
            table: Arc::default(),
            path,
            loaded,
            complaint: None,
            cluster: BTreeMap::new(),
            wrong: BTreeMap::new(),
            metrics,
            reloads,
            in_step,
            problems,
            failures,
            synced: watch::Sender::new(false),
        };
        follower.publish();
        Ok(follower)
    }

    /// The table as it is at each moment.
    pub fn table(&self) -> Arc<ArcSwap<Table>> {
        Arc::clone(&self.table)
    }

    /// Becomes true once the cluster's mappings are known, or it is known that they cannot be read.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Follows everything until `leaving`. Without an API there is no cluster.
    pub async fn run(mut self, config_maps: Option<Api<ConfigMap>>, leaving: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let config = watcher::Config::default().labels(&format!("{LABEL}=true"));
        let mut news: News = match config_maps {
            Some(api) => Box::pin(watcher(api, config).default_backoff()),
            None => {
                self.synced.send_replace(true);
                Box::pin(futures_util::stream::pending())
            }
        };
        let mut listed: Option<Vec<ConfigMap>> = None;
        let mut failing = false;
        let mut leaving = pin!(leaving.cancelled());
        loop {
            tokio::select! {
                () = &mut leaving => return,
                _ = ticks.tick() => self.look().await,
                event = news.next() => match event {
                    Some(Ok(event)) => {
                        if std::mem::take(&mut failing) {
                            info!("ConfigMaps with mappings are followed again");
                        }
                        self.hear(event, &mut listed);
                    }
                    Some(Err(error)) => self.failed(&error, &mut failing),
                    None => {}
                },
            }
        }
    }

    fn hear(&mut self, event: Event<ConfigMap>, listed: &mut Option<Vec<ConfigMap>>) {
        match event {
            Event::Init => *listed = Some(Vec::new()),
            Event::InitApply(object) => listed.get_or_insert_default().push(object),
            Event::InitDone => {
                let all = listed.take().unwrap_or_default();
                let names: Vec<Arc<str>> = all.iter().map(name_of).collect();
                self.cluster.retain(|name, _| names.contains(name));
                self.wrong.retain(|name, _| names.contains(name));
                all.iter().for_each(|object| self.apply(object));
                self.publish();
                self.synced.send_replace(true);
            }
            Event::Apply(object) => {
                self.apply(&object);
                self.publish();
            }
            Event::Delete(object) => {
                let name = name_of(&object);
                let known = self.cluster.remove(&name).is_some();
                self.wrong.remove(&name);
                if known {
                    info!(config_map = %name, "mapping is gone");
                }
                self.publish();
            }
        }
    }

    fn apply(&mut self, object: &ConfigMap) {
        let name = name_of(object);
        match Mapping::of_data(object.data.as_ref().unwrap_or(&BTreeMap::new())) {
            Ok(mapping) => {
                self.wrong.remove(&name);
                let created = object.creation_timestamp().map_or(0, |time| time.0.as_second());
                let source = Source { created, name: name.clone(), mapping };
                let before = self.cluster.insert(name.clone(), source.clone());
                if before.as_ref() != Some(&source) {
                    let (base, adapters) = (&source.mapping.base_model, source.mapping.adapters.len());
                    info!(config_map = %name, base_model = base, adapters, "mapping is in force");
                }
            }
            Err(problem) => {
                let problem: String = problem.chars().take(SHOWN).collect();
                let stays = if self.cluster.contains_key(&name) { "its last good version stays" } else { "it is left out" };
                if self.wrong.get(&name) != Some(&problem) {
                    warn!(config_map = %name, problem, "ConfigMap with a mapping cannot be used: {stays}");
                }
                self.wrong.insert(name, problem);
            }
        }
    }

    fn failed(&self, error: &watcher::Error, failing: &mut bool) {
        let forbidden = matches!(
            error,
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) if status.code == 403
        );
        let reason = if forbidden { "forbidden" } else { "failed" };
        self.failures.get_or_create(&[("reason", reason)]).inc();
        if forbidden {
            // Names and the classifier go on without.
            self.synced.send_replace(true);
        }
        if !std::mem::replace(failing, true) {
            let error: String = error.to_string().chars().take(SHOWN).collect();
            let fix = match forbidden {
                true => "add to the Role: {apiGroups: [\"\"], resources: [\"configmaps\"], verbs: [\"get\", \"list\", \"watch\"]}",
                false => "it is tried again; what was known last stays",
            };
            warn!(error, fix, "ConfigMaps with mappings cannot be followed");
        }
    }

    /// Looks at the file.
    async fn look(&mut self) {
        let Some(path) = self.path.clone() else { return };
        let read = move || Loaded::read(&path);
        // The file may lie on a disk that hangs.
        let again = read.clone();
        let Ok(mut first) = tokio::task::spawn_blocking(read).await else { return };
        if first.as_ref().is_ok_and(|loaded| loaded.is_same(&self.loaded)) {
            return self.agrees();
        }
        sleep(SETTLING).await;
        let Ok(second) = tokio::task::spawn_blocking(again).await else { return };
        if let (Ok(one), Ok(other)) = (&first, &second)
            && !one.is_same(other)
        {
            // It is being written: the next look will see it whole.
            return;
        }
        first = second;
        match first {
            Ok(loaded) if loaded.is_same(&self.loaded) => self.agrees(),
            Ok(loaded) => {
                self.loaded = loaded;
                self.reloads.get_or_create(&[("outcome", "ok")]).inc();
                self.publish();
                self.agrees();
                info!("the rules of the file are in force");
            }
            Err(error) => {
                let told = error.to_string();
                if self.complaint.as_ref() != Some(&told) {
                    warn!("the rules stay as they were: {told}");
                    self.reloads.get_or_create(&[("outcome", error.label())]).inc();
                    self.in_step.set(0);
                    self.complaint = Some(told);
                }
            }
        }
    }

    fn agrees(&mut self) {
        self.complaint = None;
        self.in_step.set(1);
    }

    fn publish(&self) {
        let sources: Vec<Source> = self.cluster.values().cloned().collect();
        let table = Table::new(&self.loaded, &sources);
        let before = self.table.load();
        for conflict in &table.mappings.conflicts {
            if !before.mappings.conflicts.contains(conflict) {
                let crate::mapping::Conflict { adapter, counts, passed_over } = conflict;
                warn!(%adapter, %counts, %passed_over, "two mappings give an adapter to different base models: the older counts");
            }
        }
        let (bases, adapters) = table.mappings.counts();
        self.metrics.mapped(bases, adapters, table.mappings.conflicts.len());
        table.classifier.listed().for_each(|(rule, _)| self.metrics.rule(&rule.name));
        self.problems.set(i64::try_from(self.wrong.len()).unwrap_or(i64::MAX));
        self.table.store(Arc::new(table));
    }
}

fn name_of(object: &ConfigMap) -> Arc<str> {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()).into()
}

#[cfg(test)]
mod tests;
