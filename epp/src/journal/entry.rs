//! All that is known of one request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weir_traces::RequestSpan;

use super::trail::{Steps, Trail};
use super::{Door, Journal};
use crate::exchange::{Head, Immediate, Note};
use crate::{Api, Failure, InferenceRequest, Pick, Refusal, Ticket, Usage};

/// What comes from outside is told no further than this.
const LONGEST: usize = 256;
/// The header that takes part in a trace.
const TRACEPARENT: &str = "traceparent";
/// Says why a request was dropped.
const REASON: &str = "x-llm-d-request-dropped-reason";

/// One request, from its head to its end; told when it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    journal: Arc<Journal>,
    pub(super) door: Door,
    pub(super) began: Instant,
    wall: SystemTime,
    span: Option<RequestSpan>,
    /// Of a client whose trace goes by without spans of ours.
    clients_trace: Option<String>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) request: Option<Asked>,
    trail: Option<Arc<Trail>>,
    /// When the director answered.
    pub(super) decided: Option<Instant>,
    pub(super) response: Arc<Mutex<Answer>>,
    /// How it ended where not as it should.
    pub(super) reason: Option<String>,
}

/// What a request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    pub(super) id: String,
    pub(super) api: Api,
    pub(super) model: Option<String>,
    pub(super) objective: Option<String>,
    pub(super) flow: Option<String>,
    pub(super) bytes: usize,
    pub(super) streaming: bool,
}

/// What it gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) status: Option<u16>,
    pub(super) first_bytes: Option<Instant>,
    pub(super) bytes: usize,
    pub(super) usage: Option<Usage>,
    pub(super) completed: Option<Instant>,
    pub(super) failure: Option<Failure>,
}

/// Everything, at its end.
pub(super) struct Told<'a> {
    pub(super) entry: &'a Entry,
    pub(super) steps: Steps,
    pub(super) answer: Answer,
    pub(super) ended: Instant,
    pub(super) trace_id: Option<String>,
}

impl Entry {
    pub(super) fn new(journal: Arc<Journal>, door: Door, began: Instant, wall: SystemTime) -> Self {
        Self {
            journal,
            door,
            began,
            wall,
            span: None,
            clients_trace: None,
            method: String::new(),
            path: String::new(),
            request: None,
            trail: None,
            decided: None,
            response: Arc::default(),
            reason: None,
        }
    }

    /// The request's head came.
    pub(crate) fn head(&mut self, head: &Head) {
        let text = |name: &str| head.get(name).and_then(|value| std::str::from_utf8(value).ok());
        self.method = short(text(":method").unwrap_or_default());
        // What follows may be anybody's secret.
        let path = text(":path").unwrap_or_default();
        self.path = short(path.split('?').next().unwrap_or_default());
        match &self.journal.tracer {
            Some(tracer) => self.span = Some(tracer.request(super::spans::REQUEST, &text, self.wall)),
            None => self.clients_trace = text(TRACEPARENT).and_then(trace_of).map(str::to_owned),
        }
    }

    /// The director is asked.
    pub(crate) fn asked(&mut self, request: &mut InferenceRequest) {
        let kept = |text: &Option<Arc<str>>| text.as_deref().map(short);
        self.request = Some(Asked {
            at: Instant::now(),
            id: short(&request.id),
            api: request.api,
            model: kept(&request.model),
            objective: kept(&request.objective),
            flow: kept(&request.fairness),
            bytes: request.body_bytes,
            streaming: request.streaming,
        });
        let sampled = self.span.as_ref().is_some_and(RequestSpan::is_recorded);
        if sampled || self.journal.access_log.is_some() {
            let trail = Arc::new(Trail::new(sampled));
            self.trail = Some(trail.clone());
            request.trail = Some(trail);
        }
    }

    /// The director answered. What is picked is to say whose trace it belongs to.
    pub(crate) fn decided(&mut self, outcome: &mut Result<Pick, Refusal>) {
        self.decided = Some(Instant::now());
        let Ok(pick) = outcome else { return };
        if let Some(value) = self.span.as_ref().and_then(RequestSpan::traceparent) {
            pick.request_headers.push((TRACEPARENT, Some(value)));
        }
        self.answer(|answer| answer.endpoint = pick.endpoints.first().copied());
        let told: Box<dyn Ticket> = Box::new(crate::NoTicket);
        let ticket = std::mem::replace(&mut pick.ticket, told);
        pick.ticket = Box::new(Noting { ticket, answer: self.response.clone() });
    }

    /// It is answered here.
    pub(crate) fn answered(&mut self, told: &Immediate) {
        self.answer(|answer| answer.status = Some(told.status));
        let reason = told.headers.iter().find(|(name, _)| *name == REASON).map(|(_, reason)| reason.as_str());
        self.reason = Some(reason.unwrap_or(told.details).to_owned());
    }

    /// Something is not as it should be.
    pub(crate) fn note(&mut self, note: Note) {
        if matches!(note, Note::GoneBeforePick | Note::GoneBeforeResponse | Note::GoneInResponse | Note::GatewayGaveUp) {
            self.reason.get_or_insert_with(|| note.label().to_owned());
        }
    }

    fn answer(&self, note: impl FnOnce(&mut Answer)) {
        note(&mut self.response.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The moment by the wall.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.began)
    }
}

impl Told<'_> {
    /// How it ended where not as it should.
    pub(super) fn reason(&self) -> Option<&str> {
        let failure = self.answer.failure.map(|failure| match failure {
            Failure::Unreached => "unreached",
            Failure::TimedOut => "timed_out",
            Failure::Elsewhere => "gateway",
        });
        failure.or(self.entry.reason.as_deref())
    }

    /// How long it waited for its turn.
    pub(super) fn waited(&self) -> Duration {
        self.steps.waited.map_or(Duration::ZERO, |(since, until)| until.unwrap_or(self.ended).saturating_duration_since(since))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A stream without a request is none.
        if self.method.is_empty() && self.path.is_empty() && self.request.is_none() {
            return;
        }
        let answer = self.response.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ended = answer.completed.unwrap_or_else(Instant::now);
        let steps = self.trail.as_ref().map(|trail| trail.steps()).unwrap_or_default();
        let span = self.span.take();
        let trace_id = span.as_ref().map(RequestSpan::trace_id).or_else(|| self.clients_trace.take());
        let told = Told { entry: self, steps, answer, ended, trace_id };
        if let Some(log) = &self.journal.access_log {
            log.write(super::line::of(&told, self.wall));
        }
        if let Some(span) = span.filter(RequestSpan::is_recorded) {
            super::spans::end(span, &told);
        }
    }
}

/// The trace of a `traceparent`, as far as it looks like one.
fn trace_of(header: &str) -> Option<&str> {
    let trace = header.split('-').nth(1)?;
    (trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(trace)
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// Notes what a ticket is told, and tells it.
#[derive(Debug)]
struct Noting {
    ticket: Box<dyn Ticket>,
    answer: Arc<Mutex<Answer>>,
}

impl Noting {
    fn note(&self, note: impl FnOnce(&mut Answer)) {
        note(&mut self.answer.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Ticket for Noting {
    fn served_by(&mut self, endpoint: SocketAddr) {
        self.note(|answer| answer.endpoint = Some(endpoint));
        self.ticket.served_by(endpoint);
    }

    fn response_started(&mut self, status: u16, at: Instant) {
        self.note(|answer| answer.status = Some(status));
        self.ticket.response_started(status, at);
    }

    fn gateway_answered(&mut self, status: u16, why: Failure, at: Instant) {
        self.note(|answer| (answer.status, answer.failure) = (Some(status), Some(why)));
        self.ticket.gateway_answered(status, why, at);
    }

    fn response_bytes(&mut self, bytes: usize, at: Instant) {
        self.note(|answer| {
            if bytes > 0 {
                answer.first_bytes.get_or_insert(at);
            }
            answer.bytes = answer.bytes.saturating_add(bytes);
        });
        self.ticket.response_bytes(bytes, at);
    }

    fn usage(&mut self, usage: Usage) {
        self.note(|answer| answer.usage = Some(usage));
        self.ticket.usage(usage);
    }

    fn completed(&mut self, at: Instant) {
        self.note(|answer| answer.completed = Some(at));
        self.ticket.completed(at);
    }
}
