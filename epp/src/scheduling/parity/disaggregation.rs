//! Profile handlers, deciders, and what is near to what.

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::{Endpoint, Parity, Ran, first, idle};
use crate::inference::Code;
use crate::scheduling::{Cycle, Placement, Runs, Scratch, Stage};

const ROLE: &str = "llm-d.ai/role";

fn decode() -> Endpoint {
    idle().label(ROLE, "decode")
}

fn prefill() -> Endpoint {
    idle().label(ROLE, "prefill")
}

fn encode() -> Endpoint {
    idle().label(ROLE, "encode")
}

/// A configuration of three stages.
fn stages(handler: &str, others: &str) -> Parity {
    Parity::of(
        "llm-d.ai",
        &format!(
            "plugins:\n{handler}\n- type: prefix-based-pd-decider\n  parameters: {{nonCachedTokens: 100, promptTokens: 120}}\n- type: \
             always-disagg-pd-decider\n- type: always-disagg-multimodal-decider\n- type: decode-filter\n- type: prefill-filter\n- type: \
             encode-filter\n- type: queue-scorer\n- {{type: max-score-picker, name: all, parameters: {{maxNumOfEndpoints: 8}}}}\n- type: \
             max-score-picker\n{others}schedulingProfiles:\n- name: prefill\n  plugins: [{{pluginRef: prefill-filter}}, {{pluginRef: \
             queue-scorer}}, {{pluginRef: max-score-picker}}]\n- name: decode\n  plugins: [{{pluginRef: decode-filter}}, {{pluginRef: \
             queue-scorer}}, {{pluginRef: max-score-picker}}]\n- name: encode\n  plugins: [{{pluginRef: encode-filter}}, {{pluginRef: \
             all}}]\n"
        ),
    )
}

fn disaggregated(parameters: &str) -> Parity {
    stages(&format!("- type: disagg-profile-handler\n  parameters: {{{parameters}}}"), "")
}

/// Names and values of the request's headers.
fn headers(placement: &Placement<'_>) -> Vec<(&'static str, Option<String>)> {
    placement.headers.clone()
}

const PREFILLER: &str = "x-prefiller-host-port";
const ENCODERS: &str = "x-encoder-hosts-ports";

#[test]
fn prefill_is_apart_where_the_decoding_server_lacks_enough_of_the_prompt() {
    let deciders = "deciders: {prefill: prefix-based-pd-decider}";
    // 16 tokens a block: 132 tokens, of which 2 blocks leave 100; promptTokens is 120.
    for (tokens, matched, apart) in
        [(132, 2, true), (131, 2, false), (132, 3, false), (119, 0, false), (120, 0, true), (0, 0, false)]
    {
        let parity = disaggregated(deciders).prompt_tokens(tokens).blocks(tokens / 16);
        parity.placed(&[prefill(), decode().matched(matched), prefill().queue(4.0)], |placement| {
            let placement = placement.unwrap();
            assert_eq!(first(&placement).index, 1);
            let expected = apart.then(|| "10.0.0.1:8000".to_owned());
            assert_eq!(headers(&placement), [(PREFILLER, expected), (ENCODERS, None)], "{tokens} {matched}");
            assert_eq!(placement.disaggregation, Some(if apart { "prefill-decode" } else { "decode-only" }));
            let others: Vec<_> = placement.others.iter().map(|chosen| (chosen.stage, chosen.endpoints[0].index)).collect();
            assert_eq!(others, if apart { vec![(Stage::Prefill, 0)] } else { vec![] });
        });
    }
}

#[test]
fn a_decider_of_nothing_never_decides_so() {
    let parity = Parity::of(
        "llm-d.ai",
        "plugins:\n- {type: disagg-profile-handler, parameters: {deciders: {prefill: prefix-based-pd-decider}}}\n- type: \
         prefix-based-pd-decider\n- type: queue-scorer\nschedulingProfiles:\n- {name: decode, plugins: [{pluginRef: queue-scorer}]}\n- \
         {name: prefill, plugins: [{pluginRef: queue-scorer}]}\n",
    );
    parity.prompt_tokens(100_000).placed(&[idle(), idle()], |placement| {
        assert_eq!(placement.unwrap().disaggregation, Some("decode-only"));
    });
}

#[test]
fn what_is_no_text_is_encoded_apart() {
    let mut parity = disaggregated("deciders: {prefill: always-disagg-pd-decider, encode: always-disagg-multimodal-decider}");
    let servers = [decode(), encode(), encode(), prefill()];
    parity.placed(&servers, |placement| {
        assert_eq!(headers(&placement.unwrap()), [(PREFILLER, Some("10.0.0.4:8000".to_owned())), (ENCODERS, None)]);
    });
    parity.asked.request.prefix = r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]"#.into();
    parity.placed(&servers, |placement| {
        let placement = placement.unwrap();
        assert_eq!(placement.disaggregation, Some("encode-prefill-decode"));
        let encoders = headers(&placement)[1].1.clone().unwrap();
        let mut encoders: Vec<_> = encoders.split(',').collect();
        encoders.sort_unstable();
        assert_eq!(encoders, ["10.0.0.2:8000", "10.0.0.3:8000"], "all that the profile chose");
    });
    // Nobody encodes, nobody prefills: who decodes does it all.
    parity.placed(&[decode()], |placement| {
        let placement = placement.unwrap();
        assert_eq!(headers(&placement), [(PREFILLER, None), (ENCODERS, None)]);
        assert_eq!(placement.disaggregation, Some("decode-only"));
    });
    parity.placed(&[prefill(), encode()], |placement| {
        let unplaced = placement.unwrap_err();
        assert_eq!(unplaced.code, Code::ResourceExhausted);
        assert!(unplaced.message.contains("decode-filter"), "{}", unplaced.message);
    });
}

#[test]
fn prefill_first_asks_nobody() {
    let parity = disaggregated("stageOrder: prefill-first");
    parity.placed(&[decode(), prefill()], |placement| {
        assert_eq!(headers(&placement.unwrap()), [(PREFILLER, Some("10.0.0.2:8000".to_owned())), (ENCODERS, None)]);
    });
    parity.placed(&[decode()], |placement| assert_eq!(headers(&placement.unwrap())[0], (PREFILLER, None)));
}

#[test]
fn the_handler_before_it() {
    let handler = "- type: pd-profile-handler\n  parameters: {deciderPluginName: always-disagg-pd-decider, primaryPort: 9000}\n- type: \
                   prefill-header-handler";
    stages(handler, "").placed(&[decode(), prefill()], |placement| {
        let placement = placement.unwrap();
        let expected = [
            (PREFILLER, Some("10.0.0.2:8000".to_owned())),
            (ENCODERS, None),
            ("x-data-parallel-host-port", Some("10.0.0.1:8000".to_owned())),
        ];
        assert_eq!((headers(&placement), placement.port), (expected.to_vec(), Some(9000)));
    });
}

#[test]
fn data_parallel() {
    let parity = Parity::of("llm-d.ai", "plugins:\n- type: data-parallel-profile-handler\n- type: queue-scorer\n");
    parity.placed(&[idle().queue(1.0), idle()], |placement| {
        let placement = placement.unwrap();
        let expected = [("x-data-parallel-host-port", Some("10.0.0.2:8000".to_owned()))];
        assert_eq!((headers(&placement), placement.port), (expected.to_vec(), Some(8000)));
    });
}

#[test]
fn the_profile_that_a_header_names() {
    let profiles = "schedulingProfiles:\n- {name: decode, plugins: [{pluginRef: queue-scorer}]}\n- {name: batch, plugins: [{pluginRef: \
                    kv-cache-utilization-scorer}]}\n";
    let with = |parameters: &str| {
        let plugins = "- type: queue-scorer\n- type: kv-cache-utilization-scorer\n";
        Parity::of(
            "llm-d.ai",
            &format!("plugins:\n- {{type: header-profile-handler, parameters: {{{parameters}}}}}\n{plugins}{profiles}"),
        )
    };
    let servers = [idle().kv(0.5), idle().queue(3.0)];
    let chosen = |parity: Parity| parity.placed(&servers, |placement| first(&placement.unwrap()).index);
    assert_eq!(chosen(with("")), 0, "decode without the header");
    assert_eq!(chosen(with("").header("epp-profile", "batch")), 1);
    assert_eq!(chosen(with("headerName: X-P, defaultProfile: batch").header("x-p", "decode")), 0);
    assert_eq!(chosen(with("defaultProfile: batch")), 1);
    with("").header("epp-profile", "bacth").placed(&servers, |placement| {
        let unplaced = placement.unwrap_err();
        assert_eq!(unplaced.code, Code::BadRequest);
        assert!(unplaced.message.ends_with("there are decode, batch"), "{}", unplaced.message);
    });
    let alone = Parity::of("llm-d.ai", "plugins:\n- type: header-profile-handler\n- type: queue-scorer\n");
    assert_eq!(chosen(alone.header("epp-profile", "whatever")), 0, "the only profile runs whatever the header says");
}

#[test]
fn near_to_the_other_stage() {
    let at = |host: &'static str, rack: &'static str, zone: &'static str, region: &'static str| {
        let labels = [
            ("kubernetes.io/hostname", host),
            ("topology.kubernetes.io/rack", rack),
            ("topology.kubernetes.io/zone", zone),
            ("topology.kubernetes.io/region", region),
        ];
        labels.into_iter().filter(|(_, value)| *value != "-").fold(idle(), |endpoint, (name, value)| endpoint.label(name, value))
    };
    let mut scorer = Parity::llm_d("topology-affinity-scorer", "");
    let table = |[host, rack, zone, region]: [f64; 4]| {
        [
            (at("h", "r", "z", "g"), Some(host)),
            (at("i", "r", "z", "g"), Some(rack)),
            (at("i", "s", "z", "g"), Some(zone)),
            (at("-", "-", "y", "g"), Some(region)),
            (at("i", "s", "y", "f"), Some(0.0)),
            (at("", "", "", ""), Some(0.0)),
            (idle(), Some(0.0)),
        ]
    };
    scorer.scores(&table([0.0; 4]));
    let peer = |parity: &Parity, peer: Endpoint| Some(parity.loads(&[(peer, ())]).facts[0].to_vec());
    scorer.asked.peer = peer(&scorer, at("h", "r", "z", "g"));
    scorer.scores(&table([1.0, 0.2, 0.05, 0.02]));
    scorer.asked.peer = peer(&scorer, idle());
    scorer.scores(&table([0.0; 4]));
    for (within, [host, rack, zone, region]) in [
        ("host", [true, false, false, false]),
        ("rack", [true, true, false, false]),
        ("zone", [true, true, true, false]),
        ("region", [true, true, true, true]),
    ] {
        let mut filter = Parity::llm_d("topology-affinity-filter", &format!("minAffinity: {within}"));
        let servers = |others| {
            [
                (at("h", "r", "z", "g"), host || others),
                (at("i", "r", "z", "g"), rack || others),
                (at("i", "s", "z", "g"), zone || others),
                (at("i", "s", "y", "g"), region || others),
                (idle(), others),
            ]
        };
        filter.leaves(&servers(true));
        filter.asked.peer = peer(&filter, at("h", "r", "z", "g"));
        filter.leaves(&servers(false));
        filter.asked.peer = peer(&filter, at("x", "x", "x", "x"));
        filter.leaves(&servers(true));
    }
    // Labels of the user's own, whichever plugin is written first; and who prefills is near to who decodes.
    let topology = "- {type: topology-affinity-filter, parameters: {topologyProducerName: mine}}\n- {type: topology-extractor, name: mine, \
                    parameters: {hostname: node}}\n";
    let parity = Parity::of(
        "llm-d.ai",
        &format!(
            "plugins:\n- {{type: disagg-profile-handler, parameters: {{deciders: {{prefill: always-disagg-pd-decider}}}}}}\n{topology}- \
             type: always-disagg-pd-decider\n- type: decode-filter\n- type: prefill-filter\nschedulingProfiles:\n- {{name: decode, \
             plugins: [{{pluginRef: decode-filter}}]}}\n- {{name: prefill, plugins: [{{pluginRef: prefill-filter}}, {{pluginRef: \
             topology-affinity-filter}}]}}\n"
        ),
    );
    let servers =
        [prefill().label("node", "a"), prefill().label("node", "b"), prefill().label("node", "c"), decode().label("node", "b")];
    parity.placed(&servers, |placement| {
        assert_eq!(headers(&placement.unwrap())[0], (PREFILLER, Some("10.0.0.2:8000".to_owned())));
    });
}

#[test]
fn each_profile_runs_its_own_plugins_and_only_where_it_is_asked_for() {
    let ran = |parity: &Parity| {
        let servers = [(decode(), ()), (prefill(), ()), (encode(), ())];
        let loads = parity.loads(&servers);
        let seen = Ran::default();
        Scratch::with(|scratch| {
            scratch.candidates.extend(loads.candidates());
            let mut rng = StdRng::seed_from_u64(1);
            let cycle = Cycle { rng: &mut rng, clock: &Instant::now, observer: &seen };
            let mut runs = Runs::new(parity.asked.request(&loads), &parity.config.profiles, scratch, cycle);
            parity.config.handler.plugin.schedule(&mut runs).unwrap();
        });
        seen.0.into_inner()
    };
    assert_eq!(ran(&disaggregated("")), ["decode-filter", "queue-scorer", "max-score-picker"]);
    let both = ran(&disaggregated("deciders: {prefill: always-disagg-pd-decider}"));
    assert_eq!(both, ["decode-filter", "queue-scorer", "max-score-picker", "prefill-filter", "queue-scorer", "max-score-picker"]);
}
