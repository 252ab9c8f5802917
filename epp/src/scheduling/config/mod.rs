//! An EndpointPickerConfig to what scheduling runs on.
//!
//! Upstream's format and names (`docs/plugins.md` lists what is understood). Everything that is wrong is told at once, with line,
//! field and the nearest name; what upstream has and weir has not is refused as such, never passed over.

mod parameters;
mod parsers;
mod problem;
mod reporter;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

use std::sync::Arc;

pub use problem::{ConfigError, Problem};

use self::parameters::Parameters;
use self::table::{NOT_BUILT, Part, TABLE};
use self::yaml::{Fields, Reading, Value, did_you_mean};
use super::filters::SaturatedFilter;
use super::pickers::MaxScorePicker;
use super::plugin::{Filter, Picker, PluginName, Scorer};
use super::prefix::PrefixSettings;
use super::profile::{Named, Profile, Weighted};
use super::saturation::SaturationDetector;
use super::scorers::{KvCacheUtilizationScorer, PrefixCacheScorer, QueueScorer};
use crate::request::Parsers;
use crate::response::AttributeReporter;

/// The versions that are read: upstream's and its successor's.
const API_VERSIONS: [&str; 2] = ["inference.networking.x-k8s.io/v1alpha1", "llm-d.ai/v1alpha1"];
/// The share of requests that goes to endpoints whose load is not known, unless set otherwise.
const EXPLORATION: f64 = 0.01;
/// No configuration is larger.
const MOST_BYTES: usize = 1024 * 1024;

const PREFIX_SCORER: &str = "prefix-cache-scorer";
const MAX_SCORE_PICKER: &str = "max-score-picker";

/// What scheduling runs on.
#[derive(Clone, Debug)]
pub struct SchedulingConfig {
    /// The one profile.
    pub profile: Profile,
    /// How prompts are remembered; none where no scorer of the profile asks.
    pub prefix: Option<PrefixSettings>,
    /// When a pool is full.
    pub detector: SaturationDetector,
    /// `destination-endpoint-served-verifier` is in the list: responses are to carry `x-conformance-test-served-endpoint`.
    pub verify_served: bool,
    /// Which paths are read, and how.
    pub parsers: Parsers,
    /// Each `request-attribute-reporter` of the list.
    pub reporters: Vec<AttributeReporter>,
}

impl Default for SchedulingConfig {
    /// Upstream's default, v1.5.0: queue 2, KV cache 2, prefix 3, the highest score.
    fn default() -> Self {
        let scorer = |kind, scorer, weight| Weighted { scorer: Named { name: PluginName::of_type(kind), plugin: scorer }, weight };
        let queue: Arc<dyn Scorer> = Arc::new(QueueScorer);
        let scorers = vec![
            scorer("queue-scorer", queue, 2.0),
            scorer("kv-cache-utilization-scorer", Arc::new(KvCacheUtilizationScorer), 2.0),
            scorer(PREFIX_SCORER, Arc::new(PrefixCacheScorer), 3.0),
        ];
        Self {
            profile: Profile {
                name: "default".into(),
                filters: Vec::new(),
                scorers,
                picker: max_score_picker(),
                exploration: EXPLORATION,
            },
            prefix: Some(PrefixSettings::default()),
            detector: SaturationDetector::default(),
            verify_served: false,
            parsers: Parsers::default(),
            reporters: Vec::new(),
        }
    }
}

impl SchedulingConfig {
    /// Reads an EndpointPickerConfig.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is wrong.
    pub fn parse(source: &str) -> Result<Self, ConfigError> {
        if source.len() > MOST_BYTES {
            let message = format!("larger than {MOST_BYTES} bytes: is this an EndpointPickerConfig?");
            return Err(ConfigError { problems: vec![Problem { line: 1, column: 1, field: String::new(), message }] });
        }
        let tree = yaml::parse(source).map_err(|problem| ConfigError { problems: vec![problem] })?;
        let mut reader = Reader::default();
        let config = reader.document(&Value { node: &tree, path: String::new() });
        let mut problems = reader.reading.problems;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }
}

fn max_score_picker() -> Named<dyn Picker> {
    Named { name: PluginName::of_type(MAX_SCORE_PICKER), plugin: Arc::new(MaxScorePicker { most: 1 }) }
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    plugins: Vec<Declared>,
}

/// A plugin of the list.
#[derive(Clone, Debug)]
struct Declared {
    name: PluginName,
    part: Part,
    line: u64,
}

/// A plugin of a profile.
struct Used {
    plugin: Declared,
    weight: f64,
}

impl Reader {
    fn document(&mut self, root: &Value<'_>) -> SchedulingConfig {
        let expected = "`apiVersion`, `kind: EndpointPickerConfig` and `plugins`";
        let known = [
            "apiVersion",
            "kind",
            "featureGates",
            "plugins",
            "schedulingProfiles",
            "saturationDetector",
            "parser",
            "dataLayer",
            "flowControl",
            "requestHandler",
        ];
        let Some(fields) = self.reading.fields(root, expected, &known) else { return SchedulingConfig::default() };
        self.header(&fields, "apiVersion", &API_VERSIONS);
        self.header(&fields, "kind", &["EndpointPickerConfig"]);
        for (name, instead) in [
            ("dataLayer", "where endpoints and their metrics are read from is part of the pool (pools file or InferencePool)"),
            ("flowControl", "holding requests in queues; without it requests are placed or refused at once"),
        ] {
            if let Some(value) = fields.get(name) {
                self.reading.refuse(&value, format!("not built yet: {instead}"));
            }
        }
        if let Some(value) = fields.get("featureGates") {
            self.feature_gates(&value);
        }
        if let Some(value) = fields.get("plugins") {
            for value in self.reading.list(&value, "a list of plugins") {
                self.plugin(&value);
            }
        }
        let parsers = self.parsers(&fields);
        let detector = fields.get("saturationDetector").and_then(|value| self.detector(&value)).unwrap_or_default();
        let profiles = fields.get("schedulingProfiles").map(|value| self.reading.list(&value, "a list of profiles"));
        let profiles = profiles.unwrap_or_default();
        if let Some(second) = profiles.get(1) {
            self.reading.refuse(second, "not built yet: a second profile");
        }
        let (name, used) = match profiles.first() {
            Some(value) => self.profile(value),
            None if self.plugins.is_empty() => return SchedulingConfig { parsers, ..SchedulingConfig::default() },
            None => ("default".into(), self.plugins.iter().map(|plugin| Used { plugin: plugin.clone(), weight: 1.0 }).collect()),
        };
        SchedulingConfig { parsers, ..self.assemble(name, used, detector, profiles.is_empty()) }
    }

    fn header(&mut self, fields: &Fields<'_>, name: &str, allowed: &[&str]) {
        let hint = format!("write `{name}: {}`", allowed.first().copied().unwrap_or_default());
        let Some(value) = fields.get(name) else {
            return self.reading.refuse_at(fields.at, name, format!("is missing: {hint}"));
        };
        if let Some(text) = self.reading.text(&value, &hint)
            && !allowed.contains(&text)
        {
            self.reading.refuse(&value, format!("`{text}` is not what this reads: {hint}"));
        }
    }

    fn feature_gates(&mut self, value: &Value<'_>) {
        for gate in self.reading.list(value, "a list of names") {
            match self.reading.text(&gate, "a name") {
                Some("dataLayer") | None => {}
                Some("flowControl") => self.reading.refuse(&gate, "not built yet: flow control; remove the gate"),
                Some(other) => {
                    let way_out = did_you_mean(other, ["dataLayer", "flowControl"].into_iter());
                    self.reading.refuse(&gate, format!("unknown feature gate `{other}`{way_out}"));
                }
            }
        }
    }

    fn plugin(&mut self, value: &Value<'_>) {
        let Some(fields) = self.reading.fields(value, "a plugin, with `type`", &["name", "type", "parameters"]) else { return };
        let Some(kind_value) = fields.get("type") else {
            let message = "is missing: name the plugin's type, as `type: queue-scorer`".to_owned();
            return self.reading.refuse_at(fields.at, &fields.path_of("type"), message);
        };
        let Some(given) = self.reading.text(&kind_value, "a plugin's type") else { return };
        let Some((kind, build)) = TABLE.iter().find(|(kind, _)| *kind == given) else {
            let message = if NOT_BUILT.contains(&given) {
                format!("not built yet: `{given}`")
            } else {
                format!("unknown plugin type `{given}`{}", did_you_mean(given, TABLE.iter().map(|(kind, _)| *kind)))
            };
            return self.reading.refuse(&kind_value, message);
        };
        let name = match fields.get("name") {
            Some(value) => self.reading.text(&value, "a name").unwrap_or(kind),
            None => kind,
        };
        if let Some(first) = self.plugins.iter().find(|plugin| *plugin.name.name == *name) {
            let message = format!("plugin `{name}` is already on line {}: give one of them another `name`", first.line);
            self.reading.refuse(value, message);
        }
        let given = fields.get("parameters").filter(|value| !matches!(value.node.value, yaml::Node::Nothing));
        let given = given.and_then(|value| parameters_of(&mut self.reading, &value));
        let mut parameters = Parameters::new(&mut self.reading, given, (fields.at, fields.path_of("parameters")));
        let part = build(&mut parameters);
        parameters.finish();
        let name = PluginName { kind, name: name.into() };
        self.plugins.push(Declared { name, part, line: value.line() });
    }

    /// The plugin that the `pluginRef` of `fields` names.
    fn referenced(&mut self, fields: &Fields<'_>) -> Option<Declared> {
        let Some(value) = fields.get("pluginRef") else {
            let message = "is missing: name a plugin of the list".to_owned();
            self.reading.refuse_at(fields.at, &fields.path_of("pluginRef"), message);
            return None;
        };
        let name = self.reading.text(&value, "the name of a plugin of the list")?;
        let found = self.plugins.iter().find(|plugin| *plugin.name.name == *name).cloned();
        // A plugin that could not be read is told of already.
        if found.is_none() && self.reading.problems.is_empty() {
            let way_out = did_you_mean(name, self.plugins.iter().map(|plugin| &*plugin.name.name));
            self.reading.refuse(&value, format!("no plugin `{name}` is in the list{way_out}"));
        }
        found
    }

    fn detector(&mut self, value: &Value<'_>) -> Option<SaturationDetector> {
        let fields = self.reading.fields(value, "`pluginRef`", &["pluginRef"])?;
        let plugin = self.referenced(&fields)?;
        if let Part::Detector(detector) = plugin.part {
            return Some(detector);
        }
        let message = format!("`{}` is no detector: name a utilization-detector or a concurrency-detector", plugin.name.name);
        self.reading.refuse(value, message);
        None
    }

    fn profile(&mut self, value: &Value<'_>) -> (Arc<str>, Vec<Used>) {
        let mut used = Vec::new();
        let Some(fields) = self.reading.fields(value, "a profile, with `name` and `plugins`", &["name", "plugins"]) else {
            return ("".into(), used);
        };
        let name = match fields.get("name") {
            Some(value) => self.reading.text(&value, "a name").unwrap_or_default(),
            None => {
                self.reading.refuse_at(fields.at, &fields.path_of("name"), "is missing: give the profile a name".to_owned());
                ""
            }
        };
        for value in fields.get("plugins").map(|value| self.reading.list(&value, "a list of `pluginRef`")).unwrap_or_default() {
            let Some(fields) = self.reading.fields(&value, "`pluginRef`, `weight`", &["pluginRef", "weight"]) else { continue };
            let plugin = self.referenced(&fields);
            let weight_value = fields.get("weight");
            let weight = weight_value.as_ref().and_then(|value| self.weight(value));
            let Some(plugin) = plugin else { continue };
            if let Some(value) = weight_value
                && !matches!(plugin.part, Part::Scorer(_) | Part::PrefixScorer(_))
            {
                self.reading.refuse(&value, format!("only scorers have a weight, and `{}` is none: remove it", plugin.name.name));
            }
            used.push(Used { plugin, weight: weight.unwrap_or(1.0) });
        }
        (name.into(), used)
    }

    fn weight(&mut self, value: &Value<'_>) -> Option<f64> {
        let weight = self.reading.number(value, "a number of 0 or above")?;
        if weight < 0.0 {
            self.reading.refuse(value, format!("{weight}: write a number of 0 or above"));
        }
        Some(weight)
    }

    /// The profile of `used`. Where no profile was written, detectors of the list are not filters: they detect.
    fn assemble(&self, name: Arc<str>, used: Vec<Used>, detector: SaturationDetector, implied: bool) -> SchedulingConfig {
        let mut filters: Vec<Named<dyn Filter>> = Vec::new();
        let (mut scorers, mut picker, mut for_producer) = (Vec::new(), None, None);
        for Used { plugin: Declared { name, part, .. }, weight } in used {
            match part {
                Part::Filter(plugin) => filters.push(Named { name, plugin }),
                Part::Detector(detector) if !implied => {
                    filters.push(Named { name, plugin: Arc::new(SaturatedFilter { detector }) });
                }
                Part::Scorer(plugin) => scorers.push(Weighted { scorer: Named { name, plugin }, weight }),
                Part::PrefixScorer(settings) => {
                    for_producer = Some(settings.unwrap_or_default());
                    let plugin = Arc::new(PrefixCacheScorer);
                    scorers.push(Weighted { scorer: Named { name, plugin }, weight });
                }
                Part::Picker(plugin) => picker = picker.or(Some(Named { name, plugin })),
                Part::Detector(_)
                | Part::PrefixProducer(_)
                | Part::BuiltIn
                | Part::ServedVerifier
                | Part::Parser(_)
                | Part::Reporter(_)
                | Part::Broken => {}
            }
        }
        let declared = || self.plugins.iter();
        let declared_picker = || {
            declared().find_map(|plugin| match &plugin.part {
                Part::Picker(picker) => Some(Named { name: plugin.name.clone(), plugin: picker.clone() }),
                _ => None,
            })
        };
        let producer = declared().find_map(|plugin| match plugin.part {
            Part::PrefixProducer(settings) => Some(settings),
            _ => None,
        });
        let picker = picker.or_else(declared_picker).unwrap_or_else(max_score_picker);
        SchedulingConfig {
            profile: Profile { name, filters, scorers, picker, exploration: EXPLORATION },
            prefix: for_producer.map(|settings| producer.unwrap_or(settings)),
            detector,
            verify_served: declared().any(|plugin| matches!(plugin.part, Part::ServedVerifier)),
            parsers: Parsers::default(),
            reporters: declared()
                .filter_map(|plugin| if let Part::Reporter(reporter) = &plugin.part { Some(reporter.clone()) } else { None })
                .collect(),
        }
    }
}

fn parameters_of<'tree>(reading: &mut Reading, value: &Value<'tree>) -> Option<Fields<'tree>> {
    if let Some(fields) = Fields::of(value) {
        return Some(fields);
    }
    reading.refuse(value, "is no mapping: write parameters as `name: value`");
    None
}
