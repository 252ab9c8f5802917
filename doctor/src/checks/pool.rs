//! Pools that are none.

use crate::facts::Facts;
use crate::facts::meta::{condition, labels_shown};
use crate::facts::workload::{Pod, Workload};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{OLD_POOL_GROUP, POOL_GROUP, has_all, meta, path, pool_backends};

pub(crate) static CRD_MISSING: Check = Check {
    code: "crd-missing",
    title: "The API server does not know InferencePools",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Neither group of InferencePools is installed: no pool can exist, and gateways and pickers wait for it in silence.",
    elsewhere: Elsewhere::Told { log: true, metric: r#"weir_kubernetes_watch_errors_total{reason="absent"}"# },
    needs: &["pools", "oldPools"],
    run: crd_missing,
};

pub(crate) static CRD_OLD: Check = Check {
    code: "crd-old",
    title: "Routes point to v1 pools, and only v1alpha2 is installed",
    severity: Severity::Error,
    family: Family::Pool,
    about: "`inference.networking.k8s.io/v1` has a CRD of its own: without it those routes have no backend and get 500.",
    elsewhere: Elsewhere::Outside("the older version is served as well, and weir reads it: only a newer gateway misses it."),
    needs: &["pools", "oldPools", "routes"],
    run: crd_old,
};

pub(crate) static NO_PODS: Check = Check {
    code: "pool-no-pods",
    title: "A pool selects no pod",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Requests get 503, and every metric of the pool is 0. Its selector must be among the labels of the pods' *template*; a pool \
            selects in its own namespace only. A Deployment that is at 0 replicas on purpose is no error.",
    elsewhere: Elsewhere::Told { log: false, metric: "inference_pool_ready_pods" },
    needs: &["pools", "pods"],
    run: no_pods,
};

pub(crate) static REFUSED_BY_GATEWAY: Check = Check {
    code: "pool-refused-by-gateway",
    title: "A gateway refuses a pool",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The pool's status names the gateway and the cause. `InvalidExtensionRef`: the picker's Service is missing, of type \
            ExternalName, or the reference's kind or port is not good.",
    elsewhere: Elsewhere::Outside("weir reads no Gateways and no routes: only whoever looks at them sees it."),
    needs: &["pools"],
    run: refused_by_gateway,
};

fn crd_missing(facts: &Facts) -> Vec<Finding> {
    if !(facts.pools.not_served() && facts.old_pools.not_served()) {
        return Vec::new();
    }
    let finding =
        Finding::new("CustomResourceDefinition", format!("inferencepools.{POOL_GROUP}"), "is not installed: no pool can exist")
            .evidence(format!("the API server serves neither {POOL_GROUP}/v1 nor {OLD_POOL_GROUP}/v1alpha2"))
            .remedy("kubectl apply -f the CRDs of the Gateway API Inference Extension (config/crd of its release)");
    vec![finding]
}

fn crd_old(facts: &Facts) -> Vec<Finding> {
    if !facts.pools.not_served() || facts.old_pools.not_served() {
        return Vec::new();
    }
    let new = facts.routes.iter().find(|route| pool_backends(route).any(|(_, group, ..)| group == POOL_GROUP));
    let Some(route) = new else { return Vec::new() };
    let finding = Finding::new(
        "CustomResourceDefinition",
        format!("inferencepools.{POOL_GROUP}"),
        "is not installed, but routes point to such pools",
    )
    .evidence(format!("HTTPRoute {} has a backend of group {POOL_GROUP}", meta(route.metadata.as_ref()).path()))
    .remedy(format!("install the CRDs of the Inference Extension v1, or write group: {OLD_POOL_GROUP} in the route's backendRefs"));
    vec![finding]
}

fn no_pods(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let wanted = pool.spec.as_ref()?.selector.as_ref()?.labels()?;
        let pods = facts.pods.all_in(pool_meta.namespace())?;
        let here: Vec<_> = pods.iter().filter(|pod| pod.meta().namespace() == pool_meta.namespace() && pod.counts()).collect();
        // A pod whose labels are not known may be the one.
        let selected = |pod: &&Pod| pod.meta().labels.as_ref().is_none_or(|labels| has_all(labels, &wanted));
        if here.iter().any(selected) {
            return None;
        }
        // What makes its pods may be at zero on purpose; one of which too little is known may be that.
        facts.deployments.all_in(pool_meta.namespace())?;
        facts.stateful_sets.all_in(pool_meta.namespace())?;
        facts.leader_worker_sets.all_in(pool_meta.namespace())?;
        let in_the_dark = |workload: &Workload| {
            let here = meta(workload.metadata.as_ref()).namespace() == pool_meta.namespace();
            let makes_them = workload.pod_labels().is_none_or(|labels| has_all(labels, &wanted));
            here && makes_them
                && (workload.pod_labels().is_none() || workload.spec.as_ref().is_none_or(|spec| spec.replicas.is_none()))
        };
        if facts.workloads().any(|(_, workload)| in_the_dark(workload)) {
            return None;
        }
        let workloads = facts.workloads_of(pool);
        if workloads.iter().any(|(_, workload)| workload.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)) {
            return None;
        }
        let remedy = match workloads.first() {
            Some((kind, workload)) => {
                let workload = meta(workload.metadata.as_ref());
                format!("kubectl -n {} describe {} {}", pool_meta.namespace(), kind.to_lowercase(), workload.name())
            }
            None => {
                let near =
                    here.iter().filter_map(|pod| pod.meta().labels.as_ref().map(|labels| (pod, labels))).find(|(pod, labels)| {
                        // A picker beside the pool is none of its servers.
                        let is_picker = pod.flag("pool-name").or_else(|| pod.flag("poolName")).is_some();
                        !is_picker
                            && (wanted.iter().any(|(key, value)| labels.get(key).is_some_and(|own| own != value))
                                || wanted.values().any(|value| labels.values().any(|own| own == value)))
                    });
                match near {
                    Some((pod, labels)) => format!(
                        "spec.selector: the labels of a pod template; pod {} has {}",
                        pod.meta().name(),
                        labels_shown(labels)
                    ),
                    None => format!(
                        "kubectl -n {} get pods --show-labels; then set spec.selector to labels of the servers' pod template",
                        pool_meta.namespace()
                    ),
                }
            }
        };
        let finding = Finding::new("InferencePool", pool_meta.path(), "selects no pod: requests get 503").evidence(format!(
            "no pod of namespace {} has {}",
            pool_meta.namespace(),
            labels_shown(&wanted)
        ));
        Some(finding.remedy(remedy).pool(pool_meta.path()))
    });
    found.collect()
}

fn refused_by_gateway(facts: &Facts) -> Vec<Finding> {
    let found = facts.every_pool().filter_map(|pool| {
        let pool_meta = meta(pool.metadata.as_ref());
        let parents = pool.status.as_ref()?.parents.as_ref()?;
        let (parent, refused) = parents.iter().find_map(|parent| {
            let conditions = parent.conditions.as_ref();
            Some((parent, condition(conditions, "Accepted", "False").or_else(|| condition(conditions, "ResolvedRefs", "False"))?))
        })?;
        // That the Service is missing is another finding.
        if facts.picker_service(pool).is_none()
            && refused.is("ResolvedRefs", "False")
            && facts.services.all_in(pool_meta.namespace()).is_some()
        {
            return None;
        }
        let who = parent.parent_ref.as_ref().and_then(|parent| parent.name.as_deref()).unwrap_or("?");
        let finding = Finding::new("InferencePool", path(pool), format!("is refused by Gateway {who}"))
            .evidence(format!("{} is False: {}", refused.r#type.as_deref().unwrap_or(""), refused.told()))
            .remedy(format!(
                "kubectl -n {} get inferencepool {} -o yaml; look at endpointPickerRef",
                pool_meta.namespace(),
                pool_meta.name()
            ));
        Some(finding.pool(path(pool)))
    });
    found.collect()
}
