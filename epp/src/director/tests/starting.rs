//! Pods that start: what is promised of them, what is learned from them.

use weir_datastore::{PodStart, StartPhase, StartTimes, StartingPod};

use super::holding::Holding;
use super::*;
use crate::flow::{Expectation, FlowSettings, HoldEmpty};

/// The pod of the first endpoint, created when `began`; not ready unless `ready`.
fn pod(began: Instant, ready: bool, obstacle: Option<&str>) -> StartingPod {
    let start = PodStart {
        times: StartTimes::default(),
        began,
        seen_from_creation: true,
        first: true,
        unready_since: (!ready).then_some(began),
        obstacle: obstacle.map(Into::into),
    };
    StartingPod { pod: "pod-0".into(), uid: "uid-0".into(), pending: false, start }
}

fn of(pods: Vec<StartingPod>, states: &[EndpointState]) -> PoolSpec {
    let mut spec = spec(states);
    spec.endpoints.iter_mut().for_each(|endpoint| endpoint.pod_uid = "uid-0".into());
    PoolSpec { starts: pods, ..spec }
}

impl Holding {
    fn becomes(&mut self, pods: Vec<StartingPod>, states: &[EndpointState]) {
        self.rig.topology.upsert(of(pods, states), Instant::now());
    }

    /// A start that takes so long, and the pool empty again.
    async fn learns(&mut self, seconds: u64) {
        let began = Instant::now();
        self.becomes(vec![pod(began, false, None)], &[EndpointState::Unready]);
        tokio::time::advance(Duration::from_secs(seconds)).await;
        self.becomes(vec![pod(began, true, None)], &[EndpointState::Ready]);
        self.becomes(Vec::new(), &[]);
    }

    async fn refused(&self) -> Refusal {
        self.rig.place(request()).await.unwrap_err()
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_told_when_the_pod_that_starts_is_likely_to_be_ready() {
    let never = FlowSettings { hold_empty: HoldEmpty::Never, ..FlowSettings::default() };
    let mut holding = Holding::new(&[], never).await;
    // Nothing is known of starts yet: as before.
    holding.becomes(vec![pod(Instant::now(), false, None)], &[EndpointState::Unready]);
    assert_eq!(holding.refused().await.retry_after, Some(5));
    holding.learns(90).await;
    assert_eq!(holding.refused().await.retry_after, Some(5), "nothing will bring one");
    holding.rig.director.expectation().send_replace(Expectation::Endpoint("an HPA".into()));
    assert_eq!(holding.refused().await.retry_after, Some(90), "a whole start, once it begins");
    let began = Instant::now();
    holding.becomes(vec![pod(began, false, None)], &[EndpointState::Unready]);
    for (after, remaining) in [(0, 90), (30_500, 60), (58_500, 1), (100_000, 1)] {
        tokio::time::advance(Duration::from_millis(after)).await;
        assert_eq!(holding.refused().await.retry_after, Some(remaining));
    }
    assert_eq!(holding.rig.look().unwrap().snapshot.expected_start(), Some(Duration::from_secs(90)));
}

#[tokio::test(start_paused = true)]
async fn whose_time_is_over_is_told_the_same() {
    let short = FlowSettings { no_endpoint_ttl: Some(Duration::from_secs(10)), ..FlowSettings::default() };
    let mut holding = Holding::new(&[], short).await;
    holding.learns(60).await;
    holding.becomes(vec![pod(Instant::now(), false, None)], &[EndpointState::Unready]);
    let answer = holding.ask_many(1, &request()).await.remove(0);
    let refusal = answer.await.unwrap().unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::ServiceUnavailable, Some("rejected-no-endpoints")));
    assert_eq!(refusal.retry_after, Some(50));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_will_never_be_ready_is_no_promise_and_named() {
    let mut holding = Holding::new(&[], FlowSettings::default()).await;
    let began = Instant::now();
    let waits = "container server waits with ImagePullBackOff";
    holding.becomes(vec![pod(began, false, Some(waits))], &[EndpointState::Unready]);
    let refusal = holding.refused().await;
    let words =
        "failed to find endpoint candidates for serving the request: pod pod-0: container server waits with ImagePullBackOff";
    assert_eq!((refusal.message.as_str(), refusal.retry_after), (words, Some(5)));
    // Without an address it is none either.
    let pending = StartingPod { pending: true, ..pod(began, false, Some(waits)) };
    let empty = |pods, pending| PoolSpec { pending, ..of(pods, &[]) };
    holding.rig.topology.upsert(empty(vec![pending.clone()], 1), Instant::now());
    assert_eq!(holding.refused().await.message, words);
    // Another one beside it is.
    holding.rig.topology.upsert(empty(vec![pending], 2), Instant::now());
    holding.ask_many(1, &request()).await.remove(0).abort();
    holding.held(0).await;
    // Nothing stands in its way that is told, and it is not ready for too long.
    holding.becomes(vec![pod(began, false, None)], &[EndpointState::Unready]);
    holding.ask_many(1, &request()).await.remove(0).abort();
    holding.held(0).await;
    tokio::time::advance(Duration::from_secs(601)).await;
    assert!(holding.refused().await.message.ends_with(": pod pod-0 has not been ready for 10 minutes"));
    // That pods are wanted is no help where they are stuck, and is where there are none yet.
    holding.rig.director.expectation().send_replace(Expectation::Pods("a Deployment".into()));
    assert!(holding.refused().await.message.ends_with("for 10 minutes"));
    holding.becomes(Vec::new(), &[]);
    holding.ask_many(1, &request()).await.remove(0).abort();
    holding.held(0).await;
    holding.rig.director.expectation().send_replace(Expectation::Hindered("scaled to 0 by hand".into()));
    assert!(holding.refused().await.message.ends_with("request: scaled to 0 by hand"));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_once_nothing_will_bring_an_endpoint_any_more() {
    let holding = Holding::new(&[], FlowSettings::default()).await;
    let expectation = holding.rig.director.expectation().clone();
    expectation.send_replace(Expectation::Endpoint("an HPA".into()));
    let answers = holding.ask_many(2, &request()).await;
    // A moment without hope is none.
    expectation.send_replace(Expectation::Nothing);
    tokio::time::sleep(Duration::from_secs(3)).await;
    expectation.send_replace(Expectation::Endpoint("an HPA".into()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    holding.held(2).await;
    expectation.send_replace(Expectation::Hindered("HorizontalPodAutoscaler a is gone".into()));
    let since = Instant::now();
    for answer in answers {
        let refusal = answer.await.unwrap().unwrap_err();
        assert_eq!(refusal.reason, Some("rejected-no-endpoints"));
        assert!(refusal.message.ends_with(": HorizontalPodAutoscaler a is gone"), "{}", refusal.message);
    }
    assert!((5..=7).contains(&(Instant::now() - since).as_secs()));
    holding
        .rig
        .shows("llm_d_epp_flow_control_requests_total{outcome=\"EvictedNoEndpoints\",priority=\"0\",inference_pool=\"llama\"} 2");
    // Who is to wait in any case does.
    let mut holding = Holding::new(&[], FlowSettings { hold_empty: HoldEmpty::Always, ..FlowSettings::default() }).await;
    let answers = holding.ask_many(1, &request()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    holding.held(1).await;
    holding.becomes(Vec::new(), &[EndpointState::Ready]);
    assert!(answers.into_iter().next().unwrap().await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_first_stream_on_a_pod_that_was_seen_to_start_tells_its_first_token() {
    let mut holding = Holding::new(&[], FlowSettings::default()).await;
    let began = Instant::now();
    holding.becomes(vec![pod(began, false, None)], &[EndpointState::Unready]);
    holding.becomes(vec![pod(began, true, None)], &[EndpointState::Ready]);
    let streamed = || InferenceRequest { streaming: true, ..request() };
    drop(holding.rig.place(request()).await.unwrap());
    for wait in [3, 30] {
        let mut pick = holding.rig.place(streamed()).await.unwrap();
        tokio::time::advance(Duration::from_secs(wait)).await;
        pick.ticket.response_started(200, Instant::now());
        pick.ticket.response_bytes(1, Instant::now());
    }
    let histogram = holding.rig.look().unwrap().snapshot.start_histogram(StartPhase::FirstToken);
    assert_eq!((histogram.count(), histogram.sum), (1, 3.0));
}
