//! What Envoy sends for one request, as bytes on the wire, and what comes back.
//!
//! Heads are encoded once; a body's messages are encoded by hand around its bytes, since a generator that is dear measures itself.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpHeaders, ProcessingRequest, ProcessingResponse, ProtocolConfiguration};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// `BodySendMode.FULL_DUPLEX_STREAMED`
const FULL_DUPLEX_STREAMED: i32 = 4;
/// Stands for a request's id until it is sent.
const ID: &str = "00000000-0000-4000-8000-000000000000";
/// Flag and length before each message of gRPC.
const PREFIX: usize = 5;
/// No reply is longer.
const LONGEST_REPLY: usize = 8 << 20;

/// A body's direction: the number of the field of `ProcessingRequest`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    Request = 4,
    Response = 5,
}

/// One message with its gRPC prefix.
fn framed(message: &ProcessingRequest) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX + message.encoded_len());
    prefix(&mut frame, message.encoded_len());
    frame.extend_from_slice(&message.encode_to_vec());
    frame
}

fn prefix(frame: &mut Vec<u8>, length: usize) {
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("messages are short"));
}

/// A piece of a body.
pub(crate) fn body(direction: Body, piece: &[u8], end: bool) -> Bytes {
    let bytes = if piece.is_empty() { 0 } else { 1 + encoded_len_varint(piece.len() as u64) + piece.len() };
    let inner = bytes + if end { 2 } else { 0 };
    let length = 1 + encoded_len_varint(inner as u64) + inner;
    let mut frame = Vec::with_capacity(PREFIX + length);
    prefix(&mut frame, length);
    encode_key(direction as u32, WireType::LengthDelimited, &mut frame);
    encode_varint(inner as u64, &mut frame);
    if !piece.is_empty() {
        encode_key(1, WireType::LengthDelimited, &mut frame);
        encode_varint(piece.len() as u64, &mut frame);
        frame.extend_from_slice(piece);
    }
    if end {
        encode_key(2, WireType::Varint, &mut frame);
        encode_varint(1, &mut frame);
    }
    frame.into()
}

/// The first message of every stream.
#[derive(Debug)]
pub(crate) struct RequestHead {
    frame: Vec<u8>,
    id_at: usize,
}

impl RequestHead {
    pub(crate) fn new() -> Self {
        let headers = headers(&[
            (":authority", "llm.example.com"),
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
            (":scheme", "http"),
            ("user-agent", "OpenAI/Python 2.6.1"),
            ("accept", "application/json"),
            ("accept-encoding", "gzip, deflate"),
            ("authorization", "Bearer sk-0123456789abcdef0123456789abcdef"),
            ("content-type", "application/json"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", ID),
        ]);
        let frame = framed(&ProcessingRequest {
            request: Some(Request::RequestHeaders(headers)),
            protocol_config: Some(ProtocolConfiguration {
                request_body_mode: FULL_DUPLEX_STREAMED,
                response_body_mode: FULL_DUPLEX_STREAMED,
                send_body_without_waiting_for_header_response: false,
            }),
            ..ProcessingRequest::default()
        });
        let id_at = frame.windows(ID.len()).position(|window| window == ID.as_bytes()).expect("the id is in the message");
        Self { frame, id_at }
    }

    /// For the request of this number.
    pub(crate) fn of(&self, number: u64) -> Bytes {
        let mut frame = self.frame.clone();
        frame[self.id_at..self.id_at + 8].copy_from_slice(format!("{:08x}", number & 0xffff_ffff).as_bytes());
        frame.into()
    }
}

/// The head of a response, for each endpoint that may have served.
pub(crate) fn response_heads(endpoints: &[String], streamed: bool) -> HashMap<String, Bytes> {
    let kind = if streamed { "text/event-stream; charset=utf-8" } else { "application/json" };
    let head = |endpoint: &String| {
        let message = ProcessingRequest {
            request: Some(Request::ResponseHeaders(headers(&[
                (":status", "200"),
                ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
                ("server", "uvicorn"),
                ("content-type", kind),
                ("x-envoy-upstream-service-time", "12"),
            ]))),
            metadata_context: Some(Metadata {
                filter_metadata: [("envoy.lb".to_owned(), fields("x-gateway-destination-endpoint-served", endpoint))].into(),
                ..Metadata::default()
            }),
            attributes: [("envoy.filters.http.ext_proc".to_owned(), fields("upstream.address", endpoint))].into(),
            ..ProcessingRequest::default()
        };
        (endpoint.clone(), framed(&message).into())
    };
    endpoints.iter().map(head).collect()
}

/// Envoy puts values into the field for bytes.
fn headers(pairs: &[(&str, &str)]) -> HttpHeaders {
    let header = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    HttpHeaders { headers: Some(HeaderMap { headers: pairs.iter().map(header).collect() }), ..HttpHeaders::default() }
}

fn fields(key: &str, value: &str) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(value.to_owned())) };
    Struct { fields: [(key.to_owned(), value)].into() }
}

/// Messages out of the bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Replies(BytesMut);

impl Replies {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next one, if all of it is there.
    pub(crate) fn next(&mut self) -> Result<Option<ProcessingResponse>, String> {
        let Some((head, _)) = self.0.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > LONGEST_REPLY {
            return Err(format!("a reply begins with {head:?}"));
        }
        if self.0.len() < PREFIX + length {
            return Ok(None);
        }
        self.0.advance(PREFIX);
        let message = self.0.split_to(length);
        ProcessingResponse::decode(message).map(Some).map_err(|error| format!("a reply cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::ext_proc::v3::HttpBody;

    use super::*;

    #[test]
    fn a_body_is_encoded_as_the_library_does() {
        for (piece, end) in [(0, false), (0, true), (1, false), (127, true), (128, false), (70_000, true)] {
            let bytes = vec![b'x'; piece];
            let content = HttpBody { body: bytes.clone(), end_of_stream: end, ..HttpBody::default() };
            let wanted = |request| framed(&ProcessingRequest { request: Some(request), ..ProcessingRequest::default() });
            assert_eq!(body(Body::Request, &bytes, end), wanted(Request::RequestBody(content.clone())));
            assert_eq!(body(Body::Response, &bytes, end), wanted(Request::ResponseBody(content)));
        }
    }

    #[test]
    fn each_request_has_an_id_of_its_own() {
        let head = RequestHead::new();
        let (one, other) = (head.of(1), head.of(2));
        assert_eq!(one.len(), other.len());
        assert_eq!(one.iter().zip(&other).filter(|(one, other)| one != other).count(), 1);
        let message = ProcessingRequest::decode(&one[PREFIX..]).unwrap();
        let Some(Request::RequestHeaders(headers)) = message.request else { panic!("{message:?}") };
        let id = headers.headers.unwrap().headers.pop().unwrap();
        assert_eq!((&*id.key, &*id.raw_value), ("x-request-id", &b"00000001-0000-4000-8000-000000000000"[..]));
    }
}
