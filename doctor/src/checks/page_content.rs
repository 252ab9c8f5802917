//! Pages that come, and do not say what is needed.

use crate::facts::Facts;
use crate::facts::observed::Page;
use crate::facts::pool::Pool;
use crate::facts::workload::Pod;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::path;

pub(crate) static ENGINE_UNKNOWN: Check = Check {
    code: "page-engine-unknown",
    title: "A metrics page of no known engine",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "The page has samples, and none of them is a load signal of an engine: it is another program's (a sidecar, a proxy), or the \
            engine needs its families named.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-engine-unknown"}"# },
    needs: &["pools", "pods", "pages"],
    run: engine_unknown,
};

pub(crate) static FAMILY_MISSING: Check = Check {
    code: "page-family-missing",
    title: "A metrics page lacks a signal of its engine",
    severity: Severity::Warning,
    family: Family::Scraping,
    about: "Without waiting or running requests, totals and queue targets are unknown; without KV cache use, a picker weighs by queues \
            alone. Old versions name families otherwise, and some only show them after the first request.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-family-missing"}"# },
    needs: &["pools", "pods", "pages"],
    run: family_missing,
};

pub(crate) static STALE: Check = Check {
    code: "page-stale",
    title: "A metrics page tells of the past",
    severity: Severity::Warning,
    family: Family::Scraping,
    about: "Its samples carry timestamps that are long gone: something between caches the page. Old numbers scale a pool that has \
            changed since.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-stale"}"# },
    needs: &["pools", "pods", "pages"],
    run: stale,
};

pub(crate) static RANKS_HIDDEN: Check = Check {
    code: "page-ranks-hidden",
    title: "A server runs several data-parallel ranks behind one port",
    severity: Severity::Note,
    family: Family::Scraping,
    about: "The picker sees one endpoint and cannot choose among the ranks: the server's own balancing does. With a port for each rank \
            (`--data-parallel-external-lb` or hybrid, and as many `targetPorts`) each is picked by its own queue and cache.",
    elsewhere: Elsewhere::Outside(
        "several ranks on one page are as they should be for whoever scrapes; that the picker cannot choose is seen beside the pool's ports.",
    ),
    needs: &["pools", "pods", "pages"],
    run: ranks_hidden,
};

/// Seconds after which a sample is of the past.
const PAST: f64 = 60.0;

/// Good pages of Ready servers.
fn each_page(facts: &Facts, mut told: impl FnMut(&Pool, &Pod, &Page) -> Option<Finding>) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        for pod in facts.pods_of(pool) {
            for page in facts.pages_of(pod).filter(|page| page.status == Some(200) && pod.ready() == Some(true)) {
                found.extend(told(pool, pod, page).map(|finding| finding.pool(path(pool))));
            }
        }
    }
    found
}

fn engine_unknown(facts: &Facts) -> Vec<Finding> {
    each_page(facts, |_, pod, page| {
        let reason = page.unreadable.as_deref().filter(|_| page.engine.is_none())?;
        if page.samples == Some(0) {
            return None;
        }
        let finding = Finding::new("Pod", pod.meta().path(), "its metrics page is of no known engine")
            .evidence(format!("{}: {reason}", page.place()));
        Some(finding.remedy(format!(
            "weir read http://POD{}: names what is on it; then set the engine, or the right port",
            page.path.as_deref().unwrap_or("/metrics")
        )))
    })
}

fn family_missing(facts: &Facts) -> Vec<Finding> {
    each_page(facts, |_, pod, page| {
        let engine = page.engine.as_deref()?;
        let missing = page.missing.as_deref().filter(|missing| !missing.is_empty())?;
        // Engines that never have the use of their KV cache on the page.
        if matches!(engine, "tgi" | "llamacpp" | "triton") && missing == ["KV cache use"] {
            return None;
        }
        let finding = Finding::new("Pod", pod.meta().path(), format!("its page does not say: {}", missing.join(", ")))
            .evidence(format!("{} is a page of {engine}", page.place()));
        Some(finding.remedy("docs/engines.md lists each engine's families: start the server with metrics on, or update it"))
    })
}

fn stale(facts: &Facts) -> Vec<Finding> {
    each_page(facts, |_, pod, page| {
        let age = page.sample_age_seconds.filter(|age| *age > PAST)?;
        let finding = Finding::new("Pod", pod.meta().path(), "its metrics page tells of the past")
            .evidence(format!("the newest sample of {} is {age:.0} s old", page.place()));
        Some(finding.remedy("scrape the server itself, not a proxy, gateway or federation in between"))
    })
}

fn ranks_hidden(facts: &Facts) -> Vec<Finding> {
    each_page(facts, |pool, pod, page| {
        let ranks = page.ranks.filter(|ranks| *ranks > 1)?;
        if pool.ports().len() != 1 {
            return None;
        }
        let finding = Finding::new("Pod", pod.meta().path(), format!("the picker cannot choose among its {ranks} ranks"))
            .evidence(format!("{} tells of {ranks} engines, and the pool has one target port", page.place()));
        Some(finding.remedy("a port for each rank at the server, and as many entries in spec.targetPorts"))
    })
}
