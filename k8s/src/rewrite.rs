//! InferenceModelRewrite: which model is served in place of the one that a request names.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;

use crate::field::{FieldProblem, shown};
use crate::pool::PoolVersion;
use crate::reference::{Identity, PoolReference, Reader};

/// Rules, matches of a rule, targets of a rule: what an object may hold besides is more than anyone writes by hand.
const MOST: usize = 1024;

/// An InferenceModelRewrite (`v1alpha2`), of either group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InferenceModelRewrite {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// When it was created, in seconds of Unix time.
    pub created: i64,
    /// The pool that it is for.
    pub pool: PoolReference,
    /// Its rules; the first that matches counts.
    pub rules: Vec<RewriteRule>,
}

/// A rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RewriteRule {
    /// The models that it is for; empty: every one.
    pub models: Vec<Arc<str>>,
    /// What is served instead; never empty.
    pub targets: Vec<RewriteTarget>,
}

/// A model that is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RewriteTarget {
    /// Its name.
    pub model: Arc<str>,
    /// Its share of the sum of weights, 1 to 1,000,000.
    pub weight: Option<u32>,
}

impl InferenceModelRewrite {
    /// Reads `object`.
    ///
    /// # Errors
    /// The pool and whatever is wrong with a rule: half of a rewrite would send requests to the wrong model.
    pub fn read(object: &DynamicObject) -> Result<Self, Vec<FieldProblem>> {
        let mut reader = Reader::new(object);
        let pool = reader.pool(PoolVersion::V1);
        let mut rules = Vec::new();
        let list = reader.spec["rules"].as_array();
        for (position, value) in list.into_iter().flatten().enumerate().take(MOST) {
            let field = format!("spec.rules[{position}]");
            let models = models(&mut reader, &field, &value["matches"]);
            let targets = targets(&mut reader, &field, &value["targets"]);
            rules.push(RewriteRule { models, targets });
        }
        match list {
            None => reader.wrong("spec.rules", "no rules: write at least one with `targets`"),
            Some(list) if list.len() > MOST => {
                reader.wrong("spec.rules", format!("{} rules: at most {MOST}", list.len()));
            }
            Some(_) => {}
        }
        let (Some(pool), true) = (pool, reader.problems.is_empty()) else { return Err(reader.problems) };
        let Identity { namespace, name, created } = Identity::of(object);
        Ok(Self { namespace, name, created, pool, rules })
    }
}

fn models(reader: &mut Reader<'_>, rule: &str, value: &Value) -> Vec<Arc<str>> {
    let field = format!("{rule}.matches");
    let Some(list) = list(reader, &field, value) else { return Vec::new() };
    let mut models = Vec::with_capacity(list.len());
    for (position, entry) in list.iter().enumerate() {
        let model = &entry["model"];
        match &model["type"] {
            Value::Null => {}
            Value::String(kind) if kind == "Exact" => {}
            other => {
                let message = format!("{} is not known: write Exact", shown(other));
                reader.wrong(format!("{field}[{position}].model.type"), message);
            }
        }
        models.extend(reader.text(&format!("{field}[{position}].model.value"), &model["value"], "a model's name"));
    }
    models
}

fn targets(reader: &mut Reader<'_>, rule: &str, value: &Value) -> Vec<RewriteTarget> {
    let field = format!("{rule}.targets");
    let Some(list) = list(reader, &field, value).filter(|list| !list.is_empty()) else {
        return reader.refuse(field, "names no model: write `- modelRewrite: NAME`").unwrap_or_default();
    };
    let mut targets = Vec::with_capacity(list.len());
    for (position, entry) in list.iter().enumerate() {
        let model =
            reader.text(&format!("{field}[{position}].modelRewrite"), &entry["modelRewrite"], "a model that the servers have");
        let weight = reader.weight(&format!("{field}[{position}].weight"), &entry["weight"]);
        if let (Some(model), Ok(weight)) = (model, weight) {
            targets.push(RewriteTarget { model, weight });
        }
    }
    targets
}

fn list<'value>(reader: &mut Reader<'_>, field: &str, value: &'value Value) -> Option<&'value Vec<Value>> {
    match value {
        Value::Null => None,
        Value::Array(list) if list.len() <= MOST => Some(list),
        Value::Array(list) => reader.refuse(field, format!("{} entries: at most {MOST}", list.len())),
        other => reader.refuse(field, format!("{} is no list", shown(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: Value) -> Result<InferenceModelRewrite, Vec<String>> {
        let object = json!({ "metadata": { "name": "r", "namespace": "n" }, "spec": spec });
        let object = serde_json::from_value(object).unwrap();
        InferenceModelRewrite::read(&object).map_err(|problems| problems.iter().map(FieldProblem::to_string).collect())
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let rules = json!([
            { "matches": [{ "model": { "value": "gpt" } }, { "model": { "type": "Exact", "value": "claude" } }],
              "targets": [{ "modelRewrite": "llama", "weight": 2 }] },
            { "targets": [{ "modelRewrite": "qwen" }] },
        ]);
        let rewrite = read(json!({ "poolRef": { "name": "p" }, "rules": rules })).unwrap();
        assert_eq!(rewrite.rules[0].models, [Arc::from("gpt"), "claude".into()]);
        assert_eq!(rewrite.rules[0].targets, [RewriteTarget { model: "llama".into(), weight: Some(2) }]);
        assert!(rewrite.rules[1].models.is_empty() && rewrite.rules[1].targets[0].weight.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let rule = |rule: Value| json!({ "poolRef": { "name": "p" }, "rules": [rule] });
        let target = json!([{ "modelRewrite": "x" }]);
        for (spec, expected) in [
            (json!({ "poolRef": { "name": "p" } }), "spec.rules: no rules"),
            (json!({ "rules": [{ "targets": target }] }), "spec.poolRef.name: no name"),
            (rule(json!({})), "spec.rules[0].targets: names no model"),
            (rule(json!({ "targets": 7 })), "spec.rules[0].targets: `7` is no list"),
            (rule(json!({ "targets": [{ "modelRewrite": 7 }] })), "spec.rules[0].targets[0].modelRewrite: `7` is no text"),
            (rule(json!({ "targets": [{ "modelRewrite": "x", "weight": -1 }] })), "targets[0].weight: `-1` is no weight"),
            (rule(json!({ "targets": target, "matches": [{ "model": {} }] })), "spec.rules[0].matches[0].model.value: nothing"),
            (
                rule(json!({ "targets": target, "matches": [{ "model": { "type": "Regex", "value": "x" } }] })),
                "spec.rules[0].matches[0].model.type: `Regex` is not known",
            ),
        ] {
            let problems = read(spec.clone()).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{spec}: {problems:?}");
        }
    }
}
