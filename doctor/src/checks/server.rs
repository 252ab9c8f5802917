//! Servers that do not serve.

use std::time::Duration;

use crate::facts::Facts;
use crate::facts::observed::REFUSED;
use crate::facts::workload::{ContainerStatus, Pod};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::path;

pub(crate) static PORT_REFUSED: Check = Check {
    code: "server-port-refused",
    title: "Nothing listens on a pool's target port",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The pod is Ready and its port refuses: the gateway answers 502 or 503 for every request that is sent there. The pool's \
            `targetPorts` and the server's `--port` differ, or the server listens on 127.0.0.1 only (`--host 0.0.0.0`).",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="server-port-refused"}"# },
    needs: &["pools", "pods", "pages"],
    run: port_refused,
};

pub(crate) static CRASH_LOOP: Check = Check {
    code: "server-crash-loop",
    title: "A server crashes again and again",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The container ends soon after each start. The log of the run before names the cause: a model that cannot be downloaded, too \
            little GPU memory for `--max-model-len`, a flag that the version does not know.",
    elsewhere: Elsewhere::Outside("the kubelet tells it of the pod; weir sees only that it is not Ready."),
    needs: &["pools", "pods"],
    run: crash_loop,
};

pub(crate) static OOM_KILLED: Check = Check {
    code: "server-oom-killed",
    title: "A server was killed for want of memory",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The container used more memory than its limit (not GPU memory): weights pass through it on load, and so does swap space. \
            Its requests are lost, and it loads the model anew.",
    elsewhere: Elsewhere::Outside("the kubelet tells it of the pod; weir sees only that it is not Ready."),
    needs: &["pools", "pods"],
    run: oom_killed,
};

/// A kill longer ago than this is history.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a container crashes again and again.
pub(super) fn crashes(status: &&ContainerStatus) -> bool {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("CrashLoopBackOff")
}

fn last_end(status: &ContainerStatus) -> Option<&crate::facts::workload::Terminated> {
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    now.or_else(|| status.last_state.as_ref()?.terminated.as_ref())
}

/// How it ended, for people.
pub(super) fn end_told(status: &ContainerStatus) -> String {
    let restarts = status.restart_count.unwrap_or(0);
    let container = status.name.as_deref().unwrap_or("?");
    match last_end(status) {
        Some(end) => {
            let code = end.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
            format!(
                "container {container} ended{code} ({}), {restarts} restarts",
                end.reason.as_deref().unwrap_or("no reason given")
            )
        }
        None => format!("container {container}: {restarts} restarts"),
    }
}

fn is_oom(status: &ContainerStatus) -> bool {
    last_end(status).and_then(|end| end.reason.as_deref()) == Some("OOMKilled")
}

/// Every server of a pool that is known, with the pool's path.
fn servers(facts: &Facts) -> impl Iterator<Item = (String, &Pod)> {
    facts.every_pool().flat_map(move |pool| facts.pods_of(pool).into_iter().map(move |pod| (path(pool), pod)))
}

fn port_refused(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        let ports = pool.ports();
        for pod in facts.pods_of(pool) {
            if pod.ready() != Some(true) {
                continue;
            }
            let refused = facts
                .pages_of(pod)
                .find(|page| page.failure.as_deref() == Some(REFUSED) && page.port.is_some_and(|port| ports.contains(&port)));
            let Some(port) = refused.and_then(|page| page.port) else { continue };
            let flag = pod.flag("port").and_then(|own| own.parse::<i64>().ok());
            let declared: Vec<_> = pod
                .containers()
                .flat_map(|container| container.ports.iter().flatten())
                .filter_map(|port| port.container_port)
                .collect();
            let other = flag.or_else(|| declared.iter().copied().find(|declared| !ports.contains(declared)));
            let remedy = match other.filter(|other| *other != port) {
                Some(other) => format!("spec.targetPorts: [{{number: {other}}}] (the pod has port {other})"),
                None => "let the server listen on 0.0.0.0, not on 127.0.0.1 alone".to_owned(),
            };
            let finding =
                Finding::new("Pod", pod.meta().path(), format!("nothing listens on port {port}: the gateway answers 502 or 503"))
                    .evidence(format!("the pod is Ready, a connection to port {port} is refused"));
            found.push(finding.remedy(remedy).pool(path(pool)));
        }
    }
    found
}

fn crash_loop(facts: &Facts) -> Vec<Finding> {
    let found =
        servers(facts).filter_map(|(pool, pod)| {
            let status = pod.container_statuses().filter(crashes).find(|status| !is_oom(status))?;
            let container = status.name.as_deref().unwrap_or("?");
            let finding = Finding::new("Pod", pod.meta().path(), "crashes again and again").evidence(end_told(status)).remedy(
                format!("kubectl -n {} logs {} -c {container} --previous --tail=50", pod.meta().namespace(), pod.meta().name()),
            );
            Some(finding.pool(pool))
        });
    found.collect()
}

fn oom_killed(facts: &Facts) -> Vec<Finding> {
    let found = servers(facts).filter_map(|(pool, pod)| {
        let long_ago = |status: &&ContainerStatus| {
            let end = last_end(status).and_then(|end| end.finished_at.as_ref());
            facts.ago(end).is_some_and(|ago| ago > RECENT)
        };
        let status = pod.container_statuses().find(|status| is_oom(status) && !long_ago(status))?;
        let container = status.name.as_deref().unwrap_or("?");
        let finding = Finding::new("Pod", pod.meta().path(), "was killed for want of memory").evidence(end_told(status)).remedy(
            format!("raise resources.limits.memory of container {container}: weights pass through it when the model is loaded"),
        );
        Some(finding.pool(pool))
    });
    found.collect()
}
