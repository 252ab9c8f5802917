//! YAML as a tree in which everything knows its line, and a reader that collects all that is wrong.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::needs::Place;
use super::problem::Problem;

pub(super) type Placed = Spanned<Node>;
pub(super) type Entry = (Spanned<String>, Placed);

#[derive(Debug)]
pub(super) enum Node {
    Nothing,
    Boolean(bool),
    Number(f64),
    Text(String),
    List(Vec<Placed>),
    Map(Vec<Entry>),
}

/// The tree of `source`.
pub(super) fn parse(source: &str) -> Result<Placed, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 20_000, max_depth: 16 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(source, options).map_err(|error| {
        let location = error.location();
        let (line, column) = location.map_or((1, 1), |location| (location.line(), location.column()));
        let text = error.without_snippet().to_string();
        let text = text.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&text);
        Problem { line, column, field: String::new(), message: format!("not YAML: {text}: check indentation, quotes and brackets") }
    })
}

impl Node {
    fn kind(&self) -> &'static str {
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
        Ok(Node::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        if value.is_finite() { Ok(Node::Number(value)) } else { Err(E::custom("a number must be finite")) }
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map: Vec<Entry> = Vec::new();
        while let Some(entry) = entries.next_entry::<Spanned<String>, Placed>()? {
            if map.iter().any(|(key, _)| key.value == entry.0.value) {
                return Err(A::Error::custom(format!("`{}` is here a second time", entry.0.value)));
            }
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

/// A value and how it is reached.
#[derive(Clone, Debug)]
pub(super) struct Value<'tree> {
    pub(super) node: &'tree Placed,
    pub(super) path: String,
}

impl Value<'_> {
    pub(super) fn place(&self) -> Place {
        Place { at: self.node.referenced, field: self.path.clone() }
    }
}

/// What was found wrong.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) problems: Vec<Problem>,
}

impl Reading {
    pub(super) fn refuse(&mut self, value: &Value<'_>, message: impl Into<String>) {
        self.refuse_at(value.node.referenced, &value.path, message.into());
    }

    pub(super) fn refuse_at(&mut self, at: Location, field: &str, message: String) {
        self.problems.push(Problem { line: at.line(), column: at.column(), field: field.to_owned(), message });
    }

    fn expected(&mut self, value: &Value<'_>, expected: &str) {
        self.refuse(value, format!("is {}: write {expected}", value.node.value.kind()));
    }

    pub(super) fn text<'tree>(&mut self, value: &Value<'tree>, expected: &str) -> Option<&'tree str> {
        if let Node::Text(text) = &value.node.value {
            return Some(text);
        }
        self.expected(value, expected);
        None
    }

    pub(super) fn number(&mut self, value: &Value<'_>, expected: &str) -> Option<f64> {
        if let Node::Number(number) = value.node.value {
            return Some(number);
        }
        self.expected(value, expected);
        None
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>) -> Option<bool> {
        if let Node::Boolean(boolean) = value.node.value {
            return Some(boolean);
        }
        self.expected(value, "true or false");
        None
    }

    /// The elements of a list; none of nothing.
    pub(super) fn list<'tree>(&mut self, value: &Value<'tree>, expected: &str) -> Vec<Value<'tree>> {
        match &value.node.value {
            Node::List(elements) => {
                let place = |(index, node)| Value { node, path: format!("{}[{index}]", value.path) };
                return elements.iter().enumerate().map(place).collect();
            }
            Node::Nothing => {}
            _ => self.expected(value, expected),
        }
        Vec::new()
    }

    /// The fields of a mapping, of which `known` are all there may be; `None` where it is none.
    pub(super) fn fields<'tree>(&mut self, value: &Value<'tree>, expected: &str, known: &[&str]) -> Option<Fields<'tree>> {
        let Some(fields) = Fields::of(value) else {
            self.expected(value, expected);
            return None;
        };
        for (key, _) in fields.entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            let message = format!("unknown field{}", did_you_mean(&key.value, known.iter().copied()));
            self.refuse_at(key.referenced, &fields.path_of(&key.value), message);
        }
        Some(fields)
    }
}

/// The fields of a mapping.
#[derive(Debug)]
pub(super) struct Fields<'tree> {
    pub(super) entries: &'tree [Entry],
    pub(super) at: Location,
    path: String,
}

impl<'tree> Fields<'tree> {
    /// The fields of a mapping, whatever they are; none where `value` is none.
    pub(super) fn of(value: &Value<'tree>) -> Option<Self> {
        let Node::Map(entries) = &value.node.value else { return None };
        Some(Self { entries, at: value.node.referenced, path: value.path.clone() })
    }

    pub(super) fn get(&self, name: &str) -> Option<Value<'tree>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.value == name)?;
        Some(Value { node, path: self.path_of(name) })
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The end of a message about `name`: the nearest of `known`, or all of them.
pub(super) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', '_'], "");
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&plain(name), &plain(candidate));
    // A name can be anything, also very long.
    let nearest = if name.len() > 64 { None } else { known.clone().min_by_key(distance) };
    match nearest {
        Some(nearest) if distance(&nearest) <= nearest.len() / 3 => format!(": did you mean `{nearest}`?"),
        _ => match known.collect::<Vec<_>>().as_slice() {
            [] => ": there is none to choose from".to_owned(),
            known => format!(": there are {}", known.join(", ")),
        },
    }
}
