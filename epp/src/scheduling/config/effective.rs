//! The configuration in force, as people read it: every plugin with its parameters, defaults included.

use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::needs::Needs;
use super::parameters::Parameters;
use super::table::TABLE;
use super::yaml::Reading;
use super::{API_VERSIONS, LLM_D, SchedulingConfig};
use crate::flow::{BandSettings, FlowSettings, Holdback, HoldbackDomain, UsageLimit};
use crate::scheduling::plugin::PluginName;
use crate::scheduling::saturation::SaturationDetector;

impl SchedulingConfig {
    /// The configuration in force, in the shape of an EndpointPickerConfig; what was not written is there as well.
    pub fn effective(&self) -> Json {
        let profiles = self.profiles.iter().map(|profile| {
            let scorers = profile
                .scorers
                .iter()
                .map(|scorer| json!({ "pluginRef": scorer.scorer.name.name.as_ref(), "weight": scorer.weight }));
            let filters = profile.filters.iter().map(|filter| json!({ "pluginRef": filter.name.name.as_ref() }));
            let picker = json!({ "pluginRef": profile.picker.name.name.as_ref() });
            json!({ "name": profile.name.as_ref(), "plugins": filters.chain(scorers).chain([picker]).collect::<Vec<_>>() })
        });
        let profiles: Vec<_> = profiles.collect();
        let mut plugins: Vec<Json> = Vec::new();
        let mut add = |name: &PluginName| {
            let known = plugins.iter().any(|plugin| plugin["name"] == *name.name);
            if !known {
                let parameters = self.parameters.get(&name.name).cloned().unwrap_or_else(|| self.defaults_of(name.kind));
                plugins.push(json!({ "name": name.name.as_ref(), "type": name.kind, "parameters": parameters }));
            }
        };
        for profile in &self.profiles {
            profile.filters.iter().for_each(|filter| add(&filter.name));
            profile.scorers.iter().for_each(|scorer| add(&scorer.scorer.name));
            add(&profile.picker.name);
        }
        add(&self.handler.name);
        self.admitters.iter().for_each(|admitter| add(&admitter.name));
        self.learners.iter().for_each(|learner| add(&learner.name));
        // Producers, extractors and whatever else takes part in no profile.
        for (name, parameters) in self.parameters.iter() {
            if plugins.iter().all(|plugin| plugin["name"] != **name) {
                plugins.push(json!({ "name": name.as_ref(), "parameters": parameters }));
            }
        }
        json!({
            "apiVersion": if self.llm_d { LLM_D } else { API_VERSIONS[0] },
            "kind": "EndpointPickerConfig",
            "plugins": plugins,
            "schedulingProfiles": profiles,
            "profileHandler": self.handler.name.name.as_ref(),
            "saturationDetector": detector(&self.detector),
            "prefixCache": self.prefix.map(|prefix| json!({
                "autoTune": prefix.auto_tune,
                "blockSizeTokens": prefix.block_size_tokens,
                "maxPrefixBlocksToMatch": prefix.most_blocks,
                "maxPrefixTokensToMatch": prefix.most_tokens,
                "lruCapacityPerServer": prefix.capacity_per_server,
            })),
            "parsers": self.parsers.names(),
            "featureGates": if self.flow.while_full { vec!["flowControl"] } else { Vec::new() },
            "flowControl": flow_control(&self.flow),
        })
    }

    /// What of `other` cannot take the place of this while the picker runs.
    pub fn fixed_parts_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let reporters = |config: &Self| format!("{:?}", config.reporters);
        [
            ("where pages are read", self.data_layer != other.data_layer),
            ("the choice of parsers", self.parsers != other.parsers),
            ("a change of request-attribute-reporter", reporters(self) != reporters(other)),
            ("destination-endpoint-served-verifier", self.verify_served != other.verify_served),
        ]
        .into_iter()
        .filter_map(|(part, differs)| differs.then_some(part))
        .collect()
    }

    fn defaults_of(&self, kind: &str) -> Map<String, Json> {
        let Some((_, build)) = TABLE.iter().find(|(known, _)| *known == kind) else { return Map::new() };
        let (mut reading, mut needs) = (Reading::default(), Needs::default());
        let at = (serde_saphyr::Location::UNKNOWN, String::new());
        let mut parameters = Parameters::new(&mut reading, &mut needs, None, at, self.llm_d);
        drop(build(&mut parameters));
        parameters.finish()
    }
}

fn flow_control(flow: &FlowSettings) -> Json {
    let time = |time: Option<Duration>| humantime::format_duration(time.unwrap_or_default()).to_string();
    let band = |settings: &BandSettings| {
        json!({
            "maxRequests": settings.most_requests.unwrap_or(0),
            "maxBytes": settings.most_bytes.unwrap_or(0),
            "fairnessPolicyRef": settings.fairness.kind(),
            "orderingPolicyRef": settings.ordering.kind(),
        })
    };
    let bands = flow.bands.iter().rev().map(|(priority, settings)| {
        let mut band = band(settings);
        band["priority"] = (*priority).into();
        band
    });
    let usage = match flow.usage {
        UsageLimit::Static(threshold) => json!({ "threshold": threshold }),
        UsageLimit::Holdback(Holdback { domain, lowest, highest }) => {
            let domain = if domain == HoldbackDomain::Rank { "rank" } else { "value" };
            json!({ "domain": domain, "minCeiling": lowest, "maxCeiling": highest })
        }
        UsageLimit::SoftReflective => json!({}),
    };
    json!({
        "maxRequests": flow.most_requests.unwrap_or(0),
        "maxBytes": flow.most_bytes.unwrap_or(0),
        "defaultRequestTTL": time(flow.ttl),
        "noEndpointRequestTTL": time(flow.no_endpoint_ttl),
        "holdEmpty": flow.hold_empty.name(),
        "settleDelay": time(Some(flow.settle)),
        "defaultPriorityBand": band(&flow.default_band),
        "defaultNegativePriorityBand": band(&flow.default_negative_band),
        "priorityBands": bands.collect::<Vec<_>>(),
        "usageLimitPolicy": { "type": flow.usage.kind(), "parameters": usage },
    })
}

fn detector(detector: &SaturationDetector) -> Json {
    match detector {
        SaturationDetector::Utilization { thresholds, page_age, headroom } => json!({
            "type": "utilization-detector",
            "parameters": {
                "queueDepthThreshold": thresholds.queue,
                "kvCacheUtilThreshold": thresholds.kv_cache_utilization,
                "metricsStalenessThreshold": page_age.map(|age| humantime::format_duration(age).to_string()),
                "headroom": headroom,
            },
        }),
        SaturationDetector::Concurrency { mode, most_requests, most_tokens, headroom } => json!({
            "type": "concurrency-detector",
            "parameters": {
                "concurrencyMode": mode.name(),
                "maxConcurrency": most_requests,
                "maxTokenConcurrency": most_tokens,
                "headroom": headroom,
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_there_too() {
        let default = SchedulingConfig::default().effective();
        let profile = &default["schedulingProfiles"][0];
        assert_eq!(profile["plugins"][0], json!({ "pluginRef": "queue-scorer", "weight": 2.0 }));
        assert_eq!(profile["plugins"][3], json!({ "pluginRef": "max-score-picker" }));
        assert_eq!(default["saturationDetector"]["parameters"]["queueDepthThreshold"], 5.0);
        assert_eq!(default["parsers"], json!(["openai-parser"]));

        let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- name: mine\n  type: load-aware-scorer\n\
                    - type: weighted-random-picker\n  parameters: { maxNumOfEndpoints: 3 }\n";
        let written = SchedulingConfig::parse(text).unwrap().effective();
        let named = |name: &str| {
            let plugins = written["plugins"].as_array().unwrap();
            plugins.iter().find(|plugin| plugin["name"] == name).unwrap_or_else(|| panic!("{written}")).clone()
        };
        assert_eq!(named("mine"), json!({ "name": "mine", "type": "load-aware-scorer", "parameters": { "threshold": 128 } }));
        assert_eq!(named("weighted-random-picker")["parameters"], json!({ "maxNumOfEndpoints": 3 }));
        assert_eq!(written["apiVersion"], "llm-d.ai/v1alpha1");
    }

    #[test]
    fn what_a_running_picker_cannot_take_over_is_named() {
        let with = |plugins: &str| {
            let text =
                format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n{plugins}");
            SchedulingConfig::parse(&text).unwrap()
        };
        let (plain, scorer) = (with(""), with("- type: kv-cache-utilization-scorer\n"));
        assert!(plain.fixed_parts_that_differ(&scorer).is_empty());
        let moved = with("- type: metrics-data-source\n  parameters: { path: /m }\n- type: destination-endpoint-served-verifier\n");
        assert_eq!(plain.fixed_parts_that_differ(&moved), ["where pages are read", "destination-endpoint-served-verifier"]);
    }
}
