//! What passes between the frontends and the director: a request to place, the pick or the refusal, and the ticket that lasts until
//! the request has ended.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
pub use weir_ext_proc::{Code, Refusal, Subset};

use crate::journal::Trail;

/// Which API of the model server a request is for, by the end of its path.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Api {
    /// `/completions`
    Completions,
    /// `/chat/completions`
    ChatCompletions,
    /// `/responses`
    Responses,
    /// `/conversations`
    Conversations,
    /// `/embeddings`
    Embeddings,
    /// `/messages`, Anthropic's.
    Messages,
    /// Tokens instead of text: vLLM's and SGLang's own.
    Generate,
    /// `/images/generations`
    Images,
    /// Anything else, and whatever has no body.
    Other,
}

/// A header: name in lower case, value.
pub type NamedValue = (Arc<str>, Arc<str>);

/// A request to be placed.
#[derive(Clone, Debug)]
pub struct InferenceRequest {
    /// `x-request-id`, given or made.
    pub id: Arc<str>,
    /// When its headers came.
    pub received: Instant,
    /// Which API it is for.
    pub api: Api,
    /// The model that the body names; absent without a body.
    pub model: Option<Arc<str>>,
    /// `x-gateway-model-name-rewrite`: the target model that a header asks for.
    pub model_rewrite: Option<Arc<str>>,
    /// `x-gateway-inference-objective`: the name of the InferenceObjective that gives its priority.
    pub objective: Option<Arc<str>>,
    /// `x-gateway-inference-fairness-id`: whose request it is.
    pub fairness: Option<Arc<str>>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// The bytes that make two requests share a prefix: a prompt, messages; empty if there are none.
    pub prefix: Bytes,
    /// `cache_salt`: requests of different salts share nothing.
    pub cache_salt: Option<Arc<str>>,
    /// Whether it asks for a streamed answer.
    pub streaming: bool,
    /// Where the gateway lets it go.
    pub subset: Subset,
    /// `test-epp-endpoint-selection`, for conformance tests.
    pub test_selection: Option<Arc<str>>,
    /// The headers that the director asks for ([`Director::headers`]), as far as they came.
    pub headers: Vec<NamedValue>,
    /// The most tokens that it asks to be generated, where it says so.
    pub max_output_tokens: Option<u64>,
    /// Where its way is noted, if anybody follows it.
    pub trail: Option<Arc<Trail>>,
}

impl InferenceRequest {
    /// The value of a header that the director asks for; none where it did not come, or is empty.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

/// Where a request goes.
#[derive(Debug)]
pub struct Pick {
    /// Endpoints in the order in which they are to be tried; never empty.
    pub endpoints: Vec<SocketAddr>,
    /// The model that the body is to name instead, if another one.
    pub target_model: Option<Arc<str>>,
    /// Headers that the request is to have whatever the client sent, and those, without a value, that it must not have.
    pub request_headers: Vec<(&'static str, Option<String>)>,
    /// Headers that the response is to have where the first of the endpoints served.
    pub response_headers: Vec<(Arc<str>, String)>,
    /// Counts the request as in flight until it is dropped.
    pub ticket: Box<dyn Ticket>,
}

/// What the director is told of a request that was placed. Dropping it ends the request.
pub trait Ticket: Send + Sync + std::fmt::Debug {
    /// The endpoint that served, as the gateway says: another one than the first picked after a fallback.
    fn served_by(&mut self, endpoint: SocketAddr);
    /// What the endpoint is called that serves.
    fn served_name(&self) -> Option<Arc<str>> {
        None
    }
    /// The response's head came with this status.
    fn response_started(&mut self, status: u16, at: Instant);
    /// The gateway answered by itself, with this status, since this befell the request.
    fn gateway_answered(&mut self, status: u16, why: Failure, at: Instant);
    /// Bytes of the response's body came; the first ones are the first token of a streamed answer.
    fn response_bytes(&mut self, bytes: usize, at: Instant);
    /// The answer's own count of tokens.
    fn usage(&mut self, usage: Usage);
    /// The answer is complete.
    fn completed(&mut self, at: Instant);
}

/// Why a gateway answers in a server's place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Failure {
    /// The endpoint could not be reached, or the connection broke before an answer.
    Unreached,
    /// It took longer than the gateway allows.
    TimedOut,
    /// Something else: the endpoint had no part in it.
    Elsewhere,
}

/// Counts nothing: of a request that nobody follows, or no longer.
#[derive(Clone, Copy, Debug)]
pub struct NoTicket;

impl Ticket for NoTicket {
    fn served_by(&mut self, _endpoint: SocketAddr) {}
    fn response_started(&mut self, _status: u16, _at: Instant) {}
    fn gateway_answered(&mut self, _status: u16, _why: Failure, _at: Instant) {}
    fn response_bytes(&mut self, _bytes: usize, _at: Instant) {}
    fn usage(&mut self, _usage: Usage) {}
    fn completed(&mut self, _at: Instant) {}
}

/// Tokens as the model server counted them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Tokens of the prompt that were in the prefix cache.
    pub cached_tokens: u64,
}

/// Decides where requests go.
pub trait Director: Send + Sync + 'static {
    /// Places a request, now or once there is room. Dropping the future gives the request up.
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>>;

    /// Names of headers, in lower case, that requests are to carry.
    fn headers(&self) -> Arc<[Arc<str>]> {
        Arc::default()
    }

    /// Endpoints to try in place of those of a placed request's pick, none of which could be reached, best first: none where there is
    /// no other. It stays counted where it was placed until its ticket is told who served.
    fn instead(&self, request: &InferenceRequest, unreached: &[SocketAddr]) -> Vec<SocketAddr> {
        let _known = (request, unreached);
        Vec::new()
    }

    /// Tells of a request that was refused before it got here: its body could not be read.
    fn refused(&self, model: Option<&str>, refusal: &Refusal);

    /// Whether requests can be placed at all: the pool is known.
    fn ready(&self) -> bool;
}
