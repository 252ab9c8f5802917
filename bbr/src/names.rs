//! The name under which servers know the model that a client asks for. Pure.
//!
//! Clients and gateways write one model in several ways: with the name of a provider before it (`openai/glm-5`), with that name twice,
//! with other separators (`glm5`), or by an alias. [`Names::resolve`] goes through the rules until none has anything to do, and tells
//! each step. Resolving what it gives changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::{folded, no_header_value};

/// Characters that differ between ways of writing a name, unless a rule says which do.
const SEPARATORS: &str = "-_. ";
/// Near names that are told.
const NEAR: usize = 3;
/// How like a name must be (Jaro–Winkler, 0 to 1).
const LIKENESS: f64 = 0.8;

/// The section `names` of a file of rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NameRules {
    /// Names as servers list them. They are never changed, and what is near one by [`NameRules::normalise`] becomes it.
    pub models: Vec<String>,
    /// What is done with the names of providers before a model's.
    pub prefixes: Vec<PrefixRule>,
    /// Other names of models.
    pub aliases: BTreeMap<String, String>,
    /// How names that differ in writing alone are found to be the same; not at all where it is absent.
    pub normalise: Option<Normalise>,
    /// Whether the body names the model by its effective name, too, or the headers alone.
    pub rewrite_body: bool,
}

impl Default for NameRules {
    fn default() -> Self {
        Self { models: Vec::new(), prefixes: Vec::new(), aliases: BTreeMap::new(), normalise: None, rewrite_body: true }
    }
}

/// A provider's name before a model's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixRule {
    /// `openai` for `openai/…`, in any case.
    pub prefix: String,
    /// What is done with it.
    #[serde(default)]
    pub action: PrefixAction,
}

/// What is done with a prefix.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PrefixAction {
    /// It is taken away, as often as it stands there, until what remains is a name that is known.
    #[default]
    Strip,
    /// It stays, and the header `x-gateway-model-provider` tells it, to route on.
    Route,
}

/// What does not count in a name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Normalise {
    /// These characters.
    pub ignore: String,
    /// Capitals and small letters are the same.
    pub any_case: bool,
}

impl Default for Normalise {
    fn default() -> Self {
        Self { ignore: SEPARATORS.to_owned(), any_case: true }
    }
}

impl Normalise {
    fn key(&self, name: &str) -> String {
        let name = if self.any_case { folded(name) } else { name.to_owned() };
        name.chars().filter(|letter| !self.ignore.contains(*letter)).collect()
    }
}

/// The rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Names {
    aliases: HashMap<Arc<str>, Arc<str>>,
    known: HashSet<Arc<str>>,
    /// What is written alike; none where two names are.
    alike: HashMap<String, Option<Arc<str>>>,
    normalise: Option<Normalise>,
    /// The longest first.
    prefixes: Vec<(Arc<str>, PrefixAction)>,
    /// Whether bodies name the effective name.
    pub rewrite_body: bool,
}

/// What a name comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Effective {
    /// The name.
    pub name: Arc<str>,
    /// The provider that it begins with, where a rule routes on it.
    pub provider: Option<Arc<str>>,
    /// How it came to that.
    pub steps: Vec<Step>,
}

/// One rule's doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Which.
    pub rule: Rule,
    /// What of the rule: a prefix, an alias.
    pub detail: Arc<str>,
    /// The name after it.
    pub name: Arc<str>,
}

/// A kind of rule.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Rule {
    /// Space around the name went.
    Trim,
    /// Another name of a model.
    Alias,
    /// A provider's name went.
    Strip,
    /// A provider's name is routed on.
    Route,
    /// Written in another way.
    Normalise,
    /// Written like two names that are known: neither is taken.
    Ambiguous,
}

impl Rule {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Trim, Self::Alias, Self::Strip, Self::Route, Self::Normalise, Self::Ambiguous];

    /// As metrics and `weir names test` call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Alias => "alias",
            Self::Strip => "strip",
            Self::Route => "route",
            Self::Normalise => "normalise",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<10} {:<24} {}", self.rule.label(), self.detail, self.name)
    }
}

impl NameRules {
    /// Everything that is wrong, each with its field and the way out.
    pub fn problems(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut name = |field: String, name: &str| {
            if name.trim().is_empty() {
                wrong.push(format!("{field}: a name is missing"));
            } else if name.trim() != name {
                wrong.push(format!("{field}: `{}` has space around it", name.escape_debug()));
            } else if let Some(problem) = no_header_value(name) {
                wrong.push(format!("{field}: `{}` {problem}", short(name)));
            }
        };
        for (position, model) in self.models.iter().enumerate() {
            name(format!("names.models[{position}]"), model);
        }
        for (alias, target) in &self.aliases {
            name(format!("names.aliases, the name of `{}`", short(target)), alias);
            name(format!("names.aliases.{}", short(alias)), target);
        }
        for (position, rule) in self.prefixes.iter().enumerate() {
            name(format!("names.prefixes[{position}].prefix"), &rule.prefix);
        }
        for (position, rule) in self.prefixes.iter().enumerate() {
            if rule.prefix.ends_with('/') {
                wrong.push(format!("names.prefixes[{position}].prefix: `{}`: write it without the last /", short(&rule.prefix)));
            }
            if self.prefixes[..position].iter().any(|before| before.prefix.eq_ignore_ascii_case(&rule.prefix)) {
                wrong.push(format!("names.prefixes[{position}].prefix: `{}` is there twice", short(&rule.prefix)));
            }
        }
        for alias in self.aliases.keys() {
            if self.models.contains(alias) {
                wrong.push(format!("names.aliases.{}: is one of names.models too: it can be one of both", short(alias)));
            }
            if self.end_of(alias).is_none() {
                wrong.push(format!("names.aliases.{}: leads back to itself: name a model that is no alias", short(alias)));
            }
        }
        wrong
    }

    /// Where a chain of aliases ends; nothing if it does not.
    fn end_of<'a>(&'a self, alias: &'a str) -> Option<&'a str> {
        let mut at = alias;
        // A chain that ends has no alias twice.
        for _ in 0..=self.aliases.len() {
            match self.aliases.get(at) {
                Some(next) => at = next,
                None => return Some(at),
            }
        }
        None
    }
}

/// A name as an error repeats it.
fn short(name: &str) -> String {
    name.chars().take(64).collect::<String>().escape_debug().to_string()
}

impl Names {
    /// These rules, in which `more` names are known as well.
    pub fn new<'a>(rules: &'a NameRules, more: impl IntoIterator<Item = &'a str>) -> Self {
        let aliases: HashMap<Arc<str>, Arc<str>> =
            rules.aliases.keys().filter_map(|alias| Some((alias.as_str().into(), rules.end_of(alias)?.into()))).collect();
        let models = rules.models.iter().map(String::as_str).chain(more).map(Arc::<str>::from);
        let known: HashSet<Arc<str>> = models.chain(aliases.values().cloned()).collect();
        let mut alike: HashMap<String, Option<Arc<str>>> = HashMap::new();
        if let Some(normalise) = &rules.normalise {
            for name in known.iter().chain(aliases.keys()) {
                let entry = alike.entry(normalise.key(name)).or_insert_with(|| Some(name.clone()));
                if entry.as_ref() != Some(name) {
                    *entry = None;
                }
            }
        }
        let mut prefixes: Vec<_> = rules.prefixes.iter().map(|rule| (Arc::from(rule.prefix.as_str()), rule.action)).collect();
        prefixes.sort_by_key(|(prefix, _): &(Arc<str>, _)| std::cmp::Reverse(prefix.len()));
        Self { aliases, known, alike, normalise: rules.normalise.clone(), prefixes, rewrite_body: rules.rewrite_body }
    }

    /// What `asked` comes to.
    pub fn resolve(&self, asked: &str) -> Effective {
        let mut name = asked.trim();
        let mut steps = Vec::new();
        let mut step = |rule, detail: &str, name: &str| steps.push(Step { rule, detail: detail.into(), name: name.into() });
        if name != asked {
            step(Rule::Trim, "", name);
        }
        let mut provider = None;
        // Ends: an alias is the last step, a normalised name is an alias or known, and every other step makes the name shorter.
        loop {
            if let Some(target) = self.aliases.get(name) {
                step(Rule::Alias, name, target);
                name = target;
                break;
            }
            if self.known.contains(name) {
                break;
            }
            match self.alike_to(name) {
                Some(Some(known)) => {
                    step(Rule::Normalise, "", known);
                    name = known;
                    continue;
                }
                Some(None) => step(Rule::Ambiguous, "", name),
                None => {}
            }
            let Some((prefix, action, rest)) = self.prefix_of(name) else { break };
            match action {
                PrefixAction::Strip => {
                    step(Rule::Strip, prefix, rest);
                    name = rest;
                }
                PrefixAction::Route => {
                    step(Rule::Route, prefix, name);
                    provider = Some(prefix.clone());
                    break;
                }
            }
        }
        Effective { name: name.into(), provider, steps }
    }

    /// The known name that is written like `name`, none in it where there are two.
    fn alike_to(&self, name: &str) -> Option<Option<&str>> {
        let key = self.normalise.as_ref()?.key(name);
        Some(self.alike.get(&key)?.as_deref())
    }

    fn prefix_of<'name>(&self, name: &'name str) -> Option<(&Arc<str>, PrefixAction, &'name str)> {
        self.prefixes.iter().find_map(|(prefix, action)| {
            let (first, rest) = name.split_at_checked(prefix.len())?;
            let rest = rest.strip_prefix('/').map(str::trim_start).filter(|rest| !rest.is_empty())?;
            first.eq_ignore_ascii_case(prefix).then_some((prefix, *action, rest))
        })
    }

    /// Whether a rule or a mapping names this model.
    pub fn knows(&self, name: &str) -> bool {
        self.known.contains(name)
    }

    /// Whether any model is known by name.
    pub fn knows_any(&self) -> bool {
        !self.known.is_empty()
    }

    /// The known names that are most like `name`, the most like first.
    pub fn near(&self, name: &str) -> Vec<&str> {
        let asked = folded(name);
        let like = |known: &str| strsim::jaro_winkler(&folded(known), &asked);
        let mut near: Vec<(f64, &str)> = self.known.iter().map(|known| (like(known), &**known)).collect();
        near.retain(|(likeness, _)| *likeness >= LIKENESS);
        near.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
        near.into_iter().take(NEAR).map(|(_, known)| known).collect()
    }
}

#[cfg(test)]
mod tests;
