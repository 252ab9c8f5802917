//! An API server that serves lists and watches over a real socket, and can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(super) const V1: &str = "/apis/inference.networking.k8s.io/v1/inferencepools";
pub(super) const OLD: &str = "/apis/inference.networking.x-k8s.io/v1alpha2/inferencepools";
pub(super) const PODS: &str = "/api/v1/pods";
pub(super) const SERVICES: &str = "/api/v1/services";

/// How a collection is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Mode {
    #[default]
    Served,
    /// 404, as for a CRD that is not installed.
    Absent,
    /// 403.
    Forbidden,
    /// 200 and something that is no list.
    Garbage,
    /// Nothing, for ever.
    Hanging,
}

type Key = (String, String, String);

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    /// Version, collection, namespace, frame.
    events: Vec<(u64, String, String, Value)>,
    /// Watches from before this version are told 410.
    oldest: u64,
    modes: HashMap<String, Mode>,
    /// Watches that began before the present one end.
    cut: u64,
    requests: Vec<String>,
    watches: HashMap<String, usize>,
}

pub(super) struct ApiServer {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    task: Option<JoinHandle<()>>,
}

impl ApiServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, changed) = (Arc::new(Mutex::new(State { version: 1, ..State::default() })), watch::Sender::new(0));
        let task = Some(tokio::spawn(accept(listener, state.clone(), changed.clone())));
        Self { address, state, changed, task }
    }

    pub(super) fn client(&self) -> Client {
        Client::try_from(Config::new(format!("http://{}", self.address).parse().unwrap())).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Creates or replaces `object`.
    pub(super) fn put(&self, collection: &str, object: Value) {
        self.change(|state| state.put(collection, object));
    }

    pub(super) fn put_all(&self, collection: &str, objects: impl IntoIterator<Item = Value>) {
        self.change(|state| objects.into_iter().for_each(|object| state.put(collection, object)));
    }

    pub(super) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
            let mut object = state.objects.remove(&key).expect("something to delete");
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let frame = json!({ "type": "DELETED", "object": object });
            state.events.push((state.version, key.0, key.1, frame));
        });
    }

    pub(super) fn mode(&self, collection: &str, mode: Mode) {
        self.change(|state| {
            state.modes.insert(collection.to_owned(), mode);
        });
    }

    /// All watches break off without a last frame.
    pub(super) fn cut(&self) {
        self.change(|state| state.cut += 1);
    }

    /// What happened until now is forgotten: who asks for it is told 410.
    pub(super) fn compact(&self) {
        self.change(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.events.clear();
        });
    }

    /// A frame that is not from a change.
    pub(super) fn send(&self, collection: &str, frame: Value) {
        self.change(|state| {
            state.version += 1;
            state.events.push((state.version, collection.to_owned(), String::new(), frame));
        });
    }

    /// Goes away with all its connections.
    pub(super) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }

    /// Comes back at the same address.
    pub(super) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = Some(tokio::spawn(accept(listener, self.state.clone(), self.changed.clone())));
    }

    /// The paths with queries of all requests that name `part`.
    pub(super) fn requests(&self, part: &str) -> Vec<String> {
        self.lock().requests.iter().filter(|request| request.contains(part)).cloned().collect()
    }

    pub(super) fn lists(&self, part: &str) -> usize {
        self.requests(part).iter().filter(|request| !request.contains("watch=true")).count()
    }

    /// How many watches of `collection` are open.
    pub(super) fn watching(&self, collection: &str) -> usize {
        self.lock().watches.get(collection).copied().unwrap_or_default()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl State {
    fn put(&mut self, collection: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let text = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
        let key = (collection.to_owned(), text("namespace"), text("name"));
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let frame = json!({ "type": kind, "object": object });
        self.events.push((self.version, key.0.clone(), key.1.clone(), frame));
        self.objects.insert(key, object);
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, changed: watch::Sender<u64>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (state, changed) = (state.clone(), changed.subscribe());
        connections.spawn(async move { drop(serve(stream, state, changed).await) });
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, mut changed: watch::Receiver<u64>) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        state.lock().unwrap().requests.push(target.clone());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let (collection, namespace) = match path.split_once("/namespaces/") {
            Some((before, after)) => {
                let (namespace, plural) = after.split_once('/').unwrap();
                (format!("{before}/{plural}"), Some(namespace.to_owned()))
            }
            None => (path.to_owned(), None),
        };
        let mode = state.lock().unwrap().modes.get(&collection).copied().unwrap_or_default();
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
                           "message": format!("{reason}: cannot list {collection}") })
                .to_string(),
            )
        };
        let (code, body) = match mode {
            Mode::Hanging => std::future::pending().await,
            Mode::Absent => failure(404, "NotFound"),
            Mode::Forbidden => failure(403, "Forbidden"),
            Mode::Garbage => (200, "[1,2".to_owned()),
            Mode::Served if query.get("watch") == Some(&"true") => {
                let since = query["resourceVersion"].parse().unwrap();
                *state.lock().unwrap().watches.entry(collection.clone()).or_default() += 1;
                let outcome = send_watch(&mut stream, &state, &mut changed, &collection, namespace.as_deref(), since).await;
                *state.lock().unwrap().watches.entry(collection.clone()).or_default() -= 1;
                return outcome;
            }
            // One object: its path is a collection's and its name.
            Mode::Served if !query.contains_key("limit") => match one(&state.lock().unwrap(), &collection, namespace.as_deref()) {
                Some(object) => (200, object),
                None => failure(404, "NotFound"),
            },
            Mode::Served => (200, list(&state.lock().unwrap(), &collection, namespace.as_deref(), &query)),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}

fn one(state: &State, path: &str, namespace: Option<&str>) -> Option<String> {
    let (collection, name) = path.rsplit_once('/')?;
    let key = (collection.to_owned(), namespace?.to_owned(), name.to_owned());
    state.objects.get(&key).map(Value::to_string)
}

fn list(state: &State, collection: &str, namespace: Option<&str>, query: &HashMap<&str, &str>) -> String {
    let named = query.get("fieldSelector").and_then(|selector| selector.split_once("%3D")).map(|(_, name)| name);
    let begin: usize = query.get("continue").map_or(0, |from| from.parse().unwrap());
    let limit: usize = query["limit"].parse().unwrap();
    let chosen = state.objects.iter().filter(|((of, within, name), _)| {
        of == collection && namespace.is_none_or(|namespace| namespace == within) && named.is_none_or(|named| named == name)
    });
    let mut items: Vec<_> = chosen.map(|(_, object)| object).skip(begin).take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { (begin + limit).to_string() } else { String::new() };
    json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": state.version.to_string(), "continue": next }, "items": items })
        .to_string()
}

async fn send_watch(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    changed: &mut watch::Receiver<u64>,
    collection: &str,
    namespace: Option<&str>,
    mut since: u64,
) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let cut = state.lock().unwrap().cut;
    loop {
        changed.mark_unchanged();
        let mut frames = Vec::new();
        {
            let state = state.lock().unwrap();
            if state.cut != cut {
                return Ok(());
            }
            if since < state.oldest {
                frames.push(
                    json!({ "type": "ERROR", "object": { "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                                    "message": "too old resource version", "reason": "Expired", "code": 410 } }),
                );
            } else {
                let own = state.events.iter().filter(|(version, of, within, _)| {
                    *version > since
                        && of == collection
                        && namespace.is_none_or(|namespace| namespace == within || within.is_empty())
                });
                frames.extend(own.map(|(_, _, _, frame)| frame.clone()));
            }
            since = state.version;
        }
        let expired = frames.first().is_some_and(|frame| frame["object"]["code"] == 410);
        for frame in frames {
            let line = format!("{frame}\n");
            stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
        }
        if expired {
            return Ok(());
        }
        let mut byte = [0];
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            read = stream.read(&mut byte) => return read.map(drop),
        }
    }
}
