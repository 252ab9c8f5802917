//! One watch, from list to change, for ever.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::Api;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Error as ClientError, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use weir_datastore::codes;

use super::Obstacles;
use super::contact::Health;
use super::metrics::{KubeMetrics, WatchState};

/// The longest wait before an API server that did not answer is asked again: a restart of it is not to cost half a minute of news.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two objects of a list.
const LIST_SILENCE: Duration = Duration::from_secs(60);
/// Characters of an error that the log repeats.
const SHOWN: usize = 400;

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// These are all.
    All(Vec<T>),
    /// This one is new or has changed.
    Applied(T),
    /// This one is gone.
    Deleted(T),
    /// The cluster does not serve the kind.
    Absent,
    /// The kind may not be read; of one that can be done without also: it cannot be.
    Forbidden,
}

/// One kind of object, followed.
pub(super) struct Follower<K> {
    pub(super) api: Api<K>,
    pub(super) config: watcher::Config,
    pub(super) health: Arc<Health>,
    pub(super) metrics: KubeMetrics,
    /// The API group; empty for the core's.
    pub(super) group: String,
    /// None: all of them.
    pub(super) namespace: Option<String>,
    /// Where it is told that the kind cannot be followed; none for one that can be done without.
    pub(super) obstacles: Option<watch::Sender<Obstacles>>,
    /// How often a kind that is not served or may not be read is asked for.
    pub(super) ask_again: Duration,
}

/// What went wrong with a watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// The kind is not served.
    Absent,
    /// It may not be read.
    Forbidden,
    /// Whoever asks is not known.
    Unauthorized,
    /// What was seen last is too long ago: a list follows.
    Expired,
    /// Any other error that the API server answers.
    Refused,
    /// An answer that is none.
    Malformed,
    /// No answer.
    Unreachable,
}

impl Trouble {
    pub(super) const ALL: [Self; 7] =
        [Self::Absent, Self::Forbidden, Self::Unauthorized, Self::Expired, Self::Refused, Self::Malformed, Self::Unreachable];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Unreachable => "unreachable",
        }
    }

    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => match error {
                // A frame that cannot be read passes for a status without a code.
                ClientError::Api(status) if status.code == 0 => Self::Malformed,
                ClientError::Api(status) => Self::of_code(status.code),
                ClientError::SerdeError(_) | ClientError::FromUtf8(_) => Self::Malformed,
                _ => Self::Unreachable,
            },
            watcher::Error::WatchError(status) => Self::of_code(status.code),
            watcher::Error::NoResourceVersion => Self::Malformed,
        }
    }

    fn of_code(code: u16) -> Self {
        match code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::Absent,
            410 => Self::Expired,
            _ => Self::Refused,
        }
    }

    fn state(self) -> WatchState {
        match self {
            Self::Absent => WatchState::Absent,
            Self::Forbidden => WatchState::Forbidden,
            Self::Expired => WatchState::Watching,
            Self::Unauthorized | Self::Refused | Self::Malformed | Self::Unreachable => WatchState::Failing,
        }
    }
}

impl<K> Follower<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Tells every change until nobody listens.
    pub(super) async fn run<T, U>(
        self,
        convert: impl Fn(K) -> T + Send,
        wrap: impl Fn(Change<T>) -> U + Send,
        changes: mpsc::Sender<U>,
    ) where
        T: Send,
        U: Send,
    {
        let mut backoff = DefaultBackoff::default();
        let mut log = Log { state: WatchState::Syncing, trouble: None, since: Instant::now() };
        loop {
            let mut events = pin!(watcher(self.api.clone(), self.config.clone()));
            // What was listed so far, while a list lasts.
            let mut listed: Option<Vec<T>> = None;
            loop {
                let event = match &listed {
                    None => events.next().await,
                    // A watch may be silent for long, and bounds its own silence; a list may not.
                    Some(_) => match timeout(LIST_SILENCE, events.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            self.failed(&mut log, Trouble::Unreachable, &format!("a list broke off: silent for {LIST_SILENCE:?}"));
                            break;
                        }
                    },
                };
                let change = match event {
                    // The events never end.
                    None => break,
                    Some(Ok(Event::Init)) => {
                        listed = Some(Vec::new());
                        continue;
                    }
                    Some(Ok(Event::InitApply(object))) => {
                        listed.get_or_insert_default().push(convert(object));
                        continue;
                    }
                    Some(Ok(Event::InitDone)) => Change::All(listed.take().unwrap_or_default()),
                    Some(Ok(Event::Apply(object))) => Change::Applied(convert(object)),
                    Some(Ok(Event::Delete(object))) => Change::Deleted(convert(object)),
                    Some(Err(error)) => {
                        listed = None;
                        let trouble = Trouble::of(&error);
                        self.failed(&mut log, trouble, &error.to_string());
                        let mut later = || backoff.next().map(|pause| pause.min(LONGEST_PAUSE));
                        let (change, pause) = match trouble {
                            Trouble::Absent => (Some(Change::Absent), Some(self.ask_again)),
                            Trouble::Forbidden => (Some(Change::Forbidden), Some(self.ask_again)),
                            Trouble::Expired => (None, later()),
                            // Nobody waits for a kind that can be done without.
                            _ if self.obstacles.is_none() => (Some(Change::Forbidden), later()),
                            _ => (None, later()),
                        };
                        if let Some(change) = change
                            && changes.send(wrap(change)).await.is_err()
                        {
                            return;
                        }
                        sleep(pause.unwrap_or(self.ask_again)).await;
                        if trouble == Trouble::Malformed {
                            // A change that could not be read is lost: only a list tells what it was.
                            break;
                        }
                        continue;
                    }
                };
                backoff.reset();
                self.works(&mut log);
                if changes.send(wrap(change)).await.is_err() {
                    return;
                }
            }
            sleep(backoff.next().unwrap_or(self.ask_again).min(LONGEST_PAUSE)).await;
        }
    }

    fn works(&self, log: &mut Log) {
        let before = std::mem::replace(&mut log.state, WatchState::Watching);
        log.trouble = None;
        if before != WatchState::Watching {
            self.metrics.state(self.health.resource, WatchState::Watching);
            self.obstacle(None);
        }
        if !matches!(before, WatchState::Watching | WatchState::Syncing) {
            let seconds = log.since.elapsed().as_secs_f64();
            info!(resource = self.health.resource, seconds, "watch works again");
        }
    }

    fn failed(&self, log: &mut Log, trouble: Trouble, error: &str) {
        let resource = self.health.resource;
        self.metrics.failed(resource, trouble);
        if trouble == Trouble::Expired {
            debug!(resource, "what was seen last is too long ago, all is listed again");
            return;
        }
        if log.trouble == Some(trouble) {
            return;
        }
        if log.trouble.replace(trouble).is_none() {
            log.since = Instant::now();
        }
        log.state = trouble.state();
        self.metrics.state(resource, log.state);
        let error: String = error.chars().take(SHOWN).collect();
        let seconds = self.ask_again.as_secs_f64();
        match trouble {
            Trouble::Absent => {
                self.obstacle(Some("not served by this cluster: install the CRDs".to_owned()));
                let code = resource.starts_with("inferencepools.").then_some(codes::CRD_MISSING);
                info!(resource, code, again_after_seconds = seconds, "not served by this cluster");
            }
            Trouble::Forbidden if self.obstacles.is_none() => {
                info!(resource, fix = self.missing_rule(), again_after_seconds = seconds, "may not be read, and is done without")
            }
            Trouble::Forbidden => {
                self.obstacle(Some(format!("may not be read: {}", self.missing_rule())));
                let fix = self.missing_rule();
                warn!(resource, code = codes::PICKER_FORBIDDEN, error, fix, again_after_seconds = seconds, "may not be read")
            }
            Trouble::Unauthorized => {
                let fix = "look at the service account's token or the kubeconfig's credentials";
                self.obstacle(Some(format!("the API server does not know who asks: {fix}")));
                warn!(resource, error, fix, "the API server does not know who asks, what was known last stays");
            }
            _ => {
                self.obstacle(Some(format!("the API server does not answer as it should ({}): see the log", trouble.label())));
                warn!(resource, reason = trouble.label(), error, "watch failed, what was known last stays");
            }
        }
    }

    fn obstacle(&self, message: Option<String>) {
        let Some(obstacles) = &self.obstacles else { return };
        obstacles.send_if_modified(|known| match message {
            Some(message) => known.insert(self.health.resource, message.clone()).as_ref() != Some(&message),
            None => known.remove(self.health.resource).is_some(),
        });
    }

    /// The rule of RBAC without which this kind cannot be followed.
    fn missing_rule(&self) -> String {
        let plural = self.health.resource.split('.').next().unwrap_or_default();
        let role = match &self.namespace {
            None => "the ClusterRole".to_owned(),
            Some(namespace) => format!("the Role in namespace {namespace}"),
        };
        let group = &self.group;
        format!("add to {role}: {{apiGroups: [\"{group}\"], resources: [\"{plural}\"], verbs: [\"list\", \"watch\"]}}")
    }
}

/// What was logged of a watch: transitions are, what is between is counted.
struct Log {
    state: WatchState,
    trouble: Option<Trouble>,
    /// Since when it does not work.
    since: Instant,
}
