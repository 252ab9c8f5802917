//! What the director keeps of each endpoint beside what pages tell, in the order of the snapshot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;
use weir_datastore::{Endpoint, EndpointAddress, EndpointLoad, EndpointState, PoolSnapshot, SeenStart};

use super::Shared;
use crate::metrics::EndpointAttempts;
use crate::scheduling::config::facts_of;
use crate::scheduling::prefix::Holder;
use crate::scheduling::{EndpointMemory, Health, InFlight, SchedulingConfig};

/// The endpoints of a pool, as one topology has them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) members: Vec<Member>,
    /// Whose plugins read the labels.
    scheduling: Option<Arc<SchedulingConfig>>,
    by_address: HashMap<SocketAddr, usize>,
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Member {
    endpoint: Arc<Endpoint>,
    /// None where it is known by name only: gateways are told addresses.
    pub(super) address: Option<SocketAddr>,
    /// What plugins read from its labels.
    pub(super) facts: Box<[u64]>,
    pub(super) state: Arc<State>,
}

/// What lasts while the endpoint is there, and as long as requests are in flight.
#[derive(Debug)]
pub(super) struct State {
    pub(super) address: EndpointAddress,
    /// Upstream's name of it.
    pub(super) name: Arc<str>,
    pub(super) in_flight: InFlight,
    /// Tokens that the requests in flight are taken for.
    pub(super) tokens: AtomicU64,
    pub(super) memory: EndpointMemory,
    pub(super) health: Health,
    pub(super) attempts: EndpointAttempts,
    pub(super) holder: Holder,
    /// The start of its pod, where the beginning of that was seen.
    pub(super) start: Option<Arc<SeenStart>>,
    /// Prompt tokens that the server had processed by its last page: fewer mean that it started anew.
    prompt_tokens: Mutex<Option<f64>>,
}

impl Roster {
    /// Whether what is read of endpoints is what `scheduling` reads.
    pub(super) fn is_for(&self, scheduling: &Arc<SchedulingConfig>) -> bool {
        self.scheduling.as_ref().is_some_and(|known| Arc::ptr_eq(known, scheduling))
    }

    /// Whether the endpoints are those of `snapshot`, in its order, and what is read of them is what `scheduling` reads.
    pub(super) fn is_of(&self, snapshot: &PoolSnapshot, scheduling: &Arc<SchedulingConfig>) -> bool {
        self.is_for(scheduling)
            && self.members.len() == snapshot.endpoints.len()
            && self.members.iter().zip(&snapshot.endpoints).all(|(member, view)| Arc::ptr_eq(&member.endpoint, &view.endpoint))
    }

    /// What is kept of the endpoint at `address`.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Arc<State>> {
        self.by_address.get(&address).and_then(|index| self.members.get(*index)).map(|member| &member.state)
    }

    /// The roster of `snapshot`, with what was kept of the endpoints that stay.
    pub(super) fn renewed(&self, snapshot: &PoolSnapshot, scheduling: &Arc<SchedulingConfig>, shared: &Shared) -> Self {
        let identity = |endpoint: &Endpoint| {
            let spec = &endpoint.spec;
            (spec.address.clone(), spec.pod.clone(), spec.pod_uid.clone())
        };
        let mut known: HashMap<_, _> = self.members.iter().map(|member| (identity(&member.endpoint), &member.state)).collect();
        let mut members = Vec::with_capacity(snapshot.endpoints.len());
        let mut by_address = HashMap::with_capacity(snapshot.endpoints.len());
        for view in &snapshot.endpoints {
            let endpoint = view.endpoint.clone();
            let address = endpoint.spec.address.socket_address();
            let state = known.remove(&identity(&endpoint)).cloned().unwrap_or_else(|| {
                if address.is_none() {
                    let (pool, name) = (&snapshot.id, &endpoint.spec.address);
                    warn!(%pool, endpoint = %name, "no request goes there: gateways are told IP addresses; list it by its own");
                }
                Arc::new(State::new(&endpoint, snapshot, shared))
            });
            // Where a pod took over the address of one that goes away, responses are those of the one that is ready.
            if let Some(address) = address
                && (endpoint.spec.state == EndpointState::Ready || !by_address.contains_key(&address))
            {
                by_address.insert(address, members.len());
            }
            let facts = facts_of(&scheduling.facts, &endpoint.spec.labels);
            members.push(Member { endpoint, address, facts, state });
        }
        for gone in known.into_values() {
            shared.prefixes.remove_holder(gone.holder);
        }
        Self { members, scheduling: Some(scheduling.clone()), by_address }
    }
}

impl State {
    fn new(endpoint: &Endpoint, snapshot: &PoolSnapshot, shared: &Shared) -> Self {
        let spec = &endpoint.spec;
        let port = spec.address.socket_address().map_or(0, |address| address.port());
        Self {
            address: spec.address.clone(),
            name: format!("{}/{}-rank-{}", snapshot.id.namespace, spec.pod, spec.rank).into(),
            tokens: AtomicU64::new(0),
            memory: EndpointMemory::default(),
            in_flight: InFlight::new(shared.origin, (shared.tell)(&snapshot.id, &spec.address)),
            health: Health::new(shared.origin),
            attempts: shared.metrics.endpoint(spec.pod.clone(), snapshot.id.namespace.clone(), port),
            holder: shared.prefixes.add_holder(),
            start: endpoint.start().cloned(),
            prompt_tokens: Mutex::default(),
        }
    }

    /// Whether `page` shows that the server started anew since the page before. To be asked of pages in their order.
    pub(super) fn started_anew(&self, page: &EndpointLoad) -> bool {
        let Some(now) = page.counters.prompt_tokens else { return false };
        let before = self.prompt_tokens.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        before.is_some_and(|before| now < before)
    }
}
