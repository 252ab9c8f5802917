use proptest::prelude::*;

use super::*;
use crate::plugin::Plugin;

/// Says `x-gateway-model-name: m`, and rewrites bodies that ask for it.
struct Fixed;

impl Decide for Fixed {
    fn decide(&mut self, body: &Bytes) -> Result<Plan, Refusal> {
        if body.starts_with(b"bad") {
            return Err(bad_request("bad".into()));
        }
        let edited = body.starts_with(b"edit").then(|| Bytes::from_static(b"edited"));
        Ok(Plan { set: vec![("x-gateway-model-name".into(), "m".into())], body: edited, told: Some("told".into()) })
    }
}

struct Script {
    exchange: Exchange,
    budget: Budget,
}

impl Script {
    fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.waiting_bytes);
        let routing = Arc::new(Routing::new(Plugin::defaults()));
        Self { exchange: Exchange::new(Arc::new(settings), routing, &budget), budget }
    }

    fn in_mode(request: BodyMode) -> Self {
        Self::new(Settings { untold_modes: Modes { request, response: request }, reply_chunk: 4, ..Settings::default() })
    }

    fn say(&mut self, message: Message) -> Vec<Action> {
        let mut out = Vec::new();
        self.exchange.message(Incoming { message: Some(message), ..Incoming::default() }, &mut Fixed, &mut out);
        out
    }

    fn head(&mut self, headers: &[(&str, &str)], end: bool) -> Vec<Action> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        self.say(Message::RequestHeaders(Head { headers, end }))
    }

    fn body(&mut self, body: &str, end: bool) -> Vec<Action> {
        self.say(Message::RequestBody(Chunk { body: body.into(), end }))
    }
}

fn replies(actions: Vec<Action>) -> Vec<Reply> {
    actions.into_iter().filter_map(|action| if let Action::Reply(reply) = action { Some(reply) } else { None }).collect()
}

fn head_of(reply: &Reply) -> &HeadReply {
    match reply {
        Reply::RequestHeaders(head) | Reply::RequestBody(BodyReply { head: Some(head), .. }) => head,
        other => panic!("no head in {other:?}"),
    }
}

fn pieces(replies: &[Reply]) -> (String, bool) {
    let mut text = String::new();
    let mut ended = false;
    for reply in replies {
        let Reply::RequestBody(BodyReply { content: Content::Streamed { body, end }, .. }) = reply else { panic!("{reply:?}") };
        assert!(!ended && body.len() <= 4);
        text.push_str(std::str::from_utf8(body).unwrap());
        ended = *end;
    }
    (text, ended)
}

#[test]
fn in_full_duplex_head_and_body_go_on_together() {
    for (body, wanted, length) in [("as it is", "as it is", None), ("edit it", "edited", Some("6"))] {
        let mut script = Script::in_mode(BodyMode::FullDuplex);
        let head = script.head(&[("X-Gateway-Model-Name", "mine"), ("x-weir-classifier", "mine")], false);
        assert_eq!(head, [Action::Note(Note::Spoofed)]);
        let (first, last) = body.split_at(3);
        assert_eq!(script.body(first, false), []);
        let replies = replies(script.body(last, true));
        let head = head_of(&replies[0]);
        assert_eq!(head.set_named, [("x-gateway-model-name".into(), "m".into())]);
        assert_eq!(head.remove_named, ["x-weir-classifier".into()], "what is not set is taken away");
        assert!(head.clear_route_cache);
        assert_eq!(head.set.first().map(|(name, value)| (*name, value.as_str())), length.map(|length| ("content-length", length)));
        assert_eq!(pieces(&replies[1..]), (wanted.into(), true));
        assert_eq!(script.budget.used(), 0);
    }
}

#[test]
fn a_buffered_body_is_answered_with_the_headers() {
    let mut script = Script::in_mode(BodyMode::Buffered);
    let replies_to_head = replies(script.head(&[("x-gateway-model-name", "mine")], false));
    assert_eq!(head_of(&replies_to_head[0]).remove_named, ["x-gateway-model-name".into()]);
    let reply = replies(script.body("edit it", true)).remove(0);
    assert_eq!(head_of(&reply).set_named, [("x-gateway-model-name".into(), "m".into())]);
    let Reply::RequestBody(BodyReply { content: Content::Replaced(body), .. }) = reply else { panic!("not replaced") };
    assert_eq!(body, "edited");
    let mut partial = Script::in_mode(BodyMode::BufferedPartial);
    partial.head(&[], false);
    assert_eq!(partial.body("{", false), [Action::Note(Note::Partial), Action::Reply(Reply::RequestBody(BodyReply::default()))]);
}

#[test]
fn trailers_end_a_body() {
    let mut script = Script::in_mode(BodyMode::FullDuplex);
    script.head(&[], false);
    script.body("body", false);
    let replies = replies(script.say(Message::RequestTrailers));
    assert_eq!((pieces(&replies[1..2]), &replies[2]), (("body".into(), false), &Reply::RequestTrailers));
}

#[test]
fn what_is_no_json_or_not_shown_passes_without_headers() {
    for (mode, headers, note) in [
        (BodyMode::FullDuplex, &[("content-type", "multipart/form-data")][..], Some(Note::NotJson)),
        (BodyMode::FullDuplex, &[("upgrade", "websocket")], None),
        (BodyMode::None, &[("content-type", "application/json")], Some(Note::BodyNotShown)),
        (BodyMode::Streamed, &[], Some(Note::BodyNotShown)),
    ] {
        let mut script = Script::in_mode(mode);
        let mut actions = script.head(headers, false);
        assert_eq!(actions.pop(), Some(Action::Reply(Reply::RequestHeaders(HeadReply::default()))));
        assert_eq!(actions, note.map(Action::Note).into_iter().collect::<Vec<_>>());
        if mode == BodyMode::FullDuplex {
            assert_eq!(pieces(&replies(script.body("anything", true))), ("anything".into(), true));
        }
    }
    // Without a body, what a client sends stays.
    let mut get = Script::in_mode(BodyMode::FullDuplex);
    let actions = get.head(&[("x-gateway-model-name", "mine")], true);
    assert_eq!(actions, [Action::Reply(Reply::RequestHeaders(HeadReply::default()))]);
    let mut empty = Script::in_mode(BodyMode::FullDuplex);
    empty.head(&[], false);
    assert_eq!(pieces(&replies(empty.body("", true))[1..]), (String::new(), true));
}

#[test]
fn refusals_end_the_request_and_give_everything_back() {
    let status = |actions: &[Action]| match actions {
        [Action::Note(note), Action::Reply(Reply::Immediate(told)), Action::End] => (*note, told.status),
        other => panic!("{other:?}"),
    };
    let mut script = Script::in_mode(BodyMode::FullDuplex);
    script.head(&[], false);
    assert_eq!(status(&script.body("bad", true)), (Note::BadRequest, 400));
    assert_eq!(script.body("more", true), []);
    let mut encoded = Script::in_mode(BodyMode::FullDuplex);
    assert_eq!(status(&encoded.head(&[("content-encoding", "gzip")], false)), (Note::BadRequest, 400));
    let small = Settings { request_bytes: 4, waiting_bytes: 6, ..Settings::default() };
    let mut long = Script::new(small.clone());
    long.head(&[], false);
    assert_eq!(status(&long.body("12345", true)), (Note::TooLarge, 413));
    let mut oversized = Script::new(small.clone());
    let mut out = Vec::new();
    oversized.exchange.oversized(&mut out);
    assert_eq!(status(&out), (Note::TooLarge, 413));
    let full = Script::new(Settings { waiting_bytes: 3, ..small });
    let mut full = Script { budget: full.budget.clone(), exchange: full.exchange };
    full.head(&[], false);
    assert_eq!(status(&full.body("1234", true)), (Note::Full, 503));
    assert_eq!(full.budget.used(), 0);
    assert_eq!(status(&Script::in_mode(BodyMode::FullDuplex).body("x", true)), (Note::BadRequest, 400));
}

#[test]
fn responses_pass_and_tell_what_was_decided() {
    let mut script = Script::in_mode(BodyMode::FullDuplex);
    script.head(&[], false);
    script.body("{}", true);
    let told = HeadReply { set_named: vec![("x-weir-classifier".into(), "told".into())], ..HeadReply::default() };
    assert_eq!(replies(script.say(Message::ResponseHeaders(Head::default()))), [Reply::ResponseHeaders(told)]);
    let body = replies(script.say(Message::ResponseBody(Chunk { body: b"123456".to_vec(), end: true })));
    let ends: Vec<bool> = body
        .iter()
        .map(|reply| matches!(reply, Reply::ResponseBody(BodyReply { content: Content::Streamed { end: true, .. }, .. })))
        .collect();
    assert_eq!(ends, [false, true]);
    assert_eq!(replies(script.say(Message::ResponseTrailers)), [Reply::ResponseTrailers(vec![])]);
    let mut buffered = Script::in_mode(BodyMode::Buffered);
    let body = replies(buffered.say(Message::ResponseBody(Chunk { body: b"123456".to_vec(), end: true })));
    assert_eq!(body, [Reply::ResponseBody(BodyReply::default())]);
}

fn any_message() -> impl Strategy<Value = Message> {
    let chunk = || ("[a-z]{0,9}", any::<bool>()).prop_map(|(body, end)| Chunk { body: body.into(), end });
    prop_oneof![
        any::<bool>().prop_map(|end| Message::RequestHeaders(Head { headers: Vec::new(), end })),
        chunk().prop_map(Message::RequestBody),
        Just(Message::RequestTrailers),
        Just(Message::ResponseHeaders(Head::default())),
        chunk().prop_map(Message::ResponseBody),
        Just(Message::ResponseTrailers),
    ]
}

proptest! {
    #[test]
    fn messages_in_any_order_are_bounded_and_the_head_is_answered_once(
        messages in prop::collection::vec(any_message(), 0..12),
        mode in prop_oneof![Just(BodyMode::None), Just(BodyMode::Streamed), Just(BodyMode::Buffered), Just(BodyMode::FullDuplex)],
    ) {
        let mut script = Script::in_mode(mode);
        let mut heads = 0;
        let mut ended = false;
        for message in messages {
            for action in script.say(message) {
                prop_assert!(!ended, "nothing is said after the end");
                heads += usize::from(matches!(action, Action::Reply(Reply::RequestHeaders(_))));
                ended = action == Action::End;
            }
            prop_assert!(script.budget.used() <= 12 * 9);
        }
        prop_assert!(heads <= 1);
        drop(script.exchange);
        prop_assert_eq!(script.budget.used(), 0);
    }
}
