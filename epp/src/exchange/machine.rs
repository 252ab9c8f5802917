//! The state of an exchange, and which side a message belongs to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use weir_ext_proc::{Share, immediate};

use super::{Action, Budget, Chunk, Head, Incoming, Message, Modes, Note, Reply, Served, Settings};
use crate::request::{self, RequestBody, RequestHead};
use crate::response::{ModelBack, ResponseBody};
use crate::{NamedValue, NoTicket, Refusal, Subset, Ticket};

/// How a stream ended, from the gateway's side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// The gateway has said all it will; some still wait for an answer, for others the client is gone.
    HalfClosed,
    /// The stream was reset: the normal end with Envoy.
    Reset,
    /// A message was too long to be read; nothing can be read after it.
    Oversized,
}

/// One request's way through the picker.
#[derive(Debug)]
pub struct Exchange {
    pub(super) settings: Arc<Settings>,
    pub(super) random: u128,
    /// Told by the first message.
    pub(super) modes: Option<Modes>,
    pub(super) subset: Subset,
    pub(super) request: RequestState,
    pub(super) head: Option<(RequestHead, Instant)>,
    /// Headers that the director asks for.
    wanted: Arc<[Arc<str>]>,
    /// Those of them that came.
    pub(super) headers: Vec<NamedValue>,
    /// The body, as far as it came, where it is collected.
    pub(super) body: Vec<u8>,
    /// Pieces that came before the pick, where they are not collected.
    pub(super) pieces: VecDeque<Chunk>,
    pub(super) share: Share,
    /// Whether the request has come whole.
    pub(super) whole: bool,
    /// Whether trailers wait for their reply.
    pub(super) trailers: bool,
    /// Whether the gateway was asked for bodies.
    pub(super) asked_for_bodies: bool,
    /// Whether the gateway has half-closed and waits.
    pub(super) half_closed: bool,
    pub(super) picked: Option<Picked>,
    pub(super) response: ResponseState,
}

/// How far the request is.
#[derive(Debug)]
pub(super) enum RequestState {
    /// Nothing of it came.
    Begin,
    /// Its body is being collected.
    Collecting {
        /// The gateway sends it whole, and has an answer to its head already.
        buffered: bool,
    },
    /// The director is asked.
    Waiting(Wait),
    /// It has gone on; what still comes of the body passes piece by piece.
    Passing,
    /// It has gone on whole.
    Gone,
    /// The stream is over.
    Over,
}

/// How a pick is answered.
#[derive(Debug)]
pub(super) enum Wait {
    /// To the head; the body passes after it.
    Head,
    /// To the head, then with the body.
    Whole(RequestBody),
    /// To the body.
    Buffered(RequestBody),
}

/// What a pick leaves behind.
#[derive(Debug)]
pub(super) struct Picked {
    pub(super) endpoints: Vec<SocketAddr>,
    pub(super) ticket: Box<dyn Ticket>,
    pub(super) model_back: Option<ModelBack>,
    pub(super) streaming: bool,
    /// Headers that the response is to have where the first endpoint served.
    pub(super) response_headers: Vec<(Arc<str>, String)>,
}

/// Who made a response, as the gateway tells.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) served: Served,
    pub(super) upstream_address: Option<String>,
    pub(super) code_details: Option<String>,
}

/// How far the response is.
#[derive(Debug)]
pub(super) enum ResponseState {
    /// Nothing of it came.
    Begin,
    /// Its head came.
    Following(Box<ResponseBody>),
    /// It has ended.
    Ended,
}

impl Exchange {
    /// A new stream. `random` makes a request's id where it has none.
    pub fn new(settings: Arc<Settings>, budget: &Budget, random: u128) -> Self {
        Self {
            settings,
            random,
            modes: None,
            subset: Subset::All,
            request: RequestState::Begin,
            head: None,
            wanted: Arc::default(),
            headers: Vec::new(),
            body: Vec::new(),
            pieces: VecDeque::new(),
            share: budget.share(),
            whole: false,
            trailers: false,
            asked_for_bodies: false,
            half_closed: false,
            picked: None,
            response: ResponseState::Begin,
        }
    }

    /// The director is told the values of these headers of the request, `names` in lower case.
    pub fn wanting(self, names: Arc<[Arc<str>]>) -> Self {
        Self { wanted: names, ..self }
    }

    /// Reads the headers that the director asks for.
    pub(super) fn read_wanted(&mut self, head: &Head) -> Result<(), Refusal> {
        if !self.wanted.is_empty() {
            self.headers = request::named(head, &self.wanted)?;
        }
        Ok(())
    }

    /// A message of the gateway; what is to be done is added to `out`.
    pub fn message(&mut self, incoming: Incoming, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.request, RequestState::Over) {
            return;
        }
        let modes = *self.modes.get_or_insert(incoming.modes.unwrap_or(self.settings.untold_modes));
        if let Some(subset) = incoming.subset.filter(|_| self.settings.subset_filter) {
            self.subset = subset;
        }
        match incoming.message {
            None => out.push(Action::Note(Note::Unexpected)),
            Some(Message::RequestHeaders(head)) => self.request_headers(&head, modes.request, now, out),
            Some(Message::RequestBody(chunk)) => self.request_body(chunk, modes.request, out),
            Some(Message::RequestTrailers) => self.request_trailers(modes.request, out),
            Some(Message::ResponseHeaders(head)) => {
                let Incoming { served, upstream_address, code_details, .. } = incoming;
                self.response_headers(&head, Origin { served, upstream_address, code_details }, now, out);
            }
            Some(Message::ResponseBody(chunk)) => self.response_body(chunk, modes.response, now, out),
            Some(Message::ResponseTrailers) => self.response_trailers(modes.response, now, out),
        }
    }

    /// These may serve as well as those that were picked.
    pub(crate) fn also_picked(&mut self, endpoints: &[SocketAddr]) {
        if let Some(picked) = &mut self.picked {
            picked.endpoints.extend_from_slice(endpoints);
        }
    }

    /// Whether the request counts as in flight.
    pub fn in_flight(&self) -> bool {
        self.picked.is_some()
    }

    /// The gateway has said nothing since the pick for as long as [`Settings::silence`]: whatever comes, it is not told any more.
    pub fn silent(&mut self, out: &mut Vec<Action>) {
        if let Some(picked) = &mut self.picked {
            picked.ticket = Box::new(NoTicket);
            out.push(Action::Note(Note::Silent));
        }
    }

    /// The gateway's side of the stream ended; what is to be done is added to `out`.
    pub fn closed(&mut self, how: Closed, now: Instant, out: &mut Vec<Action>) {
        let waiting = matches!(self.request, RequestState::Waiting(_));
        let has_method = self.head.as_ref().is_some_and(|(head, _)| head.has_method);
        match how {
            _ if matches!(self.request, RequestState::Over) => return,
            // A gateway without pseudo-headers says so that it has told all; others, that the client is gone.
            Closed::HalfClosed if waiting && self.whole && !has_method => {
                self.half_closed = true;
                return;
            }
            Closed::Oversized if !matches!(self.request, RequestState::Passing | RequestState::Gone) => {
                return self.refuse(&request::too_large(self.settings.request_bytes), out);
            }
            Closed::Oversized => out.push(Action::Note(Note::Unexpected)),
            Closed::HalfClosed | Closed::Reset => {}
        }
        if waiting {
            out.push(Action::Abandon);
        }
        let note = match (&self.request, &self.response) {
            (RequestState::Collecting { .. } | RequestState::Waiting(_), _) => Some(Note::GoneBeforePick),
            (_, ResponseState::Begin) if has_method && self.picked.is_some() => Some(Note::GoneBeforeResponse),
            (_, ResponseState::Following(_)) => self.cut_short(now),
            _ => None,
        };
        out.extend(note.map(Action::Note));
        self.end(out);
    }

    /// Answers the request here. The director is told, who did not see it or lost it.
    pub(super) fn refuse(&mut self, refusal: &Refusal, out: &mut Vec<Action>) {
        if matches!(self.request, RequestState::Waiting(_)) {
            out.push(Action::Abandon);
        }
        let model = match &self.request {
            RequestState::Waiting(Wait::Whole(body) | Wait::Buffered(body)) => body.model.clone(),
            _ => None,
        };
        out.push(Action::Refused { model, refusal: refusal.clone() });
        self.answer(refusal, out);
    }

    /// Answers the request with a refusal.
    pub(super) fn answer(&mut self, refusal: &Refusal, out: &mut Vec<Action>) {
        out.push(Action::Reply(Reply::Immediate(immediate(refusal, self.settings.error_prefix))));
        self.end(out);
    }

    /// Nothing more is said or kept.
    pub(super) fn end(&mut self, out: &mut Vec<Action>) {
        self.request = RequestState::Over;
        self.picked = None;
        self.body = Vec::new();
        self.pieces = VecDeque::new();
        self.share.give_back();
        out.push(Action::End);
    }
}
