//! `label-selector-filter` (once `by-label-selector`), `by-label`, and the roles: `decode-filter`, `prefill-filter`, `encode-filter`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::Rng;
use weir_datastore::Selector;
use weir_datastore::selector::{Operator, Requirement};

use crate::scheduling::config::Parameters;
use crate::scheduling::{Candidate, Filter, LabelFact, SchedulingRequest};

/// The label that says what a server is for, as llm-d has it.
const ROLE: &str = "llm-d.ai/role";
/// Servers that decode; those without the label do too.
const DECODE: [&str; 4] = ["decode", "prefill-decode", "both", "encode-prefill-decode"];
/// Servers that compute prompts.
const PREFILL: [&str; 5] = ["prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"];
/// Servers that encode images, sound and video.
const ENCODE: [&str; 3] = ["encode", "encode-prefill", "encode-prefill-decode"];

/// Leaves the endpoints whose labels pass a test. They are tested when endpoints change, not when requests come.
#[derive(Clone, Copy, Debug)]
pub struct ByLabelFilter {
    /// Position of the test's outcome among an endpoint's facts.
    pub fact: usize,
}

/// What is asked of an endpoint's labels; its fact is 1 where it holds.
#[derive(Clone, Debug)]
pub struct LabelTest {
    /// What holds.
    pub selector: Selector,
    /// Whether it is enough that this label is not there.
    pub or_without: Option<String>,
}

impl LabelFact for LabelTest {
    fn of(&self, labels: &BTreeMap<String, String>) -> u64 {
        let without = self.or_without.as_ref().is_some_and(|label| !labels.contains_key(label));
        u64::from(without || self.selector.matches(|label| labels.get(label).map(String::as_str)))
    }
}

impl Filter for ByLabelFilter {
    fn filter(&self, _request: &SchedulingRequest<'_>, candidates: &mut Vec<Candidate<'_>>, _rng: &mut dyn Rng) {
        candidates.retain(|candidate| candidate.fact(self.fact) != 0);
    }
}

impl ByLabelFilter {
    pub(in crate::scheduling) fn decode(parameters: &mut Parameters<'_, '_>) -> Self {
        Self::role(parameters, &DECODE, true)
    }

    pub(in crate::scheduling) fn prefill(parameters: &mut Parameters<'_, '_>) -> Self {
        Self::role(parameters, &PREFILL, false)
    }

    pub(in crate::scheduling) fn encode(parameters: &mut Parameters<'_, '_>) -> Self {
        Self::role(parameters, &ENCODE, false)
    }

    fn role(parameters: &mut Parameters<'_, '_>, roles: &[&str], or_without: bool) -> Self {
        Self::one_of(parameters, ROLE.to_owned(), roles.iter().map(|role| (*role).to_owned()).collect(), or_without)
    }

    fn one_of(parameters: &mut Parameters<'_, '_>, label: String, values: BTreeSet<String>, or_without: bool) -> Self {
        let or_without = or_without.then(|| label.clone());
        let selector = Selector::new(vec![Requirement { key: label, operator: Operator::In, values }]);
        Self { fact: parameters.fact(Arc::new(LabelTest { selector, or_without })) }
    }

    /// `by-label`: one of some values.
    pub(in crate::scheduling) fn read_values(parameters: &mut Parameters<'_, '_>) -> Self {
        let label = parameters.required_text("label", "name the label that is looked at");
        let values: BTreeSet<String> = parameters.texts("validValues").into_iter().collect();
        let or_without = parameters.boolean("allowsNoLabel", false);
        if values.is_empty() && !or_without {
            parameters.missing("validValues", "name the values that pass, or write `allowsNoLabel: true`");
        }
        Self::one_of(parameters, label, values, or_without)
    }

    /// `label-selector-filter`: a Kubernetes LabelSelector.
    pub(in crate::scheduling) fn read_selector(parameters: &mut Parameters<'_, '_>) -> Self {
        let equal = |(key, value)| Requirement { key, operator: Operator::In, values: BTreeSet::from([value]) };
        let mut requirements: Vec<Requirement> = parameters.text_map("matchLabels").into_iter().map(equal).collect();
        requirements.extend(parameters.each("matchExpressions", |expression| {
            let operators = [
                ("In", Operator::In),
                ("NotIn", Operator::NotIn),
                ("Exists", Operator::Exists),
                ("DoesNotExist", Operator::DoesNotExist),
            ];
            let key = expression.required_text("key", "name the label that is looked at");
            if !expression.given("operator") {
                expression.missing("operator", "write In, NotIn, Exists or DoesNotExist");
            }
            let operator = expression.choice("operator", Operator::Exists, &operators);
            let values: BTreeSet<String> = expression.texts("values").into_iter().collect();
            let compares = matches!(operator, Operator::In | Operator::NotIn);
            if compares && values.is_empty() {
                expression.missing("values", "In and NotIn compare with values");
            } else if !compares && !values.is_empty() {
                expression.refused("values", "Exists and DoesNotExist compare with no values: remove it");
            }
            Requirement { key, operator, values }
        }));
        Self { fact: parameters.fact(Arc::new(LabelTest { selector: Selector::new(requirements), or_without: None })) }
    }
}
