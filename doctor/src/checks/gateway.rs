//! Gateways that take no requests.

use crate::facts::Facts;
use crate::facts::meta::condition;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::meta;

pub(crate) static NOT_PROGRAMMED: Check = Check {
    code: "gateway-not-programmed",
    title: "A Gateway is not Programmed",
    severity: Severity::Error,
    family: Family::Route,
    about: "No request comes in: the controller has not set the gateway up, or there is none for its class. Its condition names the \
            cause: an address that cannot be had, a listener's certificate, a class that nobody serves.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["gateways"],
    run: not_programmed,
};

fn not_programmed(facts: &Facts) -> Vec<Finding> {
    let found = facts.gateways.iter().filter_map(|gateway| {
        let conditions = gateway.status.as_ref()?.conditions.as_ref()?;
        let meta = meta(gateway.metadata.as_ref());
        let class = gateway.spec.as_ref().and_then(|spec| spec.gateway_class_name.as_deref()).unwrap_or("?");
        let refused = |kind: &str| ["False", "Unknown"].iter().find_map(|status| condition(Some(conditions), kind, status));
        let wrong = refused("Accepted").or_else(|| refused("Programmed"))?;
        let finding = Finding::new("Gateway", meta.path(), "takes no requests")
            .evidence(format!("{} is {}: {}", wrong.r#type.as_deref().unwrap_or(""), wrong.status.as_deref().unwrap_or(""), wrong.told()))
            .remedy(format!(
                "kubectl -n {} describe gateway {}; is a controller running for the class? kubectl get gatewayclass {class} -o yaml",
                meta.namespace(),
                meta.name()
            ));
        Some(finding)
    });
    found.collect()
}
