//! An API server of one's own script behind a real client: objects that are listed, watched and written as in
//! Kubernetes, reviews that are answered as told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

type Script = Box<dyn Fn(&Value) -> Answer + Send + Sync>;

/// What a review is answered with.
pub(crate) enum Answer {
    /// This status.
    Status(Value),
    /// A failure of this code.
    Failure(u16),
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing, ever.
    Silence,
    /// This, once a permit is there.
    After(Arc<Semaphore>, Box<Answer>),
}

#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) client: kube::Client,
    inner: Arc<Inner>,
}

struct Inner {
    objects: Mutex<Objects>,
    version: watch::Sender<u64>,
    reviews: Mutex<Script>,
    /// Bodies of reviews, as they arrived.
    asked: Mutex<Vec<Value>>,
    forbidden: Mutex<BTreeSet<String>>,
    /// Writes that arrived: method and path.
    writes: Mutex<Vec<(Method, String)>>,
}

#[derive(Default)]
struct Objects {
    /// By collection and name.
    current: BTreeMap<(String, String), Value>,
    log: Vec<Event>,
}

#[derive(Clone)]
struct Event {
    version: u64,
    collection: String,
    name: String,
    event: &'static str,
    object: Value,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        super::install_crypto_provider();
        let inner = Arc::new(Inner {
            objects: Mutex::default(),
            version: watch::Sender::new(1),
            reviews: Mutex::new(Box::new(|_| Answer::Failure(500))),
            asked: Mutex::default(),
            forbidden: Mutex::default(),
            writes: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        Self { client: kube::Client::try_from(config).unwrap(), inner }
    }

    /// Decides about each review from now on.
    pub(crate) fn answer_reviews(&self, script: impl Fn(&Value) -> Answer + Send + Sync + 'static) {
        *self.inner.reviews.lock().unwrap() = Box::new(script);
    }

    /// How many reviews of this kind (`TokenReview`, `SubjectAccessReview`) arrived.
    pub(crate) fn asked(&self, kind: &str) -> usize {
        self.inner.asked.lock().unwrap().iter().filter(|review| review["kind"] == kind).count()
    }

    /// The last review that arrived.
    pub(crate) fn last_review(&self) -> Value {
        self.inner.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    /// Creates or replaces an object, as somebody else would.
    pub(crate) fn put(&self, collection: &str, name: &str, mut object: Value) {
        let mut objects = self.inner.objects.lock().unwrap();
        object["metadata"]["name"] = json!(name);
        self.inner.store(&mut objects, collection, name, object);
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        let mut objects = self.inner.objects.lock().unwrap();
        if let Some(object) = objects.current.remove(&(collection.to_owned(), name.to_owned())) {
            self.inner.log(&mut objects, collection, name, "DELETED", object);
        }
    }

    pub(crate) fn get(&self, collection: &str, name: &str) -> Option<Value> {
        self.inner.objects.lock().unwrap().current.get(&(collection.to_owned(), name.to_owned())).cloned()
    }

    /// Answers 403 to all below this path from now on.
    pub(crate) fn forbid(&self, path: &str) {
        self.inner.forbidden.lock().unwrap().insert(path.to_owned());
    }

    pub(crate) fn permit(&self, path: &str) {
        self.inner.forbidden.lock().unwrap().remove(path);
    }

    /// How many writes of this method arrived.
    pub(crate) fn writes(&self, method: &Method) -> usize {
        self.inner.writes.lock().unwrap().iter().filter(|(own, _)| own == method).count()
    }
}

impl Inner {
    fn store(&self, objects: &mut Objects, collection: &str, name: &str, mut object: Value) -> Value {
        let key = (collection.to_owned(), name.to_owned());
        let event = if objects.current.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = json!((*self.version.borrow() + 1).to_string());
        objects.current.insert(key, object.clone());
        self.log(objects, collection, name, event, object.clone());
        object
    }

    fn log(&self, objects: &mut Objects, collection: &str, name: &str, event: &'static str, mut object: Value) {
        let version = *self.version.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        objects.log.push(Event { version, collection: collection.into(), name: name.into(), event, object });
        self.version.send_replace(version);
    }

    fn events_after(&self, collection: &str, name: Option<&str>, after: u64) -> (u64, String) {
        let objects = self.objects.lock().unwrap();
        let mut lines = String::new();
        let mut last = after;
        for event in objects.log.iter().filter(|event| event.version > after && event.collection == collection) {
            last = event.version;
            if name.is_none_or(|name| name == event.name) {
                lines += &format!("{}\n", json!({ "type": event.event, "object": event.object }));
            }
        }
        (last, lines)
    }
}

fn status(code: u16, reason: &str) -> Response {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("scripted {code}"), "reason": reason, "code": code });
    (StatusCode::from_u16(code).unwrap(), [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn json_answer(code: u16, body: &Value) -> Response {
    (StatusCode::from_u16(code).unwrap(), [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if inner.forbidden.lock().unwrap().iter().any(|forbidden| path.starts_with(forbidden.as_str())) {
        return status(403, "Forbidden");
    }
    if path.ends_with("reviews") {
        inner.asked.lock().unwrap().push(body.clone());
        let mut answer = inner.reviews.lock().unwrap()(&body);
        while let Answer::After(permits, next) = answer {
            permits.acquire().await.unwrap().forget();
            answer = *next;
        }
        return match answer {
            Answer::Status(answer) => {
                let mut body = body;
                body["status"] = answer;
                json_answer(201, &body)
            }
            Answer::Failure(code) => status(code, "Scripted"),
            Answer::Bytes(bytes) => (StatusCode::CREATED, bytes).into_response(),
            Answer::Silence | Answer::After(..) => std::future::pending().await,
        };
    }
    if parts.method != Method::GET {
        inner.writes.lock().unwrap().push((parts.method.clone(), path.clone()));
        return write(&inner, &parts.method, &path, body);
    }
    let query: BTreeMap<String, String> = query(parts.uri.query().unwrap_or_default());
    let name = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name=")).map(String::from);
    if query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
        let after = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        return watch_collection(inner, path, name, after);
    }
    let objects = inner.objects.lock().unwrap();
    let items: Vec<_> = objects
        .current
        .iter()
        .filter(|((collection, own), _)| *collection == path && name.as_ref().is_none_or(|name| name == own))
        .map(|(_, object)| object.clone())
        .collect();
    let version = inner.version.borrow().to_string();
    json_answer(200, &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }))
}

fn query(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(key, value)| (decode(key), decode(value))).collect()
}

fn watch_collection(inner: Arc<Inner>, collection: String, name: Option<String>, after: u64) -> Response {
    let versions = inner.version.subscribe();
    let events = futures_util::stream::unfold((inner, versions, after), move |(inner, mut versions, mut after)| {
        let (collection, name) = (collection.clone(), name.clone());
        async move {
            loop {
                versions.borrow_and_update();
                let (last, lines) = inner.events_after(&collection, name.as_deref(), after);
                after = last;
                if !lines.is_empty() {
                    return Some((Ok::<_, std::io::Error>(lines), (inner, versions, after)));
                }
                if versions.changed().await.is_err() {
                    return None;
                }
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(events)).into_response()
}

fn write(inner: &Inner, method: &Method, path: &str, body: Value) -> Response {
    let mut objects = inner.objects.lock().unwrap();
    if *method == Method::POST {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if objects.current.contains_key(&(path.to_owned(), name.clone())) {
            return status(409, "AlreadyExists");
        }
        return json_answer(201, &inner.store(&mut objects, path, &name, body));
    }
    let (collection, name) = path.rsplit_once('/').unwrap();
    let Some(current) = objects.current.get(&(collection.to_owned(), name.to_owned())).cloned() else {
        return status(404, "NotFound");
    };
    let version = &body["metadata"]["resourceVersion"];
    if !version.is_null() && *version != current["metadata"]["resourceVersion"] {
        return status(409, "Conflict");
    }
    let mut next = current;
    if *method == Method::PATCH {
        merge(&mut next, &body);
    } else {
        next = body;
    }
    json_answer(200, &inner.store(&mut objects, collection, name, next))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}
