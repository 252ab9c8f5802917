//! Passes an answer on.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming as ServerBody};
use tokio::time::{Instant, timeout};

use super::metrics::ProxyMetrics;
use super::upstream::{Trouble, root};
use crate::conversation::Conversation;
use crate::exchange::{BodyReply, Chunk, Content, Incoming, Message, Reply};

/// An answer on its way to the client. Dropping it, as a client does that goes, ends the request.
pub(super) struct Relay {
    pub(super) conversation: Conversation,
    pub(super) body: ServerBody,
    /// How long the endpoint may say nothing.
    pub(super) patience: Duration,
    pub(super) metrics: ProxyMetrics,
}

impl Relay {
    /// The body as the client gets it: cut off where the endpoint's is.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(unfold(Some(self), |relay| async move {
            let mut relay = relay?;
            match relay.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(relay))),
                Ok(None) => None,
                Err(trouble) => {
                    relay.metrics.failed(&trouble);
                    tracing::debug!(%trouble, "an answer broke off");
                    Some((Err(io::Error::other(trouble.to_string())), None))
                }
            }
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            while let Some(reply) = self.conversation.reply() {
                if let Reply::ResponseBody(BodyReply { content: Content::Streamed { body, end }, .. }) = reply {
                    if !body.is_empty() {
                        return Ok(Some(body));
                    }
                    if end {
                        return Ok(None);
                    }
                }
            }
            if !self.conversation.in_flight() {
                // Its end was told together with its last piece.
                return Ok(None);
            }
            let frame = timeout(self.patience, self.body.frame()).await.map_err(|_elapsed| Trouble::TimedOut(self.patience))?;
            let chunk = match frame {
                None => Chunk { body: Vec::new(), end: true },
                Some(Err(error)) => return Err(Trouble::Broken(root(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    // Of an answer of known length nobody asks for more than that.
                    Ok(data) => Chunk { body: data.into(), end: self.body.is_end_stream() },
                    Err(_trailers) => continue,
                },
            };
            let message = Some(Message::ResponseBody(chunk));
            self.conversation.message(Incoming { message, ..Incoming::default() }, Instant::now());
        }
    }
}
