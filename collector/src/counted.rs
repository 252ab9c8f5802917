//! Counters of one thing by one label whose values are known.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use weir_datastore::FailureKind;

/// A label and its value.
type Labels = [(&'static str, &'static str); 1];

/// The outcome of what was read.
pub(crate) const OK: &str = "ok";

/// What comes of trying to read something: the values of the label `outcome`.
pub(crate) const OUTCOMES: [&str; 10] = [
    FailureKind::Connect.label(),
    FailureKind::Tls.label(),
    FailureKind::Timeout.label(),
    FailureKind::Status.label(),
    FailureKind::Redirect.label(),
    FailureKind::TooLarge.label(),
    FailureKind::Transfer.label(),
    FailureKind::NotMetrics.label(),
    FailureKind::NoEngine.label(),
    OK,
];

/// Counters by a label. All that are known are on the page from the start: a rate over the first event needs the zero before it.
/// Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    label: &'static str,
    family: Family<Labels, Counter>,
    /// The counters of the known values: a family looks each up behind a lock.
    known: Vec<(&'static str, Counter)>,
}

impl Counted {
    /// Counters called `name`, one for each of `values` of `label`.
    pub(crate) fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let family = Family::default();
        registry.register(name, help, family.clone());
        let known = values.into_iter().map(|value| (value, family.get_or_create_owned(&[(label, value)]))).collect();
        Self { label, family, known }
    }

    pub(crate) fn count(&self, value: &'static str) {
        match self.known.iter().find(|(known, _)| *known == value) {
            Some((_, counter)) => counter.inc(),
            None => self.family.get_or_create(&[(self.label, value)]).inc(),
        };
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn known_values_are_there_from_the_start_and_others_once_they_happen() {
        let mut registry = Registry::default();
        let counted = Counted::register(&mut registry, "weir_things", "Things", "outcome", OUTCOMES);
        counted.clone().count("tls");
        counted.count("tls");
        counted.count("other");
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in ["{outcome=\"tls\"} 2", "{outcome=\"other\"} 1", "{outcome=\"ok\"} 0"] {
            assert!(page.contains(&format!("\nweir_things_total{line}\n")), "no {line} in\n{page}");
        }
        assert_eq!(page.matches("weir_things_total{").count(), OUTCOMES.len() + 1);
    }
}
