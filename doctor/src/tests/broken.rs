//! Each check: a world broken in one place, in which it finds that and no check finds anything else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::World;
use crate::CHECKS;

type Break = fn(&mut World);

const CHAT: &str = "pods/chat-0";
const HPA: &str = "autoscalers/chat";
const ROUTE: &str = "routes/chat";
const EPP: &str = "pods/chat-epp-0";

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn at(base: &str, rest: &str) -> String {
    format!("{base}/{rest}")
}

fn external(name: &str, target: Value) -> Value {
    json!({"type": "External", "external": {"metric": {"name": name, "selector": {"matchLabels": {"name": "chat"}}}, "target": target}})
}

fn value(of: &str) -> Value {
    json!({"type": "Value", "value": of})
}

fn average(of: &str) -> Value {
    json!({"type": "AverageValue", "averageValue": of})
}

fn only_metric(world: &mut World, metric: Value) {
    world.set(&at(HPA, "spec/metrics"), json!([metric]));
}

fn not_ready(world: &mut World, pod: &str) {
    world.set(&format!("{pod}/status/conditions/1/status"), json!("False"));
}

fn page(world: &mut World, page: Value) {
    let page = page.as_object().unwrap().clone();
    for key in ["status", "bytes", "samples", "engine", "waiting", "running", "kvCacheUtilization", "ranks"] {
        world.remove(&format!("pages/chat-0/{key}"));
    }
    for (key, value) in page {
        world.set(&format!("pages/chat-0/{key}"), value);
    }
}

fn terminated(reason: &str) -> Value {
    json!({"name": "c", "restartCount": 7, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": reason, "exitCode": 1}}})
}

/// What is found, and what was broken.
const WORLDS: &[(&str, Break)] = &[
    ("gateway-not-programmed", |w| {
        w.set("gateways/edge/status/conditions/1", condition("Programmed", "False", "AddressNotAssigned", "no address"));
    }),
    ("gateway-not-programmed", |w| {
        w.set("gateways/edge/status/conditions", json!([condition("Accepted", "Unknown", "Pending", "Waiting for controller")]));
    }),
    ("route-parent-missing", |w| {
        w.remove(&at(ROUTE, "spec/parentRefs/0/namespace"));
    }),
    ("route-parent-missing", |w| {
        w.set(&at(ROUTE, "spec/parentRefs/0/sectionName"), json!("https"));
    }),
    ("route-not-accepted", |w| {
        w.set(&at(ROUTE, "status/parents/0/conditions/0"), condition("Accepted", "False", "NotAllowedByListeners", "no"));
    }),
    ("route-not-accepted", |w| {
        w.set(&at(ROUTE, "status/parents"), json!([]));
    }),
    ("route-hostname-unmatched", |w| {
        w.set(&at(ROUTE, "spec/hostnames"), json!(["example.com", "chat.example.org"]));
    }),
    ("route-pool-missing", |w| {
        w.set(&at(ROUTE, "spec/rules/0/backendRefs/0/name"), json!("caht"));
    }),
    ("route-pool-missing", |w| {
        w.set(&at(ROUTE, "spec/rules/0/backendRefs/0/group"), json!("inference.networking.x-k8s.io"));
        w.remove("grants/routes/spec/to/0/group");
    }),
    ("route-no-grant", |w| {
        w.remove("grants/routes");
    }),
    ("route-no-grant", |w| {
        w.set("grants/routes/spec/to/0/group", json!("inference.networking.x-k8s.io"));
    }),
    ("route-no-grant", |w| {
        w.set("grants/routes/spec/from/0/namespace", json!("other"));
        w.set(&at(ROUTE, "status/parents/0/conditions/1"), condition("ResolvedRefs", "False", "RefNotPermitted", "no grant"));
    }),
    ("route-refs-unresolved", |w| {
        w.set(&at(ROUTE, "status/parents/0/conditions/1"), condition("ResolvedRefs", "False", "InvalidKind", "unsupported"));
    }),
    ("route-several-pools", |w| {
        w.push(&at(ROUTE, "spec/rules/0/backendRefs"), json!({"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "code", "namespace": "team-a", "weight": 1}));
    }),
    ("route-filter-skips-picker", |w| {
        w.set(&at(ROUTE, "spec/rules/0/filters"), json!([{"type": "CORS"}]));
    }),
    ("route-timeout-short", |w| {
        // The pool that goes to zero needs a server whose start was seen.
        w.set(&at(ROUTE, "spec/rules/0/timeouts/request"), json!("1m30s"));
        w.set("autoscalers/chat/metadata/annotations", json!({"weir.internal/idle-after": "10m"}));
    }),
    ("route-model-header-unset", |w| {
        w.remove("pods/bbr-0");
    }),
    ("crd-missing", |w| {
        w.set("pools", json!({"why": "notServed"}));
        for kind in ["routes", "objectives", "rewrites", "autoscalers", "pods"] {
            w.set(kind, json!({"items": []}));
        }
        w.set("podMonitors", json!({"items": []})).set("podMonitorings", json!({"items": []})).set("nodes", json!({"items": []}));
    }),
    ("crd-old", |w| {
        // Its other victims are said by their own checks; here nothing else is known.
        let route = w.0["routes"].clone();
        w.0 = json!({"version": 1, "routes": route, "pools": {"why": "notServed"}});
    }),
    ("pool-no-pods", |w| {
        w.set("pools/chat/spec/selector/matchLabels/app", json!("chta")).remove("podMonitorings/servers");
        w.remove("rewrites/assistant");
        w.set("autoscalers/chat/spec/behavior", json!(null));
    }),
    ("pool-refused-by-gateway", |w| {
        w.set("pools/chat/status/parents/0/conditions/1", condition("ResolvedRefs", "False", "InvalidExtensionRef", "port"));
    }),
    ("server-port-refused", |w| page(w, json!({"failure": "refused", "message": "connection refused"}))),
    ("server-crash-loop", |w| {
        not_ready(w, CHAT);
        w.set(&at(CHAT, "status/containerStatuses/0"), terminated("Error"));
    }),
    ("server-oom-killed", |w| {
        not_ready(w, CHAT);
        w.set(&at(CHAT, "status/containerStatuses/0"), terminated("OOMKilled"));
    }),
    ("picker-service-missing", |w| {
        w.set("pools/chat/spec/endpointPickerRef/name", json!("chat-eppp"));
    }),
    ("picker-service-missing", |w| {
        w.set("services/chat-epp/spec/type", json!("ExternalName"));
    }),
    ("picker-service-port", |w| {
        w.set("pools/chat/spec/endpointPickerRef/port/number", json!(9003));
    }),
    ("picker-port-name", |w| {
        w.set("services/chat-epp/spec/ports/0/name", json!("tcp-ext-proc"));
    }),
    ("picker-tls-rule-missing", |w| {
        w.remove("destinationRules/chat-epp");
    }),
    ("picker-tls-rule-missing", |w| {
        // It speaks TLS, whatever its command line says.
        w.push(&at(EPP, "spec/containers/0/args"), json!("--secure-serving=false"));
        w.remove("destinationRules/chat-epp");
    }),
    ("picker-plain", |w| {
        w.set("pickerDials/chat-epp-0/tls", json!(false));
        w.set(&at(ROUTE, "status/parents/0/controllerName"), json!("agentgateway.dev/agentgateway"));
    }),
    ("picker-plain", |w| {
        // Nobody answered; its command line tells.
        w.set("pickerDials", json!({"items": []}));
        w.push(&at(EPP, "spec/containers/0/args"), json!("--secure-serving=false"));
        let controller = json!("gateway.envoyproxy.io/gatewayclass-controller");
        w.set(&at(ROUTE, "status/parents/0/controllerName"), controller);
    }),
    ("picker-no-pods", |w| {
        w.set("services/chat-epp/spec/selector", json!({"app": "epp"}));
    }),
    ("picker-not-ready", |w| not_ready(w, EPP)),
    ("picker-crash-loop", |w| {
        not_ready(w, EPP);
        w.set(&at(EPP, "status/containerStatuses/0"), terminated("Error"));
    }),
    ("picker-fits-no-node", |w| {
        let message = "0/3 nodes are available: 3 Insufficient cpu.";
        w.set(
            &at(EPP, "status/conditions"),
            json!([condition("PodScheduled", "False", "Unschedulable", message), condition("Ready", "False", "", "")]),
        );
        w.set(&at(EPP, "status/phase"), json!("Pending")).remove(&at(EPP, "spec/nodeName"));
    }),
    ("picker-pool-name", |w| {
        not_ready(w, EPP);
        w.set(&at(EPP, "spec/containers/0/args/0"), json!("--pool-name=chatt"));
    }),
    ("picker-log-level", |w| {
        w.set(&at(EPP, "spec/containers/0/args/3"), json!("--v=5"));
    }),
    ("picker-log-level", |w| {
        w.set("pods/code-epp-0/spec/containers/0/args", json!(["--pool-name", "code", "--zap-log-level", "debug"]));
    }),
    ("picker-forbidden", |w| {
        not_ready(w, EPP);
        w.push("logSigns", json!({"namespace": "team-a", "pod": "chat-epp-0", "kind": "forbidden", "verb": "list", "resource": "pods", "group": "", "within": "team-a"}));
    }),
    ("traces-refused", |w| {
        w.push("logSigns", json!({"namespace": "team-a", "pod": "chat-epp-0", "kind": "traces", "status": 404}));
    }),
    ("picker-config-unreadable", |w| {
        w.remove("pickerConfigs/configmap~chat-epp");
        w.push("pickerConfigs", json!({"namespace": "team-a", "source": "configmap/chat-epp", "unreadable": "line 3: …"}));
    }),
    ("picker-weights", |w| {
        w.set("pickerConfigs/configmap~chat-epp/profiles/0/plugins/0/weight", json!(0));
    }),
    ("picker-weights", |w| {
        w.set("pickerConfigs/configmap~chat-epp/profiles/0/plugins/1/pluginRef", json!("prefix-cache-scorer"));
    }),
    ("picker-weights", |w| {
        w.set("pickerConfigs/configmap~chat-epp/plugins/2/type", json!("random-picker"));
        w.set("pickerConfigs/configmap~chat-epp/profiles/0/plugins/2/pluginRef", json!("random-picker"));
    }),
    ("objective-pool-missing", |w| {
        w.set("objectives/batch/spec/poolRef/name", json!("chatt"));
    }),
    ("objective-pool-missing", |w| {
        w.set("objectives/batch/metadata/namespace", json!("web"));
    }),
    ("model-unknown", |w| {
        w.set("rewrites/assistant/spec/rules/0/targets/0/modelRewrite", json!("mistral-large"));
    }),
    ("model-name-prefix", |w| {
        w.set("rewrites/assistant/spec/rules/0/targets/0/modelRewrite", json!("openai/meta-llama/Llama-3.1-8B"));
    }),
    ("model-name-prefix", |w| {
        w.remove("rewrites/assistant");
        w.set(&at(ROUTE, "spec/rules/0/matches/0/headers/0/value"), json!("meta-llama/meta-llama/Llama-3.1-8B"));
    }),
    ("model-name-spelling", |w| {
        w.set("rewrites/assistant/spec/rules/0/targets/0/modelRewrite", json!("meta-llama/llama-3-1-8b"));
    }),
    ("page-unreachable", |w| page(w, json!({"failure": "timeout"}))),
    ("page-unreachable", |w| page(w, json!({"status": 500}))),
    ("page-unauthorized", |w| page(w, json!({"status": 401}))),
    ("page-forbidden", |w| page(w, json!({"status": 403}))),
    ("page-absent", |w| page(w, json!({"status": 404}))),
    ("page-empty", |w| page(w, json!({"status": 200, "bytes": 0, "samples": 0}))),
    ("page-engine-unknown", |w| page(w, json!({"status": 200, "samples": 30, "unreadable": "none of 30 samples is …"}))),
    ("page-engine-unknown", |w| page(w, json!({"status": 200, "unreadable": "an HTML document"}))),
    ("page-family-missing", |w| {
        w.remove("pages/chat-0/kvCacheUtilization");
        w.set("pages/chat-0/missing", json!(["KV cache use"]));
    }),
    ("page-stale", |w| {
        w.set("pages/chat-0/sampleAgeSeconds", json!(400.0));
    }),
    ("page-ranks-hidden", |w| {
        w.set("pages/chat-0/ranks", json!(8));
    }),
    ("monitor-selects-nothing", |w| {
        w.set("serviceMonitors/weir/spec/selector/matchLabels", json!({"app": "weir"}));
    }),
    ("monitor-selects-nothing", |w| {
        w.set("serviceMonitors/weir/metadata/namespace", json!("monitoring"));
        w.set("secrets/reader/namespace", json!("monitoring"));
    }),
    ("monitor-port-name", |w| {
        w.set("serviceMonitors/weir/spec/endpoints/0/port", json!("9090"));
    }),
    ("monitor-not-taken", |w| {
        w.set("serviceMonitors/weir/metadata/labels", json!({}));
    }),
    ("monitor-token-missing", |w| {
        w.set("secrets/reader/present", json!(false));
    }),
    ("pod-monitoring-selects-nothing", |w| {
        w.set("podMonitorings/servers/spec/selector/matchLabels/app", json!("vllm"));
    }),
    ("pod-monitoring-selects-nothing", |w| {
        w.set("podMonitorings/servers/spec/endpoints/0/port", json!("metrics"));
    }),
    ("monitor-token-missing", |w| {
        w.set("secrets/page-reader/present", json!(false));
    }),
    ("pod-monitor-selects-nothing", |w| {
        w.set("podMonitors/servers/spec/selector/matchLabels/app", json!("vllm"));
    }),
    ("pod-monitor-selects-nothing", |w| {
        w.set("podMonitors/servers/spec/podMetricsEndpoints/0/port", json!("8000"));
    }),
    ("pod-monitor-not-taken", |w| {
        w.set("podMonitors/servers/metadata/labels", json!({"release": "other"}));
    }),
    ("monitor-labels-swallowed", |w| {
        w.set("serviceMonitors/weir/spec/endpoints/0/honorLabels", json!(false));
    }),
    ("dcgm-missing", |w| {
        w.remove("pods/dcgm-0");
    }),
    ("apiservice-unavailable", |w| {
        w.set(
            "apiServices/v1beta1.external.metrics.k8s.io/status/conditions/0",
            condition("Available", "False", "MissingEndpoints", "no endpoints"),
        );
        let message = "the server is currently unable to handle the request";
        w.set(&at(HPA, "status/conditions/1"), condition("ScalingActive", "False", "FailedGetExternalMetric", message));
    }),
    ("apiservice-foreign", |w| {
        w.set(
            "apiServices/v1beta1.external.metrics.k8s.io/spec/service",
            json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"}),
        );
    }),
    ("hpa-metric-failed", |w| {
        w.set(
            &at(HPA, "status/conditions/1"),
            condition("ScalingActive", "False", "FailedGetExternalMetric", "pool team-a/chat: 0 of 2 endpoints are fresh"),
        );
    }),
    ("hpa-metric-misspelt", |w| {
        only_metric(w, external("inference_pool_total_inflight_request", average("64")));
        w.set(&at(HPA, "status/conditions/1"), condition("ScalingActive", "False", "FailedGetExternalMetric", "not found"));
    }),
    ("hpa-selects-no-pool", |w| {
        w.set(&at(HPA, "spec/metrics/0/external/metric/selector/matchLabels/name"), json!("vllm-chat"));
        w.set(&at(HPA, "status/conditions/1"), condition("ScalingActive", "False", "FailedGetExternalMetric", "no pool"));
    }),
    ("hpa-mean-average-value", |w| only_metric(w, external("inference_pool_average_kv_cache_utilization", average("500m")))),
    ("hpa-mean-average-value", |w| {
        only_metric(w, external("prometheus.googleapis.com|inference_pool_average_kv_cache_utilization|gauge", average("10m")));
    }),
    ("hpa-total-value", |w| only_metric(w, external("inference_pool_total_inflight_requests", value("64")))),
    ("hpa-target-unreachable", |w| only_metric(w, external("inference_pool_average_kv_cache_utilization", value("950m")))),
    ("hpa-target-unreachable", |w| only_metric(w, external("inference_pool_average_kv_cache_utilization", value("750m")))),
    ("hpa-target-unreachable", |w| {
        let mut metric = external("inference_pool_average_queue_size", value("10"));
        metric["external"]["metric"]["selector"]["matchLabels"]["extra"] = json!("x");
        w.set(&at(HPA, "spec/metrics"), json!([external("inference_pool_total_inflight_requests", average("64")), metric]));
    }),
    ("hpa-at-max", |w| {
        w.set(&at(HPA, "status/conditions/2"), condition("ScalingLimited", "True", "TooManyReplicas", "more than the maximum"));
        w.set(&at(HPA, "status/currentReplicas"), json!(10));
    }),
    ("hpa-off-at-zero", |w| {
        w.remove("autoscalers/code/metadata/annotations");
    }),
    ("hpa-min-zero", |w| {
        w.set(&at(HPA, "spec/minReplicas"), json!(0));
    }),
    ("hpa-flaps", |w| {
        w.set(&at(HPA, "spec/behavior/scaleDown/stabilizationWindowSeconds"), json!(60));
    }),
    ("hpa-overshoots", |w| only_metric(w, external("inference_pool_total_queue_size", average("5")))),
    ("two-scalers", |w| {
        let mut second = w.0["autoscalers"]["items"][0].clone();
        second["metadata"]["name"] = json!("chat-2");
        w.push("autoscalers", second);
    }),
    ("two-scalers", |w| {
        w.set(
            "scaledObjects",
            json!({"items": [{"metadata": {"name": "chat", "namespace": "team-a"}, "spec": {"scaleTargetRef": {"name": "chat"}}}]}),
        );
    }),
    ("two-hpas-one-demand", |w| {
        let mut second = w.0["autoscalers"]["items"][0].clone();
        second["metadata"]["name"] = json!("chat-b");
        second["spec"]["scaleTargetRef"]["name"] = json!("chat-b");
        w.push("autoscalers", second);
        w.push("deployments", json!({"metadata": {"name": "chat-b", "namespace": "team-a"}, "spec": {"replicas": 1, "template": {"metadata": {"labels": {"app": "chat", "gpu": "b"}}}}}));
    }),
    ("pods-without-gpu", |w| {
        let mut pod = w.0["pods"]["items"][0].clone();
        pod["metadata"]["name"] = json!("chat-2");
        let message = "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient nvidia.com/gpu.";
        pod["status"] = json!({"phase": "Pending", "conditions": [condition("PodScheduled", "False", "Unschedulable", message)]});
        w.push("pods", pod);
    }),
    ("pool-saturated", |w| {
        w.set("pages/chat-0/waiting", json!(12)).set("pages/chat-1/kvCacheUtilization", json!(0.95));
    }),
    ("gpu-node-cannot-drain", |w| {
        w.remove("pods/chat-1")
            .set("pods/toolbox/metadata/annotations", json!({"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}));
    }),
    ("gpu-node-cannot-drain", |w| {
        w.remove("pods/chat-1").set("disruptionBudgets/toolbox/status/disruptionsAllowed", json!(0));
    }),
    ("gpu-node-cannot-drain", |w| {
        w.remove("pods/chat-1").set("pods/toolbox/metadata/ownerReferences", json!([]));
    }),
    ("job-stuck", |w| {
        w.set(
            "jobs/load/status",
            json!({"failed": 7, "conditions": [condition("Failed", "True", "BackoffLimitExceeded", "gave up")]}),
        );
    }),
    ("job-stuck", |w| {
        w.set("jobs/load/status", json!({"active": 1, "failed": 2, "startTime": "2026-11-21T08:00:00Z"}));
    }),
];

#[test]
fn a_healthy_world_is_healthy() {
    let examination = World::healthy().examine();
    assert!(examination.findings.is_empty(), "{:#?}", examination.findings);
    assert!(examination.not_known.is_empty(), "{:#?}", examination.not_known);
    assert_eq!(examination.exit_code(), 0);
}

#[test]
fn each_broken_world_is_found_broken_there_and_nowhere_else() {
    let mut wrong = Vec::new();
    for (position, (code, break_it)) in WORLDS.iter().enumerate() {
        let mut world = World::healthy();
        break_it(&mut world);
        let found = world.codes();
        if found != [*code] {
            wrong.push(format!("{position} {code}: found {found:?} {:#?}", world.examine().findings));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_finding_says_what_by_what_and_how_to_mend_it() {
    for (code, break_it) in WORLDS {
        let mut world = World::healthy();
        break_it(&mut world);
        let check = CHECKS.iter().find(|check| check.code == *code).unwrap();
        for finding in world.examine().findings {
            assert!(!finding.what.is_empty() && !finding.evidence.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
            assert!(finding.object.contains(' ') && finding.severity == check.severity, "{finding:?}");
        }
    }
}

#[test]
fn what_is_like_a_fault_and_is_none() {
    let like: [Break; 5] = [
        // Killed days ago, and well since.
        |w| {
            let ended = json!({"terminated": {"reason": "OOMKilled", "finishedAt": "2026-11-10T00:00:00Z"}});
            w.set(&at(CHAT, "status/containerStatuses/0/lastState"), ended);
        },
        // A gateway that reads bodies itself.
        |w| {
            w.remove("pods/bbr-0").set(&at(ROUTE, "status/parents/0/controllerName"), json!("agentgateway.dev/agentgateway"));
        },
        // A server that wants a token for its models has not said that it has none.
        |w| {
            w.set("servedModels/chat-0", json!({"namespace": "team-a", "pod": "chat-0", "port": 8000, "status": 401}));
            w.set("rewrites/assistant/spec/rules/0/targets/0/modelRewrite", json!("mistral"));
        },
        // KEDA's own HPA beside its ScaledObject.
        |w| {
            w.set("autoscalers/chat/metadata/ownerReferences", json!([{"kind": "ScaledObject", "name": "chat"}]));
            let scaled = json!({"metadata": {"name": "chat", "namespace": "team-a"}, "spec": {"scaleTargetRef": {"name": "chat"}}});
            w.set("scaledObjects", json!({"items": [scaled]}));
        },
        // Two Deployments of a pool, each answering for its own pods.
        |w| {
            let mut second = w.0["autoscalers"]["items"][0].clone();
            second["metadata"]["name"] = json!("chat-b");
            second["spec"]["scaleTargetRef"]["name"] = json!("chat-b");
            second["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["pod.gpu"] = json!("b");
            w.push("autoscalers", second);
        },
    ];
    for (position, change) in like.iter().enumerate() {
        let mut world = World::healthy();
        change(&mut world);
        assert_eq!(world.codes(), Vec::<&str>::new(), "{position}: {:#?}", world.examine().findings);
    }
}

#[test]
fn each_check_has_a_broken_world() {
    let known: BTreeSet<_> = WORLDS.iter().map(|(code, _)| *code).collect();
    let all: BTreeSet<_> = CHECKS.iter().map(|check| check.code).collect();
    assert_eq!(all.len(), CHECKS.len(), "a code is there twice");
    assert_eq!(known, all);
}
