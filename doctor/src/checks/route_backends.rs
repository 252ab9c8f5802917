//! Routes whose requests find no pool.

use crate::facts::Facts;
use crate::facts::gateway::{Grant, Route};
use crate::facts::meta::condition;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{GATEWAY_GROUP, OLD_POOL_GROUP, POOL_GROUP, meta, pool_backends, pool_group};

pub(crate) static POOL_MISSING: Check = Check {
    code: "route-pool-missing",
    title: "A route points to a pool that does not exist",
    severity: Severity::Error,
    family: Family::Route,
    about: "Its requests get 500. The name, the namespace or the group is wrong: `inference.networking.x-k8s.io` pools and \
            `inference.networking.k8s.io` pools are two kinds, and a gateway that knows one does not find the other.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "pools", "oldPools"],
    run: pool_missing,
};

pub(crate) static NO_GRANT: Check = Check {
    code: "route-no-grant",
    title: "A route points into another namespace without a ReferenceGrant",
    severity: Severity::Error,
    family: Family::Route,
    about: "Its requests get 500 and the picker is never asked, while Gateway and pool look healthy: only the route says \
            `RefNotPermitted`. The grant belongs in the pool's namespace, and its group must be the pool's.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "grants"],
    run: no_grant,
};

pub(crate) static UNRESOLVED: Check = Check {
    code: "route-refs-unresolved",
    title: "A gateway cannot use a route's backend",
    severity: Severity::Error,
    family: Family::Route,
    about: "Its requests get 500. `InvalidKind` is a gateway without the inference extension (Istio: \
            `ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true` on istiod; NGINX Gateway Fabric: `gwAPIInferenceExtension.enable`).",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes"],
    run: unresolved,
};

pub(crate) static SEVERAL_POOLS: Check = Check {
    code: "route-several-pools",
    title: "One rule has several pools, and the gateway asks one picker for all",
    severity: Severity::Warning,
    family: Family::Route,
    about: "Istio before September 2026 asks one picker for all pools of a rule, Envoy AI Gateway refuses such a rule: requests go to \
            servers of the wrong pool, or nowhere. One rule per pool works everywhere.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "gateways"],
    run: several_pools,
};

fn pool_missing(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        for (_, group, namespace, name) in pool_backends(route) {
            let other = match group {
                POOL_GROUP => OLD_POOL_GROUP,
                OLD_POOL_GROUP => POOL_GROUP,
                _ => continue,
            };
            // Where the kind itself is missing, that is the finding.
            let no_kind = group == POOL_GROUP && facts.pools.not_served();
            if no_kind || facts.has_pool_of(group, namespace, name) != Some(false) {
                continue;
            }
            let namesakes = || facts.every_pool().map(|pool| meta(pool.metadata.as_ref())).filter(|meta| meta.name() == name);
            let near = || {
                facts
                    .every_pool()
                    .map(|pool| meta(pool.metadata.as_ref()))
                    .filter(|meta| meta.namespace() == namespace)
                    .filter(|meta| strsim::normalized_damerau_levenshtein(meta.name(), name) > 0.6)
                    .map(|meta| meta.name())
                    .next()
            };
            let absent = format!("there is no InferencePool.{group} {namespace}/{name}");
            let (evidence, remedy) = if facts.has_pool_of(other, namespace, name) == Some(true) {
                (
                    format!("{absent}, but there is InferencePool.{other} {namespace}/{name}"),
                    format!("backendRefs[].group: {other}"),
                )
            } else if let Some(elsewhere) = namesakes().next() {
                let remedy = format!("backendRefs[].namespace: {} (and a ReferenceGrant there)", elsewhere.namespace());
                (format!("{absent}, but there is {}", elsewhere.path()), remedy)
            } else if let Some(near) = near() {
                (format!("{absent}, but there is {namespace}/{near}"), format!("backendRefs[].name: {near}"))
            } else {
                (absent, format!("kubectl get inferencepools.{group} -A; then name one of them in backendRefs"))
            };
            let finding = Finding::new(
                "HTTPRoute",
                meta(route.metadata.as_ref()).path(),
                format!("points to pool {name}, which does not exist: its requests get 500"),
            );
            found.push(finding.evidence(evidence).remedy(remedy).pool(format!("{namespace}/{name}")));
        }
    }
    found
}

/// Whether `grant` lets HTTPRoutes of `from` point to the pool; none where it does not say.
fn permits(grant: &Grant, from: &str, group: &str, name: &str) -> Option<bool> {
    let spec = grant.spec.as_ref()?;
    let (sources, targets) = (spec.from.as_ref()?, spec.to.as_ref()?);
    let source = sources.iter().any(|entry| {
        entry.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP)
            && entry.kind.as_deref().is_none_or(|kind| kind == "HTTPRoute")
            && entry.namespace.as_deref().is_none_or(|namespace| namespace == from)
    });
    let target = targets.iter().any(|entry| {
        entry.group.as_deref().is_none_or(|entry| entry == group)
            && entry.kind.as_deref().is_none_or(|kind| kind == "InferencePool")
            && entry.name.as_deref().is_none_or(|entry| entry.is_empty() || entry == name)
    });
    Some(source && target)
}

fn no_grant(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let route_meta = meta(route.metadata.as_ref());
        for (_, group, namespace, name) in pool_backends(route) {
            if namespace == route_meta.namespace() || route_meta.namespace().is_empty() {
                continue;
            }
            let Some(grants) = facts.grants.all_in(namespace) else { continue };
            let here: Vec<_> = grants.iter().filter(|grant| meta(grant.metadata.as_ref()).namespace() == namespace).collect();
            if here.iter().any(|grant| permits(grant, route_meta.namespace(), group, name) != Some(false)) {
                continue;
            }
            let told = route.status.iter().flat_map(|status| status.parents.iter().flatten());
            let condition = told.filter_map(|parent| condition(parent.conditions.as_ref(), "ResolvedRefs", "False")).next();
            let evidence = match (here.is_empty(), condition) {
                (true, None) => format!("no ReferenceGrant in namespace {namespace}"),
                (true, Some(condition)) => {
                    format!("no ReferenceGrant in namespace {namespace}; the route says {}", condition.told())
                }
                (false, _) => format!(
                    "the {} ReferenceGrants in namespace {namespace} are for other kinds, groups, names or namespaces",
                    here.len()
                ),
            };
            let grant = format!(
                "kubectl apply -f - <<'END'\napiVersion: {GATEWAY_GROUP}/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: routes-of-{from}, namespace: {namespace}}}\n\
                 spec:\n  from: [{{group: {GATEWAY_GROUP}, kind: HTTPRoute, namespace: {from}}}]\n  to: [{{group: {group}, kind: InferencePool, name: {name}}}]\nEND",
                from = route_meta.namespace()
            );
            let what = format!("may not point to pool {namespace}/{name}: its requests get 500 and no picker is asked");
            let finding = Finding::new("HTTPRoute", route_meta.path(), what);
            found.push(finding.evidence(evidence).remedy(grant).pool(format!("{namespace}/{name}")));
        }
    }
    found
}

fn unresolved(facts: &Facts) -> Vec<Finding> {
    let found = facts.routes.iter().filter_map(|route| {
        let route_meta = meta(route.metadata.as_ref());
        let (_, group, namespace, name) = pool_backends(route).next()?;
        let parents = route.status.as_ref()?.parents.as_ref()?;
        let condition = parents.iter().find_map(|parent| condition(parent.conditions.as_ref(), "ResolvedRefs", "False"))?;
        // Each of these has a check that says more.
        let explained = condition.reason.as_deref() == Some("RefNotPermitted")
            || pool_backends(route).any(|(_, group, namespace, name)| facts.has_pool_of(group, namespace, name) == Some(false));
        if explained {
            return None;
        }
        let remedy = match condition.reason.as_deref() {
            Some("InvalidKind") => {
                "switch the gateway's inference extension on (Istio: set ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true on istiod)"
                    .to_owned()
            }
            _ => format!("kubectl -n {namespace} describe inferencepools.{group} {name}"),
        };
        let finding = Finding::new("HTTPRoute", route_meta.path(), "the gateway cannot use its backend: its requests get 500");
        Some(finding.evidence(condition.told()).remedy(remedy).pool(format!("{namespace}/{name}")))
    });
    found.collect()
}

/// The names of the controllers that have looked at `route`.
pub(super) fn controllers(route: &Route) -> impl Iterator<Item = &str> {
    route.status.iter().flat_map(|status| status.parents.iter().flatten()).filter_map(|parent| parent.controller_name.as_deref())
}

fn several_pools(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let Some(controller) = controllers(route).find(|name| name.contains("istio.io") || name.contains("envoyproxy.io")) else {
            continue;
        };
        for rule in route.spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
            let backends =
                rule.backend_refs.iter().flatten().filter(|backend| pool_group(backend).is_some() && backend.weight != Some(0));
            let names: Vec<_> = backends.filter_map(|backend| backend.name.as_deref()).collect();
            if names.len() < 2 {
                continue;
            }
            let finding = Finding::new(
                "HTTPRoute",
                meta(route.metadata.as_ref()).path(),
                "one rule has several pools: one picker is asked for all of them",
            )
            .evidence(format!("backendRefs {} in one rule, at a gateway of {controller}", names.join(", ")))
            .remedy("give each pool a rule of its own, with a match that tells them apart");
            found.push(finding);
        }
    }
    found
}
