//! From the request's head to the reply that sends it on.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use weir_ext_proc::split;

use super::machine::{Exchange, Picked, RequestState, Wait};
use super::{Action, BodyMode, BodyReply, Chunk, Content, Head, HeadReply, Modes, Note, PickMetadata, Reply};
use crate::request::{self, DESTINATION, RequestBody, RequestHead, Route};
use crate::response::ModelBack;
use crate::{Api, Code, InferenceRequest, Pick, Refusal};

/// What a piece takes besides its bytes, so that empty ones do not come for nothing.
const PIECE_COST: usize = 64;

impl Exchange {
    pub(super) fn request_headers(&mut self, head: &Head, mode: BodyMode, now: Instant, out: &mut Vec<Action>) {
        if !matches!(self.request, RequestState::Begin) {
            out.push(Action::Note(Note::Unexpected));
            return;
        }
        let read = match RequestHead::read(head, &self.settings.parsers) {
            Ok(read) => read,
            Err(refusal) => return self.refuse(&refusal, out),
        };
        if let Err(refusal) = self.read_wanted(head) {
            return self.refuse(&refusal, out);
        }
        // An upload to a path of no known API, say: nothing in it is read, so nothing waits for its end.
        let unread = read.open_ended
            || read.route == Route::Raw
            || (read.route == Route::Unknown && !read.json && !self.settings.unknown_as_completions);
        // In these modes the body comes only once the head is answered.
        let buffered = matches!(mode, BodyMode::Buffered | BodyMode::BufferedPartial);
        let control = read.control.clone();
        self.head = Some((read, now));
        if head.end {
            self.whole = true;
            self.ask(Wait::Head, out);
        } else if buffered {
            out.push(Action::Reply(Reply::RequestHeaders(HeadReply { remove: control, ..HeadReply::default() })));
            self.request = RequestState::Collecting { buffered };
        } else if mode == BodyMode::None && !unread && self.settings.ask_for_bodies {
            out.push(Action::Reply(Reply::FullDuplex));
            self.asked_for_bodies = true;
            self.modes = Some(Modes { request: BodyMode::FullDuplex, response: BodyMode::FullDuplex });
            self.request = RequestState::Collecting { buffered };
        } else if unread || mode != BodyMode::FullDuplex {
            self.ask(Wait::Head, out);
        } else {
            self.request = RequestState::Collecting { buffered };
        }
    }

    pub(super) fn request_body(&mut self, chunk: Chunk, mode: BodyMode, out: &mut Vec<Action>) {
        match &self.request {
            RequestState::Begin => self.refuse(&request::out_of_order(), out),
            RequestState::Collecting { buffered } => {
                // A buffered body is whole even if trailers follow.
                let whole = chunk.end || *buffered;
                let partial = mode == BodyMode::BufferedPartial && !chunk.end;
                if !self.keep(chunk.body.len(), out) {
                    return;
                }
                if self.body.is_empty() {
                    self.body = chunk.body;
                } else {
                    self.body.extend_from_slice(&chunk.body);
                }
                if whole {
                    self.body_is_whole(partial, out);
                }
            }
            RequestState::Waiting(Wait::Head) => {
                if self.keep(chunk.body.len() + PIECE_COST, out) {
                    self.whole |= chunk.end;
                    self.pieces.push_back(chunk);
                }
            }
            RequestState::Passing => self.pass_on(chunk, out),
            RequestState::Waiting(_) | RequestState::Gone | RequestState::Over => out.push(Action::Note(Note::Unexpected)),
        }
    }

    pub(super) fn request_trailers(&mut self, mode: BodyMode, out: &mut Vec<Action>) {
        match &self.request {
            RequestState::Begin => self.refuse(&request::out_of_order(), out),
            RequestState::Collecting { buffered: false } => {
                self.trailers = true;
                self.body_is_whole(false, out);
            }
            RequestState::Waiting(_) => {
                self.trailers = true;
                self.whole = true;
            }
            RequestState::Collecting { buffered: true } => {
                // There was no body whose reply could carry a pick.
                tracing::debug!(?mode, "a gateway sent trailers without the body it announced: the request goes on without a pick");
                out.push(Action::Note(Note::Unexpected));
                self.request = RequestState::Gone;
                out.push(Action::Reply(Reply::RequestTrailers));
            }
            RequestState::Passing | RequestState::Gone => out.push(Action::Reply(Reply::RequestTrailers)),
            RequestState::Over => {}
        }
    }

    /// The director's answer; what is to be done is added to `out`.
    pub fn directed(&mut self, outcome: Result<Pick, Refusal>, out: &mut Vec<Action>) {
        let RequestState::Waiting(wait) = &mut self.request else {
            return;
        };
        let pick = match outcome {
            Ok(pick) => pick,
            Err(refusal) => return self.answer(&refusal, out),
        };
        let wait = std::mem::replace(wait, Wait::Head);
        let Some(destination) = self.destination(&pick.endpoints) else {
            out.push(Action::Note(Note::DirectorFailed));
            return self.refuse(&internal("results must be greater than zero"), out);
        };
        let (edited, model_back) = self.rename(&wait, pick.target_model.as_ref(), out);
        let streaming = matches!(&wait, Wait::Whole(body) | Wait::Buffered(body) if body.streaming);
        let Pick { endpoints, ticket, response_headers, .. } = pick;
        self.picked = Some(Picked { endpoints, ticket, model_back, streaming, response_headers });
        let head = self.head_reply(destination, pick.request_headers, &wait, edited.as_ref());
        self.send_on(wait, head, edited, out);
        if std::mem::take(&mut self.trailers) {
            out.push(Action::Reply(Reply::RequestTrailers));
        }
        if self.half_closed {
            self.end(out);
        }
    }

    fn send_on(&mut self, wait: Wait, head: HeadReply, edited: Option<Bytes>, out: &mut Vec<Action>) {
        self.request = RequestState::Gone;
        match wait {
            Wait::Head => {
                out.push(Action::Reply(Reply::RequestHeaders(head)));
                self.request = RequestState::Passing;
                for chunk in std::mem::take(&mut self.pieces) {
                    self.pass_on(chunk, out);
                }
            }
            Wait::Whole(body) => {
                out.push(Action::Reply(Reply::RequestHeaders(head)));
                let end = !self.trailers;
                let bytes = edited.unwrap_or(body.bytes);
                if end || !bytes.is_empty() {
                    let pieces = split(bytes, end, self.settings.reply_chunk);
                    out.extend(
                        pieces.map(|content| Action::Reply(Reply::RequestBody(BodyReply { content, ..BodyReply::default() }))),
                    );
                }
            }
            Wait::Buffered(_) => {
                let content = edited.map_or(Content::Unchanged, Content::Replaced);
                out.push(Action::Reply(Reply::RequestBody(BodyReply { content, head: Some(head), ..BodyReply::default() })));
            }
        }
    }

    /// Takes from the budget; refuses the request where there is no room.
    fn keep(&mut self, bytes: usize, out: &mut Vec<Action>) -> bool {
        if self.share.bytes() + bytes > self.settings.request_bytes {
            self.refuse(&request::too_large(self.settings.request_bytes), out);
            return false;
        }
        if !self.share.take(bytes) {
            self.refuse(&request::buffers_full(), out);
            return false;
        }
        true
    }

    fn body_is_whole(&mut self, partial: bool, out: &mut Vec<Action>) {
        self.whole = true;
        let buffered = matches!(self.request, RequestState::Collecting { buffered: true });
        let bytes = Bytes::from(std::mem::take(&mut self.body));
        let route = match self.head.as_ref().map_or(Route::Untold, |(head, _)| head.route) {
            Route::Unknown if self.settings.unknown_as_completions => Route::Known(Api::Completions),
            route => route,
        };
        let read = if bytes.is_empty() { Ok(RequestBody::opaque(bytes.clone())) } else { RequestBody::read(bytes.clone(), route) };
        let body = match read {
            Ok(body) => body,
            // The rest was not shown: nothing can be said about it.
            Err(_) if partial => RequestBody::opaque(bytes),
            Err(refusal) => return self.refuse(&refusal, out),
        };
        self.ask(if buffered { Wait::Buffered(body) } else { Wait::Whole(body) }, out);
    }

    /// Asks the director.
    fn ask(&mut self, wait: Wait, out: &mut Vec<Action>) {
        let Some((head, received)) = &mut self.head else {
            return;
        };
        let body = match &wait {
            Wait::Head => None,
            Wait::Whole(body) | Wait::Buffered(body) => Some(body),
        };
        let id = head.id.clone().unwrap_or_else(|| uuid(self.random).into());
        out.push(Action::Direct(Box::new(InferenceRequest {
            id,
            received: *received,
            api: body.map_or(Api::Other, |body| body.api),
            model: body.and_then(|body| body.model.clone()),
            model_rewrite: head.model_rewrite.clone(),
            objective: head.objective.clone(),
            fairness: head.fairness.clone(),
            body_bytes: body.map_or(0, |body| body.bytes.len()),
            prefix: body.map(|body| body.prefix.clone()).unwrap_or_default(),
            cache_salt: body.and_then(|body| body.cache_salt.clone()),
            streaming: body.is_some_and(|body| body.streaming),
            subset: self.subset.clone(),
            test_selection: head.test_selection.clone(),
            headers: std::mem::take(&mut self.headers),
            max_output_tokens: body.and_then(|body| body.max_output_tokens),
            trail: None,
        })));
        self.request = RequestState::Waiting(wait);
    }

    /// The pick in the gateway's words.
    fn destination(&self, endpoints: &[SocketAddr]) -> Option<String> {
        let told = if self.settings.several_endpoints { endpoints } else { endpoints.get(..1)? };
        let texts: Vec<String> = told.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }

    /// The body that names the target model, and how the answer is to name the one asked for.
    fn rename(&self, wait: &Wait, target: Option<&Arc<str>>, out: &mut Vec<Action>) -> (Option<Bytes>, Option<ModelBack>) {
        let Some(target) = target else { return (None, None) };
        let (Wait::Whole(body) | Wait::Buffered(body)) = wait else {
            if !self.whole || !self.pieces.is_empty() {
                out.push(Action::Note(Note::ModelNotRewritten));
            }
            return (None, None);
        };
        match &body.model {
            Some(model) if model != target => (body.with_model(target), Some(ModelBack::new(Arc::clone(target), model))),
            _ => (None, None),
        }
    }

    fn head_reply(
        &self,
        destination: String,
        headers: Vec<(&'static str, Option<String>)>,
        wait: &Wait,
        edited: Option<&Bytes>,
    ) -> HeadReply {
        let mut set = vec![(DESTINATION, destination.clone())];
        let mut remove = Vec::new();
        if let Some((head, _)) = &self.head {
            if head.id.is_none() {
                set.push(("x-request-id", uuid(self.random)));
            }
            if !matches!(wait, Wait::Buffered(_)) {
                remove.clone_from(&head.control);
            }
        }
        for (name, value) in headers {
            match value {
                Some(value) => set.push((name, value)),
                None => remove.push(name),
            }
        }
        if edited.is_some() && self.asked_for_bodies {
            // Envoy takes no other length here, but keeps the old one.
            remove.push("content-length");
        } else if let Some(edited) = edited {
            set.push(("content-length", edited.len().to_string()));
        }
        let clear_route_cache = self.settings.clear_route_cache;
        HeadReply { set, remove, clear_route_cache, metadata: Some(PickMetadata(destination)), ..HeadReply::default() }
    }

    /// A piece of a body that is not looked into.
    fn pass_on(&mut self, chunk: Chunk, out: &mut Vec<Action>) {
        let full_duplex = self.modes.is_some_and(|modes| modes.request == BodyMode::FullDuplex);
        if full_duplex {
            let pieces = split(chunk.body.into(), chunk.end, self.settings.reply_chunk);
            out.extend(pieces.map(|content| Action::Reply(Reply::RequestBody(BodyReply { content, ..BodyReply::default() }))));
        } else {
            out.push(Action::Reply(Reply::RequestBody(BodyReply::default())));
        }
    }
}

pub(super) fn internal(message: &str) -> Refusal {
    Refusal { code: Code::Internal, message: message.into(), reason: None, retry_after: None }
}

/// A version 4 UUID (RFC 9562 §5.4) of random bits.
fn uuid(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let hex = format!("{:032x}", random & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
