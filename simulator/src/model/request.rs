//! What goes into the model and what comes out.

use std::time::Duration;

use super::prefix::BlockHash;

/// A request as the model sees it: lengths, no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Prompt length; 0 is taken as 1.
    pub prompt_tokens: u32,
    /// Output length; 0 is taken as 1.
    pub output_tokens: u32,
    /// Why it will end when it does.
    pub finish: FinishReason,
    /// The maximum the client named, for the page's histogram.
    pub max_tokens: Option<u32>,
    /// Hashes of the prompt's full leading blocks ([`super::prefix::PrefixHasher`]); empty when not known.
    pub prefix: Vec<BlockHash>,
    /// Index of the LoRA adapter, if any.
    pub adapter: Option<usize>,
    /// Whether the client reads tokens as they come.
    pub streaming: bool,
    /// The client's `n` parameter.
    pub choices: u32,
}

impl Request {
    /// A plain request of these lengths that ends by itself.
    pub fn new(prompt_tokens: u32, output_tokens: u32) -> Self {
        Self {
            prompt_tokens,
            output_tokens,
            finish: FinishReason::Stop,
            max_tokens: None,
            prefix: Vec::new(),
            adapter: None,
            streaming: true,
            choices: 1,
        }
    }
}

/// Names a request of one model; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// It said what it had to say.
    Stop,
    /// It reached the client's maximum.
    Length,
    /// The client left.
    Abort,
}

impl FinishReason {
    /// The OpenAI API's word, and the page's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubmitError {
    /// The waiting queue is full: try later.
    #[error("{limit} requests are waiting, which is the limit")]
    QueueFull {
        /// The profile's `waiting_limit`.
        limit: u32,
    },
    /// It could never finish: shorten it.
    #[error("{prompt_tokens} prompt tokens and {output_tokens} output tokens exceed the model's {limit} tokens")]
    TooLong {
        /// The prompt as counted.
        prompt_tokens: u32,
        /// The output asked for.
        output_tokens: u32,
        /// The profile's `max_model_len`.
        limit: u32,
    },
}

/// What one step did. Its tokens exist from the step's end on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOutcome {
    /// How long the step took.
    pub duration: Duration,
    /// Requests that got one more token, in running order.
    pub tokens: Vec<RequestId>,
    /// Requests that ended with their last token (they are in `tokens` too).
    pub finished: Vec<Finished>,
    /// Requests that lost their blocks and wait again, at the head of the queue.
    pub preempted: Vec<RequestId>,
}

/// A request that ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which one.
    pub id: RequestId,
    /// Why.
    pub reason: FinishReason,
    /// Prompt tokens found in the prefix cache when it was first scheduled.
    pub cached_tokens: u32,
}
