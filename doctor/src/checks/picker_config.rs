//! What a picker was told to weigh.

use crate::facts::Facts;
use crate::facts::observed::{PickerConfig, Profile};
use crate::finding::{Check, Elsewhere, Family, Finding, Severity};
use crate::look::path;

pub(crate) static UNREADABLE: Check = Check {
    code: "picker-config-unreadable",
    title: "A picker's configuration is no EndpointPickerConfig",
    severity: Severity::Error,
    family: Family::Pool,
    about: "The next start of the picker fails: it refuses what it cannot read. Until then the running one goes on with the old.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_epp_config_in_step" },
    needs: &["pools", "services", "pods", "pickerConfigs"],
    run: unreadable,
};

pub(crate) static WEIGHTS: Check = Check {
    code: "picker-weights",
    title: "A plugin of a picker's configuration cannot matter",
    severity: Severity::Warning,
    family: Family::Pool,
    about: "A weight of 0 switches a scorer off, a `random-picker` looks at no score, and a profile that names a plugin which is not \
            declared is refused: the picker then balances by less than was meant.",
    elsewhere: Elsewhere::Told { log: true, metric: "weir_epp_config_idle_scorers" },
    needs: &["pools", "services", "pods", "pickerConfigs"],
    run: weights,
};

fn each_config(facts: &Facts, mut told: impl FnMut(&PickerConfig) -> Option<(String, String, String)>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for pool in facts.every_pool() {
        for config in facts.configs_of(pool) {
            let Some((what, evidence, remedy)) = told(config) else { continue };
            let object = format!("{}/{}", config.namespace.as_deref().unwrap_or("?"), config.source.as_deref().unwrap_or("?"));
            found.push(Finding::new("EndpointPickerConfig", object, what).evidence(evidence).remedy(remedy).pool(path(pool)));
        }
    }
    found
}

fn unreadable(facts: &Facts) -> Vec<Finding> {
    each_config(facts, |config| {
        let reason = config.unreadable.as_deref()?;
        let what = "cannot be read: the picker will not start with it";
        Some((
            what.to_owned(),
            reason.to_owned(),
            "mend the YAML; `weir epp --config-file FILE` says what is wrong with it".to_owned(),
        ))
    })
}

fn is_scorer(kind: &str) -> bool {
    kind.ends_with("-scorer") || kind == "scorer"
}

fn weights(facts: &Facts) -> Vec<Finding> {
    each_config(facts, |config| config.profiles.iter().flatten().find_map(|profile| of_profile(config, profile)))
}

fn of_profile(config: &PickerConfig, profile: &Profile) -> Option<(String, String, String)> {
    let declared = config.plugins.as_ref()?;
    // A plugin without a name is called by its type.
    let kind = |reference: &str| {
        let by_name = declared.iter().find(|plugin| plugin.name.as_deref() == Some(reference));
        by_name
            .or_else(|| declared.iter().find(|plugin| plugin.name.is_none() && plugin.r#type.as_deref() == Some(reference)))
            .map(|plugin| plugin.r#type.as_deref())
    };
    let name = profile.name.as_deref().unwrap_or("default");
    let plugins = profile.plugins.as_ref()?;
    let types_known = declared.iter().all(|plugin| plugin.r#type.is_some());
    for plugin in plugins {
        let reference = plugin.plugin_ref.as_deref()?;
        let Some(kind) = kind(reference) else {
            // It may be declared under a type that is not known.
            if !types_known {
                continue;
            }
            return Some((
                format!("profile {name} names a plugin that is not declared"),
                format!("schedulingProfiles[{name}].plugins has pluginRef {reference}; plugins has none of that name"),
                format!("plugins: [{{type: {reference}}}]"),
            ));
        };
        if plugin.weight == Some(0.0) && kind.is_some_and(is_scorer) {
            return Some((
                format!("plugin {reference} cannot matter"),
                format!("schedulingProfiles[{name}] gives it weight 0"),
                format!("weight: 1 for {reference}, or leave it out"),
            ));
        }
    }
    let kinds: Vec<_> = plugins.iter().filter_map(|plugin| kind(plugin.plugin_ref.as_deref()?)?).collect();
    let scorers = kinds.iter().filter(|kind| is_scorer(kind)).count();
    if scorers > 0 && kinds.contains(&"random-picker") {
        return Some((
            format!("the {scorers} scorers of profile {name} cannot matter"),
            "its picker is random-picker, which looks at no score".to_owned(),
            "type: max-score-picker in place of random-picker".to_owned(),
        ));
    }
    None
}
