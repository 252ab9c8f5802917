//! One request, as Envoy has it with the picker: a stream that is reset at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HeadersResponse, ProcessingResponse, body_mutation::Mutation, processing_response::Response as Reply,
};
use envoy_types::pb::google::protobuf::value::Kind;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, StatusCode};
use tokio::time::Instant;

use crate::messages::{Body, Replies, RequestHead, body, response_heads};
use crate::prompts::{Prompts, answer};

const DESTINATION: &str = "x-gateway-destination-endpoint";

/// What every request of a load has in common.
#[derive(Debug)]
pub(crate) struct Traffic {
    head: RequestHead,
    prompts: Mutex<Prompts>,
    /// Bytes of a piece of a request's body.
    piece: usize,
    /// By endpoint.
    response_heads: HashMap<String, Bytes>,
    answer: Vec<Bytes>,
    authority: String,
}

/// What the traffic consists of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Bytes of a request's body.
    pub(crate) prompt: usize,
    /// Percent of the prompts that continue a conversation.
    pub(crate) shared: u8,
    /// Bytes of a piece of it.
    pub(crate) piece: usize,
    /// Pieces of an answer.
    pub(crate) chunks: usize,
}

impl Traffic {
    pub(crate) fn new(shape: &Shape, endpoints: &[String], authority: &str, seed: u64) -> Arc<Self> {
        let streamed = shape.chunks > 1;
        Arc::new(Self {
            head: RequestHead::new(),
            prompts: Mutex::new(Prompts::new(shape.prompt, shape.shared, streamed, seed)),
            piece: shape.piece,
            response_heads: response_heads(endpoints, streamed),
            answer: answer(shape.chunks),
            authority: authority.to_owned(),
        })
    }
}

/// When what happened to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Its stream was opened.
    pub(crate) began: Instant,
    /// Its last message before the pick was handed over.
    pub(crate) asked: Instant,
    pub(crate) picked: Instant,
    pub(crate) ended: Instant,
}

/// Sends one request and its answer over `connection`, and checks all that comes back.
///
/// # Errors
/// Anything that is not as it should be.
pub(crate) async fn one(connection: SendRequest<Bytes>, traffic: &Traffic) -> Result<Times, String> {
    let (number, prompt) = traffic.prompts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let mut pieces: Vec<Bytes> = prompt.chunks(traffic.piece).map(|piece| body(Body::Request, piece, false)).collect();
    // Of a client of HTTP/1 the end comes by itself.
    pieces.push(body(Body::Request, &[], true));
    let request = Request::post(format!("http://{}/envoy.service.ext_proc.v3.ExternalProcessor/Process", traffic.authority))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("x-envoy-internal", "true")
        .header("x-forwarded-for", "127.0.0.1")
        .body(())
        .map_err(|error| error.to_string())?;
    let mut connection = connection.ready().await.map_err(broken)?;
    let began = Instant::now();
    let (response, mut up) = connection.send_request(request, false).map_err(broken)?;
    send(&mut up, traffic.head.of(number))?;
    for piece in pieces {
        send(&mut up, piece)?;
    }
    let asked = Instant::now();
    let response = response.await.map_err(broken)?;
    if response.status() != StatusCode::OK || response.headers().contains_key("grpc-status") {
        return Err(format!("the stream was answered {} {:?}", response.status(), response.headers().get("grpc-message")));
    }
    let mut down = Down { body: response.into_body(), replies: Replies::default() };

    let reply = down.next().await?;
    let picked = Instant::now();
    let endpoint = pick(&reply)?;
    let head = traffic.response_heads.get(endpoint).ok_or_else(|| format!("{endpoint} was picked and is no endpoint"))?;
    let mut passed = 0;
    let mut ended = false;
    while !ended {
        let reply = down.next().await?;
        let Some(Reply::RequestBody(piece)) = reply.response else { return Err(unexpected("the request's body", &reply)) };
        let (bytes, end) = streamed(piece.response.and_then(|response| response.body_mutation).and_then(|body| body.mutation))?;
        same(&prompt, &mut passed, &bytes, end)?;
        ended = end;
    }

    let Some((first, rest)) = traffic.answer.split_first() else { return Err("an answer without pieces".into()) };
    send(&mut up, head.clone())?;
    send(&mut up, body(Body::Response, first, false))?;
    if rest.is_empty() {
        send(&mut up, body(Body::Response, &[], true))?;
    }
    let reply = down.next().await?;
    if !matches!(&reply.response, Some(Reply::ResponseHeaders(_))) {
        return Err(unexpected("the response's head", &reply));
    }
    let (mut current, mut rest) = (first, rest.iter());
    let (mut passed, mut ended) = (0, false);
    while !ended {
        let reply = down.next().await?;
        let Some(Reply::ResponseBody(piece)) = reply.response else { return Err(unexpected("the response's body", &reply)) };
        let (bytes, end) = streamed(piece.response.and_then(|response| response.body_mutation).and_then(|body| body.mutation))?;
        let over = rest.len() == 0;
        same(current, &mut passed, &bytes, end && over)?;
        if end && !over {
            return Err("a response's body ended early".into());
        }
        // The next token comes once this one has gone on.
        if passed == current.len()
            && let Some(next) = rest.next()
        {
            (current, passed) = (next, 0);
            send(&mut up, body(Body::Response, next, false))?;
            if rest.len() == 0 {
                send(&mut up, body(Body::Response, &[], true))?;
            }
        }
        ended = end;
    }
    let ended = Instant::now();
    up.send_reset(Reason::INTERNAL_ERROR);
    Ok(Times { began, asked, picked, ended })
}

fn broken(error: h2::Error) -> String {
    format!("the connection or stream broke: {error}")
}

/// h2 keeps what the other side's window has no room for, and what it keeps at most is what is in flight.
fn send(up: &mut SendStream<Bytes>, message: Bytes) -> Result<(), String> {
    up.send_data(message, false).map_err(broken)
}

struct Down {
    body: RecvStream,
    replies: Replies,
}

impl Down {
    async fn next(&mut self) -> Result<ProcessingResponse, String> {
        loop {
            if let Some(reply) = self.replies.next()? {
                return Ok(reply);
            }
            let data = match self.body.data().await {
                Some(data) => data.map_err(broken)?,
                None => {
                    let trailers = self.body.trailers().await.map_err(broken)?.unwrap_or_default();
                    return Err(format!(
                        "the picker ended the stream: status {:?} {:?}",
                        trailers.get("grpc-status"),
                        trailers.get("grpc-message")
                    ));
                }
            };
            self.body.flow_control().release_capacity(data.len()).map_err(broken)?;
            self.replies.push(&data);
        }
    }
}

fn unexpected(wanted: &str, reply: &ProcessingResponse) -> String {
    match &reply.response {
        Some(Reply::ImmediateResponse(refused)) => {
            let status = refused.status.as_ref().map_or(0, |status| status.code);
            format!("refused with {status}: {}", String::from_utf8_lossy(&refused.body))
        }
        _ => format!("no reply to {wanted}"),
    }
}

/// The endpoint picked: the header and the metadata tell the same one.
fn pick(reply: &ProcessingResponse) -> Result<&str, String> {
    let Some(Reply::RequestHeaders(HeadersResponse { response: Some(response) })) = &reply.response else {
        return Err(unexpected("the request's head", reply));
    };
    let set = response.header_mutation.iter().flat_map(|mutation| &mutation.set_headers).filter_map(|set| set.header.as_ref());
    let header = set.filter(|header| header.key == DESTINATION).map(|header| header.raw_value.as_slice()).next();
    let told = reply.dynamic_metadata.as_ref().and_then(|metadata| match metadata.fields.get("envoy.lb")?.kind.as_ref()? {
        Kind::StructValue(fields) => match fields.fields.get(DESTINATION)?.kind.as_ref()? {
            Kind::StringValue(told) => Some(told.as_str()),
            _ => None,
        },
        _ => None,
    });
    match (header, told) {
        (Some(header), Some(told)) if header == told.as_bytes() => Ok(told),
        (header, told) => Err(format!("the pick is {header:?} by header and {told:?} by metadata")),
    }
}

fn streamed(mutation: Option<Mutation>) -> Result<(Vec<u8>, bool), String> {
    match mutation {
        Some(Mutation::StreamedResponse(piece)) => Ok((piece.body, piece.end_of_stream)),
        other => Err(format!("a body was answered with {}", if other.is_some() { "a plain body" } else { "nothing" })),
    }
}

/// What came back is what was sent, and all of it at the end.
fn same(sent: &Bytes, passed: &mut usize, piece: &[u8], end: bool) -> Result<(), String> {
    let upto = *passed + piece.len();
    if sent.get(*passed..upto) != Some(piece) || (end && upto != sent.len()) {
        return Err(format!("bytes {passed}..{upto} of a body of {} came back changed", sent.len()));
    }
    *passed = upto;
    Ok(())
}
