//! YAML as a tree in which everything knows its place, so that all that is wrong can be told at once, each with line and field.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, Options, Spanned};

use super::problem::Problem;

/// A file of 10,000 endpoints with pods and a few labels each has about this many nodes.
const MOST_NODES: usize = 300_000;
/// Nodes that aliases may bring in, together.
const MOST_REPLAYED: usize = 200_000;
/// The format needs six levels.
const DEEPEST: usize = 16;

/// A node with its place.
pub(super) type Placed = Spanned<Node>;

#[derive(Debug)]
pub(super) enum Node {
    Nothing,
    /// A boolean in YAML's sense; what was written is in the source.
    Boolean(bool),
    /// A number; as YAML reads it, what was written is in the source.
    Number(String),
    Text(String),
    List(Vec<Placed>),
    Map(Vec<(Spanned<String>, Placed)>),
}

impl Node {
    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The tree of `source`.
pub(super) fn parse(source: &str) -> Result<Placed, Box<Problem>> {
    serde_saphyr::from_str_with_options(source, options()).map_err(|error| Box::new(problem(&error)))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MOST_NODES,
            max_depth: DEEPEST,
            // One set of labels may serve every endpoint; what matters is how much aliases bring in, which is limited below.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPLAYED },
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

fn problem(error: &Error) -> Problem {
    let error = error.without_snippet();
    let location = error.location();
    let (line, column) = location.map_or((1, 1), |location| (location.line(), location.column()));
    // What goes wrong inside an alias is told where the alias stands.
    let cause = match error {
        Error::AliasError { error, .. } => error.without_snippet(),
        other => other,
    };
    let message = match cause {
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => format!(
            "too deep, too many parts, or aliases that stand for too much (at most {DEEPEST} levels, {MOST_NODES} parts, {MOST_REPLAYED} of them by aliases): write it out, or split the file"
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "an anchor that holds an alias of itself: write it out".to_owned(),
        Error::UnknownAnchor { .. } => {
            "an alias (`*name`) of an anchor that is not defined: quote the text if `*` is part of it".to_owned()
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is here a second time: remove one"),
        Error::MultipleDocuments { .. } => "a second YAML document begins here: one file holds one list of pools".to_owned(),
        Error::Unexpected { expected: "string scalar", .. } | Error::NullIntoString { .. } => {
            "a key must be text: write `name: value`".to_owned()
        }
        _ => {
            // The sentence comes with its place at the end, which the problem already has.
            let text = error.to_string();
            let suffix = format!(" at line {line}, column {column}");
            let text = text.strip_suffix(&suffix).unwrap_or(&text);
            format!("not YAML: {text}: check indentation, quotes and brackets here and on the line before")
        }
    };
    Problem { line, column, field: String::new(), message, outside: false }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
