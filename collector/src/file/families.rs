//! The families that a pool names itself.

use std::collections::BTreeMap;

use weir_datastore::LoadSignal;
use weir_datastore::engine::{CustomFamily, Several};

use super::reading::{Reading, Value};

/// Families of one pool.
const MOST_FAMILIES: usize = 32;
/// The longest name of a metric or a label, in bytes.
const LONGEST_NAME: usize = 255;

const SIGNALS: [(&str, LoadSignal); 3] =
    [("running", LoadSignal::Running), ("waiting", LoadSignal::Waiting), ("kv_cache_utilization", LoadSignal::KvCacheUtilization)];
const WAYS: [(&str, Several); 3] = [("sum", Several::Sum), ("mean", Several::Mean), ("max", Several::Max)];

/// The list at `value`.
pub(super) fn read(reading: &mut Reading<'_>, value: &Value<'_>) -> Vec<CustomFamily> {
    let list = reading.list(value, "a list of families, each with `signal` and `name`");
    if list.as_ref().is_some_and(Vec::is_empty) {
        reading.refuse(value, "is empty: leave it out, or write a family with `signal` and `name`");
    }
    let list = list.unwrap_or_default();
    if let Some(first_too_many) = list.get(MOST_FAMILIES) {
        reading.refuse(first_too_many, format!("more than {MOST_FAMILIES} families: three signals need fewer"));
    }
    let mut families: Vec<(u64, CustomFamily)> = Vec::new();
    for value in list.iter().take(MOST_FAMILIES) {
        let Some(family) = family(reading, value) else { continue };
        if let Some(clash) = families.iter().find_map(|(line, known)| clash(&family, known, *line)) {
            reading.refuse(value, clash);
        }
        families.push((value.line(), family));
    }
    families.into_iter().map(|(_, family)| family).collect()
}

fn family(reading: &mut Reading<'_>, value: &Value<'_>) -> Option<CustomFamily> {
    let fields = reading.fields(value, "a family, with `signal` and `name`", &["signal", "name", "labels", "combine"])?;
    let signal = reading.required(&fields, "signal", &format!("write {}", listed(&SIGNALS)));
    let signal = signal.and_then(|value| one_of(reading, &value, &SIGNALS));
    let name = reading.required(&fields, "name", "write the sample's name as it stands on the page");
    let name = name.and_then(|value| name_of(reading, &value));
    let labels = fields.get("labels").map(|value| labels(reading, &value));
    let combine = fields.get("combine").map(|value| one_of(reading, &value, &WAYS));
    let signal = signal?;
    let by_signal = if signal == LoadSignal::KvCacheUtilization { Several::Mean } else { Several::Sum };
    Some(CustomFamily {
        name: name?,
        labels: labels.unwrap_or_default(),
        signal,
        several: match combine {
            Some(given) => given?,
            None => by_signal,
        },
    })
}

/// Why `family` cannot stand beside `known`, which begins on `line`.
fn clash(family: &CustomFamily, known: &CustomFamily, line: u64) -> Option<String> {
    let name = &family.name;
    if family.signal == known.signal && family.labels == known.labels {
        return Some(format!(
            "the signal has a family with the same labels on line {line}: remove one, or tell them apart by `labels`"
        ));
    }
    if family.signal == known.signal && family.several != known.several {
        return Some(format!("the signal's family on line {line} combines its series in another way: write the same `combine`"));
    }
    let both_match = || known.labels.iter().all(|(label, value)| family.labels.get(label).is_none_or(|other| other == value));
    (*name == known.name && both_match()).then(|| {
        format!(
            "a series of `{name}` may belong to this family and to that on line {line}: give both one label with different values"
        )
    })
}

fn one_of<T: Copy>(reading: &mut Reading<'_>, value: &Value<'_>, known: &[(&str, T)]) -> Option<T> {
    let text = reading.text(value, &listed(known))?;
    let found = known.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        reading.refuse(value, format!("`{text}` is not known: write {}", listed(known)));
    }
    found.map(|(_, meaning)| *meaning)
}

fn listed<T>(known: &[(&str, T)]) -> String {
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    let (last, others) = names.split_last().map_or(("", &names[..]), |(last, others)| (*last, others));
    format!("{} or {last}", others.join(", "))
}

fn name_of(reading: &mut Reading<'_>, value: &Value<'_>) -> Option<String> {
    let name = reading.text(value, "the sample's name as it stands on the page")?;
    if !is_name(&name, b"_:") {
        let rule = "letters, digits, `_` and `:`, no digit first; labels stand under `labels`";
        reading.refuse(value, format!("`{}` is not a metric's name ({rule})", name.escape_debug()));
        return None;
    }
    Some(name.into_owned())
}

fn labels(reading: &mut Reading<'_>, value: &Value<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (label, value) in reading.entries(value, "labels as `name: value`").unwrap_or_default() {
        if !is_name(label, b"_") {
            let message =
                format!("`{}` is not a label of a metric (letters, digits and `_`, no digit first)", label.escape_debug());
            reading.refuse(&value, message);
        }
        if let Some(text) = reading.text(&value, "the label's value") {
            labels.insert(label.to_owned(), text.into_owned());
        }
    }
    labels
}

fn is_name(text: &str, also: &[u8]) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && !text.as_bytes()[0].is_ascii_digit()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}
