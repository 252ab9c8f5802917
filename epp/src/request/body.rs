//! The body of a request: its few fields that matter, where they lie, and the model's name replaced in place.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use weir_ext_proc::body::{object, replaced, string, within};

use super::{Route, bad_request, grpc};
use crate::{Api, Refusal};

/// A model's name may be this long; Kubernetes' names and paths of files are shorter.
const MAX_MODEL: usize = 4 << 10;
/// A salt may be this long.
const MAX_SALT: usize = 4 << 10;

/// A body as read.
#[derive(Clone, Debug)]
pub struct RequestBody {
    /// As it came.
    pub bytes: Bytes,
    /// Which API: told by the path, else by the body's shape.
    pub api: Api,
    /// The model.
    pub model: Option<Arc<str>>,
    /// What makes two requests share a prefix, as it stands in the body.
    pub prefix: Bytes,
    /// `cache_salt`.
    pub cache_salt: Option<Arc<str>>,
    /// `"stream": true`
    pub streaming: bool,
    /// `max_completion_tokens`, `max_output_tokens` or `max_tokens`: the most that is to be generated.
    pub max_output_tokens: Option<u64>,
    /// Where the model's value lies, quotes included; none where it is not to be replaced.
    pub(super) model_at: Option<Range<usize>>,
}

/// The top-level fields. A field that comes twice is refused: picker and model server could read different ones.
#[derive(Debug, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
    /// Instructions before Anthropic's messages.
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    /// vLLM's tokens.
    #[serde(borrow)]
    token_ids: Option<&'a RawValue>,
    /// SGLang's tokens.
    #[serde(borrow)]
    input_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_salt: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    /// SGLang's salt.
    #[serde(borrow)]
    extra_key: Option<&'a RawValue>,
}

impl RequestBody {
    /// Reads a whole body.
    ///
    /// # Errors
    /// 400 for a body that is no JSON object, names no model, or lacks what its API asks for. A body of an unknown path is never
    /// refused.
    pub fn read(bytes: Bytes, route: Route) -> Result<Self, Refusal> {
        match route {
            Route::Raw => return Ok(Self::opaque(bytes)),
            Route::Grpc(method) => return grpc::read(&bytes, method),
            _ => {}
        }
        let fields = match object::<Fields<'_>>(&bytes) {
            Ok(fields) => fields,
            Err(_) if route == Route::Unknown => return Ok(Self::opaque(bytes)),
            Err(error) => return Err(bad_request(format!("error unmarshaling request bodyMap: {error}"))),
        };
        let model = fields.model.and_then(|raw| string(raw, MAX_MODEL)).filter(|model| !model.is_empty());
        let api = match route {
            Route::Known(api) => api,
            Route::Unknown => Api::Other,
            Route::Untold => fields.shape(),
            Route::Sglang | Route::Grpc(_) | Route::Raw => Api::Generate,
        };
        let nameless = matches!(route, Route::Sglang) || api == Api::Other;
        let checked = if route == Route::Sglang { fields.check_sglang().map(Some) } else { fields.check(api) };
        let prefix = match checked {
            _ if model.is_none() && !nameless => return Err(bad_request("model not found in request body")),
            Ok(prefix) => prefix,
            Err(problem) => return Err(bad_request(problem)),
        };
        let within = |raw: &RawValue| within(raw, &bytes);
        Ok(Self {
            api,
            prefix: match (prefix, fields.system.filter(|_| api == Api::Messages)) {
                (Some(raw), Some(system)) => [system.get(), raw.get()].concat().into(),
                (prefix, _) => prefix.map(|raw| bytes.slice(within(raw))).unwrap_or_default(),
            },
            cache_salt: fields.cache_salt.or(fields.extra_key).and_then(|raw| string(raw, MAX_SALT)),
            streaming: fields.stream.is_some_and(|raw| raw.get() == "true"),
            max_output_tokens: fields.most_output(),
            model_at: model.as_ref().and(fields.model).map(within),
            model,
            bytes: bytes.clone(),
        })
    }

    /// A body that is not looked into.
    pub fn opaque(bytes: Bytes) -> Self {
        Self {
            bytes,
            api: Api::Other,
            model: None,
            prefix: Bytes::new(),
            cache_salt: None,
            streaming: false,
            max_output_tokens: None,
            model_at: None,
        }
    }

    /// The same body, naming `model` instead; every other byte stays. Nothing if there is no model to replace.
    pub fn with_model(&self, model: &str) -> Option<Bytes> {
        let at = self.model_at.clone()?;
        Some(replaced(&self.bytes, at, model))
    }
}

/// What follows the opening bracket of a list, without space; nothing if it is no list.
fn list(raw: &RawValue) -> Option<&str> {
    raw.get().strip_prefix('[').map(str::trim_start)
}

impl<'a> Fields<'a> {
    /// The most that is to be generated, where it is said as a whole number.
    fn most_output(&self) -> Option<u64> {
        let said = [self.max_completion_tokens, self.max_output_tokens, self.max_tokens];
        said.into_iter().flatten().find_map(|raw| raw.get().parse().ok())
    }

    /// Which API a body is for whose path is unknown.
    fn shape(&self) -> Api {
        if self.messages.is_some() {
            Api::ChatCompletions
        } else if self.items.is_some() {
            Api::Conversations
        } else if self.prompt.is_some() || self.input.is_none() {
            Api::Completions
        } else {
            // Embeddings and responses look alike.
            Api::Embeddings
        }
    }

    /// The value that holds the prompt, if the body is one of this API.
    fn check(&self, api: Api) -> Result<Option<&'a RawValue>, &'static str> {
        let (field, sound, problem): (_, fn(&RawValue) -> bool, _) = match api {
            Api::Completions => (self.prompt, is_prompt, "prompt not found in request: must have prompt field"),
            Api::ChatCompletions => {
                (self.messages, is_messages, "invalid chat completions request: must have valid messages field")
            }
            Api::Responses => (self.input, is_not_null, "invalid responses request: must have input field"),
            Api::Conversations => (self.items, is_messages, "invalid conversations request: must have items field"),
            Api::Embeddings => (self.input, is_not_null, "invalid embeddings request: must have input field"),
            Api::Messages => (self.messages, is_messages, "invalid messages request: must have at least one message"),
            Api::Generate => (self.token_ids, is_tokens, "invalid generate request: must have non-empty token_ids field"),
            Api::Images => (self.prompt, is_prompt, "invalid images generations request: must have prompt field"),
            Api::Other => return Ok(self.prompt.or(self.messages).or(self.input).or(self.items)),
        };
        match field {
            Some(raw) if sound(raw) => Ok(Some(raw)),
            _ => Err(problem),
        }
    }

    /// The tokens, if the body is one of SGLang's own.
    fn check_sglang(&self) -> Result<&'a RawValue, &'static str> {
        match (self.input_ids, self.extra_key) {
            (None, _) => Err("invalid generate request: input_ids must be provided"),
            (Some(_), Some(key)) if !key.get().starts_with('"') && is_not_null(key) => {
                Err("unsupported generate request: extra_key must be a string")
            }
            (Some(ids), _) if is_tokens(ids) => Ok(ids),
            (Some(_), _) => Err("invalid generate request: input_ids must be a list of tokens, not empty"),
        }
    }
}

/// A list of tokens, not empty.
fn is_tokens(raw: &RawValue) -> bool {
    list(raw).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

/// A text, or a list of texts or tokens, not empty.
fn is_prompt(raw: &RawValue) -> bool {
    match list(raw) {
        Some(rest) => rest.starts_with(|first: char| matches!(first, '"' | '[' | '-') || first.is_ascii_digit()),
        None => raw.get().starts_with('"') && raw.get() != "\"\"",
    }
}

/// A list of objects, not empty.
fn is_messages(raw: &RawValue) -> bool {
    list(raw).is_some_and(|rest| rest.starts_with('{'))
}

fn is_not_null(raw: &RawValue) -> bool {
    raw.get() != "null"
}
