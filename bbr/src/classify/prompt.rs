//! What a request's body asks, as far as its weight can be told from it: an estimate of tokens, turns, the users' own words.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::text::runs_on;

/// Bytes of users' words that are looked into: what is longer weighs enough by its tokens, unless the threshold is out of all measure.
const MOST_WORDS: usize = 1 << 20;

/// The weight of a prompt.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Prompt {
    /// Quarters of a token.
    quarters: u64,
    /// Messages of users; a prompt without messages is one.
    pub(super) turns: u64,
    /// What users say, each text on lines of its own.
    pub(super) words: String,
}

/// The fields of a body that hold its prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) messages: Option<&'a RawValue>,
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) input: Option<&'a RawValue>,
    pub(super) system: Option<&'a RawValue>,
    pub(super) instructions: Option<&'a RawValue>,
}

impl Prompt {
    /// Reads what is there. What has another shape than an API's weighs nothing: the model server refuses it.
    pub(super) fn read(fields: Fields<'_>) -> Self {
        let mut prompt = Self::default();
        for raw in [fields.system, fields.instructions].into_iter().flatten() {
            prompt.add(raw, false);
        }
        for raw in [fields.messages, fields.input, fields.prompt].into_iter().flatten() {
            match serde_json::from_str::<Vec<Turn<'_>>>(raw.get()) {
                Ok(turns) if !turns.is_empty() => {
                    for turn in turns {
                        // Items of the Responses API without a role are the tools' and the model's.
                        let user = turn.role.as_deref() == Some("user");
                        prompt.turns += u64::from(user);
                        if let Some(content) = turn.content {
                            prompt.add(content, user);
                        }
                    }
                }
                _ => {
                    prompt.turns += 1;
                    prompt.add(raw, true);
                }
            }
        }
        prompt
    }

    /// About as many tokens as a tokenizer makes of it: four ASCII characters are one, two letters of other alphabets, one of a script
    /// whose words run on.
    pub(super) fn tokens(&self) -> u64 {
        self.quarters.div_ceil(4)
    }

    fn add(&mut self, raw: &RawValue, user: bool) {
        // What is no content is passed over, as far as it was read.
        drop(Text { prompt: self, user }.deserialize(&mut serde_json::Deserializer::from_str(raw.get())));
    }

    fn text(&mut self, text: &str, user: bool) {
        let quarters = |letter: char| match letter {
            _ if letter.is_ascii() => 1,
            _ if runs_on(letter) => 4,
            _ => 2,
        };
        self.quarters = self.quarters.saturating_add(text.chars().map(quarters).sum());
        if user {
            let room = MOST_WORDS.saturating_sub(self.words.len());
            self.words.push_str(&text[..text.floor_char_boundary(room)]);
            self.words.push('\n');
        }
    }
}

/// A message: role and content, in any order.
#[derive(Deserialize)]
struct Turn<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// Content: a text, tokens, or a list of parts with a `text` or a `content` of their own.
struct Text<'prompt> {
    prompt: &'prompt mut Prompt,
    user: bool,
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("content")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.prompt.text(text, self.user);
        Ok(())
    }

    /// A token.
    fn visit_u64<E>(self, _token: u64) -> Result<(), E> {
        self.prompt.quarters = self.prompt.quarters.saturating_add(4);
        Ok(())
    }

    fn visit_i64<E>(self, _number: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _number: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<(), A::Error> {
        while parts.next_element_seed(Text { prompt: &mut *self.prompt, user: self.user })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut part: A) -> Result<(), A::Error> {
        while let Some(name) = part.next_key::<Cow<'de, str>>()? {
            if matches!(&*name, "text" | "content") {
                part.next_value_seed(Text { prompt: &mut *self.prompt, user: self.user })?;
            } else {
                part.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Prompt {
        let found =
            weir_ext_proc::body::fields(body.as_bytes(), &["messages", "prompt", "input", "system", "instructions"]).unwrap();
        let [messages, prompt, input, system, instructions] = found[..] else { panic!("five were asked for") };
        Prompt::read(Fields { messages, prompt, input, system, instructions })
    }

    #[test]
    fn every_api_has_its_words_turns_and_tokens() {
        let image = r#"{"type":"image_url","image_url":{"url":"data:AAAA"}}"#;
        for (body, words, turns, tokens) in [
            (r#"{"prompt":"who is it?"}"#.to_owned(), "who is it?\n", 1, 3),
            (r#"{"prompt":["one","two"]}"#.to_owned(), "one\ntwo\n", 1, 2),
            (r#"{"prompt":[[1,2,3],[4]]}"#.to_owned(), "", 1, 4),
            (r#"{"input":"hi"}"#.to_owned(), "hi\n", 1, 1),
            (r#"{"instructions":"be nice","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"reasoning"}]}"#.into(),
             "hi\n", 1, 3),
            (format!(r#"{{"messages":[{{"role":"system","content":"abcd"}},{{"content":[{{"text":"hi"}},{image}],"role":"user"}},
                {{"role":"assistant","content":null}},{{"role":"user","content":"yes"}}]}}"#), "hi\nyes\n", 2, 3),
            (r#"{"system":[{"type":"text","text":"abcdefgh"}],"messages":[{"role":"user","content":[{"type":"tool_result","content":"x"}]}]}"#.into(),
             "x\n", 1, 3),
        ] {
            let prompt = read(&body);
            assert_eq!((prompt.words.as_str(), prompt.turns, prompt.tokens()), (words, turns, tokens), "{body}");
        }
    }

    #[test]
    fn letters_weigh_what_tokenizers_make_of_them() {
        let tokens = |text: &str| read(&serde_json::json!({ "prompt": text }).to_string()).tokens();
        assert_eq!([tokens("abcdefgh"), tokens("привет"), tokens("重构代码"), tokens("")], [2, 3, 4, 0]);
    }

    #[test]
    fn what_has_no_shape_of_an_api_weighs_little() {
        for body in ["{}", r#"{"messages":7}"#, r#"{"messages":[{"role":7}]}"#, r#"{"prompt":null}"#, r#"{"prompt":[[[[]]]]}"#] {
            assert!(read(body).tokens() <= 2, "{body}");
        }
        let deep = format!("{{\"prompt\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert_eq!(read(&deep).tokens(), 0);
    }
}
