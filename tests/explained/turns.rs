//! What the autoscalers' controller did, turn by turn, off the API server's audit log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Situation;

/// The account of the controller that autoscales.
const CONTROLLER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

/// Which requests the API server writes down: those of that controller to sizes.
pub(crate) fn policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Request", "users": [CONTROLLER], "verbs": ["get", "update"], "resources": [{"group": "apps", "resources": ["deployments/scale"]}]},
            {"level": "None"},
        ],
    })
    .to_string()
}

/// The log. A turn begins with the question how large the target is; where it is to be otherwise, that is written next.
pub(crate) struct Turns(PathBuf);

impl Turns {
    pub(crate) fn new(log: PathBuf) -> Self {
        Self(log)
    }

    /// Every turn by its target, and the size written in it.
    pub(crate) fn decisions(&self) -> BTreeMap<String, Vec<Option<u32>>> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let mut turns: BTreeMap<String, Vec<Option<u32>>> = BTreeMap::new();
        // The last line may still be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let target = event["objectRef"]["name"].as_str().unwrap_or_default().to_owned();
            let turns = turns.entry(target).or_default();
            match event["verb"].as_str() {
                Some("get") => turns.push(None),
                _ => {
                    let size = event.pointer("/requestObject/spec/replicas").and_then(Value::as_u64).unwrap_or_default();
                    *turns.last_mut().expect("a size is asked for before it is written") = Some(size as u32);
                }
            }
        }
        turns
    }

    /// How many turns each target has seen.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.decisions().into_iter().map(|(target, turns)| (target, turns.len())).collect()
    }

    /// Whether every target has seen so many turns of each of its autoscalers.
    pub(crate) fn at_least(&self, turns: usize, all: &[Situation]) -> Result<(), String> {
        let counts = self.counts();
        for situation in all {
            let rivals = all.iter().filter(|other| other.target == situation.target).count();
            let seen = counts.get(situation.target).copied().unwrap_or_default();
            if seen < turns * rivals {
                return Err(format!("{}: {seen} turns, not {}", situation.target, turns * rivals));
            }
        }
        Ok(())
    }
}
