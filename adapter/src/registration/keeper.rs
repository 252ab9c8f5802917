//! One APIService followed and written.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until, timeout};
use weir_datastore::codes;
use weir_serving::{Complaint, FIELD_MANAGER, LookFailure, ObjectWatch, Seen};

use super::judge::{Judgement, State, Todo, judge, name};
use super::metrics::RegistrationMetrics;
use super::{Bundle, RegistrationSettings};
use crate::GroupVersion;

/// Time for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Between writes: doubled with each that was soon undone, so that two who disagree do not fill the API server.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

pub(super) struct Keeper {
    api: Api<APIService>,
    name: String,
    settings: Arc<RegistrationSettings>,
    version: GroupVersion,
    bundle: Option<Bundle>,
    metrics: RegistrationMetrics,
    complaint: Complaint,
    found: Found,
    pause: Duration,
    wrote_at: Option<Instant>,
}

enum Found {
    Unknown,
    Absent,
    Object(Box<APIService>),
}

impl Keeper {
    pub(super) fn new(
        client: Client,
        settings: Arc<RegistrationSettings>,
        version: GroupVersion,
        bundle: Option<Bundle>,
        metrics: RegistrationMetrics,
    ) -> Self {
        Self {
            api: Api::all(client),
            name: name(&version),
            settings,
            version,
            bundle,
            metrics,
            complaint: Complaint::about("APIService"),
            found: Found::Unknown,
            pause: SHORTEST_PAUSE,
            wrote_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut object = ObjectWatch::new(self.api.clone(), &self.name);
        let mut news = self.bundle.clone();
        self.metrics.is_in(&self.name, State::Unknown);
        let mut write_at = None;
        loop {
            tokio::select! {
                seen = object.next() => match seen {
                    Seen::Object(found) => self.found = Found::Object(found),
                    Seen::Absent => self.found = Found::Absent,
                    Seen::Failed(failure) => {
                        self.metrics.is_in(&self.name, State::Unknown);
                        self.complaint.failed_of(codes::APISERVICE_UNAVAILABLE, &self.failed("read", &failure));
                        continue;
                    }
                },
                () = changed(&mut news) => {}
                () = sleep_until(write_at.unwrap_or_else(Instant::now)), if write_at.is_some() => {}
            }
            write_at = self.step().await;
        }
    }

    /// Does what is due, or says when it will be.
    async fn step(&mut self) -> Option<Instant> {
        let bundle = self.bundle.as_ref().map(|bundle| bundle.borrow().clone());
        let found = match &self.found {
            Found::Unknown => return None,
            Found::Absent => None,
            Found::Object(found) => Some(&**found),
        };
        let Judgement { state, todo } =
            judge(found, &self.version, &self.settings, bundle.as_ref().and_then(|bundle| bundle.as_deref()));
        self.metrics.is_in(&self.name, state);
        let is_known = !matches!(bundle, Some(None));
        match todo {
            Todo::Nothing => {
                self.complaint.works();
                return None;
            }
            Todo::Tell(text) => {
                let code = if state == State::Foreign { codes::APISERVICE_FOREIGN } else { codes::APISERVICE_UNAVAILABLE };
                self.complaint.failed_of(code, &text);
                return None;
            }
            // Nobody is sent here before there is an authority to trust.
            Todo::Create(_) | Todo::Patch(_) if !is_known => return None,
            Todo::Create(_) | Todo::Patch(_) => {}
        }
        let now = Instant::now();
        if let Some(wrote_at) = self.wrote_at {
            let next = wrote_at + self.pause;
            if now < next {
                return Some(next);
            }
            let soon = now < wrote_at + self.pause * 4;
            self.pause = if soon { (self.pause * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
        }
        self.wrote_at = Some(now);
        self.write(todo, state).await;
        // Judged again by what the watch tells then, or in a while if it was in vain.
        Some(Instant::now() + self.pause)
    }

    async fn write(&self, todo: Todo, state: State) {
        let manager = Some(FIELD_MANAGER.to_owned());
        let write = async {
            match &todo {
                Todo::Create(service) => {
                    self.api.create(&PostParams { field_manager: manager, ..PostParams::default() }, service).await
                }
                Todo::Patch(patch) => {
                    let parameters = PatchParams { field_manager: manager, ..PatchParams::default() };
                    self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await
                }
                Todo::Nothing | Todo::Tell(_) => return Ok(()),
            }
            .map(drop)
        };
        let result = match timeout(WRITE, write).await {
            Ok(Ok(())) => {
                tracing::info!(apiservice = self.name, before = state.label(), "APIService written");
                "written"
            }
            // Changed meanwhile: the watch tells how, and it is judged anew.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => "conflict",
            Ok(Err(error)) => {
                self.complaint.failed_of(codes::APISERVICE_UNAVAILABLE, &self.failed("written", &LookFailure::of(&error)));
                "failed"
            }
            Err(_elapsed) => {
                let late = format!("APIService {}: no answer within {} s", self.name, WRITE.as_secs());
                self.complaint.failed_of(codes::APISERVICE_UNAVAILABLE, &late);
                "failed"
            }
        };
        self.metrics.wrote(&self.name, result);
    }

    fn failed(&self, doing: &str, failure: &LookFailure) -> String {
        let way_out = if failure.is_forbidden() {
            format!(
                "; let weir do it with a ClusterRole rule: apiGroups [\"apiregistration.k8s.io\"], resources [\"apiservices\"], \
                 resourceNames [\"{}\"], verbs [\"get\", \"list\", \"watch\", \"patch\"]{}",
                self.name,
                if self.settings.create { ", and [\"create\"] without resourceNames" } else { "" }
            )
        } else {
            String::new()
        };
        format!("APIService {} cannot be {doing}: {failure}{way_out}", self.name)
    }
}

/// Waits for another bundle; for ever where there is none to come.
async fn changed(news: &mut Option<Bundle>) {
    if let Some(bundle) = news {
        match bundle.changed().await {
            Ok(()) => return,
            Err(_nobody_sends) => *news = None,
        }
    }
    std::future::pending().await
}
