//! Rules of a route that keep its pool from doing its work.

use crate::checks::route_backends::controllers;
use crate::facts::Facts;
use crate::facts::gateway::{BackendReference, Filter, Rule};
use crate::facts::pool::Pool;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{go_duration, meta, pool_group, shown};

pub(crate) static FILTER_SKIPS_PICKER: Check = Check {
    code: "route-filter-skips-picker",
    title: "A filter of the rule keeps the gateway from asking the picker",
    severity: Severity::Warning,
    family: Family::Route,
    about: "On Istio a CORS filter (or a fault) on a rule resets what the gateway keeps for that rule, the call of the picker among it: \
            requests are served, but by any server in turn, and nothing is held. Put CORS into a rule without a pool, or before the gateway.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes"],
    run: filter_skips_picker,
};

pub(crate) static TIMEOUT_SHORT: Check = Check {
    code: "route-timeout-short",
    title: "A route's timeout is shorter than a server takes to start",
    severity: Severity::Warning,
    family: Family::Route,
    about: "A request that is held until a server has started is cut off with 504 before it has. The start is measured: the least time \
            that a server of the pool took from being scheduled to Ready. It matters where the pool can be empty.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "pods", "autoscalers"],
    run: timeout_short,
};

pub(crate) static MODEL_HEADER_UNSET: Check = Check {
    code: "route-model-header-unset",
    title: "A route matches on the model's header, and nothing sets it",
    severity: Severity::Warning,
    family: Family::Route,
    about: "Clients name the model in the body. Only body-based routing writes it into `X-Gateway-Model-Name`; without it the rule \
            matches nothing and requests get 404, or go to a rule without a match.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "pods"],
    run: model_header_unset,
};

/// Headers that body-based routing writes.
const MODEL_HEADERS: [&str; 2] = ["x-gateway-model-name", "x-gateway-base-model-name"];

/// The rules of a route with a pool, and the first pool of each.
fn rules_with_pool<'facts>(
    rules: Option<&'facts Vec<Rule>>,
    own: &'facts str,
) -> Vec<(&'facts Rule, &'facts BackendReference, String)> {
    let rules = rules.into_iter().flatten().filter_map(|rule| {
        let backend = rule.backend_refs.iter().flatten().find(|backend| pool_group(backend).is_some())?;
        let namespace = backend.namespace.as_deref().unwrap_or(own);
        Some((rule, backend, format!("{namespace}/{}", backend.name.as_deref()?)))
    });
    rules.collect()
}

fn filter_skips_picker(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let route_meta = meta(route.metadata.as_ref());
        let Some(controller) = controllers(route).find(|name| name.contains("istio.io")) else { continue };
        for (rule, backend, pool) in
            rules_with_pool(route.spec.as_ref().and_then(|spec| spec.rules.as_ref()), route_meta.namespace())
        {
            let is_cors = |filter: &&Filter| filter.r#type.as_deref() == Some("CORS");
            if rule.filters.iter().flatten().chain(backend.filters.iter().flatten()).find(is_cors).is_none() {
                continue;
            }
            let finding = Finding::new(
                "HTTPRoute",
                route_meta.path(),
                "the picker is not asked: a CORS filter of the rule drops that call",
            )
            .evidence(format!("filters[].type CORS on a rule with pool {pool}, at a gateway of {controller}"))
            .remedy("take the CORS filter off the rule with the pool: answer OPTIONS by a rule of its own, or before the gateway")
            .pool(pool);
            found.push(finding);
        }
    }
    found
}

/// Whether `pool` can be without servers: somebody takes it to zero, or brings it back.
pub(super) fn can_be_empty(facts: &Facts, pool: &Pool) -> bool {
    let at_zero =
        facts.workloads_of(pool).iter().any(|(_, workload)| workload.spec.as_ref().and_then(|spec| spec.replicas) == Some(0));
    let name = crate::look::path(pool);
    let to_zero = facts.autoscalers.iter().any(|autoscaler| {
        let its = facts.pool_of_autoscaler(autoscaler).is_some_and(|pool| crate::look::path(pool) == name);
        let spec = autoscaler.spec.as_ref();
        let idle_after = format!("{}idle-after", weir_k8s::ANNOTATION_PREFIX);
        its && (spec.and_then(|spec| spec.min_replicas) == Some(0)
            || meta(autoscaler.metadata.as_ref()).annotation(&idle_after).is_some())
    });
    at_zero || to_zero
}

fn timeout_short(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let route_meta = meta(route.metadata.as_ref());
        for (rule, backend, path) in
            rules_with_pool(route.spec.as_ref().and_then(|spec| spec.rules.as_ref()), route_meta.namespace())
        {
            let namespace = backend.namespace.as_deref().unwrap_or(route_meta.namespace());
            let Some(pool) = backend.name.as_deref().and_then(|name| facts.pool(namespace, name)) else { continue };
            let Some(start) = facts.start_time(pool).filter(|_| can_be_empty(facts, pool)) else { continue };
            let timeouts = rule.timeouts.as_ref();
            let given = [
                ("request", timeouts.and_then(|timeouts| timeouts.request.as_deref())),
                ("backendRequest", timeouts.and_then(|timeouts| timeouts.backend_request.as_deref())),
            ];
            // 0s is no timeout.
            let short = given.into_iter().find_map(|(name, text)| {
                let timeout = go_duration(text?)?;
                (!timeout.is_zero() && timeout < start).then_some((name, text?))
            });
            let Some((name, text)) = short else { continue };
            let finding = Finding::new("HTTPRoute", route_meta.path(), "cuts off requests that wait for the first server to start")
                .evidence(format!("timeouts.{name} is {text}; a server of the pool takes at least {} to start", shown(start)))
                .remedy(format!(
                    "timeouts.{name}: {}s (start, and then the longest generation), or leave it out",
                    start.as_secs() + 300
                ))
                .pool(path);
            found.push(finding);
        }
    }
    found
}

fn model_header_unset(facts: &Facts) -> Vec<Finding> {
    // Anything that may write the header: absence can be concluded only from all pods.
    let Some(pods) = facts.pods.all() else { return Vec::new() };
    let reads_bodies = |image: &str| {
        let name = image.rsplit('/').next().unwrap_or(image);
        ["bbr", "body-based", "payload-processor", "ai-gateway", "semantic-router"].iter().any(|part| name.contains(part))
    };
    if pods.iter().any(|pod| pod.containers().next().is_none()) {
        return Vec::new();
    }
    let by_pod = pods.iter().filter(|pod| pod.counts()).any(|pod| {
        pod.containers().any(|container| {
            // A name that is not known may be anyone's.
            container.image.as_deref().is_none_or(reads_bodies) || container.name.as_deref().is_none_or(|name| name == "bbr")
        })
    });
    if by_pod {
        return Vec::new();
    }
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let route_meta = meta(route.metadata.as_ref());
        if controllers(route).any(|name| name.contains("envoyproxy.io") || name.contains("agentgateway")) {
            // They can read bodies themselves.
            continue;
        }
        for (rule, _, pool) in rules_with_pool(route.spec.as_ref().and_then(|spec| spec.rules.as_ref()), route_meta.namespace()) {
            let headers = rule.matches.iter().flatten().flat_map(|one| one.headers.iter().flatten());
            let names = headers.filter_map(|header| header.name.as_deref());
            let Some(header) = names.into_iter().find(|name| MODEL_HEADERS.contains(&name.to_ascii_lowercase().as_str())) else {
                continue;
            };
            let finding = Finding::new(
                "HTTPRoute",
                route_meta.path(),
                "its rule matches only if somebody writes the model's name into a header, and nothing does",
            )
            .evidence(format!("a rule matches on header {header}; no pod runs body-based routing"))
            .remedy("install body-based routing before the gateway's routing, or match on the path alone")
            .pool(pool);
            found.push(finding);
        }
    }
    found
}
