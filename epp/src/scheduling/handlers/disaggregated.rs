//! `disagg-profile-handler`, and `pd-profile-handler` before it: prefill, decode and encode on servers of their own.

use std::sync::Arc;

use super::data_parallel::to_port;
use super::{Chosen, Placement, ProfileHandler, Runs, Stage, Unplaced};
use crate::scheduling::Decider;
use crate::scheduling::candidate::Candidate;
use crate::scheduling::profile::Selected;

/// Tells the decoding server's sidecar who computes the prompt.
const PREFILLER: &str = "x-prefiller-host-port";
/// Tells it who encodes images, sound and video.
const ENCODERS: &str = "x-encoder-hosts-ports";

/// Which stage is chosen first; the others may be near to it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StageOrder {
    /// Deciders are asked with the server that decodes.
    #[default]
    DecodeFirst,
    /// The prompt is always computed elsewhere.
    PrefillFirst,
}

/// Sends requests to a server that decodes. Where a decider says so, another one computes the prompt, and others encode; headers
/// name them. Where no server can be had for those stages, the one that decodes does it all.
#[derive(Clone, Debug)]
pub struct DisaggregatedProfileHandler {
    /// What comes first.
    pub order: StageOrder,
    /// Position of the profile that chooses who decodes.
    pub decode: usize,
    /// Position of the profile that chooses who computes prompts.
    pub prefill: Option<usize>,
    /// Position of the profile that chooses who encodes.
    pub encode: Option<usize>,
    /// Whether a prompt is computed elsewhere; without one none is, where decoding is chosen first.
    pub prefill_decider: Option<Arc<dyn Decider>>,
    /// Whether encoding is done elsewhere; without one it is not.
    pub encode_decider: Option<Arc<dyn Decider>>,
    /// The port of all ranks of a decoding server, where a header says which is meant.
    pub primary_port: Option<u16>,
}

impl ProfileHandler for DisaggregatedProfileHandler {
    fn schedule<'a>(&self, runs: &mut Runs<'_, 'a>) -> Result<Placement<'a>, Unplaced> {
        let (decode, prefill, encode) = match self.order {
            StageOrder::DecodeFirst => {
                let (profile, selected) = runs.run(self.decode, None)?;
                let first = selected.endpoints.first().copied();
                let encode = self.stage(runs, self.encode, self.encode_decider.as_ref(), first, None);
                let prefill = self.stage(runs, self.prefill, self.prefill_decider.as_ref(), first, first.as_ref());
                ((profile, selected), prefill, encode)
            }
            StageOrder::PrefillFirst => {
                let prefill = self.prefill.and_then(|position| runs.run(position, None).ok());
                let encode = self.stage(runs, self.encode, self.encode_decider.as_ref(), None, None);
                let peer = prefill.as_ref().and_then(|(_, selected)| selected.endpoints.first());
                (runs.run(self.decode, peer)?, prefill, encode)
            }
        };
        Ok(self.placement(decode, prefill, encode))
    }
}

type Run<'a> = (Arc<str>, Selected<'a>);

impl DisaggregatedProfileHandler {
    /// Runs the profile at `position` where `decider` says that the stage is worth it.
    fn stage<'a>(
        &self,
        runs: &mut Runs<'_, 'a>,
        position: Option<usize>,
        decider: Option<&Arc<dyn Decider>>,
        decode: Option<Candidate<'a>>,
        peer: Option<&Candidate<'a>>,
    ) -> Option<Run<'a>> {
        let (position, decider) = (position?, decider?);
        if !decider.disaggregates(runs.request(), decode.as_ref()) {
            return None;
        }
        runs.run(position, peer).ok()
    }

    fn placement<'a>(&self, decode: Run<'a>, prefill: Option<Run<'a>>, encode: Option<Run<'a>>) -> Placement<'a> {
        let disaggregation = match (&encode, &prefill) {
            (None, None) => "decode-only",
            (None, Some(_)) => "prefill-decode",
            (Some(_), None) => "encode-decode",
            (Some(_), Some(_)) => "encode-prefill-decode",
        };
        let joined = |endpoints: &[Candidate<'_>]| {
            endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>().join(",")
        };
        // A header that a client sent names whoever the client likes: it is taken out where none is set.
        let headers = vec![
            (PREFILLER, prefill.as_ref().map(|(_, selected)| joined(selected.endpoints.get(..1).unwrap_or_default()))),
            (ENCODERS, encode.as_ref().map(|(_, selected)| joined(&selected.endpoints))),
        ];
        let chosen = |stage, (profile, selected): Run<'a>| Chosen { stage, profile, endpoints: selected.endpoints };
        let explored = decode.1.explored;
        let mut placement = Placement {
            primary: chosen(Stage::Primary, decode),
            others: [(Stage::Prefill, prefill), (Stage::Encode, encode)]
                .into_iter()
                .filter_map(|(stage, run)| Some(chosen(stage, run?)))
                .collect(),
            explored,
            port: None,
            headers,
            disaggregation: Some(disaggregation),
        };
        if self.primary_port.is_some() {
            to_port(&mut placement, self.primary_port);
        }
        placement
    }
}
