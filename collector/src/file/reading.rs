//! Reading fields off a tree, collecting what is wrong on the way.

use std::borrow::Cow;

use serde_saphyr::Location;

use super::node::{Node, Placed};
use super::problem::Problem;

/// Where a field that stands at the wrong place belongs.
const BELONGS: [(&str, &str); 22] = [
    ("path", "a pool's `metrics`"),
    ("scheme", "a pool's `metrics`"),
    ("families", "a pool's `metrics`"),
    ("restrict", "a pool's `metrics`"),
    ("signal", "a family of `metrics.families`"),
    ("combine", "a family of `metrics.families`"),
    ("caFile", "a pool's `metrics`"),
    ("serverName", "a pool's `metrics`"),
    ("insecureSkipVerify", "a pool's `metrics`"),
    ("bearerTokenFile", "a pool's `metrics`"),
    ("daily", "a pool's `required`"),
    ("recurring", "a pool's `required`"),
    ("spares", "a pool's `required`"),
    ("utilisation", "a pool's `required`"),
    ("address", "an endpoint"),
    ("pod", "an endpoint"),
    ("labels", "an endpoint"),
    ("url", "a picker"),
    ("engine", "a pool"),
    ("endpoints", "a pool"),
    ("pickers", "a pool"),
    ("pools", "the top of the file"),
];

/// The source being read and what was found wrong with it.
pub(super) struct Reading<'source> {
    source: &'source str,
    pub(super) problems: Vec<Problem>,
}

/// A value and how it is reached.
#[derive(Clone)]
pub(super) struct Value<'tree> {
    node: &'tree Placed,
    pub(super) path: String,
}

/// The fields of a mapping.
pub(super) struct Fields<'tree> {
    entries: &'tree [(serde_saphyr::Spanned<String>, Placed)],
    at: Location,
    path: String,
}

impl<'source> Reading<'source> {
    pub(super) fn new(source: &'source str) -> Self {
        Self { source, problems: Vec::new() }
    }

    fn add(&mut self, at: Location, field: &str, message: String) {
        let (line, column) = (at.line(), at.column());
        self.problems.push(Problem { line, column, field: field.to_owned(), message, outside: false });
    }

    /// Something is wrong with `value`.
    pub(super) fn refuse(&mut self, value: &Value<'_>, message: impl Into<String>) {
        self.add(value.node.referenced, &value.path, message.into());
    }

    /// Something is wrong with a file that `value` names.
    pub(super) fn refuse_outside(&mut self, value: &Value<'_>, message: impl Into<String>) {
        self.refuse(value, message);
        if let Some(problem) = self.problems.last_mut() {
            problem.outside = true;
        }
    }

    /// The problems by place; none is there twice.
    pub(super) fn sorted(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems.dedup();
        self.problems
    }

    fn expect<T>(&mut self, value: &Value<'_>, expected: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            let message = match value.node.value {
                Node::Nothing => format!("is empty: write {expected}"),
                ref other => format!("is {}: write {expected}", other.kind()),
            };
            self.refuse(value, message);
        }
        found
    }

    /// The text of a scalar, as it was written: `1.10` stays `1.10`.
    pub(super) fn text<'tree>(&mut self, value: &Value<'tree>, expected: &str) -> Option<Cow<'tree, str>>
    where
        'source: 'tree,
    {
        let text = match &value.node.value {
            Node::Text(text) => Some(Cow::Borrowed(text.as_str())),
            Node::Number(text) => Some(self.written(value).map_or(Cow::Borrowed(text.as_str()), Cow::Borrowed)),
            Node::Boolean(boolean) => {
                let name = if *boolean { "true" } else { "false" };
                Some(Cow::Borrowed(self.written(value).unwrap_or(name)))
            }
            _ => None,
        };
        self.expect(value, expected, text)
    }

    fn written(&self, value: &Value<'_>) -> Option<&'source str> {
        let span = value.node.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let length = usize::try_from(span.byte_len()?).ok()?;
        self.source.get(start..start.checked_add(length)?).filter(|text| !text.is_empty())
    }

    pub(super) fn boolean(&mut self, value: &Value<'_>) -> Option<bool> {
        let boolean = match value.node.value {
            Node::Boolean(boolean) => Some(boolean),
            _ => None,
        };
        self.expect(value, "true or false", boolean)
    }

    pub(super) fn list<'tree>(&mut self, value: &Value<'tree>, expected: &str) -> Option<Vec<Value<'tree>>> {
        let elements = match &value.node.value {
            Node::List(elements) => {
                let place = |(index, node)| Value { node, path: format!("{}[{index}]", value.path) };
                Some(elements.iter().enumerate().map(place).collect())
            }
            _ => None,
        };
        self.expect(value, expected, elements)
    }

    /// The entries of a mapping whose keys are anybody's.
    pub(super) fn entries<'tree>(&mut self, value: &Value<'tree>, expected: &str) -> Option<Vec<(&'tree str, Value<'tree>)>> {
        let entries = match &value.node.value {
            Node::Map(entries) => {
                let place = |(key, node): &'tree (serde_saphyr::Spanned<String>, Placed)| {
                    (key.value.as_str(), Value { node, path: format!("{}.{}", value.path, key.value) })
                };
                Some(entries.iter().map(place).collect())
            }
            _ => None,
        };
        self.expect(value, expected, entries)
    }

    /// The fields of a mapping, of which `known` are all there may be.
    pub(super) fn fields<'tree>(&mut self, value: &Value<'tree>, expected: &str, known: &[&str]) -> Option<Fields<'tree>> {
        let entries = match &value.node.value {
            Node::Map(entries) => Some(entries.as_slice()),
            _ => None,
        };
        let entries = self.expect(value, expected, entries)?;
        let fields = Fields { entries, at: value.node.referenced, path: value.path.clone() };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            let path = fields.path_of(&key.value);
            self.add(key.referenced, &path, unknown_field(&key.value, known));
        }
        Some(fields)
    }

    /// A field that must be there.
    pub(super) fn required<'tree>(&mut self, fields: &Fields<'tree>, name: &str, hint: &str) -> Option<Value<'tree>> {
        let value = fields.get(name);
        if value.is_none() {
            self.add(fields.at, &fields.path_of(name), format!("is missing: {hint}"));
        }
        value
    }
}

impl<'tree> Value<'tree> {
    pub(super) fn root(node: &'tree Placed) -> Self {
        Self { node, path: String::new() }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Node::Map(_))
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.node.value, Node::Nothing)
    }

    pub(super) fn line(&self) -> u64 {
        self.node.referenced.line()
    }
}

impl<'tree> Fields<'tree> {
    pub(super) fn get(&self, name: &str) -> Option<Value<'tree>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.value == name)?;
        Some(Value { node, path: self.path_of(name) })
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

fn unknown_field(name: &str, known: &[&str]) -> String {
    if let Some((_, place)) = BELONGS.iter().find(|(field, _)| *field == name) {
        return format!("does not belong here, but to {place}");
    }
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', '_'], "");
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(&plain(name), &plain(candidate));
    // A name can be anything, also very long.
    let nearest = if name.len() > 64 { None } else { known.iter().min_by_key(distance) };
    match nearest {
        Some(nearest) if distance(&nearest) <= nearest.len() / 3 => format!("unknown field: did you mean `{nearest}`?"),
        _ => format!("unknown field: there are {}", known.join(", ")),
    }
}
