//! What pickers were told to weigh: of their configuration the plugins, names and weights.

use serde::Deserialize;
use serde_json::Value;

use super::ask::{Asker, Problem, segment};
use crate::facts::observed::{PickerConfig, Plugin, Profile, ProfilePlugin};
use crate::facts::{Facts, Listing, Reason, scrub};
use crate::look::config_sources;

/// Most entries of a kind that are taken.
const MOST: usize = 200;

/// The file of a picker; the fields that count here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    plugins: Vec<FilePlugin>,
    #[serde(default)]
    scheduling_profiles: Vec<FileProfile>,
    #[serde(default)]
    feature_gates: Vec<String>,
}

#[derive(Deserialize)]
struct FilePlugin {
    name: Option<String>,
    r#type: Option<String>,
    #[serde(default)]
    parameters: Value,
}

#[derive(Deserialize)]
struct FileProfile {
    name: Option<String>,
    #[serde(default)]
    plugins: Vec<FileProfilePlugin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileProfilePlugin {
    plugin_ref: Option<String>,
    weight: Option<f64>,
}

/// Reads the configurations of all pickers.
pub(super) async fn read(asker: &Asker, facts: &Facts) -> Listing<PickerConfig> {
    let mut wanted: Vec<(String, String)> = Vec::new();
    for pool in facts.every_pool() {
        for pod in facts.picker_pods(pool) {
            let by_text = pod.flag("config-text").or_else(|| pod.flag("configText")).is_some();
            let sources = config_sources(pod).into_iter().filter(|source| by_text || !source.starts_with("pod/"));
            wanted.extend(sources.map(|source| (pod.meta().namespace().to_owned(), source)));
        }
    }
    wanted.sort();
    wanted.dedup();
    let mut listing = Listing { cut: wanted.len() > MOST, ..Listing::of(Vec::new()) };
    wanted.truncate(MOST);
    let answers = wanted.into_iter().map(|(namespace, source)| async move {
        let texts = texts(asker, &namespace, &source).await;
        (namespace, source, texts)
    });
    for (namespace, source, texts) in futures_util::future::join_all(answers).await {
        match texts {
            Ok(texts) => {
                let configs = texts.iter().map(|text| PickerConfig {
                    namespace: Some(namespace.clone()),
                    source: Some(source.clone()),
                    ..understand(text)
                });
                listing.items.get_or_insert_default().extend(configs);
            }
            Err(problem) if problem.status == Some(404) => {}
            Err(problem) if matches!(problem.status, Some(401 | 403)) => {
                let resource = if source.starts_with("pod/") { "pods" } else { "configmaps" };
                listing.why = Some(Reason::Forbidden(format!("get {resource} in namespace {namespace}")));
            }
            Err(problem) => listing.why = Some(Reason::Failed(format!("{source}: {}", problem.message))),
        }
    }
    listing
}

/// The texts of a source that are configurations of a picker.
async fn texts(asker: &Asker, namespace: &str, source: &str) -> Result<Vec<String>, Problem> {
    let (kind, name) = source.split_once('/').unwrap_or(("", source));
    let plural = if kind == "pod" { "pods" } else { "configmaps" };
    let object = asker.get(&format!("/api/v1/namespaces/{}/{plural}/{}", segment(namespace), segment(name))).await?;
    let object: Value = serde_json::from_str(&object).unwrap_or_default();
    let is_config = |text: &&str| text.contains("EndpointPickerConfig");
    if kind == "pod" {
        let containers = object["spec"]["containers"].as_array().into_iter().flatten();
        let texts = containers.filter_map(|container| {
            let arguments: Vec<String> =
                container["args"].as_array()?.iter().filter_map(|argument| argument.as_str().map(str::to_owned)).collect();
            let flag = |name: &str| crate::facts::workload::flag_of(&arguments, name).map(str::to_owned);
            flag("config-text").or_else(|| flag("configText"))
        });
        return Ok(texts.collect());
    }
    let data = object["data"].as_object().into_iter().flatten();
    Ok(data.filter_map(|(_, value)| value.as_str()).filter(is_config).map(str::to_owned).collect())
}

/// The plugins, names and weights of a configuration.
pub(super) fn understand(text: &str) -> PickerConfig {
    let file: File = match serde_saphyr::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            // The first line alone: others may repeat the file.
            let reason = error.to_string();
            return PickerConfig {
                unreadable: Some(scrub::text(reason.lines().next().unwrap_or("no YAML"))),
                ..PickerConfig::default()
            };
        }
    };
    let plugins = file.plugins.into_iter().take(MOST).map(|plugin| Plugin {
        name: plugin.name.as_deref().map(scrub::text),
        r#type: plugin.r#type.as_deref().map(scrub::text),
        queue_depth_threshold: plugin.parameters["queueDepthThreshold"].as_f64(),
        kv_cache_util_threshold: plugin.parameters["kvCacheUtilThreshold"].as_f64(),
    });
    let profiles = file.scheduling_profiles.into_iter().take(MOST).map(|profile| {
        let plugins = profile
            .plugins
            .into_iter()
            .take(MOST)
            .map(|plugin| ProfilePlugin { plugin_ref: plugin.plugin_ref.as_deref().map(scrub::text), weight: plugin.weight });
        Profile { name: profile.name.as_deref().map(scrub::text), plugins: Some(plugins.collect()) }
    });
    PickerConfig {
        plugins: Some(plugins.collect()),
        profiles: Some(profiles.collect()),
        feature_gates: Some(file.feature_gates.iter().take(MOST).map(|gate| scrub::text(gate)).collect()),
        ..PickerConfig::default()
    }
}
