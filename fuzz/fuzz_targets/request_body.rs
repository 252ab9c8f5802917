//! A request's body under any path: whatever the bytes, no panic; what is read keeps its bytes, and another model changes nothing else.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_epp::request::{Parser, Parsers, RequestBody, Route};

const PATHS: [Option<&str>; 12] = [
    None,
    Some("/v1/completions"),
    Some("/v1/chat/completions"),
    Some("/v1/responses"),
    Some("/v1/conversations"),
    Some("/v1/embeddings"),
    Some("/v1/messages"),
    Some("/inference/v1/generate"),
    Some("/generate"),
    Some("/vllm.grpc.engine.VllmEngine/Generate"),
    Some("/vllm.grpc.engine.VllmEngine/Embed"),
    Some("/google.cloud.aiplatform.v1.PredictionService/ChatCompletions"),
];
const OTHER: &str = "o/\"ther";

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    let route = match PATHS.get(usize::from(choice)) {
        Some(path) => Parsers::of(Parser::ALL).route(path.map(str::as_bytes)).expect("one of them claims it"),
        None => Route::Unknown,
    };
    let body = match RequestBody::read(bytes.clone(), route) {
        Ok(body) => body,
        Err(refusal) => return assert!(route != Route::Unknown && !refusal.message.is_empty()),
    };
    assert_eq!(body.bytes, bytes);
    assert!(body.prefix.len() <= bytes.len());
    let Some(edited) = body.with_model(OTHER) else { return };
    let model = body.model.as_deref().expect("there is a model to replace");
    let again = RequestBody::read(edited.clone(), route).expect("only the model differs");
    assert_eq!((again.model.as_deref(), &again.prefix), (Some(OTHER), &body.prefix));
    assert_eq!((again.streaming, &again.cache_salt, again.api), (body.streaming, &body.cache_salt, body.api));
    // Back again it differs by no more than how the name was written.
    let back = again.with_model(model).expect("it was replaced once");
    let back = RequestBody::read(back, route).expect("only the model differs");
    assert_eq!((back.model.as_deref(), &back.prefix), (Some(model), &body.prefix));
});
