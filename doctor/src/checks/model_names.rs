//! Names of models that the servers do not know.

use std::collections::BTreeSet;

use crate::facts::Facts;
use crate::facts::pool::Pool;
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::{meta, path};

pub(crate) static UNKNOWN: Check = Check {
    code: "model-unknown",
    title: "A model's name is unknown to the servers",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Requests are rewritten or routed to a name that `/v1/models` of the servers does not list: they get 404. A server that \
            answers 401 or 403 there has not said which names it knows; that is no finding.",
    elsewhere: Elsewhere::Outside("names are the client's: whether one was meant otherwise is seen only beside the servers' own."),
    needs: &["pools", "pods", "servedModels", "rewrites", "models", "routes"],
    run: unknown,
};

pub(crate) static PREFIX: Check = Check {
    code: "model-name-prefix",
    title: "A model's name has a prefix too many, or one too few",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Clients and routers write providers before a name (`openai/…`, `hosted_vllm/…`), some twice, and servers know it without: \
            requests get 404. Serve it under that name too (`--served-model-name A B`), or rewrite it.",
    elsewhere: Elsewhere::Outside("names are the client's: whether one was meant otherwise is seen only beside the servers' own."),
    needs: &["pools", "pods", "servedModels", "rewrites", "models", "routes"],
    run: prefix,
};

pub(crate) static SPELLING: Check = Check {
    code: "model-name-spelling",
    title: "A model's name is spelled otherwise than by the servers",
    severity: Severity::Error,
    family: Family::Pool,
    about: "Names are compared letter by letter: `Llama-3.1-8B` is not `llama-3.1-8b`, nor `llama-3-1-8b`, as Kubernetes names and some \
            routers have it. Requests get 404.",
    elsewhere: Elsewhere::Outside("names are the client's: whether one was meant otherwise is seen only beside the servers' own."),
    needs: &["pools", "pods", "servedModels", "rewrites", "models", "routes"],
    run: spelling,
};

/// What is the matter with a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trouble {
    Unknown,
    Prefix,
    Spelling,
}

/// Compares letters and digits only.
fn normal(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|character| character.to_ascii_lowercase()).collect()
}

/// What is wrong with `name` where servers know `known`, and the name that is probably meant.
fn judge<'known>(name: &str, known: &BTreeSet<&'known str>) -> Option<(Trouble, Option<&'known str>)> {
    if known.contains(name) {
        return None;
    }
    let without = known.iter().find(|known| {
        name.strip_suffix(**known).is_some_and(|rest| rest.ends_with('/'))
            || known.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'))
    });
    if let Some(without) = without {
        return Some((Trouble::Prefix, Some(without)));
    }
    if let Some(same) = known.iter().find(|known| normal(known) == normal(name)) {
        return Some((Trouble::Spelling, Some(same)));
    }
    let near = known.iter().find(|known| strsim::normalized_damerau_levenshtein(known, name) > 0.75);
    Some((Trouble::Unknown, near.copied()))
}

/// The names that the servers of `pool` know; none unless every Ready one has said so.
fn known<'facts>(facts: &'facts Facts, pool: &Pool) -> Option<BTreeSet<&'facts str>> {
    let mut known = BTreeSet::new();
    let mut said = 0;
    for pod in facts.pods_of(pool) {
        let meta = pod.meta();
        let answers = facts
            .served_models
            .iter()
            .filter(|answer| answer.namespace.as_deref() == Some(meta.namespace()) && answer.pod.as_deref() == Some(meta.name()));
        let mut answered = false;
        for answer in answers {
            // 401 says nothing about names.
            if answer.status == Some(200)
                && let Some(ids) = &answer.ids
            {
                known.extend(ids.iter().map(String::as_str));
                answered = true;
            }
        }
        match (answered, pod.ready()) {
            (true, _) => said += 1,
            (false, Some(false)) => {}
            (false, _) => return None,
        }
    }
    (said > 0).then_some(known)
}

/// Names that users wrote for `pool`: kind, path, field, name.
fn written(facts: &Facts, pool: &Pool) -> Vec<(&'static str, String, &'static str, String)> {
    let pool_meta = meta(pool.metadata.as_ref());
    let mut written = Vec::new();
    for rewrite in facts.rewrites.iter() {
        let (own, Some(spec)) = (meta(rewrite.metadata.as_ref()), &rewrite.spec) else { continue };
        let its = spec.pool_ref.as_ref().and_then(|reference| reference.name.as_deref()) == Some(pool_meta.name());
        if its && own.namespace() == pool_meta.namespace() {
            let targets = spec
                .rules
                .iter()
                .flatten()
                .flat_map(|rule| rule.targets.iter().flatten())
                .filter_map(|target| target.model_rewrite.clone());
            written.extend(targets.map(|name| ("InferenceModelRewrite", own.path(), "spec.rules[].targets[].modelRewrite", name)));
        }
    }
    for model in facts.models.iter() {
        let (own, Some(spec)) = (meta(model.metadata.as_ref()), &model.spec) else { continue };
        let its = spec.pool_ref.as_ref().and_then(|reference| reference.name.as_deref()) == Some(pool_meta.name());
        if its && own.namespace() == pool_meta.namespace() {
            let targets: Vec<_> = spec.target_models.iter().flatten().filter_map(|target| target.name.clone()).collect();
            let (field, names) = match (&spec.target_models, &spec.model_name) {
                (None, Some(name)) => ("spec.modelName", vec![name.clone()]),
                _ => ("spec.targetModels[].name", targets),
            };
            written.extend(names.into_iter().map(|name| ("InferenceModel", own.path(), field, name)));
        }
    }
    // Where something rewrites names, those that a route matches on are not those that servers see.
    let rewritten = facts.rewrites.iter().any(|rewrite| meta(rewrite.metadata.as_ref()).namespace() == pool_meta.namespace())
        || facts.models.iter().next().is_some();
    let can_rewrite =
        facts.rewrites.all_in(pool_meta.namespace()).is_none() || facts.models.all_in(pool_meta.namespace()).is_none();
    if rewritten || can_rewrite {
        return written;
    }
    for route in facts.routes.iter() {
        let own = meta(route.metadata.as_ref());
        for rule in route.spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
            let points_here = rule.backend_refs.iter().flatten().any(|backend| {
                crate::look::pool_group(backend).is_some()
                    && backend
                        .name
                        .as_deref()
                        .is_some_and(|name| pool_meta.is(backend.namespace.as_deref().unwrap_or(own.namespace()), name))
            });
            if !points_here {
                continue;
            }
            let headers = rule.matches.iter().flatten().flat_map(|one| one.headers.iter().flatten());
            let exact = headers.filter(|header| {
                header.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("x-gateway-model-name"))
                    && header.r#type.as_deref().is_none_or(|kind| kind == "Exact")
            });
            written.extend(
                exact
                    .filter_map(|header| header.value.clone())
                    .map(|name| ("HTTPRoute", own.path(), "spec.rules[].matches[].headers[].value", name)),
            );
        }
    }
    written
}

fn find(facts: &Facts, wanted: Trouble) -> Vec<Finding> {
    let mut found = Vec::new();
    for pool in facts.every_pool() {
        let Some(known) = known(facts, pool) else { continue };
        for (kind, object, field, name) in written(facts, pool) {
            let Some((trouble, meant)) = judge(&name, &known) else { continue };
            if trouble != wanted {
                continue;
            }
            let mut names: Vec<_> = known.iter().copied().take(8).collect();
            if known.len() > names.len() {
                names.push("…");
            }
            let remedy = match meant {
                Some(meant) => format!("{field}: {meant}"),
                None => format!("{field}: one of the names that the servers know, or --served-model-name {name} at the servers"),
            };
            let finding = Finding::new(
                kind,
                object,
                format!("names model {name}, which the servers of the pool do not know: requests get 404"),
            )
            .evidence(format!("/v1/models lists {}", if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }));
            found.push(finding.remedy(remedy).pool(path(pool)));
        }
    }
    found
}

fn unknown(facts: &Facts) -> Vec<Finding> {
    find(facts, Trouble::Unknown)
}

fn prefix(facts: &Facts) -> Vec<Finding> {
    find(facts, Trouble::Prefix)
}

fn spelling(facts: &Facts) -> Vec<Finding> {
    find(facts, Trouble::Spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_by_what_differs() {
        let known = BTreeSet::from(["meta-llama/Llama-3.1-8B", "qwen"]);
        assert_eq!(judge("qwen", &known), None);
        for (name, trouble, meant) in [
            ("openai/qwen", Trouble::Prefix, Some("qwen")),
            ("meta-llama/meta-llama/Llama-3.1-8B", Trouble::Prefix, Some("meta-llama/Llama-3.1-8B")),
            ("Llama-3.1-8B", Trouble::Prefix, Some("meta-llama/Llama-3.1-8B")),
            ("meta-llama-llama-3-1-8b", Trouble::Spelling, Some("meta-llama/Llama-3.1-8B")),
            ("Qwen", Trouble::Spelling, Some("qwen")),
            ("mistral", Trouble::Unknown, None),
            ("meta-llama/Llama-3.2-8B", Trouble::Unknown, Some("meta-llama/Llama-3.1-8B")),
        ] {
            assert_eq!(judge(name, &known), Some((trouble, meant)), "{name}");
        }
    }
}
