//! From a body to the headers that a gateway routes on. Pure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use serde_json::value::RawValue;
use tokio::time::Instant;
use weir_ext_proc::body::{self, replaced, within};
use weir_ext_proc::{Code, Refusal};

use crate::classify::{Class, FIELDS};
use crate::names::Rule;
use crate::plugin::{BASE_MODEL_HEADER, CLASSIFIER_HEADER, MODEL, PROVIDER_HEADER, Plugin};
use crate::table::Table;
use crate::text::{MOST_VALUE, no_header_value};

/// What is done with every body.
#[derive(Clone, Debug)]
pub struct Routing {
    plugins: Vec<Plugin>,
    /// The fields that are read: the model's, the classifier's, those of the plugins.
    fields: Vec<Arc<str>>,
    /// Headers that are set here and by nobody else.
    owned: Vec<Arc<str>>,
}

/// What becomes of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Headers to set.
    pub set: Vec<(Arc<str>, String)>,
    /// The body that is sent on, where it names another model.
    pub body: Option<Bytes>,
    /// What the classifier decided, for the answer.
    pub told: Option<String>,
}

/// What is worth a count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fact {
    /// A plugin's field is not there.
    Missing(Arc<str>),
    /// It is empty.
    Empty(Arc<str>),
    /// No mapping knows the model.
    UnknownModel,
    /// A rule for names had something to do.
    Named(Rule),
    /// The classifier decided.
    Classified {
        /// By this rule.
        rule: String,
        /// That it is this.
        class: Class,
        /// For this reason.
        reason: &'static str,
    },
    /// The body names another model.
    Rewritten,
    /// A plugin took so long.
    Ran {
        /// Which, by its place.
        plugin: usize,
        /// How long.
        took: Duration,
    },
}

impl Routing {
    /// With these plugins, in their order.
    pub fn new(plugins: Vec<Plugin>) -> Self {
        let mut fields: Vec<Arc<str>> = [MODEL].into_iter().chain(FIELDS).map(Arc::from).collect();
        let mut owned: Vec<Arc<str>> = vec![PROVIDER_HEADER.into(), CLASSIFIER_HEADER.into()];
        for plugin in &plugins {
            owned.push(plugin.header().into());
            if let Plugin::FieldToHeader { field, .. } = plugin
                && !fields.contains(field)
            {
                fields.push(field.clone());
            }
        }
        Self { plugins, fields, owned }
    }

    /// The plugins.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// Headers that are set here and by nobody else, in lower case: what a client sends under these names counts for nothing.
    pub fn owned(&self) -> &[Arc<str>] {
        &self.owned
    }

    /// What becomes of a request with this body. `rng` draws the classifier's shares.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object, or a value that cannot be a header's.
    pub fn decide(
        &self,
        bytes: &Bytes,
        table: &Table,
        rng: &mut dyn Rng,
        clock: &dyn Fn() -> Instant,
        facts: &mut Vec<Fact>,
    ) -> Result<Plan, Refusal> {
        let names: Vec<&str> = self.fields.iter().map(|field| &**field).collect();
        let found =
            body::fields(bytes, &names).map_err(|problem| bad_request(format!("failed to parse request body: {problem}")))?;
        let mut plan = Plan::default();
        let model = self.model(bytes, &found, table, rng, &mut plan, facts)?;
        for (position, plugin) in self.plugins.iter().enumerate() {
            let began = clock();
            if let Some(header) = run(plugin, &names, &found, model.as_deref(), table, facts)? {
                plan.set.retain(|(name, _)| *name != header.0);
                plan.set.push(header);
            }
            facts.push(Fact::Ran { plugin: position, took: clock().saturating_duration_since(began) });
        }
        Ok(plan)
    }

    /// The model that the request is for, by its effective name, where it names one.
    fn model(
        &self,
        bytes: &Bytes,
        found: &[Option<&RawValue>],
        table: &Table,
        rng: &mut dyn Rng,
        plan: &mut Plan,
        facts: &mut Vec<Fact>,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let Some((Some(raw), rest)) = found.split_first().map(|(model, rest)| (*model, rest)) else { return Ok(None) };
        let Some(asked) = text(MODEL, raw)?.filter(|_| raw.get().starts_with('"')) else { return Ok(None) };
        if asked.trim().is_empty() {
            return Ok(None);
        }
        let mut model: Arc<str> = asked.as_str().into();
        // The name that the body is to have.
        let mut written = model.clone();
        if let Some(names) = &table.names {
            let effective = names.resolve(&model);
            facts.extend(effective.steps.iter().map(|step| Fact::Named(step.rule)));
            if let Some(provider) = effective.provider {
                plan.set.push((PROVIDER_HEADER.into(), provider.to_string()));
            }
            model = effective.name;
            if names.rewrite_body {
                written = model.clone();
            }
        }
        if let Some(decision) = table.classifier.classify(&model, rest, rng) {
            let (rule, reason) = (decision.rule.name.clone(), decision.reason.label());
            facts.push(Fact::Classified { rule, class: decision.class, reason });
            let told = decision.told();
            plan.set.push((CLASSIFIER_HEADER.into(), told.clone()));
            plan.told = Some(told);
            if let Some(chosen) = decision.model() {
                model = chosen.into();
                if decision.rule.rewrite_body {
                    written = model.clone();
                }
            }
        }
        if *written != *asked {
            plan.body = Some(replaced(bytes, within(raw, bytes), &written));
            facts.push(Fact::Rewritten);
        }
        Ok(Some(model))
    }
}

/// The header that `plugin` sets, if it has something to say.
fn run(
    plugin: &Plugin,
    names: &[&str],
    found: &[Option<&RawValue>],
    model: Option<&str>,
    table: &Table,
    facts: &mut Vec<Fact>,
) -> Result<Option<(Arc<str>, String)>, Refusal> {
    match plugin {
        Plugin::FieldToHeader { field, header, .. } => {
            let value = match model.filter(|_| **field == *MODEL) {
                Some(model) => Some(model.to_owned()),
                None => match names.iter().position(|name| **name == **field).and_then(|at| found.get(at).copied().flatten()) {
                    Some(raw) => text(field, raw)?,
                    None => None,
                },
            };
            match value {
                None => facts.push(Fact::Missing(field.clone())),
                Some(value) if value.trim().is_empty() => facts.push(Fact::Empty(field.clone())),
                Some(value) => return Ok(Some((header.clone(), value))),
            }
            Ok(None)
        }
        Plugin::BaseModel { .. } => {
            let base = model.map(|model| table.mappings.base_of(model));
            match base {
                None => Ok(None),
                // An empty header would match a route that asks for its presence alone.
                Some(None) => {
                    facts.push(Fact::UnknownModel);
                    Ok(None)
                }
                Some(Some(base)) => Ok(Some((BASE_MODEL_HEADER.into(), base.to_string()))),
            }
        }
    }
}

/// The text of a value that may be a header's: a string, a number, true or false; nothing of any other.
fn text(field: &str, raw: &RawValue) -> Result<Option<String>, Refusal> {
    let no_text = || {
        bad_request(format!("the value of `{field}` is no text of at most {MOST_VALUE} bytes, the most that goes into a header"))
    };
    let value = match raw.get().as_bytes().first() {
        Some(b'"') => body::string(raw, MOST_VALUE).ok_or_else(no_text)?.to_string(),
        Some(b'{' | b'[' | b'n') | None => return Ok(None),
        Some(_) if raw.get().len() > MOST_VALUE => return Err(no_text()),
        Some(_) => raw.get().to_owned(),
    };
    match no_header_value(&value) {
        Some(problem) => Err(bad_request(format!("the value of `{field}` {problem}"))),
        None => Ok(Some(value)),
    }
}

/// 400 with this text.
pub(crate) fn bad_request(message: String) -> Refusal {
    Refusal { code: Code::BadRequest, message, reason: None, retry_after: None }
}

#[cfg(test)]
mod tests;
