//! The pods of a pool's picker.

use super::server::{crashes, end_told};
use crate::facts::Facts;
use crate::facts::meta::labels_shown;
use crate::facts::pool::Pool;
use crate::facts::workload::Pod;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static NO_PODS: Check = Check {
    code: "picker-no-pods",
    title: "A picker's Service selects no pod",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The gateway finds nobody to ask: requests get 500 or 503. The Deployment is at 0, or the Service's selector and the pods' \
            labels differ.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_kubernetes_problems" },
    needs: &["pools", "services", "pods"],
    run: no_pods,
};

pub(crate) static NOT_READY: Check = Check {
    code: "picker-not-ready",
    title: "No picker pod of a pool is Ready",
    severity: Severity::Error,
    family: Family::Pool,
    about: "A picker becomes Ready once it has found its pool. The usual causes have checks of their own: a pool name that is not there, \
            missing rights, no node that it fits on, a crash.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_kubernetes_problems" },
    needs: &["pools", "services", "pods"],
    run: not_ready,
};

pub(crate) static CRASH_LOOP: Check = Check {
    code: "picker-crash-loop",
    title: "A picker crashes again and again",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Its last lines name the cause: most often a flag that this version does not know, or a configuration that it refuses.",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services", "pods"],
    run: crash_loop,
};

pub(crate) static FITS_NO_NODE: Check = Check {
    code: "picker-fits-no-node",
    title: "A picker asks for more than any node has",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The pod stays Pending, and the gateway has nobody to ask. Charts of the Go picker ask for 4 CPUs and 8 GiB.",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services", "pods"],
    run: fits_no_node,
};

pub(crate) static POOL_NAME: Check = Check {
    code: "picker-pool-name",
    title: "A picker serves a pool that does not exist",
    severity: Severity::Error,
    family: Family::Pool,
    about: "It waits for that pool for ever, never becomes Ready, and says so at most in its log. `--pool-namespace` counts too: without \
            it a picker looks in its own namespace, and older ones in `default`.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_epp_pool_known" },
    needs: &["pools", "oldPools", "services", "pods"],
    run: pool_name,
};

pub(crate) static LOG_LEVEL: Check = Check {
    code: "picker-log-level",
    title: "A picker logs every request",
    severity: Severity::Warning,
    family: Family::Pool,
    about: "From verbosity 4 on (`--v=4`, debug, trace) a picker writes lines for every request, whole bodies among them: it costs a large \
            part of its throughput, and prompts end up in the logs.",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services", "pods"],
    run: log_level,
};

fn no_pods(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let service = facts.picker_service(pool)?;
        let selector = service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())?;
        let pods = facts.pods.all_in(pool_meta.namespace())?;
        let unknown = pods.iter().any(|pod| pod.meta().labels.is_none());
        if unknown || !facts.picker_pods(pool).is_empty() {
            return None;
        }
        let service = meta(service.metadata.as_ref());
        let finding = Finding::new("Service", service.path(), "selects no picker pod: the gateway has nobody to ask")
            .evidence(format!("no pod of namespace {} has {}", service.namespace(), labels_shown(selector)))
            .remedy(format!("kubectl -n {} get deployments,pods --show-labels", service.namespace()));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

/// Every picker pod that is known, with its pool.
fn pickers(facts: &Facts) -> impl Iterator<Item = (&Pool, &Pod)> {
    facts.every_pool().flat_map(move |pool| facts.picker_pods(pool).into_iter().map(move |pod| (pool, pod)))
}

fn not_ready(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pods = facts.picker_pods(pool);
        let first = pods.first()?;
        let wrong_pool = |pod: &&Pod| names_missing_pool(facts, pod).is_some();
        let explained = |pod: &&Pod| {
            pod.container_statuses().any(|status| crashes(&status))
                || pod.unschedulable().is_some()
                || wrong_pool(pod)
                || super::picker_signs::is_forbidden(facts, pod)
        };
        if pods.iter().any(|pod| pod.ready() != Some(false)) || pods.iter().any(explained) {
            return None;
        }
        let finding = Finding::new("Pod", first.meta().path(), "no picker of the pool is Ready: requests get 500 or 503")
            .evidence(format!("{} of {} picker pods are not Ready", pods.len(), pods.len()))
            .remedy(format!("kubectl -n {} logs {} --tail=50", first.meta().namespace(), first.meta().name()));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

fn crash_loop(facts: &Facts) -> Vec<Finding> {
    let found = pickers(facts).filter_map(|(pool, pod)| {
        let status = pod.container_statuses().find(crashes)?;
        let container = status.name.as_deref().unwrap_or("?");
        let finding =
            Finding::new("Pod", pod.meta().path(), "the picker crashes again and again").evidence(end_told(status)).remedy(
                format!("kubectl -n {} logs {} -c {container} --previous --tail=50", pod.meta().namespace(), pod.meta().name()),
            );
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

fn fits_no_node(facts: &Facts) -> Vec<Finding> {
    let found = pickers(facts).filter_map(|(pool, pod)| {
        let condition = pod.unschedulable()?;
        let asks: Vec<_> = pod
            .containers()
            .filter_map(|container| {
                Some(container.resources.as_ref()?.requests.as_ref()?.iter().map(|(key, value)| format!("{key}: {value}")))
            })
            .flatten()
            .collect();
        let finding =
            Finding::new("Pod", pod.meta().path(), "the picker fits on no node").evidence(condition.told()).remedy(format!(
                "lower resources.requests (now {}), or add a node",
                if asks.is_empty() { "none".to_owned() } else { asks.join(", ") }
            ));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

/// The pool that a picker's command line names, where there is none: namespace and name.
fn names_missing_pool<'facts>(facts: &Facts, pod: &'facts Pod) -> Option<(&'facts str, &'facts str)> {
    let name = pod.flag("pool-name").or_else(|| pod.flag("poolName"))?;
    let namespace = pod.flag("pool-namespace").or_else(|| pod.flag("poolNamespace")).unwrap_or(pod.meta().namespace());
    // Kubernetes fills in `$(NAMESPACE)` where a container starts.
    let unresolved = name.contains("$(") || namespace.contains("$(");
    (!unresolved && facts.has_pool(namespace, name) == Some(false)).then_some((namespace, name))
}

fn pool_name(facts: &Facts) -> Vec<Finding> {
    // A picker whose pool is not there belongs to none, so all pods are looked through.
    let found = facts.pods.iter().filter(|pod| pod.counts()).filter_map(|pod| {
        let (namespace, name) = names_missing_pool(facts, pod)?;
        let near = facts.every_pool().map(|pool| meta(pool.metadata.as_ref())).find(|meta| {
            meta.name() == name
                || (meta.namespace() == namespace && strsim::normalized_damerau_levenshtein(meta.name(), name) > 0.6)
        });
        let (evidence, remedy) = match near {
            Some(near) => (
                format!("there is no InferencePool {namespace}/{name}, but there is {}", near.path()),
                format!("args: --pool-name={} --pool-namespace={}", near.name(), near.namespace()),
            ),
            None => (
                format!("there is no InferencePool {namespace}/{name}"),
                "kubectl get inferencepools -A; then --pool-name of one of them".to_owned(),
            ),
        };
        let finding = Finding::new("Pod", pod.meta().path(), "the picker waits for a pool that does not exist");
        Some(finding.evidence(evidence).remedy(remedy).pool(format!("{namespace}/{name}")))
    });
    found.collect()
}

fn log_level(facts: &Facts) -> Vec<Finding> {
    let found = pickers(facts).filter_map(|(pool, pod)| {
        let verbosity = pod.flag("v").and_then(|v| v.parse::<u32>().ok()).filter(|v| *v >= 4).map(|v| format!("--v={v}"));
        let word = ["zap-log-level", "log-level", "log"].iter().find_map(|flag| {
            let level = pod.flag(flag)?;
            let loud = matches!(level, "debug" | "trace") || level.parse::<u32>().is_ok_and(|level| level >= 4);
            loud.then(|| format!("--{flag}={level}"))
        });
        let shown = verbosity.or(word)?;
        let finding = Finding::new(
            "Pod",
            pod.meta().path(),
            "the picker logs every request: throughput is lost, and prompts end up in the logs",
        )
        .evidence(format!("its arguments have {shown}"))
        .remedy("args: --v=1");
        Some(finding.pool(path(pool)))
    });
    found.collect()
}
