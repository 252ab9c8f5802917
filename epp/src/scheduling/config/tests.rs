use std::time::Duration;

use super::*;
use crate::flow::{Fairness, HoldEmpty, Holdback, HoldbackDomain, Ordering, UsageLimit};
use crate::request::Parser;

const HEAD: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n";

fn parse(rest: &str) -> SchedulingConfig {
    SchedulingConfig::parse(&format!("{HEAD}{rest}")).unwrap()
}

/// What is told of a configuration, whose first line is the third of the file.
fn problems(rest: &str) -> Vec<String> {
    let error = SchedulingConfig::parse(&format!("{HEAD}{rest}")).unwrap_err();
    error.problems.iter().map(ToString::to_string).collect()
}

fn scorers(config: &SchedulingConfig) -> Vec<(&str, f64)> {
    config.profiles[0].scorers.iter().map(|scorer| (&*scorer.scorer.name.name, scorer.weight)).collect()
}

#[test]
fn upstreams_defaults_where_nothing_is_written() {
    let expected = [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0)];
    for config in [SchedulingConfig::default(), parse(""), parse("plugins: []\n")] {
        assert_eq!(scorers(&config), expected);
        assert_eq!((config.profiles[0].picker.name.kind, config.profiles[0].picker.plugin.most()), ("max-score-picker", 1));
        assert_eq!(config.prefix, Some(PrefixSettings::default()));
        assert_eq!(config.detector, SaturationDetector::default());
    }
}

#[test]
fn the_whole_format() {
    let config = SchedulingConfig::parse(
        r"
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [dataLayer]
plugins:
- type: queue-scorer
- name: cache
  type: prefix-cache-scorer
  parameters: { lruCapacityPerServer: 99, autoTune: false, blockSizeTokens: 64, maxPrefixBlocksToMatch: 10 }
- type: lora-affinity-scorer
- type: running-requests-size-scorer
- type: weighted-random-picker
  parameters: { maxNumOfEndpoints: 3 }
- type: random-picker
- type: single-profile-handler
- name: full
  type: utilization-detector
  parameters: { queueDepthThreshold: 7, kvCacheUtilThreshold: 0.9, metricsStalenessThreshold: 250ms, headroom: 0.5 }
- type: header-based-testing-filter
- type: destination-endpoint-served-verifier
- type: openai-parser
parser: { pluginRef: openai-parser }
saturationDetector: { pluginRef: full }
schedulingProfiles:
- name: mine
  plugins:
  - pluginRef: header-based-testing-filter
  - pluginRef: full
  - pluginRef: queue-scorer
    weight: 1.5
  - pluginRef: cache
  - pluginRef: weighted-random-picker
",
    )
    .unwrap();
    assert_eq!(&*config.profiles[0].name, "mine");
    assert_eq!(scorers(&config), [("queue-scorer", 1.5), ("cache", 1.0)]);
    assert_eq!((config.profiles[0].picker.name.kind, config.profiles[0].picker.plugin.most()), ("weighted-random-picker", 3));
    let filters: Vec<_> = config.profiles[0].filters.iter().map(|filter| &*filter.name.name).collect();
    assert_eq!(filters, ["header-based-testing-filter", "full"]);
    let prefix = PrefixSettings {
        auto_tune: false,
        block_size_tokens: 64,
        most_blocks: 10,
        capacity_per_server: 99,
        ..PrefixSettings::llm_d()
    };
    assert_eq!(config.prefix, Some(prefix));
    let SaturationDetector::Utilization { thresholds, page_age, headroom } = config.detector else { unreachable!() };
    assert_eq!((thresholds.queue, thresholds.kv_cache_utilization, headroom), (7.0, 0.9, 0.5));
    assert_eq!(page_age, Some(std::time::Duration::from_millis(250)));
    assert!(config.verify_served);
}

#[test]
fn plugins_without_a_profile_make_one() {
    let config = parse(
        "plugins:\n- type: kv-cache-utilization-scorer\n- type: random-picker\n- type: concurrency-detector\n  parameters: \
         {maxConcurrency: 8}\nsaturationDetector: {pluginRef: concurrency-detector}\n",
    );
    assert_eq!(scorers(&config), [("kv-cache-utilization-scorer", 1.0)]);
    assert_eq!(config.profiles[0].picker.name.kind, "random-picker");
    assert_eq!(config.prefix, None, "nobody asks for prefixes");
    assert!(config.profiles[0].filters.is_empty());
    let mode = crate::scheduling::ConcurrencyMode::Requests;
    let expected = SaturationDetector::Concurrency { mode, most_requests: 8, most_tokens: 1_000_000, headroom: 0.0 };
    assert_eq!(config.detector, expected);
}

#[test]
fn the_producers_own_parameters_win() {
    let plugins = "plugins:\n- type: prefix-cache-scorer\n- type: approx-prefix-cache-producer\n  parameters: {autoTune: false}\n";
    assert!(!parse(plugins).prefix.unwrap().auto_tune);
}

#[test]
fn a_profile_without_a_picker_gets_the_first_of_the_list() {
    let config = parse(
        "plugins:\n- type: queue-scorer\n- type: random-picker\nschedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: \
         queue-scorer\n",
    );
    assert_eq!(config.profiles[0].picker.name.kind, "random-picker");
}

#[test]
fn what_is_wrong_is_told_with_line_field_and_the_nearest_name() {
    for (rest, expected) in [
        (
            "plugins:\n- type: queue-scorrer\n",
            "4:9: plugins[0].type: unknown plugin type `queue-scorrer`: did you mean `queue-scorer`?",
        ),
        (
            "plugins:\n- type: fcfs-odering-policy\n",
            "4:9: plugins[0].type: unknown plugin type `fcfs-odering-policy`: did you mean `fcfs-ordering-policy`?",
        ),
        (
            "plugins:\n- type: prefix-cache-scorer\n  parameters:\n    lruCapacity: 5\n    lruCapcityPerServer: 5\n",
            "7:5: plugins[0].parameters.lruCapcityPerServer: unknown parameter: did you mean `lruCapacityPerServer`?",
        ),
        (
            "plugins:\n- type: queue-scorer\n  parameters: {a: 1}\n",
            "5:16: plugins[0].parameters.a: unknown parameter: this plugin has none",
        ),
        (
            "plugins:\n- type: max-score-picker\n  parameters: {maxNumOfEndpoints: 2.5}\n",
            "5:35: plugins[0].parameters.maxNumOfEndpoints: 2.5: write a whole number from 0 to 64",
        ),
        (
            "plugins:\n- type: queue-scorer\n- type: queue-scorer\n",
            "5:3: plugins[1]: plugin `queue-scorer` is already on line 4: give one of them another `name`",
        ),
        (
            "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: queue-score\n",
            "8:16: schedulingProfiles[0].plugins[0].pluginRef: no plugin `queue-score` is in the list: did you mean `queue-scorer`?",
        ),
        (
            "plugins:\n- type: random-picker\nschedulingProfiles:\n- name: p\n  plugins:\n  - {pluginRef: random-picker, weight: 2}\n",
            "8:40: schedulingProfiles[0].plugins[0].weight: only scorers have a weight, and `random-picker` is none: remove it",
        ),
        (
            "plugins:\n- type: utilization-detector\n  parameters: {metricsStalenessThreshold: 0s}\n",
            "5:43: plugins[0].parameters.metricsStalenessThreshold: `0s`: write a time above zero, such as 200ms",
        ),
        (
            "plugins:\n- type: concurrency-detector\n  parameters: {concurrencyMode: token}\n",
            "5:33: plugins[0].parameters.concurrencyMode: `token` is not known: did you mean `tokens`?",
        ),
        (
            "plugins:\n- type: precise-prefix-cache-scorer\n",
            "4:9: plugins[0].type: `precise-prefix-cache-scorer` is not offered: it needs every server's stream of KV cache events; use \
             approx-prefix-cache-producer and prefix-cache-scorer",
        ),
        (
            "plugins:\n- type: active-request-scorer\n  parameters: {inFlightLoadProducerName: mine}\n",
            "5:42: plugins[0].parameters.inFlightLoadProducerName: no inflight-load-producer is called `mine`: there are \
             inflight-load-producer",
        ),
        (
            "plugins:\n- type: header-label-affinity-scorer\n  parameters: {headerName: x}\n",
            "5:15: plugins[0].parameters.labelKey: is missing: name the label that it is compared with",
        ),
        (
            "plugins:\n- type: utilization-filter\n  parameters:\n    conditions: [{metric: kv-cache-utilization, maxValue: 80}]\n",
            "6:59: plugins[0].parameters.conditions[0].maxValue: 80: write a number from 0 to 1",
        ),
        (
            "plugins:\n- type: utilization-filter\n",
            "4:3: plugins[0].parameters.conditions: is missing: write at least one, with `metric` and `maxValue`",
        ),
        (
            "plugins:\n- type: label-selector-filter\n  parameters:\n    matchExpressions: [{key: a, operator: Exists, values: [b]}]\n",
            "6:59: plugins[0].parameters.matchExpressions[0].values: Exists and DoesNotExist compare with no values: remove it",
        ),
        (
            "plugins:\n- type: session-affinity-scorer\n  parameters: {sessionIdConfig: {evictionTtlSecond: 1}}\n",
            "5:34: plugins[0].parameters.sessionIdConfig.evictionTtlSecond: unknown parameter: did you mean `evictionTtlSeconds`?",
        ),
        (
            "plugins:\n- type: disagg-profile-handler\n- type: queue-scorer\n",
            "4:3: plugins[0]: needs a profile called `decode`: write one, or name another one in `profiles.decode`",
        ),
        (
            "plugins:\n- type: disagg-profile-handler\n  parameters: {profiles: {decode: default}, deciders: {prefill: always}}\n",
            "5:65: plugins[0].parameters.deciders.prefill: there is no decider `always` in the list: there is none to choose from",
        ),
        (
            "plugins:\n- type: disagg-profile-handler\n  parameters: {profiles: {decode: default}, prefillProfile: p}\n",
            "5:61: plugins[0].parameters.prefillProfile: is the old way of writing it: write it within `profiles` or `deciders`, as the \
             others",
        ),
        (
            "plugins:\n- type: single-profile-handler\n- type: header-profile-handler\n",
            "5:3: plugins[1]: there is one profile handler already, `single-profile-handler`: keep one of them",
        ),
        (
            "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: a\n- name: b\n",
            "7:3: schedulingProfiles[1]: is a second profile, and no profile handler chooses among them: add header-profile-handler or \
             disagg-profile-handler",
        ),
        (
            "plugins:\n- type: single-profile-handler\nschedulingProfiles:\n- name: a\n- name: b\n",
            "4:3: plugins[0]: runs one profile, and there are 2: use header-profile-handler or disagg-profile-handler, or keep one",
        ),
        (
            "plugins:\n- type: header-profile-handler\nschedulingProfiles:\n- name: a\n- name: a\n",
            "7:3: schedulingProfiles[1]: there is a profile `a` already: give one of them another name",
        ),
        (
            "featureGates: [flowControll]\n",
            "3:16: featureGates[0]: unknown feature gate `flowControll`: did you mean `flowControl`?",
        ),
        (
            "featureGates: [flowControl=false, haPopulateNonLeaderDatastore, enableLegacyMetrics=on]\n",
            "3:65: featureGates[2]: `enableLegacyMetrics=on`: write enableLegacyMetrics=true or enableLegacyMetrics=false",
        ),
        (
            "plugins:\n- type: queue-scorer\nsaturationDetector: {pluginRef: queue-scorer}\n",
            "5:21: saturationDetector: `queue-scorer` is no detector: name a utilization-detector or a concurrency-detector",
        ),
        ("pluggins: []\n", "3:1: pluggins: unknown field: did you mean `plugins`?"),
        ("plugins:\n- name: x\n", "4:3: plugins[0].type: is missing: name the plugin's type, as `type: queue-scorer`"),
    ] {
        let told = problems(rest);
        assert!(told.iter().any(|problem| problem == expected), "no {expected:?} in {told:#?}");
    }
}

#[test]
fn defaults_are_those_of_the_configurations_group() {
    let of = |group: &str, rest: &str| {
        let source = format!("apiVersion: {group}/v1alpha1\nkind: EndpointPickerConfig\n{rest}");
        SchedulingConfig::parse(&source).unwrap()
    };
    for rest in ["", "plugins:\n- type: prefix-cache-scorer\n", "plugins:\n- type: no-hit-lru-scorer\n"] {
        let (old, new) = (of("inference.networking.x-k8s.io", rest), of("llm-d.ai", rest));
        assert_eq!((old.prefix, old.tokens), (Some(PrefixSettings::default()), TokenEstimate::default()), "{rest}");
        assert_eq!((new.prefix, new.tokens), (Some(PrefixSettings::llm_d()), TokenEstimate::llm_d()), "{rest}");
    }
    let producer = "plugins:\n- type: inflight-load-producer\n  parameters: {outputRatio: 2, maxEstimatedOutputTokens: 0}\n";
    let tokens = |group| of(group, producer).tokens;
    assert_eq!((tokens("llm-d.ai").output_ratio, tokens("llm-d.ai").most_output), (None, Some(0)));
    assert_eq!(tokens("inference.networking.x-k8s.io").output_ratio, Some(2.0));
}

#[test]
fn what_plugins_need_is_gathered() {
    let config = parse(
        "plugins:\n- {type: header-label-affinity-scorer, parameters: {headerName: X-Zone, labelKey: zone}}\n- type: \
         session-affinity-filter\n- {type: session-affinity-scorer, parameters: {strategy: session_id}}\n- type: \
         header-profile-handler\n- type: decode-filter\n- type: topology-affinity-scorer\n- type: topology-affinity-filter\n- type: \
         probabilistic-admitter\n",
    );
    let headers: Vec<&str> = config.headers.iter().map(|name| &**name).collect();
    assert_eq!(headers, ["x-zone", "x-session-token", "x-session-id", "epp-profile"]);
    assert_eq!(config.facts.len(), 1 + 4, "one role, and four levels of topology for both");
    assert_eq!((config.learners.len(), config.admitters.len()), (2, 1));
    assert_eq!(config.prefix, None, "nobody asks for prefixes");
    let many: String = (0..33).fold("plugins:\n".to_owned(), |text, index| {
        text + &format!(
            "- {{type: header-label-affinity-scorer, name: s{index}, parameters: {{headerName: h{index}, labelKey: l}}}}\n"
        )
    });
    assert!(problems(&many)[0].contains("reads one header too many"), "{:?}", problems(&many));
    let many: String =
        (0..257).fold("plugins:\n".to_owned(), |text, index| text + &format!("- {{type: queue-scorer, name: s{index}}}\n"));
    assert!(problems(&many)[0].contains("256 plugins"));
    let many: String =
        (0..65).fold("plugins:\n".to_owned(), |text, index| text + &format!("- {{type: no-hit-lru-scorer, name: s{index}}}\n"));
    assert!(problems(&many)[0].contains("64 plugins can keep notes"));
}

#[test]
fn what_is_refused_is_told_with_what_to_use_instead_and_the_documentation_has_it() {
    let documentation = include_str!("../../../../docs/plugins.md");
    for (kind, why) in refused::REFUSED {
        assert!(documentation.contains(&format!("`{kind}`")) && documentation.contains(why), "{kind}");
        assert!(TABLE.iter().all(|(known, _)| *known != kind), "{kind}");
    }
}

#[test]
fn several_problems_are_told_at_once_and_in_order() {
    let told = problems("plugins:\n- type: a\n- type: random-picker\n  parameters: {x: 1}\nkindd: 1\n");
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told.is_sorted_by_key(|problem| problem.split(':').next().unwrap().parse::<u32>().unwrap()), "{told:#?}");
    let error = SchedulingConfig::parse("kind: Pod\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "1:1: apiVersion: is missing: write `apiVersion: inference.networking.x-k8s.io/v1alpha1`\n\
         1:7: kind: `Pod` is not what this reads: write `kind: EndpointPickerConfig`"
    );
}

#[test]
fn what_is_no_configuration_is_refused_and_nothing_panics() {
    for source in ["", "[", "a: [", "- 1", "plugins: {a: &x [*x]}", "\u{0}", "a: .nan", "a: 1\na: 2"] {
        let error = SchedulingConfig::parse(source).unwrap_err();
        assert!(!error.problems.is_empty() && !error.to_string().is_empty(), "{source:?}");
    }
    assert!(SchedulingConfig::parse(&"#".repeat(MOST_BYTES + 1)).unwrap_err().to_string().contains("larger than"));
    assert!(SchedulingConfig::parse(&"[".repeat(10_000)).is_err());
}

#[test]
fn the_documentation_lists_every_type_and_its_example_is_the_default() {
    let documentation = include_str!("../../../../docs/plugins.md");
    for (kind, _) in TABLE {
        assert!(documentation.contains(&format!("`{kind}`")), "{kind}");
        assert_eq!(refused::refusal(kind), None, "{kind}");
    }
    let example = documentation.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let (example, default) = (SchedulingConfig::parse(example).unwrap(), SchedulingConfig::default());
    assert_eq!(scorers(&example), scorers(&default));
    assert_eq!(example.prefix, default.prefix);
    assert_eq!(example.profiles[0].picker.name.kind, default.profiles[0].picker.name.kind);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\\n]{0,80}", wrapped in "[a-z{}\\[\\]:,&*!|> \\n-]{0,60}") {
        drop(SchedulingConfig::parse(&text));
        drop(SchedulingConfig::parse(&format!("{HEAD}plugins:\n- {wrapped}")));
    }
}

#[test]
fn parsers_by_both_formats() {
    let list = |kinds: &[Parser]| Parsers::of(kinds.iter().copied());
    for (text, wanted) in [
        ("", Parsers::default()),
        ("plugins: [{type: openai-parser}]\nparser: {pluginRef: openai-parser}\n", Parsers::default()),
        ("plugins: [{type: vllmgrpc-parser, name: v}]\nparser: {pluginRef: v}\n", list(&[Parser::VllmGrpc])),
        ("parser: {pluginRef: passthrough-parser}\n", list(&[Parser::Passthrough])),
        ("requestHandler: {}\n", Parsers::default()),
        (
            "plugins: [{type: anthropic-parser, name: a}, {type: queue-scorer}]\nrequestHandler:\n  parsers:\n  - pluginRef: a\n  - pluginRef: vllmhttp-parser\n  - pluginRef: sglanghttp-parser\n  - pluginRef: vertexai-parser\n  - pluginRef: passthrough-parser\n",
            list(&[Parser::Anthropic, Parser::VllmHttp, Parser::SglangHttp, Parser::VertexAi, Parser::Passthrough]),
        ),
    ] {
        assert_eq!(parse(text).parsers, wanted, "{text}");
    }
    let problem = |text: &str| problems(text).join("\n");
    assert!(
        problem("plugins: [{type: queue-scorer}]\nparser: {pluginRef: queue-scorer}\n").contains("`queue-scorer` is no parser")
    );
    assert!(problem("requestHandler: {parsers: [{pluginRef: anthropc-parser}]}\n").contains("no plugin `anthropc-parser`"));
    let after = "requestHandler: {parsers: [{pluginRef: passthrough-parser}, {pluginRef: openai-parser}]}\n";
    assert!(problem(after).contains("requestHandler.parsers[1]: is never reached"));
    let both = "parser: {pluginRef: openai-parser}\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}\n";
    assert!(problem(both).contains("remove one of the two"));
}

#[test]
fn reporters_and_what_is_wrong_with_them() {
    let text = |parameters: &str| format!("plugins:\n- type: request-attribute-reporter\n  parameters: {parameters}\n");
    let full = "{attributes: [{key: {namespace: costs, name: cost}, expression: usage.total_tokens, condition: 'usage.total_tokens > 0.0'}]}";
    let wanted = AttributeReporter::new("costs", "cost", "usage.total_tokens", "usage.total_tokens > 0.0").unwrap();
    assert_eq!(parse(&text(full)).reporters, [wanted]);
    let short = "{attributes: [{key: {name: cost}, expression: usage.total_tokens}]}";
    let wanted = AttributeReporter::new("envoy.lb", "cost", "usage.total_tokens", "").unwrap();
    assert_eq!(parse(&text(short)).reporters, [wanted]);
    for (parameters, part) in [
        ("{}", "plugins[0].parameters.attributes: is missing"),
        ("{attributes: []}", "has 0 entries: write exactly one"),
        ("{attributes: [{}, {}]}", "has 2 entries"),
        ("{attributes: [{expression: a}]}", "`key` is missing"),
        ("{attributes: [{key: {}, expression: usage.a}]}", "`name` is missing"),
        ("{attributes: [{key: {name: a}}]}", "`expression` is missing"),
        ("{attributes: [{key: {name: a}, expression: 'usage.'}]}", "the expression is no CEL"),
        ("{attributes: [{key: {name: a}, expression: usage.a, when: b}]}", "unknown field"),
    ] {
        let told = problems(&text(parameters)).join("\n");
        assert!(told.contains(part), "{parameters}: {told}");
    }
}

#[test]
fn flow_control_as_upstream_writes_it() {
    let none = parse("");
    assert_eq!((none.flow.while_full, none.flow.hold_empty), (false, HoldEmpty::Auto));
    let gate = parse("featureGates: [flowControl]\n");
    assert_eq!((gate.flow.while_full, gate.flow.hold_empty), (true, HoldEmpty::Always));
    let text = "featureGates: [flowControl]
plugins:
- type: queue-scorer
- { type: priority-holdback-policy, name: back, parameters: { minCeiling: 0.5 } }
- { type: round-robin-fairness-policy, name: turns }
flowControl:
  maxBytes: 512Mi
  maxRequests: \"1k\"
  defaultRequestTTL: 30s
  usageLimitPolicyPluginRef: back
  holdEmpty: always
  settleDelay: 2s
  defaultPriorityBand: { maxRequests: 100, fairnessPolicyRef: turns }
  priorityBands:
  - { priority: 7, maxBytes: 1G, orderingPolicyRef: slo-deadline-ordering-policy }
  - { priority: -1, maxRequests: 0 }
";
    let config = parse(text);
    let flow = &config.flow;
    assert!(flow.while_full);
    assert_eq!((flow.most_bytes, flow.most_requests), (Some(512 << 20), Some(1000)));
    assert_eq!((flow.ttl, flow.no_endpoint_ttl), (Some(Duration::from_secs(30)), Some(Duration::from_secs(30))));
    assert_eq!((flow.hold_empty, flow.settle), (HoldEmpty::Always, Duration::from_secs(2)));
    assert_eq!(flow.usage, UsageLimit::Holdback(Holdback { domain: HoldbackDomain::Rank, lowest: 0.5, highest: 1.0 }));
    let (high, low, other) = (flow.band(7), flow.band(-1), flow.band(0));
    assert_eq!((high.most_bytes, high.most_requests), (Some(1_000_000_000), Some(100)));
    assert_eq!((high.ordering, high.fairness), (Ordering::SloDeadline, Fairness::RoundRobin));
    assert_eq!((low.most_requests, other.most_requests), (None, Some(100)));
    assert!(config.headers.iter().any(|header| **header == *"x-slo-ttft-ms"), "{:?}", config.headers);
    let effective = config.effective();
    assert_eq!(effective["flowControl"]["priorityBands"][0]["orderingPolicyRef"], "slo-deadline-ordering-policy");
    let llm_d = SchedulingConfig::parse("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n").unwrap();
    assert_eq!((llm_d.flow.ttl, llm_d.flow.band(0).most_requests), (Some(Duration::from_secs(60)), Some(5000)));
}

#[test]
fn what_is_wrong_with_flow_control() {
    for (section, part) in [
        ("{ maxBytes: lots }", "flowControl.maxBytes: is no whole quantity"),
        ("{ maxRequests: -1 }", "flowControl.maxRequests: is no whole quantity"),
        ("{ maxRequests: 100m }", "flowControl.maxRequests: is no whole quantity"),
        ("{ defaultRequestTTL: soon }", "flowControl.defaultRequestTTL: `soon`: write a time"),
        ("{ enableEviction: true }", "flowControl.enableEviction: is not offered"),
        ("{ holdEmpty: allways }", "flowControl.holdEmpty: `allways` is not known: did you mean `always`?"),
        ("{ priorityBands: [{ maxRequests: 1 }] }", "flowControl.priorityBands[0].priority: is missing"),
        ("{ priorityBands: [{ priority: 1 }, { priority: 1 }] }", "there is a band of priority 1 already"),
        ("{ priorityBands: [{ priority: 1.5 }] }", "write a whole number of 32 bits"),
        ("{ usageLimitPolicyPluginRef: fcfs-ordering-policy }", "`fcfs-ordering-policy` is no usage limit policy"),
        ("{ usageLimitPolicyPluginRef: priority-holdback-policy }", "minCeiling: is missing"),
        (
            "{ defaultPriorityBand: { fairnessPolicyRef: round-robbin-fairness-policy } }",
            "did you mean `round-robin-fairness-policy`?",
        ),
        ("{ maxByte: 1 }", "flowControl.maxByte: unknown field: did you mean `maxBytes`?"),
    ] {
        let told = problems(&format!("flowControl: {section}\n")).join("\n");
        assert!(told.contains(part), "{section}: {told}");
    }
}
