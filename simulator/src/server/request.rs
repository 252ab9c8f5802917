//! Reading a completion request: what is wrong with it is said by field.

use serde_json::{Map, Value};

use super::error::ApiError;
use crate::model::prefix::{BlockHash, PrefixHasher};

/// Which endpoint a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

impl Kind {
    /// The field that holds the prompt.
    pub(super) fn prompt_field(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Text => "prompt",
        }
    }
}

/// A valid request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompletionRequest {
    pub(super) model: String,
    /// At least one; a chat has one.
    pub(super) prompts: Vec<Prompt>,
    /// Choices per prompt.
    pub(super) choices: u32,
    pub(super) max_tokens: Option<u32>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// A prompt reduced to what the model needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    pub(super) tokens: u32,
    pub(super) prefix: Vec<BlockHash>,
}

/// Characters of text per token: a usual value for English.
const CHARACTERS_PER_TOKEN: usize = 4;
/// Most answers one request may ask for, over its prompts and `n`.
const CHOICES_LIMIT: usize = 32;

/// Reads a body. The prefix hashes depend on the block size, in tokens.
pub(super) fn parse(kind: Kind, body: &[u8], block_size: u32) -> Result<CompletionRequest, ApiError> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(ApiError::bad_json)?;
    let model = match body.get("model") {
        Some(Value::String(model)) => model.clone(),
        Some(_) => return Err(ApiError::bad_field("model", "must be a string")),
        None => return Err(ApiError::bad_field("model", "is missing: name the model to use")),
    };
    // vLLM too keeps the cache of each adapter apart from the others'.
    let new_prompt = || PromptBuilder::new(block_size, &model);
    let prompts = match kind {
        Kind::Chat => vec![read_messages(body.get("messages"), new_prompt())?],
        Kind::Text => read_prompts(body.get("prompt"), new_prompt)?,
    };
    let choices = read_positive(&body, "n")?.unwrap_or(1);
    if prompts.len().saturating_mul(choices as usize) > CHOICES_LIMIT {
        return Err(ApiError::bad_field("n", format!("{} prompts times {choices} exceeds {CHOICES_LIMIT} answers", prompts.len())));
    }
    let max_tokens = match read_positive(&body, "max_completion_tokens")? {
        Some(tokens) => Some(tokens),
        None => read_positive(&body, "max_tokens")?,
    };
    let stream = read_flag(body.get("stream"), "stream")?;
    let include_usage = match body.get("stream_options") {
        None | Some(Value::Null) => false,
        Some(Value::Object(_)) if !stream => {
            return Err(ApiError::bad_field("stream_options", "is only allowed with stream: true"));
        }
        Some(Value::Object(options)) => read_flag(options.get("include_usage"), "stream_options.include_usage")?,
        Some(_) => return Err(ApiError::bad_field("stream_options", "must be an object")),
    };
    Ok(CompletionRequest { prompts, choices, max_tokens, stream, include_usage, model })
}

fn read_flag(value: Option<&Value>, field: &str) -> Result<bool, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::bad_field(field, "must be true or false")),
    }
}

fn read_positive(body: &Map<String, Value>, field: &str) -> Result<Option<u32>, ApiError> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            // A number beyond u32 is still a valid request, only too long for any model.
            Some(number) if number > 0 => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            _ => Err(ApiError::bad_field(field, "must be an integer of at least 1")),
        },
    }
}

fn read_messages(messages: Option<&Value>, mut prompt: PromptBuilder) -> Result<Prompt, ApiError> {
    let messages = match messages {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(ApiError::bad_field("messages", "must not be empty")),
        Some(_) => return Err(ApiError::bad_field("messages", "must be an array")),
        None => return Err(ApiError::bad_field("messages", "is missing")),
    };
    for (index, message) in messages.iter().enumerate() {
        let Some(Value::String(role)) = message.get("role") else {
            return Err(ApiError::bad_field(format!("messages[{index}].role"), "must be a string"));
        };
        prompt.separator(role);
        match message.get("content") {
            // Tool calls of the assistant come without content.
            None | Some(Value::Null) if role == "assistant" => {}
            Some(Value::String(text)) => prompt.text(text),
            Some(Value::Array(parts)) => {
                for (part_index, part) in parts.iter().enumerate() {
                    read_part(part, &mut prompt).map_err(|(field, problem)| {
                        ApiError::bad_field(format!("messages[{index}].content[{part_index}]{field}"), problem)
                    })?;
                }
            }
            None => return Err(ApiError::bad_field(format!("messages[{index}].content"), "is missing")),
            Some(_) => {
                return Err(ApiError::bad_field(format!("messages[{index}].content"), "must be a string or an array of parts"));
            }
        }
    }
    Ok(prompt.finish())
}

/// Text counts; parts of other types (images, audio) are accepted and count nothing.
fn read_part(part: &Value, prompt: &mut PromptBuilder) -> Result<(), (&'static str, &'static str)> {
    let Some(Value::String(part_type)) = part.get("type") else { return Err((".type", "must be a string")) };
    if part_type != "text" {
        return Ok(());
    }
    let Some(Value::String(text)) = part.get("text") else { return Err((".text", "must be a string")) };
    prompt.text(text);
    Ok(())
}

/// A string, a list of strings, a list of token ids, or a list of such lists.
fn read_prompts(prompt: Option<&Value>, new_prompt: impl Fn() -> PromptBuilder) -> Result<Vec<Prompt>, ApiError> {
    let entries = match prompt {
        Some(Value::String(text)) => return Ok(vec![text_prompt(text, new_prompt())]),
        Some(Value::Array(entries)) if !entries.is_empty() => entries,
        Some(Value::Array(_)) => return Err(ApiError::bad_field("prompt", "must not be empty")),
        Some(_) => return Err(ApiError::bad_field("prompt", "must be a string or an array")),
        None => return Err(ApiError::bad_field("prompt", "is missing")),
    };
    if entries[0].is_number() {
        return Ok(vec![token_prompt(entries, "prompt", new_prompt())?]);
    }
    if entries.len() > CHOICES_LIMIT {
        return Err(ApiError::bad_field("prompt", format!("{} prompts, at most {CHOICES_LIMIT}", entries.len())));
    }
    let read = |(index, entry): (usize, &Value)| match entry {
        Value::String(text) => Ok(text_prompt(text, new_prompt())),
        Value::Array(tokens) => token_prompt(tokens, &format!("prompt[{index}]"), new_prompt()),
        _ => Err(ApiError::bad_field(format!("prompt[{index}]"), "must be a string or an array of token ids")),
    };
    entries.iter().enumerate().map(read).collect()
}

fn text_prompt(text: &str, mut prompt: PromptBuilder) -> Prompt {
    prompt.text(text);
    prompt.finish()
}

fn token_prompt(tokens: &[Value], field: &str, mut prompt: PromptBuilder) -> Result<Prompt, ApiError> {
    for (index, token) in tokens.iter().enumerate() {
        match token.as_u64().map(u32::try_from) {
            Some(Ok(token)) => prompt.token(token),
            _ => return Err(ApiError::bad_field(format!("{field}[{index}]"), "must be a token id")),
        }
    }
    Ok(prompt.finish())
}

/// Counts and hashes a prompt as it is read.
struct PromptBuilder {
    hasher: PrefixHasher,
    block_size: u32,
    characters: usize,
    tokens: usize,
}

impl PromptBuilder {
    fn new(block_size: u32, model: &str) -> Self {
        let block_bytes = CHARACTERS_PER_TOKEN * block_size as usize;
        Self { hasher: PrefixHasher::new(block_bytes, model), block_size, characters: 0, tokens: 0 }
    }

    fn text(&mut self, text: &str) {
        self.characters += text.chars().count();
        self.hasher.write(text.as_bytes());
    }

    fn token(&mut self, token: u32) {
        self.tokens += 1;
        self.hasher.write(&token.to_le_bytes());
    }

    /// The same text split over other messages is another prompt.
    fn separator(&mut self, role: &str) {
        self.hasher.write(b"\0");
        self.hasher.write(role.as_bytes());
        self.hasher.write(b"\0");
    }

    fn finish(self) -> Prompt {
        let tokens = self.tokens + self.characters.div_ceil(CHARACTERS_PER_TOKEN);
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        let mut prefix = self.hasher.finish();
        // Roles and characters of several bytes are hashed but not counted.
        prefix.truncate((tokens / self.block_size) as usize);
        Prompt { tokens, prefix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, body: &str) -> CompletionRequest {
        parse(kind, body.as_bytes(), 16).unwrap()
    }

    #[test]
    fn prompt_lengths() {
        let tokens = |body| read(Kind::Text, body).prompts.into_iter().map(|prompt| prompt.tokens).collect::<Vec<_>>();
        assert_eq!(tokens(r#"{"model":"m","prompt":""}"#), [1]);
        assert_eq!(tokens(r#"{"model":"m","prompt":"12345"}"#), [2]);
        assert_eq!(tokens(r#"{"model":"m","prompt":["1234","12345678"]}"#), [1, 2]);
        assert_eq!(tokens(r#"{"model":"m","prompt":[1,2,3]}"#), [3]);
        assert_eq!(tokens(r#"{"model":"m","prompt":[[1,2,3],[4]]}"#), [3, 1]);
        let parts = r#"{"model":"m","messages":[{"role":"system","content":"1234"},
            {"role":"user","content":[{"type":"text","text":"1234"},{"type":"image_url","image_url":{}}]},{"role":"assistant"}]}"#;
        assert_eq!(read(Kind::Chat, parts).prompts[0].tokens, 2);
    }

    #[test]
    fn max_completion_tokens_comes_first() {
        let body = r#"{"model":"m","prompt":"p","max_tokens":5,"max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true}}"#;
        let request = read(Kind::Text, body);
        assert_eq!((request.max_tokens, request.stream, request.include_usage), (Some(7), true, true));
        assert_eq!(read(Kind::Text, r#"{"model":"m","prompt":"p","max_tokens":99999999999}"#).max_tokens, Some(u32::MAX));
    }

    #[test]
    fn equal_beginnings_share_hashes_within_a_model() {
        let prompt = |model: &str, tail: &str| {
            let body = serde_json::json!({ "model": model, "prompt": format!("{}{tail}", "x".repeat(128)) });
            read(Kind::Text, &body.to_string()).prompts.remove(0)
        };
        let (one, other, adapter) = (prompt("m", &"a".repeat(64)), prompt("m", &"b".repeat(64)), prompt("lora", ""));
        assert_eq!(one.prefix.len(), 3);
        assert_eq!(one.prefix[..2], other.prefix[..2]);
        assert_ne!(one.prefix[2], other.prefix[2]);
        assert_ne!(one.prefix[0], adapter.prefix[0]);
    }
}
