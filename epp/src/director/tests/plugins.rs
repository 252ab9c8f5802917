//! What plugins do to a request on its way: tokens, stages, headers, admission, another configuration.

use super::*;

fn config(group: &str, rest: &str) -> SchedulingConfig {
    SchedulingConfig::parse(&format!("apiVersion: {group}/v1alpha1\nkind: EndpointPickerConfig\n{rest}")).unwrap()
}

impl Rig {
    fn tokens(&self) -> Vec<u64> {
        self.director.0.roster.load().members.iter().map(|member| member.state.tokens.load(Ordering::Relaxed)).collect()
    }

    /// Requests of the objective `batch` may be shed.
    fn shedding(&self) {
        let objectives = vec![Objective { name: "batch".into(), priority: -1 }];
        self.resources.send_replace(Arc::new(Resources::new(objectives, Vec::new(), Vec::new())));
    }

    /// The endpoints' pods have these labels.
    fn labelled(&mut self, labels: &[(&str, &str)]) {
        let mut changed = spec(&vec![EndpointState::Ready; labels.len()]);
        for (endpoint, (name, value)) in changed.endpoints.iter_mut().zip(labels) {
            endpoint.labels = Arc::new(BTreeMap::from([((*name).to_owned(), (*value).to_owned())]));
        }
        self.topology.upsert(changed, self.start);
    }
}

/// A request of 400 bytes, of which 200 are its prompt.
fn long() -> InferenceRequest {
    InferenceRequest { body_bytes: 400, prefix: vec![b'x'; 200].into(), ..request() }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_in_flight_until_the_request_has_ended() {
    let mut rig = Rig::with(2, config("inference.networking.x-k8s.io", ""));
    rig.reads(0, 0, 0, 0.0);
    rig.reads(1, 0, 9, 0.0);
    let mut pick = rig.place(long()).await.unwrap();
    // 400 / 4 = 100, and 150 of an answer.
    assert_eq!(rig.tokens(), [250, 0]);
    pick.ticket.response_started(200, Instant::now());
    pick.ticket.response_bytes(10, Instant::now());
    assert_eq!(rig.tokens(), [250, 0]);
    pick.ticket.served_by(address(1));
    assert_eq!((rig.tokens(), rig.in_flight()), (vec![0, 250], vec![0, 1]), "where it is served");
    pick.ticket.completed(Instant::now());
    drop(pick);
    assert_eq!((rig.tokens(), rig.in_flight()), (vec![0, 0], vec![0, 0]));
}

#[tokio::test(start_paused = true)]
async fn llm_ds_tokens_are_the_uncached_until_the_first_of_the_answer() {
    let rest = "plugins:\n- type: prefix-cache-scorer\n- {type: approx-prefix-cache-producer, parameters: {autoTune: false}}\n";
    let mut rig = Rig::with(1, config("llm-d.ai", rest));
    rig.all_idle();
    let mut pick = rig.place(long()).await.unwrap();
    assert_eq!(rig.tokens(), [50]);
    pick.ticket.response_bytes(0, Instant::now());
    assert_eq!(rig.tokens(), [50], "nothing came yet");
    pick.ticket.response_bytes(1, Instant::now());
    assert_eq!((rig.tokens(), rig.in_flight()), (vec![0], vec![1]));
    // Three blocks of 16 tokens are there now; two tokens are in none.
    let again = rig.place(long()).await.unwrap();
    assert_eq!((rig.tokens(), rig.in_flight()), (vec![2], vec![2]));
    drop((pick, again));
    assert_eq!((rig.tokens(), rig.in_flight()), (vec![0], vec![0]));
}

const DISAGGREGATED: &str = "plugins:\n- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}\n- \
                             type: always-disagg-pd-decider\n- type: decode-filter\n- type: prefill-filter\n- type: \
                             prefix-cache-scorer\nschedulingProfiles:\n- {name: decode, plugins: [{pluginRef: decode-filter}, {pluginRef: \
                             prefix-cache-scorer}]}\n- {name: prefill, plugins: [{pluginRef: prefill-filter}, {pluginRef: \
                             prefix-cache-scorer}]}\n";

#[tokio::test(start_paused = true)]
async fn a_stage_that_prefills_is_in_flight_until_the_answer_begins_and_both_have_the_prompt() {
    let role = "llm-d.ai/role";
    let prompt = || InferenceRequest { prefix: vec![b'x'; 2000].into(), ..request() };
    let mut rig = Rig::with(4, config("llm-d.ai", DISAGGREGATED));
    rig.labelled(&[(role, "decode"), (role, "prefill"), (role, "prefill"), (role, "decode")]);
    rig.all_idle();
    let mut pick = rig.place(prompt()).await.unwrap();
    let decode = if pick.endpoints == [address(0)] { 0 } else { 3 };
    assert_eq!(pick.endpoints, [address(decode)]);
    let headers = pick.request_headers.clone();
    let prefill = if headers[0].1 == Some(address(1).to_string()) { 1 } else { 2 };
    assert_eq!(headers, [("x-prefiller-host-port", Some(address(prefill).to_string())), ("x-encoder-hosts-ports", None)]);
    let both = |rig: &Rig| (rig.in_flight()[decode], rig.in_flight()[prefill], rig.in_flight().iter().sum::<u64>());
    assert_eq!((both(&rig), rig.tokens().iter().sum::<u64>()), ((1, 1, 2), 1000));
    pick.ticket.response_started(200, Instant::now());
    pick.ticket.response_bytes(1, Instant::now());
    assert_eq!((both(&rig), rig.tokens().iter().sum::<u64>()), ((1, 0, 1), 0));
    drop(pick);
    // The same prompt goes to the same servers.
    for _ in 0..10 {
        let pick = rig.place(prompt()).await.unwrap();
        assert_eq!((pick.endpoints[0], pick.request_headers[0].1.clone()), (address(decode), Some(address(prefill).to_string())));
    }
    rig.shows(
        "llm_d_epp_disagg_decision_total{plugin_name=\"disagg-profile-handler\",plugin_type=\"disagg-profile-handler\",\
         model_name=\"target\",decision_type=\"prefill-decode\"} 11",
    );
    // Roles are read anew when labels change.
    rig.labelled(&[(role, "prefill"), (role, "prefill"), (role, "prefill"), (role, "prefill")]);
    let refusal = rig.place(prompt()).await.unwrap_err();
    assert_eq!(refusal.code, Code::ResourceExhausted);
    assert!(refusal.message.contains("filter decode-filter of profile decode left none"), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn the_only_one_of_a_role_is_used_though_it_is_ejected() {
    let role = "llm-d.ai/role";
    let mut rig = Rig::with(2, config("llm-d.ai", DISAGGREGATED));
    rig.labelled(&[(role, "decode"), (role, "prefill")]);
    rig.all_idle();
    for _ in 0..5 {
        rig.place(request()).await.unwrap().ticket.response_started(500, Instant::now());
    }
    rig.shows("weir_epp_ejections_total{evidence=\"server_error\"} 1");
    assert_eq!(rig.place(request()).await.unwrap().endpoints, [address(0)]);
}

#[tokio::test(start_paused = true)]
async fn the_port_of_all_ranks_stands_for_the_rank_that_was_chosen() {
    let rest = "plugins:\n- {type: data-parallel-profile-handler, parameters: {primaryPort: 9000}}\n- type: queue-scorer\n";
    let mut rig = Rig::with(2, config("llm-d.ai", rest));
    rig.reads(0, 0, 5, 0.0);
    rig.reads(1, 0, 0, 0.0);
    let mut pick = rig.place(request()).await.unwrap();
    assert_eq!(pick.endpoints, ["10.0.0.2:9000".parse().unwrap()]);
    assert_eq!(pick.request_headers, [("x-data-parallel-host-port", Some("10.0.0.2:8000".to_owned()))]);
    pick.ticket.served_by("10.0.0.2:9000".parse().unwrap());
    assert_eq!(rig.in_flight(), [0, 1], "nobody was passed over");
    rig.shows("weir_epp_unknown_served_endpoints_total 0");
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_where_its_token_says() {
    let mut rig = Rig::with(8, config("llm-d.ai", "plugins:\n- type: session-affinity-filter\n- type: queue-scorer\n"));
    rig.all_idle();
    assert_eq!(rig.director.headers().iter().map(|name| &**name).collect::<Vec<_>>(), ["x-session-token"]);
    let first = rig.place(request()).await.unwrap();
    let (name, token) = first.response_headers[0].clone();
    for _ in 0..10 {
        let mut next = request();
        next.headers.push((name.clone(), token.as_str().into()));
        let pick = rig.place(next).await.unwrap();
        assert_eq!((&pick.endpoints, &pick.response_headers), (&first.endpoints, &first.response_headers));
    }
}

#[tokio::test(start_paused = true)]
async fn new_prefixes_are_spread_over_all() {
    let mut rig = Rig::with(5, config("llm-d.ai", "plugins:\n- type: no-hit-lru-scorer\n"));
    rig.all_idle();
    let mut seen = Vec::new();
    for turn in 0..15_u8 {
        let pick = rig.place(InferenceRequest { prefix: vec![turn; 4096].into(), ..request() }).await.unwrap();
        seen.push(pick.endpoints[0]);
    }
    for round in seen.chunks(5) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, (0..5).map(address).collect::<Vec<_>>(), "{seen:?}");
    }
    assert_eq!(seen[..5], seen[5..10], "the longest ago is the next");
}

#[tokio::test(start_paused = true)]
async fn an_admitter_refuses_with_429() {
    let rest = "plugins:\n- {type: probabilistic-admitter, parameters: {queueDepthThreshold: 1000, k: 1000000000000}}\n- type: queue-scorer\n";
    let mut rig = Rig::with(1, config("llm-d.ai", rest));
    // Four of the detector's five shed nobody.
    rig.reads(0, 0, 4, 0.0);
    rig.shedding();
    drop(rig.place(request()).await.expect("priority 0"));
    let refusal = rig.place(of_priority("batch")).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason, refusal.retry_after), (Code::ResourceExhausted, Some("rejected-saturated"), Some(1)));
    assert!(refusal.message.starts_with("request cannot be admitted: probabilistic-admitter: rejected"), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn tokens_in_flight_shed_and_fill() {
    let rest = "plugins:\n- {type: concurrency-detector, parameters: {concurrencyMode: tokens, maxTokenConcurrency: 300}}\n- type: \
                queue-scorer\nsaturationDetector: {pluginRef: concurrency-detector}\nschedulingProfiles:\n- {name: p, plugins: [{pluginRef: \
                queue-scorer}]}\n";
    let mut rig = Rig::with(1, config("inference.networking.x-k8s.io", rest));
    rig.all_idle();
    rig.shedding();
    let first = rig.place(long()).await.unwrap();
    let second = rig.place(long()).await.unwrap();
    assert_eq!(rig.tokens(), [500]);
    let sheddable = || InferenceRequest { objective: Some("batch".into()), ..long() };
    assert_eq!(rig.place(sheddable()).await.unwrap_err().message, "system saturated, sheddable request dropped");
    drop(rig.place(long()).await.expect("priority 0"));
    drop(first);
    drop(rig.place(sheddable()).await.expect("250 of 300"));
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn another_configuration_counts_from_then_on_and_nothing_that_is_known_is_lost() {
    let mut rig = Rig::new(2);
    rig.reads(0, 0, 0, 0.9);
    rig.reads(1, 0, 3, 0.0);
    let before = rig.place(long()).await.unwrap();
    let known = (before.endpoints[0], rig.in_flight(), rig.tokens(), rig.director.0.prefixes.len());
    rig.director.reconfigure(config("llm-d.ai", "plugins:\n- type: load-aware-scorer\n- type: session-affinity-filter\n"));
    assert_eq!(rig.director.headers().len(), 1);
    drop(rig.look());
    assert_eq!((before.endpoints[0], rig.in_flight(), rig.tokens(), rig.director.0.prefixes.len()), known);
    drop(before);
    assert_eq!((rig.in_flight(), rig.tokens()), (vec![0, 0], vec![0, 0]));
    assert_eq!(rig.goes_to().await, address(0), "the shorter queue alone");
    rig.shows("inference_extension_plugin_duration_seconds_count{extension_point=\"Scorer\",plugin_type=\"load-aware-scorer\",plugin_name=\"load-aware-scorer\"} 1");
    rig.labelled(&[("llm-d.ai/role", "prefill"), ("llm-d.ai/role", "decode")]);
    rig.director.reconfigure(config("llm-d.ai", "plugins:\n- type: decode-filter\n"));
    assert_eq!(rig.goes_to().await, address(1), "labels are read anew");
    rig.director.reconfigure(config("llm-d.ai", "plugins:\n- type: prefill-filter\n"));
    assert_eq!(rig.goes_to().await, address(0));
}
