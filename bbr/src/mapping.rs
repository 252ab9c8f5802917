//! Which base model an adapter is of: from ConfigMaps as upstream has them, and from the file of rules. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::no_header_value;

/// The label, with the value `true`, of the ConfigMaps that hold mappings.
pub const LABEL: &str = "inference.networking.k8s.io/bbr-managed";

/// A base model and its adapters.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// The base model.
    pub base_model: String,
    /// Its adapters.
    #[serde(default)]
    pub adapters: Vec<String>,
}

impl Mapping {
    /// Reads a ConfigMap's `data`: `baseModel`, and `adapters` as a YAML list of strings.
    ///
    /// # Errors
    /// The field that is wrong, and what to write.
    pub fn of_data(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let base = data.get("baseModel").map(|base| base.trim()).unwrap_or_default();
        if base.is_empty() {
            return Err("data.baseModel: is missing: write the name of the base model".to_owned());
        }
        let list = data.get("adapters").map(String::as_str).unwrap_or_default();
        let adapters: Option<Vec<String>> = match list.trim() {
            "" => None,
            list => serde_saphyr::from_str(list)
                .map_err(|error| format!("data.adapters: is no YAML list of names (`- my-adapter`, each on its line): {error}"))?,
        };
        let trimmed = adapters.unwrap_or_default().into_iter().map(|adapter| adapter.trim().to_owned());
        let mapping = Self { base_model: base.to_owned(), adapters: trimmed.filter(|adapter| !adapter.is_empty()).collect() };
        match mapping.problem() {
            Some(problem) => Err(format!("data.{problem}")),
            None => Ok(mapping),
        }
    }

    /// What is wrong with its names.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.base_model.trim().is_empty() {
            return Some("baseModel: is missing".to_owned());
        }
        if let Some(problem) = no_header_value(&self.base_model) {
            return Some(format!("baseModel: {problem}"));
        }
        let problem = |(position, adapter): (usize, &String)| Some(format!("adapters[{position}]: {}", no_header_value(adapter)?));
        self.adapters.iter().enumerate().find_map(problem)
    }
}

/// A mapping, and where it is from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// When its object was created, in seconds of Unix time; of a file 0.
    pub created: i64,
    /// `NAMESPACE/NAME`, or the place in a file.
    pub name: Arc<str>,
    /// What it says.
    pub mapping: Mapping,
}

/// An adapter that two mappings give to different base models.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The adapter.
    pub adapter: Arc<str>,
    /// Which mapping counts.
    pub counts: Arc<str>,
    /// Which does not.
    pub passed_over: Arc<str>,
}

/// All mappings, looked up by model.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    bases: HashSet<Arc<str>>,
    adapters: HashMap<Arc<str>, (Arc<str>, Arc<str>)>,
    /// Adapters that are in two.
    pub conflicts: Vec<Conflict>,
}

impl Mappings {
    /// Of these. An adapter in two of them is of the one created first, whichever changed last, so that every replica says the same.
    pub fn new(mut sources: Vec<Source>) -> Self {
        sources.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
        let mut all = Self::default();
        for Source { name, mapping, .. } in sources {
            let base: Arc<str> = mapping.base_model.as_str().into();
            for adapter in &mapping.adapters {
                match all.adapters.get(adapter.as_str()) {
                    None => drop(all.adapters.insert(adapter.as_str().into(), (base.clone(), name.clone()))),
                    Some((same, _)) if *same == base => {}
                    Some((_, counts)) => all.conflicts.push(Conflict {
                        adapter: adapter.as_str().into(),
                        counts: counts.clone(),
                        passed_over: name.clone(),
                    }),
                }
            }
            all.bases.insert(base);
        }
        all
    }

    /// The base model of `model`: of an adapter its own, of a base model itself; nothing of any other.
    pub fn base_of(&self, model: &str) -> Option<&Arc<str>> {
        let model = model.trim();
        self.adapters.get(model).map(|(base, _)| base).or_else(|| self.bases.get(model))
    }

    /// Every model that is named.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.bases.iter().chain(self.adapters.keys()).map(|name| &**name)
    }

    /// Base models and adapters.
    pub fn counts(&self) -> (usize, usize) {
        (self.bases.len(), self.adapters.len())
    }

    /// Adapters by their base model, for people.
    pub fn listed(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut listed: BTreeMap<&str, Vec<&str>> = self.bases.iter().map(|base| (&**base, Vec::new())).collect();
        for (adapter, (base, _)) in &self.adapters {
            listed.entry(base).or_default().push(adapter);
        }
        listed.values_mut().for_each(|adapters| adapters.sort_unstable());
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(base: &str, adapters: &str) -> Result<Mapping, String> {
        Mapping::of_data(&[("baseModel".to_owned(), base.to_owned()), ("adapters".to_owned(), adapters.to_owned())].into())
    }

    fn source(created: i64, name: &str, base: &str, adapters: &str) -> Source {
        Source { created, name: name.into(), mapping: read(base, adapters).unwrap() }
    }

    #[test]
    fn a_config_map_is_read_as_upstream_reads_it() {
        let mapping = read(" llama \n", "- a\n- ' b '\n- ''\n").unwrap();
        assert_eq!((mapping.base_model.as_str(), &mapping.adapters[..]), ("llama", &["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(read("llama", "").unwrap().adapters.len(), 0);
        assert_eq!(read("llama", "[a, b]").unwrap().adapters.len(), 2);
        for (base, adapters, wanted) in [
            ("", "- a", "data.baseModel: is missing"),
            ("a\nb", "", "data.baseModel: has the control character U+000A"),
            ("llama", "a: b", "data.adapters: is no YAML list"),
            ("llama", "just text", "data.adapters: is no YAML list"),
            ("llama", "- \"a\\u0001b\"", "data.adapters[0]: has the control character U+0001"),
        ] {
            let problem = read(base, adapters).unwrap_err();
            assert!(problem.starts_with(wanted), "{problem}");
        }
        assert!(Mapping::of_data(&BTreeMap::new()).is_err());
    }

    #[test]
    fn an_adapter_has_the_base_of_the_oldest_mapping_that_names_it() {
        let all = vec![source(2, "n/young", "gemma", "[x, y]"), source(1, "n/old", "llama", "[x]"), source(3, "m", "llama", "[z]")];
        let mappings = Mappings::new(all.clone());
        let base = |model| mappings.base_of(model).map(|base| &**base);
        assert_eq!(
            [base("x"), base(" y"), base("z"), base("llama"), base("other")],
            [Some("llama"), Some("gemma"), Some("llama"), Some("llama"), None]
        );
        let conflict = Conflict { adapter: "x".into(), counts: "n/old".into(), passed_over: "n/young".into() };
        assert_eq!((&mappings.conflicts[..], mappings.counts()), (&[conflict][..], (2, 3)));
        // Without the older one the younger counts, and nothing is left of what was deleted.
        let left = Mappings::new(all.into_iter().filter(|source| &*source.name != "n/old").collect());
        assert_eq!(left.base_of("x").map(|base| &**base), Some("gemma"));
        assert_eq!(left.listed(), BTreeMap::from([("gemma", vec!["x", "y"]), ("llama", vec!["z"])]));
    }
}
