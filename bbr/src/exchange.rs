//! One HTTP request as a gateway tells of it over ext_proc: messages in, replies out, no I/O.
//!
//! The body is collected, decided upon ([`crate::decide`]), and goes on with the headers. Responses pass as they are. A body that is
//! not shown, or is no JSON, goes on without headers, and so does a request without a body.

use std::sync::Arc;

use bytes::Bytes;
use weir_ext_proc::{
    BodyMode, BodyReply, Budget, Chunk, Code, Content, ErrorPrefix, Head, HeadReply, Incoming, Message, Modes, Refusal, Reply,
    Share, immediate, split,
};

use crate::decide::{Plan, Routing, bad_request};
use crate::plugin::CLASSIFIER_HEADER;

/// Settings of all exchanges.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a request's body, 16 MiB; above it 413.
    pub request_bytes: usize,
    /// Bytes of all bodies that are being collected, 1 GiB; above it 503.
    pub waiting_bytes: usize,
    /// Streams open at once, one per request, 100,000; one more is turned away.
    pub streams: usize,
    /// Largest piece of a body in a reply, 24 KiB.
    pub reply_chunk: usize,
    /// The modes of a gateway that does not tell them: whole bodies, or with `--streaming` in full duplex.
    pub untold_modes: Modes,
}

impl Default for Settings {
    fn default() -> Self {
        let untold_modes = Modes { request: BodyMode::Buffered, response: BodyMode::Buffered };
        Self { request_bytes: 16 << 20, waiting_bytes: 1 << 30, streams: 100_000, reply_chunk: 24 << 10, untold_modes }
    }
}

/// What of a request is worth a count.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Note {
    /// A message that does not belong here.
    Unexpected,
    /// The body is no JSON by its content type: it passes unread.
    NotJson,
    /// The gateway does not show bodies, or only piece by piece: no header can be set.
    BodyNotShown,
    /// The gateway showed a part of the body alone.
    Partial,
    /// A client sent a header that is set here alone: taken away.
    Spoofed,
    /// A stream more than may be open.
    TooManyStreams,
    /// Refused: the body cannot be read, or a value is no header's.
    BadRequest,
    /// Refused: the body is too long.
    TooLarge,
    /// Refused: too many bytes wait.
    Full,
}

impl Note {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Unexpected,
        Self::NotJson,
        Self::BodyNotShown,
        Self::Partial,
        Self::Spoofed,
        Self::TooManyStreams,
        Self::BadRequest,
        Self::TooLarge,
        Self::Full,
    ];

    /// Label of the metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected_message",
            Self::NotJson => "not_json",
            Self::BodyNotShown => "body_not_shown",
            Self::Partial => "partial_body",
            Self::Spoofed => "spoofed_header",
            Self::TooManyStreams => "too_many_streams",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::Full => "buffers_full",
        }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Send this to the gateway.
    Reply(Reply),
    /// Count this.
    Note(Note),
    /// End the stream, with status OK.
    End,
}

/// Decides upon a whole body.
pub trait Decide {
    /// What becomes of a request with this body.
    ///
    /// # Errors
    /// The refusal that is answered.
    fn decide(&mut self, body: &Bytes) -> Result<Plan, Refusal>;
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing of it came.
    Begin,
    /// Its body is being collected; `buffered`: the gateway sends it whole and has an answer to its head already.
    Collecting { buffered: bool },
    /// What still comes of the body passes piece by piece.
    Passing,
    /// It has gone on whole.
    Gone,
    /// The stream is over.
    Over,
}

/// One request's way through.
#[derive(Debug)]
pub struct Exchange {
    settings: Arc<Settings>,
    routing: Arc<Routing>,
    modes: Option<Modes>,
    state: State,
    body: Vec<u8>,
    share: Share,
    /// Headers that came along and are set here alone.
    spoofed: Vec<Arc<str>>,
    told: Option<String>,
}

impl Exchange {
    /// A new stream.
    pub fn new(settings: Arc<Settings>, routing: Arc<Routing>, budget: &Budget) -> Self {
        let share = budget.share();
        Self { settings, routing, modes: None, state: State::Begin, body: Vec::new(), share, spoofed: Vec::new(), told: None }
    }

    /// A message of the gateway; what is to be done is added to `out`.
    pub fn message(&mut self, incoming: Incoming, decide: &mut dyn Decide, out: &mut Vec<Action>) {
        if self.state == State::Over {
            return;
        }
        let modes = *self.modes.get_or_insert(incoming.modes.unwrap_or(self.settings.untold_modes));
        match incoming.message {
            None => out.push(Action::Note(Note::Unexpected)),
            Some(Message::RequestHeaders(head)) => self.request_headers(&head, modes.request, out),
            Some(Message::RequestBody(chunk)) => self.request_body(chunk, modes.request, decide, out),
            Some(Message::RequestTrailers) => {
                if self.state == (State::Collecting { buffered: false }) {
                    self.whole(true, decide, out);
                }
                if self.state != State::Over {
                    out.push(Action::Reply(Reply::RequestTrailers));
                }
            }
            Some(Message::ResponseHeaders(_)) => self.response_headers(out),
            Some(Message::ResponseBody(chunk)) => {
                let pieces = match modes.response {
                    BodyMode::FullDuplex => split(chunk.body.into(), chunk.end, self.settings.reply_chunk).collect(),
                    _ => vec![Content::Unchanged],
                };
                let reply = |content| Action::Reply(Reply::ResponseBody(BodyReply { content, ..BodyReply::default() }));
                out.extend(pieces.into_iter().map(reply));
            }
            Some(Message::ResponseTrailers) => out.push(Action::Reply(Reply::ResponseTrailers(Vec::new()))),
        }
    }

    /// A message was longer than a body may be; nothing can be read after it.
    pub fn oversized(&mut self, out: &mut Vec<Action>) {
        match self.state {
            State::Begin | State::Collecting { .. } => self.refuse(Note::TooLarge, &too_large(self.settings.request_bytes), out),
            State::Passing | State::Gone | State::Over => out.push(Action::End),
        }
    }

    fn request_headers(&mut self, head: &Head, mode: BodyMode, out: &mut Vec<Action>) {
        if self.state != State::Begin {
            return out.push(Action::Note(Note::Unexpected));
        }
        self.state = State::Passing;
        // Without a body the headers are the client's own: a list of models is asked for of a pool by them.
        if head.end {
            self.state = State::Gone;
            return out.push(Action::Reply(Reply::RequestHeaders(HeadReply::default())));
        }
        self.spoofed = self.routing.owned().iter().filter(|name| head.get(name).is_some()).cloned().collect();
        if !self.spoofed.is_empty() {
            out.push(Action::Note(Note::Spoofed));
        }
        let json = head.get("content-type").is_none_or(|kind| kind.to_ascii_lowercase().windows(4).any(|part| part == b"json"));
        let open_ended = head.get(":method") == Some(b"CONNECT") || head.get("upgrade").is_some();
        let encoding = head.get("content-encoding").map(<[u8]>::trim_ascii).filter(|encoding| !encoding.is_empty());
        let encoding = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case(b"identity"));
        match (mode, encoding) {
            _ if open_ended => self.pass(out),
            _ if !json => {
                out.push(Action::Note(Note::NotJson));
                self.pass(out);
            }
            (BodyMode::None | BodyMode::Streamed, _) => {
                out.push(Action::Note(Note::BodyNotShown));
                self.pass(out);
            }
            (_, Some(encoding)) => {
                let encoding: String = String::from_utf8_lossy(encoding).chars().take(32).collect();
                let problem =
                    format!("failed to parse request body: its content-encoding is {}: send it plain", encoding.escape_debug());
                self.refuse(Note::BadRequest, &bad_request(problem), out);
            }
            (BodyMode::Buffered | BodyMode::BufferedPartial, None) => {
                let remove_named = self.spoofed.clone();
                out.push(Action::Reply(Reply::RequestHeaders(HeadReply { remove_named, ..HeadReply::default() })));
                self.state = State::Collecting { buffered: true };
            }
            (BodyMode::FullDuplex, None) => self.state = State::Collecting { buffered: false },
        }
    }

    /// The head goes on, and the body after it as it comes.
    fn pass(&mut self, out: &mut Vec<Action>) {
        let remove_named = std::mem::take(&mut self.spoofed);
        let clear_route_cache = !remove_named.is_empty();
        out.push(Action::Reply(Reply::RequestHeaders(HeadReply { remove_named, clear_route_cache, ..HeadReply::default() })));
    }

    fn request_body(&mut self, chunk: Chunk, mode: BodyMode, decide: &mut dyn Decide, out: &mut Vec<Action>) {
        match self.state {
            State::Begin => {
                let problem =
                    "the gateway sent a body before the request's headers: is its ext_proc filter's request_header_mode SEND?";
                self.refuse(Note::BadRequest, &bad_request(problem.to_owned()), out);
            }
            State::Collecting { buffered } => {
                if self.share.bytes() + chunk.body.len() > self.settings.request_bytes {
                    return self.refuse(Note::TooLarge, &too_large(self.settings.request_bytes), out);
                }
                if !self.share.take(chunk.body.len()) {
                    return self.refuse(Note::Full, &full(), out);
                }
                if self.body.is_empty() {
                    self.body = chunk.body;
                } else {
                    self.body.extend_from_slice(&chunk.body);
                }
                if mode == BodyMode::BufferedPartial && !chunk.end {
                    out.push(Action::Note(Note::Partial));
                    self.state = State::Gone;
                    self.body = Vec::new();
                    self.share.give_back();
                    out.push(Action::Reply(Reply::RequestBody(BodyReply::default())));
                } else if chunk.end || buffered {
                    self.whole(false, decide, out);
                }
            }
            State::Passing if mode == BodyMode::FullDuplex => {
                let reply = |content| Action::Reply(Reply::RequestBody(BodyReply { content, ..BodyReply::default() }));
                out.extend(split(chunk.body.into(), chunk.end, self.settings.reply_chunk).map(reply));
            }
            State::Passing => out.push(Action::Reply(Reply::RequestBody(BodyReply::default()))),
            State::Gone | State::Over => out.push(Action::Note(Note::Unexpected)),
        }
    }

    /// The body has come whole, `trailers` after it.
    fn whole(&mut self, trailers: bool, decide: &mut dyn Decide, out: &mut Vec<Action>) {
        let buffered = self.state == (State::Collecting { buffered: true });
        let bytes = Bytes::from(std::mem::take(&mut self.body));
        // An empty body has nothing to say; a client that announces one and sends none is not wrong.
        let plan = if bytes.is_empty() { Ok(Plan::default()) } else { decide.decide(&bytes) };
        self.share.give_back();
        let Plan { set: set_named, body: edited, told } = match plan {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(Note::BadRequest, &refusal, out),
        };
        self.told = told;
        self.state = State::Gone;
        let mut remove_named = std::mem::take(&mut self.spoofed);
        remove_named.retain(|name| !buffered && !set_named.iter().any(|(set, _)| set == name));
        let set = edited.iter().map(|body| ("content-length", body.len().to_string())).collect();
        let head = HeadReply { set, set_named, remove_named, clear_route_cache: true, ..HeadReply::default() };
        if buffered {
            let content = edited.map_or(Content::Unchanged, Content::Replaced);
            return out.push(Action::Reply(Reply::RequestBody(BodyReply { content, head: Some(head), ..BodyReply::default() })));
        }
        out.push(Action::Reply(Reply::RequestHeaders(head)));
        let bytes = edited.unwrap_or(bytes);
        if !trailers || !bytes.is_empty() {
            let reply = |content| Action::Reply(Reply::RequestBody(BodyReply { content, ..BodyReply::default() }));
            out.extend(split(bytes, !trailers, self.settings.reply_chunk).map(reply));
        }
    }

    fn response_headers(&mut self, out: &mut Vec<Action>) {
        // The gateway answered by itself: what was collected is of no use any more.
        if matches!(self.state, State::Begin | State::Collecting { .. }) {
            self.state = State::Gone;
            self.body = Vec::new();
            self.share.give_back();
        }
        let set_named = self.told.take().map(|told| (CLASSIFIER_HEADER.into(), told)).into_iter().collect();
        out.push(Action::Reply(Reply::ResponseHeaders(HeadReply { set_named, ..HeadReply::default() })));
    }

    fn refuse(&mut self, note: Note, refusal: &Refusal, out: &mut Vec<Action>) {
        out.push(Action::Note(note));
        out.push(Action::Reply(Reply::Immediate(immediate(refusal, ErrorPrefix::InferenceError))));
        self.state = State::Over;
        self.body = Vec::new();
        self.share.give_back();
        out.push(Action::End);
    }
}

/// 413: the body is longer than a body may be.
fn too_large(limit: usize) -> Refusal {
    let message = format!("request body is larger than {limit} bytes, the limit of body-based routing");
    Refusal { code: Code::PayloadTooLarge, message, reason: None, retry_after: None }
}

/// 503: too many bytes are being collected already.
fn full() -> Refusal {
    Refusal {
        code: Code::ServiceUnavailable,
        message: "too many bytes of requests are being read".into(),
        reason: None,
        retry_after: Some(1),
    }
}

#[cfg(test)]
mod tests;
