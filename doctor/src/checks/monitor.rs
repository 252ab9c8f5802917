//! Monitors by which no Prometheus reads a page.

use crate::facts::Facts;
use crate::facts::meta::{Labels, Meta, Selector};
use crate::facts::monitoring::{MonitorEndpoint, NamespaceSelector, PrometheusSpec, ServiceMonitor};
use crate::facts::workload::{IntOrName, Service};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{has_all, meta};

pub(crate) static SELECTS_NOTHING: Check = Check {
    code: "monitor-selects-nothing",
    title: "A ServiceMonitor selects no Service",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Prometheus reads nothing by it and says nothing. It selects by the labels of the *Service*, not of the pods, and in its own \
            namespace unless `namespaceSelector` says otherwise.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["serviceMonitors", "services"],
    run: selects_nothing,
};

pub(crate) static PORT_NAME: Check = Check {
    code: "monitor-port-name",
    title: "A ServiceMonitor names a port that its Service has not",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "`endpoints[].port` is the *name* of a port of the Service; a number belongs in `targetPort`. Prometheus drops the target in \
            silence.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["serviceMonitors", "services"],
    run: port_name,
};

pub(crate) static NOT_TAKEN: Check = Check {
    code: "monitor-not-taken",
    title: "No Prometheus takes a ServiceMonitor",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Each Prometheus takes monitors with certain labels only; that of kube-prometheus-stack wants `release: <name of the release>`.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["serviceMonitors", "prometheuses"],
    run: not_taken,
};

pub(crate) static TOKEN_MISSING: Check = Check {
    code: "monitor-token-missing",
    title: "A monitor's token is in a Secret that does not exist",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "The page is asked for without a token, or not at all: 401. The Secret must be in the monitor's namespace.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["serviceMonitors", "podMonitors", "secrets"],
    run: token_missing,
};

pub(crate) static POD_MONITORING: Check = Check {
    code: "pod-monitoring-selects-nothing",
    title: "A PodMonitoring selects no pod, or a port that none has",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Google's collectors read nothing by it and say nothing. It selects pods of its own namespace by their labels; its port is a \
            number, or the name of a container's port.",
    elsewhere: Elsewhere::Outside("Prometheus reads monitors, weir does not."),
    needs: &["podMonitorings", "pods"],
    run: pod_monitoring,
};

/// Monitors of weir, of pickers or of servers: others are not this program's business.
fn concerns_us(facts: &Facts, monitor: &ServiceMonitor) -> bool {
    let speaks_of_us = |name: &str| ["weir", "epp", "inference", "vllm", "sglang", "llm"].iter().any(|word| name.contains(word));
    let ours = |labels: &Labels| {
        speaks_of_us(labels.get("app.kubernetes.io/name").or_else(|| labels.get("app")).map_or("", String::as_str))
    };
    let own = meta(monitor.metadata.as_ref());
    let named = speaks_of_us(own.name());
    let by_selector = monitor.spec.as_ref().and_then(|spec| spec.selector.as_ref()?.match_labels.as_ref()).is_some_and(ours);
    named
        || by_selector
        || facts.every_pool().any(|pool| meta(pool.metadata.as_ref()).namespace() == own.namespace() && !own.namespace().is_empty())
}

/// Services that a monitor selects; none where some may be unknown.
pub(super) fn selected<'facts>(facts: &'facts Facts, monitor: &ServiceMonitor) -> Option<Vec<&'facts Service>> {
    let own = meta(monitor.metadata.as_ref());
    let spec = monitor.spec.as_ref()?;
    let selector = spec.selector.as_ref()?;
    let services = facts.services.all()?;
    let mut selected = Vec::new();
    for service in services {
        let service_meta = meta(service.metadata.as_ref());
        let looked_into =
            NamespaceSelector::looks_into(spec.namespace_selector.as_ref(), own.namespace(), service_meta.namespace());
        if looked_into && selector.matches(service_meta.labels.as_ref()?)? {
            selected.push(service);
        }
    }
    Some(selected)
}

fn selects_nothing(facts: &Facts) -> Vec<Finding> {
    let found = facts.service_monitors.iter().filter(|monitor| concerns_us(facts, monitor)).filter_map(|monitor| {
        let own = meta(monitor.metadata.as_ref());
        own.namespace.as_ref()?;
        if !selected(facts, monitor)?.is_empty() {
            return None;
        }
        let selector = monitor.spec.as_ref()?.selector.as_ref()?;
        let elsewhere = facts
            .services
            .iter()
            .map(|service| meta(service.metadata.as_ref()))
            .find(|service| service.labels.as_ref().is_some_and(|labels| selector.matches(labels) == Some(true)));
        let (evidence, remedy) = match elsewhere {
            Some(service) => (
                format!("its selector fits Service {}, but it looks in other namespaces", service.path()),
                format!("spec.namespaceSelector.matchNames: [{}]", service.namespace()),
            ),
            None => (
                format!("no Service in its namespaces has {}", selector.shown()),
                format!(
                    "kubectl -n {} get services --show-labels; then spec.selector.matchLabels: labels of the Service",
                    own.namespace()
                ),
            ),
        };
        Some(
            Finding::new("ServiceMonitor", own.path(), "selects no Service: Prometheus reads nothing")
                .evidence(evidence)
                .remedy(remedy),
        )
    });
    found.collect()
}

fn port_name(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for monitor in facts.service_monitors.iter().filter(|monitor| concerns_us(facts, monitor)) {
        let Some(services) = selected(facts, monitor).filter(|services| !services.is_empty()) else { continue };
        let Some(names) = services
            .iter()
            .map(|service| {
                service.spec.as_ref()?.ports.as_ref()?.iter().map(|port| port.name.as_deref()).collect::<Option<Vec<_>>>()
            })
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        for port in
            monitor.spec.iter().flat_map(|spec| spec.endpoints.iter().flatten()).filter_map(|endpoint| endpoint.port.as_deref())
        {
            if names.iter().any(|names| names.contains(&port)) {
                continue;
            }
            let there: Vec<_> = names.iter().flatten().copied().collect();
            let finding = Finding::new(
                "ServiceMonitor",
                meta(monitor.metadata.as_ref()).path(),
                format!("names port {port}, which its Service has not"),
            )
            .evidence(format!("Service {} has ports {}", meta(services[0].metadata.as_ref()).path(), there.join(", ")));
            let right = there.iter().find(|name| name.contains("metrics")).or(there.first());
            found.push(finding.remedy(format!("spec.endpoints[].port: {}", right.unwrap_or(&"the port's name"))));
        }
    }
    found
}

fn not_taken(facts: &Facts) -> Vec<Finding> {
    let ours = facts.service_monitors.iter().filter(|monitor| concerns_us(facts, monitor));
    ours.filter_map(|monitor| {
        nobody_takes(facts, meta(monitor.metadata.as_ref()), ("ServiceMonitor", "monitors"), |spec| {
            spec.service_monitor_selector.as_ref()
        })
    })
    .collect()
}

/// That no Prometheus takes the monitor `own` of this kind, as people call several of them; `selector`: which ones a Prometheus takes.
pub(super) fn nobody_takes(
    facts: &Facts,
    own: &Meta,
    (kind, several): (&'static str, &str),
    selector: fn(&PrometheusSpec) -> Option<&Selector>,
) -> Option<Finding> {
    let labels = own.labels.as_ref()?;
    let mut wanted = None;
    for prometheus in facts.prometheuses.all()? {
        let selector = selector(prometheus.spec.as_ref()?)?;
        if selector.matches(labels)? {
            return None;
        }
        wanted = Some((meta(prometheus.metadata.as_ref()), selector));
    }
    let (prometheus, selector) = wanted?;
    let finding = Finding::new(kind, own.path(), "no Prometheus takes it").evidence(format!(
        "Prometheus {} takes {several} with {}",
        prometheus.path(),
        selector.shown()
    ));
    let resource = kind.to_lowercase();
    Some(finding.remedy(format!("kubectl -n {} label {resource} {} {}", own.namespace(), own.name(), selector.shown())))
}

fn token_missing(facts: &Facts) -> Vec<Finding> {
    let services = facts.service_monitors.iter().map(|monitor| {
        let endpoints = monitor.spec.as_ref().and_then(|spec| spec.endpoints.as_ref());
        ("ServiceMonitor", meta(monitor.metadata.as_ref()), endpoints)
    });
    let pods = facts.pod_monitors.iter().map(|monitor| {
        let endpoints = monitor.spec.as_ref().and_then(|spec| spec.pod_metrics_endpoints.as_ref());
        ("PodMonitor", meta(monitor.metadata.as_ref()), endpoints)
    });
    let mut found = Vec::new();
    for (kind, own, endpoints) in services.chain(pods) {
        for name in endpoints.into_iter().flatten().filter_map(MonitorEndpoint::secret) {
            let absent = facts.secrets.iter().any(|secret| {
                secret.namespace.as_deref() == Some(own.namespace())
                    && secret.name.as_deref() == Some(name)
                    && secret.present == Some(false)
            });
            if absent {
                let finding = Finding::new(kind, own.path(), "its token is in a Secret that does not exist: the page answers 401")
                    .evidence(format!("there is no Secret {}/{name}", own.namespace()));
                found.push(finding.remedy(format!(
                    "kubectl -n {} get secrets; the token's Secret must be in the monitor's namespace",
                    own.namespace()
                )));
            }
        }
    }
    found
}

fn pod_monitoring(facts: &Facts) -> Vec<Finding> {
    let found = facts.pod_monitorings.iter().filter_map(|monitoring| {
        let own = meta(monitoring.metadata.as_ref());
        own.namespace.as_ref()?;
        let selector = monitoring.spec.as_ref()?.selector.as_ref()?;
        let labels = selector.match_labels.as_ref()?;
        let pods = facts.pods.all_in(own.namespace())?;
        if pods.iter().any(|pod| pod.meta().labels.is_none()) {
            return None;
        }
        let selected: Vec<_> = facts.selected_pods(own.namespace(), labels);
        if selected.is_empty() {
            let at_zero = facts.workloads().any(|(_, workload)| {
                workload.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
                    && workload.pod_labels().is_some_and(|own| has_all(own, labels))
            });
            let finding = Finding::new("PodMonitoring", own.path(), "selects no pod: nothing is read")
                .evidence(format!("no pod of namespace {} has {}", own.namespace(), selector.shown()))
                .remedy(format!("kubectl -n {} get pods --show-labels; then spec.selector.matchLabels", own.namespace()));
            return (!at_zero && selector.match_expressions.is_none()).then_some(finding);
        }
        let ports: Vec<_> =
            selected.iter().flat_map(|pod| pod.containers()).flat_map(|container| container.ports.iter().flatten()).collect();
        let named = monitoring.spec.as_ref()?.endpoints.iter().flatten().find_map(|endpoint| match endpoint.port.as_ref()? {
            IntOrName::Name(name) if !ports.iter().any(|port| port.name.as_ref().is_none_or(|own| own == name)) => Some(name),
            _ => None,
        })?;
        let names: Vec<_> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
        if names.is_empty() {
            return None;
        }
        let finding = Finding::new("PodMonitoring", own.path(), format!("names port {named}, which none of its pods has"))
            .evidence(format!("the containers' ports are {}", names.join(", ")));
        Some(finding.remedy(format!("spec.endpoints[].port: {}", names.first().unwrap_or(&"…"))))
    });
    found.collect()
}
