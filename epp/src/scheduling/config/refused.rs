//! Upstream's types that weir refuses, each with the reason.

/// Why a type is refused; none where it is not upstream's.
pub(super) fn refusal(kind: &str) -> Option<String> {
    let (_, why) = REFUSED.iter().find(|(refused, _)| *refused == kind)?;
    Some(format!("`{kind}` is not offered: {why}"))
}

const PREDICTIONS: &str = "it calls predictor sidecars that are trained on the run; use latency-scorer, which weighs KV cache, queue and \
                           prefix, or token-load-scorer";
const KV_EVENTS: &str =
    "it needs every server's stream of KV cache events; use approx-prefix-cache-producer and prefix-cache-scorer";
const CUSTOM_METRICS: &str = "metrics beside those of scheduling are not collected; use utilization-filter, queue-scorer, \
                              kv-cache-utilization-scorer or running-requests-size-scorer";
const CLUSTERS: &str = "a picker places requests within one cluster; use the plugin of the same name without `multicluster-`";
const GPUS: &str = "GPU metrics are not collected; use kv-cache-utilization-scorer";
const MULTIMODAL: &str = "which server has encoded an image is not tracked; use disagg-profile-handler with an encode profile, or \
                          session-affinity-scorer";
const EVICTION: &str = "a request that a server works on is not taken from it; leave it out, and hold lower priorities back with \
                        priority-holdback-policy";
const ROLLOUT: &str = "DisaggregatedSet rollouts are not followed; use label-selector-filter on the revision's label";

/// Upstream's types that weir does not offer, and what to use instead.
pub(super) const REFUSED: [(&str, &str); 32] = [
    (
        "agent-identity",
        "requests of one caller are told by the header x-gateway-inference-fairness-id alone; let the agents or the gateway set it",
    ),
    ("burst-prefix-cache-producer", "requests are placed one by one, not in bursts; use approx-prefix-cache-producer"),
    ("dcgm-data-source", GPUS),
    ("dcgm-extractor", GPUS),
    ("disaggregatedset-rollout-pod-extractor", ROLLOUT),
    ("disaggregatedset-rollout-screener", ROLLOUT),
    ("endpoint-attribute-filter", CUSTOM_METRICS),
    ("endpoint-attribute-scorer", CUSTOM_METRICS),
    ("file-discovery", "without a cluster `--pools FILE` names the endpoints (docs/pools-file.md)"),
    ("k8s-notification-source", "nothing is done on news of other objects; pods and pools are followed in any case"),
    ("mm-embeddings-cache-producer", MULTIMODAL),
    ("mm-embeddings-cache-scorer", MULTIMODAL),
    ("models-data-extractor", "servers are not asked for their models; use lora-affinity-scorer"),
    ("models-data-source", "servers are not asked for their models; use lora-affinity-scorer"),
    ("multicluster-approx-prefix-cache-producer", CLUSTERS),
    ("multicluster-file-discovery", CLUSTERS),
    ("multicluster-kv-cache-utilization-scorer", CLUSTERS),
    ("multicluster-metrics-data-source", CLUSTERS),
    ("multicluster-metrics-extractor", CLUSTERS),
    ("multicluster-prefix-cache-scorer", CLUSTERS),
    ("multicluster-queue-scorer", CLUSTERS),
    ("multicluster-session-affinity-filter", CLUSTERS),
    ("p2p-source-producer", "KV caches are not copied between servers on request; use prefix-cache-scorer"),
    ("precise-prefix-cache-producer", KV_EVENTS),
    ("precise-prefix-cache-scorer", KV_EVENTS),
    ("predicted-latency-producer", PREDICTIONS),
    ("predicted-latency-scorer", PREDICTIONS),
    ("priority-then-time-eviction-order-policy", EVICTION),
    (
        "program-aware-fairness",
        "programs are not told apart; use round-robin-fairness-policy with the program's name in the header x-gateway-inference-fairness-id",
    ),
    (
        "session-id-producer",
        "ids are read from headers; name the header in `sessionIdConfig.sources` of the session affinity plugin",
    ),
    ("sheddable-eviction-filter", EVICTION),
    ("token-producer", "prompts are not tokenized: tokens are estimated at four bytes each; leave it out"),
];
