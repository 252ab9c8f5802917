//! Objects that speak of a pool which is not there.

use crate::facts::Facts;
use crate::facts::meta::Meta;
use crate::facts::pool::PoolReference;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::meta;

pub(crate) static OBJECTIVE_POOL_MISSING: Check = Check {
    code: "objective-pool-missing",
    title: "An objective, rewrite or model is for a pool that does not exist",
    severity: Severity::Warning,
    family: Family::Pool,
    about: "It counts for no request: the priority is never given, the name never rewritten. It must be in the pool's namespace, and its \
            `poolRef.name` the pool's.",
    elsewhere: Elsewhere::Outside("a picker knows its own pool alone: an objective of another one may be right."),
    needs: &["pools", "oldPools", "objectives", "rewrites", "models"],
    run: pool_missing,
};

fn pool_missing(facts: &Facts) -> Vec<Finding> {
    let objectives = facts
        .objectives
        .iter()
        .map(|one| ("InferenceObjective", one.metadata.as_ref(), one.spec.as_ref().and_then(|spec| spec.pool_ref.as_ref())));
    let rewrites = facts
        .rewrites
        .iter()
        .map(|one| ("InferenceModelRewrite", one.metadata.as_ref(), one.spec.as_ref().and_then(|spec| spec.pool_ref.as_ref())));
    let models = facts
        .models
        .iter()
        .map(|one| ("InferenceModel", one.metadata.as_ref(), one.spec.as_ref().and_then(|spec| spec.pool_ref.as_ref())));
    objectives
        .chain(rewrites)
        .chain(models)
        .filter_map(|(kind, metadata, reference)| of(facts, kind, meta(metadata), reference?))
        .collect()
}

fn of(facts: &Facts, kind: &str, own: &Meta, reference: &PoolReference) -> Option<Finding> {
    let name = reference.name.as_deref()?;
    if own.namespace.is_none() || facts.has_pool(own.namespace(), name) != Some(false) {
        return None;
    }
    let candidates = || facts.every_pool().map(|pool| meta(pool.metadata.as_ref()));
    let near = candidates()
        .find(|meta| meta.namespace() == own.namespace() && strsim::normalized_damerau_levenshtein(meta.name(), name) > 0.6);
    let elsewhere = candidates().find(|meta| meta.name() == name);
    let remedy = match (near, elsewhere) {
        (Some(near), _) => format!("spec.poolRef.name: {}", near.name()),
        (None, Some(elsewhere)) => {
            format!("metadata.namespace: {} (an object speaks of pools of its own namespace)", elsewhere.namespace())
        }
        (None, None) => format!("kubectl -n {} get inferencepools; then spec.poolRef.name of one of them", own.namespace()),
    };
    let finding = Finding::new(kind, own.path(), "is for a pool that does not exist: it counts for no request");
    Some(
        finding
            .evidence(format!("there is no InferencePool {}/{name}", own.namespace()))
            .remedy(remedy)
            .pool(format!("{}/{name}", own.namespace())),
    )
}
