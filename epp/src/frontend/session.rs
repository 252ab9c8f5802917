//! One stream: reads the gateway while the director thinks, and says what the exchange says.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};

use super::metrics::{FrontendMetrics, Raised};
use super::protocol::{ProcessingRequest, ProcessingResponse, incoming, outgoing};
use crate::exchange::{Action, Closed, Exchange, Note};
use crate::request::shutting_down;
use crate::{Director, InferenceRequest, Pick, Refusal};

type Answer = Pin<Box<dyn Future<Output = Option<Result<Pick, Refusal>>> + Send>>;

/// A stream's state. Dropping it, as a reset does, gives up what was asked and ends the request.
pub(super) struct Session {
    inbound: Option<Streaming<ProcessingRequest>>,
    exchange: Exchange,
    todo: Vec<Action>,
    next: VecDeque<Action>,
    asked: Option<(Answer, Raised)>,
    director: Arc<dyn Director>,
    metrics: FrontendMetrics,
    /// Cancelled once nothing is to wait any more.
    leaving: CancellationToken,
    ended: bool,
    /// When the gateway said something last, and for how long it may say nothing; none once it did.
    heard: Instant,
    silence: Option<Duration>,
    _open: Raised,
}

impl Session {
    pub(super) fn new(
        inbound: Streaming<ProcessingRequest>,
        exchange: Exchange,
        director: Arc<dyn Director>,
        metrics: FrontendMetrics,
        leaving: CancellationToken,
        silence: Duration,
        open: Raised,
    ) -> Self {
        Self {
            inbound: Some(inbound),
            exchange,
            todo: Vec::new(),
            next: VecDeque::new(),
            asked: None,
            director,
            _open: open,
            metrics,
            leaving,
            ended: false,
            heard: Instant::now(),
            silence: Some(silence),
        }
    }

    /// The next message to the gateway; nothing once the stream is to end.
    pub(super) async fn next(&mut self) -> Option<ProcessingResponse> {
        loop {
            while let Some(action) = self.next.pop_front() {
                if let Some(reply) = self.carry_out(action) {
                    return Some(reply);
                }
            }
            if self.ended || (self.inbound.is_none() && self.asked.is_none()) {
                return None;
            }
            self.happen().await;
            self.next.extend(self.todo.drain(..));
        }
    }

    /// Waits for whatever comes first, and hands it to the exchange.
    async fn happen(&mut self) {
        let silence = self.silence.filter(|_| self.exchange.in_flight()).map(|silence| self.heard + silence);
        let Self { inbound, asked, .. } = self;
        let waiting = asked.is_some();
        let answer = async {
            match asked {
                Some((answer, _)) => answer.await,
                None => pending().await,
            }
        };
        let message = async {
            match inbound {
                Some(inbound) => inbound.message().await,
                None => pending().await,
            }
        };
        let silent = async {
            match silence {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        // An answer that is there counts, even if the client has gone meanwhile or everything ends.
        let message = tokio::select! {
            biased;
            outcome = answer => return self.answered(outcome),
            () = self.leaving.cancelled(), if waiting => return self.answered(Some(Err(shutting_down()))),
            message = message => message,
            () = silent => {
                self.silence = None;
                return self.exchange.silent(&mut self.todo);
            }
        };
        let now = Instant::now();
        self.heard = now;
        let closed = match message {
            Ok(Some(message)) => return self.exchange.message(incoming(message), now, &mut self.todo),
            Ok(None) => Closed::HalfClosed,
            Err(status) if status.code() == Code::OutOfRange => {
                tracing::debug!(%status, "a gateway's message is longer than a request's body may be");
                Closed::Oversized
            }
            // Envoy ends every stream so.
            Err(_) => Closed::Reset,
        };
        self.inbound = None;
        self.exchange.closed(closed, now, &mut self.todo);
    }

    fn answered(&mut self, outcome: Option<Result<Pick, Refusal>>) {
        self.asked = None;
        let outcome = outcome.unwrap_or_else(|| {
            self.metrics.count(Note::DirectorFailed);
            tracing::error!("the director panicked over a request, answered 500");
            let message = "the picker failed over this request".into();
            Err(Refusal { code: crate::Code::Internal, message, reason: None, retry_after: None })
        });
        self.exchange.directed(outcome, &mut self.todo);
    }

    fn carry_out(&mut self, action: Action) -> Option<ProcessingResponse> {
        match action {
            Action::Reply(reply) => return Some(outgoing(reply)),
            Action::Direct(request) => self.asked = Some((ask(Arc::clone(&self.director), *request), self.metrics.waiting())),
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
        None
    }
}

impl Drop for Session {
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

/// The director's answer; nothing if it panicked. A stream must not end before its answer.
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
