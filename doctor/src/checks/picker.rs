//! The Service by which a gateway finds a pool's picker.

use crate::facts::Facts;
use crate::facts::meta::Meta;
use crate::facts::pool::Pool;
use crate::facts::workload::{IntOrName, ServicePort};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static SERVICE_MISSING: Check = Check {
    code: "picker-service-missing",
    title: "A pool's endpointPickerRef names no Service",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The gateway has nobody to ask: requests get 500, or with `failureMode: FailOpen` any server. The Service must be in the pool's \
            namespace and not of type ExternalName.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_kubernetes_problems" },
    needs: &["pools", "services"],
    run: service_missing,
};

pub(crate) static SERVICE_PORT: Check = Check {
    code: "picker-service-port",
    title: "A pool's endpointPickerRef names a port that its Service has not",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Most gateways do not notice: requests get 500, or are spread over the servers without a pick. The number is the Service's \
            port, which is not always the picker's own (9002).",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services"],
    run: service_port,
};

pub(crate) static PORT_NAME: Check = Check {
    code: "picker-port-name",
    title: "The picker's Service port is not named as gRPC",
    severity: Severity::Warning,
    family: Family::Pool,
    about: "Istio takes the protocol from the port's name: `grpc-…` or `http2-…` works, `tcp-…` and others break the call of the picker.",
    elsewhere: Elsewhere::Outside("the picker that suffers from it cannot know it, or does not run."),
    needs: &["pools", "services", "gateways"],
    run: port_name,
};

pub(crate) static TLS_RULE_MISSING: Check = Check {
    code: "picker-tls-rule-missing",
    title: "Istio has no DestinationRule for a picker with TLS",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The picker speaks TLS with a certificate of its own, and Istio calls it in plain text unless a DestinationRule says \
            otherwise: requests get 500. `--secure-serving=false` at the picker does as well.",
    elsewhere: Elsewhere::Outside("it is a rule of the mesh, which no server of weir's reads."),
    needs: &["pools", "gateways", "destinationRules", "pods", "pickerDials"],
    run: tls_rule_missing,
};

fn service_missing(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let name = pool.picker()?.name.as_deref()?;
        let evidence = match facts.picker_service(pool) {
            Some(service) if service.spec.as_ref()?.r#type.as_deref() == Some("ExternalName") => {
                format!("Service {name} is of type ExternalName")
            }
            Some(_) => return None,
            None => {
                let services = facts.services.all_in(pool_meta.namespace())?;
                let names = || {
                    services
                        .iter()
                        .map(|service| meta(service.metadata.as_ref()))
                        .filter(|meta| meta.namespace() == pool_meta.namespace())
                        .map(Meta::name)
                };
                let near = names().find(|other| strsim::normalized_damerau_levenshtein(other, name) > 0.6);
                let near = near.map_or_else(String::new, |near| format!("; there is {near}"));
                format!("there is no Service {}/{name}{near}", pool_meta.namespace())
            }
        };
        let finding = Finding::new("InferencePool", pool_meta.path(), "names a picker that no gateway can reach: requests get 500")
            .evidence(evidence)
            .remedy(format!(
                "kubectl -n {} get services; then spec.endpointPickerRef.name: the picker's Service",
                pool_meta.namespace()
            ));
        Some(finding.pool(pool_meta.path()))
    });
    found.collect()
}

fn service_port(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let picker = pool.picker()?;
        let spec = facts.picker_service(pool)?.spec.as_ref()?;
        // v1 demands a number; where it is missing it is not known.
        if picker.port.as_ref().is_some_and(|port| port.number.is_none())
            || (picker.port.is_none() && pool.spec.as_ref()?.extension_ref.is_none())
        {
            return None;
        }
        let ports: Vec<i64> = spec.ports.as_ref()?.iter().map(|port| port.port).collect::<Option<_>>()?;
        if ports.contains(&picker.port()) {
            return None;
        }
        let right =
            spec.ports.iter().flatten().find(|port| speaks_grpc(port)).or(spec.ports.as_ref()?.first()).and_then(|port| port.port);
        let shown: Vec<_> = ports.iter().map(i64::to_string).collect();
        let finding = Finding::new("InferencePool", path(pool), "names a port that its picker's Service has not")
            .evidence(format!(
                "endpointPickerRef says port {}, Service {} has {}",
                picker.port(),
                picker.name.as_deref()?,
                shown.join(", ")
            ))
            .remedy(format!(
                "spec.endpointPickerRef.port.number: {}",
                right.map_or_else(|| "…".to_owned(), |port| port.to_string())
            ));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

fn speaks_grpc(port: &ServicePort) -> bool {
    let named = port.name.as_deref().is_some_and(|name| name.starts_with("grpc") || name.starts_with("http2"));
    let said =
        port.app_protocol.as_deref().is_some_and(|protocol| matches!(protocol, "grpc" | "http2" | "kubernetes.io/h2c" | "HTTP2"));
    named || said || matches!(port.target_port, Some(IntOrName::Number(9002)))
}

/// Whether an Istio gateway serves `pool`, as the pool or its routes say.
fn behind_istio(facts: &Facts, pool: &Pool) -> bool {
    let parents = pool.status.iter().flat_map(|status| status.parents.iter().flatten());
    let said = parents.filter_map(|parent| parent.controller_name.as_deref()).any(|name| name.contains("istio.io"));
    let pool_meta = meta(pool.metadata.as_ref());
    let routed = facts.routes.iter().any(|route| {
        super::route_backends::controllers(route).any(|name| name.contains("istio.io"))
            && crate::look::pool_backends(route).any(|(_, _, namespace, name)| pool_meta.is(namespace, name))
    });
    said || routed
}

fn port_name(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter(|pool| behind_istio(facts, pool)).filter_map(|pool| {
        let picker = pool.picker()?;
        let service = facts.picker_service(pool)?;
        let port = service.spec.as_ref()?.ports.as_ref()?.iter().find(|port| port.port == Some(picker.port()))?;
        let name = port.name.as_deref()?;
        let good = ["grpc", "http2"].iter().any(|good| name.starts_with(good)) || port.app_protocol.is_some();
        if good {
            return None;
        }
        let finding = Finding::new(
            "Service",
            meta(service.metadata.as_ref()).path(),
            "Istio does not take its port for gRPC: the call of the picker breaks",
        )
        .evidence(format!("the port's name is {name}, and it has no appProtocol"))
        .remedy(format!("spec.ports[].name: grpc-{}", name.trim_start_matches("tcp-")));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}

fn tls_rule_missing(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter(|pool| behind_istio(facts, pool)).filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let name = pool.picker()?.name.as_deref()?;
        let service = facts.picker_service(pool)?;
        let speaks_tls = super::picker_tls::speaks(facts, pool) == Some(true);
        // A rule applies from the service's own namespace, the client's, or the mesh's root.
        let rules = facts.destination_rules.all()?;
        let hosts = [name.to_owned(), format!("{name}.{}", pool_meta.namespace()), format!("{name}.{}.svc", pool_meta.namespace()), format!("{name}.{}.svc.cluster.local", pool_meta.namespace())];
        let covers = |host: &str| hosts.iter().any(|own| own == host) || host.strip_prefix('*').is_some_and(|suffix| hosts.iter().any(|own| own.ends_with(suffix)));
        let ruled = rules.iter().any(|rule| {
            rule.spec.as_ref().is_none_or(|spec| spec.host.as_deref().is_none_or(covers) && spec.traffic_policy.as_ref().is_none_or(|policy| {
                policy.tls.as_ref().is_none_or(|tls| tls.mode.as_deref().is_none_or(|mode| mode != "DISABLE"))
            }))
        });
        if !speaks_tls || ruled {
            return None;
        }
        let finding = Finding::new("Service", meta(service.metadata.as_ref()).path(), "its pods speak TLS, and Istio calls them in plain text: requests get 500")
            .evidence(format!("no DestinationRule with tls for host {name}"))
            .remedy(format!(
                "kubectl apply -f - <<'END'\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec:\n  host: {name}.{namespace}.svc.cluster.local\n  trafficPolicy: {{tls: {{mode: SIMPLE, insecureSkipVerify: true}}}}\nEND",
                namespace = pool_meta.namespace()
            ));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}
