//! Which models the pool's servers list, and what becomes of a request for another one. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::inference::{Code, Refusal};

/// Near names that a refusal tells.
const NEAR: usize = 3;
/// How like a name must be (Jaro–Winkler, 0 to 1).
const LIKENESS: f64 = 0.8;

/// What the servers list together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum KnownModels {
    /// The list of a server is not known, or nobody asked: every model passes.
    #[default]
    Unknown,
    /// One of these at least.
    Listed(Arc<BTreeSet<String>>),
}

impl KnownModels {
    /// What servers list together, each its own list; one that is not known makes all unknown, and so does it that there is none.
    pub fn of<'a>(lists: impl IntoIterator<Item = Option<&'a [String]>>) -> Self {
        let mut all = BTreeSet::new();
        for list in lists {
            let Some(list) = list else { return Self::Unknown };
            all.extend(list.iter().cloned());
        }
        if all.is_empty() { Self::Unknown } else { Self::Listed(Arc::new(all)) }
    }

    /// 404 for a model that no server lists.
    pub(super) fn refusal(&self, model: Option<&str>) -> Option<Refusal> {
        let (Self::Listed(known), Some(model)) = (self, model) else { return None };
        if known.contains(model) {
            return None;
        }
        let asked = model.to_lowercase();
        let mut near: Vec<(f64, &str)> =
            known.iter().map(|name| (strsim::jaro_winkler(&name.to_lowercase(), &asked), name.as_str())).collect();
        near.retain(|(likeness, _)| *likeness >= LIKENESS);
        near.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
        let near: Vec<String> = near.iter().take(NEAR).map(|(_, name)| format!("`{}`", shown(name))).collect();
        let near = if near.is_empty() { String::new() } else { format!(": near to it are {}", near.join(", ")) };
        let message = format!("no server of the pool lists the model `{}`{near}", shown(model));
        Some(Refusal { code: Code::NotFound, message, reason: None, retry_after: None })
    }
}

/// A name as a refusal repeats it.
fn shown(name: &str) -> String {
    name.chars().take(128).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_no_server_lists_is_refused_with_near_ones() {
        let (one, other) = (["glm-5".to_owned()], ["glm-5-air".to_owned(), "llama".to_owned()]);
        let known = KnownModels::of([Some(&one[..]), Some(&other[..])]);
        for served in [Some("glm-5"), Some("llama"), None] {
            assert_eq!(known.refusal(served), None);
        }
        let refusal = known.refusal(Some("GLM5")).unwrap();
        assert_eq!(
            (refusal.code, refusal.message.as_str()),
            (Code::NotFound, "no server of the pool lists the model `GLM5`: near to it are `glm-5`, `glm-5-air`")
        );
        assert_eq!(known.refusal(Some("\n")).unwrap().message, "no server of the pool lists the model `\\n`");
    }

    #[test]
    fn what_is_not_known_passes() {
        let one = ["glm-5".to_owned()];
        for lists in [vec![Some(&one[..]), None], vec![], vec![Some(&[][..])]] {
            assert_eq!(KnownModels::of(lists).refusal(Some("other")), None);
        }
    }
}
