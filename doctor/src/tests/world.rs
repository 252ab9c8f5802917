//! A world of facts that can be broken in one place.

use serde_json::{Value, json};

use crate::facts::Facts;
use crate::{Examination, examine};

const HEALTHY: &str = include_str!("healthy.yaml");

/// Facts as a tree.
#[derive(Clone, Debug)]
pub(crate) struct World(pub(super) Value);

impl World {
    pub(crate) fn healthy() -> Self {
        Self(serde_saphyr::from_str(HEALTHY).unwrap())
    }

    pub(crate) fn facts(&self) -> Facts {
        serde_json::from_value(self.0.clone()).unwrap()
    }

    pub(crate) fn examine(&self) -> Examination {
        examine(&self.facts())
    }

    /// The codes of what is found, each once, in the order of the report.
    pub(crate) fn codes(&self) -> Vec<&'static str> {
        let mut codes: Vec<_> = self.examine().findings.iter().map(|finding| finding.code).collect();
        codes.dedup();
        codes
    }

    /// Writes `value` at `path`: `pods/chat-0/status/phase`, where the second word is what an item is called.
    pub(crate) fn set(&mut self, path: &str, value: Value) -> &mut Self {
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        match self.at(parent) {
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
            listing if listing.get("items").is_some() && key != "items" => {
                let items = listing["items"].as_array_mut().unwrap();
                *items.iter_mut().find(|item| named(item, &unescaped(key))).expect(path) = value;
            }
            other => other[unescaped(key)] = value,
        }
        self
    }

    /// Takes away what is at `path`, which must be there.
    pub(crate) fn remove(&mut self, path: &str) -> &mut Self {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let removed = match self.at(parent) {
            Value::Array(items) => {
                let position =
                    key.parse().unwrap_or_else(|_| items.iter().position(|item| named(item, &unescaped(key))).expect(path));
                Some(items.remove(position))
            }
            Value::Object(fields) if fields.contains_key("items") => {
                let items = fields["items"].as_array_mut().unwrap();
                let position = items.iter().position(|item| named(item, &unescaped(key))).expect(path);
                Some(items.remove(position))
            }
            other => other.as_object_mut().unwrap().remove(&unescaped(key)),
        };
        assert!(removed.is_some(), "there is no {path}");
        self
    }

    /// Adds an item at the end of a listing or list.
    pub(crate) fn push(&mut self, path: &str, value: Value) -> &mut Self {
        let list = self.at(path);
        let list = if list.is_object() { &mut list["items"] } else { list };
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().expect(path).push(value);
        self
    }

    fn at(&mut self, path: &str) -> &mut Value {
        let mut place = &mut self.0;
        for key in path.split('/').filter(|key| !key.is_empty()) {
            let key = unescaped(key);
            let listing = place.get("items").is_some();
            place = match place {
                listed if listing => {
                    let items = listed["items"].as_array_mut().unwrap();
                    items.iter_mut().find(|item| named(item, &key)).unwrap_or_else(|| panic!("{path}"))
                }
                Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
                other => &mut other[key],
            };
        }
        place
    }
}

/// `~` stands for the slash of a key.
fn unescaped(key: &str) -> String {
    key.replace('~', "/")
}

fn named(item: &Value, name: &str) -> bool {
    ["/metadata/name", "/pod", "/source", "/name"].iter().any(|path| item.pointer(path).and_then(Value::as_str) == Some(name))
}
