//! One batch of spans to the collector.

use std::io;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::settings::{Headers, Protocol, Settings};

/// An answer is not read further than this.
const LONGEST_ANSWER: usize = 64 << 10;
/// What is told of a collector's own words.
const LONGEST_WORDS: usize = 256;

/// Why spans cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address.
    #[error(
        "spans cannot be sent to `{endpoint}`: {why}; set OTEL_EXPORTER_OTLP_ENDPOINT to http://HOST:PORT or https://HOST:PORT"
    )]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// A header.
    #[error("OTEL_EXPORTER_OTLP_HEADERS: `{0}` has a name or a value that no header can have")]
    Header(String),
    /// The authority.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {path}: {error}")]
    Authority {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
}

/// Why a batch was not taken, in a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// No connection.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404: no traces are taken there.
    NotFound,
    /// Too much at present, 429 or 503.
    Busy,
    /// What answers does not speak this protocol.
    Protocol,
    /// Anything else that it answered.
    Refused,
}

impl Reason {
    pub(crate) const ALL: [Self; 8] = [
        Self::Unreachable,
        Self::TimedOut,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Busy,
        Self::Protocol,
        Self::Refused,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Busy => "busy",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
        }
    }

    /// Whether another try may do better.
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::Unreachable | Self::TimedOut | Self::Busy)
    }

    pub(crate) fn way_out(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "is a collector there? OTEL_EXPORTER_OTLP_ENDPOINT names it, OTEL_TRACES_EXPORTER=none sends nothing"
            }
            Self::TimedOut => {
                "the collector is too slow, or something between swallows packets: OTEL_EXPORTER_OTLP_TIMEOUT is in ms"
            }
            Self::Unauthorized => "the collector wants a proof: OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20… or Bearer%20…",
            Self::Forbidden => "the proof in OTEL_EXPORTER_OTLP_HEADERS may not write traces there",
            Self::NotFound => {
                "no traces are taken at that path: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is the whole URL, mostly ending in /v1/traces"
            }
            Self::Busy => "the collector takes no more at present: lower OTEL_TRACES_SAMPLER_ARG, or give it more room",
            Self::Protocol => {
                "what answers speaks another protocol: OTEL_EXPORTER_OTLP_PROTOCOL is grpc (mostly port 4317) or http/protobuf (4318)"
            }
            Self::Refused => "the collector's own log says more",
        }
    }
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) what: String,
}

/// What the collector took less than all of.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    pub(crate) rejected: u64,
    pub(crate) words: String,
}

/// The way to a collector.
#[derive(Debug)]
pub(crate) enum Transport {
    Grpc { client: Box<TraceServiceClient<Channel>>, metadata: MetadataMap, timeout: Duration },
    Http { client: reqwest::Client, url: reqwest::Url, headers: HeaderMap, timeout: Duration },
}

impl Transport {
    /// Ready to send; nothing is connected yet. Within a runtime.
    pub(crate) fn new(settings: &Settings) -> Result<Self, TransportError> {
        let wrong = |why: String| TransportError::Endpoint { endpoint: settings.endpoint.clone(), why };
        let authority = settings.authority.as_ref().map(|path| {
            let told = |error: io::Error| TransportError::Authority { path: path.display().to_string(), error: error.to_string() };
            std::fs::read(path).map_err(told)
        });
        let authority = authority.transpose()?;
        let timeout = settings.timeout;
        let url: reqwest::Url = settings.endpoint.parse().map_err(|error| wrong(format!("{error}")))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(wrong("it is no address of HTTP".into()));
        }
        match settings.protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(settings.endpoint.clone()).map_err(|error| wrong(words(&error)))?;
                let mut endpoint = endpoint.connect_timeout(timeout);
                if url.scheme() == "https" {
                    let tls = match authority {
                        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                        None => ClientTlsConfig::new().with_native_roots(),
                    };
                    endpoint = endpoint.tls_config(tls).map_err(|error| wrong(words(&error)))?;
                }
                let client = Box::new(TraceServiceClient::new(endpoint.connect_lazy()));
                Ok(Self::Grpc { client, metadata: metadata(&settings.headers)?, timeout })
            }
            Protocol::Http => {
                let mut client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(timeout);
                if let (Some(pem), Some(path)) = (authority, &settings.authority) {
                    let told = |error: reqwest::Error| TransportError::Authority {
                        path: path.display().to_string(),
                        error: words(&error),
                    };
                    for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(told)? {
                        client = client.add_root_certificate(certificate);
                    }
                }
                let client = client.build().map_err(|error| wrong(words(&error)))?;
                Ok(Self::Http { client, url, headers: headers(&settings.headers)?, timeout })
            }
        }
    }

    /// Sends one batch.
    pub(crate) async fn send(&self, batch: ExportTraceServiceRequest) -> Result<Accepted, Failure> {
        let answer = match self {
            Self::Grpc { client, metadata, timeout } => {
                let mut request = Request::new(batch);
                *request.metadata_mut() = metadata.clone();
                let mut client = client.clone();
                let answer = tokio::time::timeout(*timeout, client.export(request)).await;
                answer.map_err(|_elapsed| late(*timeout))?.map_err(|status| of_status(&status))?.into_inner()
            }
            Self::Http { client, url, headers, timeout } => {
                let request = client.post(url.clone()).headers(headers.clone()).body(batch.encode_to_vec());
                let mut response = request.send().await.map_err(|error| of_error(&error, *timeout))?;
                let status = response.status();
                let mut body = Vec::new();
                while body.len() < LONGEST_ANSWER
                    && let Some(piece) = response.chunk().await.map_err(|error| of_error(&error, *timeout))?
                {
                    body.extend_from_slice(&piece[..piece.len().min(LONGEST_ANSWER - body.len())]);
                }
                if !status.is_success() {
                    return Err(of_http(status));
                }
                // Some answer with JSON, or with nothing: it was taken all the same.
                ExportTraceServiceResponse::decode(&*body).unwrap_or_default()
            }
        };
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        Ok(Accepted { rejected, words: partial.error_message.chars().take(LONGEST_WORDS).collect() })
    }
}

fn metadata(headers: &Headers) -> Result<MetadataMap, TransportError> {
    let mut metadata = MetadataMap::new();
    for (name, value) in &headers.0 {
        let wrong = || TransportError::Header(name.clone());
        let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_error| wrong())?;
        let mut value = AsciiMetadataValue::try_from(value.as_str()).map_err(|_error| wrong())?;
        value.set_sensitive(true);
        metadata.append(key, value);
    }
    Ok(metadata)
}

fn headers(given: &Headers) -> Result<HeaderMap, TransportError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    for (name, value) in &given.0 {
        let wrong = || TransportError::Header(name.clone());
        let key: HeaderName = name.parse().map_err(|_error| wrong())?;
        let mut value: HeaderValue = value.parse().map_err(|_error| wrong())?;
        value.set_sensitive(true);
        headers.append(key, value);
    }
    Ok(headers)
}

fn late(timeout: Duration) -> Failure {
    Failure { reason: Reason::TimedOut, what: format!("no answer within {timeout:?}") }
}

fn of_http(status: StatusCode) -> Failure {
    let reason = match status.as_u16() {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        429 | 502 | 503 | 504 => Reason::Busy,
        _ => Reason::Refused,
    };
    Failure { reason, what: format!("the collector answers {status}") }
}

fn of_error(error: &reqwest::Error, timeout: Duration) -> Failure {
    let reason = match () {
        () if error.is_timeout() => return late(timeout),
        () if error.is_connect() => Reason::Unreachable,
        () => by_cause(error).unwrap_or(Reason::Protocol),
    };
    Failure { reason, what: words(error) }
}

fn of_status(status: &Status) -> Failure {
    let of_connection = by_cause(status);
    let reason = match status.code() {
        Code::Unauthenticated => Reason::Unauthorized,
        Code::PermissionDenied => Reason::Forbidden,
        Code::Unimplemented | Code::NotFound => Reason::NotFound,
        Code::ResourceExhausted | Code::Aborted => Reason::Busy,
        Code::DeadlineExceeded => Reason::TimedOut,
        // A connection that was never there, and a server that says so of itself.
        Code::Unavailable if std::error::Error::source(status).is_none() => Reason::Busy,
        Code::Unavailable | Code::Cancelled => of_connection.unwrap_or(Reason::Unreachable),
        Code::Unknown | Code::Internal => of_connection.unwrap_or(Reason::Protocol),
        _ => Reason::Refused,
    };
    let cause = std::error::Error::source(status).map_or_else(|| status.message().to_owned(), words);
    Failure { reason, what: format!("{:?}: {}", status.code(), cause.chars().take(LONGEST_WORDS).collect::<String>()) }
}

/// What a connection ended by.
fn by_cause(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof};
            return [BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, UnexpectedEof]
                .contains(&error.kind())
                .then_some(Reason::Unreachable);
        }
        cause = error.source();
    }
    None
}

/// What an error comes from: the wrapping says nothing.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
