//! The director on a real datastore, told pages through the writers that the collector has.

mod anything;
mod holding;
mod plugins;
mod starting;
mod telling;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use prometheus_client::registry::Registry;
use tokio::time::advance;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, EndpointState, EndpointWriter, FailureKind, PoolSpec, Saturation, TopologyWriter, datastore};

use super::*;
use crate::inference::{Code, Failure, Usage};
use crate::metrics::testing;
use crate::resources::{ModelRewrite, Objective, RewriteRule, Target};
use crate::scheduling::testing::request;

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    start: Instant,
    store: Datastore,
    topology: TopologyWriter,
    writers: Vec<EndpointWriter>,
    pickers: Vec<PickerWriter>,
    registry: Registry,
    told: Arc<Mutex<BTreeMap<String, bool>>>,
    resources: watch::Sender<Arc<Resources>>,
    director: PoolDirector,
}

fn pool() -> PoolId {
    PoolId::new("default", "llama")
}

fn address(index: usize) -> SocketAddr {
    format!("10.0.0.{}:8000", index + 1).parse().unwrap()
}

fn spec(states: &[EndpointState]) -> PoolSpec {
    let endpoint = |(index, state): (usize, &EndpointState)| EndpointSpec {
        state: *state,
        pod: format!("pod-{index}").into(),
        ..EndpointSpec::standalone(address(index).into())
    };
    let endpoints = states.iter().enumerate().map(endpoint).collect();
    PoolSpec { endpoints, pickers: Some(vec!["self".into()]), ..PoolSpec::empty(pool()) }
}

impl Rig {
    fn new(endpoints: usize) -> Self {
        Self::with(endpoints, SchedulingConfig::default())
    }

    fn with(endpoints: usize, scheduling: SchedulingConfig) -> Self {
        let start = Instant::now();
        let (store, mut topology) = datastore();
        let change = topology.upsert(spec(&vec![EndpointState::Ready; endpoints]), start);
        let mut registry = Registry::default();
        let metrics = EppMetrics::register(&mut registry, "llama", &scheduling, "c", "b");
        let told: Arc<Mutex<BTreeMap<String, bool>>> = Arc::default();
        let ear = told.clone();
        let tell: TellActivity = Arc::new(move |_, address| {
            let (ear, address) = (ear.clone(), address.to_string());
            Box::new(move |busy| {
                ear.lock().unwrap().insert(address.clone(), busy);
            })
        });
        let (resources, seen) = watch::channel(Arc::default());
        let settings = DirectorSettings { pool: pool(), scheduling, honour_subset: true, snapshot_lasts: Duration::ZERO };
        let rng = StdRng::seed_from_u64(7);
        let director = PoolDirector::new(settings, store.clone(), seen, metrics, tell, rng, start);
        let (writers, pickers) = (change.added, change.added_pickers);
        Self { start, store, topology, writers, pickers, registry, told, resources, director }
    }

    /// Endpoint `index` is read now.
    fn reads(&mut self, index: usize, running: u32, waiting: u32, kv: f64) {
        let page = format!(
            "vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\nvllm:kv_cache_usage_perc {kv}\n\
             vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"1000\"}} 1\n"
        );
        self.reads_page(index, &page);
    }

    fn reads_page(&mut self, index: usize, page: &str) {
        let clock = PageClock { asked_at: Instant::now(), wall_ms: 0, stale_after_ms: 60_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        self.writers[index].succeeded(load, SECOND);
    }

    fn all_idle(&mut self) {
        (0..self.writers.len()).for_each(|index| self.reads(index, 0, 0, 0.0));
    }

    fn states(&mut self, states: &[EndpointState]) {
        let change = self.topology.upsert(spec(states), self.start);
        assert!(change.added.is_empty() && change.removed.is_empty());
    }

    async fn place(&self, request: InferenceRequest) -> Result<Pick, Refusal> {
        self.director.direct(request).await
    }

    /// Where a plain request goes; it ends at once, with an answer.
    async fn goes_to(&self) -> SocketAddr {
        let mut pick = self.place(request()).await.unwrap();
        pick.ticket.response_started(200, Instant::now());
        pick.endpoints[0]
    }

    fn look(&self) -> Option<Arc<View>> {
        self.director.0.look(&self.director.0.scheduling(), Instant::now())
    }

    fn in_flight(&self) -> Vec<u64> {
        self.director.0.roster.load().members.iter().map(|member| member.state.in_flight.total()).collect()
    }

    fn page(&self) -> String {
        testing::page(&self.registry)
    }

    fn shows(&self, line: &str) {
        testing::shows(&self.registry, line);
    }
}

fn of_priority(objective: &str) -> InferenceRequest {
    InferenceRequest { objective: Some(objective.into()), ..request() }
}

fn only(addresses: &[(IpAddr, Option<u16>)]) -> InferenceRequest {
    InferenceRequest { subset: Subset::Only(addresses.into()), ..request() }
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_is_picked_and_the_request_is_in_flight_until_the_ticket_is_dropped() {
    let mut rig = Rig::new(3);
    rig.reads(0, 9, 5, 0.9);
    rig.reads(1, 1, 0, 0.1);
    rig.reads(2, 9, 9, 0.9);
    let pick = rig.place(request()).await.unwrap();
    assert_eq!((pick.endpoints.as_slice(), pick.target_model.as_deref()), ([address(1)].as_slice(), None));
    assert_eq!(rig.in_flight(), [0, 1, 0]);
    assert_eq!(rig.told.lock().unwrap().get("10.0.0.2:8000"), Some(&true));
    rig.shows("inference_objective_running_requests{model_name=\"target\"} 1");
    drop(pick);
    assert_eq!(rig.in_flight(), [0, 0, 0]);
    assert_eq!(rig.told.lock().unwrap().get("10.0.0.2:8000"), Some(&false));
    rig.shows("inference_objective_running_requests{model_name=\"target\"} 0");
    rig.shows(
        "inference_extension_scheduler_attempts_total{status=\"success\",target_model_name=\"target\",pod_name=\"pod-1\",namespace=\"default\",port=\"8000\"} 1",
    );
}

#[tokio::test(start_paused = true)]
async fn a_herd_between_two_pages_is_spread() {
    let mut rig = Rig::new(4);
    for (index, kv) in [0.10, 0.11, 0.12, 0.13].into_iter().enumerate() {
        rig.reads(index, 0, 0, kv);
    }
    let mut picks = Vec::new();
    for _ in 0..100 {
        advance(Duration::from_micros(100)).await;
        picks.push(rig.place(request()).await.unwrap());
    }
    let spread = rig.in_flight();
    assert_eq!(spread.iter().sum::<u64>(), 100);
    assert!(spread.iter().all(|count| (24..=26).contains(count)), "{spread:?}");
    // The next pages show what is in flight: nothing counts twice.
    advance(Duration::from_millis(1)).await;
    for (index, count) in spread.iter().enumerate() {
        rig.reads(index, *count as u32, 0, 0.3);
    }
    let view = rig.look().unwrap();
    let View { snapshot, roster, .. } = &*view;
    let mut candidates = Vec::new();
    rig.director.0.candidates(&Subset::All, snapshot, roster, &HashMap::new(), &mut candidates);
    for (candidate, count) in candidates.iter().zip(&spread) {
        let load = candidate.load.unwrap();
        assert_eq!((load.unseen, load.running(), load.waiting()), (0, Some(*count as f64), Some(0.0)));
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_read_requests_are_spread_by_what_is_in_flight() {
    let rig = Rig::new(4);
    let mut picks = Vec::new();
    for _ in 0..100 {
        picks.push(rig.place(request()).await.unwrap());
    }
    assert_eq!(rig.in_flight(), [25, 25, 25, 25]);
}

#[tokio::test(start_paused = true)]
async fn the_same_prompt_goes_where_it_went() {
    let mut rig = Rig::new(8);
    rig.all_idle();
    let prompt = |fill: u8| InferenceRequest { prefix: vec![fill; 640].into(), ..request() };
    let first = rig.place(prompt(b'a')).await.unwrap();
    let there = first.endpoints[0];
    drop(first);
    for _ in 0..20 {
        let again = rig.place(prompt(b'a')).await.unwrap();
        assert_eq!(again.endpoints[0], there);
    }
    // Ten blocks of 64 bytes, all of which matched from the second time on.
    rig.shows("inference_extension_prefix_indexer_hit_bytes_sum 12800.0");
    rig.shows("inference_extension_prefix_indexer_hit_ratio_bucket{le=\"0.9\"} 1");
    assert_eq!(rig.director.0.prefixes.len(), 10);
    let salted = InferenceRequest { cache_salt: Some("mine".into()), ..prompt(b'a') };
    drop(rig.place(salted).await.unwrap());
    assert_eq!(rig.director.0.prefixes.len(), 20, "another salt shares nothing");
    rig.topology.upsert(spec(&[]), rig.start);
    assert!(rig.place(request()).await.is_err());
    assert!(rig.director.0.prefixes.is_empty(), "gone with the endpoints");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_started_anew_has_no_prompts() {
    let mut rig = Rig::new(2);
    rig.all_idle();
    drop(rig.place(InferenceRequest { prefix: vec![b'a'; 640].into(), ..request() }).await.unwrap());
    for (tokens, blocks) in [(500, 10), (900, 10), (20, 0)] {
        for index in 0..2 {
            let page = format!("vllm:num_requests_running 0\nvllm:prompt_tokens_total {tokens}\n");
            rig.reads_page(index, &page);
        }
        rig.director.0.refresh(Instant::now());
        assert_eq!(rig.director.0.prefixes.len(), blocks);
    }
}

#[tokio::test(start_paused = true)]
async fn subsets() {
    let mut rig = Rig::new(3);
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 0, 50, 0.9);
    rig.reads(2, 0, 60, 0.9);
    let ip = |index: usize| address(index).ip();
    let pick = rig.place(only(&[(ip(1), None), (ip(2), Some(8000))])).await.unwrap();
    assert_eq!(pick.endpoints, [address(1)]);
    for nobody in [only(&[]), only(&[(ip(1), Some(8001))]), only(&[(ip(7), None)])] {
        let refusal = rig.place(nobody).await.unwrap_err();
        assert_eq!(refusal.message, "failed to find endpoint candidates for serving the request");
        assert_eq!((refusal.code, refusal.reason), (Code::ServiceUnavailable, Some("rejected-no-endpoints")));
    }
    rig.shows("inference_objective_request_error_total{model_name=\"target\",target_model_name=\"target\",error_code=\"ServiceUnavailable\"} 3");
}

#[tokio::test(start_paused = true)]
async fn sheddable_requests_are_refused_while_the_pool_is_saturated_and_no_others() {
    let mut rig = Rig::new(2);
    let objectives = vec![Objective { name: "batch".into(), priority: -1 }];
    rig.resources.send_replace(Arc::new(Resources::new(objectives, Vec::new(), Vec::new())));
    rig.place(of_priority("batch")).await.expect("nobody knows how full it is: nobody is shed");
    rig.reads(0, 9, 10, 0.1);
    rig.reads(1, 9, 0, 0.1);
    // max(10/5, .1/.8) = 2 and max(0, .1/.8) = .125: above 1 in the mean.
    let refusal = rig.place(of_priority("batch")).await.unwrap_err();
    assert_eq!(refusal.message, "system saturated, sheddable request dropped");
    assert_eq!((refusal.code, refusal.reason), (Code::ResourceExhausted, Some("rejected-saturated")));
    rig.place(request()).await.expect("not sheddable");
    rig.place(of_priority("unheard of")).await.expect("priority 0");
    rig.reads(0, 9, 9, 0.1);
    rig.place(of_priority("batch")).await.expect("(1.8 + .125) / 2 is below 1");
    let snapshot = rig.store.snapshot(&pool(), &Selector::everything(), Instant::now()).unwrap();
    assert_eq!(snapshot.saturation(), Saturation::Known((9.0 / 5.0 + 0.1 / 0.8) / 2.0));
    rig.director.0.refresh(Instant::now());
    rig.shows("inference_extension_flow_control_pool_saturation{inference_pool=\"llama\"} 0.9625");
    // Nobody there: sheddable 429, others 503.
    rig.states(&[EndpointState::Unready, EndpointState::Terminating]);
    assert_eq!(rig.place(of_priority("batch")).await.unwrap_err().code, Code::ResourceExhausted);
    assert_eq!(rig.place(request()).await.unwrap_err().code, Code::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_not_known_is_told_as_such() {
    let rig = Rig::new(1);
    assert!(rig.director.ready());
    let (store, _topology) = datastore();
    let settings = DirectorSettings {
        pool: pool(),
        scheduling: SchedulingConfig::default(),
        honour_subset: true,
        snapshot_lasts: Duration::ZERO,
    };
    let (_sender, resources) = watch::channel(Arc::default());
    let tell: TellActivity = Arc::new(|_, _| Box::new(|_| ()));
    let metrics = rig.director.0.metrics.clone();
    let lost = PoolDirector::new(settings, store, resources, metrics, tell, StdRng::seed_from_u64(1), rig.start);
    assert!(!lost.ready());
    assert_eq!(lost.direct(request()).await.unwrap_err().code, Code::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn models_are_rewritten() {
    let mut rig = Rig::new(1);
    rig.all_idle();
    let rule = RewriteRule { models: vec!["target".into()], targets: vec![Target { model: "tuned".into(), weight: None }] };
    let rewrite = ModelRewrite { name: "r".into(), created: 0, rules: vec![rule] };
    rig.resources.send_replace(Arc::new(Resources::new(Vec::new(), vec![rewrite], Vec::new())));
    assert_eq!(rig.place(request()).await.unwrap().target_model.as_deref(), Some("tuned"));
    rig.shows("inference_extension_model_rewrite_decisions_total{model_rewrite_name=\"r\",model_name=\"target\",target_model=\"tuned\"} 1");
    rig.shows("inference_objective_request_total{model_name=\"target\",target_model_name=\"tuned\",priority=\"0\"} 1");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_ejected_and_taken_back_once_it_answers() {
    let mut rig = Rig::new(2);
    // By its page the failing one is the better, as failing servers are.
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 5, 4, 0.9);
    for _ in 0..5 {
        let mut pick = rig.place(request()).await.unwrap();
        assert_eq!(pick.endpoints, [address(0)]);
        pick.ticket.response_started(503, Instant::now());
    }
    rig.shows("weir_epp_ejections_total{evidence=\"server_error\"} 1");
    rig.shows("inference_objective_request_error_total{model_name=\"target\",target_model_name=\"target\",error_code=\"ModelServerError\"} 5");
    rig.director.0.refresh(Instant::now());
    rig.shows("weir_epp_ejected_endpoints 1");
    for _ in 0..10 {
        assert_eq!(rig.goes_to().await, address(1));
    }
    advance(5 * SECOND).await;
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 5, 4, 0.9);
    let mut tries = rig.place(request()).await.unwrap();
    assert_eq!(tries.endpoints, [address(0)]);
    assert_eq!(rig.goes_to().await, address(1), "one tries at a time");
    tries.ticket.response_started(200, Instant::now());
    drop(tries);
    assert_eq!(rig.goes_to().await, address(0));
    rig.shows("weir_epp_recoveries_total 1");
}

#[tokio::test(start_paused = true)]
async fn where_everybody_is_ejected_nobody_is() {
    let mut rig = Rig::new(2);
    rig.all_idle();
    for _ in 0..40 {
        let mut pick = rig.place(request()).await.unwrap();
        pick.ticket.response_started(500, Instant::now());
    }
    assert!(rig.director.0.roster.load().members.iter().all(|member| member.state.health.is_ejected()));
    rig.place(request()).await.expect("still placed");
    // And what refuses connections is left to one who does not, ejected or not.
    advance(5 * SECOND).await;
    rig.all_idle();
    rig.writers[0].failed(FailureKind::Connect, "http://10.0.0.1:8000/metrics: refused", Instant::now());
    for _ in 0..10 {
        assert_eq!(rig.goes_to().await, address(1));
    }
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 0, 9, 0.0);
    assert_eq!(rig.goes_to().await, address(0), "its page can be read again");
}

#[tokio::test(start_paused = true)]
async fn one_refused_page_is_enough_and_a_few_errors_are_not() {
    let mut rig = Rig::new(2);
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 5, 4, 0.9);
    for _ in 0..2 {
        let mut pick = rig.place(request()).await.unwrap();
        assert_eq!(pick.endpoints, [address(0)], "an error alone is not enough");
        pick.ticket.response_started(503, Instant::now());
    }
    rig.writers[0].failed(FailureKind::Connect, "http://10.0.0.1:8000/metrics: refused", Instant::now());
    assert_eq!(rig.goes_to().await, address(1));
    rig.writers[0].failed(FailureKind::Status, "http://10.0.0.1:8000/metrics: 500", Instant::now());
    assert_eq!(rig.goes_to().await, address(0), "it listens");
}

#[tokio::test(start_paused = true)]
async fn who_was_passed_over_by_the_gateway_is_ejected_and_who_served_has_the_request() {
    let source = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n- type: max-score-picker\n  \
                  parameters: {maxNumOfEndpoints: 2}\n";
    let mut rig = Rig::with(2, SchedulingConfig::parse(source).unwrap());
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 0, 9, 0.0);
    for _ in 0..5 {
        let mut pick = rig.place(request()).await.unwrap();
        assert_eq!(pick.endpoints, [address(0), address(1)]);
        pick.ticket.served_by(address(1));
        pick.ticket.served_by(address(1));
        assert_eq!(rig.in_flight(), [0, 1]);
        pick.ticket.response_started(200, Instant::now());
    }
    assert_eq!(rig.in_flight(), [0, 0]);
    rig.shows("weir_epp_ejections_total{evidence=\"passed_over\"} 1");
    let mut pick = rig.place(request()).await.unwrap();
    assert_eq!(pick.endpoints, [address(1)]);
    pick.ticket.served_by("192.0.2.1:1".parse().unwrap());
    rig.shows("weir_epp_unknown_served_endpoints_total 1");
    assert_eq!(rig.in_flight(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_gateways_own_count_by_their_reason() {
    for (why, requests, evidence) in
        [(Failure::Unreached, 5, Some("unreached")), (Failure::TimedOut, 10, Some("no_answer")), (Failure::Elsewhere, 30, None)]
    {
        let mut rig = Rig::new(2);
        rig.reads(0, 0, 0, 0.0);
        rig.reads(1, 0, 9, 0.0);
        assert_eq!(rig.goes_to().await, address(0));
        for _ in 0..requests {
            let mut pick = rig.place(request()).await.unwrap();
            assert_eq!(pick.endpoints, [address(0)]);
            pick.ticket.gateway_answered(503, why, Instant::now());
        }
        match evidence {
            Some(evidence) => rig.shows(&format!("weir_epp_ejections_total{{evidence=\"{evidence}\"}} 1")),
            None => assert_eq!(rig.goes_to().await, address(0), "the endpoint had no part in it"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_without_an_answer_are_evidence_once_the_gateway_tells_of_answers() {
    let mut rig = Rig::new(2);
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 0, 9, 0.0);
    for _ in 0..30 {
        assert_eq!(rig.place(request()).await.unwrap().endpoints, [address(0)], "no answer was ever told of");
    }
    assert_eq!(rig.goes_to().await, address(0));
    for _ in 0..10 {
        assert_eq!(rig.place(request()).await.unwrap().endpoints, [address(0)]);
    }
    rig.shows("weir_epp_ejections_total{evidence=\"no_answer\"} 1");
    assert_eq!(rig.goes_to().await, address(1));
}

#[tokio::test(start_paused = true)]
async fn responses_are_measured() {
    let mut rig = Rig::new(1);
    rig.all_idle();
    let mut pick = rig.place(request()).await.unwrap();
    advance(SECOND).await;
    pick.ticket.response_started(200, Instant::now());
    pick.ticket.response_bytes(30, Instant::now());
    pick.ticket.response_bytes(12, Instant::now());
    advance(SECOND).await;
    let usage = Usage { prompt_tokens: 7, completion_tokens: 4, cached_tokens: 2 };
    pick.ticket.usage(usage);
    pick.ticket.usage(usage);
    pick.ticket.completed(Instant::now());
    pick.ticket.completed(Instant::now());
    drop(pick);
    let labels = "{model_name=\"target\",target_model_name=\"target\"}";
    for (family, sum) in [
        ("request_duration_seconds", "2.0"),
        ("response_sizes", "42.0"),
        ("request_sizes", "100.0"),
        ("input_tokens", "7.0"),
        ("output_tokens", "4.0"),
        ("prompt_cached_tokens", "2.0"),
        ("normalized_time_per_output_token_seconds", "0.5"),
    ] {
        rig.shows(&format!("inference_objective_{family}_sum{labels} {sum}"));
        rig.shows(&format!("inference_objective_{family}_count{labels} 1"));
    }
    let refusal = Refusal { code: Code::BadRequest, message: "no".into(), reason: None, retry_after: None };
    rig.director.refused(None, &refusal);
    rig.shows("inference_objective_request_error_total{model_name=\"\",target_model_name=\"\",error_code=\"BadRequest\"} 1");
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_close_together_share_a_look_and_none_is_shown_for_long() {
    let mut rig = Rig::new(2);
    rig.all_idle();
    let scheduling = SchedulingConfig::default();
    let settings = DirectorSettings { pool: pool(), scheduling, honour_subset: true, snapshot_lasts: SNAPSHOT_LASTS };
    let (_sender, resources) = watch::channel(Arc::default());
    let (tell, metrics) = (rig.director.0.tell.clone(), rig.director.0.metrics.clone());
    let director = PoolDirector::new(settings, rig.store.clone(), resources, metrics, tell, StdRng::seed_from_u64(1), rig.start);
    let look = || director.0.look(&director.0.scheduling(), Instant::now());
    let first = look().unwrap();
    advance(2 * SNAPSHOT_LASTS - Duration::from_nanos(1)).await;
    assert!(Arc::ptr_eq(&first, &look().unwrap()), "0.02 ms for two endpoints");
    rig.states(&[EndpointState::Ready, EndpointState::Terminating]);
    advance(Duration::from_nanos(1)).await;
    assert_eq!(look().unwrap().snapshot.coverage.terminating, 1);
    director.reconfigure(SchedulingConfig::llm_d());
    assert!(!Arc::ptr_eq(&look().unwrap(), &first), "another configuration reads other labels");
    rig.topology.replace_all(Vec::new(), Instant::now());
    advance(2 * SNAPSHOT_LASTS).await;
    assert!(look().is_none() && director.0.view.load().is_none(), "nor is a pool kept that is gone");
}

#[tokio::test(start_paused = true)]
async fn streamed_answers_are_measured_by_their_pieces() {
    let mut rig = Rig::new(1);
    rig.all_idle();
    let streamed = || InferenceRequest { streaming: true, received: Instant::now(), ..request() };
    // With the server's count, without one, and an error's body, which is no token.
    for (status, usage) in
        [(200, Some(Usage { prompt_tokens: 7, completion_tokens: 9, cached_tokens: 0 })), (200, None), (503, None)]
    {
        let mut pick = rig.place(streamed()).await.unwrap();
        advance(2 * SECOND).await;
        pick.ticket.response_started(status, Instant::now());
        advance(SECOND).await;
        for _ in 0..3 {
            pick.ticket.response_bytes(10, Instant::now());
            advance(SECOND).await;
        }
        usage.into_iter().for_each(|usage| pick.ticket.usage(usage));
        pick.ticket.completed(Instant::now());
    }
    let labels = "{model_name=\"target\",target_model_name=\"target\"}";
    for (family, sum, count) in [
        ("inference_objective_request_ttft_seconds", "6.0", 2),
        // 2 s from the first piece to the last, for 8 tokens after the first; for 2 pieces after the first.
        ("inference_objective_request_tpot_seconds", "1.25", 2),
        ("llm_d_epp_request_streaming_itl_seconds", "4.0", 4),
    ] {
        rig.shows(&format!("{family}_sum{labels} {sum}"));
        rig.shows(&format!("{family}_count{labels} {count}"));
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_known_by_name_only_are_left_out_and_counted() {
    let mut rig = Rig::new(1);
    let mut changed = spec(&[EndpointState::Ready]);
    changed.endpoints.push(EndpointSpec::standalone("server.example:8000".parse().unwrap()));
    rig.topology.upsert(changed, rig.start);
    for _ in 0..20 {
        assert_eq!(rig.goes_to().await, address(0));
    }
    rig.director.0.refresh(Instant::now());
    rig.shows("weir_epp_unroutable_endpoints 1");
}
