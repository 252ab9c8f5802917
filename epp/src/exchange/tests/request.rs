//! Requests: what is asked, what goes on, what is refused.

use super::*;
use crate::{Api, Code, Subset};

const ENDPOINT: &str = "10.0.0.1:8000";

fn head_of(reply: &Reply) -> &HeadReply {
    match reply {
        Reply::RequestHeaders(head) => head,
        Reply::RequestBody(BodyReply { head: Some(head), .. }) => head,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_answered_before_the_pick_and_then_head_and_body_go_on_unchanged() {
    let mut script = Script::duplex();
    script.post().body(&PROMPT[..10], false).body(&PROMPT[10..], true);
    assert!(script.replies().is_empty());
    let asked = script.pick(&[ENDPOINT, "10.0.0.2:8000"], None);
    assert_eq!((asked.api, asked.model.as_deref(), asked.body_bytes), (Api::Completions, Some("llama"), PROMPT.len()));
    assert_eq!((&asked.prefix[..], &*asked.id, asked.subset), (&b"\"hi\""[..], "r", Subset::All));
    let replies = script.replies();
    let head = head_of(&replies[0]);
    assert_eq!(head.set, [("x-gateway-destination-endpoint", ENDPOINT.to_owned())]);
    assert_eq!(head.metadata, Some(PickMetadata(ENDPOINT.into())));
    assert!(head.clear_route_cache && head.remove.is_empty());
    assert_eq!(bytes(&replies[1..]), (PROMPT.as_bytes().to_vec(), vec![true]));
}

#[test]
fn the_ways_a_body_ends_are_one() {
    // With the last piece, with an empty one after it, with trailers; cut in any number of pieces.
    for ending in 0..3 {
        for cuts in [1, 2, 7] {
            let mut script = Script::duplex();
            script.post();
            let size = PROMPT.len().div_ceil(cuts);
            let pieces: Vec<&[u8]> = PROMPT.as_bytes().chunks(size).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let last = index + 1 == pieces.len();
                script.body(std::str::from_utf8(piece).unwrap(), last && ending == 0);
            }
            match ending {
                0 => {}
                1 => _ = script.body("", true),
                _ => _ = script.send(Message::RequestTrailers),
            }
            script.pick(&[ENDPOINT], None);
            let replies = script.replies();
            let (body, ends) = bytes(&replies[1..]);
            assert_eq!(body, PROMPT.as_bytes());
            if ending == 2 {
                assert_eq!(ends, [false], "no piece has the end where trailers have it");
                assert_eq!(replies.last(), Some(&Reply::RequestTrailers));
            } else {
                assert_eq!(ends, [true]);
            }
        }
    }
}

#[test]
fn a_head_alone_is_placed_within_its_subset() {
    for method in ["GET", "POST"] {
        let mut script = Script::duplex();
        let only = Subset::Only([("10.0.0.1".parse().unwrap(), Some(8000))].into());
        let headers = head(&[(":method", method), (":path", "/v1/models")], true);
        script.deliver(Incoming {
            message: Some(Message::RequestHeaders(headers)),
            subset: Some(only.clone()),
            ..Incoming::default()
        });
        let asked = script.pick(&[ENDPOINT], None);
        assert_eq!((asked.api, asked.model, asked.body_bytes, asked.subset), (Api::Other, None, 0, only));
        let replies = script.replies();
        assert_eq!(replies.len(), 1);
        let id = "00000000-0000-4000-8000-000000000007".to_owned();
        assert_eq!(&*asked.id, id);
        assert_eq!(head_of(&replies[0]).set, [("x-gateway-destination-endpoint", ENDPOINT.into()), ("x-request-id", id)]);
    }
    // An empty body by its own message is none, too.
    let mut script = Script::duplex();
    script.post().body("", true);
    assert_eq!(script.pick(&[ENDPOINT], None).api, Api::Other);
    let replies = script.replies();
    assert_eq!((replies.len(), bytes(&replies[1..])), (2, (Vec::new(), vec![true])));
}

#[test]
fn trailers_after_a_head_end_a_body_of_no_piece() {
    let mut script = Script::duplex();
    script.post().send(Message::RequestTrailers);
    assert_eq!(script.pick(&[ENDPOINT], None).body_bytes, 0);
    let replies = script.replies();
    assert!(matches!(replies[..], [Reply::RequestHeaders(_), Reply::RequestTrailers]), "{replies:?}");
}

#[test]
fn the_last_subset_told_counts_unless_it_is_switched_off() {
    let subset = |ip: &str| Some(Subset::Only([(ip.parse().unwrap(), None)].into()));
    for (subset_filter, wanted) in [(true, subset("10.0.0.2").unwrap()), (false, Subset::All)] {
        let mut script = Script::with(None, Settings { subset_filter, ..Settings::default() });
        script.deliver(Incoming {
            message: Some(Message::RequestHeaders(head(&[], false))),
            subset: subset("10.0.0.1"),
            ..Incoming::default()
        });
        let body = Message::RequestBody(Chunk { body: PROMPT.into(), end: true });
        script.deliver(Incoming { message: Some(body), subset: subset("10.0.0.2"), ..Incoming::default() });
        assert_eq!(script.asked().subset, wanted);
    }
}

#[test]
fn a_list_of_endpoints_by_setting_alone() {
    let mut script = Script::with(None, Settings { several_endpoints: true, clear_route_cache: false, ..Settings::default() });
    script.post().body(PROMPT, true).pick(&[ENDPOINT, "[fd00::1]:8001"], None);
    let replies = script.replies();
    let head = head_of(&replies[0]);
    assert_eq!(head.metadata, Some(PickMetadata("10.0.0.1:8000,[fd00::1]:8001".into())));
    assert!(!head.clear_route_cache);
}

#[test]
fn another_model_is_written_in_place_and_the_length_told() {
    for buffered in [false, true] {
        let mode = if buffered { BodyMode::Buffered } else { BodyMode::FullDuplex };
        let mut script = Script::new(modes(mode, mode));
        script.post().body(PROMPT, true).pick(&[ENDPOINT], Some("llama-8b"));
        let wanted = PROMPT.replace("llama", "llama-8b");
        let replies = script.replies();
        assert_eq!(bytes(&replies).0, wanted.as_bytes());
        let with_pick = if buffered { &replies[1] } else { &replies[0] };
        assert!(head_of(with_pick).set.contains(&("content-length", wanted.len().to_string())));
    }
}

#[test]
fn a_long_body_goes_on_in_pieces_that_every_gateway_takes() {
    let body = format!(r#"{{"model":"llama","prompt":"{}"}}"#, "x".repeat(1 << 20));
    let mut script = Script::duplex();
    script.post().body(&body, true).pick(&[ENDPOINT], None);
    let replies = script.replies();
    let (sent, ends) = bytes(&replies[1..]);
    assert!(sent == body.as_bytes());
    assert_eq!(ends.len(), body.len().div_ceil(24 << 10));
    assert_eq!(ends.iter().filter(|end| **end).count(), 1);
    assert_eq!(ends.last(), Some(&true));
    let longest = replies[1..].iter().map(|reply| bytes(std::slice::from_ref(reply)).0.len()).max();
    assert_eq!(longest, Some(24 << 10));
}

#[test]
fn control_headers_end_here() {
    let mut script = Script::duplex();
    let headers = [
        (":method", "POST"),
        (":path", "/v1/completions"),
        ("X-Gateway-Inference-Objective", "fast"),
        ("x-gateway-inference-fairness-id", "team"),
        ("x-gateway-model-name-rewrite", "other"),
        ("x-gateway-destination-endpoint", "6.6.6.6:6"),
        ("test-epp-endpoint-selection", "10.0.0.9"),
    ];
    script.head(&headers, false).body(PROMPT, true);
    let asked = script.pick(&[ENDPOINT], None);
    assert_eq!((asked.objective.as_deref(), asked.fairness.as_deref()), (Some("fast"), Some("team")));
    assert_eq!((asked.model_rewrite.as_deref(), asked.test_selection.as_deref()), (Some("other"), Some("10.0.0.9")));
    let replies = script.replies();
    let head = head_of(&replies[0]);
    assert_eq!(head.remove, ["x-gateway-inference-objective", "x-gateway-inference-fairness-id", "x-gateway-model-name-rewrite"]);
    assert_eq!(head.set[0], ("x-gateway-destination-endpoint", ENDPOINT.to_owned()), "a client's own pick is overwritten");
}

#[test]
fn refusals_of_bodies_are_answered_and_told() {
    for (body, status, text) in [
        ("{", 400, "inference error: BadRequest - error unmarshaling request bodyMap: "),
        (r#"{"prompt":"a"}"#, 400, "inference error: BadRequest - model not found in request body"),
        (r#"{"model":"m"}"#, 400, "inference error: BadRequest - prompt not found in request: must have prompt field"),
    ] {
        let mut script = Script::duplex();
        script.post().body(body, true);
        let refused = |action: &Action| matches!(action, Action::Refused { refusal, .. } if refusal.code == Code::BadRequest);
        assert!(script.out.iter().any(refused));
        assert!(script.ended());
        let told = script.immediate();
        assert!(told.status == status && told.body.starts_with(text), "{told:?}");
        assert_eq!(script.budget.used(), 0);
    }
    let old = Settings { error_prefix: ErrorPrefix::InferenceGateway, unknown_as_completions: true, ..Settings::default() };
    let mut script = Script::with(None, old);
    script.head(&[(":path", "/tokenize")], false).body(r#"{"model":"m"}"#, true);
    assert_eq!(script.immediate().body, "inference gateway: BadRequest - prompt not found in request: must have prompt field");
}

#[test]
fn refusals_of_the_director_have_their_status_and_headers() {
    for (code, status, word) in [
        (Code::BadRequest, 400, "BadRequest"),
        (Code::NotFound, 404, "NotFound"),
        (Code::ResourceExhausted, 429, "ResourceExhausted"),
        (Code::Internal, 500, "Internal"),
        (Code::ServiceUnavailable, 503, "ServiceUnavailable"),
    ] {
        let mut script = Script::duplex();
        let refusal = Refusal { code, message: "why".into(), reason: Some("rejected-saturated"), retry_after: Some(3) };
        script.post().body(PROMPT, true).refuse(refusal);
        assert!(script.ended() && !script.out.iter().any(|action| matches!(action, Action::Refused { .. })));
        let told = script.immediate();
        assert_eq!((told.status, told.body), (status, format!("inference error: {word} - why")));
        assert!(told.headers.contains(&("x-llm-d-request-dropped-reason", "rejected-saturated".into())));
        assert!(told.headers.contains(&("retry-after", "3".into())));
    }
    let mut script = Script::duplex();
    script.post().body(PROMPT, true).pick(&[], None);
    assert_eq!(script.immediate().body, "inference error: Internal - results must be greater than zero");
}

#[test]
fn bodies_are_bounded_alone_and_together() {
    let settings = Settings { request_bytes: 1000, waiting_bytes: 1500, ..Settings::default() };
    let mut script = Script::with(None, settings.clone());
    script.post().body(&"x".repeat(600), false);
    assert_eq!(script.budget.used(), 600);
    script.body(&"x".repeat(401), false);
    assert_eq!((script.immediate().status, script.budget.used()), (413, 0));

    let mut script = Script::with(None, settings.clone());
    script.post().body(&"x".repeat(600), false);
    let mut other = Exchange::new(Arc::new(settings), &script.budget, 0);
    let mut out = Vec::new();
    let posts = [Message::RequestHeaders(head(&[], false)), Message::RequestBody(Chunk { body: vec![b'x'; 901], end: false })];
    for message in posts {
        other.message(Incoming { message: Some(message), ..Incoming::default() }, script.now, &mut out);
    }
    let refused =
        out.iter().find_map(|action| if let Action::Reply(Reply::Immediate(reply)) = action { Some(reply) } else { None });
    assert_eq!(refused.map(|reply| reply.status), Some(503));
    assert_eq!(script.budget.used(), 600);
    drop(script.exchange);
    assert_eq!(script.budget.used(), 0);

    let mut script = Script::duplex();
    script.post().close(Closed::Oversized);
    assert_eq!(script.immediate().status, 413);
}

#[test]
fn a_head_that_cannot_be_read_is_refused() {
    let mut script = Script::duplex();
    script.head(&[("x-gateway-inference-objective", &"x".repeat(9000))], false);
    assert_eq!(script.immediate().status, 400);
    let mut script = Script::duplex();
    script.body("{}", true);
    assert_eq!(script.immediate().status, 400);
}
