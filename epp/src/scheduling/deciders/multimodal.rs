//! `always-disagg-multimodal-decider`

use memchr::memmem;

use crate::scheduling::{Candidate, Decider, SchedulingRequest};

/// Requests with images, sound or video in their messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MultimodalDecider;

/// Fields that such content has: OpenAI's chat completions and responses.
const FIELDS: [&str; 3] = ["\"image_url\"", "\"input_audio\"", "\"video_url\""];
/// The value of `type` that it has in Anthropic's messages.
const IMAGE: &str = "\"image\"";

impl Decider for MultimodalDecider {
    fn disaggregates(&self, request: &SchedulingRequest<'_>, _decode: Option<&Candidate<'_>>) -> bool {
        is_multimodal(&request.request.prefix)
    }
}

/// Whether there is such a field in `json`. What is quoted within a text is escaped there, so it is not mistaken for one.
fn is_multimodal(json: &[u8]) -> bool {
    let field = |name: &str| {
        let ends = memmem::find_iter(json, name).filter(|at| !escaped(json, *at)).map(|at| at + name.len());
        ends.into_iter().any(|end| json[end..].trim_ascii_start().starts_with(b":"))
    };
    let image = || {
        memmem::find_iter(json, IMAGE).any(|at| {
            let before = json[..at].trim_ascii_end().strip_suffix(b":").map(<[u8]>::trim_ascii_end);
            before.is_some_and(|before| before.ends_with(b"\"type\""))
        })
    };
    FIELDS.iter().any(|name| field(name)) || image()
}

/// Whether the quote at `at` is within a text.
fn escaped(json: &[u8], at: usize) -> bool {
    json[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_not_texts_that_speak_of_them() {
        for (json, expected) in [
            (r#"[{"content":[{"type":"image_url","image_url":{"url":"data:"}}]}]"#, true),
            (r#"[{"content":[{"type":"input_audio", "input_audio" : {"data":""}}]}]"#, true),
            (r#"[{"content":[{"video_url":{}}]}]"#, true),
            (r#"[{"content":[{"type": "image","source":{}}]}]"#, true),
            (r#"[{"content":"image_url"}]"#, false),
            (r#"[{"content":"say \"image_url\": now"}]"#, false),
            (r#"[{"content":"image"}]"#, false),
            ("", false),
        ] {
            assert_eq!(is_multimodal(json.as_bytes()), expected, "{json}");
        }
    }
}
