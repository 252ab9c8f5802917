//! The EndpointPickerConfig while the picker runs: its file is followed, and `GET /debug/config` shows what is in force.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::routing::get;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_datastore::codes;
use weir_epp::director::PoolDirector;
use weir_epp::scheduling::SchedulingConfig;

use super::config::Configuration;

/// How often the file is looked at: a mounted ConfigMap changes within a minute, a file at once.
const LOOK: Duration = Duration::from_secs(1);

/// Follows the configuration.
pub(super) struct Follower {
    configuration: Configuration,
    in_force: SchedulingConfig,
    text: Option<String>,
    /// What was told last of a file that cannot be used: told once.
    complaint: Option<String>,
    shown: Arc<ArcSwap<Value>>,
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    in_step: Gauge,
    idle_scorers: Gauge,
}

impl Follower {
    /// What `configuration` says at the start.
    ///
    /// # Errors
    /// A configuration that cannot be read or is wrong.
    pub(super) fn new(configuration: Configuration, notes: &mut Vec<String>, registry: &mut Registry) -> anyhow::Result<Self> {
        let text = configuration.text()?;
        let in_force = configuration.read(text.as_deref(), notes)?;
        let reloads = Family::<[(&'static str, &'static str); 1], Counter>::default();
        for outcome in ["ok", "refused", "unreadable"] {
            drop(reloads.get_or_create(&[("outcome", outcome)]));
        }
        let help = "Times that the EndpointPickerConfig's file had changed, or could not be read, by what came of it";
        registry.register("weir_epp_config_reloads", help, reloads.clone());
        let in_step = Gauge::default();
        let help = "1 while the configuration in force is what its file says, 0 while the file cannot be used";
        registry.register("weir_epp_config_in_step", help, in_step.clone());
        in_step.set(1);
        let idle_scorers = Gauge::default();
        let help = "Scorers of the EndpointPickerConfig that cannot matter: of weight 0, or before a picker that looks at no score";
        registry.register("weir_epp_config_idle_scorers", help, idle_scorers.clone());
        let shown = Arc::default();
        let follower = Self { configuration, in_force, text, complaint: None, shown, reloads, in_step, idle_scorers };
        follower.show();
        Ok(follower)
    }

    /// What is in force.
    pub(super) fn in_force(&self) -> &SchedulingConfig {
        &self.in_force
    }

    /// `GET /debug/config`
    pub(super) fn router(&self) -> Router {
        let shown = self.shown.clone();
        Router::new().route("/debug/config", get(move || async move { axum::Json(Value::clone(&shown.load())) }))
    }

    /// Follows the file, if there is one, until `leaving`.
    pub(super) async fn run(mut self, director: PoolDirector, leaving: CancellationToken) {
        if !self.configuration.is_file() {
            return;
        }
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = leaving.cancelled() => return,
            }
            let configuration = self.configuration.clone();
            // The file may lie on a disk that hangs.
            let Ok(read) = tokio::task::spawn_blocking(move || configuration.text()).await else { return };
            match read {
                Ok(text) if text == self.text => self.agrees(),
                Ok(text) => {
                    let mut notes = Vec::new();
                    match self.configuration.read(text.as_deref(), &mut notes) {
                        Ok(config) => self.adopt(&director, config, text, &notes),
                        Err(error) => self.complain("refused", &error.to_string()),
                    }
                }
                Err(error) => self.complain("unreadable", &format!("{error:#}")),
            }
        }
    }

    fn adopt(&mut self, director: &PoolDirector, config: SchedulingConfig, text: Option<String>, notes: &[String]) {
        notes.iter().for_each(|note| warn!("{note}"));
        for part in self.in_force.fixed_parts_that_differ(&config) {
            warn!("{}: {part} takes effect when the picker starts again", self.configuration.name());
        }
        director.reconfigure(config.clone());
        (self.in_force, self.text) = (config, text);
        self.tell_of_idle_scorers();
        self.reloads.get_or_create(&[("outcome", "ok")]).inc();
        info!("{}: in force", self.configuration.name());
        self.agrees();
        self.show();
    }

    /// Tells of scorers that cannot matter.
    pub(super) fn tell_of_idle_scorers(&self) {
        let idle = idle_scorers(&self.in_force);
        self.idle_scorers.set(i64::try_from(idle.len()).unwrap_or(i64::MAX));
        for why in idle {
            warn!(code = codes::PICKER_WEIGHTS, "{}: {why}", self.configuration.name());
        }
    }

    /// The file says what is in force.
    fn agrees(&mut self) {
        if self.complaint.take().is_some() {
            self.show();
        }
        self.in_step.set(1);
    }

    fn complain(&mut self, outcome: &'static str, problem: &str) {
        if self.complaint.as_deref() == Some(problem) {
            return;
        }
        warn!(code = codes::PICKER_CONFIG_UNREADABLE, "the configuration stays as it was: {problem}");
        self.reloads.get_or_create(&[("outcome", outcome)]).inc();
        self.in_step.set(0);
        self.complaint = Some(problem.to_owned());
        self.show();
    }

    fn show(&self) {
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        self.shown.store(Arc::new(json!({
            "source": self.configuration.name(),
            "asOf": now,
            "problem": self.complaint,
            "effective": self.in_force.effective(),
        })));
    }
}
/// Each scorer that cannot matter, and why.
fn idle_scorers(config: &SchedulingConfig) -> Vec<String> {
    let of = |profile: &weir_epp::scheduling::Profile| {
        let (name, blind) = (profile.name.clone(), profile.picker.name.kind == "random-picker");
        let idle = profile.scorers.iter().filter(move |scorer| blind || scorer.weight == 0.0);
        let why = if blind { "its profile's random-picker looks at no score: use max-score-picker" } else { "its weight is 0" };
        idle.map(move |scorer| format!("scorer {} of profile {name} cannot matter, {why}", scorer.scorer.name.name))
            .collect::<Vec<_>>()
    };
    config.profiles.iter().flat_map(of).collect()
}
