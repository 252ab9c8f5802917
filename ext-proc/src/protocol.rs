//! Between ext_proc's messages on the wire and those of an exchange. Nothing else knows the wire's types.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, Metadata};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{BodySendMode, HeaderSendMode};
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody, HttpHeaders, ImmediateResponse,
    StreamedBodyResponse, TrailersResponse, body_mutation::Mutation, processing_request::Request, processing_response::Response,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

pub use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{ExternalProcessor, ExternalProcessorServer};
pub use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};

use crate::{
    Attribute, BodyMode, BodyReply, Chunk, Content, DESTINATION, Head, HeadReply, Immediate, Incoming, LB_NAMESPACE, Message,
    Modes, PickMetadata, Reply, SERVED, SUBSET, SUBSET_NAMESPACE, Served, Subset, subset_of,
};

/// Under which name the filter sends its attributes.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

/// A message of a gateway.
pub fn incoming(request: ProcessingRequest) -> Incoming {
    let metadata = request.metadata_context.unwrap_or_default();
    let attributes = request.attributes.get(ATTRIBUTES);
    let attribute = |name: &str| attributes.and_then(|attributes| string(attributes.fields.get(name)?)).map(str::to_owned);
    let (upstream_address, code_details) = (attribute("upstream.address"), attribute("response.code_details"));
    Incoming {
        message: request.request.map(|request| match request {
            Request::RequestHeaders(headers) => Message::RequestHeaders(head(headers)),
            Request::RequestBody(body) => Message::RequestBody(chunk(body)),
            Request::RequestTrailers(_) => Message::RequestTrailers,
            Request::ResponseHeaders(headers) => Message::ResponseHeaders(head(headers)),
            Request::ResponseBody(body) => Message::ResponseBody(chunk(body)),
            Request::ResponseTrailers(_) => Message::ResponseTrailers,
        }),
        modes: request
            .protocol_config
            .map(|told| Modes { request: mode(told.request_body_mode), response: mode(told.response_body_mode) }),
        subset: subset(&metadata),
        served: served(&metadata),
        upstream_address,
        code_details,
    }
}

/// `ProcessingMode.BodySendMode`; one that is newer than this is answered piece by piece.
fn mode(number: i32) -> BodyMode {
    match number {
        0 => BodyMode::None,
        2 => BodyMode::Buffered,
        3 => BodyMode::BufferedPartial,
        4 => BodyMode::FullDuplex,
        _ => BodyMode::Streamed,
    }
}

fn head(headers: HttpHeaders) -> Head {
    let pairs = headers.headers.unwrap_or_default().headers.into_iter();
    let value = |header: HeaderValue| match header.raw_value.is_empty() {
        true => (header.key, header.value.into_bytes()),
        false => (header.key, header.raw_value),
    };
    Head { headers: pairs.map(value).collect(), end: headers.end_of_stream }
}

fn chunk(body: HttpBody) -> Chunk {
    Chunk { body: body.body, end: body.end_of_stream || body.end_of_stream_without_message }
}

fn string(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

fn subset(metadata: &Metadata) -> Option<Subset> {
    match &metadata.filter_metadata.get(SUBSET_NAMESPACE)?.fields.get(SUBSET)?.kind {
        Some(Kind::ListValue(list)) => Some(subset_of(list.values.iter().filter_map(string))),
        // What is no list counts as missing.
        _ => None,
    }
}

fn served(metadata: &Metadata) -> Served {
    let Some(namespace) = metadata.filter_metadata.get(LB_NAMESPACE) else {
        return Served::NoMetadata;
    };
    match namespace.fields.get(SERVED).and_then(string) {
        Some(endpoint) => Served::By(endpoint.to_owned()),
        None => Served::NoKey,
    }
}

/// A message to the gateway.
pub fn outgoing(reply: Reply) -> ProcessingResponse {
    let mut metadata = None;
    let mut attributes = Vec::new();
    let response = match reply {
        // Alone: Envoy leaves the body out of what it answers the head with.
        Reply::FullDuplex => return ProcessingResponse { mode_override: Some(full_duplex()), ..ProcessingResponse::default() },
        Reply::RequestHeaders(reply) => Response::RequestHeaders(headers_response(reply, &mut metadata)),
        Reply::ResponseHeaders(reply) => Response::ResponseHeaders(headers_response(reply, &mut metadata)),
        Reply::RequestBody(reply) => Response::RequestBody(body_response(reply, &mut metadata)),
        Reply::ResponseBody(mut reply) => {
            attributes = std::mem::take(&mut reply.attributes);
            Response::ResponseBody(body_response(reply, &mut metadata))
        }
        Reply::RequestTrailers => Response::RequestTrailers(TrailersResponse::default()),
        Reply::ResponseTrailers(told) => {
            attributes = told;
            Response::ResponseTrailers(TrailersResponse::default())
        }
        Reply::Immediate(reply) => Response::ImmediateResponse(immediate(reply)),
    };
    let dynamic_metadata = metadata.map(pick).or_else(|| (!attributes.is_empty()).then(|| told(attributes)));
    ProcessingResponse { dynamic_metadata, response: Some(response), ..ProcessingResponse::default() }
}

fn full_duplex() -> ProcessingMode {
    ProcessingMode {
        request_body_mode: BodySendMode::FullDuplexStreamed.into(),
        response_body_mode: BodySendMode::FullDuplexStreamed.into(),
        request_trailer_mode: HeaderSendMode::Send.into(),
        response_header_mode: HeaderSendMode::Send.into(),
        response_trailer_mode: HeaderSendMode::Send.into(),
        ..ProcessingMode::default()
    }
}

fn headers_response(reply: HeadReply, metadata: &mut Option<PickMetadata>) -> HeadersResponse {
    HeadersResponse { response: Some(common(reply, metadata)) }
}

fn common(reply: HeadReply, metadata: &mut Option<PickMetadata>) -> CommonResponse {
    *metadata = reply.metadata;
    CommonResponse {
        header_mutation: mutation(reply.set, reply.set_named, reply.remove, reply.remove_named),
        clear_route_cache: reply.clear_route_cache,
        ..CommonResponse::default()
    }
}

fn body_response(reply: BodyReply, metadata: &mut Option<PickMetadata>) -> BodyResponse {
    let mut response = reply.head.map(|head| common(head, metadata)).unwrap_or_default();
    let mutation = match reply.content {
        Content::Unchanged => None,
        Content::Replaced(body) => Some(Mutation::Body(body.into())),
        Content::Streamed { body, end } => Some(streamed(body, end)),
    };
    response.body_mutation = mutation.map(|mutation| BodyMutation { mutation: Some(mutation) });
    BodyResponse { response: Some(response) }
}

fn streamed(body: Bytes, end_of_stream: bool) -> Mutation {
    // The only holder of a piece gives it away; a slice of a request's body is copied here, when its turn has come.
    Mutation::StreamedResponse(StreamedBodyResponse { body: body.into(), end_of_stream, ..StreamedBodyResponse::default() })
}

fn mutation(
    set: Vec<(&'static str, String)>,
    set_named: Vec<(Arc<str>, String)>,
    remove: Vec<&'static str>,
    remove_named: Vec<Arc<str>>,
) -> Option<HeaderMutation> {
    if set.is_empty() && set_named.is_empty() && remove.is_empty() && remove_named.is_empty() {
        return None;
    }
    let set = set.into_iter().map(|(key, value)| (key.to_owned(), value));
    let set = set.chain(set_named.into_iter().map(|(key, value)| ((*key).to_owned(), value)));
    let set_headers = set.map(|(key, value)| HeaderValueOption {
        header: Some(HeaderValue { key, raw_value: value.into_bytes(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    });
    let remove = remove.into_iter().map(str::to_owned).chain(remove_named.iter().map(ToString::to_string));
    Some(HeaderMutation { set_headers: set_headers.collect(), remove_headers: remove.collect() })
}

fn pick(metadata: PickMetadata) -> Struct {
    let text = Value { kind: Some(Kind::StringValue(metadata.0)) };
    let inner = Struct { fields: [(DESTINATION.to_owned(), text)].into() };
    Struct { fields: [(LB_NAMESPACE.to_owned(), Value { kind: Some(Kind::StructValue(inner)) })].into() }
}

fn told(attributes: Vec<Attribute>) -> Struct {
    let mut namespaces: HashMap<String, Struct> = HashMap::new();
    for Attribute { namespace, name, value } in attributes {
        let number = Value { kind: Some(Kind::NumberValue(value as f64)) };
        namespaces.entry(namespace.to_string()).or_default().fields.insert(name.to_string(), number);
    }
    let structure = |(name, inner)| (name, Value { kind: Some(Kind::StructValue(inner)) });
    Struct { fields: namespaces.into_iter().map(structure).collect() }
}

fn immediate(reply: Immediate) -> ImmediateResponse {
    ImmediateResponse {
        status: Some(HttpStatus { code: reply.status.into() }),
        headers: mutation(reply.headers, Vec::new(), Vec::new(), Vec::new()),
        body: reply.body.into_bytes(),
        details: reply.details.to_owned(),
        ..ImmediateResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::HeaderMap;
    use envoy_types::pb::envoy::service::ext_proc::v3::ProtocolConfiguration;
    use envoy_types::pb::google::protobuf::ListValue;

    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    #[test]
    fn values_of_headers_lie_in_either_field() {
        let header =
            |key: &str, value: &str, raw: &str| HeaderValue { key: key.into(), value: value.into(), raw_value: raw.into() };
        let headers = vec![header("A", "only", ""), header("b", "", "raw"), header("C", "both", "counts"), header("d", "", "")];
        let read = head(HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: true, ..HttpHeaders::default() });
        let values = ["a", "b", "c", "d", "e"].map(|name| read.get(name).map(|value| String::from_utf8_lossy(value).into_owned()));
        assert_eq!(values, [Some("only".into()), Some("raw".into()), Some("counts".into()), Some(String::new()), None]);
        assert!(read.end);
        assert!(head(HttpHeaders::default()).headers.is_empty());
    }

    #[test]
    fn metadata_modes_and_attributes() {
        let fields = |key: &str, value: Value| Struct { fields: [(key.to_owned(), value)].into() };
        let list = vec![text("10.0.0.1:8000"), Value { kind: Some(Kind::NumberValue(7.0)) }, text("10.0.0.2")];
        let list = Value { kind: Some(Kind::ListValue(ListValue { values: list })) };
        let metadata = Metadata {
            filter_metadata: [
                (SUBSET_NAMESPACE.to_owned(), fields(SUBSET, list)),
                (LB_NAMESPACE.to_owned(), fields(SERVED, text("10.0.0.1:8000"))),
            ]
            .into(),
            ..Metadata::default()
        };
        let read = incoming(ProcessingRequest {
            metadata_context: Some(metadata),
            attributes: [(ATTRIBUTES.to_owned(), fields("upstream.address", text("10.0.0.3:1")))].into(),
            protocol_config: Some(ProtocolConfiguration {
                request_body_mode: 4,
                response_body_mode: 99,
                ..ProtocolConfiguration::default()
            }),
            ..ProcessingRequest::default()
        });
        assert_eq!(read.subset, Some(subset_of(["10.0.0.1:8000", "10.0.0.2"])));
        assert_eq!((read.served, read.upstream_address.as_deref()), (Served::By("10.0.0.1:8000".into()), Some("10.0.0.3:1")));
        assert_eq!(read.modes, Some(Modes { request: BodyMode::FullDuplex, response: BodyMode::Streamed }));
        assert!(read.message.is_none());
        // Not a list, or not there: not told.
        let other = Metadata {
            filter_metadata: [(SUBSET_NAMESPACE.to_owned(), fields(SUBSET, text("10.0.0.1")))].into(),
            ..Metadata::default()
        };
        assert_eq!((subset(&other), served(&other)), (None, Served::NoMetadata));
        let without = Metadata { filter_metadata: [(LB_NAMESPACE.to_owned(), Struct::default())].into(), ..Metadata::default() };
        assert_eq!(served(&without), Served::NoKey);
    }
}
