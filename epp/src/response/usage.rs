//! The `usage` object of a response.

use serde::Deserialize;

use crate::Usage;

/// Counts told so far: an answer may tell them in parts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
    pub(super) cached: Option<u64>,
}

impl Counts {
    /// Later words count; what they do not mention stays.
    pub(super) fn update(&mut self, later: Self) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
    }

    /// As tokens; nothing if neither side was told.
    pub(super) fn usage(self) -> Option<Usage> {
        (self.prompt.is_some() || self.completion.is_some()).then(|| Usage {
            prompt_tokens: self.prompt.unwrap_or_default(),
            completion_tokens: self.completion.unwrap_or_default(),
            cached_tokens: self.cached.unwrap_or_default(),
        })
    }
}

/// The names of all families of APIs; a field that is there and no count is as good as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "details")]
    prompt_tokens_details: Option<u64>,
    /// As the Go picker of v1.5 spells it.
    #[serde(deserialize_with = "details")]
    prompt_token_details: Option<u64>,
    #[serde(deserialize_with = "details")]
    input_tokens_details: Option<u64>,
    /// Anthropic's.
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    /// SGLang's.
    #[serde(deserialize_with = "count")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "count")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Sound(T),
    Other(serde::de::IgnoredAny),
}

impl<T> Lenient<T> {
    fn sound(self) -> Option<T> {
        match self {
            Self::Sound(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

fn count<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Lenient::deserialize(from).map(Lenient::sound)
}

fn details<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(Lenient::<Details>::deserialize(from)?.sound().and_then(|details| details.cached_tokens))
}

/// The counts of a `usage` object.
pub(super) fn counts_of(json: &[u8]) -> Counts {
    let fields: Fields = serde_json::from_slice(json).unwrap_or_default();
    let details = fields.prompt_tokens_details.or(fields.input_tokens_details).or(fields.prompt_token_details);
    Counts {
        prompt: fields.prompt_tokens.or(fields.input_tokens),
        completion: fields.completion_tokens.or(fields.output_tokens),
        cached: details.or(fields.cache_read_input_tokens).or(fields.cached_tokens),
    }
}

/// The counts of a `usage` object; nothing if it holds none.
pub fn usage_of(json: &[u8]) -> Option<Usage> {
    counts_of(json).usage()
}
