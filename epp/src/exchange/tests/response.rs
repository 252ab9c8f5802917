//! Responses: what the ticket is told, what goes on.

use super::*;
use crate::response::{Attribute, AttributeReporter};

const ENDPOINT: &str = "10.0.0.1:8000";
const ANSWER: &str = r#"{"model":"target","usage":{"prompt_tokens":7,"completion_tokens":2}}"#;

/// A request that was sent on.
fn placed(modes: Option<Modes>, settings: Settings) -> Script {
    let mut script = Script::with(modes, settings);
    script.post().body(PROMPT, true).pick(&[ENDPOINT], Some("target"));
    script.replies();
    script
}

fn served(by: Served) -> Incoming {
    Incoming { message: Some(response("200", "application/json")), served: by, ..Incoming::default() }
}

fn piece(body: &str, end: bool) -> Message {
    Message::ResponseBody(Chunk { body: body.as_bytes().to_vec(), end })
}

#[test]
fn the_ticket_is_told_everything_once() {
    let mut script = placed(modes(BodyMode::FullDuplex, BodyMode::FullDuplex), Settings::default());
    script.deliver(served(Served::By(ENDPOINT.into())));
    let replies = script.replies();
    let Reply::ResponseHeaders(head) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((&head.set, &head.remove), (&vec![("x-went-into-resp-headers", "true".to_owned())], &vec!["content-length"]));
    script.send(piece(&ANSWER[..14], false)).send(piece(&ANSWER[14..], false)).send(piece("", true));
    let replies = script.replies();
    assert_eq!(bytes(&replies), (ANSWER.replace("target", "llama").into_bytes(), vec![false, false, true]));
    let rest = format!("{} bytes", ANSWER.len() - 14);
    assert_eq!(script.told(), ["served by 10.0.0.1:8000", "started 200", "14 bytes", &rest, "usage 7 2 0", "completed", "ended"]);
    script.close(Closed::Reset);
    assert!(script.ended() && script.notes().is_empty());
}

#[test]
fn trailers_end_a_response_too() {
    let mut script = placed(None, Settings::default());
    script.send(response("200", "application/json")).send(piece(ANSWER, false)).send(Message::ResponseTrailers);
    let replies = script.replies();
    assert_eq!(bytes(&replies), (ANSWER.replace("target", "llama").into_bytes(), vec![false]));
    assert_eq!(replies.last(), Some(&Reply::ResponseTrailers(Vec::new())));
    assert!(script.told().contains(&"completed".to_owned()));
}

#[test]
fn events_go_on_one_by_one() {
    let mut script = placed(None, Settings::default());
    script.send(response("200", "text/event-stream"));
    script.replies();
    let events = [
        "data: {\"model\":\"target\"}\n\n",
        "data: {\"model\":\"target\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\n",
        "data: [DONE]\n\n",
    ];
    for event in events {
        script.send(piece(event, false));
        assert_eq!(bytes(&script.replies()), (event.replace("target", "llama").into_bytes(), vec![false]));
    }
    script.send(piece("", true));
    assert_eq!(bytes(&script.replies()), (Vec::new(), vec![true]));
    assert!(script.told().contains(&"usage 7 1 0".to_owned()));
}

#[test]
fn who_served_is_told_by_metadata_else_by_attribute() {
    for (by, upstream, told, note) in [
        (Served::By("10.0.0.2:8000".into()), None, Some("served by 10.0.0.2:8000"), Some(Note::ServedElsewhere)),
        (Served::By("junk".into()), None, None, Some(Note::ServedUnreadable)),
        (Served::NoKey, None, None, None),
        (Served::NoMetadata, Some(ENDPOINT), Some("served by 10.0.0.1:8000"), None),
    ] {
        let mut script = placed(None, Settings::default());
        script.deliver(Incoming { upstream_address: upstream.map(str::to_owned), ..served(by) });
        assert_eq!(script.told().first().filter(|what| what.starts_with("served")).map(String::as_str), told);
        assert_eq!(script.notes().first().copied(), note);
    }
}

#[test]
fn the_verifier_of_conformance_tests() {
    for (by, told) in [
        (Served::NoMetadata, "fail: missing envoy lb metadata"),
        (Served::NoKey, "fail: missing destination endpoint served metadata"),
        (Served::By("10.0.0.1:3000".into()), "10.0.0.1:3000"),
    ] {
        let mut script = placed(None, Settings { served_verifier: true, ..Settings::default() });
        script.deliver(served(by));
        let replies = script.replies();
        let Reply::ResponseHeaders(head) = &replies[0] else { panic!("{replies:?}") };
        assert!(head.set.contains(&("x-conformance-test-served-endpoint", told.to_owned())));
    }
}

#[test]
fn a_head_alone_is_a_whole_response() {
    let mut script = placed(None, Settings::default());
    script.send(Message::ResponseHeaders(head(&[("status", "404")], true)));
    assert_eq!(script.told(), ["started 404", "completed", "ended"]);
}

#[test]
fn other_modes_are_answered_piece_by_piece() {
    let mut script = placed(modes(BodyMode::Buffered, BodyMode::Streamed), Settings::default());
    script.send(response("200", "application/json"));
    script.replies();
    script.send(piece(&ANSWER[..14], false)).send(piece(&ANSWER[14..], true));
    let replies = script.replies();
    assert_eq!((replies.len(), bytes(&replies).0), (2, ANSWER.replace("target", "llama").into_bytes()));

    let mut script = Script::new(modes(BodyMode::Buffered, BodyMode::Buffered));
    script.post().body(PROMPT, true).pick(&[ENDPOINT], None);
    script.replies();
    script.send(response("200", "application/json")).send(piece(ANSWER, true));
    assert_eq!(script.replies()[1], Reply::ResponseBody(BodyReply::default()), "what is not changed is not sent back");

    let mut script = placed(modes(BodyMode::Buffered, BodyMode::None), Settings::default());
    script.send(response("200", "application/json"));
    assert!(!script.told().contains(&"completed".to_owned()));
    script.close(Closed::Reset);
    assert!(script.told().contains(&"completed".to_owned()), "no body is shown: the stream's end is the response's");
}

#[test]
fn what_is_reported_goes_with_the_last_piece_else_with_the_trailers() {
    let reporter = |name: &str, expression: &str| AttributeReporter::new("envoy.lb", name, expression, "").unwrap();
    let reporters = vec![reporter("cost", "usage.completion_tokens"), reporter("none", "usage.completion_tokens - 2.0")];
    let wanted = Attribute { namespace: "envoy.lb".into(), name: "cost".into(), value: 2 };
    let event = "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
    for (kind, body) in [("application/json", ANSWER), ("text/event-stream", event)] {
        for mode in [BodyMode::FullDuplex, BodyMode::Streamed, BodyMode::Buffered] {
            let told = modes(BodyMode::FullDuplex, mode);
            let mut script = placed(told, Settings { reporters: reporters.clone(), ..Settings::default() });
            script.send(response("200", kind)).send(piece(&body[..14], false)).send(piece(&body[14..], true));
            let attributes = |reply: &Reply| match reply {
                Reply::ResponseBody(reply) => reply.attributes.clone(),
                _ => Vec::new(),
            };
            let replies: Vec<_> = script.replies().iter().map(attributes).collect();
            let (last, before) = replies.split_last().unwrap();
            assert!(before.iter().all(Vec::is_empty));
            assert_eq!(*last, std::slice::from_ref(&wanted), "{kind} {mode:?}");
        }
    }
    let mut script = placed(None, Settings { reporters, ..Settings::default() });
    script.send(response("200", "application/json")).send(piece(ANSWER, false)).send(Message::ResponseTrailers);
    assert_eq!(script.replies().last(), Some(&Reply::ResponseTrailers(vec![wanted])));
}

#[test]
fn an_answer_of_the_gateways_own_is_no_answer_of_the_server() {
    let reset = "upstream_reset_before_response_started";
    for (details, told) in [
        (None, "started 503"),
        (Some("via_upstream".to_owned()), "started 503"),
        (Some(format!("{reset}{{remote_connection_failure}}")), "gateway answered 503 Unreached"),
        (Some(format!("{reset}{{overflow}}")), "gateway answered 503 Elsewhere"),
        (Some("upstream_response_timeout".to_owned()), "gateway answered 503 TimedOut"),
        (Some("upstream_per_try_timeout".to_owned()), "gateway answered 503 TimedOut"),
        (Some("no_healthy_upstream".to_owned()), "gateway answered 503 Elsewhere"),
    ] {
        let mut script = placed(None, Settings::default());
        script.deliver(Incoming { message: Some(response("503", "text/plain")), code_details: details, ..Incoming::default() });
        script.send(piece("upstream connect error", true));
        assert_eq!(script.told(), [told, "22 bytes", "completed", "ended"]);
    }
}

#[test]
fn after_a_long_silence_nothing_is_in_flight_and_the_answer_still_passes() {
    let mut script = placed(None, Settings::default());
    assert!(script.exchange.in_flight());
    script.exchange.silent(&mut script.out);
    assert_eq!((script.told(), script.notes()), (vec!["ended".to_owned()], vec![Note::Silent]));
    script.send(response("200", "application/json")).send(piece(ANSWER, true));
    assert_eq!(bytes(&script.replies()).0, ANSWER.replace("target", "llama").into_bytes());
    assert_eq!(script.told(), ["ended"]);
}

#[test]
fn a_header_tells_who_served_where_it_is_wanted() {
    let settings = Settings { served_header: Some("x-served".into()), ..Settings::default() };
    for (by, wanted) in [(Served::By("10.0.0.2:8000".into()), "10.0.0.2:8000"), (Served::NoMetadata, ENDPOINT)] {
        let mut script = placed(None, settings.clone());
        script.deliver(served(by));
        let Reply::ResponseHeaders(head) = &script.replies()[0] else { panic!("no head") };
        assert_eq!(head.set_named, [("x-served".into(), wanted.to_owned())]);
    }
}
