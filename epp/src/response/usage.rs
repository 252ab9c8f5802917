//! The `usage` object of a response.

use serde::Deserialize;

use crate::Usage;

/// The names of both families of APIs; a field that is there and no count is as good as absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
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

/// The counts of a `usage` object; nothing if it holds none.
pub fn usage_of(json: &[u8]) -> Option<Usage> {
    let counts: Counts = serde_json::from_slice(json).ok()?;
    let prompt = counts.prompt_tokens.or(counts.input_tokens);
    let completion = counts.completion_tokens.or(counts.output_tokens);
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    let cached = counts.prompt_tokens_details.or(counts.input_tokens_details).or(counts.prompt_token_details);
    Some(Usage {
        prompt_tokens: prompt.unwrap_or_default(),
        completion_tokens: completion.unwrap_or_default(),
        cached_tokens: cached.unwrap_or_default(),
    })
}
