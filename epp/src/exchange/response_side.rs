//! From the response's head to its end.

use std::net::SocketAddr;
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use weir_ext_proc::split;

use super::machine::{Exchange, Origin, RequestState, ResponseState};
use super::{Action, BodyMode, BodyReply, Chunk, Content, Head, HeadReply, Note, Reply, Served};
use crate::Failure;
use crate::request::Route;
use crate::response::{Attribute, Framing, ResponseBody};

/// Tells that the picker saw the response, as the Go picker's does.
const SEEN: &str = "x-went-into-resp-headers";
/// Tells who served, for conformance tests.
const VERIFIER: &str = "x-conformance-test-served-endpoint";
const SWITCHING_PROTOCOLS: u16 = 101;

impl Exchange {
    pub(super) fn response_headers(&mut self, head: &Head, origin: Origin, now: Instant, out: &mut Vec<Action>) {
        let served = &origin.served;
        match &self.request {
            RequestState::Waiting(_) => out.extend([Action::Abandon, Action::Note(Note::GatewayGaveUp)]),
            RequestState::Collecting { .. } => out.push(Action::Note(Note::GatewayGaveUp)),
            _ => {}
        }
        // What was collected is of no use any more; what passes piece by piece may go on beside the response.
        if !matches!(self.request, RequestState::Passing) {
            self.request = RequestState::Gone;
        }
        self.body = Vec::new();
        self.pieces.clear();
        self.share.give_back();
        if !matches!(self.response, ResponseState::Begin) {
            out.push(Action::Note(Note::Unexpected));
        }
        let status = [":status", "status"].into_iter().find_map(|name| number(head.get(name)?));
        let mut set = vec![(SEEN, "true".to_owned())];
        if self.settings.served_verifier {
            let told = match served {
                Served::NoMetadata => "fail: missing envoy lb metadata",
                Served::NoKey => "fail: missing destination endpoint served metadata",
                Served::By(endpoint) => endpoint,
            };
            set.push((VERIFIER, told.to_owned()));
        }
        self.note_served(served, origin.upstream_address.as_deref(), out);
        let mut set_named = self.picked.as_mut().map(|picked| std::mem::take(&mut picked.response_headers)).unwrap_or_default();
        if let (Some(name), Some(picked)) = (&self.settings.served_header, &self.picked) {
            let endpoint =
                told_address(served, origin.upstream_address.as_deref()).and_then(|told| told.parse::<SocketAddr>().ok());
            // A gateway that does not tell follows the pick.
            if let Some(endpoint) = endpoint.or_else(|| picked.endpoints.first().copied()) {
                let called = picked.ticket.served_name().map(|called| format!(" {called}")).unwrap_or_default();
                set_named.push((Arc::clone(name), format!("{endpoint}{called}")));
            }
        }
        let mut body = ResponseBody::new(Framing::Opaque, None);
        let mut remove = Vec::new();
        if let Some(picked) = &mut self.picked {
            match (status, origin.code_details.as_deref().and_then(failure)) {
                (Some(status), None) => picked.ticket.response_started(status, now),
                (Some(status), Some(why)) => picked.ticket.gateway_answered(status, why, now),
                (None, _) => {}
            }
            let framing = match (status, self.head.as_ref().map(|(head, _)| head.route)) {
                (Some(SWITCHING_PROTOCOLS), _) | (_, Some(Route::Raw)) => Framing::Opaque,
                (_, Some(Route::Grpc(method))) => Framing::Frames(method),
                _ => Framing::of(head.get("content-type"), head.get("content-encoding"), picked.streaming),
            };
            let model_back = if framing == Framing::Opaque { None } else { picked.model_back.take() };
            if model_back.is_some() {
                remove.push("content-length");
            }
            body = ResponseBody::new(framing, model_back);
        }
        self.response = ResponseState::Following(Box::new(body));
        out.push(Action::Reply(Reply::ResponseHeaders(HeadReply { set, set_named, remove, ..HeadReply::default() })));
        if head.end {
            self.completed(now);
        }
    }

    pub(super) fn response_body(&mut self, chunk: Chunk, mode: BodyMode, now: Instant, out: &mut Vec<Action>) {
        if let Some(picked) = self.picked.as_mut().filter(|_| !chunk.body.is_empty()) {
            picked.ticket.response_bytes(chunk.body.len(), now);
        }
        let duplex = mode == BodyMode::FullDuplex;
        let mut passed = chunk.body;
        let mut replaces = false;
        if let ResponseState::Following(body) = &mut self.response {
            replaces = body.replaces();
            passed = body.pass(passed);
            // A buffered body is whole even if trailers follow.
            if chunk.end || mode == BodyMode::Buffered {
                passed.append(&mut body.rest());
            }
        } else {
            out.push(Action::Note(Note::Unexpected));
        }
        let reply = |content| Action::Reply(Reply::ResponseBody(BodyReply { content, ..BodyReply::default() }));
        if duplex {
            out.extend(split(passed.into(), chunk.end, self.settings.reply_chunk).map(reply));
        } else {
            out.push(reply(if replaces { Content::Replaced(passed.into()) } else { Content::Unchanged }));
        }
        if chunk.end
            && let Some(Action::Reply(Reply::ResponseBody(last))) = out.last_mut()
        {
            last.attributes = self.attributes();
        }
        if chunk.end {
            self.completed(now);
        }
    }

    pub(super) fn response_trailers(&mut self, mode: BodyMode, now: Instant, out: &mut Vec<Action>) {
        if let ResponseState::Following(body) = &mut self.response {
            let rest = Bytes::from(body.rest());
            if mode == BodyMode::FullDuplex && !rest.is_empty() {
                let content = Content::Streamed { body: rest, end: false };
                out.push(Action::Reply(Reply::ResponseBody(BodyReply { content, ..BodyReply::default() })));
            }
        }
        out.push(Action::Reply(Reply::ResponseTrailers(self.attributes())));
        self.completed(now);
    }

    /// The stream ended within the response.
    pub(super) fn cut_short(&mut self, now: Instant) -> Option<Note> {
        // Without its body the response's end is not told: the stream's end is it.
        if self.modes.is_some_and(|modes| modes.response == BodyMode::None) {
            self.completed(now);
            return None;
        }
        self.tell_usage();
        Some(Note::GoneInResponse)
    }

    fn completed(&mut self, now: Instant) {
        self.tell_usage();
        if let Some(mut picked) = self.picked.take() {
            picked.ticket.completed(now);
        }
        self.response = ResponseState::Ended;
    }

    /// What the gateway is told of a response that has come whole.
    fn attributes(&self) -> Vec<Attribute> {
        let (ResponseState::Following(body), Some(_)) = (&self.response, &self.picked) else { return Vec::new() };
        self.settings.reporters.iter().filter_map(|reporter| reporter.report(body.usage())).collect()
    }

    fn tell_usage(&mut self) {
        if let (ResponseState::Following(body), Some(picked)) = (&self.response, &mut self.picked)
            && let Some(usage) = body.usage()
        {
            picked.ticket.usage(usage);
        }
    }

    fn note_served(&mut self, served: &Served, upstream: Option<&str>, out: &mut Vec<Action>) {
        let Some(picked) = &mut self.picked else { return };
        let Some(told) = told_address(served, upstream) else { return };
        match told.parse::<SocketAddr>() {
            Ok(endpoint) => {
                if !picked.endpoints.contains(&endpoint) {
                    out.push(Action::Note(Note::ServedElsewhere));
                }
                if picked.endpoints.first() != Some(&endpoint) {
                    // They speak of the one that was passed over.
                    picked.response_headers.clear();
                }
                picked.ticket.served_by(endpoint);
            }
            Err(_) => out.push(Action::Note(Note::ServedUnreadable)),
        }
    }
}

/// Who served, as the gateway tells.
fn told_address<'a>(served: &'a Served, upstream: Option<&'a str>) -> Option<&'a str> {
    let told = match served {
        Served::By(endpoint) => Some(endpoint.as_str()),
        Served::NoMetadata | Served::NoKey => upstream,
    };
    told.filter(|told| !told.is_empty())
}

/// Why the gateway answered by itself, by Envoy's details of a response; nothing where the server did.
fn failure(details: &str) -> Option<Failure> {
    const RESET: &str = "upstream_reset_before_response_started";
    match details {
        "" | "via_upstream" => None,
        // Its own limit of requests at a time.
        _ if details.starts_with(RESET) && details[RESET.len()..].starts_with("{overflow") => Some(Failure::Elsewhere),
        _ if details.starts_with(RESET) => Some(Failure::Unreached),
        _ if details.starts_with("upstream_response_timeout")
            || details.starts_with("upstream_per_try_")
            || details.starts_with("upstream_max_stream_duration") =>
        {
            Some(Failure::TimedOut)
        }
        _ => Some(Failure::Elsewhere),
    }
}

fn number(value: &[u8]) -> Option<u16> {
    str::from_utf8(value).ok()?.trim().parse().ok()
}
