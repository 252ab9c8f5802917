//! Over real sockets: a gateway's client, the server, a director of the test's own.

mod hermetic;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    HttpBody, HttpHeaders, body_mutation::Mutation, processing_request::Request as Said, processing_response::Response as Reply,
};
use envoy_types::pb::google::protobuf::value::Kind;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use rand::{SeedableRng, rngs::StdRng};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use weir_ext_proc::protocol::{ProcessingRequest, ProcessingResponse};
use weir_serving::{Drain, DrainReport, Health, ServingMetrics};

use super::*;
use crate::exchange::{Note, Settings};
use crate::response::AttributeReporter;
use crate::{Director, Failure, InferenceRequest, Pick, Refusal, Ticket, Usage};

const PROMPT: &str = r#"{"model":"llama","prompt":"hi"}"#;

/// Picks `10.0.0.1:8000` while the gate is open, waits before, panics over the model `panic`.
struct Gated {
    open: watch::Receiver<bool>,
    seen: Arc<Mutex<Vec<String>>>,
    /// Rises with every request that waits or was picked, falls when it is gone.
    held: Arc<watch::Sender<i64>>,
}

#[derive(Debug)]
struct Held(Arc<watch::Sender<i64>>);

impl Held {
    fn new(held: &Arc<watch::Sender<i64>>) -> Self {
        held.send_modify(|held| *held += 1);
        Self(Arc::clone(held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

impl Ticket for Held {
    fn served_by(&mut self, _endpoint: SocketAddr) {}
    fn response_started(&mut self, _status: u16, _at: tokio::time::Instant) {}
    fn gateway_answered(&mut self, _status: u16, _why: Failure, _at: tokio::time::Instant) {}
    fn response_bytes(&mut self, _bytes: usize, _at: tokio::time::Instant) {}
    fn usage(&mut self, _usage: Usage) {}
    fn completed(&mut self, _at: tokio::time::Instant) {}
}

impl Director for Gated {
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        let held = Held::new(&self.held);
        let mut open = self.open.clone();
        Box::pin(async move {
            self.seen.lock().unwrap().push(format!("{:?} {:?}", request.api, request.model));
            assert_ne!(request.model.as_deref(), Some("panic"), "as asked for");
            open.wait_for(|open| *open).await.unwrap();
            Ok(Pick {
                endpoints: vec![([10, 0, 0, 1], 8000).into()],
                target_model: None,
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                ticket: Box::new(held),
            })
        })
    }

    fn refused(&self, model: Option<&str>, refusal: &Refusal) {
        self.seen.lock().unwrap().push(format!("refused {model:?} {}", refusal.message));
    }

    fn ready(&self) -> bool {
        *self.open.borrow()
    }
}

struct Picker {
    frontend: Frontend,
    open: watch::Sender<bool>,
    held: watch::Receiver<i64>,
    seen: Arc<Mutex<Vec<String>>>,
    leaving: CancellationToken,
    ext_proc: SocketAddr,
    health: SocketAddr,
    ca: Option<String>,
    serving: JoinHandle<DrainReport>,
}

fn settings() -> Settings {
    Settings { request_bytes: 8 << 20, ..Settings::default() }
}

impl Picker {
    async fn start(certificate: Certificate, open: bool) -> Self {
        Self::start_with(certificate, open, settings(), std::future::ready(())).await
    }

    async fn start_with(
        certificate: Certificate,
        open: bool,
        settings: Settings,
        first_look: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        weir_serving::install_crypto_provider();
        let (gate, opened) = watch::channel(open);
        let (held, holds) = watch::channel(0);
        let seen = Arc::default();
        let director = Gated { open: opened, seen: Arc::clone(&seen), held: Arc::new(held) };
        let leaving = CancellationToken::new();
        let random = StdRng::seed_from_u64(1);
        let mut registry = Registry::default();
        let frontend = Frontend::new(Arc::new(director), settings, random, Health::new(), leaving.clone(), &mut registry).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let drain = Drain { delay: Duration::ZERO, grace: Duration::from_secs(60) };
        let servers = Servers::bind(frontend.clone(), any, any, certificate, drain, ServingMetrics::default(), SystemTime::now());
        let servers = servers.await.unwrap();
        let (ext_proc, health, ca) = (servers.ext_proc_addr(), servers.health_addr(), servers.ca_pem().map(str::to_owned));
        let serving = tokio::spawn(servers.serve(first_look));
        Self { frontend, open: gate, held: holds, seen, leaving, ext_proc, health, ca, serving }
    }

    async fn connect(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.ext_proc)).unwrap().connect().await.unwrap()
    }

    async fn held(&mut self, wanted: i64) {
        self.held.wait_for(|held| *held == wanted).await.unwrap();
    }
}

/// A stream as a gateway has it.
struct Stream {
    say: Option<mpsc::UnboundedSender<ProcessingRequest>>,
    replies: Streaming<ProcessingResponse>,
}

impl Stream {
    async fn open(channel: Channel) -> Self {
        let (say, said) = mpsc::unbounded_channel();
        let said = unfold(said, |mut said| async move { said.recv().await.map(|message| (message, said)) });
        let mut client = ExternalProcessorClient::new(channel).max_decoding_message_size(64 << 20);
        // The head of the answer comes before anything is said.
        let replies = client.process(said).await.unwrap().into_inner();
        Self { say: Some(say), replies }
    }

    fn say(&self, said: Said) -> &Self {
        self.say.as_ref().unwrap().send(ProcessingRequest { request: Some(said), ..ProcessingRequest::default() }).unwrap();
        self
    }

    fn post(&self, pairs: &[(&str, &str)], body: &[u8]) -> &Self {
        self.say(Said::RequestHeaders(headers(pairs))).say(Said::RequestBody(piece(body, true)))
    }

    async fn reply(&mut self) -> Option<Result<ProcessingResponse, Status>> {
        self.replies.next().await
    }
}

fn headers(pairs: &[(&str, &str)]) -> HttpHeaders {
    let header =
        |(key, value): &(&str, &str)| HeaderValue { key: (*key).into(), raw_value: (*value).into(), ..HeaderValue::default() };
    HttpHeaders { headers: Some(HeaderMap { headers: pairs.iter().map(header).collect() }), ..HttpHeaders::default() }
}

fn piece(body: &[u8], end_of_stream: bool) -> HttpBody {
    HttpBody { body: body.to_vec(), end_of_stream, ..HttpBody::default() }
}

const ENVOY: [(&str, &str); 2] = [(":method", "POST"), (":path", "/v1/completions")];

/// The status and the text of a response made by the picker.
fn immediate(reply: Option<Result<ProcessingResponse, Status>>) -> (i32, String) {
    match reply.unwrap().unwrap().response {
        Some(Reply::ImmediateResponse(reply)) => (reply.status.unwrap().code, String::from_utf8(reply.body).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_goes_through_with_header_and_metadata_alike() {
    let picker = Picker::start(Certificate::PlainText, true).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&ENVOY, PROMPT.as_bytes());
    let first = stream.reply().await.unwrap().unwrap();
    let Some(Reply::RequestHeaders(head)) = first.response else { panic!("{first:?}") };
    let set = head.response.unwrap().header_mutation.unwrap().set_headers;
    let header = set[0].header.clone().unwrap();
    assert_eq!((&*header.key, &*header.raw_value, &*header.value), ("x-gateway-destination-endpoint", &b"10.0.0.1:8000"[..], ""));
    assert_eq!(set[0].append_action, 2, "OVERWRITE_IF_EXISTS_OR_ADD");
    let metadata = format!("{:?}", first.dynamic_metadata.unwrap());
    assert!(metadata.contains("envoy.lb") && metadata.contains("10.0.0.1:8000"), "{metadata}");
    let second = stream.reply().await.unwrap().unwrap();
    let Some(Reply::RequestBody(body)) = second.response else { panic!("{second:?}") };
    let Some(Mutation::StreamedResponse(body)) = body.response.unwrap().body_mutation.unwrap().mutation else { panic!() };
    assert_eq!((&body.body[..], body.end_of_stream), (PROMPT.as_bytes(), true));
}

/// A channel that trusts this authority.
async fn connect_tls(address: SocketAddr, ca_pem: &str) -> Channel {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Channel::from_static("http://picker").connect_with_connector(connect).await.unwrap()
}

#[tokio::test]
async fn a_certificate_of_its_own_by_default_and_health_behind_it() {
    let picker = Picker::start(Certificate::SelfMade, true).await;
    let channel = connect_tls(picker.ext_proc, picker.ca.as_deref().unwrap()).await;
    assert_eq!(health(channel.clone(), "envoy.service.ext_proc.v3.ExternalProcessor").await, 1);
    let mut stream = Stream::open(channel).await;
    stream.post(&ENVOY, PROMPT.as_bytes());
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestHeaders(_))));
}

#[tokio::test]
async fn one_big_message_passes_and_one_too_big_is_413() {
    let picker = Picker::start(Certificate::PlainText, true).await;
    for (bytes, wanted) in [(4_300_000, None), (8_600_000, Some(413)), (40 << 20, Some(413))] {
        let body = format!(r#"{{"model":"llama","prompt":"{}"}}"#, "x".repeat(bytes));
        let mut stream = Stream::open(picker.connect().await).await;
        stream.post(&ENVOY, body.as_bytes());
        match wanted {
            Some(status) => assert_eq!(immediate(stream.reply().await).0, status),
            None => {
                assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestHeaders(_))));
                let mut got = 0;
                while got < body.len() {
                    let Some(Reply::RequestBody(reply)) = stream.reply().await.unwrap().unwrap().response else { panic!() };
                    let Some(Mutation::StreamedResponse(piece)) = reply.response.unwrap().body_mutation.unwrap().mutation else {
                        panic!()
                    };
                    assert!(piece.body[..] == body.as_bytes()[got..got + piece.body.len()]);
                    got += piece.body.len();
                    assert_eq!(piece.end_of_stream, got == body.len());
                }
            }
        }
    }
    assert_eq!(picker.frontend.waiting_bytes(), 0);
}

#[tokio::test]
async fn a_client_gone_in_a_hold_is_let_go_at_once() {
    let mut picker = Picker::start(Certificate::PlainText, false).await;
    let channel = picker.connect().await;
    // As agentgateway: half-close. As Envoy: reset.
    for half_close in [true, false] {
        let mut stream = Stream::open(channel.clone()).await;
        stream.post(&ENVOY, PROMPT.as_bytes());
        picker.held(1).await;
        if half_close {
            stream.say = None;
            assert!(stream.reply().await.is_none(), "status OK");
        } else {
            drop(stream);
        }
        picker.held(0).await;
    }
    assert_eq!(picker.frontend.metrics().counted(Note::GoneBeforePick), 2);
    assert_eq!((picker.frontend.metrics().open(), picker.frontend.waiting_bytes()), ((0, 0), 0));
}

#[tokio::test]
async fn a_hold_on_a_new_connection_outlasts_every_time_limit_of_connections() {
    let mut picker = Picker::start(Certificate::PlainText, false).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&ENVOY, PROMPT.as_bytes());
    picker.held(1).await;
    // Short of the interval of pings, which the other side could not answer in no time.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(25)).await;
    tokio::time::resume();
    picker.open.send_replace(true);
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestHeaders(_))));
}

#[tokio::test]
async fn a_gateway_without_pseudo_headers_gets_its_pick_after_its_half_close() {
    let mut picker = Picker::start(Certificate::PlainText, false).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&[("content-type", "application/json")], PROMPT.as_bytes());
    stream.say = None;
    picker.held(1).await;
    picker.open.send_replace(true);
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestHeaders(_))));
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestBody(_))));
    assert!(stream.reply().await.is_none());
    picker.held(0).await;
}

#[tokio::test]
async fn a_director_that_panics_is_a_500_and_no_broken_stream() {
    let mut picker = Picker::start(Certificate::PlainText, true).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&ENVOY, PROMPT.replace("llama", "panic").as_bytes());
    assert_eq!(immediate(stream.reply().await), (500, "inference error: Internal - the picker failed over this request".into()));
    assert!(stream.reply().await.is_none());
    picker.held(0).await;
    assert_eq!(picker.frontend.metrics().counted(Note::DirectorFailed), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_to_the_director() {
    let picker = Picker::start(Certificate::PlainText, true).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&ENVOY, b"{}");
    assert_eq!(immediate(stream.reply().await), (400, "inference error: BadRequest - model not found in request body".into()));
    assert_eq!(*picker.seen.lock().unwrap(), ["refused None model not found in request body"]);
}

#[tokio::test]
async fn a_drain_answers_what_waits_and_lets_responses_end() {
    let mut picker = Picker::start(Certificate::PlainText, false).await;
    let channel = picker.connect().await;
    picker.open.send_replace(true);
    let mut streaming = Stream::open(channel.clone()).await;
    streaming.post(&ENVOY, PROMPT.as_bytes());
    assert!(streaming.reply().await.unwrap().is_ok() && streaming.reply().await.unwrap().is_ok());
    picker.open.send_replace(false);
    let mut waiting = Stream::open(channel).await;
    waiting.post(&ENVOY, PROMPT.as_bytes());
    picker.held(2).await;
    picker.leaving.cancel();
    let reply = waiting.reply().await.unwrap().unwrap();
    let Some(Reply::ImmediateResponse(refused)) = reply.response else { panic!("{reply:?}") };
    assert_eq!(refused.status.unwrap().code, 503);
    let named = |name: &str| {
        refused.headers.iter().flat_map(|headers| &headers.set_headers).any(|set| set.header.as_ref().unwrap().key == name)
    };
    assert!(named("retry-after") && named("x-llm-d-request-dropped-reason"));
    // The response goes on to its end.
    streaming.say(Said::ResponseHeaders(headers(&[(":status", "200")]))).say(Said::ResponseBody(piece(b"{}", true)));
    assert!(streaming.reply().await.unwrap().is_ok() && streaming.reply().await.unwrap().is_ok());
    streaming.say = None;
    assert!(streaming.reply().await.is_none());
    picker.held(0).await;
    drop((streaming, waiting));
    let report = picker.serving.await.unwrap();
    assert_eq!(report.requests_cut, 0);
}

async fn health(channel: Channel, name: &str) -> i32 {
    let request = HealthCheckRequest { service: name.into() };
    HealthClient::new(channel).check(request).await.unwrap().into_inner().status
}

#[tokio::test]
async fn health_under_any_name_on_both_ports() {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    let picker = Picker::start(Certificate::PlainText, false).await;
    let separate = Channel::from_shared(format!("http://{}", picker.health)).unwrap().connect().await.unwrap();
    for channel in [picker.connect().await, separate] {
        for name in ["", "readiness", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor"] {
            picker.open.send_replace(false);
            assert_eq!(health(channel.clone(), name).await, NOT_SERVING, "{name}");
            picker.open.send_replace(true);
            assert_eq!(health(channel.clone(), name).await, SERVING, "{name}");
        }
        picker.open.send_replace(false);
        assert_eq!(health(channel.clone(), "liveness").await, SERVING);
        let watched = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!(watched.code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn requests_wait_for_the_first_look_and_health_does_not() {
    let looked = CancellationToken::new();
    let picker = Picker::start_with(Certificate::PlainText, true, settings(), looked.clone().cancelled_owned()).await;
    let channel = picker.connect().await;
    let asks = tokio::spawn(async move {
        let mut stream = Stream::open(channel).await;
        stream.post(&ENVOY, PROMPT.as_bytes());
        stream.reply().await.unwrap().unwrap()
    });
    let channel = Channel::from_shared(format!("http://{}", picker.health)).unwrap().connect().await.unwrap();
    assert_eq!(health(channel, "liveness").await, 1);
    assert!(!asks.is_finished() && picker.seen.lock().unwrap().is_empty());
    looked.cancel();
    let first = asks.await.unwrap();
    assert!(matches!(first.response, Some(Reply::RequestHeaders(_))), "{first:?}");
}

#[tokio::test]
async fn thousands_of_requests_wait_on_one_connection() {
    let mut picker = Picker::start(Certificate::PlainText, false).await;
    let channel = picker.connect().await;
    let mut streams = Vec::new();
    for _ in 0..2000 {
        let stream = Stream::open(channel.clone()).await;
        stream.post(&ENVOY, PROMPT.as_bytes());
        streams.push(stream);
    }
    picker.held(2000).await;
    picker.open.send_replace(true);
    for stream in &mut streams {
        assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::RequestHeaders(_))));
    }
    drop(streams);
    picker.held(0).await;
}

#[tokio::test]
async fn a_thousand_one_shots_leave_nothing_behind() {
    let mut picker = Picker::start(Certificate::PlainText, true).await;
    let channel = picker.connect().await;
    for _ in 0..1000 {
        let mut stream = Stream::open(channel.clone()).await;
        stream.post(&[("content-type", "application/json")], PROMPT.as_bytes());
        stream.say = None;
        let mut replies = 0;
        while let Some(reply) = stream.reply().await {
            assert!(reply.is_ok());
            replies += 1;
        }
        assert_eq!(replies, 2);
    }
    picker.held(0).await;
    assert_eq!(picker.frontend.waiting_bytes(), 0);
}

#[tokio::test]
async fn a_stream_that_stays_open_and_mute_is_not_in_flight_for_ever() {
    let settings = Settings { silence: Duration::from_secs(20), ..Settings::default() };
    let mut picker = Picker::start_with(Certificate::PlainText, true, settings, std::future::ready(())).await;
    let mut stream = Stream::open(picker.connect().await).await;
    stream.post(&ENVOY, PROMPT.as_bytes());
    assert!(stream.reply().await.unwrap().is_ok() && stream.reply().await.unwrap().is_ok());
    picker.held(1).await;
    // Short of the interval of pings, which the other side could not answer in no time.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(25)).await;
    tokio::time::resume();
    picker.held(0).await;
    assert_eq!(picker.frontend.metrics().counted(Note::Silent), 1);
    stream.say(Said::ResponseHeaders(headers(&[(":status", "200")])));
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::ResponseHeaders(_))));
}

#[tokio::test]
async fn a_reported_number_is_metadata_of_the_last_piece() {
    let reporters = vec![AttributeReporter::new("envoy.lb", "cost", "usage.completion_tokens * 2.0", "").unwrap()];
    let settings = Settings { reporters, ..Settings::default() };
    let picker = Picker::start_with(Certificate::PlainText, true, settings, std::future::ready(())).await;
    let document = &br#"{"usage":{"prompt_tokens":7,"completion_tokens":10}}"#[..];
    let event = &b"data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":10}}\n\n"[..];
    for (kind, body) in [("application/json", document), ("text/event-stream", event)] {
        let mut stream = Stream::open(picker.connect().await).await;
        stream.post(&ENVOY, PROMPT.as_bytes());
        stream.say(Said::ResponseHeaders(headers(&[(":status", "200"), ("content-type", kind)])));
        stream.say(Said::ResponseBody(piece(body, false))).say(Said::ResponseBody(piece(b"", true)));
        let mut told = Vec::new();
        for _ in 0..5 {
            let reply = stream.reply().await.unwrap().unwrap();
            if matches!(reply.response, Some(Reply::ResponseBody(_))) {
                told.push(reply.dynamic_metadata);
            }
        }
        let [None, Some(metadata)] = &told[..] else { panic!("{told:?}") };
        let Some(Kind::StructValue(namespace)) = &metadata.fields["envoy.lb"].kind else { panic!("{metadata:?}") };
        assert_eq!(namespace.fields["cost"].kind, Some(Kind::NumberValue(20.0)));
    }
}

#[tokio::test]
async fn a_stream_too_many_is_turned_away() {
    let registry = &mut Registry::default();
    let metrics = FrontendMetrics::register(registry);
    let first = metrics.stream(1);
    assert!(first.is_some() && metrics.stream(1).is_none());
    drop(first);
    assert!(metrics.stream(1).is_some());
    let page = crate::metrics::testing::page(registry);
    assert!(
        page.contains("weir_ext_proc_streams 0") && page.contains("weir_ext_proc_events_total{kind=\"too_many_streams\"} 0"),
        "{page}"
    );
}
