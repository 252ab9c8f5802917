//! Whether a picker speaks TLS where its gateway wants it.

use crate::checks::route_backends::controllers;
use crate::facts::Facts;
use crate::facts::pool::Pool;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path, pool_backends};

pub(crate) static PLAIN: Check = Check {
    code: "picker-plain",
    title: "A picker speaks plain text, and its gateway calls it with TLS",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Envoy AI Gateway and agentgateway call pickers with TLS whatever the pool says: without it requests get 500, or are spread \
            without a pick. The port is dialled through the API server.",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services", "pods", "routes", "pickerDials"],
    run: plain,
};

/// Gateways that call every picker with TLS, as their controllers name themselves; of those of Envoy Gateway only Envoy AI Gateway has pools.
const WANT_TLS: [&str; 2] = ["envoyproxy.io", "agentgateway"];

/// Whether all pods of `pool`'s picker speak TLS: as they answered, else as their command lines say; none where neither tells.
pub(super) fn speaks(facts: &Facts, pool: &Pool) -> Option<bool> {
    let pods = facts.picker_pods(pool);
    let off = |flag: &str| matches!(flag, "false" | "f" | "0" | "F" | "False" | "FALSE");
    let each = pods.iter().map(|pod| {
        let its = |dial: &&crate::facts::observed::Dial| {
            dial.namespace.as_deref() == Some(pod.meta().namespace()) && dial.pod.as_deref() == Some(pod.meta().name())
        };
        facts.picker_dials.iter().find(its).and_then(|dial| dial.tls).or_else(|| {
            let known = pod.containers().all(|container| container.args.is_some());
            known.then(|| !pod.flag("secure-serving").or_else(|| pod.flag("secureServing")).is_some_and(off))
        })
    });
    let each = each.collect::<Option<Vec<_>>>()?;
    match each.first() {
        None => None,
        Some(first) => each.iter().all(|one| one == first).then_some(*first),
    }
}

fn plain(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let controller = facts.routes.iter().find_map(|route| {
            pool_backends(route).find(|(_, _, namespace, name)| pool_meta.is(namespace, name))?;
            controllers(route).find(|name| WANT_TLS.iter().any(|gateway| name.contains(gateway)))
        })?;
        if speaks(facts, pool)? {
            return None;
        }
        let service = facts.picker_service(pool)?;
        let finding = Finding::new(
            "Service",
            meta(service.metadata.as_ref()).path(),
            "its pods speak plain text, and the gateway calls them with TLS: the picker is never asked",
        )
        .evidence(format!("a route of controller {controller} leads to pool {}", path(pool)))
        .remedy("take --secure-serving=false off the picker's arguments: it makes a certificate of its own");
        Some(finding.pool(path(pool)))
    });
    found.collect()
}
