//! `flowControl` and its feature gate: how requests wait.

use std::sync::Arc;
use std::time::Duration;

use super::Reader;
use super::table::{Part, TABLE};
use super::yaml::{Fields, Node, Value, did_you_mean};
use crate::flow::{BandSettings, Fairness, FlowSettings, HoldEmpty, Ordering, SLO_HEADERS};

/// Bands with settings of their own.
const MOST_BANDS: usize = 256;
const BAND: [&str; 5] = ["priority", "maxBytes", "maxRequests", "fairnessPolicyRef", "orderingPolicyRef"];

impl Reader {
    /// The section `flowControl`, with `while_full` as the gate says.
    pub(super) fn flow(&mut self, fields: &Fields<'_>, while_full: bool) -> FlowSettings {
        let default = if self.llm_d { FlowSettings::llm_d() } else { FlowSettings::default() };
        // As upstream's flow control: it holds whatever it cannot place.
        let hold_empty = if while_full { HoldEmpty::Always } else { default.hold_empty };
        let mut settings = FlowSettings { while_full, hold_empty, ..default };
        let Some(value) = fields.get("flowControl") else { return settings };
        let known = [
            "maxBytes",
            "maxRequests",
            "defaultRequestTTL",
            "noEndpointRequestTTL",
            "defaultPriorityBand",
            "defaultNegativePriorityBand",
            "priorityBands",
            "usageLimitPolicyPluginRef",
            "saturationDetector",
            "enableEviction",
            "holdEmpty",
            "settleDelay",
        ];
        let Some(fields) = self.reading.fields(&value, "limits, times and policies", &known) else { return settings };
        if let Some(value) = fields.get("enableEviction")
            && self.reading.boolean(&value) == Some(true)
        {
            let message = "is not offered: a request that a server works on is not taken from it; leave it out";
            self.reading.refuse(&value, message);
        }
        settings.most_bytes = self.limit(&fields, "maxBytes", None);
        settings.most_requests = self.limit(&fields, "maxRequests", None);
        if let Some(ttl) = self.time(&fields, "defaultRequestTTL") {
            settings.ttl = ttl;
            // Upstream's: the one follows the other, and 0 leaves it as it is.
            settings.no_endpoint_ttl = ttl.or(settings.no_endpoint_ttl);
        }
        if let Some(ttl) = self.time(&fields, "noEndpointRequestTTL") {
            settings.no_endpoint_ttl = ttl;
        }
        if let Some(delay) = self.time(&fields, "settleDelay") {
            settings.settle = delay.unwrap_or_default();
        }
        if let Some(value) = fields.get("holdEmpty") {
            settings.hold_empty = self.hold_empty(&value);
        }
        if let Some(value) = fields.get("usageLimitPolicyPluginRef") {
            let wanted = |part: &Part| if let Part::UsageLimit(limit) = part { Some(*limit) } else { None };
            settings.usage = self.policy(&value, "usage limit policy", wanted).unwrap_or_default();
        }
        if let Some(value) = fields.get("defaultPriorityBand") {
            (_, settings.default_band) = self.band(&value, settings.default_band, false);
            settings.default_negative_band = settings.default_band;
        }
        if let Some(value) = fields.get("defaultNegativePriorityBand") {
            (_, settings.default_negative_band) = self.band(&value, settings.default_negative_band, false);
        }
        if let Some(value) = fields.get("priorityBands") {
            self.bands(&value, &mut settings);
        }
        settings
    }

    /// Headers that `settings` make requests carry.
    pub(super) fn flow_headers(settings: &FlowSettings, headers: &mut Arc<[Arc<str>]>) {
        let bands = settings.bands.values().chain([&settings.default_band, &settings.default_negative_band]);
        if settings.while_full && bands.into_iter().any(|band| band.ordering == Ordering::SloDeadline) {
            let more =
                SLO_HEADERS.iter().filter(|more| headers.iter().all(|known| **known != ***more)).map(|more| Arc::from(*more));
            *headers = headers.iter().cloned().chain(more).collect();
        }
    }

    fn bands(&mut self, value: &Value<'_>, settings: &mut FlowSettings) {
        for value in self.reading.list(value, "a list of bands, each with `priority`") {
            let like = |priority: i32| if priority < 0 { settings.default_negative_band } else { settings.default_band };
            let negative = Fields::of(&value).and_then(|fields| fields.get("priority"));
            let negative = negative.is_some_and(|value| matches!(value.node.value, Node::Number(number) if number < 0.0));
            let (priority, band) = self.band(&value, like(if negative { -1 } else { 0 }), true);
            let Some(priority) = priority else { continue };
            if settings.bands.len() >= MOST_BANDS {
                return self.reading.refuse(&value, format!("is one of too many: {MOST_BANDS} bands are read"));
            }
            if settings.bands.insert(priority, band).is_some() {
                self.reading.refuse(&value, format!("there is a band of priority {priority} already: keep one of them"));
            }
        }
    }

    fn band(&mut self, value: &Value<'_>, default: BandSettings, named: bool) -> (Option<i32>, BandSettings) {
        let Some(fields) = self.reading.fields(value, "a band, with limits and policies", &BAND) else { return (None, default) };
        let priority = match fields.get("priority") {
            Some(value) => self.priority(&value),
            None => {
                if named {
                    let message = "is missing: write the priority of the band's requests".to_owned();
                    self.reading.refuse_at(fields.at, &fields.path_of("priority"), message);
                }
                None
            }
        };
        let fairness = |part: &Part| if let Part::Fairness(policy) = part { Some(*policy) } else { None };
        let ordering = |part: &Part| if let Part::Ordering(policy) = part { Some(*policy) } else { None };
        let fairness: Option<Fairness> =
            fields.get("fairnessPolicyRef").and_then(|value| self.policy(&value, "fairness policy", fairness));
        let ordering: Option<Ordering> =
            fields.get("orderingPolicyRef").and_then(|value| self.policy(&value, "ordering policy", ordering));
        let band = BandSettings {
            most_requests: self.limit(&fields, "maxRequests", default.most_requests),
            most_bytes: self.limit(&fields, "maxBytes", default.most_bytes),
            fairness: fairness.unwrap_or(default.fairness),
            ordering: ordering.unwrap_or(default.ordering),
        };
        (priority, band)
    }

    fn priority(&mut self, value: &Value<'_>) -> Option<i32> {
        let number = self.reading.number(value, "a whole number")?;
        let within = number.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number);
        if !within {
            self.reading.refuse(value, format!("{number}: write a whole number of 32 bits"));
        }
        within.then_some(number as i32)
    }

    /// A policy that a name refers to: a plugin of the list, or a type that is not in it.
    fn policy<T>(&mut self, value: &Value<'_>, what: &str, wanted: impl Fn(&Part) -> Option<T>) -> Option<T> {
        let name = self.reading.text(value, "the name of a plugin of the list")?;
        let declared = self.plugins.iter().find(|plugin| *plugin.name.name == *name).map(|plugin| plugin.part.clone());
        let part = declared.or_else(|| self.undeclared(name, value));
        let policy = part.as_ref().and_then(&wanted);
        if policy.is_none() && !matches!(part, Some(Part::Broken)) {
            let names = self.plugins.iter().filter(|plugin| wanted(&plugin.part).is_some()).map(|plugin| &*plugin.name.name);
            let kinds = TABLE.iter().map(|(kind, _)| *kind).filter(|kind| kind.contains("policy"));
            let names: Vec<&str> = names.chain(kinds).collect();
            let way_out = did_you_mean(name, names.iter().copied());
            self.reading.refuse(value, format!("`{name}` is no {what}{way_out}"));
        }
        policy
    }

    /// What a type is that the list does not have, with its defaults.
    fn undeclared(&mut self, name: &str, value: &Value<'_>) -> Option<Part> {
        let (_, build) = TABLE.iter().find(|(kind, _)| *kind == name && kind.ends_with("-policy"))?;
        let place = (value.node.referenced, value.path.clone());
        let mut parameters = super::Parameters::new(&mut self.reading, &mut self.needs, None, place, self.llm_d);
        let part = build(&mut parameters);
        drop(parameters.finish());
        Some(part)
    }

    fn hold_empty(&mut self, value: &Value<'_>) -> HoldEmpty {
        let names = || HoldEmpty::NAMES.iter().map(|(name, _)| *name);
        let Some(text) = self.reading.text(value, "auto, always or never") else { return HoldEmpty::default() };
        let known = HoldEmpty::NAMES.iter().find(|(name, _)| *name == text).map(|(_, hold)| *hold);
        known.unwrap_or_else(|| {
            self.reading.refuse(value, format!("`{text}` is not known{}", did_you_mean(text, names())));
            HoldEmpty::default()
        })
    }

    /// A quantity that limits; 0 is no limit.
    fn limit(&mut self, fields: &Fields<'_>, name: &str, default: Option<u64>) -> Option<u64> {
        let Some(value) = fields.get(name) else { return default };
        let quantity = match &value.node.value {
            Node::Number(number) => Some(*number),
            Node::Text(text) => quantity(text),
            _ => None,
        };
        match quantity.filter(|number| (0.0..=1e18).contains(number) && number.fract() == 0.0) {
            Some(number) => (number > 0.0).then_some(number as u64),
            None => {
                self.reading.refuse(&value, "is no whole quantity: write a number such as 5000, 512Mi or 1G; 0 is no limit");
                default
            }
        }
    }

    /// A time, as `90s`; none within is 0, which is no limit.
    fn time(&mut self, fields: &Fields<'_>, name: &str) -> Option<Option<Duration>> {
        const LONGEST: Duration = Duration::from_secs(86_400);
        let value = fields.get(name)?;
        let text = match &value.node.value {
            Node::Number(number) if *number == 0.0 => "0s",
            _ => self.reading.text(&value, "a time such as 60s")?,
        };
        match humantime::parse_duration(text) {
            Ok(time) if time <= LONGEST => Some((!time.is_zero()).then_some(time)),
            _ => {
                self.reading.refuse(&value, format!("`{text}`: write a time up to 24h, such as 60s; 0s is none"));
                None
            }
        }
    }
}

/// A number as Kubernetes writes quantities.
fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix = SUFFIXES.iter().find_map(|(suffix, times)| Some((text.strip_suffix(suffix)?, *times)));
    let (number, times) = suffix.unwrap_or((text, 1.0));
    let plain = number.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    plain.then(|| number.parse::<f64>().ok())?.map(|number| number * times)
}
