//! A collector by OpenTelemetry's own protocol files, over gRPC and HTTP, that wants a name and a password.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// `weir:secret`, as Langfuse wants its two keys.
pub(crate) const PROOF: &str = "Basic d2VpcjpzZWNyZXQ=";

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

/// What it took.
#[derive(Clone, Debug, Default)]
struct Taken(Arc<Mutex<Vec<ResourceSpans>>>);

/// The collector; it ends with the test.
pub(crate) struct Collector {
    protocol: Protocol,
    address: SocketAddr,
    taken: Taken,
}

impl Collector {
    pub(crate) async fn start(protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Taken::default());
        let router = match protocol {
            Protocol::Grpc => tonic::service::Routes::new(TraceServiceServer::new(taken.clone())).into_axum_router(),
            Protocol::Http => Router::new().route("/v1/traces", post(take)).with_state(taken.clone()),
        };
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { protocol, address, taken }
    }

    /// What points a picker at it, with this proof: every trace is kept, and nothing is sent before the picker ends.
    pub(crate) fn variables(&self, proof: &str) -> Vec<(&'static str, String)> {
        let protocol = if self.protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" };
        vec![
            ("OTEL_TRACES_EXPORTER", "otlp".into()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.into()),
            ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={}", proof.replace(' ', "%20"))),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_on".into()),
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000".into()),
            ("OTEL_SERVICE_NAME", "the-picker".into()),
        ]
    }

    /// All that it took.
    pub(crate) fn taken(&self) -> Vec<ResourceSpans> {
        self.taken.0.lock().unwrap().clone()
    }

    /// All spans.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.taken().into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let proof = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if proof != Some(PROOF) {
            return Err(Status::unauthenticated("who are you?"));
        }
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    if headers.get("authorization").is_none_or(|value| value != PROOF) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if headers["content-type"] != "application/x-protobuf" {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_error| StatusCode::BAD_REQUEST)?;
    taken.0.lock().unwrap().extend(request.resource_spans);
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

/// An attribute's value.
pub(crate) fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref().and_then(|AnyValue { value }| value.as_ref())
}

/// The same, of text.
pub(crate) fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    match attribute(attributes, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
