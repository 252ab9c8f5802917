//! An EndpointPickerConfig to what scheduling runs on.
//!
//! Upstream's format and names (`docs/plugins.md` lists what is understood). Everything that is wrong is told at once, with line,
//! field and the nearest name; what upstream has and weir has not is refused as such, never passed over.

mod assemble;
mod data_layer;
mod effective;
mod flow;
mod handlers;
mod needs;
mod parameters;
mod parsers;
mod problem;
mod refused;
mod reporter;
mod table;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

pub use data_layer::{DataLayer, PageSource};
pub(crate) use needs::facts_of;
pub(in crate::scheduling) use parameters::Parameters;
pub use problem::{ConfigError, Problem};

use self::assemble::{Used, Written, max_score_picker};
use self::needs::{Needs, Place};
use self::parameters::fields_of;
use self::table::{Part, TABLE};
use self::yaml::{Fields, Reading, Value, did_you_mean};
use super::handlers::SingleProfileHandler;
use super::plugin::{Admitter, LabelFact, Learner, PluginName, Scorer};
use super::prefix::PrefixSettings;
use super::profile::{Named, Profile, Weighted};
use super::saturation::SaturationDetector;
use super::scorers::{KvCacheUtilizationScorer, PrefixCacheScorer, QueueScorer};
use super::{ProfileHandler, TokenEstimate};
use crate::flow::FlowSettings;
use crate::request::Parsers;
use crate::response::AttributeReporter;

/// The versions that are read: upstream's and its successor's, whose defaults are those of its newest.
const API_VERSIONS: [&str; 2] = ["inference.networking.x-k8s.io/v1alpha1", LLM_D];
const LLM_D: &str = "llm-d.ai/v1alpha1";
/// Plugins of a configuration: every request asks those of its profile.
const MOST_PLUGINS: usize = 256;
/// Headers that requests carry for plugins.
const MOST_HEADERS: usize = 32;
/// The share of requests that goes to endpoints whose load is not known, unless set otherwise.
const EXPLORATION: f64 = 0.01;
/// No configuration is larger.
const MOST_BYTES: usize = 1024 * 1024;

const PREFIX_SCORER: &str = "prefix-cache-scorer";

/// What scheduling runs on.
#[derive(Clone, Debug)]
pub struct SchedulingConfig {
    /// Never empty.
    pub profiles: Vec<Profile>,
    /// Says which of them run.
    pub handler: Named<dyn ProfileHandler>,
    /// Asked before anything runs.
    pub admitters: Vec<Named<dyn Admitter>>,
    /// Told where requests go.
    pub learners: Vec<Named<dyn Learner>>,
    /// What is read of endpoints' labels, in the order of [`super::Candidate::facts`].
    pub facts: Vec<Arc<dyn LabelFact>>,
    /// Headers that requests are to carry, in lower case.
    pub headers: Arc<[Arc<str>]>,
    /// How many tokens a request is taken for.
    pub tokens: TokenEstimate,
    /// How prompts are remembered; none where no plugin asks.
    pub prefix: Option<PrefixSettings>,
    /// When a pool is full.
    pub detector: SaturationDetector,
    /// `destination-endpoint-served-verifier` is in the list: responses are to carry `x-conformance-test-served-endpoint`.
    pub verify_served: bool,
    /// Where endpoints' pages are, and what on them counts.
    pub data_layer: DataLayer,
    /// How requests wait.
    pub flow: Arc<FlowSettings>,
    /// Whether the defaults are llm-d's.
    llm_d: bool,
    /// The parameters in force of the plugins that were listed, by their names.
    parameters: Arc<BTreeMap<Arc<str>, Map<String, Json>>>,
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
            scorer(PREFIX_SCORER, Arc::new(PrefixCacheScorer::default()), 3.0),
        ];
        Self {
            profiles: vec![Profile {
                name: "default".into(),
                filters: Vec::new(),
                scorers,
                picker: max_score_picker(),
                exploration: EXPLORATION,
            }],
            handler: single_profile_handler(),
            admitters: Vec::new(),
            learners: Vec::new(),
            facts: Vec::new(),
            headers: Arc::default(),
            tokens: TokenEstimate::default(),
            prefix: Some(PrefixSettings::default()),
            detector: SaturationDetector::default(),
            verify_served: false,
            data_layer: DataLayer::default(),
            flow: Arc::default(),
            llm_d: false,
            parameters: Arc::default(),
            parsers: Parsers::default(),
            reporters: Vec::new(),
        }
    }
}

impl SchedulingConfig {
    /// llm-d's default: the same plugins, prompts remembered whole, and uncached prompts in flight until the first token.
    pub fn llm_d() -> Self {
        Self {
            prefix: Some(PrefixSettings::llm_d()),
            tokens: TokenEstimate::llm_d(),
            flow: Arc::new(FlowSettings::llm_d()),
            llm_d: true,
            ..Self::default()
        }
    }

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

fn single_profile_handler() -> Named<dyn ProfileHandler> {
    Named { name: PluginName::of_type("single-profile-handler"), plugin: Arc::new(SingleProfileHandler) }
}

#[derive(Default)]
struct Reader {
    reading: Reading,
    needs: Needs,
    plugins: Vec<Declared>,
    /// Whether the defaults are llm-d's.
    llm_d: bool,
}

/// A plugin of the list.
#[derive(Clone, Debug)]
struct Declared {
    name: PluginName,
    part: Part,
    place: Place,
    /// Its parameters in force.
    parameters: Map<String, Json>,
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
        self.llm_d = self.header(&fields, "apiVersion", &API_VERSIONS) == Some(LLM_D);
        self.header(&fields, "kind", &["EndpointPickerConfig"]);
        let while_full = fields.get("featureGates").is_some_and(|value| self.feature_gates(&value));
        if let Some(value) = fields.get("plugins") {
            for value in self.reading.list(&value, "a list of plugins") {
                self.plugin(&value);
            }
        }
        if let Some(value) = fields.get("dataLayer") {
            self.data_layer(&value);
        }
        let parsers = self.parsers(&fields);
        let detector = self.saturation_detector(&fields).unwrap_or_default();
        let flow = self.flow(&fields, while_full);
        let mut config = self.profiles(&fields, detector);
        Self::flow_headers(&flow, &mut config.headers);
        SchedulingConfig { parsers, flow: Arc::new(flow), ..config }
    }

    fn profiles(&mut self, fields: &Fields<'_>, detector: SaturationDetector) -> SchedulingConfig {
        let profiles = fields.get("schedulingProfiles").map(|value| self.reading.list(&value, "a list of profiles"));
        let profiles = profiles.unwrap_or_default();
        if profiles.is_empty() && self.plugins.is_empty() {
            let default = if self.llm_d { SchedulingConfig::llm_d() } else { SchedulingConfig::default() };
            return SchedulingConfig { detector, ..default };
        }
        let written = profiles.iter().map(|value| self.profile(value)).collect();
        self.assemble(written, detector)
    }

    fn header<'tree>(&mut self, fields: &Fields<'tree>, name: &str, allowed: &[&str]) -> Option<&'tree str> {
        let hint = format!("write `{name}: {}`", allowed.first().copied().unwrap_or_default());
        let Some(value) = fields.get(name) else {
            self.reading.refuse_at(fields.at, name, format!("is missing: {hint}"));
            return None;
        };
        let text = self.reading.text(&value, &hint)?;
        if !allowed.contains(&text) {
            self.reading.refuse(&value, format!("`{text}` is not what this reads: {hint}"));
        }
        Some(text)
    }

    /// Whether flow control is among the gates: `name`, or `name=true` and `name=false`.
    fn feature_gates(&mut self, value: &Value<'_>) -> bool {
        // What these ask for is there in any case, or asks for nothing.
        const NEEDLESS: [&str; 3] = ["dataLayer", "enableLegacyMetrics", "haPopulateNonLeaderDatastore"];
        const FLOW_CONTROL: &str = "flowControl";
        let mut flow_control = false;
        for gate in self.reading.list(value, "a list of names") {
            let Some(text) = self.reading.text(&gate, "a name") else { continue };
            let (name, on) = match text.split_once('=') {
                None => (text, Some(true)),
                Some((name, on)) => (name, on.parse().ok()),
            };
            if on.is_none() {
                self.reading.refuse(&gate, format!("`{text}`: write {name}=true or {name}=false"));
            } else if name == FLOW_CONTROL {
                flow_control = on == Some(true);
            } else if !NEEDLESS.contains(&name) {
                let way_out = did_you_mean(name, NEEDLESS.into_iter().chain([FLOW_CONTROL]));
                self.reading.refuse(&gate, format!("unknown feature gate `{name}`{way_out}"));
            }
        }
        flow_control
    }

    fn plugin(&mut self, value: &Value<'_>) {
        let Some(fields) = self.reading.fields(value, "a plugin, with `type`", &["name", "type", "parameters"]) else { return };
        let Some(kind_value) = fields.get("type") else {
            let message = "is missing: name the plugin's type, as `type: queue-scorer`".to_owned();
            return self.reading.refuse_at(fields.at, &fields.path_of("type"), message);
        };
        let Some(given) = self.reading.text(&kind_value, "a plugin's type") else { return };
        let Some((kind, build)) = TABLE.iter().find(|(kind, _)| *kind == given) else {
            let unknown = || format!("unknown plugin type `{given}`{}", did_you_mean(given, TABLE.iter().map(|(kind, _)| *kind)));
            return self.reading.refuse(&kind_value, refused::refusal(given).unwrap_or_else(unknown));
        };
        let name = match fields.get("name") {
            Some(value) => self.reading.text(&value, "a name").unwrap_or(kind),
            None => kind,
        };
        if let Some(first) = self.plugins.iter().find(|plugin| *plugin.name.name == *name) {
            let message = format!("plugin `{name}` is already on line {}: give one of them another `name`", first.place.at.line());
            self.reading.refuse(value, message);
        }
        if self.plugins.len() == MOST_PLUGINS {
            return self.reading.refuse(value, format!("is one of too many: {MOST_PLUGINS} plugins are read"));
        }
        let given = fields.get("parameters");
        let place = given.as_ref().map_or(value.node.referenced, |value| value.node.referenced);
        let given = given.and_then(|value| fields_of(&mut self.reading, &value));
        let place = (place, fields.path_of("parameters"));
        let mut parameters = Parameters::new(&mut self.reading, &mut self.needs, given, place, self.llm_d);
        let part = build(&mut parameters);
        let in_force = parameters.finish();
        if self.needs.headers.len() > MOST_HEADERS {
            self.reading.refuse(value, format!("reads one header too many: plugins together read {MOST_HEADERS}"));
        }
        let name = PluginName { kind, name: name.into() };
        self.plugins.push(Declared { name, part, place: value.place(), parameters: in_force });
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

    /// In v1.5.0's place, or in llm-d's.
    fn saturation_detector(&mut self, fields: &Fields<'_>) -> Option<SaturationDetector> {
        let own = fields.get("saturationDetector");
        let flow = fields.get("flowControl").as_ref().and_then(Fields::of).and_then(|fields| fields.get("saturationDetector"));
        if let (Some(_), Some(second)) = (&own, &flow) {
            self.reading.refuse(second, "`saturationDetector` beside `flowControl` names one already: remove one of the two");
        }
        self.detector(&own.or(flow)?)
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

    fn profile(&mut self, value: &Value<'_>) -> Written {
        let mut written = Written { name: "".into(), used: Vec::new(), place: value.place() };
        let Some(fields) = self.reading.fields(value, "a profile, with `name` and `plugins`", &["name", "plugins"]) else {
            return written;
        };
        match fields.get("name") {
            Some(value) => written.name = self.reading.text(&value, "a name").unwrap_or_default().into(),
            None => {
                self.reading.refuse_at(fields.at, &fields.path_of("name"), "is missing: give the profile a name".to_owned());
            }
        }
        for value in fields.get("plugins").map(|value| self.reading.list(&value, "a list of `pluginRef`")).unwrap_or_default() {
            let Some(fields) = self.reading.fields(&value, "`pluginRef`, `weight`", &["pluginRef", "weight"]) else { continue };
            let plugin = self.referenced(&fields);
            let weight_value = fields.get("weight");
            let weight = weight_value.as_ref().and_then(|value| self.weight(value));
            let Some(plugin) = plugin else { continue };
            if let Some(value) = weight_value
                && !matches!(&plugin.part, Part::Profile(roles) if roles.scorer.is_some())
            {
                self.reading.refuse(&value, format!("only scorers have a weight, and `{}` is none: remove it", plugin.name.name));
            }
            written.used.push(Used { plugin, weight: weight.unwrap_or(1.0) });
        }
        written
    }

    fn weight(&mut self, value: &Value<'_>) -> Option<f64> {
        let weight = self.reading.number(value, "a number of 0 or above")?;
        if weight < 0.0 {
            self.reading.refuse(value, format!("{weight}: write a number of 0 or above"));
        }
        Some(weight)
    }
}
