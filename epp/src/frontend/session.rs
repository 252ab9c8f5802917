//! One stream: reads the gateway while the director thinks, and says what the exchange says.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::{Code, Streaming};
use weir_ext_proc::protocol::{ProcessingRequest, ProcessingResponse, incoming, outgoing};

use crate::conversation::Conversation;
use crate::exchange::Closed;

/// A stream's state. Dropping it, as a reset does, gives up what was asked and ends the request.
pub(super) struct Session {
    inbound: Option<Streaming<ProcessingRequest>>,
    conversation: Conversation,
    /// When the gateway said something last, and for how long it may say nothing; none once it did.
    heard: Instant,
    silence: Option<Duration>,
}

impl Session {
    pub(super) fn new(inbound: Streaming<ProcessingRequest>, conversation: Conversation, silence: Duration) -> Self {
        Self { inbound: Some(inbound), conversation, heard: Instant::now(), silence: Some(silence) }
    }

    /// The next message to the gateway; nothing once the stream is to end.
    pub(super) async fn next(&mut self) -> Option<ProcessingResponse> {
        loop {
            if let Some(reply) = self.conversation.reply() {
                return Some(outgoing(reply));
            }
            if self.conversation.is_over() || (self.inbound.is_none() && !self.conversation.is_waiting()) {
                return None;
            }
            self.happen().await;
        }
    }

    /// Waits for whatever comes first, and hands it to the exchange.
    async fn happen(&mut self) {
        let silence = self.silence.filter(|_| self.conversation.in_flight()).map(|silence| self.heard + silence);
        let Self { inbound, conversation, .. } = self;
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
        // An answer that is there counts, even if the client has gone meanwhile.
        let message = tokio::select! {
            biased;
            outcome = conversation.decision() => return conversation.decided(outcome),
            message = message => message,
            () = silent => {
                self.silence = None;
                return conversation.silent();
            }
        };
        let now = Instant::now();
        self.heard = now;
        let closed = match message {
            Ok(Some(message)) => return self.conversation.message(incoming(message), now),
            Ok(None) => Closed::HalfClosed,
            Err(status) if status.code() == Code::OutOfRange => {
                tracing::debug!(%status, "a gateway's message is longer than a request's body may be");
                Closed::Oversized
            }
            // Envoy ends every stream so.
            Err(_) => Closed::Reset,
        };
        self.inbound = None;
        self.conversation.closed(closed, now);
    }
}
