//! Pools in a datastore, by the second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt;
use weir_datastore::engine::Engine;
use weir_datastore::{
    Combined, Counters, Datastore, EndpointLoad, EndpointSpec, EndpointState, EndpointWriter, PickerLoad, PickerWriter, PodStart,
    PoolId, PoolSpec, RequiredOptions, RequiredWriter, Selector, StartTimes, StartingPod, TopologyWriter, UnitLoad, Unused,
    datastore,
};
use weir_hpa::required::{LEARNED_VERSION, Learned, Pickers};

use crate::documents::Texts;
use crate::fingerprint::fingerprint;
use crate::observe::{Memory, observe};
use crate::{DemandMetrics, FileKeeper, Ledger};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const MODEL: &str = "llama";

/// A pool `default/p` with one picker and the endpoints that a test wants.
pub(crate) struct Rig {
    store: Datastore,
    topology: TopologyWriter,
    required: RequiredWriter,
    writers: BTreeMap<String, EndpointWriter>,
    picker: Option<PickerWriter>,
    pods: Vec<(u8, u16, EndpointState)>,
    starts: Vec<StartingPod>,
    options: RequiredOptions,
    image: &'static str,
    origin: Instant,
    pub(crate) elapsed: Duration,
}

impl Rig {
    fn new(with_picker: bool) -> Self {
        let (store, topology) = datastore();
        let required = topology.required_writer();
        let mut rig = Self {
            store,
            topology,
            required,
            writers: BTreeMap::new(),
            picker: None,
            pods: Vec::new(),
            starts: Vec::new(),
            options: RequiredOptions::default(),
            image: "",
            origin: Instant::now() + Duration::from_secs(100),
            elapsed: Duration::ZERO,
        };
        rig.discover(with_picker);
        rig
    }

    /// One full server, of which `ledger` has learned what it does.
    pub(crate) fn full(ledger: &Ledger) -> Self {
        let mut rig = Self::new(false);
        rig.pods = vec![(1, 0, EndpointState::Ready)];
        rig.discover(false);
        rig.serve(&[ledger], 60, 10.0, 5.0, &mut 0.0);
        rig
    }

    fn id() -> PoolId {
        PoolId::new("default", "p")
    }

    fn now(&self) -> Instant {
        self.origin + self.elapsed
    }

    fn unix(&self) -> Duration {
        Duration::from_secs(1_000_000) + self.elapsed
    }

    fn discover(&mut self, with_picker: bool) {
        let endpoints = self.pods.iter().map(|(pod, rank, state)| EndpointSpec {
            pod: format!("pod-{pod}").into(),
            pod_uid: format!("uid-{pod}").into(),
            rank: *rank,
            state: *state,
            serves_with: self.image.into(),
            ..EndpointSpec::standalone(format!("10.0.0.{pod}:{}", 8000 + rank).parse().unwrap())
        });
        let spec = PoolSpec {
            endpoints: endpoints.collect(),
            pickers: with_picker.then(|| vec![Arc::from("picker")]),
            starts: self.starts.clone(),
            required: self.options,
            ..PoolSpec::empty(Self::id())
        };
        let now = self.now();
        let change = self.topology.upsert(spec, now);
        self.writers.extend(change.added.into_iter().map(|writer| (writer.key().address.to_string(), writer)));
        self.picker = change.added_pickers.into_iter().next().or(self.picker.take());
    }

    /// What the page of the endpoint at `address` says of its model.
    fn model(&mut self, address: &str, model: &str) {
        let writer = self.writers.get_mut(address).unwrap();
        let load = EndpointLoad::clone(writer.status().load.as_deref().unwrap());
        let units = vec![UnitLoad { model: Some(model.into()), ..UnitLoad::default() }];
        writer.succeeded(EndpointLoad { units, ..load }, SECOND);
    }

    /// Every endpoint has served `served` requests of 100 + 200 tokens, and has `waiting` more.
    fn pages(&mut self, served: f64, waiting: f64) {
        let at = self.now();
        for writer in self.writers.values_mut() {
            let one = |value| Some(Combined { value, hottest: value });
            let load = EndpointLoad {
                engine: Engine::Vllm,
                scraped_at: at,
                running: one(8.0),
                waiting: one(waiting),
                kv_cache_utilization: one(0.5),
                counters: Counters {
                    prompt_tokens: Some(served * 100.0),
                    generation_tokens: Some(served * 200.0),
                    first_tokens: Some(served),
                    completed: Some(served),
                    ..Counters::default()
                },
                lora: None,
                units: vec![UnitLoad { model: Some(MODEL.into()), ..UnitLoad::default() }],
                unused: Unused::default(),
            };
            writer.succeeded(load, SECOND);
        }
    }

    fn picked(&mut self, held: u64, arrivals: u64, of_weir: bool) {
        let read_at = self.now();
        let load = PickerLoad {
            read_at,
            held: Some(held),
            in_flight: of_weir.then_some(1),
            arrivals,
            prompt_tokens: of_weir.then_some(arrivals * 100),
        };
        self.picker.as_mut().unwrap().succeeded(load, SECOND);
    }

    fn observed(&self, memory: &mut Memory) -> weir_hpa::required::Second {
        let snapshot = self.store.snapshot(&Self::id(), &Selector::everything(), self.now()).unwrap();
        observe(&snapshot, memory, self.unix())
    }

    pub(crate) fn turn(&mut self, ledger: &Ledger) {
        let (now, unix) = (self.now(), self.unix());
        ledger.turn(&self.store, &mut self.required, now, unix);
    }

    pub(crate) fn level(&self) -> Result<f64, String> {
        let snapshot = self.store.snapshot(&Self::id(), &Selector::everything(), self.now()).unwrap();
        snapshot.required_replicas().map(|measured| measured.value).map_err(|unknown| unknown.to_string())
    }

    /// `seconds` in which each endpoint serves `rate` requests a second and `waiting` wait for it; every ledger has its turns.
    fn serve(&mut self, ledgers: &[&Ledger], seconds: u32, rate: f64, waiting: f64, served: &mut f64) {
        for _ in 0..seconds {
            self.elapsed += SECOND;
            *served += rate;
            self.pages(*served, waiting);
            for ledger in ledgers {
                self.turn(ledger);
            }
        }
    }
}

fn ledger() -> Ledger {
    Ledger::new(RequiredOptions::default(), DemandMetrics::register(&mut Registry::default()))
}

/// Costs by which a request of 100 + 200 tokens takes `seconds` of a replica.
fn learned(seconds: f64) -> Learned {
    Learned {
        version: LEARNED_VERSION,
        fingerprint: format!("vllm:{MODEL}"),
        seconds_per_prompt_token: Some(seconds / 500.0),
        seconds_per_generated_token: Some(seconds / 250.0),
        samples: 7,
        busy_seconds: 200.0,
        healthy_tokens_per_second: 0.0,
        start_seconds: Some(60.0),
        starts: 3,
        prompt_tokens: Some(100.0),
        output_tokens: 200.0,
        days: Vec::new(),
    }
}

fn kept(learned: &Learned) -> Texts {
    Texts::from([("default.p".to_owned(), serde_json::to_string(learned).unwrap())])
}

#[test]
fn ranks_of_a_pod_are_one_replica() {
    let mut rig = Rig::new(false);
    rig.pods = vec![
        (1, 0, EndpointState::Ready),
        (1, 1, EndpointState::Ready),
        (2, 0, EndpointState::Ready),
        (3, 0, EndpointState::Unready),
    ];
    rig.discover(false);
    rig.pages(10.0, 2.0);
    let mut memory = Memory::default();
    let second = rig.observed(&mut memory);
    assert_eq!((second.pickers, second.pending, second.started), (Pickers::None, 1, Vec::new()));
    let mut endpoints = second.endpoints.unwrap();
    endpoints.sort_by(|one, other| one.load.unwrap().running.total_cmp(&other.load.unwrap().running));
    let loads: Vec<_> = endpoints.iter().map(|endpoint| endpoint.load.unwrap()).collect();
    assert_eq!((loads[0].running, loads[1].running, loads[1].waiting, loads[1].kv), (8.0, 16.0, 4.0, 0.5));
    assert_eq!((loads[1].first_tokens, loads[1].prompt_tokens), (Some(20.0), Some(2000.0)));
    // Nobody saw them become ready: their counters began long ago.
    assert!(endpoints.iter().all(|endpoint| endpoint.ready_for >= Duration::from_secs(60)));
    // A rank that nobody can read makes its pod unreadable, and the ids stay.
    let ids = |second: weir_hpa::required::Second| {
        let mut ids: Vec<_> = second.endpoints.unwrap().iter().map(|endpoint| (endpoint.id, endpoint.load.is_some())).collect();
        ids.sort_unstable();
        ids
    };
    let before = ids(rig.observed(&mut memory));
    rig.elapsed += Duration::from_secs(10);
    rig.writers.retain(|address, _| !address.ends_with(":8001"));
    rig.pages(11.0, 2.0);
    let after = ids(rig.observed(&mut memory));
    assert_eq!(before.iter().map(|(id, _)| *id).collect::<Vec<_>>(), after.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(after.iter().filter(|(_, readable)| *readable).count(), 1);
}

#[test]
fn pods_that_start_are_seen_to_the_end_of_it() {
    let mut rig = Rig::new(false);
    let start = |rig: &Rig, unready: bool, obstacle: Option<&str>| StartingPod {
        pod: "pod-1".into(),
        uid: "uid-1".into(),
        pending: false,
        start: PodStart {
            times: StartTimes::default(),
            began: rig.origin,
            seen_from_creation: true,
            first: true,
            unready_since: unready.then_some(rig.origin),
            obstacle: obstacle.map(Arc::from),
        },
    };
    let mut memory = Memory::default();
    rig.pods = vec![(1, 0, EndpointState::Unready)];
    rig.starts = vec![start(&rig, true, None)];
    rig.discover(false);
    assert_eq!(rig.observed(&mut memory).pending, 1);
    rig.starts = vec![start(&rig, true, Some("ImagePullBackOff"))];
    rig.discover(false);
    assert_eq!(rig.observed(&mut memory).pending, 0, "no promise");
    rig.elapsed += Duration::from_secs(40);
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.starts = vec![start(&rig, false, None)];
    rig.discover(false);
    rig.pages(0.0, 0.0);
    let second = rig.observed(&mut memory);
    assert_eq!((second.pending, second.started), (0, vec![Duration::from_secs(40)]));
    assert_eq!(second.endpoints.unwrap()[0].ready_for, Duration::ZERO, "its counters began at nothing");
    // Not ready for a moment, it does not begin anew.
    for state in [EndpointState::Unready, EndpointState::Ready] {
        rig.elapsed += Duration::from_secs(10);
        rig.pods = vec![(1, 0, state)];
        rig.discover(false);
        rig.observed(&mut memory);
    }
    let second = rig.observed(&mut memory);
    assert_eq!((second.started.len(), second.endpoints.unwrap()[0].ready_for), (0, Duration::from_secs(20)));
}

#[test]
fn only_a_weir_picker_counts_what_arrives() {
    let mut rig = Rig::new(true);
    let mut memory = Memory::default();
    // It never told anything, so it holds nothing that anybody counts.
    assert_eq!(rig.observed(&mut memory).pickers, Pickers::None);
    rig.picked(3, 40, false);
    let Pickers::Read(pickers) = rig.observed(&mut memory).pickers else { panic!("not read") };
    assert_eq!((pickers[0].held, pickers[0].arrivals, pickers[0].prompt_tokens), (3.0, None, None));
    rig.picked(3, 40, true);
    let Pickers::Read(pickers) = rig.observed(&mut memory).pickers else { panic!("not read") };
    assert_eq!((pickers[0].arrivals, pickers[0].prompt_tokens), (Some(40.0), Some(4000.0)));
    rig.elapsed += Duration::from_secs(30);
    assert_eq!(rig.observed(&mut memory).pickers, Pickers::Unreadable);
}

#[test]
fn unknown_before_the_second_measurement_and_when_nobody_can_be_read() {
    let mut rig = Rig::new(false);
    let ledger = ledger();
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    assert!(rig.level().unwrap_err().contains("--no-required-replicas"));
    let mut served = 0.0;
    rig.serve(&[&ledger], 1, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Err("no second measurement yet".to_owned()));
    rig.serve(&[&ledger], 1, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Err("arrivals have been watched for 1 s only, 20 are needed".to_owned()));
    rig.serve(&[&ledger], 20, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(1.0), "nothing learned: what is there");
    for _ in 0..12 {
        rig.elapsed += SECOND;
        rig.turn(&ledger);
    }
    assert_eq!(rig.level(), Err("only 0 of 1 ready endpoints can be read".to_owned()));
    rig.serve(&[&ledger], 3, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(1.0));
}

#[test]
fn a_pool_chooses_how_it_is_computed() {
    let mut rig = Rig::new(false);
    let all = RequiredOptions { spares: Some(1), ..RequiredOptions::default() };
    let ledger = Ledger::new(all, DemandMetrics::register(&mut Registry::default()));
    ledger.read(&kept(&learned(0.1)));
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    // A second's requests take a second of a replica: at 0.85 that is 1.2 replicas.
    rig.serve(&[&ledger], 130, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(3.0), "one of them to spare");
    rig.options = RequiredOptions { spares: Some(0), utilisation: Some(40), ..RequiredOptions::default() };
    rig.discover(false);
    rig.serve(&[&ledger], 2, 10.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(3.0), "2.5 replicas, none to spare, and what was learned is still known");
    let options = ledger.show(&Rig::id(), None).unwrap().options;
    assert_eq!((options.spares, options.utilisation, options.daily), (0, 0.4, false));
}

#[test]
fn a_full_server_teaches_and_a_second_replica_takes_it_over() {
    let mut rig = Rig::new(false);
    let (leader, follower) = (ledger(), ledger());
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    // Ten requests a second is what it can do.
    rig.serve(&[&leader], 60, 10.0, 5.0, &mut served);
    let texts = leader.to_write().expect("something was learned");
    leader.wrote(&texts);
    assert_eq!(leader.to_write(), None, "and nothing since");
    let document: Learned = serde_json::from_str(&texts["default.p"]).unwrap();
    assert_eq!(document.fingerprint, "vllm:llama");
    let second = document.seconds_per_prompt_token.unwrap() * 100.0 + document.seconds_per_generated_token.unwrap() * 200.0;
    assert!((0.09..0.11).contains(&second), "{second} replica-seconds for a request");
    // The other has seen nothing of it, and answers alike.
    follower.read(&texts);
    rig.pods = (1..=4).map(|pod| (pod, 0, EndpointState::Ready)).collect();
    rig.discover(false);
    let (mut levels, each) = (Vec::new(), 6.0);
    for ledger in [&leader, &follower] {
        rig.serve(&[ledger], 130, each, 0.0, &mut served);
        levels.push(rig.level());
    }
    // 4 × 6 requests a second of 0.1 s, at 0.85.
    assert_eq!(levels, [Ok(3.0), Ok(3.0)]);
}

#[test]
fn what_was_kept_counts_until_its_key_is_deleted() {
    let mut rig = Rig::new(false);
    let ledger = ledger();
    ledger.read(&kept(&learned(0.2)));
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    rig.serve(&[&ledger], 40, 4.0, 0.0, &mut served);
    // 4 × 0.2 / 0.85 is 0.94.
    assert_eq!(rig.level(), Ok(1.0));
    // Somebody knows better.
    ledger.read(&kept(&learned(0.5)));
    rig.serve(&[&ledger], 1, 4.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(3.0));
    ledger.read(&Texts::new());
    rig.serve(&[&ledger], 1, 4.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(1.0));
    let shown = ledger.show(&Rig::id(), None).unwrap();
    assert_eq!((shown.learned.samples, shown.document), (0, None));
}

#[test]
fn other_servers_are_learned_anew_and_broken_documents_stop_nothing() {
    let mut rig = Rig::new(false);
    let ledger = ledger();
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    let other = Learned { fingerprint: "sglang:other".into(), ..learned(9.0) };
    ledger.read(&kept(&other));
    rig.serve(&[&ledger], 25, 4.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(1.0));
    let shown = ledger.show(&Rig::id(), None).unwrap();
    assert!(shown.problem.unwrap().contains("what was learned is for sglang:other, the servers are vllm:llama"));
    assert_eq!(shown.learned.samples, 0);
    let broken = Texts::from([("default.p".to_owned(), "{\"version\":1".to_owned())]);
    ledger.read(&broken);
    rig.serve(&[&ledger], 60, 10.0, 5.0, &mut served);
    assert_eq!(ledger.to_write(), None, "what cannot be read is not written over");
    assert!(rig.level().is_ok());
    assert!(ledger.show(&Rig::id(), None).unwrap().problem.unwrap().contains("no such document"));
}

#[test]
fn servers_are_others_once_the_last_of_them_is_replaced() {
    let mut rig = Rig::new(false);
    rig.pods = (1..=3).map(|pod| (pod, 0, EndpointState::Ready)).collect();
    rig.discover(false);
    let of = |rig: &Rig, before: &str| {
        let snapshot = rig.store.snapshot(&Rig::id(), &Selector::everything(), rig.now()).unwrap();
        fingerprint(&snapshot, before)
    };
    assert_eq!(of(&rig, ""), None, "before the first page");
    rig.pages(0.0, 0.0);
    assert_eq!(of(&rig, "").as_deref(), Some("vllm:llama"));
    rig.model("10.0.0.1:8000", "qwen");
    rig.model("10.0.0.2:8000", "qwen\n");
    assert_eq!(of(&rig, "vllm:llama").as_deref(), Some("vllm:llama"));
    rig.model("10.0.0.3:8000", &"q".repeat(500));
    assert_eq!(of(&rig, "vllm:llama").as_deref(), Some("vllm:qwen"), "most of them");
    assert_eq!(of(&rig, &format!("vllm:{}", "q".repeat(95))).map(|name| name.len()), Some(100), "bounded");
}

#[test]
fn a_new_image_is_learned_anew() {
    let mut rig = Rig::new(false);
    let ledger = ledger();
    // It says nothing of images, so it is true of any.
    ledger.read(&kept(&learned(0.5)));
    rig.turn(&ledger);
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.image = "vllm:1,nvidia.com/gpu=1";
    rig.discover(false);
    let mut served = 0.0;
    rig.serve(&[&ledger], 25, 4.0, 0.0, &mut served);
    assert_eq!(rig.level(), Ok(3.0));
    let of_the_first = ledger.to_write().expect("the image is known now");
    assert!(of_the_first["default.p"].contains("\"fingerprint\":\"vllm:llama @"), "{of_the_first:?}");
    ledger.wrote(&of_the_first);
    rig.image = "vllm:2,nvidia.com/gpu=1";
    rig.discover(false);
    rig.serve(&[&ledger], 25, 4.0, 0.0, &mut served);
    let shown = ledger.show(&Rig::id(), None).unwrap();
    assert_eq!((rig.level(), shown.learned.samples), (Ok(1.0), 0));
    assert!(shown.problem.unwrap().contains("it is learned anew"));
    rig.image = "vllm:1,nvidia.com/gpu=1";
    rig.discover(false);
    rig.serve(&[&ledger], 25, 4.0, 0.0, &mut served);
    assert_eq!(ledger.show(&Rig::id(), None).unwrap().learned.samples, 7);
}

#[tokio::test(start_paused = true)]
async fn a_file_keeps_what_was_learned() {
    let path = std::env::temp_dir().join(format!("weir-demand-{}.json", std::process::id()));
    let mut rig = Rig::new(false);
    let first = ledger();
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    rig.serve(&[&first], 60, 10.0, 5.0, &mut served);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    FileKeeper::new(path.clone(), first.clone()).run(stop.clone()).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(serde_json::from_str::<Value>(&text).unwrap()["default.p"]["samples"].as_u64().unwrap() > 0, "{text}");
    let second = ledger();
    rig.turn(&second);
    FileKeeper::new(path.clone(), second.clone()).run(stop.clone()).await;
    assert_eq!(second.show(&Rig::id(), None).unwrap().learned.samples, first.show(&Rig::id(), None).unwrap().learned.samples);
    // Broken, it is left as it is.
    std::fs::write(&path, "[").unwrap();
    FileKeeper::new(path.clone(), first).run(stop).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn the_page_says_how_the_number_came_about() {
    let mut rig = Rig::new(false);
    let ledger = ledger();
    let get = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = crate::router(ledger.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let path = "/api/v1/pools/default/p/demand";
    let (status, error) = get(path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error["error"].as_str().unwrap().contains("of pool default/p"));
    rig.pods = vec![(1, 0, EndpointState::Ready)];
    rig.discover(false);
    let mut served = 0.0;
    rig.serve(&[&ledger], 1, 4.0, 0.0, &mut served);
    let (_, view) = get(path).await;
    assert_eq!((view["unknown"].as_str(), view.get("replicas")), (Some("no second measurement yet"), None));
    ledger.read(&kept(&learned(0.5)));
    rig.serve(&[&ledger], 40, 4.0, 0.0, &mut served);
    let (status, view) = get(path).await;
    assert_eq!((status, view["replicas"].as_u64()), (StatusCode::OK, Some(3)), "{view}");
    assert!(view["explanation"].as_str().unwrap().starts_with("3 replicas: 4.0 requests/s of 100 + 200 tokens"), "{view}");
    assert_eq!((view["basis"]["kind"].as_str(), view["servers"].as_str()), (Some("servers_only"), Some("vllm:llama")));
    assert!((view["arithmetic"]["requestSeconds"].as_f64().unwrap() - 0.5).abs() < 0.01, "{view}");
    assert_eq!(view["learned"]["samples"], 7);
    assert_eq!(view["kept"]["document"]["starts"], 3);
}
