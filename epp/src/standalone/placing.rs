//! Reads a request until it is placed.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::{Instant, sleep_until};

use super::{ProxySettings, head};
use crate::conversation::Conversation;
use crate::exchange::{BodyReply, Chunk, Closed, Content, HeadReply, Immediate, Incoming, Message, Reply};

/// A request on its way to a pick.
pub(super) struct Placing {
    pub(super) conversation: Conversation,
    /// The body, as far as the client has not sent it; none once it has ended.
    rest: Option<Body>,
    pieces: Vec<Bytes>,
    head: Option<HeadReply>,
    /// Within what time each piece of the body is to come.
    idle: Duration,
    /// And all of it.
    whole_until: Instant,
}

/// What comes of it.
pub(super) enum Placed {
    /// It goes on, changed so.
    Picked(HeadReply, RequestBody),
    /// It is answered here.
    Answered(Immediate),
    /// The client broke off.
    Gone,
    /// It sends its body too slowly.
    Slow,
}

/// The body of a request that was placed.
pub(super) enum RequestBody {
    /// All of it: it can be sent again.
    Whole(Bytes),
    /// What came so far, and the rest as it comes.
    Passing(Bytes, Body),
}

impl Placing {
    pub(super) fn new(mut conversation: Conversation, parts: &http::request::Parts, body: Body, settings: &ProxySettings) -> Self {
        let end = body.is_end_stream();
        let message = Some(Message::RequestHeaders(head::of_request(parts, end)));
        let now = Instant::now();
        conversation.message(Incoming { message, ..Incoming::default() }, now);
        let (idle, whole_until) = (settings.body_idle, now + settings.body_whole);
        Self { conversation, rest: (!end).then_some(body), pieces: Vec::new(), head: None, idle, whole_until }
    }

    /// Goes on until it is placed. May be dropped and called again.
    pub(super) async fn run(&mut self) -> Placed {
        loop {
            while let Some(reply) = self.conversation.reply() {
                match reply {
                    Reply::RequestHeaders(changed) => self.head = Some(changed),
                    Reply::RequestBody(BodyReply { content: Content::Streamed { body, .. }, .. }) => self.pieces.push(body),
                    Reply::Immediate(answer) => return Placed::Answered(answer),
                    _ => {}
                }
            }
            if let Some(changed) = self.head.take() {
                return Placed::Picked(changed, self.body());
            }
            if self.conversation.is_over() {
                return Placed::Gone;
            }
            let Self { conversation, rest, .. } = self;
            let until = self.whole_until.min(Instant::now() + self.idle);
            // Where the director thinks already, only the client's own request waits for its body.
            let collecting = rest.is_some() && !conversation.is_waiting();
            let frame = async {
                match rest {
                    Some(body) => body.frame().await,
                    None => std::future::pending().await,
                }
            };
            let slow = async { if collecting { sleep_until(until).await } else { std::future::pending().await } };
            let frame = tokio::select! {
                biased;
                outcome = conversation.decision() => {
                    conversation.decided(outcome);
                    continue;
                }
                frame = frame => frame,
                () = slow => {
                    self.conversation.closed(Closed::Reset, Instant::now());
                    return Placed::Slow;
                }
            };
            let chunk = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Chunk { body: data.into(), end: false },
                    // Trailers end a body, and say nothing that a model server reads.
                    Err(_trailers) => continue,
                },
                None => {
                    self.rest = None;
                    Chunk { body: Vec::new(), end: true }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a request's body broke off");
                    self.rest = None;
                    self.conversation.closed(Closed::Reset, Instant::now());
                    continue;
                }
            };
            let message = Some(Message::RequestBody(chunk));
            self.conversation.message(Incoming { message, ..Incoming::default() }, Instant::now());
        }
    }

    fn body(&mut self) -> RequestBody {
        let mut pieces = std::mem::take(&mut self.pieces);
        let together = match pieces.len() {
            0 => Bytes::new(),
            1 => pieces.swap_remove(0),
            _ => pieces
                .into_iter()
                .fold(BytesMut::new(), |mut all, piece| {
                    all.extend_from_slice(&piece);
                    all
                })
                .freeze(),
        };
        match self.rest.take() {
            None => RequestBody::Whole(together),
            Some(rest) => RequestBody::Passing(together, rest),
        }
    }
}
