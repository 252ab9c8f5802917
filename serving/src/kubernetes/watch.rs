//! One object of the cluster, followed.

use std::{fmt, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::review::chain;

/// Time for the API server to say something at first. Later nothing is said while nothing changes.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// What was learnt of the object.
#[derive(Clone, Debug)]
pub enum Seen<K> {
    /// It is there, and is this now.
    Object(Box<K>),
    /// It does not exist.
    Absent,
    /// It cannot be looked at; tried again with growing pauses.
    Failed(LookFailure),
}

/// Why an object cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookFailure {
    /// The HTTP status, where the API server answered.
    pub code: Option<u16>,
    problem: String,
}

impl LookFailure {
    /// Whether weir lacks a right.
    pub fn is_forbidden(&self) -> bool {
        self.code == Some(403)
    }
}

impl fmt::Display for LookFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl LookFailure {
    /// Of a request that is no watch.
    pub fn of(error: &kube::Error) -> Self {
        let code = match error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        };
        Self { code, problem: chain(error) }
    }
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Option<K>>> + Send>>;

/// Follows one object, and goes on when the API server goes away.
pub struct ObjectWatch<K> {
    api: Api<K>,
    name: String,
    events: Option<Events<K>>,
    heard: bool,
}

impl<K> fmt::Debug for ObjectWatch<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ObjectWatch").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K> ObjectWatch<K>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    /// Follows the object of this name.
    pub fn new(api: Api<K>, name: impl Into<String>) -> Self {
        Self { api, name: name.into(), events: None, heard: false }
    }

    /// The next news; the first is how the object is now. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Seen<K> {
        let Self { api, name, events, heard } = self;
        let events = events.get_or_insert_with(|| Box::pin(watcher::watch_object(api.clone(), name).default_backoff()));
        let next = if *heard { Ok(events.next().await) } else { timeout(FIRST_WORD, events.next()).await };
        match next {
            Ok(Some(Ok(object))) => {
                *heard = true;
                object.map_or(Seen::Absent, |object| Seen::Object(Box::new(object)))
            }
            Ok(Some(Err(error))) => Seen::Failed(failure(&error)),
            // Never ends by itself; a new one would begin.
            Ok(None) => {
                (self.events, self.heard) = (None, false);
                Seen::Failed(LookFailure { code: None, problem: "the watch ended".into() })
            }
            Err(_elapsed) => {
                self.events = None;
                let problem = format!("no answer from the Kubernetes API server within {} s", FIRST_WORD.as_secs());
                Seen::Failed(LookFailure { code: None, problem })
            }
        }
    }
}

fn failure(error: &watcher::Error) -> LookFailure {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    };
    LookFailure { code, problem: chain(error) }
}
