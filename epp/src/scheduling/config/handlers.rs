//! Profile handlers: their parameters name profiles and deciders, which are found once everything is read.

use std::sync::Arc;

use super::needs::Place;
use super::parameters::Parameters;
use super::table::Part;
use super::yaml::{Reading, did_you_mean};
use super::{Declared, Profile};
use crate::scheduling::handlers::{
    DataParallelProfileHandler, DisaggregatedProfileHandler, HeaderProfileHandler, SingleProfileHandler, StageOrder,
};
use crate::scheduling::{Decider, ProfileHandler};

/// The name of something else, and where it stands.
type Name = (Arc<str>, Place);

/// A profile handler as written.
#[derive(Clone, Debug)]
pub(super) enum HandlerParameters {
    Single,
    ByHeader { header: Arc<str>, default: Option<Name> },
    DataParallel { port: Option<u16> },
    Disaggregated(Box<Stages>),
}

/// The stages of `disagg-profile-handler` as written.
#[derive(Clone, Debug)]
pub(super) struct Stages {
    order: StageOrder,
    decode: Option<Name>,
    prefill: Option<Name>,
    encode: Option<Name>,
    prefill_decider: Option<Name>,
    encode_decider: Option<Name>,
    port: Option<u16>,
}

const DECODE: &str = "decode";
const PREFILL: &str = "prefill";
const ENCODE: &str = "encode";

impl HandlerParameters {
    pub(super) fn by_header(parameters: &mut Parameters<'_, '_>) -> Self {
        let header = parameters.text("headerName").unwrap_or_else(|| "epp-profile".to_owned());
        Self::ByHeader { header: parameters.header(&header), default: parameters.reference("defaultProfile") }
    }

    pub(super) fn data_parallel(parameters: &mut Parameters<'_, '_>) -> Self {
        Self::DataParallel { port: port(parameters, 8000) }
    }

    pub(super) fn disaggregated(parameters: &mut Parameters<'_, '_>) -> Self {
        // Spelt with or without dashes, as upstream reads it.
        let orders = [
            ("decode-first", StageOrder::DecodeFirst),
            ("prefill-first", StageOrder::PrefillFirst),
            ("decode", StageOrder::DecodeFirst),
            ("prefill", StageOrder::PrefillFirst),
            ("decodeFirst", StageOrder::DecodeFirst),
            ("prefillFirst", StageOrder::PrefillFirst),
            ("decode_first", StageOrder::DecodeFirst),
            ("prefill_first", StageOrder::PrefillFirst),
        ];
        let order = parameters.choice("stageOrder", StageOrder::default(), &orders);
        let nested = parameters.given("profiles") || parameters.given("deciders");
        let [mut decode, mut prefill, mut encode] =
            parameters.nested("profiles", |names| [DECODE, PREFILL, ENCODE].map(|name| names.reference(name)));
        let [mut prefill_decider, mut encode_decider] =
            parameters.nested("deciders", |names| [PREFILL, ENCODE].map(|name| names.reference(name)));
        let mut flat = |name: &'static str, into: &mut Option<Name>| {
            if nested {
                parameters.refused(name, "is the old way of writing it: write it within `profiles` or `deciders`, as the others");
            } else if let Some(given) = parameters.reference(name) {
                into.get_or_insert(given);
            }
        };
        flat("decodeProfile", &mut decode);
        flat("prefillProfile", &mut prefill);
        flat("encodeProfile", &mut encode);
        flat("prefillDeciderPluginName", &mut prefill_decider);
        flat("deciderPluginName", &mut prefill_decider);
        flat("encodeDeciderPluginName", &mut encode_decider);
        if order == StageOrder::PrefillFirst && prefill_decider.is_some() {
            parameters.contradiction("prefill first asks no decider whether to prefill elsewhere: remove the decider".to_owned());
        }
        Self::Disaggregated(Box::new(Stages { order, decode, prefill, encode, prefill_decider, encode_decider, port: None }))
    }

    pub(super) fn prefill_decode(parameters: &mut Parameters<'_, '_>) -> Self {
        parameters.ignored("prefixPluginType");
        parameters.ignored("prefixPluginName");
        parameters.producer("prefixMatchInfoProducerName", "approx-prefix-cache-producer");
        let given = parameters.reference("deciderPluginName");
        let prefill_decider = given.unwrap_or_else(|| ("prefix-based-pd-decider".into(), parameters.place("deciderPluginName")));
        Self::Disaggregated(Box::new(Stages {
            order: StageOrder::DecodeFirst,
            decode: parameters.reference("decodeProfile"),
            prefill: parameters.reference("prefillProfile"),
            encode: None,
            prefill_decider: Some(prefill_decider),
            encode_decider: None,
            port: port(parameters, 0),
        }))
    }
}

fn port(parameters: &mut Parameters<'_, '_>, default: usize) -> Option<u16> {
    u16::try_from(parameters.whole("primaryPort", default, 0..=usize::from(u16::MAX))).ok().filter(|port| *port > 0)
}

/// Finds what a handler names.
pub(super) struct Finder<'all> {
    pub(super) reading: &'all mut Reading,
    pub(super) plugins: &'all [Declared],
    pub(super) profiles: &'all [Profile],
    /// Where the handler is written.
    pub(super) place: Place,
}

impl Finder<'_> {
    /// The handler.
    pub(super) fn handler(&mut self, parameters: &HandlerParameters) -> Arc<dyn ProfileHandler> {
        match parameters {
            HandlerParameters::Single => {
                self.only_profile();
                Arc::new(SingleProfileHandler)
            }
            HandlerParameters::ByHeader { header, default } => {
                let profiles = self.profiles.iter().map(|profile| profile.name.clone()).collect();
                Arc::new(HeaderProfileHandler { header: header.clone(), profiles, default: self.profile(default.as_ref(), DECODE) })
            }
            HandlerParameters::DataParallel { port } => {
                self.only_profile();
                Arc::new(DataParallelProfileHandler { port: *port })
            }
            HandlerParameters::Disaggregated(stages) => Arc::new(self.disaggregated(stages)),
        }
    }

    fn disaggregated(&mut self, stages: &Stages) -> DisaggregatedProfileHandler {
        let decode = self.profile(stages.decode.as_ref(), DECODE);
        if decode.is_none() && stages.decode.is_none() {
            self.refuse_here(format!("needs a profile called `{DECODE}`: write one, or name another one in `profiles.decode`"));
        }
        DisaggregatedProfileHandler {
            order: stages.order,
            decode: decode.unwrap_or_default(),
            prefill: self.profile(stages.prefill.as_ref(), PREFILL),
            encode: self.profile(stages.encode.as_ref(), ENCODE),
            prefill_decider: stages.prefill_decider.as_ref().and_then(|name| self.decider(name)),
            encode_decider: stages.encode_decider.as_ref().and_then(|name| self.decider(name)),
            primary_port: stages.port,
        }
    }

    /// Position of the profile that is named; of the one called `default` where none is, if there is one.
    fn profile(&mut self, named: Option<&Name>, default: &str) -> Option<usize> {
        let position = |name: &str| self.profiles.iter().position(|profile| *profile.name == *name);
        let Some((name, place)) = named else { return position(default) };
        let found = position(name);
        if found.is_none() {
            let way_out = did_you_mean(name, self.profiles.iter().map(|profile| &*profile.name));
            self.reading.refuse_at(place.at, &place.field, format!("there is no profile `{name}`{way_out}"));
        }
        found
    }

    fn decider(&mut self, (name, place): &Name) -> Option<Arc<dyn Decider>> {
        let deciders = self.plugins.iter().filter(|plugin| matches!(plugin.part, Part::Decider(_)));
        let found = deciders.clone().find(|plugin| plugin.name.name == *name);
        let Some(Declared { part: Part::Decider(decider), .. }) = found else {
            let way_out = did_you_mean(name, deciders.map(|plugin| &*plugin.name.name));
            self.reading.refuse_at(place.at, &place.field, format!("there is no decider `{name}` in the list{way_out}"));
            return None;
        };
        Some(decider.clone())
    }

    fn only_profile(&mut self) {
        if self.profiles.len() > 1 {
            let count = self.profiles.len();
            self.refuse_here(format!(
                "runs one profile, and there are {count}: use header-profile-handler or disagg-profile-handler, or keep one"
            ));
        }
    }

    fn refuse_here(&mut self, message: String) {
        self.reading.refuse_at(self.place.at, &self.place.field, message);
    }
}
