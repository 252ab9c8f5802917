//! The list of the Go picker's own hermetic tests: real gRPC, the real director, pods 192.168.1.N.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use tokio::time::Instant;
use weir_datastore::engine::{PageClock, PageMemory, PageReader};
use weir_datastore::page::Format;
use weir_datastore::{EndpointSpec, EndpointState, EndpointWriter, PoolId, PoolSpec, TopologyWriter, datastore};

use super::*;
use crate::director::{DirectorSettings, PoolDirector};
use crate::metrics::{EppMetrics, testing};
use crate::request::{Parser, Parsers};
use crate::resources::{ModelRewrite, Objective, Resources, RewriteRule, Target};
use crate::scheduling::SchedulingConfig;

/// Requests waiting, KV cache in use, active adapters.
type Load = (u32, f64, &'static str);

const SCORERS: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                       - type: kv-cache-utilization-scorer\n- type: lora-affinity-scorer\n";
const BODY: &str = r#"{"max_tokens":100,"model":"sql-lora","prompt":"test","temperature":0}"#;
const REWRITE: &str = "x-gateway-model-name-rewrite";

struct Hermetic {
    channel: Channel,
    registry: Registry,
    _resources: watch::Sender<Arc<Resources>>,
    _pool: (TopologyWriter, Vec<EndpointWriter>),
    _serving: JoinHandle<DrainReport>,
}

/// What came back: the endpoint and the body that goes on, or status and text of a refusal.
type Outcome = Result<(String, Vec<u8>), (i32, String)>;

fn settings(parser: Option<Parser>) -> Settings {
    Settings { parsers: parser.map_or_else(Parsers::default, |parser| Parsers::of([parser])), ..Settings::default() }
}

impl Hermetic {
    async fn start(loads: &[Load], parser: Option<Parser>) -> Self {
        let start = Instant::now();
        let id = PoolId::new("default", "pool");
        let (store, mut topology) = datastore();
        let endpoint = |index: usize| EndpointSpec {
            state: EndpointState::Ready,
            pod: format!("pod-{index}").into(),
            ..EndpointSpec::standalone(format!("192.168.1.{}:8000", index + 1).parse().unwrap())
        };
        let endpoints = (0..loads.len()).map(endpoint).collect();
        let spec = PoolSpec { endpoints, ..PoolSpec::empty(id.clone()) };
        let mut writers = topology.upsert(spec, start).added;
        for (writer, (queue, kv, adapters)) in writers.iter_mut().zip(loads) {
            let page = format!(
                "vllm:num_requests_running 0\nvllm:num_requests_waiting {queue}\nvllm:kv_cache_usage_perc {kv}\n\
                 vllm:lora_requests_info{{running_lora_adapters=\"{adapters}\",waiting_lora_adapters=\"\",max_lora=\"2\"}} 1\n"
            );
            let clock = PageClock { asked_at: start, wall_ms: 0, stale_after_ms: 60_000 };
            let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default());
            writer.succeeded(load.unwrap(), Duration::from_secs(60));
        }
        let scheduling = SchedulingConfig::parse(SCORERS).unwrap();
        let mut registry = Registry::default();
        let metrics = EppMetrics::register(&mut registry, "pool", &scheduling, "c", "b");
        let objectives = vec![Objective { name: "fast".into(), priority: 2 }, Objective { name: "batch".into(), priority: -1 }];
        let rule = RewriteRule { models: vec!["alias".into()], targets: vec![Target { model: "tuned".into(), weight: None }] };
        let rewrites = vec![ModelRewrite { name: "r".into(), created: 0, rules: vec![rule] }];
        let (resources, seen) = watch::channel(Arc::new(Resources::new(objectives, rewrites, Vec::new())));
        let for_director = DirectorSettings { pool: id, scheduling, honour_subset: true, snapshot_lasts: Duration::ZERO };
        let unheard = Arc::new(|_: &_, _: &_| Box::new(|_: bool| {}) as Box<_>);
        let random = StdRng::seed_from_u64(7);
        let director = PoolDirector::new(for_director, store, seen, metrics, unheard, random, start);
        let (random, leaving) = (StdRng::seed_from_u64(1), CancellationToken::new());
        let director = Arc::new(director);
        let frontend = Frontend::new(director, settings(parser), random, Health::new(), leaving, &mut registry).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let certificate = Certificate::PlainText;
        let bind = Servers::bind(frontend, any, any, certificate, Drain::default(), ServingMetrics::default(), SystemTime::now());
        let servers = bind.await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", servers.ext_proc_addr())).unwrap().connect().await.unwrap();
        let serving = tokio::spawn(servers.serve(std::future::ready(())));
        Self { channel, registry, _resources: resources, _pool: (topology, writers), _serving: serving }
    }

    /// A request of these pieces of a body; none: a head alone.
    async fn ask(&self, pairs: &[(&str, &str)], pieces: &[&[u8]], subset: Option<&[&str]>) -> (Outcome, Stream) {
        let mut stream = Stream::open(self.channel.clone()).await;
        let mut head = headers(pairs);
        head.end_of_stream = pieces.is_empty();
        let say = |said: Said| {
            let metadata_context = subset.map(allowed);
            let message = ProcessingRequest { request: Some(said), metadata_context, ..ProcessingRequest::default() };
            stream.say.as_ref().unwrap().send(message).unwrap();
        };
        say(Said::RequestHeaders(head));
        for (index, bytes) in pieces.iter().enumerate() {
            say(Said::RequestBody(piece(bytes, index + 1 == pieces.len())));
        }
        let first = stream.reply().await;
        let head = match &first.as_ref().unwrap().as_ref().unwrap().response {
            Some(Reply::RequestHeaders(head)) => head.clone(),
            _ => return (Err(immediate(first)), stream),
        };
        let set = head.response.unwrap().header_mutation.unwrap().set_headers;
        let pick = set.iter().find_map(|set| set.header.as_ref().filter(|header| header.key == "x-gateway-destination-endpoint"));
        let pick = String::from_utf8(pick.unwrap().raw_value.clone()).unwrap();
        let mut body = Vec::new();
        while !pieces.is_empty() {
            let reply = stream.reply().await.unwrap().unwrap();
            let Some(Reply::RequestBody(reply)) = reply.response else { panic!("{reply:?}") };
            let next = streamed(reply.response.unwrap().body_mutation.unwrap().mutation.unwrap());
            body.extend_from_slice(&next.0);
            if next.1 {
                break;
            }
        }
        (Ok((pick, body)), stream)
    }

    /// A completion, whole.
    async fn completion(&self, more: &[(&str, &str)], body: &str, subset: Option<&[&str]>) -> Outcome {
        self.ask(&[&ENVOY[..], &[("hi", "mom")], more].concat(), &[body.as_bytes()], subset).await.0
    }

    fn shows(&self, line: &str) {
        testing::shows(&self.registry, line);
    }
}

fn streamed(mutation: Mutation) -> (Vec<u8>, bool) {
    let Mutation::StreamedResponse(streamed) = mutation else { panic!("{mutation:?}") };
    (streamed.body, streamed.end_of_stream)
}

/// The gateway's subset.
fn allowed(endpoints: &[&str]) -> Metadata {
    let text = |text: &&str| Value { kind: Some(Kind::StringValue((*text).to_owned())) };
    let list = Value { kind: Some(Kind::ListValue(ListValue { values: endpoints.iter().map(text).collect() })) };
    let fields = HashMap::from([("x-gateway-destination-endpoint-subset".to_owned(), list)]);
    let filter_metadata = [("envoy.lb.subset_hint".to_owned(), Struct { fields })].into();
    Metadata { filter_metadata, ..Metadata::default() }
}

fn pod(number: usize) -> String {
    format!("192.168.1.{number}:8000")
}

fn refused(status: i32, text: &str) -> Outcome {
    Err((status, format!("inference error: {text}")))
}

#[tokio::test]
async fn the_best_pod_is_picked() {
    for (loads, model, wanted) in [
        // Low queue and low cache win.
        (&[(3, 0.2, "foo,bar"), (0, 0.1, "foo,bar"), (10, 0.2, "foo,bar")][..], "my-model", 2),
        // An active adapter with a low queue wins.
        (&[(0, 0.2, "foo,bar"), (0, 0.1, "foo,sql-lora"), (10, 0.2, "foo,bar")], "sql-lora", 2),
        // An active adapter beats a cache that is emptier.
        (&[(10, 0.2, "foo,bar"), (10, 0.4, "foo,sql-lora"), (10, 0.3, "foo,bar")], "sql-lora", 2),
        // Nothing of default priority is shed: 1 of the queue, .15 of the cache and .8 for room, against .4, .8 and 0.
        (&[(6, 0.2, "foo,bar"), (0, 0.85, "foo"), (10, 0.9, "foo,bar")], "my-model", 2),
    ] {
        let picker = Hermetic::start(loads, None).await;
        let outcome = picker.completion(&[(REWRITE, model)], BODY, None).await;
        assert_eq!(outcome, Ok((pod(wanted), BODY.replace("sql-lora", model).into_bytes())), "{loads:?}");
        picker.shows(&format!(
            "inference_objective_request_total{{model_name=\"sql-lora\",target_model_name=\"{model}\",priority=\"0\"}} 1"
        ));
    }
}

const IDLE: [Load; 3] = [(0, 0.1, ""), (3, 0.2, ""), (10, 0.2, "")];

#[tokio::test]
async fn objectives_and_rewrites() {
    let picker = Hermetic::start(&IDLE, None).await;
    let outcome = picker.completion(&[("x-gateway-inference-objective", "fast")], BODY, None).await;
    assert_eq!(outcome, Ok((pod(1), BODY.as_bytes().to_vec())));
    picker.shows("inference_objective_request_total{model_name=\"sql-lora\",target_model_name=\"sql-lora\",priority=\"2\"} 1");
    let outcome = picker.completion(&[], &BODY.replace("sql-lora", "alias"), None).await;
    assert_eq!(outcome, Ok((pod(1), BODY.replace("sql-lora", "tuned").into_bytes())));
}

#[tokio::test]
async fn a_passthrough_parser_sends_anything_on() {
    let picker = Hermetic::start(&IDLE, Some(Parser::Passthrough)).await;
    let outcome = picker.completion(&[("x-gateway-inference-objective", "fast")], "\0 no JSON", None).await;
    assert_eq!(outcome, Ok((pod(1), b"\0 no JSON".to_vec())));
}

#[tokio::test]
async fn bodies_refused_split_or_absent() {
    let picker = Hermetic::start(&IDLE, None).await;
    let (status, text) = picker.completion(&[], "no healthy upstream", None).await.unwrap_err();
    assert!(status == 400 && text.starts_with("inference error: BadRequest - error unmarshaling request bodyMap: "), "{text}");
    let outcome = picker.completion(&[], r#"{"prompt":"test"}"#, None).await;
    assert_eq!(outcome, refused(400, "BadRequest - model not found in request body"));
    let (start, end) = BODY.as_bytes().split_at(20);
    assert_eq!(picker.ask(&ENVOY, &[start, end], None).await.0, Ok((pod(1), BODY.as_bytes().to_vec())));
    let get = [(":method", "GET"), (":path", "/v1/models")];
    let (pick, body) = picker.ask(&get, &[], None).await.0.unwrap();
    assert!((1..=3).any(|number| pod(number) == pick) && body.is_empty());
    let empty = Hermetic::start(&[], None).await;
    assert_eq!(empty.ask(&get, &[], None).await.0.unwrap_err().0, 503, "the protocol's status; the Go picker's is 500");
    assert_eq!(empty.completion(&[], BODY, None).await.unwrap_err().0, 503);
}

#[tokio::test]
async fn subsets_over_json_and_grpc() {
    let generate = b"\0\0\0\0\x04\x1a\x02hi";
    let grpc = [(":method", "POST"), (":path", "/vllm.grpc.engine.VllmEngine/Generate"), ("content-type", "application/grpc")];
    let loads = [(0, 0.2, ""), (0, 0.1, ""), (10, 0.2, "")];
    for (pairs, body, parser) in [(&ENVOY[..], BODY.as_bytes(), None), (&grpc, generate, Some(Parser::VllmGrpc))] {
        let picker = Hermetic::start(&loads, parser).await;
        let all = ["192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"];
        assert_eq!(picker.ask(pairs, &[body], Some(&all)).await.0, Ok((pod(2), body.to_vec())));
        assert_eq!(picker.ask(pairs, &[body], Some(&all[2..])).await.0, Ok((pod(3), body.to_vec())));
        let none = picker.ask(pairs, &[body], Some(&["192.168.1.99:8000"])).await.0;
        assert_eq!(none, refused(503, "ServiceUnavailable - failed to find endpoint candidates for serving the request"));
    }
}

#[tokio::test]
async fn calls_of_vllm() {
    let path = |method: &str| format!("/vllm.grpc.engine.VllmEngine/{method}");
    let picker = Hermetic::start(&[(6, 0.2, ""), (0, 0.85, ""), (10, 0.9, "")], Some(Parser::VllmGrpc)).await;
    let generate = b"\0\0\0\0\x06\x1a\x02hi\x28\x01".as_slice();
    let embed = b"\0\0\0\0\x06\x12\x04\x0a\x02hi".as_slice();
    for (method, body) in [("Generate", generate), ("Embed", embed)] {
        let path = path(method);
        let pairs = [(":method", "POST"), (":path", path.as_str()), ("content-type", "application/grpc")];
        // No shedding at default priority, and split anywhere.
        for cut in [0, 3, 5, 8] {
            let (start, end) = body.split_at(cut);
            assert_eq!(picker.ask(&pairs, &[start, end], None).await.0, Ok((pod(1), body.to_vec())));
        }
    }
    let generate_path = path("Generate");
    let grpc = [(":method", "POST"), (":path", generate_path.as_str()), ("content-type", "application/grpc")];
    let invalid = picker.ask(&grpc, &[b"no frame"], None).await.0;
    assert_eq!(invalid, refused(400, "BadRequest - parsing gRPC payload for Generate: not able to parse payload"));
    let health = path("HealthCheck");
    let outcome = picker.ask(&[(":method", "POST"), (":path", &health)], &[b"\0\0\0\0\0"], None).await.0;
    assert_eq!(outcome, refused(400, &format!("BadRequest - unsupported gRPC path: {health}")));
    let empty = Hermetic::start(&[], Some(Parser::VllmGrpc)).await;
    assert_eq!(empty.ask(&grpc, &[generate], None).await.0.unwrap_err().0, 503);
    // Answers with trailers: pieces without an end, then the trailers, whatever they hold.
    let complete = b"\0\0\0\0\x08\x12\x06\x18\x07\x20\x03\x28\x04".as_slice();
    for pieces in [&[complete][..], &[&complete[..7], &complete[7..]], &[b"junk"]] {
        let (_, mut stream) = picker.ask(&grpc, &[generate], None).await;
        stream.say(Said::ResponseHeaders(headers(&[(":status", "200"), ("content-type", "application/grpc")])));
        assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::ResponseHeaders(_))));
        for bytes in pieces {
            stream.say(Said::ResponseBody(piece(bytes, false)));
            let reply = stream.reply().await.unwrap().unwrap();
            let Some(Reply::ResponseBody(reply)) = reply.response else { panic!("{reply:?}") };
            let mutation = reply.response.unwrap().body_mutation.unwrap().mutation.unwrap();
            assert_eq!(streamed(mutation), (bytes.to_vec(), false));
        }
        stream.say(Said::ResponseTrailers(Default::default()));
        assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::ResponseTrailers(_))));
    }
}

/// How a body of a response comes back, piece by piece, after this head.
async fn answered(picker: &Hermetic, body: &str, kind: Option<&str>, pieces: &[&str], trailers: bool) -> Vec<(String, bool)> {
    let (outcome, mut stream) = picker.ask(&ENVOY, &[body.as_bytes()], None).await;
    outcome.unwrap();
    let status = (":status", "200");
    let pairs = kind.map_or_else(|| vec![status], |kind| vec![status, ("content-type", kind)]);
    stream.say(Said::ResponseHeaders(headers(&pairs)));
    assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::ResponseHeaders(_))));
    let mut back = Vec::new();
    for (index, text) in pieces.iter().enumerate() {
        stream.say(Said::ResponseBody(piece(text.as_bytes(), index + 1 == pieces.len() && !trailers)));
        let reply = stream.reply().await.unwrap().unwrap();
        let Some(Reply::ResponseBody(reply)) = reply.response else { panic!("{reply:?}") };
        let (bytes, end) = streamed(reply.response.unwrap().body_mutation.unwrap().mutation.unwrap());
        back.push((String::from_utf8(bytes).unwrap(), end));
    }
    if trailers {
        stream.say(Said::ResponseTrailers(Default::default()));
        assert!(matches!(stream.reply().await.unwrap().unwrap().response, Some(Reply::ResponseTrailers(_))));
    }
    back
}

#[tokio::test]
async fn answers_pass_piece_by_piece() {
    let picker = Hermetic::start(&IDLE, None).await;
    let streaming = BODY.replace("\"temperature\":0", "\"stream\":true");
    let usage =
        r#"data: {"object":"text_completion","choices":[],"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}"#;
    let (events, done) = (format!("{usage}\n\n"), "data: [DONE]\n\n");
    let together = format!("{events}{done}");
    let json = ["{\"model\":\"sql-lora\",", "\"usage\":{\"prompt_tokens\":7}}", ""];
    for (kind, pieces) in [
        (Some("application/json"), &json[..]),
        (Some("text/plain"), &["no healthy upstream"]),
        (Some("text/event-stream"), &["data: {}\n\n", &events, done, ""]),
        (Some("text/event-stream"), &[&together]),
        (None, &["data: {}\n\n", &events, done]),
    ] {
        for body in [BODY, &streaming] {
            for trailers in [false, true] {
                let back = answered(&picker, body, kind, pieces, trailers).await;
                let last = pieces.len() - 1;
                let wanted: Vec<_> =
                    pieces.iter().enumerate().map(|(at, text)| ((*text).to_owned(), at == last && !trailers)).collect();
                assert_eq!(back, wanted, "{kind:?} {trailers}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_counted_once_for_each_answer() {
    let event = "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":10}}\n\n";
    let picker = Hermetic::start(&IDLE, None).await;
    answered(&picker, BODY, Some("text/event-stream"), &[event, event, "data: [DONE]\n\n", ""], false).await;
    picker.shows("inference_objective_input_tokens_sum{model_name=\"sql-lora\",target_model_name=\"sql-lora\"} 7.0");
    picker.shows("inference_objective_input_tokens_count{model_name=\"sql-lora\",target_model_name=\"sql-lora\"} 1");
}
