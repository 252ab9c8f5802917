//! What a gateway says, and what is said to it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Attribute, Modes, Subset};

/// One message of a gateway.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// What it tells; nothing if the gateway left it out.
    pub message: Option<Message>,
    /// In which modes the gateway sends bodies; told with a stream's first message, by those that tell.
    pub modes: Option<Modes>,
    /// The endpoints that it allows; the latest word counts.
    pub subset: Option<Subset>,
    /// Which endpoint served, by dynamic metadata.
    pub served: Served,
    /// `upstream.address` among the attributes: the endpoint by a gateway that sets no metadata.
    pub upstream_address: Option<String>,
    /// `response.code_details` among the attributes: whether the response is the gateway's own, and why.
    pub code_details: Option<String>,
}

/// What a message is about.
#[derive(Clone, Debug)]
pub enum Message {
    /// The request's head.
    RequestHeaders(Head),
    /// A piece of its body.
    RequestBody(Chunk),
    /// Its trailers: the body has ended.
    RequestTrailers,
    /// The response's head: the server's, or the gateway's own.
    ResponseHeaders(Head),
    /// A piece of its body.
    ResponseBody(Chunk),
    /// Its trailers.
    ResponseTrailers,
}

/// A head: names in any case, values as bytes.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Names and values, in the order sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Nothing follows.
    pub end: bool,
}

impl Head {
    /// The first value of this header, `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }
}

/// A piece of a body.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Chunk {
    /// The bytes; may be empty.
    pub body: Vec<u8>,
    /// Nothing follows.
    pub end: bool,
}

/// The endpoint that served a request, as the metadata of a response says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Served {
    /// The namespace `envoy.lb` is not there.
    #[default]
    NoMetadata,
    /// It is, without the key.
    NoKey,
    /// The value of `x-gateway-destination-endpoint-served`.
    By(String),
}

/// A message to the gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// To the request's head.
    RequestHeaders(HeadReply),
    /// To a piece of its body.
    RequestBody(BodyReply),
    /// To its trailers.
    RequestTrailers,
    /// To the response's head.
    ResponseHeaders(HeadReply),
    /// To a piece of its body.
    ResponseBody(BodyReply),
    /// To its trailers, with what is told of the whole response.
    ResponseTrailers(Vec<Attribute>),
    /// Instead of a response by a server.
    Immediate(Immediate),
    /// That both bodies be sent in full duplex; the reply to the head follows.
    FullDuplex,
}

/// How a head is to change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeadReply {
    /// Headers to set, overwriting; names in lower case.
    pub set: Vec<(&'static str, String)>,
    /// The same, with names that the configuration gives.
    pub set_named: Vec<(Arc<str>, String)>,
    /// Headers to remove.
    pub remove: Vec<&'static str>,
    /// The same, with names that the configuration gives.
    pub remove_named: Vec<Arc<str>>,
    /// Whether the gateway shall choose its route anew.
    pub clear_route_cache: bool,
    /// The pick, as dynamic metadata.
    pub metadata: Option<PickMetadata>,
}

/// `x-gateway-destination-endpoint` of the namespace `envoy.lb`: the same text as the header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PickMetadata(pub String);

/// What becomes of a piece of a body.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BodyReply {
    /// The bytes.
    pub content: Content,
    /// Changes of the head, where it has not gone on yet.
    pub head: Option<HeadReply>,
    /// What is told of the whole response, with its last piece, as dynamic metadata.
    pub attributes: Vec<Attribute>,
}

/// The bytes of a body reply.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Content {
    /// As they came.
    #[default]
    Unchanged,
    /// These instead.
    Replaced(Bytes),
    /// These are next (`FULL_DUPLEX_STREAMED`).
    Streamed {
        /// The bytes.
        body: Bytes,
        /// Nothing follows.
        end: bool,
    },
}

/// A response made here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Immediate {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body, plain text.
    pub body: String,
    /// For the gateway's log.
    pub details: &'static str,
}

/// A body in pieces of at most `most` bytes; one empty piece if it is empty.
pub fn split(mut bytes: Bytes, end: bool, most: usize) -> impl Iterator<Item = Content> {
    let mut more = true;
    std::iter::from_fn(move || {
        if !std::mem::take(&mut more) {
            return None;
        }
        let body = bytes.split_to(bytes.len().min(most.max(1)));
        more = !bytes.is_empty();
        Some(Content::Streamed { body, end: end && !more })
    })
}
