//! A recorded load: one line per request, `seconds,prompt_tokens,output_tokens`.
//!
//! ```text
//! seconds,prompt_tokens,output_tokens
//! 0.25,512,180
//! 0.31,498,211
//! ```
//!
//! Seconds count from the start of the recording and never go back; tokens are whole numbers from 1 on (a prompt of 0 is none). Empty
//! lines and lines that begin with `#` are left out. The first line may name the columns, in this order.

use std::io::BufRead;

use crate::load::{Arrival, Load};

pub use crate::load::{LONGEST_LOAD as LONGEST_TRACE, MOST_REQUESTS};

/// The first line of a trace.
pub const HEADER: &str = "seconds,prompt_tokens,output_tokens";
/// Most tokens of a prompt or an answer: a million.
pub const MOST_TOKENS: u32 = 1_048_576;
/// Longest line.
const LONGEST_LINE: usize = 256;

/// Why a trace is refused.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("line {line}: {error}")]
    Read {
        /// Counted from 1.
        line: usize,
        /// What happened.
        error: std::io::Error,
    },
    /// A line that is none of a trace.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// No request at all.
    #[error("no request in it: each line is {HEADER}, such as 0.25,512,180")]
    Empty,
}

/// Reads a trace. Memory is bounded by the number of requests: 16 bytes each.
///
/// # Errors
/// [`TraceError`] naming the first line that is wrong.
pub fn read(name: &str, mut reader: impl BufRead) -> Result<Load, TraceError> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut buffer = Vec::new();
    let mut line = 0;
    loop {
        line += 1;
        buffer.clear();
        let limit = LONGEST_LINE as u64 + 1;
        let read = std::io::Read::take(&mut reader, limit).read_until(b'\n', &mut buffer);
        if read.map_err(|error| TraceError::Read { line, error })? == 0 {
            break;
        }
        let refuse = |problem: String| TraceError::Line { line, problem };
        if buffer.len() > LONGEST_LINE {
            return Err(refuse(format!("longer than {LONGEST_LINE} bytes: each line is {HEADER}")));
        }
        let text = std::str::from_utf8(&buffer).map_err(|_| refuse("not UTF-8".to_owned()))?.trim();
        if text.is_empty() || text.starts_with('#') || (arrivals.is_empty() && text == HEADER) {
            continue;
        }
        let arrival = request(text).map_err(refuse)?;
        if let Some(last) = arrivals.last()
            && arrival.at < last.at
        {
            return Err(refuse(format!("{} s comes after {} s: sort the lines by their first column", arrival.at, last.at)));
        }
        if arrivals.len() >= MOST_REQUESTS {
            return Err(refuse(format!("more than {MOST_REQUESTS} requests: cut the trace into parts")));
        }
        arrivals.push(arrival);
    }
    let Some(last) = arrivals.last() else { return Err(TraceError::Empty) };
    // A little longer than the last request, so that its answer is seen.
    let seconds = (last.at + 60.0).ceil();
    Ok(Load { name: name.to_owned(), seconds, arrivals })
}

fn request(text: &str) -> Result<Arrival, String> {
    let fields: Vec<&str> = text.split(',').map(str::trim).collect();
    let [at, prompt, output] = fields[..] else {
        return Err(format!("{} columns, expected 3: {HEADER}", fields.len()));
    };
    let at: f64 = at.parse().map_err(|_| format!("seconds is `{at}`, expected a number such as 12.5"))?;
    if !(0.0..=LONGEST_TRACE).contains(&at) {
        return Err(format!("seconds is {at}, expected 0 to {LONGEST_TRACE} (a week), counted from the start of the trace"));
    }
    let tokens = |name: &str, text: &str, least: u32| match text.parse::<u32>() {
        Ok(tokens) if (least..=MOST_TOKENS).contains(&tokens) => Ok(tokens),
        _ => Err(format!("{name} is `{text}`, expected a whole number from {least} to {MOST_TOKENS}")),
    };
    Ok(Arrival { at, prompt: tokens("prompt_tokens", prompt, 1)?, output: tokens("output_tokens", output, 1)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        read("t", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn header_comments_and_spaces_are_taken() {
        let load = read("t", format!("{HEADER}\n# from Tuesday\n\n0.5, 512, 180\r\n0.5,1,1").as_bytes()).unwrap();
        assert_eq!(load.arrivals, [Arrival { at: 0.5, prompt: 512, output: 180 }, Arrival { at: 0.5, prompt: 1, output: 1 }]);
        assert_eq!(load.seconds, 61.0);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(error("0,1,1\n0.5,1"), "line 2: 2 columns, expected 3: seconds,prompt_tokens,output_tokens");
        assert_eq!(error("x,1,1"), "line 1: seconds is `x`, expected a number such as 12.5");
        assert!(error("NaN,1,1").starts_with("line 1: seconds is NaN"));
        assert!(error("1e9,1,1").starts_with("line 1: seconds is 1000000000"));
        assert_eq!(error("1,0,1"), "line 1: prompt_tokens is `0`, expected a whole number from 1 to 1048576");
        assert_eq!(error("1,1,9999999"), "line 1: output_tokens is `9999999`, expected a whole number from 1 to 1048576");
        assert_eq!(error("2,1,1\n1,1,1"), "line 2: 1 s comes after 2 s: sort the lines by their first column");
        assert!(error(&"9".repeat(10_000)).starts_with("line 1: longer than 256 bytes"));
        assert!(error("# nothing\n").starts_with("no request in it"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Err(error) = read("t", bytes.as_slice()) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
