//! Which endpoint a session belongs to: what `session-affinity-scorer` and `session-affinity-filter` share.
//!
//! Either the client carries it (a token on each response, given back with the next request), or it is remembered here by the
//! session's id. What is remembered is bounded, and forgotten once the session was quiet for long.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use tokio::time::Instant;

use super::config::Parameters;
use super::handlers::Placement;
use super::{Candidate, NoteBit, SchedulingRequest};

/// Sessions that are remembered, over all shards; the quietest are forgotten first. About 100 bytes each.
const MOST_SESSIONS: usize = 131_072;
/// Sessions are kept apart in so many parts, so that requests do not wait for each other.
const SHARDS: usize = 32;

/// Which endpoint a session belongs to.
#[derive(Debug)]
pub(super) struct SessionAffinity {
    strategy: Strategy,
    /// The profile whose choice counts; empty: the one that the request is sent by.
    profile: String,
}

#[derive(Debug)]
enum Strategy {
    /// The token is the endpoint's name in base64, in this header of requests and responses.
    Token(Arc<str>),
    /// Remembered here by an id.
    Id(Sessions),
}

impl SessionAffinity {
    pub(super) fn read(parameters: &mut Parameters<'_, '_>) -> Self {
        let by_id = parameters.choice("strategy", false, &[("encoded_endpoint_header", false), ("session_id", true)]);
        let token = parameters.nested("encodedEndpointHeaderConfig", |config| {
            let header = config.text("header");
            (!by_id).then(|| config.header(&header.unwrap_or_else(|| "x-session-token".to_owned())))
        });
        let sessions = parameters.nested("sessionIdConfig", |config| {
            let headers = config.each("sources", |source| {
                let why = "names what another plugin makes of a request: write `header`, with the header that has the id";
                source.refused("attribute", why);
                source.refused("producer", why);
                source.required_text("header", "name the header that has the id")
            });
            let ttl = config.seconds("evictionTtlSeconds", 300);
            // What is due is forgotten whenever a session is remembered: nothing sweeps.
            config.seconds("evictionSweepSeconds", 10);
            by_id.then(|| {
                let headers = if headers.is_empty() { vec!["x-session-id".to_owned()] } else { headers };
                let headers = headers.iter().map(|name| config.header(name)).collect();
                Sessions::new(headers, ttl, config.note())
            })
        });
        let strategy = match (sessions, token) {
            (Some(sessions), _) => Strategy::Id(sessions),
            (None, token) => Strategy::Token(token.unwrap_or_else(|| parameters.header("x-session-token"))),
        };
        Self { strategy, profile: parameters.text("profileName").unwrap_or_default() }
    }

    /// Position of the endpoint that the request's session belongs to, where it is among `candidates`.
    pub(super) fn pinned(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>]) -> Option<usize> {
        match &self.strategy {
            Strategy::Token(header) => {
                let token = request.request.header(header)?;
                // A token that cannot be read is a client's: it has none then.
                let name = STANDARD.decode(token).ok()?;
                position_of(candidates, &name)
            }
            Strategy::Id(sessions) => sessions.pinned(request, candidates),
        }
    }

    /// The request goes there: the session belongs there from now on.
    pub(super) fn placed(
        &self,
        request: &SchedulingRequest<'_>,
        placement: &Placement<'_>,
        response_headers: &mut Vec<(Arc<str>, String)>,
    ) {
        let Some(endpoint) = placement.of_profile(&self.profile).and_then(|chosen| chosen.endpoints.first()) else { return };
        match &self.strategy {
            Strategy::Token(header) => response_headers.push((header.clone(), STANDARD.encode(endpoint.name.as_bytes()))),
            Strategy::Id(sessions) => sessions.belongs_to(request, endpoint.name),
        }
    }
}

fn position_of(candidates: &[Candidate<'_>], name: &[u8]) -> Option<usize> {
    candidates.iter().position(|candidate| candidate.name.as_bytes() == name)
}

/// Sessions by their ids.
#[derive(Debug)]
struct Sessions {
    /// Headers that may have the id; the first that is there does.
    headers: Vec<Arc<str>>,
    /// For how long a quiet session is remembered.
    ttl: Duration,
    /// Noted where a session's endpoint is not among the candidates, so that it may move.
    moves: NoteBit,
    /// Ids are clients': they are kept as keyed hashes.
    hasher: RandomState,
    shards: Vec<Mutex<LruCache<u64, Binding>>>,
}

#[derive(Debug)]
struct Binding {
    endpoint: Arc<str>,
    seen: Instant,
}

impl Sessions {
    fn new(headers: Vec<Arc<str>>, ttl: Duration, moves: NoteBit) -> Self {
        let room = NonZeroUsize::new(MOST_SESSIONS / SHARDS).unwrap_or(NonZeroUsize::MIN);
        // Room is taken as it is needed.
        let shard = |_| {
            let mut shard = LruCache::unbounded();
            shard.resize(room);
            Mutex::new(shard)
        };
        Self { headers, ttl, moves, hasher: RandomState::new(), shards: (0..SHARDS).map(shard).collect() }
    }

    /// The request's id, hashed.
    fn key(&self, request: &SchedulingRequest<'_>) -> Option<u64> {
        let id = self.headers.iter().find_map(|header| request.request.header(header))?;
        Some(self.hasher.hash_one(id))
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, LruCache<u64, Binding>> {
        self.shards[key as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinned(&self, request: &SchedulingRequest<'_>, candidates: &[Candidate<'_>]) -> Option<usize> {
        let key = self.key(request)?;
        let endpoint = {
            let shard = self.shard(key);
            let binding = shard.peek(&key).filter(|binding| !self.forgets(binding, request.now))?;
            binding.endpoint.clone()
        };
        let position = position_of(candidates, endpoint.as_bytes());
        request.notes.set(self.moves, position.is_none());
        position
    }

    fn belongs_to(&self, request: &SchedulingRequest<'_>, endpoint: &Arc<str>) {
        let Some(key) = self.key(request) else { return };
        let mut shard = self.shard(key);
        if let Some(binding) = shard.get_mut(&key)
            && !self.forgets(binding, request.now)
        {
            // A session stays where it is though one of its requests was sent elsewhere, as long as its endpoint is there.
            if binding.endpoint == *endpoint || request.notes.has(self.moves) {
                *binding = Binding { endpoint: endpoint.clone(), seen: request.now };
            }
        } else {
            shard.put(key, Binding { endpoint: endpoint.clone(), seen: request.now });
        }
        // In the order of their use the quietest are the last.
        while shard.peek_lru().is_some_and(|(_, binding)| self.forgets(binding, request.now)) {
            shard.pop_lru();
        }
    }

    fn forgets(&self, binding: &Binding, now: Instant) -> bool {
        now.saturating_duration_since(binding.seen) > self.ttl
    }
}
