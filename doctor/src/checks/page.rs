//! Pages that do not come.

use crate::facts::Facts;
use crate::facts::observed::{FAILED, Page, REFUSED, TIMEOUT};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::path;

pub(crate) static UNREACHABLE: Check = Check {
    code: "page-unreachable",
    title: "A server's metrics page cannot be reached",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Nothing is known of the server: it counts for no mean, the pool's totals become unknown below half coverage, and a picker \
            sends it requests blindly. The page may be on a port of its own, or the server hangs.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-unreachable"}"# },
    needs: &["pools", "pods", "pages"],
    run: |facts| find(facts, Trouble::Unreachable),
};

pub(crate) static UNAUTHORIZED: Check = Check {
    code: "page-unauthorized",
    title: "A server's metrics page wants a token (401)",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "Servers with `--api-key` protect some paths, and proxies beside them all: whoever scrapes needs the token too.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-unauthorized"}"# },
    needs: &["pools", "pods", "pages"],
    run: |facts| find(facts, Trouble::Unauthorized),
};

pub(crate) static FORBIDDEN: Check = Check {
    code: "page-forbidden",
    title: "A server's metrics page refuses the asker (403)",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "The page knows who asks and says no: a policy of a mesh, or a reviewed page whose reader lacks a role.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-forbidden"}"# },
    needs: &["pools", "pods", "pages"],
    run: |facts| find(facts, Trouble::Forbidden),
};

pub(crate) static ABSENT: Check = Check {
    code: "page-absent",
    title: "A server has no metrics page there (404)",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "The path is another (trtllm-serve: /prometheus/metrics), or the server was started without metrics (SGLang: \
            `--enable-metrics`; llama.cpp: `--metrics`; TGI on a port of its own).",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-absent"}"# },
    needs: &["pools", "pods", "pages"],
    run: |facts| find(facts, Trouble::Absent),
};

pub(crate) static EMPTY: Check = Check {
    code: "page-empty",
    title: "A server's metrics page is empty",
    severity: Severity::Error,
    family: Family::Scraping,
    about: "It answers 200 and says nothing, which is not zero: the server is starting, its metrics are off, or several processes share \
            one directory (`PROMETHEUS_MULTIPROC_DIR`) and this one has nothing in it.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_scrape_troubles_total{code="page-empty"}"# },
    needs: &["pools", "pods", "pages"],
    run: |facts| find(facts, Trouble::Empty),
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trouble {
    Unreachable,
    Unauthorized,
    Forbidden,
    Absent,
    Empty,
}

fn judge(page: &Page) -> Option<Trouble> {
    match page.status {
        Some(401) => Some(Trouble::Unauthorized),
        Some(403) => Some(Trouble::Forbidden),
        Some(404 | 405 | 501) => Some(Trouble::Absent),
        Some(200) if page.samples == Some(0) && page.engine.is_none() => Some(Trouble::Empty),
        Some(500..) => Some(Trouble::Unreachable),
        Some(_) => None,
        None => matches!(page.failure.as_deref(), Some(REFUSED | TIMEOUT | FAILED)).then_some(Trouble::Unreachable),
    }
}

fn find(facts: &Facts, wanted: Trouble) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        let ports = pool.ports();
        for pod in facts.pods_of(pool) {
            // One that is not Ready has not promised anything.
            if pod.ready() != Some(true) {
                continue;
            }
            for page in facts.pages_of(pod) {
                // A refusing target port is worse than a missing page, and has its own check.
                let refused = page.failure.as_deref() == Some(REFUSED) && page.port.is_some_and(|port| ports.contains(&port));
                if refused || judge(page) != Some(wanted) {
                    continue;
                }
                let said = match (page.status, page.failure.as_deref()) {
                    (Some(status), _) => format!("GET {} answers {status}", page.place()),
                    (None, failure) => {
                        format!("GET {}: {}", page.place(), page.message.as_deref().or(failure).unwrap_or("no answer"))
                    }
                };
                let (what, remedy) = match wanted {
                    Trouble::Unreachable => (
                        "its metrics page cannot be reached",
                        format!(
                            "metadata.annotations on the pool: {prefix}metrics-port, {prefix}metrics-path; or mend the server",
                            prefix = weir_k8s::ANNOTATION_PREFIX
                        ),
                    ),
                    Trouble::Unauthorized => (
                        "its metrics page wants a token",
                        "give the scraper the server's token, or leave /metrics open to it".to_owned(),
                    ),
                    Trouble::Forbidden => (
                        "its metrics page refuses the asker",
                        "allow the scraper's identity to GET the page (policy of the mesh, or a role)".to_owned(),
                    ),
                    Trouble::Absent => (
                        "has no metrics page there",
                        "start the server with metrics on (SGLang: --enable-metrics), or name the path: --metrics-path".to_owned(),
                    ),
                    Trouble::Empty => (
                        "its metrics page is empty, which is not zero",
                        "kubectl logs the server: metrics off, or a wrong PROMETHEUS_MULTIPROC_DIR".to_owned(),
                    ),
                };
                found.push(Finding::new("Pod", pod.meta().path(), what).evidence(said).remedy(remedy).pool(path(pool)));
            }
        }
    }
    found
}
