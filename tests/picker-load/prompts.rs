//! Bodies of requests and answers.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const BEFORE: &str = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","max_tokens":128,"stream":"#;
const MESSAGES: &str = r#","messages":[{"role":"user","content":""#;
const AFTER: &str = r#""}]}"#;
/// Digits that make a prompt one of its own.
const MARK: usize = 16;
/// Conversations that go on.
const CONVERSATIONS: usize = 100;
/// Texts of prompts that nobody saw before, each used again under another mark.
const STRANGERS: usize = 16;
const WORDS: [&str; 16] = [
    "the ", "model ", "of ", "a ", "prefix ", "cache ", "and ", "request ", "server ", "is ", "token ", "in ", "which ", "answer ",
    "to ", "long ",
];

/// Requests' bodies of one size: a share of them are the next turn of one of a hundred conversations, equal but for their last tenth;
/// the others begin as no other does.
#[derive(Debug)]
pub(crate) struct Prompts {
    conversations: Vec<Vec<u8>>,
    strangers: Vec<Vec<u8>>,
    begins: usize,
    turns: usize,
    /// Percent of the requests.
    shared: u8,
    rng: StdRng,
    number: u64,
}

impl Prompts {
    /// Bodies of about `bytes`, of which `shared` percent belong to a conversation.
    pub(crate) fn new(bytes: usize, shared: u8, streamed: bool, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let before = format!("{BEFORE}{streamed}{MESSAGES}");
        let length = bytes.saturating_sub(before.len() + AFTER.len()).max(4 * MARK);
        let mut body = |own: u64| {
            let mut text = format!("{before}{own:0MARK$x} ");
            while text.len() < before.len() + length {
                text += WORDS.choose(&mut rng).expect("there are words");
            }
            text.truncate(before.len() + length);
            (text + AFTER).into_bytes()
        };
        let conversations = (0..CONVERSATIONS as u64).map(|conversation| body(u64::MAX - conversation)).collect();
        let strangers = (0..STRANGERS).map(|_| body(0)).collect();
        let (begins, turns) = (before.len(), before.len() + MARK + (length - 2 * MARK) * 9 / 10);
        Self { conversations, strangers, begins, turns, shared, rng, number: 0 }
    }

    /// The next body and its number.
    pub(crate) fn next(&mut self) -> (u64, Bytes) {
        self.number += 1;
        let goes_on = self.rng.random_range(0..100) < self.shared;
        let (texts, mark) = if goes_on { (&self.conversations, self.turns) } else { (&self.strangers, self.begins) };
        let mut body = texts.choose(&mut self.rng).expect("there are texts").clone();
        body[mark..mark + MARK].copy_from_slice(format!("{:0MARK$x}", self.number).as_bytes());
        (self.number, body.into())
    }
}

/// The pieces of an answer: one JSON document, or events of a token each.
pub(crate) fn answer(chunks: usize) -> Vec<Bytes> {
    const USAGE: &str = r#""usage":{"prompt_tokens":512,"completion_tokens":128,"total_tokens":640}"#;
    if chunks <= 1 {
        let text = "word ".repeat(100);
        let answer = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1790000000,"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{USAGE}}}"#
        );
        return vec![answer.into()];
    }
    let event = |at: usize| {
        let rest = if at + 1 == chunks {
            format!(r#""choices":[],{USAGE}"#)
        } else {
            format!(r#""choices":[{{"index":0,"delta":{{"content":"w{at} "}},"finish_reason":null}}]"#)
        };
        let done = if at + 1 == chunks { "data: [DONE]\n\n" } else { "" };
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",{rest}}}\n\n{done}"
        )
        .into()
    };
    (0..chunks).map(event).collect()
}
