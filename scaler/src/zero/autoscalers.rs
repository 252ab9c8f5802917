//! The HorizontalPodAutoscalers of one namespace, followed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_datastore::codes;
use weir_k8s::{Autoscaler, FieldProblem};

use crate::zero::metrics::ScalerMetrics;

/// How long one watch lasts, in seconds: within it and 5 s more, a connection that has gone silently is noticed.
const WATCH_SECONDS: u32 = 60;
/// The longest wait before an API server that did not answer is asked again: a restart of it is not to cost half a minute of news.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Characters of an error that the log repeats.
const SHOWN: usize = 300;

/// What is known of one HPA.
pub(crate) type Read = Result<Arc<Autoscaler>, Arc<[FieldProblem]>>;

/// The HPAs of a namespace, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Autoscalers {
    /// Whether they were listed once.
    pub(crate) listed: bool,
    /// All of them.
    pub(crate) known: BTreeMap<Arc<str>, Read>,
}

/// Follows the HPAs of `namespace`, whose annotations begin with `prefix`, until `shutdown`. What was known last stays while the API
/// server is away.
pub(crate) async fn follow(
    client: Client,
    namespace: String,
    prefix: String,
    found: watch::Sender<Autoscalers>,
    metrics: ScalerMetrics,
    shutdown: CancellationToken,
) {
    let resource = Autoscaler::resource();
    let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &resource);
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(api, config));
    let mut backoff = DefaultBackoff::default();
    let read = |object: DynamicObject| {
        let name: Arc<str> = object.metadata.name.clone().unwrap_or_default().into();
        (name, Autoscaler::read(&prefix, object).map(Arc::new).map_err(Arc::from))
    };
    let mut listed = BTreeMap::new();
    let mut failing = false;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let change = match event {
            // It never ends.
            None => return,
            Some(Err(error)) => {
                metrics.watch_failed(&namespace);
                if !std::mem::replace(&mut failing, true) {
                    report(&namespace, &error);
                }
                let pause = backoff.next().map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(pause) => {}
                }
                continue;
            }
            Some(Ok(change)) => change,
        };
        backoff.reset();
        if std::mem::replace(&mut failing, false) {
            info!(namespace, "the watch of HorizontalPodAutoscalers works again");
        }
        match change {
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.extend([read(object)]),
            Event::InitDone => {
                let known = std::mem::take(&mut listed);
                found.send_replace(Autoscalers { listed: true, known });
            }
            Event::Apply(object) => {
                let (name, autoscaler) = read(object);
                // Its status changes all the time, and says nothing here.
                found.send_if_modified(|found| found.known.insert(name, autoscaler.clone()).as_ref() != Some(&autoscaler));
            }
            Event::Delete(object) => {
                let name = object.metadata.name.unwrap_or_default();
                found.send_if_modified(|found| found.known.remove(name.as_str()).is_some());
            }
        }
    }
}

fn report(namespace: &str, error: &watcher::Error) {
    let code = match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status))
        | watcher::Error::WatchFailed(Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        _ => None,
    };
    let text: String = error.to_string().chars().take(SHOWN).collect();
    match code {
        Some(403) => warn!(
            namespace,
            code = codes::PICKER_FORBIDDEN,
            error = text,
            fix = format!(
                "add to the Role in namespace {namespace}: {{apiGroups: [\"autoscaling\"], resources: [\"horizontalpodautoscalers\"], \
                 verbs: [\"get\", \"list\", \"watch\"]}}"
            ),
            "HorizontalPodAutoscalers may not be read: nothing is scaled there"
        ),
        _ => warn!(namespace, error = text, "HorizontalPodAutoscalers cannot be followed, what was known last stays"),
    }
}
