//! An exchange together with the director it asks: what both frontends drive.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exchange::{Action, Closed, Exchange, Incoming, Note, Reply};
use crate::frontend::{FrontendMetrics, Raised};
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
    ended: bool,
    _open: Raised,
}

impl Conversation {
    /// `open` counts it as long as it lasts.
    pub(crate) fn new(
        exchange: Exchange,
        director: Arc<dyn Director>,
        metrics: FrontendMetrics,
        leaving: CancellationToken,
        open: Raised,
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
            ended: false,
            _open: open,
        }
    }

    /// The next thing to say, after everything before it was carried out.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        self.next.extend(self.todo.drain(..));
        while let Some(action) = self.next.pop_front() {
            match action {
                Action::Reply(reply) => return Some(reply),
                Action::Direct(request) => {
                    self.streaming = request.streaming;
                    self.asked = Some((ask(Arc::clone(&self.director), *request), self.metrics.waiting()));
                }
                Action::Abandon => self.asked = None,
                Action::Refused { model, refusal } => self.director.refused(model.as_deref(), &refusal),
                Action::Note(note) => {
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
        let outcome = outcome.unwrap_or_else(|| {
            self.metrics.count(Note::DirectorFailed);
            tracing::error!("the director panicked over a request, answered 500");
            let message = "the picker failed over this request".into();
            Err(Refusal { code: crate::Code::Internal, message, reason: None, retry_after: None })
        });
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
