//! What a request is: tokens in, tokens out.

use super::constants::{MIX_ARRIVALS, MIX_LONGEST, MIX_WINDOW, OUTPUT_ANSWERS, OUTPUT_TOKENS};
use super::flow::Flow;
use super::history::History;

/// Mean tokens of the requests of the last minutes.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    requests: History,
    prompts: History,
    generated: History,
    answers: History,
    /// The last mean that was known.
    prompt: Option<f64>,
    output: f64,
}

impl Mix {
    pub(super) fn new() -> Self {
        Self {
            requests: History::new(),
            prompts: History::new(),
            generated: History::new(),
            answers: History::new(),
            prompt: None,
            output: OUTPUT_TOKENS,
        }
    }

    /// What an earlier process knew.
    pub(super) fn set(&mut self, prompt: Option<f64>, output: f64) {
        self.prompt = prompt;
        self.output = output;
    }

    pub(super) fn advance(&mut self, seconds: u64, flow: &Flow) {
        let (tokens, requests) = flow.prompts.unwrap_or_default();
        self.requests.push(seconds, requests);
        self.prompts.push(seconds, tokens);
        self.generated.push(seconds, flow.generated);
        self.answers.push(seconds, flow.answers.unwrap_or_default());
        let mut window = MIX_WINDOW;
        while window < MIX_LONGEST && self.requests.sum(window) < MIX_ARRIVALS {
            window += 10;
        }
        let requests = self.requests.sum(window);
        let tokens = self.prompts.sum(window);
        if requests >= 1.0 && tokens > 0.0 {
            self.prompt = Some(tokens / requests);
        }
        let answers = self.answers.sum(MIX_LONGEST);
        let generated = self.generated.sum(MIX_LONGEST);
        if answers >= OUTPUT_ANSWERS && generated > 0.0 {
            self.output = generated / answers;
        }
    }

    /// Tokens of a prompt; `None` before any was seen.
    pub(super) fn prompt(&self) -> Option<f64> {
        self.prompt
    }

    /// Tokens of an answer.
    pub(super) fn output(&self) -> f64 {
        self.output
    }
}
