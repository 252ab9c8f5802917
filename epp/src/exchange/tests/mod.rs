//! Scripted gateways against an exchange.

mod gateways;
mod hostile;
mod plugin_headers;
mod request;
mod response;

use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::*;
use crate::{Failure, InferenceRequest, Pick, Refusal, Ticket, Usage};

pub(super) const PROMPT: &str = r#"{"max_tokens":100,"model":"llama","prompt":"hi","temperature":0}"#;

/// What tickets were told, in order.
pub(super) type Told = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Recorded(Told);

impl Recorded {
    fn tell(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl Ticket for Recorded {
    fn served_by(&mut self, endpoint: std::net::SocketAddr) {
        self.tell(format!("served by {endpoint}"));
    }
    fn response_started(&mut self, status: u16, _at: Instant) {
        self.tell(format!("started {status}"));
    }
    fn gateway_answered(&mut self, status: u16, why: Failure, _at: Instant) {
        self.tell(format!("gateway answered {status} {why:?}"));
    }
    fn response_bytes(&mut self, bytes: usize, _at: Instant) {
        self.tell(format!("{bytes} bytes"));
    }
    fn usage(&mut self, usage: Usage) {
        self.tell(format!("usage {} {} {}", usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens));
    }
    fn completed(&mut self, _at: Instant) {
        self.tell("completed".into());
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.tell("ended".into());
    }
}

/// A gateway, the picker's machine, and what came out of it.
pub(super) struct Script {
    pub(super) exchange: Exchange,
    pub(super) budget: Budget,
    pub(super) out: Vec<Action>,
    pub(super) told: Told,
    pub(super) now: Instant,
    modes: Option<Modes>,
}

pub(super) fn modes(request: BodyMode, response: BodyMode) -> Option<Modes> {
    Some(Modes { request, response })
}

impl Script {
    /// A gateway that tells these modes.
    pub(super) fn new(modes: Option<Modes>) -> Self {
        Self::with(modes, Settings::default())
    }

    pub(super) fn with(modes: Option<Modes>, settings: Settings) -> Self {
        let budget = Budget::new(settings.waiting_bytes);
        let exchange = Exchange::new(Arc::new(settings), &budget, 7);
        Self { exchange, budget, out: Vec::new(), told: Told::default(), now: Instant::now(), modes }
    }

    /// Envoy in full duplex.
    pub(super) fn duplex() -> Self {
        Self::new(modes(BodyMode::FullDuplex, BodyMode::FullDuplex))
    }

    pub(super) fn send(&mut self, message: Message) -> &mut Self {
        self.deliver(Incoming { message: Some(message), ..Incoming::default() })
    }

    pub(super) fn deliver(&mut self, incoming: Incoming) -> &mut Self {
        self.exchange.message(Incoming { modes: self.modes, ..incoming }, self.now, &mut self.out);
        self
    }

    pub(super) fn head(&mut self, headers: &[(&str, &str)], end: bool) -> &mut Self {
        self.send(Message::RequestHeaders(head(headers, end)))
    }

    pub(super) fn post(&mut self) -> &mut Self {
        self.head(&[(":method", "POST"), (":path", "/v1/completions"), ("x-request-id", "r")], false)
    }

    pub(super) fn body(&mut self, body: &str, end: bool) -> &mut Self {
        self.send(Message::RequestBody(Chunk { body: body.as_bytes().to_vec(), end }))
    }

    pub(super) fn close(&mut self, how: Closed) -> &mut Self {
        self.exchange.closed(how, self.now, &mut self.out);
        self
    }

    /// The director's answer to what was asked last.
    pub(super) fn pick(&mut self, endpoints: &[&str], target: Option<&str>) -> InferenceRequest {
        self.pick_with(endpoints, target, Vec::new(), Vec::new())
    }

    /// The same, with headers of the request and of the response.
    pub(super) fn pick_with(
        &mut self,
        endpoints: &[&str],
        target: Option<&str>,
        request_headers: Vec<(&'static str, Option<String>)>,
        response_headers: Vec<(Arc<str>, String)>,
    ) -> InferenceRequest {
        let request = self.asked();
        let pick = Pick {
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
            target_model: target.map(Into::into),
            request_headers,
            response_headers,
            ticket: Box::new(Recorded(Arc::clone(&self.told))),
        };
        self.exchange.directed(Ok(pick), &mut self.out);
        request
    }

    /// The only question to the director.
    pub(super) fn asked(&mut self) -> InferenceRequest {
        let at = self.out.iter().position(|action| matches!(action, Action::Direct(_))).expect("nothing was asked");
        let Action::Direct(request) = self.out.remove(at) else { unreachable!() };
        assert!(!self.out.iter().any(|action| matches!(action, Action::Direct(_))), "asked twice");
        *request
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) -> &mut Self {
        self.asked();
        self.exchange.directed(Err(refusal), &mut self.out);
        self
    }

    /// Replies so far, taken out.
    pub(super) fn replies(&mut self) -> Vec<Reply> {
        let (replies, rest) = std::mem::take(&mut self.out).into_iter().partition(|action| matches!(action, Action::Reply(_)));
        self.out = rest;
        let replies: Vec<Action> = replies;
        replies.into_iter().filter_map(|action| if let Action::Reply(reply) = action { Some(reply) } else { None }).collect()
    }

    pub(super) fn immediate(&mut self) -> Immediate {
        match self.replies().pop() {
            Some(Reply::Immediate(immediate)) => immediate,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        self.out.iter().filter_map(|action| if let Action::Note(note) = action { Some(*note) } else { None }).collect()
    }

    pub(super) fn abandoned(&self) -> bool {
        self.out.iter().any(|action| matches!(action, Action::Abandon))
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.out.last(), Some(Action::End))
    }
}

pub(super) fn head(headers: &[(&str, &str)], end: bool) -> Head {
    Head { headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(), end }
}

pub(super) fn response(status: &str, kind: &str) -> Message {
    Message::ResponseHeaders(head(&[(":status", status), ("content-type", kind)], false))
}

/// The bytes of body replies, and whether each has the end.
pub(super) fn bytes(replies: &[Reply]) -> (Vec<u8>, Vec<bool>) {
    let mut all = Vec::new();
    let mut ends = Vec::new();
    for reply in replies {
        if let Reply::RequestBody(reply) | Reply::ResponseBody(reply) = reply {
            match &reply.content {
                Content::Streamed { body, end } => {
                    all.extend_from_slice(body);
                    ends.push(*end);
                }
                Content::Replaced(body) => all.extend_from_slice(body),
                Content::Unchanged => {}
            }
        }
    }
    (all, ends)
}
