//! Which paths are read, and how: upstream's parsers, by name.

use std::borrow::Cow;
use std::sync::Arc;

use super::grpc::Method;
use super::{Route, bad_request, path};
use crate::{Api, Refusal};

/// A path is repeated in a refusal up to so many bytes.
const MAX_TOLD: usize = 200;

/// One way to read bodies. A body is claimed by the end of its path.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Parser {
    /// The APIs of OpenAI, as JSON.
    OpenAi,
    /// Anthropic's messages, as JSON.
    Anthropic,
    /// vLLM's `/inference/v1/generate`: tokens, as JSON.
    VllmHttp,
    /// SGLang's `/generate`: tokens, as JSON.
    SglangHttp,
    /// vLLM's gRPC service.
    VllmGrpc,
    /// Vertex AI's prediction service over gRPC: bodies of OpenAI's APIs in an envelope.
    VertexAi,
    /// Every path, nothing looked into.
    Passthrough,
}

/// The paths of OpenAI's APIs beyond those that are read in any case.
const OPENAI_MORE: [(&str, Api); 3] = [
    ("/chat/completions/render", Api::ChatCompletions),
    ("/completions/render", Api::Completions),
    ("/images/generations", Api::Images),
];

impl Parser {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::OpenAi, Self::Anthropic, Self::VllmHttp, Self::SglangHttp, Self::VllmGrpc, Self::VertexAi, Self::Passthrough];

    /// The type of upstream's plugin.
    pub fn kind(self) -> &'static str {
        match self {
            Self::OpenAi => "openai-parser",
            Self::Anthropic => "anthropic-parser",
            Self::VllmHttp => "vllmhttp-parser",
            Self::SglangHttp => "sglanghttp-parser",
            Self::VllmGrpc => "vllmgrpc-parser",
            Self::VertexAi => "vertexai-parser",
            Self::Passthrough => "passthrough-parser",
        }
    }

    /// How a body of this path is read, if it is claimed. No end of a path is claimed by two parsers.
    fn claims(self, path: &[u8]) -> Option<Route> {
        match self {
            Self::OpenAi => match Route::of(path) {
                Route::Unknown => {
                    OPENAI_MORE.iter().find(|(end, _)| path.ends_with(end.as_bytes())).map(|(_, api)| Route::Known(*api))
                }
                route => Some(route),
            },
            Self::Anthropic if path.ends_with(b"/messages") => Some(Route::Known(Api::Messages)),
            // Counted by the server; there is nothing to schedule by.
            Self::Anthropic if path.ends_with(b"/messages/count_tokens") => Some(Route::Raw),
            Self::VllmHttp if path.ends_with(b"/inference/v1/generate") => Some(Route::Known(Api::Generate)),
            Self::SglangHttp if path == b"/generate" => Some(Route::Sglang),
            Self::VllmGrpc => Method::of_vllm(path).map(Route::Grpc),
            Self::VertexAi => Method::of_vertex(path).map(Route::Grpc),
            Self::Passthrough => Some(Route::Raw),
            Self::Anthropic | Self::VllmHttp | Self::SglangHttp => None,
        }
    }
}

/// The parsers of a picker.
///
/// By default OpenAI's APIs are read as the Go picker v1.5.0 reads them, and a body of another path passes: it is looked into where
/// it is JSON. With a list, a path that none of the list claims is refused, as llm-d-router does.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parsers {
    /// None: the default.
    list: Option<Arc<[Parser]>>,
}

impl Parsers {
    /// The types of upstream's plugins in their order; the default alone has OpenAI's.
    pub fn names(&self) -> Vec<&'static str> {
        self.list.as_ref().map_or_else(|| vec![Parser::OpenAi.kind()], |list| list.iter().map(|parser| parser.kind()).collect())
    }

    /// These alone.
    pub fn of(list: impl IntoIterator<Item = Parser>) -> Self {
        Self { list: Some(list.into_iter().collect()) }
    }

    /// How a body of this path is read.
    ///
    /// # Errors
    /// 400 where no parser of the list claims the path.
    pub fn route(&self, told: Option<&[u8]>) -> Result<Route, Refusal> {
        let Some(list) = &self.list else { return Ok(told.map_or(Route::Untold, Route::of)) };
        let Some(told) = told else {
            return match list.iter().find(|parser| matches!(parser, Parser::OpenAi | Parser::Passthrough)) {
                Some(Parser::OpenAi) => Ok(Route::Untold),
                Some(_) => Ok(Route::Raw),
                None => Err(self.unclaimed(b"")),
            };
        };
        let path = path::end(told);
        list.iter().find_map(|parser| parser.claims(path)).ok_or_else(|| self.unclaimed(told))
    }

    fn unclaimed(&self, path: &[u8]) -> Refusal {
        let path = told(path);
        match self.list.as_deref() {
            Some([Parser::VllmGrpc]) => bad_request(format!("unsupported gRPC path: {path}")),
            _ => bad_request(format!("no parser registered matching path suffix for: {path}")),
        }
    }
}

/// As much of a path as is repeated.
fn told(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&path[..path.len().min(MAX_TOLD)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_claimed_by_their_ends() {
        let all = Parsers::of(Parser::ALL);
        let vertex = "/google.cloud.aiplatform.v1beta1.PredictionService";
        for (path, wanted) in [
            ("/v1/chat/completions", Route::Known(Api::ChatCompletions)),
            ("/v1/chat/completions/render?x=1", Route::Known(Api::ChatCompletions)),
            ("/v1/completions/render/", Route::Known(Api::Completions)),
            ("/v1/images/generations", Route::Known(Api::Images)),
            ("/v1/messages", Route::Known(Api::Messages)),
            ("/v1/messages/count_tokens", Route::Raw),
            ("/inference/v1/generate", Route::Known(Api::Generate)),
            ("/generate", Route::Sglang),
            ("/v1/generate", Route::Raw),
            ("/vllm.grpc.engine.VllmEngine/Generate", Route::Grpc(Method::Generate)),
            ("/vllm.grpc.engine.VllmEngine/Embed", Route::Grpc(Method::Embed)),
            ("/vllm.grpc.engine.VllmEngine/Abort", Route::Raw),
            (&format!("{vertex}/ChatCompletions"), Route::Grpc(Method::Vertex(Api::ChatCompletions))),
            (&format!("{vertex}/RawPredict"), Route::Grpc(Method::Vertex(Api::Responses))),
            (&format!("{vertex}/StreamRawPredict"), Route::Grpc(Method::Vertex(Api::Responses))),
        ] {
            assert_eq!(all.route(Some(path.as_bytes())), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn what_nobody_claims_is_refused_unless_nothing_is_configured() {
        let refused = |parsers: &[Parser], path: Option<&str>| {
            Parsers::of(parsers.iter().copied()).route(path.map(str::as_bytes)).unwrap_err().message
        };
        let health = "/vllm.grpc.engine.VllmEngine/HealthCheck";
        assert_eq!(refused(&[Parser::VllmGrpc], Some(health)), format!("unsupported gRPC path: {health}"));
        assert_eq!(refused(&[Parser::VllmGrpc], None), "unsupported gRPC path: ");
        assert_eq!(refused(&[Parser::OpenAi], Some("/tokenize")), "no parser registered matching path suffix for: /tokenize");
        assert!(refused(&[Parser::OpenAi], Some(&"x".repeat(10_000))).len() < 300);
        assert_eq!(Parsers::default().route(Some(b"/tokenize")), Ok(Route::Unknown));
        assert_eq!(Parsers::default().route(None), Ok(Route::Untold));
        assert_eq!(Parsers::of([Parser::OpenAi]).route(None), Ok(Route::Untold));
        assert_eq!(Parsers::of([Parser::Passthrough]).route(None), Ok(Route::Raw));
    }
}
