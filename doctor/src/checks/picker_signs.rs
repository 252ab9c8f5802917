//! What a picker's log says of refusals.

use crate::facts::Facts;
use crate::facts::observed::LogSign;
use crate::facts::workload::Pod;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::path;

pub(crate) static FORBIDDEN: Check = Check {
    code: "picker-forbidden",
    title: "A picker may not read what it needs",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Its log says `is forbidden` for ever, and it never becomes Ready or never sees a change. The finding names the verb and the \
            resource that its Role lacks.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_kubernetes_watch_errors_total{reason="forbidden"}"# },
    needs: &["pools", "services", "pods", "logSigns"],
    run: forbidden,
};

pub(crate) static TRACES_REFUSED: Check = Check {
    code: "traces-refused",
    title: "A picker's traces are refused",
    severity: Severity::Warning,
    family: Family::Pool,
    about: "The collector answers 401, 403 (a missing or wrong token in `OTEL_EXPORTER_OTLP_HEADERS`) or 404 (a path of its own: set \
            `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` to the whole URL, mostly ending in /v1/traces). No trace arrives.",
    elsewhere: Elsewhere::Outside("whoever exports traces says it in its own words, which doctor reads off the log."),
    needs: &["logSigns"],
    run: traces_refused,
};

fn signs<'facts>(facts: &'facts Facts, kind: &'static str) -> impl Iterator<Item = &'facts LogSign> {
    facts.log_signs.iter().filter(move |sign| sign.kind.as_deref() == Some(kind))
}

/// Whether the log of `pod` says that something is forbidden.
pub(super) fn is_forbidden(facts: &Facts, pod: &Pod) -> bool {
    signs(facts, "forbidden")
        .any(|sign| sign.pod.as_deref() == Some(pod.meta().name()) && sign.namespace.as_deref() == Some(pod.meta().namespace()))
}

fn place(sign: &LogSign) -> String {
    format!("{}/{}", sign.namespace.as_deref().unwrap_or("?"), sign.pod.as_deref().unwrap_or("?"))
}

/// The pool whose picker wrote it.
fn pool_of(facts: &Facts, sign: &LogSign) -> Option<String> {
    let (namespace, name) = (sign.namespace.as_deref()?, sign.pod.as_deref()?);
    facts.every_pool().find(|pool| facts.picker_pods(pool).iter().any(|pod| pod.meta().is(namespace, name))).map(path)
}

fn with_pool(facts: &Facts, sign: &LogSign, finding: Finding) -> Finding {
    match pool_of(facts, sign) {
        Some(pool) => finding.pool(pool),
        None => finding,
    }
}

fn forbidden(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for sign in signs(facts, "forbidden") {
        let (Some(verb), Some(resource)) = (sign.verb.as_deref(), sign.resource.as_deref()) else { continue };
        let group = sign.group.as_deref().unwrap_or("");
        let named = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let (within, kind) = match sign.within.as_deref() {
            None | Some("") => ("everywhere".to_owned(), "ClusterRole"),
            Some(namespace) => (format!("in namespace {namespace}"), "Role"),
        };
        let finding = Finding::new("Pod", place(sign), format!("may not {verb} {named} {within}"))
            .evidence("its log says `is forbidden`")
            .remedy(format!("{kind} of its service account: rules: [{{apiGroups: [\"{group}\"], resources: [{resource}], verbs: [get, list, watch]}}]"));
        let finding = with_pool(facts, sign, finding);
        let same = |other: &Finding| other.object == finding.object && other.what == finding.what;
        if !found.iter().any(same) {
            found.push(finding);
        }
    }
    found
}

fn traces_refused(facts: &Facts) -> Vec<Finding> {
    let found = signs(facts, "traces").filter_map(|sign| {
        let status = sign.status?;
        let remedy = match status {
            401 | 403 => "env OTEL_EXPORTER_OTLP_HEADERS: the collector's token, from a Secret",
            _ => "env OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: the whole URL of the collector, mostly …/v1/traces",
        };
        let finding = Finding::new("Pod", place(sign), "its traces are refused")
            .evidence(format!("its log says that the collector answers {status}"));
        Some(with_pool(facts, sign, finding.remedy(remedy)))
    });
    found.collect()
}
