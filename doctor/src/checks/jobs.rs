//! Jobs that never end.

use std::time::Duration;

use crate::facts::Facts;
use crate::facts::meta::condition;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, shown};

pub(crate) static STUCK: Check = Check {
    code: "job-stuck",
    title: "A Job beside a pool has failed, or does not end",
    severity: Severity::Warning,
    family: Family::Scaling,
    about: "Jobs that load a model or warm its servers up must end for what waits for them to go on. One that failed is not tried again \
            after its limit; one that runs for hours waits for something: a volume, a token, the disk.",
    elsewhere: Elsewhere::Outside("it is about nodes and Jobs, which weir's servers do not read."),
    needs: &["pools", "jobs"],
    run: stuck,
};

/// After this a Job that has not ended is looked at.
const LONG: Duration = Duration::from_secs(2 * 60 * 60);

fn stuck(facts: &Facts) -> Vec<Finding> {
    let near_pool = |namespace: &str| facts.every_pool().any(|pool| meta(pool.metadata.as_ref()).namespace() == namespace);
    let found = facts.jobs.iter().filter_map(|job| {
        let own = meta(job.metadata.as_ref());
        let status = job.status.as_ref()?;
        if own.namespace.is_none() || !near_pool(own.namespace()) || job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) {
            return None;
        }
        let remedy = format!("kubectl -n {} logs job/{} --tail=50", own.namespace(), own.name());
        if let Some(failed) = condition(status.conditions.as_ref(), "Failed", "True") {
            return Some(
                Finding::new("Job", own.path(), "has failed and is not tried again").evidence(failed.told()).remedy(remedy),
            );
        }
        let ended = status.completion_time.is_some() || condition(status.conditions.as_ref(), "Complete", "True").is_some();
        let runs = facts.ago(status.start_time.as_ref()).filter(|runs| *runs > LONG && !ended && status.active.unwrap_or(0) > 0)?;
        let tries = status.failed.unwrap_or(0);
        let finding = Finding::new("Job", own.path(), "has not ended")
            .evidence(format!("it runs for {}, {tries} of its pods failed", shown(runs)));
        Some(finding.remedy(remedy))
    });
    found.collect()
}
