//! The checks: pure functions over facts, one file for each small family, one table.

mod api_service;
mod capacity;
mod gateway;
mod hpa_bounds;
mod hpa_conflict;
mod hpa_metric;
mod hpa_target;
mod hpa_tempo;
mod jobs;
mod model_names;
mod monitor;
mod monitor_labels;
mod nodes;
mod page;
mod page_content;
mod picker;
mod picker_config;
mod picker_pods;
mod picker_signs;
mod picker_tls;
mod pod_monitor;
mod pool;
mod requests;
mod route_backends;
mod route_parents;
mod route_rules;
mod server;

use crate::facts::{Facts, Listing, Reason};
use crate::finding::{Check, Examination, Finding, NotKnown};

/// Every check, on the way of a request and then of a measurement.
pub static CHECKS: &[&Check] = &[
    &gateway::NOT_PROGRAMMED,
    &route_parents::PARENT_MISSING,
    &route_parents::NOT_ACCEPTED,
    &route_parents::HOSTNAME_UNMATCHED,
    &route_backends::POOL_MISSING,
    &route_backends::NO_GRANT,
    &route_backends::UNRESOLVED,
    &route_backends::SEVERAL_POOLS,
    &route_rules::FILTER_SKIPS_PICKER,
    &route_rules::TIMEOUT_SHORT,
    &route_rules::MODEL_HEADER_UNSET,
    &pool::CRD_MISSING,
    &pool::CRD_OLD,
    &pool::NO_PODS,
    &pool::REFUSED_BY_GATEWAY,
    &server::PORT_REFUSED,
    &server::CRASH_LOOP,
    &server::OOM_KILLED,
    &picker::SERVICE_MISSING,
    &picker::SERVICE_PORT,
    &picker::PORT_NAME,
    &picker::TLS_RULE_MISSING,
    &picker_tls::PLAIN,
    &picker_pods::NO_PODS,
    &picker_pods::NOT_READY,
    &picker_pods::CRASH_LOOP,
    &picker_pods::FITS_NO_NODE,
    &picker_pods::POOL_NAME,
    &picker_pods::LOG_LEVEL,
    &picker_signs::FORBIDDEN,
    &picker_signs::TRACES_REFUSED,
    &picker_config::UNREADABLE,
    &picker_config::WEIGHTS,
    &requests::OBJECTIVE_POOL_MISSING,
    &model_names::UNKNOWN,
    &model_names::PREFIX,
    &model_names::SPELLING,
    &page::UNREACHABLE,
    &page::UNAUTHORIZED,
    &page::FORBIDDEN,
    &page::ABSENT,
    &page::EMPTY,
    &page_content::ENGINE_UNKNOWN,
    &page_content::FAMILY_MISSING,
    &page_content::STALE,
    &page_content::RANKS_HIDDEN,
    &monitor::SELECTS_NOTHING,
    &monitor::PORT_NAME,
    &monitor::NOT_TAKEN,
    &monitor::TOKEN_MISSING,
    &pod_monitor::SELECTS_NOTHING,
    &pod_monitor::NOT_TAKEN,
    &monitor::POD_MONITORING,
    &monitor_labels::SWALLOWED,
    &monitor_labels::DCGM_MISSING,
    &api_service::UNAVAILABLE,
    &api_service::FOREIGN,
    &hpa_metric::FAILED,
    &hpa_metric::MISSPELT,
    &hpa_metric::SELECTS_NO_POOL,
    &hpa_target::MEAN_AVERAGE_VALUE,
    &hpa_target::TOTAL_VALUE,
    &hpa_target::UNREACHABLE,
    &hpa_bounds::AT_MAX,
    &hpa_bounds::OFF_AT_ZERO,
    &hpa_bounds::MIN_ZERO,
    &hpa_tempo::FLAPS,
    &hpa_tempo::OVERSHOOTS,
    &hpa_conflict::TWO_SCALERS,
    &hpa_conflict::SHARED_DEMAND,
    &capacity::NO_GPU_NODE,
    &capacity::SATURATED,
    &nodes::CANNOT_DRAIN,
    &jobs::STUCK,
];

/// All checks over `facts`.
pub fn examine(facts: &Facts) -> Examination {
    let mut findings: Vec<Finding> = Vec::new();
    for check in CHECKS {
        let mut found = (check.run)(facts);
        for finding in &mut found {
            (finding.code, finding.severity) = (check.code, check.severity);
        }
        findings.append(&mut found);
    }
    // Stable: within a severity the order of the table stays.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let not_known = facts
        .states()
        .into_iter()
        .filter_map(|(name, why)| {
            let checks = CHECKS.iter().filter(|check| check.needs.contains(&name)).map(|check| check.code).collect();
            Some(NotKnown { facts: name, why: why?, checks })
        })
        .collect();
    Examination { findings, not_known, pools: facts.every_pool().count(), checks: CHECKS.len() }
}

impl Facts {
    /// Each kind of facts by its name in a record, and why it is not whole; none where it is.
    pub(crate) fn states(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("crds", state(&self.crds)),
            ("gateways", state(&self.gateways)),
            ("routes", state(&self.routes)),
            ("grants", state(&self.grants)),
            ("destinationRules", state(&self.destination_rules)),
            ("pools", state(&self.pools)),
            ("oldPools", state(&self.old_pools)),
            ("objectives", state(&self.objectives)),
            ("rewrites", state(&self.rewrites)),
            ("models", state(&self.models)),
            ("pods", state(&self.pods)),
            ("services", state(&self.services)),
            ("deployments", state(&self.deployments)),
            ("statefulSets", state(&self.stateful_sets)),
            ("leaderWorkerSets", state(&self.leader_worker_sets)),
            ("jobs", state(&self.jobs)),
            ("nodes", state(&self.nodes)),
            ("disruptionBudgets", state(&self.disruption_budgets)),
            ("events", state(&self.events)),
            ("autoscalers", state(&self.autoscalers)),
            ("scaledObjects", state(&self.scaled_objects)),
            ("apiServices", state(&self.api_services)),
            ("serviceMonitors", state(&self.service_monitors)),
            ("podMonitors", state(&self.pod_monitors)),
            ("podMonitorings", state(&self.pod_monitorings)),
            ("prometheuses", state(&self.prometheuses)),
            ("secrets", state(&self.secrets)),
            ("pages", state(&self.pages)),
            ("servedModels", state(&self.served_models)),
            ("pickerDials", state(&self.picker_dials)),
            ("pickerConfigs", state(&self.picker_configs)),
            ("logSigns", state(&self.log_signs)),
        ]
    }
}

/// Why a listing is not whole. One namespace alone is what was asked for, and a kind that is not installed is known not to be there.
fn state<T>(listing: &Listing<T>) -> Option<String> {
    match (&listing.items, &listing.why) {
        (_, Some(Reason::Forbidden(what))) => Some(format!("forbidden: {what}")),
        (_, Some(Reason::Failed(message))) => Some(message.clone()),
        (None, Some(Reason::NotServed)) => None,
        (None, None) => Some("not in the record".to_owned()),
        (Some(items), _) if listing.cut => Some(format!("only the first {} were read", items.len())),
        (Some(_), _) => (!listing.unreadable.is_empty()).then(|| format!("not understood: {}", listing.unreadable.join("; "))),
    }
}
