//! The plugins of the list and the profiles that name them, put together.

use std::sync::Arc;

use super::data_layer::DataLayer;
use super::handlers::Finder;
use super::needs::{Needs, Place};
use super::table::{Part, Roles};
use super::yaml::did_you_mean;
use super::{Declared, EXPLORATION, Reader, SchedulingConfig, single_profile_handler};
use crate::request::Parsers;
use crate::scheduling::filters::SaturatedFilter;
use crate::scheduling::pickers::MaxScorePicker;
use crate::scheduling::{Filter, Learner, Named, Picker, PluginName, Profile, ProfileHandler, SaturationDetector, Weighted};

/// A profile as written.
pub(super) struct Written {
    pub(super) name: Arc<str>,
    pub(super) used: Vec<Used>,
    pub(super) place: Place,
}

/// A plugin of a profile.
pub(super) struct Used {
    pub(super) plugin: Declared,
    pub(super) weight: f64,
}

pub(super) fn max_score_picker() -> Named<dyn Picker> {
    Named { name: PluginName::of_type("max-score-picker"), plugin: Arc::new(MaxScorePicker { most: 1 }) }
}

impl Reader {
    /// The whole of it. Where no profile was written, there is one of all plugins.
    pub(super) fn assemble(&mut self, mut written: Vec<Written>, detector: SaturationDetector) -> SchedulingConfig {
        self.check_references();
        self.check_names(&written);
        let implied = written.is_empty();
        let second = written.get(1).map(|second| second.place.clone());
        if implied {
            let used = self.plugins.iter().map(|plugin| Used { plugin: plugin.clone(), weight: 1.0 }).collect();
            written.push(Written { name: "default".into(), used, place: self.first_place() });
        }
        let mut learners = Vec::new();
        let profiles: Vec<Profile> =
            written.into_iter().map(|written| self.assemble_profile(written, implied, &mut learners)).collect();
        let handler = self.handler(&profiles, second);
        let declared = || self.plugins.iter();
        let prefix = declared().find_map(|plugin| match plugin.part {
            Part::PrefixProducer(settings) => Some(settings),
            _ => None,
        });
        let tokens = declared().find_map(|plugin| match plugin.part {
            Part::TokenProducer(estimate) => Some(estimate),
            _ => None,
        });
        let admitters = declared().filter_map(|plugin| match &plugin.part {
            Part::Admitter(admitter) => Some(Named { name: plugin.name.clone(), plugin: admitter.clone() }),
            _ => None,
        });
        let (admitters, verify_served) =
            (admitters.collect(), declared().any(|plugin| matches!(plugin.part, Part::ServedVerifier)));
        let reporters = declared().filter_map(|plugin| match &plugin.part {
            Part::Reporter(reporter) => Some(reporter.clone()),
            _ => None,
        });
        let reporters = reporters.collect();
        let source =
            declared().find_map(|plugin| if let Part::PageSource(source) = &plugin.part { Some(source.clone()) } else { None });
        let extraction =
            declared().find_map(|plugin| if let Part::Extraction(part) = &plugin.part { Some(part.clone()) } else { None });
        let data_layer = DataLayer::new(source.unwrap_or_default(), extraction.unwrap_or_default());
        let parameters = declared().map(|plugin| (plugin.name.name.clone(), plugin.parameters.clone())).collect();
        let parameters = Arc::new(parameters);
        let default = if self.llm_d { SchedulingConfig::llm_d() } else { SchedulingConfig::default() };
        let Needs { facts, headers, prefix: wanted, prefix_settings, .. } = std::mem::take(&mut self.needs);
        SchedulingConfig {
            profiles,
            handler,
            admitters,
            learners,
            facts,
            headers: headers.into(),
            tokens: tokens.unwrap_or(default.tokens),
            prefix: if wanted { prefix.or(prefix_settings).or(default.prefix) } else { None },
            detector,
            verify_served,
            data_layer,
            flow: default.flow,
            llm_d: self.llm_d,
            parameters,
            parsers: Parsers::default(),
            reporters,
        }
    }

    /// A profile, whose learners are added where they are not yet. Where it is implied, detectors of the list are no filters: they
    /// detect.
    fn assemble_profile(&self, written: Written, implied: bool, learners: &mut Vec<Named<dyn Learner>>) -> Profile {
        let mut filters: Vec<Named<dyn Filter>> = Vec::new();
        let (mut scorers, mut picker) = (Vec::new(), None);
        for Used { plugin: Declared { name, part, .. }, weight } in written.used {
            match part {
                Part::Profile(Roles { filter, scorer, learner }) => {
                    filters.extend(filter.map(|plugin| Named { name: name.clone(), plugin }));
                    scorers.extend(scorer.map(|plugin| Weighted { scorer: Named { name: name.clone(), plugin }, weight }));
                    if learners.iter().all(|learner| learner.name.name != name.name) {
                        learners.extend(learner.map(|plugin| Named { name, plugin }));
                    }
                }
                Part::Detector(detector) if !implied => {
                    filters.push(Named { name, plugin: Arc::new(SaturatedFilter { detector }) });
                }
                Part::Picker(plugin) => picker = picker.or(Some(Named { name, plugin })),
                _ => {}
            }
        }
        let declared_picker = || {
            self.plugins.iter().find_map(|plugin| match &plugin.part {
                Part::Picker(picker) => Some(Named { name: plugin.name.clone(), plugin: picker.clone() }),
                _ => None,
            })
        };
        let picker = picker.or_else(declared_picker).unwrap_or_else(max_score_picker);
        Profile { name: written.name, filters, scorers, picker, exploration: EXPLORATION }
    }

    /// The handler of the list. `second` is the place of the second profile.
    fn handler(&mut self, profiles: &[Profile], second: Option<Place>) -> Named<dyn ProfileHandler> {
        let mut declared = self.plugins.iter().filter(|plugin| matches!(plugin.part, Part::Handler(_)));
        let Some(Declared { name, part: Part::Handler(parameters), place, .. }) = declared.next() else {
            if let Some(place) = second {
                let message = "is a second profile, and no profile handler chooses among them: add header-profile-handler or \
                               disagg-profile-handler";
                self.reading.refuse_at(place.at, &place.field, message.to_owned());
            }
            return single_profile_handler();
        };
        if let Some(another) = declared.next() {
            let message = format!("there is one profile handler already, `{}`: keep one of them", name.name);
            self.reading.refuse_at(another.place.at, &another.place.field, message);
        }
        let mut finder = Finder { reading: &mut self.reading, plugins: &self.plugins, profiles, place: place.clone() };
        Named { name: name.clone(), plugin: finder.handler(parameters) }
    }

    /// Plugins that others name as the makers of their data.
    fn check_references(&mut self) {
        for reference in std::mem::take(&mut self.needs.references) {
            let of_kind = self.plugins.iter().filter(|plugin| plugin.name.kind == reference.kind);
            let mut names = of_kind.map(|plugin| &*plugin.name.name).chain([reference.kind]);
            if names.clone().all(|name| *name != *reference.name) {
                let (name, kind) = (&reference.name, reference.kind);
                let way_out = did_you_mean(name, names.by_ref().collect::<Vec<_>>().into_iter());
                self.reading.refuse_at(
                    reference.place.at,
                    &reference.place.field,
                    format!("no {kind} is called `{name}`{way_out}"),
                );
            }
        }
    }

    fn check_names(&mut self, written: &[Written]) {
        for (position, profile) in written.iter().enumerate() {
            if written.iter().take(position).any(|before| before.name == profile.name) {
                let message = format!("there is a profile `{}` already: give one of them another name", profile.name);
                self.reading.refuse_at(profile.place.at, &profile.place.field, message);
            }
        }
    }

    fn first_place(&self) -> Place {
        let first = self.plugins.first().map(|plugin| plugin.place.clone());
        first.unwrap_or_default()
    }
}
