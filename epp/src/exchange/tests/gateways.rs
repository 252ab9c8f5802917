//! What each gateway does in its own way.

use super::*;
use crate::Api;
use crate::request::{Parser, Parsers};

const ENDPOINT: &str = "10.0.0.1:8000";

#[test]
fn nginx_half_closes_and_waits_for_the_pick_and_the_end() {
    let mut script = Script::new(None);
    // No pseudo-headers, no modes, one body message, half-close at once.
    script.head(&[("content-type", "application/json"), ("x-epp-host", "h")], false).body(PROMPT, true).close(Closed::HalfClosed);
    assert!(!script.ended() && !script.abandoned());
    assert_eq!(script.pick(&[ENDPOINT], None).model.as_deref(), Some("llama"), "the body's shape tells the API");
    assert!(script.ended());
    let replies = script.replies();
    assert!(matches!(&replies[0], Reply::RequestHeaders(head) if head.metadata.is_some()));
    assert_eq!(script.told(), ["ended"], "in flight until the stream's end, no success");
    assert!(script.notes().is_empty());
    assert_eq!(script.budget.used(), 0);
}

#[test]
fn nginx_half_closing_after_a_head_alone() {
    let mut script = Script::new(None);
    script.head(&[("accept", "*/*")], true).close(Closed::HalfClosed);
    assert!(!script.ended());
    script.pick(&[ENDPOINT], None);
    assert!(script.ended());
}

#[test]
fn a_half_close_with_a_method_means_the_client_is_gone() {
    let mut script = Script::duplex();
    script.post().body(PROMPT, true).close(Closed::HalfClosed);
    assert!(script.abandoned() && script.ended());
    assert_eq!(script.notes(), [Note::GoneBeforePick]);
    // What the director still says comes too late, and is let go.
    script.pick(&[ENDPOINT], None);
    assert_eq!(script.told(), ["ended"]);
    assert!(script.replies().is_empty());
}

#[test]
fn a_reset_is_an_end_at_every_phase() {
    type Phase = (fn(&mut Script), &'static [Note], bool);
    let phases: [Phase; 6] = [
        (|_| {}, &[], false),
        (|script| _ = script.post(), &[Note::GoneBeforePick], false),
        (|script| _ = script.post().body(PROMPT, false), &[Note::GoneBeforePick], false),
        (|script| _ = script.post().body(PROMPT, true), &[Note::GoneBeforePick], true),
        (|script| _ = script.post().body(PROMPT, true).pick(&[ENDPOINT], None), &[Note::GoneBeforeResponse], false),
        (
            |script| {
                script.post().body(PROMPT, true).pick(&[ENDPOINT], None);
                script.send(response("200", "application/json"));
            },
            &[Note::GoneInResponse],
            false,
        ),
    ];
    for (index, (until, notes, abandoned)) in phases.into_iter().enumerate() {
        for how in [Closed::Reset, Closed::HalfClosed] {
            let mut script = Script::duplex();
            until(&mut script);
            script.close(how);
            assert_eq!((script.notes(), script.abandoned(), script.ended()), (notes.to_vec(), abandoned, true), "{index} {how:?}");
            assert!(!script.told().contains(&"completed".to_owned()));
            assert_eq!(script.told().last().is_some_and(|last| last == "ended"), index >= 4);
            assert_eq!(script.budget.used(), 0);
        }
    }
}

#[test]
fn envoy_gives_up_a_hold_by_a_response_of_its_own() {
    let mut script = Script::duplex();
    script.post().body(PROMPT, true).send(response("504", "text/plain"));
    script.send(Message::ResponseBody(Chunk { body: b"timeout".to_vec(), end: true }));
    assert!(script.abandoned());
    assert_eq!(script.notes(), [Note::GatewayGaveUp]);
    let replies = script.replies();
    assert!(matches!(replies[0], Reply::ResponseHeaders(_)));
    assert_eq!(bytes(&replies), (b"timeout".to_vec(), vec![true]));
    assert!(!script.ended(), "the gateway ends it");
}

#[test]
fn a_response_can_be_the_first_message() {
    let mut script = Script::duplex();
    script.send(response("403", "text/plain")).send(Message::ResponseBody(Chunk { body: b"no".to_vec(), end: true }));
    assert_eq!(script.replies().len(), 2);
    assert!(script.notes().is_empty());
}

#[test]
fn buffering_gateways_get_an_answer_to_the_head_at_once() {
    for mode in [BodyMode::Buffered, BodyMode::BufferedPartial] {
        let mut script = Script::new(modes(mode, BodyMode::None));
        script.head(&[(":method", "POST"), (":path", "/v1/completions"), ("x-gateway-inference-objective", "o")], false);
        let first = HeadReply { remove: vec!["x-gateway-inference-objective"], ..HeadReply::default() };
        assert_eq!(script.replies(), [Reply::RequestHeaders(first)]);
        script.body(PROMPT, true);
        assert_eq!(script.pick(&[ENDPOINT], None).model.as_deref(), Some("llama"));
        let replies = script.replies();
        let [Reply::RequestBody(BodyReply { content: Content::Unchanged, head: Some(head), .. })] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert_eq!(head.metadata, Some(PickMetadata(ENDPOINT.into())));
        assert!(head.set.contains(&("x-gateway-destination-endpoint", ENDPOINT.into())));
    }
    // A body whose trailers follow is whole as well; one cut off is placed by what is known.
    let mut script = Script::new(modes(BodyMode::Buffered, BodyMode::None));
    script.post().body(PROMPT, false).send(Message::RequestTrailers).pick(&[ENDPOINT], None);
    assert_eq!(script.replies().last(), Some(&Reply::RequestTrailers));
    let mut script = Script::new(modes(BodyMode::BufferedPartial, BodyMode::None));
    script.post().body(&PROMPT[..20], false);
    assert_eq!(script.pick(&[ENDPOINT], None).model, None);
}

#[test]
fn head_first_modes_are_placed_by_the_head() {
    for mode in [BodyMode::None, BodyMode::Streamed] {
        let mut script = Script::new(modes(mode, BodyMode::None));
        script.post();
        if mode == BodyMode::Streamed {
            // Sent without waiting for the head's reply.
            script.body("ab", false).body("c", true);
        }
        assert_eq!(script.pick(&[ENDPOINT], None).model, None);
        let replies = script.replies();
        assert!(matches!(&replies[0], Reply::RequestHeaders(head) if head.metadata.is_some()));
        assert!(replies[1..].iter().all(|reply| *reply == Reply::RequestBody(BodyReply::default())));
        assert_eq!(replies.len(), if mode == BodyMode::Streamed { 3 } else { 1 });
    }
}

#[test]
fn a_gateway_that_sends_no_bodies_is_asked_for_them_by_setting() {
    let settings = Settings { ask_for_bodies: true, ..Settings::default() };
    let mut script = Script::with(modes(BodyMode::None, BodyMode::None), settings.clone());
    script.post();
    assert_eq!(script.replies(), [Reply::FullDuplex]);
    script.body(PROMPT, true).pick(&[ENDPOINT], Some("llama-8b"));
    let replies = script.replies();
    let Reply::RequestHeaders(head) = &replies[0] else { panic!("{replies:?}") };
    assert!(head.remove.contains(&"content-length") && !head.set.iter().any(|(name, _)| *name == "content-length"));
    assert_eq!(bytes(&replies), (PROMPT.replace("llama", "llama-8b").into_bytes(), vec![true]));
    script.send(response("200", "application/json"));
    script.send(Message::ResponseBody(Chunk { body: br#"{"model":"llama-8b"}"#.to_vec(), end: true }));
    assert_eq!(bytes(&script.replies()), (br#"{"model":"llama"}"#.to_vec(), vec![true]));
    // Nothing is asked for where nothing would be read.
    for headers in [&[(":method", "GET"), ("upgrade", "websocket")][..], &[("content-type", "application/grpc")]] {
        let mut script = Script::with(modes(BodyMode::None, BodyMode::None), settings.clone());
        script.head(headers, false).pick(&[ENDPOINT], None);
        assert!(matches!(script.replies()[..], [Reply::RequestHeaders(_)]));
    }
}

#[test]
fn an_upgraded_connection_passes_without_an_end() {
    for headers in
        [&[(":method", "GET"), ("upgrade", "websocket")][..], &[(":method", "CONNECT")], &[("content-type", "application/grpc")]]
    {
        let mut script = Script::duplex();
        script.head(headers, false).body("early", false);
        script.pick(&[ENDPOINT], Some("target"));
        assert_eq!(script.notes(), [Note::ModelNotRewritten]);
        let replies = script.replies();
        assert!(matches!(replies[0], Reply::RequestHeaders(_)));
        assert_eq!(bytes(&replies), (b"early".to_vec(), vec![false]));
        script.send(Message::ResponseHeaders(head(&[(":status", "101")], false))).body("frame", false);
        let replies = script.replies();
        assert_eq!((replies.len(), bytes(&replies)), (2, (b"frame".to_vec(), vec![false])), "both directions go on");
    }
}

#[test]
fn an_upload_to_an_unknown_path_does_not_wait_for_its_end() {
    let upload = [(":method", "POST"), (":path", "/v1/audio/transcriptions"), ("content-type", "multipart/form-data; boundary=b")];
    let mut script = Script::duplex();
    script.head(&upload, false).pick(&[ENDPOINT], None);
    script.body("--b", false).body("", true);
    let replies = script.replies();
    assert_eq!((replies.len(), bytes(&replies)), (3, (b"--b".to_vec(), vec![false, true])));
    // A known path is read whatever it says of itself.
    let mut script = Script::duplex();
    script.head(&[(":path", "/v1/completions"), ("content-type", "text/plain")], false).body(PROMPT, true);
    assert_eq!(script.pick(&[ENDPOINT], None).model.as_deref(), Some("llama"));
}

#[test]
fn a_message_without_content_is_passed_over() {
    let mut script = Script::duplex();
    script.deliver(Incoming::default()).post().body(PROMPT, true).pick(&[ENDPOINT], None);
    assert_eq!(script.notes(), [Note::Unexpected]);
    assert_eq!(script.replies().len(), 2);
}

fn grpc(method: &str) -> Vec<(&'static str, String)> {
    let path = format!("/vllm.grpc.engine.VllmEngine/{method}");
    vec![(":method", "POST".into()), (":path", path), ("content-type", "application/grpc".into())]
}

/// Messages as a client of vLLM writes them, each in its frame.
fn frame(message: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn over_grpc(method: &str) -> Script {
    let mut script = Script::with(None, Settings { parsers: Parsers::of([Parser::VllmGrpc]), ..Settings::default() });
    let headers = grpc(method);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    script.head(&headers, false);
    script
}

#[test]
fn calls_of_vllm_are_read_and_keep_their_bytes() {
    // text (3) "say \"hi\"", stream (5) true; a request id (1) before.
    let generate = frame(b"\x0a\x01r\x1a\x08say \"hi\"\x28\x01");
    let embed = frame(b"\x0a\x01r\x12\x09\x0a\x02hi\x12\x03\x01\x02\x03");
    for (method, body, api, prefix, streaming) in
        [("Generate", &generate, Api::Completions, &b"say \"hi\""[..], true), ("Embed", &embed, Api::Embeddings, b"hi", false)]
    {
        for cut in [0, 1, 4, 5, 9, body.len()] {
            let mut script = over_grpc(method);
            script.send(Message::RequestBody(Chunk { body: body[..cut].to_vec(), end: false }));
            script.send(Message::RequestBody(Chunk { body: body[cut..].to_vec(), end: true }));
            let asked = script.pick(&[ENDPOINT], Some("another"));
            assert_eq!((asked.api, &asked.prefix[..], asked.streaming, asked.model), (api, prefix, streaming, None));
            assert_eq!(asked.body_bytes, body.len());
            assert_eq!(bytes(&script.replies()), (body.clone(), vec![true]));
        }
    }
    // Trailers end it as well.
    let mut script = over_grpc("Generate");
    script.send(Message::RequestBody(Chunk { body: generate, end: false })).send(Message::RequestTrailers);
    script.pick(&[ENDPOINT], None);
    assert_eq!(script.replies().last(), Some(&Reply::RequestTrailers));
}

#[test]
fn calls_of_vllm_that_cannot_be_read_are_refused() {
    const GENERATE: &str = "inference error: BadRequest - parsing gRPC payload for Generate: ";
    let mut script = over_grpc("HealthCheck");
    let unsupported = "inference error: BadRequest - unsupported gRPC path: /vllm.grpc.engine.VllmEngine/HealthCheck";
    assert_eq!((script.immediate().body.as_str(), script.ended()), (unsupported, true));
    for (body, problem) in [
        (&b"\x00\x00"[..], "not able to parse payload"),
        (b"\x00\xff\xff\xff\xffabc", "not able to parse payload"),
        (b"\x02\x00\x00\x00\x00", "not able to parse payload"),
        (b"\x01\x00\x00\x00\x00", "compressed vllmgrpc payload is not supported"),
        (b"\x00\x00\x00\x00\x00", "not supported request inputType"),
        (b"\x00\x00\x00\x00\x02\x1a\x09", "failed to decode"),
    ] {
        let mut script = over_grpc("Generate");
        script.send(Message::RequestBody(Chunk { body: body.to_vec(), end: true }));
        let told = script.immediate();
        assert_eq!(told.status, 400);
        assert!(told.body.starts_with(&format!("{GENERATE}{problem}")), "{}", told.body);
    }
    let mut script = over_grpc("Embed");
    script.send(Message::RequestBody(Chunk { body: frame(b"\x0a\x01r"), end: true }));
    assert!(script.immediate().body.ends_with("for Embed: missing tokenized input in EmbedRequest"));
}

#[test]
fn tokens_of_vllms_answers_are_counted_across_pieces_and_trailers_end_them() {
    // A chunk with tokens (1), 7 of the prompt, 1 made; a complete answer with 3 made, 4 cached.
    let answer = [frame(b"\x0a\x07\x0a\x01\x05\x10\x07\x18\x01"), frame(b""), frame(b"\x12\x06\x18\x07\x20\x03\x28\x04")].concat();
    for cut in 0..=answer.len() {
        let mut script = over_grpc("Generate");
        script.send(Message::RequestBody(Chunk { body: frame(b"\x1a\x02hi"), end: true })).pick(&[ENDPOINT], None);
        script.send(response("200", "application/grpc"));
        script.replies();
        script.send(Message::ResponseBody(Chunk { body: answer[..cut].to_vec(), end: false }));
        script.send(Message::ResponseBody(Chunk { body: answer[cut..].to_vec(), end: false })).send(Message::ResponseTrailers);
        let replies = script.replies();
        assert_eq!(bytes(&replies), (answer.clone(), vec![false, false]));
        assert_eq!(replies.last(), Some(&Reply::ResponseTrailers(Vec::new())));
        assert!(script.told().ends_with(&["usage 7 3 4".into(), "completed".into(), "ended".into()]), "{:?}", script.told());
    }
    let mut script = over_grpc("Embed");
    script.send(Message::RequestBody(Chunk { body: frame(b"\x12\x00"), end: true })).pick(&[ENDPOINT], None);
    script.send(response("200", "application/grpc"));
    script.send(Message::ResponseBody(Chunk { body: frame(b"\x0a\x04\x00\x00\x80\x3f\x10\x09"), end: true }));
    assert!(script.told().contains(&"usage 9 0 0".to_owned()));
    // What is no such answer passes and tells nothing.
    let mut script = over_grpc("Generate");
    script.send(Message::RequestBody(Chunk { body: frame(b"\x1a\x02hi"), end: true })).pick(&[ENDPOINT], None);
    script.send(response("200", "application/grpc"));
    script.replies();
    script.send(Message::ResponseBody(Chunk { body: b"\x00\x00\x00\x00\x03not a message".to_vec(), end: true }));
    assert_eq!(bytes(&script.replies()).0, b"\x00\x00\x00\x00\x03not a message");
    assert!(!script.told().iter().any(|told| told.starts_with("usage")));
}

#[test]
fn a_passthrough_parser_looks_into_nothing() {
    let mut script = Script::with(None, Settings { parsers: Parsers::of([Parser::Passthrough]), ..Settings::default() });
    script.head(&[(":method", "POST"), (":path", "/v1/completions"), ("x-gateway-inference-objective", "fast")], false);
    script.body("no JSON {", true);
    let asked = script.pick(&[ENDPOINT], None);
    assert_eq!((asked.api, asked.model, asked.objective.as_deref()), (Api::Other, None, Some("fast")));
    assert_eq!(bytes(&script.replies()), (b"no JSON {".to_vec(), vec![true]));
    script.send(response("200", "application/json"));
    script.send(Message::ResponseBody(Chunk { body: br#"{"usage":{"prompt_tokens":1}}"#.to_vec(), end: true }));
    assert!(!script.told().iter().any(|told| told.starts_with("usage")));
}

#[test]
fn a_path_that_no_parser_claims_is_refused_where_it_has_a_body() {
    let settings = Settings { parsers: Parsers::of([Parser::OpenAi, Parser::Anthropic]), ..Settings::default() };
    let mut script = Script::with(None, settings.clone());
    script.head(&[(":method", "POST"), (":path", "/tokenize")], false);
    assert_eq!(script.immediate().body, "inference error: BadRequest - no parser registered matching path suffix for: /tokenize");
    let mut script = Script::with(None, settings);
    script.head(&[(":method", "GET"), (":path", "/v1/models")], true);
    script.pick(&[ENDPOINT], None);
    assert_eq!(script.replies().len(), 1);
}
