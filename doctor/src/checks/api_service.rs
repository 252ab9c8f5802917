//! The APIs that autoscalers ask.

use crate::facts::Facts;
use crate::facts::meta::condition;
use crate::facts::scaling::{ApiService, Metric};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::meta;

pub(crate) static UNAVAILABLE: Check = Check {
    code: "apiservice-unavailable",
    title: "A metrics API is not available",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "Every HPA that asks it holds its replicas, kubectl becomes slow, and namespaces cannot be deleted. The condition's reason names \
            the cause: no Service, no Ready pod behind it, a certificate that `caBundle` does not cover, a port closed to the API server.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_adapter_apiservice_state{state="absent"}"# },
    needs: &["apiServices"],
    run: unavailable,
};

pub(crate) static FOREIGN: Check = Check {
    code: "apiservice-foreign",
    title: "The metrics API belongs to another adapter",
    severity: Severity::Error,
    family: Family::Scaling,
    about: "There is one APIService for each group and version in a cluster, and the last one applied wins: HPAs that ask for \
            `inference_pool_…` by it get nothing from KEDA, prometheus-adapter or Stackdriver's. Serve them by the other API, by KEDA's \
            external scaler, or let weir pass other metrics on.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_adapter_apiservice_state{state="foreign"}"# },
    needs: &["apiServices", "autoscalers", "services"],
    run: foreign,
};

/// The groups that HPAs ask.
const GROUPS: [&str; 2] = ["external.metrics.k8s.io", "custom.metrics.k8s.io"];

fn metrics_apis(facts: &Facts) -> impl Iterator<Item = (&ApiService, &str)> {
    facts.api_services.iter().filter_map(|api| {
        let group = api.spec.as_ref()?.group.as_deref()?;
        GROUPS.contains(&group).then_some((api, group))
    })
}

/// Whether the API server can ask `group`; none where that is not known.
pub(super) fn is_unavailable(facts: &Facts, group: &str) -> bool {
    metrics_apis(facts).any(|(api, of)| {
        of == group && condition(api.status.as_ref().and_then(|status| status.conditions.as_ref()), "Available", "False").is_some()
    })
}

fn unavailable(facts: &Facts) -> Vec<Finding> {
    let found = metrics_apis(facts).filter_map(|(api, _)| {
        let refused = condition(api.status.as_ref()?.conditions.as_ref(), "Available", "False")?;
        let service = api.spec.as_ref()?.service.as_ref();
        let (namespace, name) = (service.and_then(|service| service.namespace.as_deref()).unwrap_or("?"), service.and_then(|service| service.name.as_deref()).unwrap_or("?"));
        let remedy = match refused.reason.as_deref() {
            Some("ServiceNotFound") => format!("kubectl -n {namespace} get service {name}; install the adapter, or delete the APIService"),
            Some("MissingEndpoints" | "EndpointsNotFound") => format!("kubectl -n {namespace} get pods: no Ready pod is behind Service {name}"),
            Some("ServicePortError") => format!("spec.service.port: a port of Service {namespace}/{name}"),
            Some("FailedDiscoveryCheck") if refused.message.as_deref().is_some_and(|message| message.contains("x509") || message.contains("certificate")) => {
                "spec.caBundle: the authority of the adapter's certificate (weir fills it in with --service)".to_owned()
            }
            Some("FailedDiscoveryCheck") => format!("is the port of Service {namespace}/{name} open to the API server (NetworkPolicy, firewall)? kubectl -n {namespace} logs service/{name}"),
            _ => format!("kubectl describe apiservice {}", meta(api.metadata.as_ref()).name()),
        };
        Some(Finding::new("APIService", meta(api.metadata.as_ref()).name(), "is not available: HPAs that ask it hold their replicas").evidence(refused.told()).remedy(remedy))
    });
    found.collect()
}

/// The group that a metric is asked of.
pub(super) fn group_of(metric: &Metric) -> Option<&'static str> {
    match metric.r#type.as_deref()? {
        "External" => Some(GROUPS[0]),
        "Object" | "Pods" => Some(GROUPS[1]),
        _ => None,
    }
}

fn foreign(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (api, group) in metrics_apis(facts) {
        let Some(service) = api.spec.as_ref().and_then(|spec| spec.service.as_ref()) else { continue };
        let (Some(namespace), Some(name)) = (service.namespace.as_deref(), service.name.as_deref()) else { continue };
        let other = ["keda", "prometheus-adapter", "stackdriver", "datadog", "newrelic", "kube-metrics-adapter"]
            .into_iter()
            .find(|other| name.contains(other));
        let Some(other) = other else { continue };
        // GKE's adapter serves the same names off Managed Prometheus, and prometheus-adapter may be told to.
        let asks = |metric: &&Metric| {
            group_of(metric) == Some(group) && metric.name().is_some_and(|name| name.starts_with("inference_pool_"))
        };
        let serves = matches!(other, "stackdriver" | "prometheus-adapter");
        for autoscaler in facts.autoscalers.iter() {
            let own = meta(autoscaler.metadata.as_ref());
            let Some(metric) = autoscaler.spec.iter().flat_map(|spec| spec.metrics.iter().flatten()).find(asks) else { continue };
            if serves && super::hpa_metric::failing(autoscaler).is_none() {
                continue;
            }
            let finding = Finding::new("APIService", meta(api.metadata.as_ref()).name(), format!("belongs to {other}: HPA {} asks it in vain", own.path()))
                .evidence(format!("it points to Service {namespace}/{name}; the HPA asks for {}", metric.name().unwrap_or("?")))
                .remedy("serve the metric by KEDA's external scaler (weir adapter), by the other metrics API (type Object), or give weir the APIService: --take-over-apiservices");
            found.push(match facts.pool_of_autoscaler(autoscaler) {
                Some(pool) => finding.pool(crate::look::path(pool)),
                None => finding,
            });
        }
    }
    found
}
