//! All that is in force at a moment: the rules of the file, and the mappings of the cluster.

use serde_json::{Value, json};

use crate::classify::Classifier;
use crate::mapping::{Mappings, Source};
use crate::names::Names;
use crate::rules::Loaded;

/// Rules and mappings, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What models are called; nothing: names are taken as they come.
    pub names: Option<Names>,
    /// Which base model an adapter is of.
    pub mappings: Mappings,
    /// Which of two models a request is for.
    pub classifier: Classifier,
    effective: Value,
}

impl Table {
    /// Of the file's rules and the cluster's mappings. What these name is known to the rules for names.
    pub fn new(loaded: &Loaded, cluster: &[Source]) -> Self {
        let mappings = Mappings::new(loaded.rules.sources().chain(cluster.iter().cloned()).collect());
        let names = loaded.rules.names.as_ref().map(|rules| Names::new(rules, mappings.models()));
        let keywords = |(rule, words): (&crate::classify::ClassRule, &[String])| {
            let mut shown = json!(rule);
            if let Some(shown) = shown.as_object_mut() {
                shown.remove("keywordFiles");
                shown.insert("keywords".to_owned(), json!(words));
            }
            shown
        };
        let classifier = loaded.classifier.clone();
        let effective = json!({
            "names": loaded.rules.names,
            "mappings": mappings.listed(),
            "conflicts": mappings.conflicts,
            "classifier": classifier.listed().map(keywords).collect::<Vec<_>>(),
        });
        Self { names, mappings, classifier, effective }
    }

    /// All of it, for people.
    pub fn effective(&self) -> &Value {
        &self.effective
    }
}
