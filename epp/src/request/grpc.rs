//! Bodies that are calls of gRPC: frames, and the few fields of their messages that matter.
//!
//! Field numbers: `vllm_engine.proto` of vLLM, `prediction_service.proto` and `httpbody.proto` of Google's APIs. What is not named here
//! is skipped. Texts and tokens stay slices of the body.

use bytes::{Buf, Bytes};
use prost::Message;

use super::{RequestBody, Route, bad_request};
use crate::{Api, Refusal};

/// Flag and length before a message.
pub(crate) const FRAME_HEADER: usize = 5;

/// A method that is read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// vLLM's `Generate`.
    Generate,
    /// vLLM's `Embed`.
    Embed,
    /// A method of Vertex AI's prediction service, whose envelope holds JSON of this API.
    Vertex(Api),
}

impl Method {
    /// Of vLLM's service.
    pub(super) fn of_vllm(path: &[u8]) -> Option<Self> {
        if path.ends_with(b"/vllm.grpc.engine.VllmEngine/Generate") {
            Some(Self::Generate)
        } else {
            path.ends_with(b"/vllm.grpc.engine.VllmEngine/Embed").then_some(Self::Embed)
        }
    }

    /// Of Vertex AI's service, in any version.
    pub(super) fn of_vertex(path: &[u8]) -> Option<Self> {
        if path.ends_with(b"PredictionService/ChatCompletions") {
            Some(Self::Vertex(Api::ChatCompletions))
        } else {
            let raw = path.ends_with(b"PredictionService/RawPredict") || path.ends_with(b"PredictionService/StreamRawPredict");
            raw.then_some(Self::Vertex(Api::Responses))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Generate => "Generate",
            Self::Embed => "Embed",
            Self::Vertex(_) => "Predict",
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct GenerateRequest {
    #[prost(bytes = "bytes", optional, tag = "2")]
    tokenized: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    text: Option<Bytes>,
    #[prost(bool, tag = "5")]
    stream: bool,
}

#[derive(Clone, PartialEq, Message)]
struct EmbedRequest {
    #[prost(bytes = "bytes", optional, tag = "2")]
    tokenized: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct TokenizedInput {
    #[prost(bytes = "bytes", tag = "1")]
    original_text: Bytes,
    /// Packed: the tokens as they stand in the body.
    #[prost(bytes = "bytes", tag = "2")]
    input_ids: Bytes,
}

/// The same where tokens are not packed, as a reader of protobuf has to allow.
#[derive(Clone, PartialEq, Message)]
struct TextOfTokenizedInput {
    #[prost(bytes = "bytes", tag = "1")]
    original_text: Bytes,
}

/// Every request of Vertex AI that is read has this shape.
#[derive(Clone, PartialEq, Message)]
struct PredictRequest {
    #[prost(message, optional, tag = "2")]
    http_body: Option<HttpBody>,
}

/// `google.api.HttpBody`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpBody {
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
}

/// Reads a whole call. Nothing in it will be replaced: gRPC requests keep their bytes.
///
/// # Errors
/// 400 for what is no frame, compressed, no such message, or lacks its input.
pub(super) fn read(bytes: &Bytes, method: Method) -> Result<RequestBody, Refusal> {
    let refuse = |problem: String| bad_request(format!("parsing gRPC payload for {}: {problem}", method.name()));
    let message = message(bytes).map_err(|problem| refuse(problem.into()))?;
    let undecodable = |error: prost::DecodeError| refuse(error.to_string());
    let opaque = RequestBody::opaque(bytes.clone());
    match method {
        Method::Generate => {
            let request = GenerateRequest::decode(message).map_err(undecodable)?;
            let prefix = match (request.text, request.tokenized) {
                (Some(text), _) => text,
                (None, Some(tokenized)) => prompt(tokenized).map_err(undecodable)?,
                (None, None) => return Err(refuse("not supported request inputType".into())),
            };
            Ok(RequestBody { api: Api::Completions, prefix, streaming: request.stream, ..opaque })
        }
        Method::Embed => {
            let request = EmbedRequest::decode(message).map_err(undecodable)?;
            let Some(tokenized) = request.tokenized else {
                return Err(refuse("missing tokenized input in EmbedRequest".into()));
            };
            Ok(RequestBody { api: Api::Embeddings, prefix: prompt(tokenized).map_err(undecodable)?, ..opaque })
        }
        Method::Vertex(api) => {
            let request = PredictRequest::decode(message).map_err(undecodable)?;
            let Some(http_body) = request.http_body else { return Err(refuse("the request has no HttpBody".into())) };
            let json = RequestBody::read(http_body.data, Route::Known(api))?;
            Ok(RequestBody { bytes: bytes.clone(), model_at: None, ..json })
        }
    }
}

/// The message of the first frame.
fn message(bytes: &Bytes) -> Result<Bytes, &'static str> {
    let mut rest = bytes.clone();
    if rest.len() < FRAME_HEADER {
        return Err("not able to parse payload");
    }
    let (flag, length) = (rest.get_u8(), rest.get_u32() as usize);
    match flag {
        _ if rest.len() < length => Err("not able to parse payload"),
        0 => Ok(rest.split_to(length)),
        1 => Err("compressed vllmgrpc payload is not supported"),
        _ => Err("not able to parse payload"),
    }
}

/// What makes two tokenized inputs share a prefix.
fn prompt(tokenized: Bytes) -> Result<Bytes, prost::DecodeError> {
    match TokenizedInput::decode(tokenized.clone()) {
        Ok(input) if input.original_text.is_empty() => Ok(input.input_ids),
        Ok(input) => Ok(input.original_text),
        Err(_) => Ok(TextOfTokenizedInput::decode(tokenized)?.original_text),
    }
}
