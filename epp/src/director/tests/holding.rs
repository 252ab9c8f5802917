//! Requests that wait: for an endpoint, for room, and until their client, their time or the picker ends.

use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::flow::{BandSettings, Expectation, Fairness, FlowSettings, HoldEmpty};

type Answers = Vec<JoinHandle<Result<Pick, Refusal>>>;

/// A rig with its dispatcher at work.
pub(super) struct Holding {
    pub(super) rig: Rig,
    leaving: CancellationToken,
    dispatcher: JoinHandle<()>,
}

impl Holding {
    pub(super) async fn new(states: &[EndpointState], flow: FlowSettings) -> Self {
        let mut scheduling = SchedulingConfig::default();
        scheduling.flow = Arc::new(flow);
        let mut rig = Rig::with(states.len(), scheduling);
        rig.states(states);
        let objective = |name: &str, priority| Objective { name: name.into(), priority };
        let objectives = vec![objective("high", 5), objective("batch", -1)];
        rig.resources.send_replace(Arc::new(Resources::new(objectives, Vec::new(), Vec::new())));
        let leaving = CancellationToken::new();
        let (director, left) = (rig.director.clone(), leaving.clone());
        let dispatcher = tokio::spawn(async move { director.dispatch(left).await });
        let holding = Self { rig, leaving, dispatcher };
        holding.until("open", |shared| shared.gate.is_open()).await;
        holding
    }

    /// Waits without time passing.
    async fn until(&self, what: &str, wanted: impl Fn(&Shared) -> bool) {
        for _ in 0..10_000 {
            if wanted(&self.rig.director.0) {
                return;
            }
            yield_now().await;
        }
        panic!("never {what}; {} wait", self.rig.director.0.gate.waiting());
    }

    pub(super) async fn held(&self, wanted: usize) {
        self.until(&format!("{wanted} wait"), |shared| shared.gate.waiting() == wanted).await;
    }

    fn ask(&self, request: InferenceRequest) -> JoinHandle<Result<Pick, Refusal>> {
        let director = self.rig.director.clone();
        tokio::spawn(async move { director.direct(request).await })
    }

    pub(super) async fn ask_many(&self, count: usize, request: &InferenceRequest) -> Answers {
        let before = self.rig.director.0.gate.waiting();
        let answers = (0..count).map(|_| self.ask(request.clone())).collect();
        self.held(before + count).await;
        answers
    }

    fn held_series(&self) -> f64 {
        let page = self.rig.page();
        let lines = page.lines().filter(|line| line.starts_with("inference_extension_flow_control_queue_size{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

fn hold(hold_empty: HoldEmpty) -> FlowSettings {
    FlowSettings { hold_empty, ..FlowSettings::default() }
}

fn while_full() -> FlowSettings {
    FlowSettings { while_full: true, ..FlowSettings::default() }
}

async fn picks(answers: Answers) -> Vec<Pick> {
    let mut picks = Vec::new();
    for answer in answers {
        picks.push(answer.await.unwrap().unwrap());
    }
    picks
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_pods_that_are_not_ready_yet_and_go_on_once_one_is() {
    let mut holding = Holding::new(&[EndpointState::Unready], FlowSettings::default()).await;
    let mut answers = holding.ask_many(39, &request()).await;
    answers.extend(holding.ask_many(1, &of_priority("batch")).await);
    assert_eq!(holding.held_series(), 40.0);
    assert_eq!(holding.rig.director.0.load(Instant::now()).held, Some(40));
    let ready_at = Instant::now();
    holding.rig.states(&[EndpointState::Ready]);
    holding.until("settling", |shared| shared.gate.is_settling()).await;
    // Whoever comes now waits with the others.
    answers.extend(holding.ask_many(1, &request()).await);
    let picks = picks(answers).await;
    assert_eq!(Instant::now() - ready_at, Duration::from_millis(100), "the gateway's time to learn of it");
    assert!(picks.iter().all(|pick| pick.endpoints == [address(0)]));
    assert_eq!((picks.len(), holding.rig.in_flight(), holding.held_series()), (41, vec![41], 0.0));
    assert_eq!(holding.rig.director.0.load(Instant::now()).arrivals, 41, "each came once");
    drop(picks);
    assert_eq!(holding.rig.in_flight(), [0]);
    drop(holding.rig.place(request()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_endpoint_that_nothing_will_bring() {
    let mut holding = Holding::new(&[EndpointState::Terminating], FlowSettings::default()).await;
    assert_eq!(holding.rig.place(request()).await.unwrap_err().reason, Some("rejected-no-endpoints"));
    assert_eq!(holding.rig.place(of_priority("batch")).await.unwrap_err().code, Code::ResourceExhausted);
    let elsewhere = only(&[(address(7).ip(), None)]);
    for (pending, hold) in [(1, false), (0, true)] {
        holding.rig.topology.upsert(PoolSpec { pending, hold, ..spec(&[]) }, Instant::now());
        holding.ask_many(1, &request()).await.remove(0).abort();
        holding.held(0).await;
    }
    holding.rig.topology.upsert(spec(&[]), Instant::now());
    holding.rig.director.expectation().send_replace(Expectation::Endpoint("an HPA with minReplicas 0".into()));
    let answers = holding.ask_many(1, &request()).await;
    holding.leaving.cancel();
    let refusal = answers.into_iter().next().unwrap().await.unwrap().unwrap_err();
    assert_eq!(refusal.reason, Some("rejected-shutting-down"));

    let mut holding = Holding::new(&[EndpointState::Unready], hold(HoldEmpty::Never)).await;
    assert_eq!(holding.rig.place(request()).await.unwrap_err().reason, Some("rejected-no-endpoints"));
    holding.rig.states(&[EndpointState::Ready]);
    // Of a pool that has endpoints, none is expected where the gateway allows none of them.
    assert_eq!(holding.rig.place(elsewhere).await.unwrap_err().code, Code::ServiceUnavailable);
}

#[tokio::test(start_paused = true)]
async fn the_first_that_waits_is_told_at_once() {
    let mut holding = Holding::new(&[], hold(HoldEmpty::Always)).await;
    let (writers, given) = mpsc::unbounded_channel();
    writers.send(holding.rig.pickers.remove(0)).unwrap();
    let publisher = holding.rig.director.clone();
    tokio::spawn(async move { publisher.publish(given).await });
    let told = |holding: &Holding| holding.rig.store.snapshot(&pool(), &Selector::everything(), Instant::now()).unwrap().held;
    holding.until("published", |_| told(&holding).is_ok_and(|held| held.value == 0.0)).await;
    let mut changes = holding.rig.store.changes(&pool()).unwrap();
    let asked = Instant::now();
    let _answers = holding.ask_many(1, &request()).await;
    changes.held_rose().await;
    assert_eq!((told(&holding).unwrap().value, Instant::now()), (1.0, asked), "no tick was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_frees_its_place_at_once() {
    let holding = Holding::new(&[], hold(HoldEmpty::Always)).await;
    let answers = holding.ask_many(3, &request()).await;
    answers[1].abort();
    holding.held(2).await;
    assert_eq!(holding.held_series(), 2.0);
    holding.rig.shows(
        "llm_d_epp_flow_control_requests_total{outcome=\"EvictedContextCancelled\",priority=\"0\",inference_pool=\"llama\"} 1",
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_serves_by_priority_and_no_more_than_it_has_room_for() {
    let fair = BandSettings { fairness: Fairness::RoundRobin, ..BandSettings::default() };
    let mut holding = Holding::new(&[EndpointState::Ready], FlowSettings { default_band: fair, ..while_full() }).await;
    holding.rig.reads(0, 3, 5, 0.1);
    let low = holding.ask_many(2, &of_priority("batch")).await;
    let mut greedy = holding.ask_many(20, &InferenceRequest { fairness: Some("greedy".into()), ..request() }).await;
    let small = holding.ask_many(2, &InferenceRequest { fairness: Some("small".into()), ..request() }).await;
    let high = holding.ask_many(2, &of_priority("high")).await;
    assert_eq!(holding.rig.in_flight(), [0]);
    // Five places: both of the high band, then the flows in turn.
    advance(Duration::from_millis(50)).await;
    holding.rig.reads(0, 0, 0, 0.1);
    holding.held(21).await;
    for _ in 0..100 {
        yield_now().await;
    }
    holding.held(21).await;
    let mut served = picks(high).await;
    assert_eq!(small.iter().filter(|answer| answer.is_finished()).count(), 1);
    assert_eq!(greedy.iter().filter(|answer| answer.is_finished()).count(), 2);
    assert!(low.iter().all(|answer| !answer.is_finished()));
    // One that ends makes room for one, and who comes then waits behind the others.
    drop(served.pop());
    advance(Duration::from_millis(1)).await;
    holding.held(20).await;
    let late = holding.ask_many(1, &request()).await;
    assert!(!late[0].is_finished());
    // Time in the queue has no end here; the last page is all there is, until it shows room.
    advance(Duration::from_millis(50)).await;
    for _ in 0..8 {
        advance(Duration::from_millis(50)).await;
        holding.rig.reads(0, 0, 0, 0.1);
        for _ in 0..100 {
            yield_now().await;
        }
    }
    holding.held(0).await;
    greedy.extend(small);
    greedy.extend(low);
    greedy.extend(late);
    served.extend(picks(greedy).await);
    assert_eq!(served.len(), 26);
}

#[tokio::test(start_paused = true)]
async fn with_room_nobody_waits_and_without_knowledge_neither() {
    let mut holding = Holding::new(&[EndpointState::Ready], while_full()).await;
    let unknown = holding.rig.place(request()).await.unwrap();
    holding.rig.reads(0, 1, 0, 0.1);
    let known = holding.rig.place(of_priority("batch")).await.unwrap();
    assert_eq!(holding.rig.in_flight(), [2]);
    holding.rig.shows("llm_d_epp_flow_control_requests_total{outcome=\"Dispatched\",priority=\"-1\",inference_pool=\"llama\"} 1");
    drop((unknown, known));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_that_nobody_can_tell_of() {
    let mut holding = Holding::new(&[EndpointState::Ready], while_full()).await;
    holding.rig.reads(0, 1, 9, 0.1);
    let answers = holding.ask_many(1, &request()).await;
    let asked = Instant::now();
    picks(answers).await;
    let waited = Instant::now() - asked;
    assert!(waited > 2 * SECOND && waited <= 5 * SECOND, "until the page was too old to count: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_its_time_and_says_why() {
    let settings = FlowSettings { ttl: Some(10 * SECOND), no_endpoint_ttl: Some(60 * SECOND), ..while_full() };
    let mut holding = Holding::new(&[EndpointState::Ready], settings.clone()).await;
    holding.rig.reads(0, 1, 9, 0.1);
    let answer = holding.ask_many(1, &request()).await.remove(0);
    for _ in 0..10 {
        holding.rig.reads(0, 1, 9, 0.1);
        holding.held(1).await;
        advance(SECOND).await;
    }
    let refusal = answer.await.unwrap().unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::ResourceExhausted, Some("rejected-ttl-expired")));
    assert_eq!(refusal.retry_after, Some(1));

    let holding = Holding::new(&[], FlowSettings { hold_empty: HoldEmpty::Always, ..settings }).await;
    let asked = Instant::now();
    let refusal = holding.ask(request()).await.unwrap().unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::ServiceUnavailable, Some("rejected-no-endpoints")));
    assert_eq!(Instant::now() - asked, 60 * SECOND);
    holding
        .rig
        .shows("llm_d_epp_flow_control_requests_total{outcome=\"EvictedNoEndpoints\",priority=\"0\",inference_pool=\"llama\"} 1");
}

#[tokio::test(start_paused = true)]
async fn the_excess_is_refused_at_once() {
    let settings = FlowSettings { most_bytes: Some(100), ..hold(HoldEmpty::Always) };
    let holding = Holding::new(&[], settings).await;
    let sized = |body_bytes| InferenceRequest { body_bytes, ..request() };
    let _answers = holding.ask_many(1, &sized(60)).await;
    let refusal = holding.rig.place(sized(41)).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::ServiceUnavailable, Some("rejected-no-endpoints")));
    let _more = holding.ask_many(1, &sized(40)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_when_the_picker_ends_is_told_to_come_again() {
    let Holding { rig, leaving, dispatcher } = Holding::new(&[], hold(HoldEmpty::Always)).await;
    let holding = Holding { rig, leaving, dispatcher: tokio::spawn(async {}) };
    let answers = holding.ask_many(5, &request()).await;
    holding.leaving.cancel();
    dispatcher.await.unwrap();
    for answer in answers {
        let refusal = answer.await.unwrap().unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (Code::ServiceUnavailable, Some("rejected-shutting-down")));
        assert_eq!(refusal.retry_after, Some(1));
    }
    assert_eq!(holding.held_series(), 0.0);
    assert!(holding.rig.place(request()).await.is_err(), "nobody waits any more");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_no_more_holds_nobody() {
    let mut holding = Holding::new(&[], hold(HoldEmpty::Always)).await;
    let answers = holding.ask_many(2, &request()).await;
    holding.rig.topology.replace_all(Vec::new(), Instant::now());
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap_err().reason, Some("rejected-no-endpoints"));
    }
}

#[tokio::test(start_paused = true)]
async fn many_pages_make_few_looks_at_those_who_wait() {
    let mut holding = Holding::new(&[EndpointState::Ready], while_full()).await;
    holding.rig.reads(0, 1, 9, 0.1);
    let _waits = holding.ask_many(1, &request()).await;
    let looks = |holding: &Holding| {
        let page = holding.rig.page();
        let line =
            page.lines().find(|line| line.starts_with("inference_extension_flow_control_dispatch_cycle_duration_seconds_count"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
    };
    holding.until("looked", |_| looks(&holding) > 0).await;
    let before = looks(&holding);
    for _ in 0..10 {
        for _ in 0..100 {
            holding.rig.reads(0, 1, 9, 0.1);
            yield_now().await;
        }
        advance(Duration::from_millis(1)).await;
    }
    let made = looks(&holding) - before;
    assert!((5..=11).contains(&made), "{made} looks at 1000 pages in 10 ms");
}
