//! A plugin's parameters: each is asked for by name, with bounds and default; what nobody asked for is refused.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use serde_saphyr::Location;

use super::needs::{Needs, Place, Reference};
use super::yaml::{Fields, Reading, Value, did_you_mean};
use crate::scheduling::{LabelFact, NoteBit};

/// The parameters of one plugin, or of a part of one.
pub(in crate::scheduling) struct Parameters<'reading, 'tree> {
    reading: &'reading mut Reading,
    needs: &'reading mut Needs,
    fields: Option<Fields<'tree>>,
    /// Where they are, or would be.
    at: Location,
    path: String,
    asked: Vec<&'static str>,
    /// What is in force: as given, or the default.
    effective: Map<String, Json>,
    llm_d: bool,
}

impl<'reading, 'tree> Parameters<'reading, 'tree> {
    pub(super) fn new(
        reading: &'reading mut Reading,
        needs: &'reading mut Needs,
        fields: Option<Fields<'tree>>,
        (at, path): (Location, String),
        llm_d: bool,
    ) -> Self {
        Self { reading, needs, fields, at, path, asked: Vec::new(), effective: Map::new(), llm_d }
    }

    /// Whether the configuration is of llm-d's group, so that defaults are those of its newest; else they are those of v1.5.0.
    pub(in crate::scheduling) fn llm_d(&self) -> bool {
        self.llm_d
    }

    /// Whether any was given.
    pub(super) fn any(&self) -> bool {
        self.fields.as_ref().is_some_and(|fields| !fields.entries.is_empty())
    }

    /// Whether this one was given.
    pub(in crate::scheduling) fn given(&self, name: &str) -> bool {
        self.fields.as_ref().is_some_and(|fields| fields.get(name).is_some())
    }

    /// What the plugin needs of whoever runs it.
    pub(in crate::scheduling) fn needs(&mut self) -> &mut Needs {
        self.needs
    }

    /// The position of what `fact` reads among an endpoint's facts.
    pub(in crate::scheduling) fn fact(&mut self, fact: Arc<dyn LabelFact>) -> usize {
        self.needs.fact(fact)
    }

    /// A header that requests are to carry, in lower case as it is looked up.
    pub(in crate::scheduling) fn header(&mut self, name: &str) -> Arc<str> {
        self.needs.header(name)
    }

    /// A bit of the notes.
    pub(in crate::scheduling) fn note(&mut self) -> NoteBit {
        self.needs.note().unwrap_or_else(|| {
            self.reading.refuse_at(self.at, &self.path, "is one of too many: 64 plugins can keep notes of requests".to_owned());
            NoteBit::default()
        })
    }

    fn ask(&mut self, name: &'static str) -> Option<Value<'tree>> {
        self.asked.push(name);
        self.fields.as_ref().and_then(|fields| fields.get(name))
    }

    /// A whole number within `range`.
    pub(in crate::scheduling) fn whole(&mut self, name: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let given = self.ask(name);
        let (least, most) = (*range.start(), *range.end());
        let expected = format!("a whole number from {least} to {most}");
        let number = given.and_then(|value| match self.reading.number(&value, &expected) {
            Some(number) if number.fract() == 0.0 && (least as f64..=most as f64).contains(&number) => Some(number as usize),
            Some(number) => {
                self.reading.refuse(&value, format!("{number}: write {expected}"));
                None
            }
            None => None,
        });
        self.in_force(name, number.unwrap_or(default))
    }

    /// A number that is `allowed`.
    pub(in crate::scheduling) fn real(
        &mut self,
        name: &'static str,
        default: f64,
        allowed: impl Fn(f64) -> bool,
        expected: &str,
    ) -> f64 {
        let given = self.ask(name);
        let number = given.and_then(|value| match self.reading.number(&value, expected) {
            Some(number) if allowed(number) => Some(number),
            Some(number) => {
                self.reading.refuse(&value, format!("{number}: write {expected}"));
                None
            }
            None => None,
        });
        self.in_force(name, number.unwrap_or(default))
    }

    /// Whatever `read` makes of a value that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reading, &Value<'tree>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.ask(name) else {
            self.reading.refuse_at(self.at, &format!("{}.{name}", self.path), "is missing".to_owned());
            return None;
        };
        read(self.reading, &value)
    }

    /// True or false.
    pub(in crate::scheduling) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        let given = self.ask(name).and_then(|value| self.reading.boolean(&value));
        self.in_force(name, given.unwrap_or(default))
    }

    /// A time above zero, as `200ms`.
    pub(in crate::scheduling) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.ask(name)?;
        let text = self.reading.text(&value, "a time such as 200ms")?;
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => {
                self.in_force(name, humantime::format_duration(duration).to_string());
                Some(duration)
            }
            _ => {
                self.reading.refuse(&value, format!("`{text}`: write a time above zero, such as 200ms"));
                None
            }
        }
    }

    /// A time above zero in seconds.
    pub(in crate::scheduling) fn seconds(&mut self, name: &'static str, default: u32) -> Duration {
        const LONGEST: f64 = 1e9;
        let within = |seconds: f64| seconds > 0.0 && seconds <= LONGEST;
        Duration::from_secs_f64(self.real(name, f64::from(default), within, "seconds, above 0"))
    }

    /// One of upstream's values, each with what it means here; `default` where none is given.
    pub(in crate::scheduling) fn choice<T: Copy>(&mut self, name: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = self.ask(name) else { return default };
        let names = || choices.iter().map(|(name, _)| *name);
        let Some(text) = self.reading.text(&value, names().next().unwrap_or_default()) else { return default };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((known, choice)) => {
                self.in_force(name, *known);
                *choice
            }
            None => {
                self.reading.refuse(&value, format!("`{text}` is not known{}", did_you_mean(text, names())));
                default
            }
        }
    }

    /// A text that is not empty; none where none is given.
    pub(in crate::scheduling) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.ask(name)?;
        let text = self.reading.text(&value, "a text")?.trim();
        if text.is_empty() {
            self.reading.refuse(&value, "is empty: write a text, or leave it out");
        }
        Some(self.in_force(name, text.to_owned()))
    }

    /// A text that has to be there; empty where it is not, which is told.
    pub(in crate::scheduling) fn required_text(&mut self, name: &'static str, what: &str) -> String {
        if !self.given(name) {
            self.missing(name, what);
        }
        self.text(name).unwrap_or_default()
    }

    /// A list of texts.
    pub(in crate::scheduling) fn texts(&mut self, name: &'static str) -> Vec<String> {
        let Some(value) = self.ask(name) else { return Vec::new() };
        let elements = self.reading.list(&value, "a list of texts");
        let texts: Vec<_> = elements.iter().filter_map(|element| self.reading.text(element, "a text").map(str::to_owned)).collect();
        self.in_force(name, texts)
    }

    /// Texts by their names.
    pub(in crate::scheduling) fn text_map(&mut self, name: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.ask(name) else { return Vec::new() };
        let Some(fields) = fields_of(self.reading, &value) else { return Vec::new() };
        let entries = fields.entries.iter().filter_map(|(key, _)| {
            let text = self.reading.text(&fields.get(&key.value)?, "a text")?;
            Some((key.value.clone(), text.to_owned()))
        });
        let entries: Vec<_> = entries.collect();
        self.effective
            .insert(name.to_owned(), entries.iter().map(|(key, text)| (key.clone(), Json::from(text.as_str()))).collect());
        entries
    }

    /// Parameters within parameters; where they are not given, all of them have their defaults.
    pub(in crate::scheduling) fn nested<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Parameters<'_, 'tree>) -> T) -> T {
        let given = self.ask(name);
        let (result, effective) = self.within(given, name, read);
        self.in_force(name, effective);
        result
    }

    /// A list of parameters within parameters.
    pub(in crate::scheduling) fn each<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Parameters<'_, 'tree>) -> T,
    ) -> Vec<T> {
        let elements = self.ask(name).map(|value| self.reading.list(&value, "a list")).unwrap_or_default();
        let (results, effective): (Vec<_>, Vec<_>) =
            elements.into_iter().map(|element| self.within(Some(element), name, &mut read)).unzip();
        self.in_force(name, effective);
        results
    }

    fn within<T>(
        &mut self,
        given: Option<Value<'tree>>,
        name: &str,
        read: impl FnOnce(&mut Parameters<'_, 'tree>) -> T,
    ) -> (T, Map<String, Json>) {
        let place = match &given {
            Some(value) => (value.node.referenced, value.path.clone()),
            None => (self.at, format!("{}.{name}", self.path)),
        };
        let fields = given.and_then(|value| fields_of(self.reading, &value));
        let mut inner = Parameters::new(self.reading, self.needs, fields, place, self.llm_d);
        let result = read(&mut inner);
        (result, inner.finish())
    }

    /// The name of another plugin or of a profile, with its place.
    pub(in crate::scheduling) fn reference(&mut self, name: &'static str) -> Option<(Arc<str>, Place)> {
        let value = self.ask(name)?;
        let place = Place { at: value.node.referenced, field: value.path.clone() };
        let text = self.reading.text(&value, "a name")?;
        self.in_force(name, text);
        Some((text.into(), place))
    }

    /// Where the parameter called `name` would be.
    pub(in crate::scheduling) fn place(&self, name: &str) -> Place {
        Place { at: self.at, field: format!("{}.{name}", self.path) }
    }

    /// The name of the plugin that makes the data that is read. Of each type there is one here, whatever it is called; a name that
    /// no plugin of the type has is refused.
    pub(in crate::scheduling) fn producer(&mut self, name: &'static str, kind: &'static str) {
        if let Some((name, place)) = self.reference(name) {
            self.needs.references.push(Reference { name, kind, place });
        }
    }

    /// A parameter that is understood and changes nothing here; `docs/plugins.md` says why.
    pub(in crate::scheduling) fn ignored(&mut self, name: &'static str) {
        self.asked.push(name);
    }

    /// Tells that a parameter has to be there.
    pub(in crate::scheduling) fn missing(&mut self, name: &'static str, what: &str) {
        self.asked.push(name);
        self.reading.refuse_at(self.at, &format!("{}.{name}", self.path), format!("is missing: {what}"));
    }

    /// Tells that these parameters do not fit together.
    pub(in crate::scheduling) fn contradiction(&mut self, what: String) {
        self.reading.refuse_at(self.at, &self.path, what);
    }

    /// A parameter that there is upstream and not here.
    pub(in crate::scheduling) fn refused(&mut self, name: &'static str, why: &str) {
        if let Some(value) = self.ask(name) {
            self.reading.refuse(&value, why);
        }
    }

    /// Notes the value that is used.
    fn in_force<T: Clone + Into<Json>>(&mut self, name: &str, value: T) -> T {
        self.effective.insert(name.to_owned(), value.clone().into());
        value
    }

    /// Refuses what nobody asked for. What is in force comes out.
    pub(super) fn finish(self) -> Map<String, Json> {
        let Some(fields) = self.fields else { return self.effective };
        for (key, _) in fields.entries.iter().filter(|(key, _)| !self.asked.contains(&key.value.as_str())) {
            let message = match self.asked.as_slice() {
                [] => "unknown parameter: this plugin has none".to_owned(),
                asked => format!("unknown parameter{}", did_you_mean(&key.value, asked.iter().copied())),
            };
            self.reading.refuse_at(key.referenced, &fields.path_of(&key.value), message);
        }
        self.effective
    }
}

/// The fields of a value that has to be a mapping.
pub(super) fn fields_of<'tree>(reading: &mut Reading, value: &Value<'tree>) -> Option<Fields<'tree>> {
    if matches!(value.node.value, super::yaml::Node::Nothing) {
        return None;
    }
    let fields = Fields::of(value);
    if fields.is_none() {
        reading.refuse(value, "is no mapping: write parameters as `name: value`");
    }
    fields
}
