//! What arrived at a pool in each turn, as it is recorded: the level's own counting, for those who replay a load later.

use std::time::Duration;

use super::Seen;
use super::constants::{MIX_LONGEST, OUTPUT_ANSWERS};
use super::flow::{Counters, Flow};
use super::history::History;
use super::input::Second;
use super::level::Cause;
use super::mix::Mix;

/// Answers whose mean length is taken at least; with fewer in the last minute, those of up to five.
const ANSWERS: f64 = 5.0 * OUTPUT_ANSWERS;
/// Shortest window of that mean, in seconds.
const ANSWERS_WINDOW: usize = 60;

/// What arrived since the last turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrived {
    /// Seconds since then.
    pub seconds: f64,
    /// Requests. Below 0 where queues shrank by requests that nobody served: clients that left.
    pub requests: f64,
    /// Mean tokens of their prompts: theirs where the pickers count them, else of the last half minute or longer; `None` before any
    /// was seen.
    pub prompt_tokens: Option<f64>,
    /// Mean tokens of the answers of the last minute or longer, since those of this turn have not ended; `None` before any has.
    pub output_tokens: Option<f64>,
    /// Whether the pickers counted the requests; else the servers' counters and queues show them.
    pub counted: bool,
    /// Ready endpoints.
    pub ready: u32,
    /// Those of them that could be read.
    pub readable: u32,
}

/// Counts what arrives. Memory is bounded: some minutes of sums, and an entry per picker and endpoint of the last turn.
#[derive(Clone, Debug)]
pub struct Traffic {
    counters: Counters,
    mix: Mix,
    generated: History,
    answers: History,
    output: Option<f64>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { counters: Counters::default(), mix: Mix::new(), generated: History::new(), answers: History::new(), output: None }
    }
}

impl Traffic {
    /// One turn. After turns that could not be computed the next one has what arrived in all of them.
    ///
    /// # Errors
    /// The [`Cause`] for which nobody knows what arrived.
    pub fn turn(&mut self, second: &Second) -> Result<Arrived, Cause> {
        let seen = Seen::of(second)?;
        let before = self.counters.last_turn();
        let flow = self.counters.advance(second.now, seen.pickers, seen.endpoints).ok_or(Cause::FirstMeasurement)?;
        let slots = second.now.as_secs().saturating_sub(before.unwrap_or(Duration::ZERO).as_secs());
        self.mix.advance(slots, &flow);
        self.answer_lengths(slots, &flow);
        let requests = flow.arrivals.or(flow.ended).ok_or(Cause::Arrivals)?;
        let own = flow.prompts.filter(|(tokens, requests)| flow.counted && *requests >= 1.0 && *tokens > 0.0);
        Ok(Arrived {
            seconds: flow.seconds,
            requests,
            prompt_tokens: own.map(|(tokens, requests)| tokens / requests).or_else(|| self.mix.prompt()),
            output_tokens: self.output,
            counted: flow.counted,
            ready: seen.ready,
            readable: seen.readable,
        })
    }

    fn answer_lengths(&mut self, slots: u64, flow: &Flow) {
        self.generated.push(slots, flow.generated);
        self.answers.push(slots, flow.answers.unwrap_or_default());
        let mut window = ANSWERS_WINDOW;
        while window < MIX_LONGEST && self.answers.sum(window) < ANSWERS {
            window += 10;
        }
        let (generated, answers) = (self.generated.sum(window), self.answers.sum(window));
        let enough = if self.answers.known() >= MIX_LONGEST { 1.0 } else { OUTPUT_ANSWERS };
        if answers >= enough && generated > 0.0 {
            self.output = Some(generated / answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::{Endpoint, Load, Picker, Pickers};
    use super::*;

    fn second(at: u64, served: f64, waiting: f64, picker: Option<f64>) -> Second {
        let load = Load {
            running: 4.0,
            waiting,
            kv: 0.1,
            prompt_tokens: Some(served * 100.0),
            generated_tokens: Some(served * 50.0),
            first_tokens: Some(served),
            completed: Some(served),
        };
        let counted = |arrivals: f64| Picker { id: 1, held: 0.0, arrivals: Some(arrivals), prompt_tokens: Some(arrivals * 70.0) };
        Second {
            now: Duration::from_secs(at),
            pickers: picker.map_or(Pickers::None, |arrivals| Pickers::Read(vec![counted(arrivals)])),
            endpoints: Some(vec![Endpoint { id: 1, ready_for: Duration::from_secs(100), load: Some(load) }]),
            ..Second::default()
        }
    }

    #[test]
    fn servers_tell_what_arrives_where_no_picker_does() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.turn(&second(10, 0.0, 0.0, None)), Err(Cause::FirstMeasurement));
        let arrived = traffic.turn(&second(11, 5.0, 3.0, None)).unwrap();
        assert_eq!(
            (arrived.requests, arrived.counted, arrived.prompt_tokens, arrived.output_tokens),
            (8.0, false, Some(100.0), None)
        );
        let arrived = traffic.turn(&second(12, 13.0, 0.0, None)).unwrap();
        assert_eq!((arrived.requests, arrived.output_tokens, arrived.seconds), (5.0, Some(50.0), 1.0));
        assert_eq!((arrived.ready, arrived.readable), (1, 1));
    }

    #[test]
    fn pickers_count_them_and_their_prompts() {
        let mut traffic = Traffic::default();
        traffic.turn(&second(10, 0.0, 0.0, Some(1000.0))).unwrap_err();
        let arrived = traffic.turn(&second(11, 5.0, 3.0, Some(1020.0))).unwrap();
        assert_eq!((arrived.requests, arrived.counted, arrived.prompt_tokens), (20.0, true, Some(70.0)));
    }

    #[test]
    fn servers_without_a_count_of_first_tokens_tell_by_what_ended_and_runs() {
        let without = |at: u64, ended: f64, running: f64| {
            let mut second = second(at, ended, 0.0, None);
            for endpoint in second.endpoints.iter_mut().flatten() {
                endpoint.load = endpoint.load.map(|load| Load { first_tokens: None, running, ..load });
            }
            second
        };
        let mut traffic = Traffic::default();
        traffic.turn(&without(1, 0.0, 4.0)).unwrap_err();
        assert_eq!(traffic.turn(&without(2, 5.0, 6.0)).unwrap().requests, 7.0);
    }

    #[test]
    fn what_nobody_could_read_comes_with_the_next_turn() {
        let mut traffic = Traffic::default();
        traffic.turn(&second(10, 0.0, 0.0, None)).unwrap_err();
        let unread = Second { endpoints: None, ..second(11, 0.0, 0.0, None) };
        assert_eq!(traffic.turn(&unread), Err(Cause::NoTopology));
        let arrived = traffic.turn(&second(12, 6.0, 0.0, None)).unwrap();
        assert_eq!((arrived.requests, arrived.seconds), (6.0, 2.0));
    }
}
