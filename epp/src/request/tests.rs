use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::exchange::Head;
use crate::{Api, Code, Subset};

fn read(path: &str, body: &str) -> Result<RequestBody, String> {
    RequestBody::read(Bytes::copy_from_slice(body.as_bytes()), Route::of(path.as_bytes())).map_err(|refusal| {
        assert_eq!(refusal.code, Code::BadRequest);
        refusal.message
    })
}

#[test]
fn apis_by_the_end_of_the_path() {
    let api = |path: &str| Route::of(path.as_bytes());
    assert_eq!(api("/v1/completions"), Route::Known(Api::Completions));
    assert_eq!(api("/v1/chat/completions?api-version=2"), Route::Known(Api::ChatCompletions));
    assert_eq!(api("/openai/v1/responses/"), Route::Known(Api::Responses));
    assert_eq!(api("/v1/conversations"), Route::Known(Api::Conversations));
    assert_eq!(api("/v1/embeddings#x"), Route::Known(Api::Embeddings));
    for path in ["", "/", "/tokenize", "/v1/completions/x", "completions", "/?/completions"] {
        assert_eq!(api(path), Route::Unknown, "{path}");
    }
}

#[test]
fn the_fields_are_found_where_they_lie() {
    let text = r#" { "stream" : true, "prompt" : ["a","b"], "x":{"model":"no"}, "model":"ll\u0061ma", "cache_salt":"s" } "#;
    let body = read("/v1/completions", text).unwrap();
    assert_eq!(body.model.as_deref(), Some("llama"));
    assert_eq!(&body.prefix[..], br#"["a","b"]"#);
    assert_eq!(body.cache_salt.as_deref(), Some("s"));
    assert!(body.streaming);
    let edited = body.with_model("o/\"ther").unwrap();
    assert_eq!(&edited[..], text.replace(r#""ll\u0061ma""#, r#""o/\"ther""#).as_bytes());
    let chat = read("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user"}]}"#).unwrap();
    assert_eq!((&chat.prefix[..], chat.streaming), (&br#"[{"role":"user"}]"#[..], false));
}

#[test]
fn bodies_that_are_refused() {
    const MODEL: &str = "model not found in request body";
    const PROMPT: &str = "prompt not found in request: must have prompt field";
    const MESSAGES: &str = "invalid chat completions request: must have valid messages field";
    const ITEMS: &str = "invalid conversations request: must have items field";
    let long = format!(r#"{{"model":"{}","prompt":"a"}}"#, "m".repeat(5000));
    for (path, body, wanted) in [
        ("/v1/completions", r#"{"prompt":"a"}"#, MODEL),
        ("/v1/completions", r#"{"model":7,"prompt":"a"}"#, MODEL),
        ("/v1/completions", r#"{"model":"","prompt":"a"}"#, MODEL),
        ("/v1/completions", r#"{"model":null,"prompt":"a"}"#, MODEL),
        ("/v1/completions", r#"{}"#, MODEL),
        ("/v1/completions", &long, MODEL),
        ("/v1/completions", r#"{"model":"m"}"#, PROMPT),
        ("/v1/completions", r#"{"model":"m","prompt":""}"#, PROMPT),
        ("/v1/completions", r#"{"model":"m","prompt":[ ]}"#, PROMPT),
        ("/v1/completions", r#"{"model":"m","prompt":{"a":1}}"#, PROMPT),
        ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#, MESSAGES),
        ("/v1/chat/completions", r#"{"model":"m","messages":"a"}"#, MESSAGES),
        ("/v1/chat/completions", r#"{"model":"m","messages":["a"]}"#, MESSAGES),
        ("/v1/chat/completions", r#"{"model":"m","prompt":"a"}"#, MESSAGES),
        ("/v1/responses", r#"{"model":"m","input":null}"#, "invalid responses request: must have input field"),
        ("/v1/conversations", r#"{"model":"m","items":[]}"#, ITEMS),
        ("/v1/embeddings", r#"{"model":"m"}"#, "invalid embeddings request: must have input field"),
    ] {
        assert_eq!(read(path, body).unwrap_err(), wanted, "{path} {body}");
    }
    for (body, part) in [
        ("{", "EOF while parsing"),
        ("x", "expected value"),
        ("[1]", "not a JSON object"),
        ("\"a\"", "not a JSON object"),
        (r#"["m","p",[],1,2,3,4]"#, "not a JSON object"),
        (r#"{"model":"m","model":"n","prompt":"a"}"#, "duplicate field `model`"),
        (r#"{"model":"m","prompt":"a"} x"#, "trailing characters"),
        ("{\"model\":\"m\0\",\"prompt\":\"a\"}", "control character"),
        (r#"{"model":"m","prompt":"a","n":1e}"#, "invalid number"),
    ] {
        let told = read("/v1/completions", body).unwrap_err();
        assert!(told.starts_with("error unmarshaling request bodyMap: ") && told.contains(part), "{body}: {told}");
    }
    let broken = RequestBody::read(Bytes::from_static(b"{\"model\":\"\xff\"}"), Route::Untold).unwrap_err();
    assert_eq!(broken.message, "error unmarshaling request bodyMap: the body is not UTF-8 text at byte 10");
}

#[test]
fn bodies_of_other_apis() {
    let listed = Parsers::of(Parser::ALL);
    let read = |path: &str, body: &str| {
        let route = listed.route(Some(path.as_bytes())).unwrap();
        RequestBody::read(Bytes::copy_from_slice(body.as_bytes()), route).map_err(|refusal| refusal.message)
    };
    let messages = r#"{"model":"claude","system":"be brief","messages":[{"role":"user","content":"a"}],"stream":true}"#;
    let body = read("/v1/messages", messages).unwrap();
    assert_eq!((body.api, body.model.as_deref(), body.streaming), (Api::Messages, Some("claude"), true));
    assert_eq!(&body.prefix[..], br#""be brief"[{"role":"user","content":"a"}]"#);
    assert_eq!(&body.with_model("other").unwrap()[..], messages.replace("claude", "other").as_bytes());
    let body = read("/inference/v1/generate", r#"{"model":"m","token_ids":[1,2],"cache_salt":"s"}"#).unwrap();
    assert_eq!((body.api, &body.prefix[..], body.cache_salt.as_deref()), (Api::Generate, &b"[1,2]"[..], Some("s")));
    let body = read("/generate", r#"{"input_ids":[1,2],"extra_key":"s","stream":true}"#).unwrap();
    assert_eq!((body.api, body.model, &body.prefix[..]), (Api::Generate, None, &b"[1,2]"[..]));
    assert_eq!((body.cache_salt.as_deref(), body.streaming), (Some("s"), true));
    assert_eq!(read("/v1/images/generations", r#"{"model":"m","prompt":"a cat"}"#).unwrap().api, Api::Images);
    for (path, body, wanted) in [
        ("/v1/messages", r#"{"model":"m"}"#, "invalid messages request: must have at least one message"),
        ("/v1/messages", r#"{"messages":[{}]}"#, "model not found in request body"),
        ("/inference/v1/generate", r#"{"model":"m"}"#, "invalid generate request: must have non-empty token_ids field"),
        ("/generate", r#"{"text":"a"}"#, "invalid generate request: input_ids must be provided"),
        ("/generate", r#"{"input_ids":[]}"#, "invalid generate request: input_ids must be a list of tokens, not empty"),
        ("/generate", r#"{"input_ids":[1],"extra_key":1}"#, "unsupported generate request: extra_key must be a string"),
        ("/images/generations", r#"{"model":"m"}"#, "invalid images generations request: must have prompt field"),
    ] {
        assert_eq!(read(path, body).unwrap_err(), wanted, "{path} {body}");
    }
    // Vertex AI: an endpoint (1), then a body (2) of type (1) and data (2).
    let chat = r#"{"model":"m","messages":[{}]}"#;
    let http_body = [&b"\x0a\x01t\x12"[..], &[chat.len() as u8], chat.as_bytes()].concat();
    let message = [&b"\x0a\x01e\x12"[..], &[http_body.len() as u8], &http_body].concat();
    let framed = [&[0, 0, 0, 0][..], &[message.len() as u8], &message].concat();
    let route = listed.route(Some(b"/google.cloud.aiplatform.v1.PredictionService/ChatCompletions")).unwrap();
    let body = RequestBody::read(framed.clone().into(), route).unwrap();
    assert_eq!((body.api, body.model.as_deref(), &body.prefix[..]), (Api::ChatCompletions, Some("m"), &b"[{}]"[..]));
    assert_eq!((&body.bytes[..], body.with_model("other")), (&framed[..], None));
    // Tokens that are not packed are allowed, and no prefix.
    let generate = listed.route(Some(b"/vllm.grpc.engine.VllmEngine/Generate")).unwrap();
    let body = RequestBody::read(Bytes::from_static(b"\0\0\0\0\x06\x12\x04\x10\x01\x10\x02"), generate).unwrap();
    assert!(body.prefix.is_empty());
    let packed = RequestBody::read(Bytes::from_static(b"\0\0\0\0\x06\x12\x04\x12\x02\x01\x02"), generate).unwrap();
    assert_eq!(&packed.prefix[..], [1, 2]);
}

#[test]
fn deep_and_huge_things_are_read_without_a_stack() {
    let nested = format!(r#"{{"model":"m","prompt":"a","x":{}{}}}"#, "[".repeat(1 << 20), "]".repeat(1 << 20));
    assert!(read("/v1/completions", &nested).is_ok());
    let number = format!(r#"{{"model":"m","prompt":"a","x":{}}}"#, "9".repeat(1 << 20));
    assert!(read("/v1/completions", &number).is_ok());
}

#[test]
fn an_unknown_path_passes_and_a_missing_one_is_told_by_the_shape() {
    for body in ["", "--boundary", "\u{0}", "[]", r#"{"model":7}"#] {
        let body = read("/v1/audio/transcriptions", body).unwrap();
        assert_eq!((body.api, body.model), (Api::Other, None));
    }
    assert_eq!(read("/tokenize", r#"{"model":"m","prompt":"a"}"#).unwrap().model.as_deref(), Some("m"));
    let shape = |body: &'static str| RequestBody::read(Bytes::from(body), Route::Untold).map(|body| body.api);
    assert_eq!(shape(r#"{"model":"m","messages":[{}]}"#), Ok(Api::ChatCompletions));
    assert_eq!(shape(r#"{"model":"m","prompt":"a"}"#), Ok(Api::Completions));
    assert_eq!(shape(r#"{"model":"m","items":[{}]}"#), Ok(Api::Conversations));
    assert_eq!(shape(r#"{"model":"m","input":"a"}"#), Ok(Api::Embeddings));
    assert_eq!(shape(r#"{"model":"m"}"#).unwrap_err().message, "prompt not found in request: must have prompt field");
}

fn head(headers: &[(&str, &[u8])]) -> Head {
    Head { headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(), end: false }
}

#[test]
fn control_headers_of_both_names_and_any_case() {
    let headers = head(&[
        ("X-LLM-D-Inference-Fairness-Id", b"team"),
        ("x-gateway-inference-objective", b"fast"),
        ("x-gateway-model-name-rewrite", b" "),
        ("X-Request-ID", b"r1"),
        ("x-forwarded-path", b"/v1/completions"),
        ("x-gateway-destination-endpoint", b"1.2.3.4:5"),
    ]);
    let read = RequestHead::read(&headers, &Parsers::default()).unwrap();
    assert_eq!((read.fairness.as_deref(), read.objective.as_deref()), (Some("team"), Some("fast")));
    assert_eq!((read.model_rewrite.as_deref(), read.id.as_deref()), (None, Some("r1")));
    assert_eq!(read.route, Route::Known(Api::Completions));
    assert_eq!(read.control, ["x-gateway-inference-objective", "x-llm-d-inference-fairness-id", "x-gateway-model-name-rewrite"]);
    assert!(read.spoofed && !read.has_method && !read.open_ended);
    let long = "a".repeat(9000);
    for value in [long.as_bytes(), b"\xff"] {
        let refused = RequestHead::read(&head(&[("x-gateway-inference-objective", value)]), &Parsers::default()).unwrap_err();
        assert!(refused.message.contains("x-gateway-inference-objective"), "{}", refused.message);
        assert_eq!(RequestHead::read(&head(&[("x-request-id", value)]), &Parsers::default()).unwrap().id, None);
    }
    assert!(RequestHead::read(&head(&[(":method", b"GET"), ("upgrade", b"websocket")]), &Parsers::default()).unwrap().open_ended);
}

#[test]
fn subsets_by_address_and_by_port() {
    let subset = subset_of(["10.0.0.1", "10.0.0.2:8000", " [fd00::1]:9 ", "[fd00::2]", "fd00::3", "::ffff:10.0.0.4", "x", ""]);
    let Subset::Only(entries) = subset else { panic!("{subset:?}") };
    let text: Vec<String> = entries.iter().map(|(ip, port)| format!("{ip} {port:?}")).collect();
    assert_eq!(text, ["10.0.0.1 None", "10.0.0.2 Some(8000)", "fd00::1 Some(9)", "fd00::2 None", "fd00::3 None", "10.0.0.4 None"]);
    assert_eq!(subset_of([]), Subset::Only([].into()));
}

proptest! {
    #[test]
    fn an_edit_changes_the_model_and_nothing_else(
        model in "\\PC{1,20}", target in "\\PC{0,20}", before in "[ \n]{0,3}", rest in "\\PC{0,50}"
    ) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let text = |model: &str| format!("{before}{{\"a\":[{}],{before}\"model\":{}, \"prompt\":\"é\"}}", quoted(&rest), quoted(model));
        let body = read("/v1/completions", &text(&model)).unwrap();
        prop_assert_eq!(body.model.as_deref(), Some(&*model));
        let edited = String::from_utf8(body.with_model(&target).unwrap().to_vec()).unwrap();
        prop_assert_eq!(edited, text(&target));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), path in "(/v1/completions|/x|)") {
        let route = Route::of(path.as_bytes());
        let outcome = RequestBody::read(Bytes::from(bytes), route);
        prop_assert!(route != Route::Unknown || outcome.is_ok());
    }
}
