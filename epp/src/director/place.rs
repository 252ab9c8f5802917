//! One request to one place.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use tokio::time::Instant;
use weir_datastore::{EndpointState, EndpointView, FailureKind, PoolSnapshot};

use super::Shared;
use super::refusals::{no_candidates, nothing_left, shed};
use super::roster::{Member, Roster};
use super::subset::Allowed;
use super::ticket::Placed;
use crate::inference::{InferenceRequest, Pick, Refusal, Subset};
use crate::metrics::ModelMetrics;
use crate::resources::Resolution;
use crate::scheduling::prefix::{Holder, PrefixHashes, PrefixSettings, hash_prefix};
use crate::scheduling::{Candidate, Cycle, Health, Load, SchedulingRequest};

/// Failures in a row to connect to an endpoint's metrics page after which no request is sent there. One is enough where a request
/// failed there too.
const REFUSED_CONNECTIONS: u32 = 2;

/// The prefix of a request, and who was given how much of it before.
#[derive(Debug, Default)]
struct Prefix {
    hashes: PrefixHashes,
    block_tokens: usize,
    matches: HashMap<Holder, usize>,
}

impl Shared {
    /// Places `request` at once, or refuses it.
    pub(super) fn place(self: &Arc<Self>, request: &InferenceRequest, now: Instant) -> Result<Pick, Refusal> {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        let mut rng = self.lots();
        let resources = self.resources.borrow().clone();
        let resolution = resources.resolve(request, &mut rng);
        let named = request.model.as_deref().unwrap_or_default();
        let target = resolution.target.as_deref().unwrap_or(named);
        let model = self.metrics.model(named, target);
        let placed = self.place_resolved(request, &resolution, &model, &mut rng, now);
        match &placed {
            Ok(_) => {
                if let Some(rewrite) = &resolution.rewritten_by {
                    self.metrics.rewritten(rewrite, &model);
                }
            }
            Err(refusal) => model.refused(refusal.code),
        }
        placed
    }

    fn place_resolved(
        self: &Arc<Self>,
        request: &InferenceRequest,
        resolution: &Resolution,
        model: &Arc<ModelMetrics>,
        rng: &mut StdRng,
        now: Instant,
    ) -> Result<Pick, Refusal> {
        let (snapshot, roster) = self.look(now).ok_or_else(no_candidates)?;
        let target_model = resolution.target.as_deref().or(request.model.as_deref());
        let prefix = self.prefix(request, target_model, &snapshot);
        let subset = if self.settings.honour_subset { &request.subset } else { &Subset::All };
        let mut candidates = self.candidates(subset, &snapshot, &roster, &prefix.matches);
        if resolution.priority < 0 && self.settings.scheduling.detector.saturation(&candidates).sheds() {
            return Err(shed());
        }
        if candidates.is_empty() {
            return Err(no_candidates());
        }
        keep_healthy(&mut candidates, &snapshot, &roster, now);
        let scheduled = SchedulingRequest { request, target_model, prefix_blocks: prefix.hashes.len() };
        let began = Instant::now();
        let profile = &self.settings.scheduling.profile;
        let selected = profile.run(&scheduled, candidates, Cycle { rng, clock: &Instant::now, observer: &self.metrics });
        let took = Instant::now().saturating_duration_since(began);
        let members = selected.indices.iter().filter_map(|index| roster.members.get(*index));
        let endpoints: Vec<SocketAddr> = members.filter_map(|member| member.address).collect();
        let Some(first) = selected.indices.first().and_then(|index| roster.members.get(*index)).filter(|_| !endpoints.is_empty())
        else {
            self.metrics.scheduling_failed(model, took);
            return Err(nothing_left(&selected));
        };
        self.metrics.scheduled(&first.state.attempts, model, took);
        if selected.explored {
            self.metrics.explorations.inc();
        }
        self.remember(&prefix, first, snapshot.endpoints.get(selected.indices[0]));
        model.placed(resolution.priority, request.body_bytes);
        let ticket = Placed::new(self.clone(), first.state.clone(), model.clone(), request.received, now);
        Ok(Pick { endpoints, target_model: resolution.target.clone(), ticket: Box::new(ticket) })
    }

    fn prefix(&self, request: &InferenceRequest, target_model: Option<&str>, snapshot: &PoolSnapshot) -> Prefix {
        let Some(settings) = self.settings.scheduling.prefix.as_ref().filter(|_| !request.prefix.is_empty()) else {
            return Prefix::default();
        };
        let told = snapshot.endpoints.iter().find_map(|view| geometry(view).map(|(tokens, _)| tokens));
        let block_tokens = settings.block_tokens(told);
        let hashes = hash_prefix(settings, block_tokens, target_model, request.cache_salt.as_deref(), &request.prefix);
        let matches = self.prefixes.matches(&hashes);
        Prefix { hashes, block_tokens, matches }
    }

    /// The ready endpoints of `snapshot` that `subset` allows.
    pub(super) fn candidates<'a>(
        &self,
        subset: &Subset,
        snapshot: &'a PoolSnapshot,
        roster: &'a Roster,
        matches: &HashMap<Holder, usize>,
    ) -> Vec<Candidate<'a>> {
        let allowed = Allowed::new(subset);
        let mut candidates = Vec::with_capacity(snapshot.endpoints.len());
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
                address,
                labels: &view.endpoint.spec.labels,
                load,
                in_flight: state.in_flight.total(),
                matched_blocks: if matches.is_empty() { 0 } else { matches.get(&state.holder).copied().unwrap_or(0) },
            });
        }
        candidates
    }

    /// The endpoint has the prompt from now on.
    fn remember(&self, prefix: &Prefix, member: &Member, view: Option<&EndpointView>) {
        let (Some(settings), false) = (&self.settings.scheduling.prefix, prefix.hashes.is_empty()) else { return };
        let matched = prefix.matches.get(&member.state.holder).copied().unwrap_or(0);
        let capacity = settings.capacity(view.and_then(geometry), prefix.block_tokens);
        self.prefixes.record(member.state.holder, &prefix.hashes, capacity);
        let block_bytes = PrefixSettings::block_bytes(prefix.block_tokens);
        self.metrics.prefix(matched, prefix.hashes.len(), block_bytes);
    }
}

/// Takes away endpoints that fail requests or refuse connections, unless nobody would be left.
fn keep_healthy(candidates: &mut Vec<Candidate<'_>>, snapshot: &PoolSnapshot, roster: &Roster, now: Instant) {
    let healthy = |candidate: &Candidate<'_>| {
        let (view, member) = (snapshot.endpoints.get(candidate.index), roster.members.get(candidate.index));
        let health = member.map(|member| &member.state.health);
        health.is_some_and(|health| health.admits(now) && !view.is_some_and(|view| refuses_connections(view, health)))
    };
    if candidates.iter().any(healthy) {
        candidates.retain(healthy);
    }
}

fn refuses_connections(view: &EndpointView, health: &Health) -> bool {
    let enough = if health.in_doubt() { 1 } else { REFUSED_CONNECTIONS };
    let failure = view.status.failure.as_ref();
    failure.is_some_and(|failure| failure.kind == FailureKind::Connect && failure.attempts >= enough)
}

/// Tokens a block and blocks of an endpoint's KV cache, by the last page that told them.
fn geometry(view: &EndpointView) -> Option<(u64, u64)> {
    let units = &view.status.load.as_ref()?.units;
    let first = units.iter().find(|unit| unit.block_size.is_some())?;
    // The units of one model are the server's ranks, each with blocks of its own.
    let ranks = units.iter().filter(|unit| unit.model == first.model);
    Some((first.block_size?, ranks.filter_map(|unit| unit.blocks).fold(0, u64::saturating_add)))
}
