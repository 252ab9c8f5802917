//! Simple requests to a small model, complex ones to a large one. Pure.
//!
//! A request is complex where it is long, where it has gone back and forth often, or where a user's words have a keyword in them;
//! the first of these that holds is the reason. The keywords of one message stay in the conversation, so that one that became complex
//! stays with its model, and with its prefix in that model's cache.

mod keywords;
mod prompt;

use std::path::PathBuf;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::keywords::Keywords;
use self::prompt::{Fields, Prompt};
use crate::text::no_header_value;

/// The keywords of a rule that names none.
pub const KEYWORDS: [&str; 11] = [
    "refactor",
    "architect",
    "design",
    "analyze",
    "optimize",
    "debug",
    "migration",
    "complex",
    "performance",
    "security",
    "review",
];
/// Fields of a body that the classifier reads, in the order of [`Classifier::classify`]'s argument.
pub const FIELDS: [&str; 5] = ["messages", "prompt", "input", "system", "instructions"];

/// A rule of the section `classifier` of a file of rules.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClassRule {
    /// What metrics and the debug header call it.
    pub name: String,
    /// The models, by effective name, whose requests it is for; empty: every one.
    #[serde(default)]
    pub models: Vec<String>,
    /// The model of simple requests.
    pub simple: String,
    /// The model of complex ones.
    pub complex: String,
    /// Words that make a request complex; [`KEYWORDS`] where they are absent.
    #[serde(default = "default_keywords")]
    pub keywords: Vec<String>,
    /// Files with more of them, one a line, beside the file of rules.
    #[serde(default)]
    pub keyword_files: Vec<PathBuf>,
    /// More tokens than these make a request complex.
    #[serde(default = "default_tokens")]
    pub tokens: u64,
    /// More messages of users than these make a request complex.
    #[serde(default = "default_turns")]
    pub turns: u64,
    /// Of how many requests in 100 the rule decides; the others keep their model.
    #[serde(default = "default_share")]
    pub share: f64,
    /// Whether the body names the chosen model, too, or the headers alone.
    #[serde(default = "yes")]
    pub rewrite_body: bool,
}

fn default_keywords() -> Vec<String> {
    KEYWORDS.map(str::to_owned).to_vec()
}

fn default_tokens() -> u64 {
    500
}

fn default_turns() -> u64 {
    5
}

fn default_share() -> f64 {
    100.0
}

fn yes() -> bool {
    true
}

impl ClassRule {
    /// Everything that is wrong with it as the rule at `position`.
    pub fn problems(&self, position: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let at = |field: &str| format!("classifier[{position}].{field}");
        let label = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(label) {
            wrong.push(format!("{}: give 1 to 64 letters, digits, `-`, `_` or `.`", at("name")));
        }
        for (field, model) in [("simple", &self.simple), ("complex", &self.complex)] {
            if model.trim().is_empty() || model.trim() != model {
                wrong.push(format!("{}: name a model, without space around it", at(field)));
            } else if let Some(problem) = no_header_value(model) {
                wrong.push(format!("{}: {problem}", at(field)));
            }
        }
        for (index, word) in self.keywords.iter().enumerate() {
            if let Some(problem) = no_header_value(word) {
                wrong.push(format!("{}: {problem}", at(&format!("keywords[{index}]"))));
            }
        }
        if !(0.0..=100.0).contains(&self.share) {
            wrong.push(format!("{}: {} is no share: give 0 to 100, of a hundred requests", at("share"), self.share));
        }
        wrong
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// For the small model.
    Simple,
    /// For the large one.
    Complex,
    /// Left as it is, for comparison.
    Control,
}

impl Class {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Simple, Self::Complex, Self::Control];

    /// As metrics and the debug header call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Complex => "complex",
            Self::Control => "control",
        }
    }
}

/// Why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason<'a> {
    /// It has so many tokens.
    Tokens(u64),
    /// It has so many messages of users.
    Turns(u64),
    /// This word is in it.
    Keyword(&'a str),
    /// None of these.
    Nothing,
    /// It is not of the rule's share.
    Share,
}

impl Reason<'_> {
    /// Every label.
    pub const LABELS: [&'static str; 5] = ["tokens", "turns", "keyword", "none", "share"];

    /// As metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tokens(_) => "tokens",
            Self::Turns(_) => "turns",
            Self::Keyword(_) => "keyword",
            Self::Nothing => "none",
            Self::Share => "share",
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'a> {
    /// The rule that said so.
    pub rule: &'a ClassRule,
    /// What the request is.
    pub class: Class,
    /// Why.
    pub reason: Reason<'a>,
}

impl Decision<'_> {
    /// The model that it is for; nothing: that which it names.
    pub fn model(&self) -> Option<&str> {
        match self.class {
            Class::Simple => Some(&self.rule.simple),
            Class::Complex => Some(&self.rule.complex),
            Class::Control => None,
        }
    }

    /// For the debug header.
    pub fn told(&self) -> String {
        let detail = match self.reason {
            Reason::Tokens(count) | Reason::Turns(count) => format!(":{count}"),
            Reason::Keyword(word) => format!(":{word}"),
            Reason::Nothing | Reason::Share => String::new(),
        };
        format!("rule={} class={} reason={}{detail}", self.rule.name, self.class.label(), self.reason.label())
    }
}

/// The rules, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: Vec<(ClassRule, Keywords)>,
}

impl Classifier {
    /// These rules, each with the words of its files.
    ///
    /// # Errors
    /// The rule whose words are too many.
    pub fn new(rules: impl IntoIterator<Item = (ClassRule, Vec<String>)>) -> Result<Self, String> {
        let compiled = rules.into_iter().enumerate().map(|(position, (rule, more))| {
            let keywords = Keywords::new(rule.keywords.iter().cloned().chain(more));
            let keywords =
                keywords.map_err(|error| format!("classifier[{position}].keywords: {error}: give fewer or shorter words"))?;
            Ok((rule, keywords))
        });
        Ok(Self { rules: compiled.collect::<Result<_, String>>()? })
    }

    /// The rules and all their keywords, for people.
    pub fn listed(&self) -> impl Iterator<Item = (&ClassRule, &[String])> {
        self.rules.iter().map(|(rule, keywords)| (rule, keywords.words()))
    }

    /// Whether there is any rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the first rule for `model` says of a request with these [`FIELDS`]; nothing where there is none. `rng` draws who is of its
    /// share.
    pub fn classify(&self, model: &str, fields: &[Option<&RawValue>], rng: &mut dyn Rng) -> Option<Decision<'_>> {
        let is_for = |rule: &ClassRule| rule.models.is_empty() || rule.models.iter().any(|known| known == model);
        let (rule, keywords) = self.rules.iter().find(|(rule, _)| is_for(rule))?;
        if rule.share < 100.0 && rng.random_range(0.0..100.0) >= rule.share {
            return Some(Decision { rule, class: Class::Control, reason: Reason::Share });
        }
        let field = |at: usize| fields.get(at).copied().flatten();
        let fields = Fields { messages: field(0), prompt: field(1), input: field(2), system: field(3), instructions: field(4) };
        let prompt = Prompt::read(fields);
        // What costs least first: long texts are not searched.
        let (class, reason) = if prompt.tokens() > rule.tokens {
            (Class::Complex, Reason::Tokens(prompt.tokens()))
        } else if prompt.turns > rule.turns {
            (Class::Complex, Reason::Turns(prompt.turns))
        } else {
            match keywords.first_in(&prompt.words) {
                Some(word) => (Class::Complex, Reason::Keyword(word)),
                None => (Class::Simple, Reason::Nothing),
            }
        };
        Some(Decision { rule, class, reason })
    }
}

#[cfg(test)]
mod tests;
