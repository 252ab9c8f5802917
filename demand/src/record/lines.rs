//! What arrives, as the lines of a trace; pure.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use weir_hpa::required::{Arrived, Cause};
use weir_what_if::trace::{HEADER, LONGEST_TRACE, MOST_REQUESTS, MOST_TOKENS};

/// What arrived in a longer stretch between two readings is known in sum only, and not recorded.
const LONGEST_GAP: f64 = 10.0;
/// How long requests wait for the lengths of answers, which are known once some have ended.
const LONGEST_WAIT: f64 = 300.0;
/// More requests in a second than any pool gets: a counter that cannot be true.
const MOST_PER_SECOND: f64 = 100_000.0;
/// For how long requests that were counted too soon are taken off those that come: servers and pickers are read one after the other.
const OWED_SECONDS: f64 = 5.0;

/// What is written for one turn.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chunk {
    /// Whole lines.
    pub(super) text: String,
    /// Requests in them.
    pub(super) requests: u64,
    /// Seconds of which it is known what arrived.
    pub(super) known: f64,
    /// Those of them in which some servers could not be read, and nobody else counts.
    pub(super) partial: f64,
    /// Seconds of which it is not.
    pub(super) unknown: f64,
}

/// Requests that arrived together, evenly spread.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: f64,
    seconds: f64,
    requests: u64,
    prompt: Option<f64>,
    partial: bool,
}

/// Why no more is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Full {
    /// A trace has no more requests.
    Requests,
    /// A trace is no longer.
    Week,
}

impl Full {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Requests => "a trace has ten million requests at most",
            Self::Week => "a trace is a week long at most",
        }
    }
}

/// A recording under way. Memory is bounded: a stretch per turn of [`LONGEST_WAIT`].
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// Its start since the Unix epoch.
    began: Duration,
    requests: u64,
    /// Parts of requests, and those that were counted too soon (below 0), and since when.
    carry: f64,
    owed_since: Option<f64>,
    waiting: VecDeque<Stretch>,
    output: Option<f64>,
    /// Until when everything is known, or told not to be.
    told: f64,
    cause: Option<String>,
    counted: Option<bool>,
    partial: Option<(u32, u32)>,
    full: Option<Full>,
}

impl Lines {
    /// A recording that began at `began` and has so many requests, at `now`.
    pub(super) fn new(began: Duration, requests: u64, now: Duration) -> Self {
        let told = if now > began { (now - began).as_secs_f64() } else { 0.0 };
        Self {
            began,
            requests,
            carry: 0.0,
            owed_since: None,
            waiting: VecDeque::new(),
            output: None,
            told,
            cause: None,
            counted: None,
            partial: None,
            full: None,
        }
    }

    /// The first lines of a new one, whose `about` names pool and time.
    pub(super) fn head(about: &str) -> String {
        format!("{about}\n{HEADER}\n")
    }

    /// A line on what came after the last request that is there, while nobody recorded.
    pub(super) fn gap(&self, last: f64) -> Option<String> {
        (self.told > last).then(|| format!("# {last:.0}-{:.0}: unknown: nothing was recorded\n", self.told))
    }

    /// Why there will be no more lines.
    pub(super) fn full(&self) -> Option<Full> {
        self.full
    }

    /// One turn.
    pub(super) fn turn(&mut self, now: Duration, arrived: Result<Arrived, Cause>) -> Chunk {
        let mut chunk = Chunk::default();
        let at = now.saturating_sub(self.began).as_secs_f64();
        if self.full.is_some() {
            return chunk;
        }
        if at > LONGEST_TRACE {
            self.ends(&mut chunk, Full::Week);
            return chunk;
        }
        match arrived {
            Ok(arrived) => self.known(at, &arrived, &mut chunk),
            // The first reading is what the next one is compared with.
            Err(Cause::FirstMeasurement) if self.cause.is_none() => self.told = self.told.max(at),
            Err(cause) => self.cause = Some(cause.to_string()),
        }
        self.write(at, &mut chunk);
        chunk
    }

    /// The end: what waited for the lengths of answers is written, or said to be left out.
    pub(super) fn finish(&mut self) -> Chunk {
        let mut chunk = Chunk::default();
        self.give_up(&mut chunk, f64::INFINITY);
        chunk
    }

    fn known(&mut self, at: f64, arrived: &Arrived, chunk: &mut Chunk) {
        let from = (at - arrived.seconds).max(self.told).min(at);
        let seconds = at - from;
        self.output = arrived.output_tokens.or(self.output);
        let cause = self.cause.take();
        let too_many = arrived.requests > MOST_PER_SECOND * seconds.max(1.0) || !arrived.requests.is_finite();
        if seconds > LONGEST_GAP || too_many {
            let cause = match (too_many, cause) {
                (true, _) => format!("{:.0} requests at once cannot be true", arrived.requests),
                (false, Some(cause)) => cause,
                (false, None) => "nothing was read".to_owned(),
            };
            let requests = if too_many { 0.0 } else { arrived.requests.max(0.0) };
            unknown(chunk, self.told.min(from), at, &cause, requests);
            self.told = at;
            return;
        }
        self.told = at;
        self.says_how(at, arrived, chunk);
        let requests = self.whole(at, arrived.requests);
        let partial = !arrived.counted && arrived.readable < arrived.ready;
        self.waiting.push_back(Stretch { from, seconds, requests, prompt: arrived.prompt_tokens, partial });
    }

    /// Notes on what the numbers rest on, where that changes.
    fn says_how(&mut self, at: f64, arrived: &Arrived, chunk: &mut Chunk) {
        if self.counted.replace(arrived.counted) != Some(arrived.counted) {
            let how = match arrived.counted {
                true => "requests as the pickers count them when they come",
                false => "requests as the servers' counters and queues show them: seen when they queue or have their first token",
            };
            note(chunk, at, how);
        }
        let partial = (!arrived.counted && arrived.readable < arrived.ready).then_some((arrived.readable, arrived.ready));
        if self.partial != partial {
            self.partial = partial;
            match partial {
                Some((readable, ready)) => {
                    note(chunk, at, &format!("only {readable} of {ready} servers can be read: what the others get is missing"));
                }
                None => note(chunk, at, "all servers can be read"),
            }
        }
    }

    /// Whole requests; the rest goes on with the next turn.
    fn whole(&mut self, at: f64, requests: f64) -> u64 {
        self.carry += requests;
        if self.carry < 0.0 {
            if at - *self.owed_since.get_or_insert(at) > OWED_SECONDS {
                // Clients that left: they did arrive.
                self.carry = 0.0;
                self.owed_since = None;
            }
            return 0;
        }
        self.owed_since = None;
        // The cast saturates.
        let whole = self.carry.floor() as u64;
        self.carry -= whole as f64;
        whole
    }

    /// Writes what is known in full, and gives up what waited too long.
    fn write(&mut self, at: f64, chunk: &mut Chunk) {
        while let Some(stretch) = self.waiting.front().copied() {
            let (prompt, output) = match (stretch.requests, stretch.prompt, self.output) {
                (0, ..) => (1.0, 1.0),
                (_, Some(prompt), Some(output)) => (prompt, output),
                _ => break,
            };
            self.waiting.pop_front();
            let room = (MOST_REQUESTS as u64).saturating_sub(self.requests);
            if stretch.requests > room {
                self.ends(chunk, Full::Requests);
                return;
            }
            self.requests += stretch.requests;
            chunk.requests += stretch.requests;
            chunk.known += stretch.seconds;
            chunk.partial += if stretch.partial { stretch.seconds } else { 0.0 };
            lines(chunk, &stretch, tokens(prompt), tokens(output));
        }
        self.give_up(chunk, at - LONGEST_WAIT);
    }

    /// Leaves out what came before `before` and has no lengths.
    fn give_up(&mut self, chunk: &mut Chunk, before: f64) {
        let (mut from, mut until, mut requests) = (None, 0.0, 0);
        while let Some(stretch) = self.waiting.pop_front_if(|stretch| stretch.from < before) {
            from.get_or_insert(stretch.from);
            until = stretch.from + stretch.seconds;
            requests += stretch.requests;
        }
        if let Some(from) = from {
            let cause = "no answer has ended yet, so nothing tells how long they are";
            unknown(chunk, from, until, cause, requests as f64);
        }
    }

    fn ends(&mut self, chunk: &mut Chunk, full: Full) {
        self.full = Some(full);
        self.waiting.clear();
        writeln!(chunk.text, "# ended: {}", full.words()).unwrap_or_default();
    }
}

fn lines(chunk: &mut Chunk, stretch: &Stretch, prompt: u32, output: u32) {
    let each = stretch.seconds / stretch.requests.max(1) as f64;
    for index in 0..stretch.requests {
        let at = stretch.from + (index as f64 + 0.5) * each;
        writeln!(chunk.text, "{at:.3},{prompt},{output}").unwrap_or_default();
    }
}

fn note(chunk: &mut Chunk, at: f64, text: &str) {
    writeln!(chunk.text, "# {at:.0}: {text}").unwrap_or_default();
}

fn unknown(chunk: &mut Chunk, from: f64, until: f64, cause: &str, requests: f64) {
    // A cause may repeat what others wrote.
    let cause: String = cause.chars().filter(|character| !character.is_control()).take(120).collect();
    write!(chunk.text, "# {from:.0}-{until:.0}: unknown: {cause}").unwrap_or_default();
    if requests >= 1.0 {
        write!(chunk.text, "; {requests:.0} requests left out").unwrap_or_default();
    }
    chunk.text.push('\n');
    chunk.unknown += until - from;
}

/// A mean as the tokens of one request; the cast saturates.
fn tokens(mean: f64) -> u32 {
    (mean.round() as u32).clamp(1, MOST_TOKENS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_what_if::trace;

    use super::*;

    const BEGAN: Duration = Duration::from_secs(1_000_000);

    fn at(second: u64) -> Duration {
        BEGAN + Duration::from_secs(second)
    }

    fn some(requests: f64) -> Arrived {
        Arrived {
            seconds: 1.0,
            requests,
            prompt_tokens: Some(99.6),
            output_tokens: Some(20.0),
            counted: true,
            ready: 1,
            readable: 1,
        }
    }

    fn recorded(turns: &[(u64, Result<Arrived, Cause>)]) -> (String, Chunk) {
        let mut lines = Lines::new(BEGAN, 0, BEGAN);
        let mut all = Chunk { text: Lines::head("# x"), ..Chunk::default() };
        let mut add = |chunk: Chunk| {
            all.text.push_str(&chunk.text);
            all.requests += chunk.requests;
            all.known += chunk.known;
            all.partial += chunk.partial;
            all.unknown += chunk.unknown;
        };
        for (second, arrived) in turns {
            add(lines.turn(at(*second), *arrived));
        }
        add(lines.finish());
        (all.text.clone(), all)
    }

    #[test]
    fn requests_are_spread_over_their_second_with_its_tokens() {
        let (text, all) =
            recorded(&[(0, Err(Cause::FirstMeasurement)), (1, Ok(some(2.0))), (2, Ok(some(0.5))), (3, Ok(some(0.5)))]);
        assert!(text.starts_with("# x\nseconds,prompt_tokens,output_tokens\n# 1: requests as the pickers count"), "{text}");
        assert!(text.ends_with("\n0.250,100,20\n0.750,100,20\n2.500,100,20\n"), "{text}");
        assert_eq!((all.requests, all.known, all.unknown), (3, 3.0, 0.0));
    }

    #[test]
    fn a_short_pause_is_spread_and_a_long_one_is_unknown() {
        let after = |seconds: f64| Arrived { seconds, ..some(8.0) };
        let lost = Err(Cause::Pickers);
        let (text, all) = recorded(&[(1, Ok(some(1.0))), (2, lost), (4, lost), (5, Ok(after(4.0)))]);
        assert!(
            text.ends_with(
                "1.250,100,20\n1.750,100,20\n2.250,100,20\n2.750,100,20\n3.250,100,20\n3.750,100,20\n4.250,100,20\n4.750,100,20\n"
            ),
            "{text}"
        );
        assert_eq!((all.requests, all.known, all.unknown), (9, 5.0, 0.0));
        let (text, all) = recorded(&[(1, Ok(some(1.0))), (2, lost), (30, lost), (31, Ok(after(30.0))), (32, Ok(some(1.0)))]);
        assert!(
            text.contains("# 1-31: unknown: the endpoint pickers cannot be read; 8 requests left out\n31.500,100,20\n"),
            "{text}"
        );
        assert_eq!((all.requests, all.known, all.unknown), (2, 2.0, 30.0));
    }

    #[test]
    fn lengths_of_answers_are_waited_for() {
        let early = |second: u64| (second, Ok(Arrived { output_tokens: None, ..some(1.0) }));
        let (text, _) = recorded(&[early(1), early(2), (3, Ok(some(1.0)))]);
        assert!(text.ends_with("\n0.500,100,20\n1.500,100,20\n2.500,100,20\n"), "{text}");
        let (text, all) = recorded(&(1..=400).map(early).collect::<Vec<_>>());
        assert!(text.contains("# 0-1: unknown: no answer has ended yet, so nothing tells how long they are; 1 requests left out"));
        assert_eq!((all.requests, all.unknown.round()), (0, 400.0));
    }

    #[test]
    fn what_was_counted_too_soon_is_taken_off_and_who_left_is_not() {
        let (_, all) = recorded(&[(1, Ok(some(10.0))), (2, Ok(some(-4.0))), (3, Ok(some(6.0)))]);
        assert_eq!(all.requests, 12);
        let mut turns = vec![(1, Ok(some(10.0))), (2, Ok(some(-10.0)))];
        turns.extend((3..20).map(|second| (second, Ok(some(0.0)))));
        turns.push((20, Ok(some(10.0))));
        assert_eq!(recorded(&turns).1.requests, 20);
    }

    #[test]
    fn what_it_rests_on_is_said_once() {
        let servers = |readable: u32| Ok(Arrived { counted: false, ready: 4, readable, ..some(1.0) });
        let (text, all) = recorded(&[(1, servers(4)), (2, servers(3)), (3, servers(3)), (4, servers(4))]);
        let notes: Vec<&str> = text.lines().filter(|line| line.starts_with("# ")).skip(1).collect();
        assert_eq!(
            notes,
            [
                "# 1: requests as the servers' counters and queues show them: seen when they queue or have their first token",
                "# 2: only 3 of 4 servers can be read: what the others get is missing",
                "# 4: all servers can be read"
            ]
        );
        assert_eq!(all.partial, 2.0);
    }

    #[test]
    fn it_ends_after_ten_million_requests_or_a_week() {
        let mut lines = Lines::new(BEGAN, MOST_REQUESTS as u64 - 3, BEGAN);
        assert_eq!(lines.turn(at(1), Ok(some(2.0))).requests, 2);
        let chunk = lines.turn(at(2), Ok(some(2.0)));
        assert_eq!((chunk.requests, chunk.text.as_str()), (0, "# ended: a trace has ten million requests at most\n"));
        assert_eq!((lines.full(), lines.turn(at(3), Ok(some(1.0)))), (Some(Full::Requests), Chunk::default()));
        let mut lines = Lines::new(BEGAN, 0, BEGAN);
        assert_eq!(lines.turn(at(7 * 86_400 + 1), Ok(some(1.0))).text, "# ended: a trace is a week long at most\n");
    }

    #[test]
    fn a_counter_that_cannot_be_true_is_left_out() {
        let (text, all) = recorded(&[(1, Ok(some(1e12))), (2, Ok(some(f64::NAN))), (3, Ok(some(1.0)))]);
        assert!(text.contains("# 0-1: unknown: 1000000000000 requests at once cannot be true\n"), "{text}");
        assert_eq!((all.requests, all.unknown), (1, 2.0));
    }

    proptest! {
        #[test]
        fn whatever_is_recorded_is_read(turns in proptest::collection::vec((0.0_f64..30.0, -50.0_f64..200.0, proptest::option::of(0.0_f64..1e7), any::<bool>(), 0_u32..4), 1..60)) {
            let mut lines = Lines::new(BEGAN, 0, BEGAN);
            let mut text = Lines::head("# x");
            let (mut now, mut requests, mut last) = (BEGAN, 0, BEGAN);
            for (seconds, amount, tokens, counted, readable) in turns {
                now += Duration::from_secs_f64(seconds);
                let arrived = Arrived {
                    seconds: (now - last).as_secs_f64(), requests: amount, prompt_tokens: tokens, output_tokens: tokens, counted, ready: 3, readable,
                };
                let outcome = if readable == 0 { Err(Cause::Pickers) } else { last = now; Ok(arrived) };
                let chunk = lines.turn(now, outcome);
                requests += chunk.requests;
                text.push_str(&chunk.text);
            }
            text.push_str(&lines.finish().text);
            match trace::read("t", text.as_bytes()) {
                Ok(load) => prop_assert_eq!(load.arrivals.len() as u64, requests),
                Err(error) => prop_assert!(requests == 0 && matches!(error, trace::TraceError::Empty), "{error}: {text}"),
            }
        }
    }
}
