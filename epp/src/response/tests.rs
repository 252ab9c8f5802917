use proptest::prelude::*;

use super::*;
use crate::Usage;

const DOCUMENT: &str = r#"{"id":"x","model" : "food-review-1","choices":[{"text":"say \"model\":\"food-review-1\" \\","model":"food-review-1","usage":{"prompt_tokens":9}}],"n":[1e9,null,true],"usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4}}}"#;

fn through(framing: Framing, back: Option<ModelBack>, pieces: &[&[u8]]) -> (Vec<u8>, Option<Usage>) {
    let mut body = ResponseBody::new(framing, back);
    let mut out: Vec<u8> = pieces.iter().flat_map(|piece| body.pass(piece.to_vec())).collect();
    out.extend(body.rest());
    (out, body.usage())
}

fn back() -> Option<ModelBack> {
    Some(ModelBack::new("food-review-1".into(), "food \"review\""))
}

#[test]
fn a_document_is_counted_and_its_own_model_alone_put_back() {
    let (out, usage) = through(Framing::Document, back(), &[DOCUMENT.as_bytes()]);
    let wanted = DOCUMENT.replacen(r#""model" : "food-review-1""#, r#""model" : "food \"review\"""#, 1);
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
    assert_eq!(usage, Some(Usage { prompt_tokens: 7, completion_tokens: 10, cached_tokens: 4 }));
    assert_eq!(through(Framing::Document, None, &[DOCUMENT.as_bytes()]).0, DOCUMENT.as_bytes());
    let other = r#"{"model":"food-review-10"}"#;
    assert_eq!(through(Framing::Document, back(), &[other.as_bytes()]).0, other.as_bytes());
    let escaped = r#"{"model":"food-review\u002d1"}"#;
    assert_eq!(through(Framing::Document, back(), &[escaped.as_bytes()]).0, br#"{"model":"food \"review\""}"#);
}

fn events() -> String {
    [
        "event: x\ndata: {\"model\":\"food-review-1\",\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
        ": {\"model\":\"food-review-1\",\"usage\":{\"prompt_tokens\":99}}\n\n",
        "data:{\"model\":\"food-review-1\",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\r\n\r\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"model\":\"food-review-1\",\"usage\":{\"input_tokens\":7,\"output_tokens\":3,\"input_tokens_details\":{\"cached_tokens\":2}}}}\n\n",
        "data: [DONE]\n\n",
    ]
    .concat()
}

#[test]
fn events_are_counted_by_their_last_count() {
    let (out, usage) = through(Framing::Events, back(), &[events().as_bytes()]);
    assert_eq!(usage, Some(Usage { prompt_tokens: 7, completion_tokens: 3, cached_tokens: 2 }));
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches(r#""model":"food \"review\"""#).count(), 3);
    assert_eq!(out.matches("food-review-1").count(), 1, "a comment stays as it is: {out}");
}

#[test]
fn counts_told_in_parts_and_under_other_names() {
    let anthropic = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"food-review-1\",\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":15}}\n\n",
    ]
    .concat();
    let (out, usage) = through(Framing::Events, back(), &[anthropic.as_bytes()]);
    assert_eq!(usage, Some(Usage { prompt_tokens: 25, completion_tokens: 15, cached_tokens: 3 }));
    assert!(String::from_utf8(out).unwrap().contains(r#""model":"food \"review\"""#));
    let sglang =
        r#"{"text":"a","meta_info":{"finish_reason":{"type":"stop"},"prompt_tokens":7,"completion_tokens":2,"cached_tokens":1}}"#;
    let usage = through(Framing::Document, None, &[sglang.as_bytes()]).1;
    assert_eq!(usage, Some(Usage { prompt_tokens: 7, completion_tokens: 2, cached_tokens: 1 }));
}

#[test]
fn frames_of_vertex_hold_documents() {
    let document = br#"{"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
    let message = [&[0x12, document.len() as u8][..], document].concat();
    let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
    let framing = Framing::Frames(crate::request::Method::Vertex(crate::Api::ChatCompletions));
    let wanted = Some(Usage { prompt_tokens: 7, completion_tokens: 2, cached_tokens: 0 });
    assert_eq!(through(framing, None, &[&framed]), (framed.clone(), wanted));
    let single: Vec<&[u8]> = framed.chunks(1).collect();
    assert_eq!(through(framing, None, &single), (framed.clone(), wanted));
}

#[test]
fn counts_of_any_shape() {
    let usage = |json: &str| usage_of(json.as_bytes());
    assert_eq!(usage("{}"), None);
    assert_eq!(usage("7"), None);
    assert_eq!(usage(r#"{"prompt_tokens":"7"}"#), None);
    assert_eq!(usage(r#"{"prompt_tokens":-1,"completion_tokens":2}"#).unwrap().completion_tokens, 2);
    assert_eq!(usage(r#"{"input_tokens":1e300,"output_tokens":2,"prompt_tokens_details":null}"#).unwrap().prompt_tokens, 0);
    assert_eq!(usage(r#"{"prompt_tokens":1,"prompt_token_details":{"cached_tokens":5}}"#).unwrap().cached_tokens, 5);
}

#[test]
fn framing_by_the_headers() {
    let of = |kind: &str| Framing::of(Some(kind.as_bytes()), None, true);
    assert_eq!(of("Text/Event-Stream; charset=utf-8"), Framing::Events);
    assert_eq!(of("application/json"), Framing::Document);
    assert_eq!(of("audio/wav"), Framing::Opaque);
    assert_eq!(Framing::of(None, None, true), Framing::Events);
    assert_eq!(Framing::of(None, None, false), Framing::Document);
    assert_eq!(Framing::of(Some(b"application/json"), Some(b"gzip"), false), Framing::Opaque);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut body = ResponseBody::new(Framing::Document, back());
    let mut passed = body.pass(br#"{"model":""#.to_vec()).len();
    for _ in 0..1000 {
        passed += body.pass(vec![b'x'; 1000]).len();
        assert!(body.held_bytes() < 2000);
    }
    assert_eq!(passed + body.rest().len(), 10 + 1_000_000);
    let mut body = ResponseBody::new(Framing::Document, None);
    body.pass(br#"{"usage":{"#.to_vec());
    for _ in 0..1000 {
        body.pass(vec![b' '; 1000]);
        assert!(body.held_bytes() < 40_000);
    }
    body.pass(br#""prompt_tokens":1}}"#.to_vec());
    assert_eq!(body.usage(), None);
    // A frame of a gigabyte that is announced, and one that is read.
    let mut body = ResponseBody::new(Framing::Frames(crate::request::Method::Generate), None);
    body.pass(vec![0, 0x40, 0, 0, 0]);
    for _ in 0..1000 {
        assert_eq!(body.pass(vec![0; 1000]).len(), 1000);
        assert_eq!(body.held_bytes(), 0);
    }
    let mut body = ResponseBody::new(Framing::Frames(crate::request::Method::Generate), None);
    body.pass(vec![0, 0, 4, 0, 0]);
    for _ in 0..1000 {
        body.pass(vec![0; 1000]);
        assert!(body.held_bytes() <= 256 << 10);
    }
}

/// Cuts `bytes` at these places.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn cuts_change_nothing(places in prop::collection::vec(any::<usize>(), 0..40)) {
        for (framing, text) in [(Framing::Document, DOCUMENT.to_owned()), (Framing::Events, events())] {
            let whole = through(framing, back(), &[text.as_bytes()]);
            prop_assert_eq!(&through(framing, back(), &cut(text.as_bytes(), &places)), &whole);
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&through(framing, back(), &single), &whole);
        }
    }

    #[test]
    fn any_bytes_pass_whole(
        bytes in "(data: ?|\n|[{}\\[\\],:]|\"model\"|\"usage\"|\"response\"|\"m\"|\\\\|\"|[a-z0-9 ]|\"model\":\"other){0,60}",
        places in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        for framing in [Framing::Document, Framing::Events, Framing::Opaque] {
            let (out, usage) = through(framing, back(), &cut(bytes.as_bytes(), &places));
            prop_assert_eq!(&out[..], bytes.as_bytes());
            prop_assert_eq!(usage, through(framing, None, &[bytes.as_bytes()]).1);
        }
    }
}
