//! What is not known is never taken for what is not there.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::world::World;
use crate::{CHECKS, Facts, examine};

/// Maps whose keys are the users' own: to leave one out is another fact, not an unknown one.
const OWN_KEYS: [&str; 6] = ["matchLabels", "labels", "annotations", "selector", "requests", "allocatable"];

/// Paths of all fields that may be left out.
fn fields(value: &Value, path: &str, own_keys: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                if !own_keys {
                    found.push(path.clone());
                }
                // A Service's selector is labels, a pool's or monitor's has a form.
                let labels =
                    OWN_KEYS.contains(&key.as_str()) && value.as_object().is_some_and(|inner| inner.values().all(Value::is_string));
                fields(value, &path, labels, found);
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(position, item)| fields(item, &format!("{path}/{position}"), false, found))
        }
        _ => {}
    }
}

fn without(value: &mut Value, path: &str) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    if let Some(Value::Object(entries)) = value.pointer_mut(parent) {
        entries.remove(&key.replace("~1", "/").replace("~0", "~"));
    }
}

/// Where leaving something out says something in Kubernetes: a field whose absence is a value of its own.
fn says_something_by_absence(path: &str) -> bool {
    [
        // The route's own namespace; the default of a behaviour.
        "/parentRefs/0/namespace",
        "/backendRefs/0/namespace",
        "/spec/behavior",
        "/spec/behavior/scaleDown",
        "/spec/behavior/scaleDown/stabilizationWindowSeconds",
        // Asked for by an annotation, or not.
        "/annotations",
        // A plugin without a name is called by its type.
        "/plugins/1/name",
        "/version",
    ]
    .iter()
    .any(|end| path.ends_with(end))
}

#[test]
fn each_field_may_be_missing_from_a_healthy_world() {
    let healthy = World::healthy().0;
    let mut paths = Vec::new();
    fields(&healthy, "", false, &mut paths);
    assert!(paths.len() > 500, "{}", paths.len());
    let mut wrong = Vec::new();
    for path in paths.iter().filter(|path| !says_something_by_absence(path)) {
        let mut world = healthy.clone();
        without(&mut world, path);
        let found = World(world).codes();
        if !found.is_empty() {
            wrong.push(format!("without {path}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}

#[test]
fn without_facts_nothing_is_found_and_all_is_said_to_be_unknown() {
    let facts = Facts::parse("version: 1").unwrap();
    let examination = examine(&facts);
    assert!(examination.findings.is_empty(), "{:?}", examination.findings);
    assert_eq!(examination.not_known.len(), facts.states().len());
    assert_eq!(examination.pools, 0);
}

#[test]
fn needs_are_kinds_of_facts_and_each_kind_says_whom_it_serves() {
    let known: Vec<_> = Facts::default().states().into_iter().map(|(name, _)| name).collect();
    for check in CHECKS {
        assert!(!check.needs.is_empty(), "{}", check.code);
        for need in check.needs {
            assert!(known.contains(need), "{}: {need}", check.code);
        }
    }
    let record = serde_json::to_value(Facts::default()).unwrap();
    let in_record: Vec<_> =
        record.as_object().unwrap().keys().filter(|key| record[key.as_str()].is_object()).map(String::as_str).collect();
    assert_eq!(
        {
            let mut known = known.clone();
            known.sort_unstable();
            known
        },
        {
            let mut own = in_record;
            own.sort_unstable();
            own
        }
    );
}

/// Any subset of the fields of a broken or healthy world.
fn thinned(value: &Value, keep: &mut impl FnMut() -> bool) -> Value {
    match value {
        Value::Object(entries) => {
            let mut kept = Map::new();
            for (key, value) in entries {
                if key == "version" || key == "items" || keep() {
                    kept.insert(key.clone(), thinned(value, keep));
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| thinned(item, keep)).collect()),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_panics_whatever_is_missing(bits in proptest::collection::vec(any::<u8>(), 200..400), share in 1_u8..255) {
        let mut bits = bits.into_iter().cycle();
        let world = thinned(&World::healthy().0, &mut || bits.next().is_some_and(|bit| bit <= share));
        let facts: Facts = serde_json::from_value(world).unwrap();
        examine(&facts);
    }
}
