//! One request to one place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;
use weir_datastore::{EndpointState, EndpointView, FailureKind, PoolSnapshot};

use super::outlook::Outlook;
use super::prompts::prompt_bytes;
use super::refusals::{denied, no_pool, shed, unplaced};
use super::roster::Roster;
use super::subset::Allowed;
use super::ticket::{Charge, Placed, Stages};
use super::{Shared, View};
use crate::inference::{InferenceRequest, Pick, Refusal, Subset};
use crate::journal::Followed;
use crate::metrics::ModelMetrics;
use crate::resources::Resolution;
use crate::scheduling::handlers::Chosen;
use crate::scheduling::prefix::{Holder, PrefixHashes, PrefixSettings, hash_prefix};
use crate::scheduling::{
    Candidate, Cycle, ExtensionPoint, Load, Named, Notes, Observer, Placement, Runs, SchedulingConfig, SchedulingRequest, Scratch,
    Stage, TokenEstimate,
};

/// The prefix of a request, and who was given how much of it before.
#[derive(Debug, Default)]
struct Prefix {
    hashes: PrefixHashes,
    block_tokens: usize,
    matches: HashMap<Holder, usize>,
}

impl Prefix {
    /// `request`, which has this prefix, as plugins are shown it: with its number, and when it is placed.
    fn asked<'a>(
        &self,
        request: &'a InferenceRequest,
        resolution: &'a Resolution,
        estimate: TokenEstimate,
        (turn, now): (u64, Instant),
        notes: &'a Notes,
    ) -> SchedulingRequest<'a> {
        SchedulingRequest {
            request,
            target_model: resolution.target_model(request),
            prefix_blocks: self.hashes.len(),
            block_tokens: self.block_tokens,
            priority: resolution.priority,
            estimate,
            now,
            turn,
            peer: None,
            notes,
        }
    }
}

/// What is known of a request once it came, and stays so while it waits.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) resolution: Resolution,
    pub(super) model: Arc<ModelMetrics>,
    rng: StdRng,
    pub(super) turn: u64,
}

/// What is asked before a request is placed.
pub(super) enum Admission<'a> {
    /// Below priority 0: that the pool is not full.
    Shed,
    /// That the candidates are no fuller than this makes of how full they are.
    Ceiling(&'a dyn Fn(f64) -> f64),
}

/// Why a request is not placed now.
pub(super) enum Hindrance {
    /// It never will be.
    Refused(Refusal),
    /// The candidates are too full for it.
    Full,
    /// There are no candidates, and so much is known of any to come.
    Empty(Outlook),
}

impl From<Refusal> for Hindrance {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Shared {
    /// A request came.
    pub(super) fn arrive(&self, request: &InferenceRequest) -> Arrival {
        let turn = self.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
        self.prompts.arrived(prompt_bytes(request));
        let mut rng = self.lots();
        let resources = self.resources.borrow().clone();
        let resolution = resources.resolve(request, &mut rng);
        let named = request.model.as_deref().unwrap_or_default();
        let target = resolution.target.as_deref().unwrap_or(named);
        let model = self.metrics.model(named, target);
        Arrival { resolution, model, rng, turn }
    }

    /// Places `request` now, or says why not.
    pub(super) fn place(
        self: &Arc<Self>,
        request: &InferenceRequest,
        arrival: &mut Arrival,
        admission: &Admission<'_>,
        now: Instant,
    ) -> Result<Pick, Hindrance> {
        let Arrival { resolution, model, rng, turn } = arrival;
        let turn = *turn;
        let scheduling = self.scheduling();
        let view = self.look(&scheduling, now).ok_or_else(no_pool)?;
        let View { snapshot, roster, .. } = &*view;
        let prefix = self.prefix(&scheduling, request, resolution.target_model(request), snapshot);
        let subset = self.lane(request);
        let notes = Notes::default();
        let trail = request.trail.as_deref();
        let followed = trail.map(|trail| Followed { metrics: &self.metrics, trail });
        let observer: &dyn Observer = followed.as_ref().map_or(&self.metrics, |followed| followed);
        let request = prefix.asked(request, resolution, scheduling.tokens, (turn, now), &notes);
        let seen = Seen { scheduling: &scheduling, snapshot, roster, prefix: &prefix, observer };
        let (placement, took) = self.choose(&request, seen, subset, admission, model, rng)?;
        let ticket = self.placed(&request, &placement, seen, model, took).ok_or_else(no_pool)?;
        let mut response_headers = Vec::new();
        for Named { name, plugin } in &scheduling.learners {
            let told = |_: &mut dyn Rng| plugin.placed(&request, &placement, &mut response_headers);
            cycle(rng, observer).timed(ExtensionPoint::PreRequest, name, told);
        }
        Ok(Pick {
            endpoints: destinations(&placement),
            target_model: resolution.target.clone(),
            request_headers: placement.headers,
            response_headers,
            ticket: Box::new(ticket),
        })
    }

    /// Endpoints for a request of which those that were picked could not be reached.
    pub(super) fn instead(&self, request: &InferenceRequest, unreached: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = Instant::now();
        let scheduling = self.scheduling();
        let Some(view) = self.look(&scheduling, now) else { return Vec::new() };
        let View { snapshot, roster, .. } = &*view;
        let mut rng = self.lots();
        let resolution = self.resources.borrow().clone().resolve(request, &mut rng);
        let prefix = self.prefix(&scheduling, request, resolution.target_model(request), snapshot);
        let subset = self.lane(request);
        let notes = Notes::default();
        let turn = self.arrivals.load(Ordering::Relaxed);
        let request = prefix.asked(request, &resolution, scheduling.tokens, (turn, now), &notes);
        Scratch::with(|scratch| {
            let candidates = &mut scratch.candidates;
            self.candidates(subset, snapshot, roster, &prefix.matches, candidates);
            candidates.retain(|candidate| !unreached.contains(&candidate.address));
            keep_healthy(candidates, snapshot, roster, now);
            if candidates.is_empty() {
                return Vec::new();
            }
            let cycle = cycle(&mut rng, &self.metrics);
            let placement = scheduling.handler.plugin.schedule(&mut Runs::new(request, &scheduling.profiles, scratch, cycle));
            // Filters may leave none: then there is no other.
            placement.map_or_else(|_none| Vec::new(), |placement| destinations(&placement))
        })
    }

    /// Where `request` goes, and how long choosing took.
    fn choose<'a>(
        &self,
        request: &SchedulingRequest<'_>,
        seen: Seen<'a>,
        subset: &Subset,
        admission: &Admission<'_>,
        model: &ModelMetrics,
        rng: &mut StdRng,
    ) -> Result<(Placement<'a>, Duration), Hindrance> {
        let Seen { scheduling, snapshot, roster, prefix, observer } = seen;
        Scratch::with(|scratch| {
            let candidates = &mut scratch.candidates;
            self.candidates(subset, snapshot, roster, &prefix.matches, candidates);
            if candidates.is_empty() {
                return Err(Hindrance::Empty(self.outlook(subset, snapshot)));
            }
            match admission {
                Admission::Shed if request.priority < 0 && scheduling.detector.saturation(candidates).sheds() => {
                    return Err(shed().into());
                }
                Admission::Ceiling(ceiling) => {
                    let saturation = scheduling.detector.expected_saturation(candidates).of_lane();
                    if saturation >= ceiling(saturation) {
                        return Err(Hindrance::Full);
                    }
                }
                Admission::Shed => {}
            }
            let trail = request.request.trail.as_deref();
            if let Some(trail) = trail {
                trail.schedules();
            }
            let kept_out = keep_healthy(candidates, snapshot, roster, request.now);
            for Named { name, plugin } in &scheduling.admitters {
                let admitted =
                    cycle(rng, observer).timed(ExtensionPoint::Admit, name, |rng| plugin.admit(request, candidates, rng));
                admitted.map_err(|why| denied(&why))?;
            }
            let (began, count) = (Instant::now(), candidates.len());
            let handler = &scheduling.handler.plugin;
            let mut placement = handler.schedule(&mut Runs::new(*request, &scheduling.profiles, scratch, cycle(rng, observer)));
            if placement.is_err() && kept_out {
                // Filters left none of the healthy: an ejected one is better than none.
                scratch.candidates.clear();
                self.candidates(subset, snapshot, roster, &prefix.matches, &mut scratch.candidates);
                placement = handler.schedule(&mut Runs::new(*request, &scheduling.profiles, scratch, cycle(rng, observer)));
            }
            let took = Instant::now().saturating_duration_since(began);
            if let Some(trail) = trail {
                trail.scheduled(began, took, count);
            }
            match placement {
                Ok(placement) => Ok((placement, took)),
                Err(why) => {
                    self.metrics.scheduling_failed(model, took);
                    Err(unplaced(&why).into())
                }
            }
        })
    }

    /// Tells whoever keeps count that the request goes there, until the ticket is dropped. None where nobody was chosen.
    fn placed(
        self: &Arc<Self>,
        request: &SchedulingRequest<'_>,
        placement: &Placement<'_>,
        seen: Seen<'_>,
        model: &Arc<ModelMetrics>,
        took: Duration,
    ) -> Option<Placed> {
        let state = |candidate: &Candidate<'_>| Some(seen.roster.members.get(candidate.index)?.state.clone());
        let first = state(placement.primary.endpoints.first()?)?;
        self.metrics.scheduled(&first.attempts, model, took);
        if placement.explored {
            self.metrics.explorations.inc();
        }
        if let Some(decision) = placement.disaggregation {
            self.metrics.disaggregated(&seen.scheduling.handler.name, model, decision);
        }
        for chosen in placement.chosen().filter(|chosen| chosen.stage != Stage::Encode) {
            if let Some(candidate) = chosen.endpoints.first() {
                self.remember(seen, candidate, chosen.stage);
            }
        }
        model.placed(request.priority, request.request.body_bytes);
        let charge = |chosen: &Chosen<'_>| {
            let candidate = chosen.endpoints.first()?;
            Some(Charge::new(state(candidate)?, request.tokens_at(candidate.matched_blocks), chosen.stage, request.now))
        };
        let aliases = match placement.port {
            None => Vec::new(),
            port => {
                let alias = |candidate: &Candidate<'_>| Some((destination(candidate.address, port), state(candidate)?));
                placement.primary.endpoints.iter().filter_map(alias).collect()
            }
        };
        let stages = Stages {
            charge: charge(&placement.primary)?,
            others: placement.others.iter().filter_map(charge).collect(),
            aliases,
            until_first_token: request.estimate.until_first_token(),
        };
        Some(Placed::new(self.clone(), stages, model.clone(), request.request, request.now))
    }

    fn prefix(
        &self,
        scheduling: &SchedulingConfig,
        request: &InferenceRequest,
        target_model: Option<&str>,
        snapshot: &PoolSnapshot,
    ) -> Prefix {
        let Some(settings) = scheduling.prefix.as_ref().filter(|_| !request.prefix.is_empty()) else {
            return Prefix::default();
        };
        let told = snapshot.endpoints.iter().find_map(|view| geometry(view).map(|(tokens, _)| tokens));
        let block_tokens = settings.block_tokens(told);
        let hashes = hash_prefix(settings, block_tokens, target_model, request.cache_salt.as_deref(), &request.prefix);
        let matches = self.prefixes.matches(&hashes);
        Prefix { hashes, block_tokens, matches }
    }

    /// Adds the ready endpoints of `snapshot` that `subset` allows.
    pub(super) fn candidates<'a>(
        &self,
        subset: &Subset,
        snapshot: &'a PoolSnapshot,
        roster: &'a Roster,
        matches: &HashMap<Holder, usize>,
        candidates: &mut Vec<Candidate<'a>>,
    ) {
        let allowed = Allowed::new(subset);
        candidates.reserve(snapshot.endpoints.len());
        for (index, (view, member)) in snapshot.endpoints.iter().zip(&roster.members).enumerate() {
            let Some(address) = member.address else { continue };
            if view.endpoint.spec.state != EndpointState::Ready || !allowed.contains(address) {
                continue;
            }
            let state = &member.state;
            let load = view.fresh_load().map(|page| Load {
                page,
                unseen: state.in_flight.unseen(page.scraped_at),
                age: snapshot.taken_at.saturating_duration_since(page.scraped_at),
            });
            candidates.push(Candidate {
                index,
                name: &state.name,
                address,
                labels: &view.endpoint.spec.labels,
                facts: &member.facts,
                memory: &state.memory,
                load,
                in_flight: state.in_flight.total(),
                tokens_in_flight: state.tokens.load(Ordering::Relaxed),
                matched_blocks: if matches.is_empty() { 0 } else { matches.get(&state.holder).copied().unwrap_or(0) },
            });
        }
    }

    /// The endpoint has the prompt from now on.
    fn remember(&self, seen: Seen<'_>, candidate: &Candidate<'_>, stage: Stage) {
        let prefix = seen.prefix;
        let (Some(settings), false) = (&seen.scheduling.prefix, prefix.hashes.is_empty()) else { return };
        let Some(member) = seen.roster.members.get(candidate.index) else { return };
        let geometry = seen.snapshot.endpoints.get(candidate.index).and_then(geometry);
        self.prefixes.record(member.state.holder, &prefix.hashes, settings.capacity(geometry, prefix.block_tokens));
        if stage == Stage::Primary {
            let block_bytes = PrefixSettings::block_bytes(prefix.block_tokens);
            self.metrics.prefix(candidate.matched_blocks, prefix.hashes.len(), block_bytes);
        }
    }
}

/// What a request is placed by.
#[derive(Clone, Copy)]
struct Seen<'a> {
    scheduling: &'a SchedulingConfig,
    snapshot: &'a PoolSnapshot,
    roster: &'a Roster,
    prefix: &'a Prefix,
    /// Who is told how long plugins take.
    observer: &'a dyn Observer,
}

fn cycle<'a>(rng: &'a mut StdRng, observer: &'a dyn Observer) -> Cycle<'a> {
    Cycle { rng, clock: &Instant::now, observer }
}

/// Where the gateway is told to send what this is the place of, the best first.
fn destinations(placement: &Placement<'_>) -> Vec<SocketAddr> {
    placement.primary.endpoints.iter().map(|candidate| destination(candidate.address, placement.port)).collect()
}

/// Where the gateway is told to send what `endpoint` is to serve.
fn destination(endpoint: SocketAddr, port: Option<u16>) -> SocketAddr {
    SocketAddr::new(endpoint.ip(), port.unwrap_or(endpoint.port()))
}

/// Takes away endpoints that fail requests or refuse connections, unless nobody would be left. Whether any is taken away.
fn keep_healthy(candidates: &mut Vec<Candidate<'_>>, snapshot: &PoolSnapshot, roster: &Roster, now: Instant) -> bool {
    let healthy = |candidate: &Candidate<'_>| {
        let (view, member) = (snapshot.endpoints.get(candidate.index), roster.members.get(candidate.index));
        member.is_some_and(|member| member.state.health.admits(now)) && !view.is_some_and(refuses_connections)
    };
    let before = candidates.len();
    if candidates.iter().any(healthy) {
        candidates.retain(healthy);
    }
    candidates.len() < before
}

/// Whether the last attempt at its page found nobody there. Once is enough: an idle server is tried again within a second, and until
/// then its requests would fail.
fn refuses_connections(view: &EndpointView) -> bool {
    view.status.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Connect)
}

/// Tokens a block and blocks of an endpoint's KV cache, by the last page that told them.
fn geometry(view: &EndpointView) -> Option<(u64, u64)> {
    let units = &view.status.load.as_ref()?.units;
    let first = units.iter().find(|unit| unit.block_size.is_some())?;
    // The units of one model are the server's ranks, each with blocks of its own.
    let ranks = units.iter().filter(|unit| unit.model == first.model);
    Some((first.block_size?, ranks.filter_map(|unit| unit.blocks).fold(0, u64::saturating_add)))
}
