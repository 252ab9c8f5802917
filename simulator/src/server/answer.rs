//! Answers in the OpenAI API's shapes: one JSON object, or server-sent events.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::{FutureExt, select_all};
use futures_util::stream;
use serde::Serialize;

use super::completions::HttpTimer;
use super::error::ApiError;
use super::replica::{News, Ticket};
use super::request::Kind;
use super::words::push_token;

/// What all parts of one answer share.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) prompt_tokens: u64,
    pub(super) include_usage: bool,
    /// Counts the exchange when the answer is complete or its reader gone.
    pub(super) timer: HttpTimer,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    /// Outer `None`: no such field. Inner: `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Answer {
    fn usage(&self, completion_tokens: u64, cached_tokens: u64) -> Usage {
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens,
            total_tokens: self.prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
        }
    }

    /// A number for the words of one choice.
    fn text_number(&self, choice: usize) -> u64 {
        self.number.wrapping_add((choice as u64) << 32)
    }

    fn whole_choice<'a>(&self, index: usize, text: &'a str, reason: &'static str) -> Choice<'a> {
        let (message, text) = match self.kind {
            Kind::Chat => (Some(Message { role: Some("assistant"), content: Some(text) }), None),
            Kind::Text => (None, Some(text)),
        };
        Choice { index, message, delta: None, text, logprobs: None, finish_reason: Some(reason) }
    }

    /// Waits for all choices.
    pub(super) async fn whole(mut self, mut tickets: Vec<Ticket>) -> Result<Response, ApiError> {
        let mut texts = Vec::with_capacity(tickets.len());
        let mut completion_tokens = 0;
        let mut cached_tokens = 0;
        for (index, ticket) in tickets.iter_mut().enumerate() {
            let (generated, finished) = ticket.end().await.ok_or_else(ApiError::stopped)?;
            let mut text = String::new();
            (0..generated).for_each(|position| push_token(&mut text, self.text_number(index), position));
            completion_tokens += u64::from(generated);
            cached_tokens += u64::from(finished.cached_tokens);
            texts.push((text, finished.reason.as_str()));
        }
        let choices: Vec<Choice<'_>> =
            texts.iter().enumerate().map(|(index, (text, reason))| self.whole_choice(index, text, reason)).collect();
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let usage = Some(Some(self.usage(completion_tokens, cached_tokens)));
        let envelope = Envelope { id: &self.id, object, created: self.created, model: &self.model, choices: &choices, usage };
        let body = serde_json::to_vec(&envelope).map_err(ApiError::bad_json)?;
        self.timer.answered(200, body.len());
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
    }

    /// Answers at once and sends tokens as they come; the tickets live and die with the body.
    pub(super) fn stream(mut self, tickets: Vec<Ticket>) -> Response {
        self.timer.answered(200, 0);
        let choices = tickets.into_iter().enumerate().map(|(index, ticket)| OpenChoice { index, ticket, started: false }).collect();
        let state = Events { answer: self, choices, completion_tokens: 0, cached_tokens: 0, done: false };
        let body = Body::from_stream(stream::unfold(state, Events::next));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        (headers, body).into_response()
    }
}

/// A stream between two events.
struct Events {
    answer: Answer,
    /// Choices that have not ended.
    choices: Vec<OpenChoice>,
    completion_tokens: u64,
    cached_tokens: u64,
    done: bool,
}

struct OpenChoice {
    index: usize,
    ticket: Ticket,
    started: bool,
}

impl Events {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if self.done {
            return None;
        }
        let mut frame = String::new();
        let written = if self.choices.is_empty() {
            self.done = true;
            self.write_end(&mut frame)
        } else {
            match self.wait().await {
                Some((position, news)) => self.write_news(position, news, &mut frame),
                None => Err(io::Error::other("the replica stopped")),
            }
        };
        // An error closes the connection: the client must not take the answer for complete.
        self.done |= written.is_err();
        Some((written.map(|()| Bytes::from(frame)), self))
    }

    /// The next choice with news, by its place in `choices`.
    async fn wait(&mut self) -> Option<(usize, News)> {
        if let [only] = self.choices.as_mut_slice() {
            return Some((0, only.ticket.news().await?));
        }
        let news = self.choices.iter_mut().map(|choice| choice.ticket.news().boxed());
        let (news, position, _) = select_all(news).await;
        Some((position, news?))
    }

    fn write_news(&mut self, position: usize, news: News, frame: &mut String) -> io::Result<()> {
        let answer = &self.answer;
        let choice = &mut self.choices[position];
        let index = choice.index;
        if !std::mem::replace(&mut choice.started, true) && answer.kind == Kind::Chat {
            let role = Message { role: Some("assistant"), content: Some("") };
            answer.write_delta(index, role, None, frame)?;
        }
        let number = answer.text_number(index);
        for token in news.from..news.to {
            let mut text = String::new();
            push_token(&mut text, number, token);
            // A text completion ends with its last token, a chat with a delta of its own.
            let reason = news.finished.filter(|_| answer.kind == Kind::Text && token + 1 == news.to).map(|end| end.reason.as_str());
            answer.write_delta(index, Message { role: None, content: Some(&text) }, reason, frame)?;
        }
        if let Some(finished) = news.finished {
            if answer.kind == Kind::Chat {
                answer.write_delta(index, Message::default(), Some(finished.reason.as_str()), frame)?;
            }
            self.completion_tokens += u64::from(news.to);
            self.cached_tokens += u64::from(finished.cached_tokens);
            self.choices.remove(position);
        }
        Ok(())
    }

    fn write_end(&self, frame: &mut String) -> io::Result<()> {
        if self.answer.include_usage {
            let usage = self.answer.usage(self.completion_tokens, self.cached_tokens);
            self.answer.write_event(&[], Some(usage), frame)?;
        }
        frame.push_str("data: [DONE]\n\n");
        Ok(())
    }
}

impl Answer {
    fn write_delta(&self, index: usize, message: Message<'_>, reason: Option<&'static str>, frame: &mut String) -> io::Result<()> {
        let (delta, text) = match self.kind {
            Kind::Chat => (Some(message), None),
            Kind::Text => (None, message.content),
        };
        let choice = Choice { index, message: None, delta, text, logprobs: None, finish_reason: reason };
        self.write_event(&[choice], None, frame)
    }

    fn write_event(&self, choices: &[Choice<'_>], usage: Option<Usage>, frame: &mut String) -> io::Result<()> {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        // With usage asked for, every event has the field, null but in the last.
        let usage = self.include_usage.then_some(usage);
        let envelope = Envelope { id: &self.id, object, created: self.created, model: &self.model, choices, usage };
        let json = serde_json::to_string(&envelope)?;
        write!(frame, "data: {json}\n\n").map_err(io::Error::other)
    }
}

/// The id of an answer: unique over a fleet as long as seeds differ.
pub(super) fn answer_id(kind: Kind, pod: &Arc<super::Replica>, number: u64) -> String {
    let prefix = match kind {
        Kind::Chat => "chatcmpl",
        Kind::Text => "cmpl",
    };
    format!("{prefix}-{:016x}{number:08x}", pod.seed)
}
