//! Counts of tokens in the frames of a gRPC response, which come cut anywhere.

use prost::Message;

use super::body::{Framing, ResponseBody};
use super::usage::Counts;
use crate::request::{FRAME_HEADER, HttpBody, Method};

/// A message longer than this is passed over: about 85,000 tokens in one, or an embedding of 65,000 numbers.
const MAX_MESSAGE: usize = 256 << 10;

/// `GenerateResponse` of vLLM: one of the two is there.
#[derive(Clone, PartialEq, Message)]
struct GenerateResponse {
    #[prost(message, optional, tag = "1")]
    chunk: Option<StreamChunk>,
    #[prost(message, optional, tag = "2")]
    complete: Option<Complete>,
}

/// `GenerateStreamChunk`
#[derive(Clone, Copy, PartialEq, Message)]
struct StreamChunk {
    #[prost(uint32, tag = "2")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "3")]
    completion_tokens: u32,
    #[prost(uint32, tag = "4")]
    cached_tokens: u32,
}

/// `GenerateComplete`
#[derive(Clone, Copy, PartialEq, Message)]
struct Complete {
    #[prost(uint32, tag = "3")]
    prompt_tokens: u32,
    #[prost(uint32, tag = "4")]
    completion_tokens: u32,
    #[prost(uint32, tag = "5")]
    cached_tokens: u32,
}

/// `EmbedResponse`
#[derive(Clone, Copy, PartialEq, Message)]
struct EmbedResponse {
    #[prost(uint32, tag = "2")]
    prompt_tokens: u32,
}

/// Follows the frames of one response.
#[derive(Clone, Debug)]
pub(super) struct Frames {
    method: Method,
    header: [u8; FRAME_HEADER],
    header_len: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// What came of it, where it goes on in the next piece and is read at all.
    kept: Vec<u8>,
    read: bool,
}

impl Frames {
    pub(super) fn new(method: Method) -> Self {
        Self { method, header: [0; FRAME_HEADER], header_len: 0, left: 0, kept: Vec::new(), read: false }
    }

    /// Bytes kept from one piece to the next.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.kept.len()
    }

    /// The next piece; what it tells goes into `counts`.
    pub(super) fn follow(&mut self, mut piece: &[u8], counts: &mut Counts) {
        loop {
            if self.header_len < FRAME_HEADER {
                let taken = piece.len().min(FRAME_HEADER - self.header_len);
                let (header, rest) = piece.split_at(taken);
                self.header[self.header_len..][..taken].copy_from_slice(header);
                self.header_len += taken;
                piece = rest;
                if self.header_len < FRAME_HEADER {
                    return;
                }
                let [flag, length @ ..] = self.header;
                self.left = u32::from_be_bytes(length) as usize;
                self.read = flag == 0 && self.left <= MAX_MESSAGE;
            }
            let (message, rest) = piece.split_at(piece.len().min(self.left));
            self.left -= message.len();
            piece = rest;
            if self.left > 0 {
                if self.read {
                    self.kept.extend_from_slice(message);
                }
                return;
            }
            self.header_len = 0;
            if !self.read {
                continue;
            }
            if self.kept.is_empty() {
                self.count(message, counts);
            } else {
                let mut kept = std::mem::take(&mut self.kept);
                kept.extend_from_slice(message);
                self.count(&kept, counts);
            }
        }
    }

    fn count(&self, message: &[u8], counts: &mut Counts) {
        // A count of 0 is one that is not there; what cannot be decoded tells nothing.
        let told = |tokens: u32| (tokens > 0).then_some(u64::from(tokens));
        let more = |prompt, completion, cached| Counts { prompt: told(prompt), completion: told(completion), cached: told(cached) };
        match self.method {
            Method::Generate => {
                let Ok(GenerateResponse { chunk, complete }) = GenerateResponse::decode(message) else { return };
                if let Some(chunk) = chunk {
                    counts.update(more(chunk.prompt_tokens, chunk.completion_tokens, chunk.cached_tokens));
                }
                if let Some(complete) = complete {
                    counts.update(more(complete.prompt_tokens, complete.completion_tokens, complete.cached_tokens));
                }
            }
            Method::Embed => {
                let Ok(response) = EmbedResponse::decode(message) else { return };
                counts.update(more(response.prompt_tokens, 0, 0));
            }
            Method::Vertex(_) => {
                let Ok(body) = HttpBody::decode(message) else { return };
                let mut document = ResponseBody::new(Framing::Document, None);
                document.pass(body.data.into());
                counts.update(document.counts());
            }
        }
    }
}
