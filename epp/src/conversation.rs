//! An exchange together with the director it asks: what both frontends drive.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Action, Closed, Exchange, Incoming, Message, Note, Reply};
use crate::frontend::{FrontendMetrics, Raised};
use crate::journal::Entry;
use crate::request::shutting_down;
use crate::{Director, InferenceRequest, Pick, Refusal};

type Answer = Pin<Box<dyn Future<Output = Option<Result<Pick, Refusal>>> + Send>>;

/// One request's exchange. Dropping it gives up what was asked and ends the request.
pub(crate) struct Conversation {
    exchange: Exchange,
    todo: Vec<Action>,
    next: VecDeque<Action>,
    asked: Option<(Answer, Raised)>,
    director: Arc<dyn Director>,
    metrics: FrontendMetrics,
    /// Cancelled once nothing is to wait any more.
    leaving: CancellationToken,
    streaming: bool,
    /// What the request is called, once that is known.
    id: Option<Arc<str>>,
    /// What was asked, kept so that it can be asked for others.
    kept: Option<Box<InferenceRequest>>,
    keeps: bool,
    ended: bool,
    /// What is told of it, if anything is.
    entry: Option<Box<Entry>>,
    _open: Raised,
}

impl Conversation {
    /// `open` counts it as long as it lasts; `entry` tells of it at its end.
    pub(crate) fn new(
        exchange: Exchange,
        director: Arc<dyn Director>,
        metrics: FrontendMetrics,
        leaving: CancellationToken,
        open: Raised,
        entry: Option<Box<Entry>>,
    ) -> Self {
        Self {
            exchange,
            todo: Vec::new(),
            next: VecDeque::new(),
            asked: None,
            director,
            metrics,
            leaving,
            streaming: false,
            id: None,
            kept: None,
            keeps: false,
            ended: false,
            entry,
            _open: open,
        }
    }

    /// The next thing to say, after everything before it was carried out.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        self.next.extend(self.todo.drain(..));
        while let Some(action) = self.next.pop_front() {
            match action {
                Action::Reply(reply) => {
                    if let (Some(entry), Reply::Immediate(answer)) = (&mut self.entry, &reply) {
                        entry.answered(answer);
                    }
                    return Some(reply);
                }
                Action::Direct(mut request) => {
                    if let Some(entry) = &mut self.entry {
                        entry.asked(&mut request);
                    }
                    self.streaming = request.streaming;
                    self.id = Some(request.id.clone());
                    self.kept = self.keeps.then(|| request.clone());
                    self.asked = Some((ask(Arc::clone(&self.director), *request), self.metrics.waiting()));
                }
                Action::Abandon => self.asked = None,
                Action::Refused { model, refusal } => self.director.refused(model.as_deref(), &refusal),
                Action::Note(note) => {
                    if let Some(entry) = &mut self.entry {
                        entry.note(note);
                    }
                    // Said once: the metric tells how often.
                    if self.metrics.count(note) && note == Note::ServedElsewhere {
                        tracing::warn!("an endpoint served that was not picked: does another pool's route call this picker?");
                    }
                }
                Action::End => self.ended = true,
            }
        }
        None
    }

    /// Whether nothing more is to be said.
    pub(crate) fn is_over(&self) -> bool {
        self.ended
    }

    /// Whether the director's answer is waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// What was asked is kept, for [`Self::instead`].
    pub(crate) fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// `x-request-id`, given or made; none of a request whose body was not read.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Further endpoints for a request that was placed, of which all that were picked are `unreached`.
    pub(crate) fn instead(&mut self, unreached: &[SocketAddr]) -> Vec<SocketAddr> {
        let Some(request) = self.kept.as_deref() else { return Vec::new() };
        let director = &self.director;
        let Ok(mut others) = catch_unwind(AssertUnwindSafe(|| director.instead(request, unreached))) else {
            self.metrics.count(Note::DirectorFailed);
            return Vec::new();
        };
        others.retain(|endpoint| !unreached.contains(endpoint));
        self.exchange.also_picked(&others);
        others
    }

    /// Whether the request asks for a streamed answer, as far as it is known.
    pub(crate) fn streaming(&self) -> bool {
        self.streaming
    }

    /// Whether the request counts as in flight.
    pub(crate) fn in_flight(&self) -> bool {
        self.exchange.in_flight()
    }

    /// What was said to it.
    pub(crate) fn message(&mut self, incoming: Incoming, now: Instant) {
        if let (Some(entry), Some(Message::RequestHeaders(head))) = (&mut self.entry, &incoming.message) {
            entry.head(head);
        }
        self.exchange.message(incoming, now, &mut self.todo);
    }

    /// The other side ended.
    pub(crate) fn closed(&mut self, how: Closed, now: Instant) {
        self.exchange.closed(how, now, &mut self.todo);
    }

    /// Nothing was said for too long.
    pub(crate) fn silent(&mut self) {
        self.exchange.silent(&mut self.todo);
    }

    /// What the director answers, or that the picker ends; waits for ever where nothing was asked. Dropping it loses nothing.
    pub(crate) async fn decision(&mut self) -> Option<Result<Pick, Refusal>> {
        let Some((answer, _)) = &mut self.asked else { return pending().await };
        // An answer that is there counts, even if everything ends.
        tokio::select! {
            biased;
            outcome = answer => outcome,
            () = self.leaving.cancelled() => Some(Err(shutting_down())),
        }
    }

    /// The director answered.
    pub(crate) fn decided(&mut self, outcome: Option<Result<Pick, Refusal>>) {
        self.asked = None;
        let mut outcome = outcome.unwrap_or_else(|| {
            self.metrics.count(Note::DirectorFailed);
            tracing::error!("the director panicked over a request, answered 500");
            let message = "the picker failed over this request".into();
            Err(Refusal { code: crate::Code::Internal, message, reason: None, retry_after: None })
        });
        if let Some(entry) = &mut self.entry {
            entry.decided(&mut outcome);
        }
        self.exchange.directed(outcome, &mut self.todo);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.exchange.closed(Closed::Reset, Instant::now(), &mut self.todo);
        for action in std::mem::take(&mut self.todo) {
            // There is nobody to reply to.
            if let Action::Note(note) = action {
                self.metrics.count(note);
                if let Some(entry) = &mut self.entry {
                    entry.note(note);
                }
            }
        }
    }
}

/// The director's answer; nothing if it panicked. A request must not end before its answer.
fn ask(director: Arc<dyn Director>, request: InferenceRequest) -> Answer {
    Box::pin(async move {
        let mut answer = match catch_unwind(AssertUnwindSafe(|| director.direct(request))) {
            Ok(answer) => answer,
            Err(_panic) => return None,
        };
        poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
            Err(_panic) => Poll::Ready(None),
        })
        .await
    })
}
