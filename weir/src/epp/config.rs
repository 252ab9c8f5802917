//! From the EndpointPickerConfig and the environment to how requests are scheduled.

use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context, bail};
use weir_epp::flow::{FlowSettings, HoldEmpty};
use weir_epp::scheduling::{SaturationDetector, SchedulingConfig};

use super::options::{ConfigSource, SaturationVariables};

/// No configuration is larger; a mounted device would be.
const MOST_BYTES: u64 = 1 << 20;
/// The plugin that the default configuration of v0.5 is built around.
const DECISION_TREE: &str = "decision-tree-filter";

/// Where the configuration is, and what else has a say in it.
#[derive(Clone, Debug)]
pub(super) struct Configuration {
    pub(super) source: ConfigSource,
    pub(super) saturation: SaturationVariables,
    /// Whether requests wait for an empty pool, where the command line says so.
    pub(super) hold_empty: Option<HoldEmpty>,
    /// The command line is one of v0.2 to v0.5.
    pub(super) old: bool,
}

impl Configuration {
    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match &self.source {
            ConfigSource::Default => "the default configuration".to_owned(),
            ConfigSource::Text(_) => "--config-text".to_owned(),
            ConfigSource::File(path) => format!("--config-file {}", path.display()),
        }
    }

    /// Whether it may change.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, ConfigSource::File(_))
    }

    /// Its text; none where there is none.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn text(&self) -> anyhow::Result<Option<String>> {
        Ok(match &self.source {
            ConfigSource::Default => None,
            ConfigSource::Text(text) => Some(text.clone()),
            ConfigSource::File(path) => {
                let unreadable = || format!("{}: cannot be read", self.name());
                let file = std::fs::File::open(path).with_context(unreadable)?;
                let mut text = String::new();
                file.take(MOST_BYTES + 1).read_to_string(&mut text).with_context(unreadable)?;
                Some(text)
            }
        })
    }

    /// How requests are scheduled by `text`. Notes are for the log.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn read(&self, text: Option<&str>, notes: &mut Vec<String>) -> anyhow::Result<SchedulingConfig> {
        let mut config = self.read_text(text, notes)?;
        if let Some(hold_empty) = self.hold_empty {
            config.flow = Arc::new(FlowSettings { hold_empty, ..FlowSettings::clone(&config.flow) });
        }
        Ok(config)
    }

    fn read_text(&self, text: Option<&str>, notes: &mut Vec<String>) -> anyhow::Result<SchedulingConfig> {
        let Some(text) = text else { return Ok(with(SchedulingConfig::default(), self.saturation)) };
        match SchedulingConfig::parse(text) {
            Ok(config) if text.contains("saturationDetector") => Ok(config),
            Ok(config) => Ok(with(config, self.saturation)),
            Err(_) if self.old && text.contains(DECISION_TREE) => {
                notes.push(format!(
                    "{}: the {DECISION_TREE} of v0.5 is not built: endpoints are chosen by queue, KV cache and prefix, as since v1.0",
                    self.name()
                ));
                Ok(with(SchedulingConfig::default(), self.saturation))
            }
            Err(error) => bail!("{}:\n{error}", self.name()),
        }
    }
}

/// The thresholds of the environment, where the configuration has none of its own.
fn with(mut config: SchedulingConfig, variables: SaturationVariables) -> SchedulingConfig {
    if let SaturationDetector::Utilization { thresholds, page_age, .. } = &mut config.detector {
        thresholds.queue = variables.queue.unwrap_or(thresholds.queue);
        thresholds.kv_cache_utilization = variables.kv_cache_utilization.unwrap_or(thresholds.kv_cache_utilization);
        *page_age = variables.page_age.or(*page_age);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_sets_thresholds_where_the_configuration_has_none() {
        let variables = SaturationVariables { queue: Some(7.0), ..SaturationVariables::default() };
        let read = |source: &ConfigSource| {
            let configuration = Configuration { source: source.clone(), saturation: variables, hold_empty: None, old: false };
            configuration.read(configuration.text().unwrap().as_deref(), &mut Vec::new()).unwrap()
        };
        let queue = |source: &ConfigSource| match read(source).detector {
            SaturationDetector::Utilization { thresholds, .. } => thresholds.queue,
            SaturationDetector::Concurrency { .. } => panic!("another detector"),
        };
        assert_eq!(queue(&ConfigSource::Default), 7.0);
        let header = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";
        let plain = format!("{header}- type: queue-scorer\n");
        assert_eq!(queue(&ConfigSource::Text(plain)), 7.0);
        let own = format!(
            "{header}- type: utilization-detector\n  parameters: {{ queueDepthThreshold: 9 }}\nsaturationDetector:\n  pluginRef: utilization-detector\n"
        );
        assert_eq!(queue(&ConfigSource::Text(own)), 9.0);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_trees_of_old_are_replaced() {
        let read = |text: &str, old: bool| {
            let mut notes = Vec::new();
            let source = ConfigSource::Text(text.to_owned());
            let configuration = Configuration { source, saturation: SaturationVariables::default(), hold_empty: None, old };
            let outcome = configuration.read(Some(text), &mut notes);
            outcome.map(|_| notes).map_err(|error| error.to_string())
        };
        let tree = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: decision-tree-filter\n";
        assert!(read(tree, false).unwrap_err().contains("decision-tree-filter"));
        assert!(read(tree, true).unwrap()[0].contains("by queue, KV cache and prefix"));
        assert!(read(": no YAML [", true).unwrap_err().starts_with("--config-text:\n"));
        let source = ConfigSource::File("no/such/file.yaml".into());
        let absent = Configuration { source, saturation: SaturationVariables::default(), hold_empty: None, old: false };
        let error = absent.text().unwrap_err();
        assert!(error.to_string().contains("--config-file no/such/file.yaml"), "{error}");
    }
}
