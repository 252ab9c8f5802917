//! Headers that plugins ask for, and those that they set.

use super::*;

const TOKEN: &str = "x-session-token";

fn wanting(mut script: Script, names: &[&str]) -> Script {
    let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
    let exchange = Exchange::new(Arc::clone(&script.exchange.settings), &script.budget, 7);
    script.exchange = exchange.wanting(names.into());
    script
}

/// What the head of a request or a response is to be: set, set by a name of the configuration, removed.
fn head_of(replies: &[Reply]) -> HeadReply {
    let heads = replies.iter().filter_map(|reply| match reply {
        Reply::RequestHeaders(head) | Reply::ResponseHeaders(head) => Some(head.clone()),
        Reply::RequestBody(body) => body.head.clone(),
        _ => None,
    });
    heads.last().expect("a head")
}

#[test]
fn what_is_asked_for_is_told_and_nothing_else() {
    let mut script = wanting(Script::duplex(), &[TOKEN, "x-zone", "x-absent"]);
    let headers = [(":method", "POST"), (":path", "/v1/completions"), ("X-Session-Token", " t "), ("x-other", "o"), ("x-zone", "")];
    script.head(&headers, false).body(PROMPT, true);
    let request = script.asked();
    assert_eq!(request.headers, [(TOKEN.into(), "t".into())], "an empty one is none");
    assert_eq!((request.header(TOKEN), request.header("x-other")), (Some("t"), None));
    assert_eq!(request.max_output_tokens, Some(100));
}

#[test]
fn what_cannot_be_read_or_is_too_long_is_refused() {
    let long = "x".repeat(9 << 10);
    let mut script = wanting(Script::duplex(), &[TOKEN]);
    script.head(&[(":method", "POST"), (TOKEN, &long)], false);
    let refusal = script.immediate();
    assert!(refusal.status == 400 && refusal.body.contains(TOKEN), "{refusal:?}");
    let mut other = wanting(Script::duplex(), &[]);
    other.head(&[(":method", "POST"), (TOKEN, &long)], false);
    assert!(other.replies().is_empty(), "nobody asks for it");
}

#[test]
fn headers_are_set_and_taken_out_whatever_the_client_sent() {
    for mode in [BodyMode::FullDuplex, BodyMode::Buffered] {
        let mut script = Script::new(modes(mode, mode));
        let headers = [(":method", "POST"), (":path", "/v1/completions"), ("x-prefiller-host-port", "192.0.2.1:1")];
        script.head(&headers, false).body(PROMPT, true);
        let headers = vec![("x-prefiller-host-port", Some("10.0.0.2:8000".to_owned())), ("x-encoder-hosts-ports", None)];
        script.pick_with(&["10.0.0.1:8000"], None, headers, vec![(TOKEN.into(), "abc".to_owned())]);
        let head = head_of(&script.replies());
        assert!(head.set.contains(&("x-prefiller-host-port", "10.0.0.2:8000".to_owned())), "{head:?}");
        assert!(head.remove.contains(&"x-encoder-hosts-ports"), "{head:?}");
        script.send(response("200", "application/json"));
        assert_eq!(head_of(&script.replies()).set_named, [(TOKEN.into(), "abc".to_owned())]);
    }
}

#[test]
fn a_token_of_an_endpoint_that_did_not_serve_is_not_given() {
    for (served, given) in [("10.0.0.1:8000", true), ("10.0.0.2:8000", false)] {
        let mut script = Script::duplex();
        script.post().body(PROMPT, true);
        script.pick_with(&["10.0.0.1:8000", "10.0.0.2:8000"], None, Vec::new(), vec![(TOKEN.into(), "abc".to_owned())]);
        script.replies();
        let served = Served::By(served.to_owned());
        script.deliver(Incoming { message: Some(response("200", "text/plain")), served, ..Incoming::default() });
        assert_eq!(!head_of(&script.replies()).set_named.is_empty(), given);
    }
}
