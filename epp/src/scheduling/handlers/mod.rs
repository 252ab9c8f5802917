//! Which profiles run for a request, and what becomes of what they choose: profile handlers, one file each.

mod by_header;
mod data_parallel;
mod disaggregated;
mod single;

use std::fmt;
use std::sync::Arc;

pub use by_header::HeaderProfileHandler;
pub use data_parallel::DataParallelProfileHandler;
pub use disaggregated::{DisaggregatedProfileHandler, StageOrder};
pub use single::SingleProfileHandler;

use super::candidate::{Candidate, SchedulingRequest};
use super::profile::{Cycle, Profile, Selected};
use super::scratch::Scratch;
use crate::inference::Code;

/// Runs profiles and says where a request goes by what they chose.
pub trait ProfileHandler: fmt::Debug + Send + Sync {
    /// Where the request goes.
    ///
    /// # Errors
    /// Why it goes nowhere.
    fn schedule<'a>(&self, runs: &mut Runs<'_, 'a>) -> Result<Placement<'a>, Unplaced>;
}

/// What a stage of a request is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// It is sent there: decoding, where stages are apart.
    Primary,
    /// The server whose KV cache the primary one fetches.
    Prefill,
    /// The servers that encode what is no text.
    Encode,
}

/// What was chosen for a stage.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    /// Which stage.
    pub stage: Stage,
    /// The profile that chose.
    pub profile: Arc<str>,
    /// The endpoints, best first; never empty.
    pub endpoints: Vec<Candidate<'a>>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Placement<'a> {
    /// Where it is sent.
    pub primary: Chosen<'a>,
    /// Who else works on it.
    pub others: Vec<Chosen<'a>>,
    /// Whether the primary is an endpoint of unknown load though known ones exist.
    pub explored: bool,
    /// The port that it is sent to in place of each endpoint's own.
    pub port: Option<u16>,
    /// Headers that the request is to have, and those that it must not have whoever sent them.
    pub headers: Vec<(&'static str, Option<String>)>,
    /// How its stages are apart, as upstream calls it; none where stages are not known.
    pub disaggregation: Option<&'static str>,
}

impl<'a> Placement<'a> {
    /// What was chosen for each stage, the primary first.
    pub fn chosen(&self) -> impl Iterator<Item = &Chosen<'a>> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// What the profile called `name` chose; the primary's where that is empty.
    pub fn of_profile(&self, name: &str) -> Option<&Chosen<'a>> {
        if name.is_empty() { Some(&self.primary) } else { self.chosen().find(|chosen| *chosen.profile == *name) }
    }
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unplaced {
    /// What the caller is told.
    pub code: Code,
    /// In words.
    pub message: String,
}

impl Unplaced {
    /// No endpoint is left for the request.
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self { code: Code::ResourceExhausted, message: message.into() }
    }

    fn nothing_left(profile: &Profile, selected: &Selected<'_>) -> Self {
        match &selected.emptied_by {
            Some(filter) => Self::exhausted(format!("filter {filter} of profile {} left none", profile.name)),
            None => Self::exhausted(format!("profile {} had none to choose from", profile.name)),
        }
    }
}

/// The profiles of a configuration, ready to run for one request.
pub struct Runs<'r, 'a> {
    request: SchedulingRequest<'r>,
    profiles: &'r [Profile],
    scratch: &'r mut Scratch<'a>,
    cycle: Cycle<'r>,
}

impl<'r, 'a> Runs<'r, 'a> {
    /// Ready to choose among the candidates of `scratch`.
    pub fn new(request: SchedulingRequest<'r>, profiles: &'r [Profile], scratch: &'r mut Scratch<'a>, cycle: Cycle<'r>) -> Self {
        Self { request, profiles, scratch, cycle }
    }

    /// The request.
    pub fn request(&self) -> &SchedulingRequest<'r> {
        &self.request
    }

    /// Runs the profile at `position`, after which others may run. `peer` is what was chosen for another stage.
    fn run(&mut self, position: usize, peer: Option<&Candidate<'_>>) -> Result<(Arc<str>, Selected<'a>), Unplaced> {
        let Scratch { candidates, profile, buffers } = self.scratch;
        profile.clear();
        profile.extend_from_slice(candidates);
        let request = SchedulingRequest { peer: peer.map(|peer| peer.facts), ..self.request };
        let run = self.profiles.get(position).ok_or_else(no_profile)?;
        let selected = run.run(&request, profile, buffers, &mut self.cycle);
        if selected.endpoints.is_empty() { Err(Unplaced::nothing_left(run, &selected)) } else { Ok((run.name.clone(), selected)) }
    }

    /// Runs the profile at `position`, the last one that runs, and sends the request where that says.
    fn run_alone(&mut self, position: usize) -> Result<Placement<'a>, Unplaced> {
        let Scratch { candidates, buffers, .. } = self.scratch;
        let run = self.profiles.get(position).ok_or_else(no_profile)?;
        let selected = run.run(&self.request, candidates, buffers, &mut self.cycle);
        if selected.endpoints.is_empty() {
            return Err(Unplaced::nothing_left(run, &selected));
        }
        Ok(Placement {
            primary: Chosen { stage: Stage::Primary, profile: run.name.clone(), endpoints: selected.endpoints },
            others: Vec::new(),
            explored: selected.explored,
            port: None,
            headers: Vec::new(),
            disaggregation: None,
        })
    }
}

fn no_profile() -> Unplaced {
    Unplaced { code: Code::Internal, message: "the profile handler asks for a profile that there is not".to_owned() }
}
