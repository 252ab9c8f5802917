//! Events of events.k8s.io/v1 that tell why something was done to an object.
//!
//! Own code, since the client's recorder tells a note once and never again when its numbers changed, keeps patching an event that
//! somebody deleted, and knows no bound. Here events pass a bounded queue to one task; the same event again raises its count;
//! an object gets at most 25 writes at once and one more every five minutes, as from Kubernetes' own recorder. A failure is counted and
//! logged once, and never holds anybody up.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event as Written, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// Waiting to be written; one more is dropped.
const QUEUE: usize = 256;
/// Events and objects remembered; the one longest not heard of makes room.
const REMEMBERED: usize = 1024;
/// The same after that time is a new event.
const REPEATS: Duration = Duration::from_secs(360);
/// Writes about one object.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// Time for one write.
const WRITE: Duration = Duration::from_secs(5);
/// The API server's own bounds, in bytes.
const LONGEST_NOTE: usize = 1024;
const LONGEST_REASON: usize = 128;
const LONGEST_NAME: usize = 200;

/// Normal, or something to look at.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventType {
    /// As intended.
    Normal,
    /// Somebody should look.
    Warning,
}

/// What happened to an object, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The object; its namespace is where the event is written, `default` for one without.
    pub regarding: ObjectReference,
    /// Its severity.
    pub type_: EventType,
    /// One CamelCase word for machines, such as `ScaledToZero`.
    pub reason: String,
    /// What was done, one CamelCase word, such as `Scale`.
    pub action: String,
    /// For people; cut at 1 KiB.
    pub note: String,
}

/// Who tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reporter {
    /// A qualified name such as `weir.internal/scaler`.
    pub controller: String,
    /// The process: the name of its pod.
    pub instance: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    result: &'static str,
}

/// What becomes of events.
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    events: Family<ResultLabels, Counter>,
}

impl EventMetrics {
    /// Registers `weir_kubernetes_events_total{result}`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "weir_kubernetes_events",
            "Events told of objects, by result: created, repeated (one more of the same), limited (too many of one object), dropped \
             (queue full), failed",
            metrics.events.clone(),
        );
        metrics
    }

    fn count(&self, result: &'static str) {
        self.events.get_or_create(&ResultLabels { result }).inc();
    }
}

/// Takes events from anywhere and never blocks; the task that writes them ends with the last of its clones.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
    metrics: EventMetrics,
}

impl EventRecorder {
    /// Starts the task that writes. Needs `create` and `patch` of events.k8s.io events where the objects are. Await or drop the
    /// handle after the last recorder: awaiting writes what waits, dropping does not.
    pub fn start(client: Client, reporter: Reporter, metrics: EventMetrics) -> (Self, AbortOnDropHandle<()>) {
        let (queue, events) = mpsc::channel(QUEUE);
        let writer = Writer { client, reporter, metrics: metrics.clone(), memory: Memory::default(), is_failing: false };
        (Self { queue, metrics }, AbortOnDropHandle::new(tokio::spawn(writer.run(events))))
    }

    /// Tells an event; dropped and counted when too many wait.
    pub fn tell(&self, event: Event) {
        if let Err(error) = self.queue.try_send(event) {
            let (mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) = error;
            self.metrics.count("dropped");
            tracing::debug!(reason = event.reason, note = event.note, "an event is dropped");
        }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Object {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
}

impl Object {
    fn of(reference: &ObjectReference) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let namespace = reference.namespace.clone().unwrap_or_else(|| "default".into());
        Self { namespace, kind: text(&reference.kind), name: text(&reference.name), uid: text(&reference.uid) }
    }
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    object: Object,
    type_: EventType,
    reason: String,
    action: String,
    note: String,
}

#[derive(Debug)]
struct Told {
    /// The event's name in the cluster.
    name: String,
    count: i32,
    last: Instant,
}

/// What to write.
#[derive(Debug, PartialEq)]
enum Todo {
    Create,
    Repeat { name: String, count: i32 },
    Nothing,
}

/// What was told lately: pure, clock passed in.
#[derive(Debug, Default)]
struct Memory {
    told: HashMap<Key, Told>,
    /// Writes left for each object, and since when.
    budgets: HashMap<Object, (u32, Instant)>,
}

impl Memory {
    /// Counts the event, and takes from the object's budget what a write costs.
    fn note(&mut self, key: &Key, now: Instant) -> Todo {
        make_room(&mut self.told, |told| told.last);
        make_room(&mut self.budgets, |(_, since)| *since);
        let repeated = self.told.get_mut(key).filter(|told| now.saturating_duration_since(told.last) < REPEATS).map(|told| {
            told.count = told.count.saturating_add(1);
            told.last = now;
            Todo::Repeat { name: told.name.clone(), count: told.count }
        });
        let (left, since) = self.budgets.entry(key.object.clone()).or_insert((BURST, now));
        let refills = u32::try_from(now.saturating_duration_since(*since).as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        *left = left.saturating_add(refills).min(BURST);
        *since = if *left == BURST { now } else { *since + REFILL * refills };
        if *left == 0 {
            return Todo::Nothing;
        }
        *left -= 1;
        repeated.unwrap_or(Todo::Create)
    }

    fn created(&mut self, key: Key, name: String, now: Instant) {
        self.told.insert(key, Told { name, count: 1, last: now });
    }

    fn forget(&mut self, key: &Key) {
        self.told.remove(key);
    }
}

/// Removes the oldest half when full, so that the cost of looking for it is shared by many.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, last: impl Fn(&V) -> Instant) {
    if map.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Instant> = map.values().map(&last).collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    let mut spare = REMEMBERED / 2;
    map.retain(|_, value| {
        let is_old = last(value) <= median && spare > 0;
        spare -= usize::from(is_old);
        !is_old
    });
}

struct Writer {
    client: Client,
    reporter: Reporter,
    metrics: EventMetrics,
    memory: Memory,
    is_failing: bool,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let (key, event) = shortened(event);
            let result = match self.memory.note(&key, Instant::now()) {
                Todo::Nothing => Ok("limited"),
                Todo::Create => self.create(key, &event).await.map(|()| "created"),
                Todo::Repeat { name, count } => self.repeat(key, &event, &name, count).await,
            };
            match result {
                Ok(result) => {
                    self.metrics.count(result);
                    if result != "limited" && std::mem::take(&mut self.is_failing) {
                        tracing::info!("events can be written again");
                    }
                }
                Err(error) => {
                    self.metrics.count("failed");
                    if !std::mem::replace(&mut self.is_failing, true) {
                        let (namespace, name) = (&event.regarding.namespace, &event.regarding.name);
                        tracing::warn!(
                            error,
                            ?namespace,
                            ?name,
                            reason = event.reason,
                            "events cannot be written: the identity needs create and patch of events in events.k8s.io"
                        );
                    }
                }
            }
        }
    }

    async fn create(&mut self, key: Key, event: &Event) -> Result<(), String> {
        let now = Timestamp::now();
        let name = format!("{}.{:x}", key.object.name, now.as_nanosecond());
        let written = Written {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(key.object.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(event.regarding.clone()),
            type_: Some(if event.type_ == EventType::Normal { "Normal" } else { "Warning" }.to_owned()),
            reason: Some(event.reason.clone()),
            action: Some(event.action.clone()),
            note: Some(event.note.clone()),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: Some(self.reporter.instance.clone()),
            ..Written::default()
        };
        let api: Api<Written> = Api::namespaced(self.client.clone(), &key.object.namespace);
        in_time(api.create(&PostParams::default(), &written)).await?.map_err(|error| error.to_string())?;
        self.memory.created(key, name, Instant::now());
        Ok(())
    }

    async fn repeat(&mut self, key: Key, event: &Event, name: &str, count: i32) -> Result<&'static str, String> {
        let api: Api<Written> = Api::namespaced(self.client.clone(), &key.object.namespace);
        let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
        let patch = Patch::Merge(json!({ "series": series }));
        match in_time(api.patch(name, &PatchParams::default(), &patch)).await? {
            Ok(_) => Ok("repeated"),
            // Its time in the cluster is over, or somebody deleted it.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.memory.forget(&key);
                self.create(key, event).await.map(|()| "created")
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn in_time<T>(write: impl Future<Output = T>) -> Result<T, String> {
    timeout(WRITE, write).await.map_err(|_elapsed| format!("no answer within {} s", WRITE.as_secs()))
}

/// The event within the API server's bounds, and what makes it the same as another.
fn shortened(mut event: Event) -> (Key, Event) {
    cut(&mut event.note, LONGEST_NOTE);
    cut(&mut event.reason, LONGEST_REASON);
    cut(&mut event.action, LONGEST_REASON);
    let mut object = Object::of(&event.regarding);
    cut(&mut object.name, LONGEST_NAME);
    let (reason, action, note) = (event.reason.clone(), event.action.clone(), event.note.clone());
    (Key { object, type_: event.type_, reason, action, note }, event)
}

fn cut(text: &mut String, longest: usize) {
    let mut end = longest.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    fn event(note: &str) -> Event {
        let regarding = ObjectReference {
            kind: Some("Deployment".into()),
            namespace: Some("team".into()),
            name: Some("llama".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        };
        Event { regarding, type_: EventType::Normal, reason: "Woken".into(), action: "Scale".into(), note: note.into() }
    }

    fn key(note: &str) -> Key {
        shortened(event(note)).0
    }

    #[test]
    fn the_same_again_raises_a_count_and_another_note_is_another_event() {
        let mut memory = Memory::default();
        let start = Instant::now();
        assert_eq!(memory.note(&key("3 held"), start), Todo::Create);
        memory.created(key("3 held"), "llama.1".into(), start);
        for count in 2..5 {
            assert_eq!(memory.note(&key("3 held"), start), Todo::Repeat { name: "llama.1".into(), count });
        }
        assert_eq!(memory.note(&key("5 held"), start), Todo::Create);
        assert_eq!(memory.note(&key("3 held"), start + REPEATS), Todo::Create, "so long after it is news");
        // One that could not be written is not remembered.
        assert_eq!(memory.note(&key("5 held"), start), Todo::Create);
    }

    #[test]
    fn one_object_has_a_budget_that_refills_and_others_have_their_own() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let writes = |memory: &mut Memory, now: Instant, times: usize| {
            (0..times).filter(|index| memory.note(&key(&format!("{now:?} {index}")), now) != Todo::Nothing).count()
        };
        assert_eq!(writes(&mut memory, start, 100), 25);
        assert_eq!(writes(&mut memory, start + REFILL - Duration::from_secs(1), 100), 0);
        assert_eq!(writes(&mut memory, start + REFILL, 100), 1);
        assert_eq!(writes(&mut memory, start + REFILL * 4, 100), 3);
        assert_eq!(writes(&mut memory, start + REFILL * 1000, 100), 25);
        let mut other = key("x");
        other.object.name = "mistral".into();
        assert_eq!(memory.note(&other, start), Todo::Create);
    }

    #[test]
    fn memory_has_a_bound() {
        let mut memory = Memory::default();
        let start = Instant::now();
        for index in 0..5000u32 {
            let mut key = key("x");
            key.object.name = format!("d{index}");
            let now = start + Duration::from_millis(u64::from(index / 100));
            if memory.note(&key, now) == Todo::Create {
                memory.created(key, "name".into(), now);
            }
            assert!(memory.told.len() <= REMEMBERED && memory.budgets.len() <= REMEMBERED);
        }
        assert!(memory.told.keys().any(|key| key.object.name == "d4999"));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let (key, event) = shortened(event(&"ä".repeat(4000)));
        assert_eq!((event.note.len(), key.note.len()), (1024, 1024));
        let mut text = "ää".to_owned();
        cut(&mut text, 3);
        assert_eq!(text, "ä");
    }

    #[tokio::test]
    async fn events_are_written_repeated_and_made_again_when_deleted() {
        let asked: Arc<Mutex<Vec<(Method, Value)>>> = Arc::default();
        let log = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let log = Arc::clone(&log);
            async move {
                let (parts, body) = request.into_parts();
                let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
                let patches = log.lock().unwrap().iter().filter(|(method, _)| *method == Method::PATCH).count();
                let is_gone = parts.method == Method::PATCH && patches == 1;
                log.lock().unwrap().push((parts.method, body.clone()));
                let (code, answer) = if is_gone {
                    (StatusCode::NOT_FOUND, json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" }))
                } else {
                    (StatusCode::OK, json!({ "metadata": { "name": "n" }, "eventTime": null }))
                };
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        });
        let metrics = EventMetrics::default();
        let reporter = Reporter { controller: "weir.internal/scaler".into(), instance: "pod-1".into() };
        let (recorder, task) = EventRecorder::start(Client::new(service, "x"), reporter, metrics.clone());
        for _ in 0..3 {
            recorder.tell(event("3 held"));
        }
        drop(recorder);
        task.await.unwrap();
        let asked = asked.lock().unwrap();
        let methods: Vec<&Method> = asked.iter().map(|(method, _)| method).collect();
        assert_eq!(methods, [&Method::POST, &Method::PATCH, &Method::PATCH, &Method::POST]);
        assert_eq!(asked[0].1["regarding"]["name"], "llama");
        assert_eq!(asked[0].1["note"], "3 held");
        assert_eq!(asked[1].1["series"]["count"], 2);
        for (result, count) in [("created", 2), ("repeated", 1), ("failed", 0)] {
            assert_eq!(metrics.events.get_or_create(&ResultLabels { result }).get(), count, "{result}");
        }
    }
}
