//! A plugin's parameters: each is asked for by name, with bounds and default; what nobody asked for is refused.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_saphyr::Location;

use super::yaml::{Fields, Reading, Value, did_you_mean};

/// The parameters of one plugin.
pub(super) struct Parameters<'reading, 'tree> {
    reading: &'reading mut Reading,
    fields: Option<Fields<'tree>>,
    /// Where the plugin stands, for what is missing.
    plugin: (Location, String),
    asked: Vec<&'static str>,
}

impl<'reading, 'tree> Parameters<'reading, 'tree> {
    pub(super) fn new(reading: &'reading mut Reading, fields: Option<Fields<'tree>>, plugin: (Location, String)) -> Self {
        Self { reading, fields, plugin, asked: Vec::new() }
    }

    /// Whether any was given.
    pub(super) fn any(&self) -> bool {
        self.fields.as_ref().is_some_and(|fields| !fields.entries.is_empty())
    }

    fn ask(&mut self, name: &'static str) -> Option<Value<'tree>> {
        self.asked.push(name);
        self.fields.as_ref().and_then(|fields| fields.get(name))
    }

    /// A whole number within `range`.
    pub(super) fn whole(&mut self, name: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let Some(value) = self.ask(name) else { return default };
        let (least, most) = (*range.start(), *range.end());
        let expected = format!("a whole number from {least} to {most}");
        match self.reading.number(&value, &expected) {
            Some(number) if number.fract() == 0.0 && (least as f64..=most as f64).contains(&number) => number as usize,
            Some(number) => {
                self.reading.refuse(&value, format!("{number}: write {expected}"));
                default
            }
            None => default,
        }
    }

    /// A number that is `allowed`.
    pub(super) fn real(&mut self, name: &'static str, default: f64, allowed: impl Fn(f64) -> bool, expected: &str) -> f64 {
        let Some(value) = self.ask(name) else { return default };
        match self.reading.number(&value, expected) {
            Some(number) if allowed(number) => number,
            Some(number) => {
                self.reading.refuse(&value, format!("{number}: write {expected}"));
                default
            }
            None => default,
        }
    }

    /// Whatever `read` makes of a value that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Reading, &Value<'tree>) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.ask(name) else {
            let (at, path) = &self.plugin;
            self.reading.refuse_at(*at, &format!("{path}.{name}"), "is missing".to_owned());
            return None;
        };
        read(self.reading, &value)
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.ask(name).and_then(|value| self.reading.boolean(&value)).unwrap_or(default)
    }

    /// A time above zero, as `200ms`.
    pub(super) fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.ask(name)?;
        let text = self.reading.text(&value, "a time such as 200ms")?;
        match humantime::parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            _ => {
                self.reading.refuse(&value, format!("`{text}`: write a time above zero, such as 200ms"));
                None
            }
        }
    }

    /// One of upstream's values that weir has; the others of upstream's are not built yet.
    pub(super) fn choice(&mut self, name: &'static str, built: &[&str], not_built: &[&str]) {
        let Some(value) = self.ask(name) else { return };
        match self.reading.text(&value, built.first().copied().unwrap_or_default()) {
            Some(text) if not_built.contains(&text) => self.reading.refuse(&value, format!("not built yet: `{text}`")),
            Some(text) if !built.contains(&text) => {
                let way_out = did_you_mean(text, built.iter().chain(not_built).copied());
                self.reading.refuse(&value, format!("`{text}` is not known{way_out}"));
            }
            _ => {}
        }
    }

    /// A parameter that there is upstream and not here.
    pub(super) fn refused(&mut self, name: &'static str, why: &str) {
        if let Some(value) = self.ask(name) {
            self.reading.refuse(&value, why);
        }
    }

    /// Refuses what nobody asked for.
    pub(super) fn finish(self) {
        let Some(fields) = self.fields else { return };
        for (key, _) in fields.entries.iter().filter(|(key, _)| !self.asked.contains(&key.value.as_str())) {
            let message = match self.asked.as_slice() {
                [] => "unknown parameter: this plugin has none".to_owned(),
                asked => format!("unknown parameter{}", did_you_mean(&key.value, asked.iter().copied())),
            };
            self.reading.refuse_at(key.referenced, &fields.path_of(&key.value), message);
        }
    }
}
