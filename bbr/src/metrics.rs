//! What body-based routing counts: upstream's families under their names, and weir's own.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::classify::{Class, Reason};
use crate::decide::Fact;
use crate::exchange::Note;
use crate::names::Rule;
use crate::plugin::Plugin;

/// Bounds of durations, in seconds: those of upstream's plugins.
const SHORT: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];

/// Labels.
type Pairs<const N: usize> = [(&'static str, Arc<str>); N];

/// All of them; cloning shares them.
#[derive(Clone, Debug)]
pub struct BbrMetrics {
    success: Counter,
    missing: Family<Pairs<1>, Counter>,
    empty: Family<Pairs<1>, Counter>,
    durations: Family<Pairs<3>, Histogram>,
    unknown_models: Counter,
    named: Family<Pairs<1>, Counter>,
    classified: Family<Pairs<3>, Counter>,
    rewritten: Counter,
    events: Family<Pairs<1>, Counter>,
    streams: Gauge<i64, AtomicI64>,
    mappings: Family<Pairs<1>, Gauge>,
    plugins: Arc<[Plugin]>,
}

impl BbrMetrics {
    /// Counters that this registry exposes, those of `plugins` among them; `commit` and `version` say what was built.
    pub fn register(registry: &mut Registry, plugins: &[Plugin], commit: &str, version: &str) -> Self {
        let info = Family::<Pairs<2>, Gauge>::default();
        info.get_or_create(&[("commit", commit.into()), ("build_ref", version.into())]).set(1);
        registry.register("bbr_info", "What was built", info);
        let metrics = Self {
            success: Counter::default(),
            missing: Family::default(),
            empty: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SHORT)),
            unknown_models: Counter::default(),
            named: Family::default(),
            classified: Family::default(),
            rewritten: Counter::default(),
            events: Family::default(),
            streams: Gauge::default(),
            mappings: Family::default(),
            plugins: plugins.into(),
        };
        registry.register("bbr_success", "Bodies of requests that were read and decided upon", metrics.success.clone());
        registry.register("bbr_body_field_not_found", "Bodies without a plugin's field", metrics.missing.clone());
        registry.register("bbr_body_field_empty", "Bodies in which a plugin's field is empty", metrics.empty.clone());
        registry.register("bbr_plugin_duration_seconds", "Time that a plugin took for a request", metrics.durations.clone());
        let help = "Requests for a model that no mapping knows: they have no base model";
        registry.register("weir_bbr_unknown_models", help, metrics.unknown_models.clone());
        registry.register("weir_bbr_named", "Steps from a model's name to its effective name, by rule", metrics.named.clone());
        let help = "Requests that the classifier decided upon, by its rule, what they are, and why";
        registry.register("weir_bbr_classified", help, metrics.classified.clone());
        registry.register("weir_bbr_rewritten", "Bodies that were sent on with another model's name", metrics.rewritten.clone());
        let help = "Requests and gateways that are not as they should be, by kind";
        registry.register("weir_bbr_events", help, metrics.events.clone());
        registry.register("weir_bbr_streams", "Streams of gateways that are open, one per request", metrics.streams.clone());
        let help = "What mappings name: base models, adapters, and adapters that two mappings give to different base models";
        registry.register("weir_bbr_mapped_models", help, metrics.mappings.clone());
        for note in Note::ALL {
            drop(metrics.events.get_or_create(&[("kind", note.label().into())]));
        }
        for rule in Rule::ALL {
            drop(metrics.named.get_or_create(&[("rule", rule.label().into())]));
        }
        for plugin in plugins {
            if let Plugin::FieldToHeader { field, .. } = plugin {
                drop(metrics.missing.get_or_create(&[("field", field.clone())]));
                drop(metrics.empty.get_or_create(&[("field", field.clone())]));
            }
        }
        metrics
    }

    /// The classifier has this rule: what it may decide is there from the start.
    pub fn rule(&self, name: &str) {
        for (class, reasons) in
            [(Class::Simple, &["none"][..]), (Class::Complex, &Reason::LABELS[..3]), (Class::Control, &["share"])]
        {
            for reason in reasons {
                drop(self.classified.get_or_create(&Self::classified_labels(name, class, reason)));
            }
        }
    }

    fn classified_labels(rule: &str, class: Class, reason: &str) -> Pairs<3> {
        [("rule", rule.into()), ("class", class.label().into()), ("reason", reason.into())]
    }

    /// What mappings name.
    pub fn mapped(&self, bases: usize, adapters: usize, conflicts: usize) {
        for (kind, count) in [("base", bases), ("adapter", adapters), ("conflict", conflicts)] {
            self.mappings.get_or_create(&[("kind", kind.into())]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A body was decided upon.
    pub(crate) fn decided(&self, facts: &[Fact], well: bool) {
        if well {
            self.success.inc();
        }
        for fact in facts {
            match fact {
                Fact::Missing(field) => drop(self.missing.get_or_create(&[("field", field.clone())]).inc()),
                Fact::Empty(field) => drop(self.empty.get_or_create(&[("field", field.clone())]).inc()),
                Fact::UnknownModel => drop(self.unknown_models.inc()),
                Fact::Named(rule) => drop(self.named.get_or_create(&[("rule", rule.label().into())]).inc()),
                Fact::Classified { rule, class, reason } => {
                    self.classified.get_or_create(&Self::classified_labels(rule, *class, reason)).inc();
                }
                Fact::Rewritten => drop(self.rewritten.inc()),
                Fact::Ran { plugin, took } => {
                    let Some(plugin) = self.plugins.get(*plugin) else { continue };
                    let labels = [
                        ("extension_point", "request".into()),
                        ("plugin_type", plugin.kind().into()),
                        ("plugin_name", plugin.name().clone()),
                    ];
                    self.durations.get_or_create(&labels).observe(took.as_secs_f64());
                }
            }
        }
    }

    /// Counts it; whether it is the first of its kind.
    pub(crate) fn count(&self, note: Note) -> bool {
        self.events.get_or_create(&[("kind", note.label().into())]).inc() == 0
    }

    /// One more stream, if there are less than `most`.
    pub(crate) fn stream(&self, most: usize) -> Option<Open> {
        self.streams.inc();
        let open = Open(self.streams.clone());
        (usize::try_from(self.streams.get()).unwrap_or(0) <= most).then_some(open)
    }
}

/// A stream counts as open while this exists.
#[derive(Debug)]
pub(crate) struct Open(Gauge<i64, AtomicI64>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
