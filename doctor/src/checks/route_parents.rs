//! Routes that hang on no gateway.

use crate::facts::Facts;
use crate::facts::gateway::{Gateway, Listener, ParentReference, Route};
use crate::facts::meta::condition;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{GATEWAY_GROUP, meta, pool_backends};

pub(crate) static PARENT_MISSING: Check = Check {
    code: "route-parent-missing",
    title: "A route's parentRef names no gateway or listener",
    severity: Severity::Error,
    family: Family::Route,
    about: "The route belongs to no gateway, so its requests get 404. Often the Gateway lives in another namespace and the parentRef has \
            no `namespace`, or `sectionName` is not the name of a listener.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "gateways"],
    run: parent_missing,
};

pub(crate) static NOT_ACCEPTED: Check = Check {
    code: "route-not-accepted",
    title: "A route is not Accepted",
    severity: Severity::Error,
    family: Family::Route,
    about: "The gateway refuses the route, or no controller has looked at it: requests get 404. The condition names the cause; \
            `NotAllowedByListeners` is a listener whose `allowedRoutes` leave out the route's namespace.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes"],
    run: not_accepted,
};

pub(crate) static HOSTNAME_UNMATCHED: Check = Check {
    code: "route-hostname-unmatched",
    title: "A route's hostnames meet no listener's",
    severity: Severity::Error,
    family: Family::Route,
    about: "A listener with a hostname takes requests for that name alone, a route with hostnames likewise: where they do not meet, \
            nothing is served. `*.example.com` covers one or more labels before `.example.com`, not `example.com` itself.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["routes", "gateways"],
    run: hostname_unmatched,
};

/// The gateway references of a route: which, and in which namespace.
fn gateway_references(route: &Route) -> impl Iterator<Item = (&ParentReference, &str, &str)> {
    let own = meta(route.metadata.as_ref()).namespace();
    let references = route.spec.iter().flat_map(|spec| spec.parent_refs.iter().flatten());
    references.filter_map(move |reference| {
        let is_gateway = reference.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && reference.group.as_deref().is_none_or(|group| group == GATEWAY_GROUP);
        is_gateway.then_some((reference, reference.namespace.as_deref().unwrap_or(own), reference.name.as_deref()?))
    })
}

fn gateway<'facts>(facts: &'facts Facts, namespace: &str, name: &str) -> Option<&'facts Gateway> {
    facts.gateways.iter().find(|gateway| meta(gateway.metadata.as_ref()).is(namespace, name))
}

fn listeners(gateway: &Gateway) -> Option<&Vec<Listener>> {
    gateway.spec.as_ref()?.listeners.as_ref()
}

fn with_pool(route: &Route, finding: Finding) -> Finding {
    match pool_backends(route).next() {
        Some((_, _, namespace, name)) => finding.pool(format!("{namespace}/{name}")),
        None => finding,
    }
}

fn parent_missing(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let route_meta = meta(route.metadata.as_ref());
        for (reference, namespace, name) in gateway_references(route) {
            let problem = match gateway(facts, namespace, name) {
                None if facts.gateways.all_in(namespace).is_some() => {
                    let elsewhere =
                        facts.gateways.iter().map(|gateway| meta(gateway.metadata.as_ref())).find(|meta| meta.name() == name);
                    let evidence = match elsewhere {
                        Some(meta) => format!("there is no Gateway {namespace}/{name}, but there is {}", meta.path()),
                        None => format!("there is no Gateway {namespace}/{name}"),
                    };
                    let right = elsewhere.map_or("the gateway's namespace", |meta| meta.namespace());
                    Some((evidence, format!("spec.parentRefs[].namespace: {right}")))
                }
                None => None,
                Some(gateway) => reference.section_name.as_deref().and_then(|section| {
                    let names: Vec<_> =
                        listeners(gateway)?.iter().map(|listener| listener.name.as_deref()).collect::<Option<_>>()?;
                    let evidence = format!("Gateway {namespace}/{name} has the listeners {}, not {section}", names.join(", "));
                    (!names.contains(&section))
                        .then(|| (evidence, format!("spec.parentRefs[].sectionName: {}", names.first().unwrap_or(&"…"))))
                }),
            };
            if let Some((evidence, remedy)) = problem {
                let finding = Finding::new("HTTPRoute", route_meta.path(), "belongs to no gateway: its requests get 404");
                found.push(with_pool(route, finding.evidence(evidence).remedy(remedy)));
            }
        }
    }
    found
}

fn not_accepted(facts: &Facts) -> Vec<Finding> {
    let found = facts.routes.iter().filter_map(|route| {
        let route_meta = meta(route.metadata.as_ref());
        let references: Vec<_> = gateway_references(route).collect();
        let parents = route.status.as_ref()?.parents.as_ref()?;
        // A gateway that is not there accepts nothing: that is another finding.
        let known =
            |namespace: &str, name: &str| gateway(facts, namespace, name).is_some() || facts.gateways.all_in(namespace).is_none();
        let refused = parents.iter().find_map(|parent| condition(parent.conditions.as_ref(), "Accepted", "False"));
        let evidence = match refused {
            Some(condition) => condition.told(),
            None if parents.is_empty() && references.iter().any(|(_, namespace, name)| known(namespace, name)) => {
                "its status names no parent: no controller has looked at it".to_owned()
            }
            None => return None,
        };
        let remedy = format!("kubectl -n {} describe httproute {}", route_meta.namespace(), route_meta.name());
        let finding = Finding::new("HTTPRoute", route_meta.path(), "is not accepted by its gateway: its requests get 404");
        Some(with_pool(route, finding.evidence(evidence).remedy(remedy)))
    });
    found.collect()
}

/// Whether some name meets both; wildcards stand for one or more labels.
fn meet(listener: &str, route: &str) -> bool {
    let (listener, route) = (listener.to_ascii_lowercase(), route.to_ascii_lowercase());
    let covers = |pattern: &str, name: &str| {
        pattern.strip_prefix('*').is_some_and(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
    };
    listener == route || covers(&listener, &route) || covers(&route, &listener)
}

fn hostname_unmatched(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for route in facts.routes.iter() {
        let hostnames: Vec<_> = route.spec.iter().flat_map(|spec| spec.hostnames.iter().flatten()).collect();
        if hostnames.is_empty() {
            continue;
        }
        for (reference, namespace, name) in gateway_references(route) {
            let Some(listeners) = gateway(facts, namespace, name).and_then(listeners) else { continue };
            let section = reference.section_name.as_deref();
            let meant: Vec<_> = listeners
                .iter()
                .filter(|listener| section.is_none_or(|section| listener.name.as_deref() == Some(section)))
                .collect();
            let open = |listener: &&Listener| {
                listener
                    .hostname
                    .as_deref()
                    .is_none_or(|own| own.is_empty() || hostnames.iter().any(|hostname| meet(own, hostname)))
            };
            if meant.is_empty() || meant.iter().any(open) {
                continue;
            }
            let theirs: Vec<_> = meant.iter().filter_map(|listener| listener.hostname.as_deref()).collect();
            let ours: Vec<_> = hostnames.iter().map(|hostname| hostname.as_str()).collect();
            let finding = Finding::new(
                "HTTPRoute",
                meta(route.metadata.as_ref()).path(),
                "no request can reach it: its hostnames meet no listener's",
            )
            .evidence(format!("route: {}; listeners of Gateway {namespace}/{name}: {}", ours.join(", "), theirs.join(", ")))
            .remedy(format!("spec.hostnames: [\"{}\"]", theirs.first().unwrap_or(&"…").replacen('*', "chat", 1)));
            found.push(with_pool(route, finding));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::meet;

    #[test]
    fn hostnames_meet_as_the_gateway_api_says() {
        for (listener, route) in [("a.b", "A.b"), ("*.b", "a.b"), ("a.b", "*.b"), ("*.b", "*.a.b"), ("*.b", "*.b")] {
            assert!(meet(listener, route), "{listener} {route}");
        }
        for (listener, route) in [("a.b", "c.b"), ("*.b", "b"), ("*.b", "xb"), ("*.a", "*.b")] {
            assert!(!meet(listener, route), "{listener} {route}");
        }
    }
}
