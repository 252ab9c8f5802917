//! From the bytes of a page to its wanted samples.

use memchr::{memchr_iter, memchr3};
use thiserror::Error;

use super::line::{DropReason, Sample, parse_rest};
use super::wanted::Wanted;

/// How a page is written, by its Content-Type.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// `text/plain`: Prometheus text format 0.0.4.
    #[default]
    Text,
    /// `application/openmetrics-text`: must end in `# EOF`, timestamps are seconds.
    OpenMetrics,
}

/// Which lines are taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// Only those with a wanted name: what a scrape does. Broken lines are counted among these, and where the damage shows by a line's
    /// length or first byte; on a page without any wanted name, by its name.
    WantedLines,
    /// All: what a person asks for who wants each broken line named.
    EveryLine,
}

/// Bounds on one page.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Longest line in bytes; a longer one is dropped.
    pub line_bytes: usize,
    /// Most wanted samples of one page; a page with more is refused.
    pub samples: usize,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { line_bytes: 64 * 1024, samples: 100_000 }
    }
}

/// Why a page as a whole cannot be used. The last good page stays in force until it is stale.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[non_exhaustive]
pub enum PageError {
    /// The page does not end in a newline, so its last number may be half a number.
    #[error("cut off: the last line does not end in a newline")]
    Truncated,
    /// An OpenMetrics page without its end mark.
    #[error("cut off: an OpenMetrics page must end in `# EOF`")]
    MissingEof,
    /// An OpenMetrics page that goes on after its end mark.
    #[error("line {line}: text after `# EOF`")]
    AfterEof {
        /// Where the text is.
        line: u32,
    },
    /// The page begins with a byte-order mark.
    #[error("begins with a byte-order mark: not a Prometheus exposition page")]
    ByteOrderMark,
    /// An HTML document, usually of a proxy in between.
    #[error("an HTML document, not a metrics page: the address may be a proxy's or a web page's")]
    Html,
    /// A JSON document.
    #[error("a JSON document, not a metrics page: trtllm-serve has its metrics at /prometheus/metrics")]
    Json,
    /// Lines, but none of them reads as a sample.
    #[error("none of {lines} lines reads as a metrics sample: not a metrics page")]
    NotMetrics {
        /// Lines that are neither blank nor comments.
        lines: u32,
    },
    /// More wanted samples than the limit.
    #[error("more than {limit} samples of wanted families")]
    TooManySamples {
        /// The limit.
        limit: usize,
    },
}

/// A line that was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dropped {
    /// Line number, counted from 1.
    pub line: u32,
    /// What is wrong with it.
    pub reason: DropReason,
}

/// How the scan of a page went.
#[derive(Clone, Debug, Default)]
pub struct PageReport {
    /// Lines on the page.
    pub lines: u32,
    /// Lines that are neither blank nor comments.
    pub sample_lines: u32,
    /// How many lines were dropped.
    pub dropped: u32,
    /// The first of them, at most [`PageReport::NAMED`].
    pub named: Vec<Dropped>,
}

impl PageReport {
    /// How many dropped lines are named; the rest is only counted.
    pub const NAMED: usize = 16;

    fn drop_line(&mut self, reason: DropReason) {
        self.dropped += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(Dropped { line: self.lines, reason });
        }
    }
}

/// Appends the wanted samples of `page` to `samples`, in page order.
///
/// # Errors
/// A [`PageError`] where the page as a whole cannot be trusted; `samples` then holds nothing that may be used.
pub fn scan<'page>(
    page: &'page [u8],
    format: Format,
    wanted: &Wanted,
    effort: Effort,
    limits: ScanLimits,
    samples: &mut Vec<Sample<'page>>,
) -> Result<PageReport, PageError> {
    let Some(&last) = page.last() else { return Ok(PageReport::default()) };
    if page.starts_with(b"\xef\xbb\xbf") {
        return Err(PageError::ByteOrderMark);
    }
    if let Some(error) = foreign_document(page) {
        return Err(error);
    }
    if last != b'\n' {
        return Err(PageError::Truncated);
    }
    let before = samples.len();
    let quick = effort == Effort::WantedLines;
    let mut report = walk(page, format, wanted, effort, quick, limits, samples)?;
    if quick && samples.len() == before {
        // Not a page that is read again and again: what is wrong with it is worth a second walk.
        report = walk(page, format, wanted, effort, false, limits, samples)?;
    }
    if report.sample_lines > 0 && report.sample_lines == report.dropped {
        return Err(PageError::NotMetrics { lines: report.sample_lines });
    }
    Ok(report)
}

/// Goes through the lines. `quick`: one that cannot begin with a wanted name is passed over at once.
fn walk<'page>(
    page: &'page [u8],
    format: Format,
    wanted: &Wanted,
    effort: Effort,
    quick: bool,
    limits: ScanLimits,
    samples: &mut Vec<Sample<'page>>,
) -> Result<PageReport, PageError> {
    let mut report = PageReport::default();
    let open_metrics = format == Format::OpenMetrics;
    let most_samples = samples.len().saturating_add(limits.samples);
    let mut ended = false;
    let mut start = 0;
    for newline in memchr_iter(b'\n', page) {
        let line = &page[start..newline];
        start = newline + 1;
        report.lines += 1;
        if ended {
            return Err(PageError::AfterEof { line: report.lines });
        }
        let Some(line) = trim(line) else { continue };
        if line[0] == b'#' {
            ended = open_metrics && line == b"# EOF";
            continue;
        }
        report.sample_lines += 1;
        if line.len() > limits.line_bytes {
            report.drop_line(DropReason::TooLong);
            continue;
        }
        if !begins_name(line[0]) {
            report.drop_line(DropReason::Name);
            continue;
        }
        if quick && !wanted.may_begin(line) {
            continue;
        }
        let Some(end) = memchr3(b'{', b' ', b'\t', line) else {
            report.drop_line(DropReason::Name);
            continue;
        };
        let name = &line[..end];
        let found = wanted.find(name);
        if found.is_none() && effort == Effort::WantedLines {
            continue;
        }
        if found.is_none() && !name.iter().all(|byte| begins_name(*byte) || byte.is_ascii_digit()) {
            report.drop_line(DropReason::Name);
            continue;
        }
        match (parse_rest(&line[name.len()..], open_metrics), found) {
            (Err(reason), _) => report.drop_line(reason),
            (Ok(_), None) => {}
            (Ok(_), Some(_)) if samples.len() >= most_samples => {
                return Err(PageError::TooManySamples { limit: limits.samples });
            }
            (Ok(rest), Some(family)) => samples.push(Sample {
                family,
                line: report.lines,
                labels: rest.labels,
                value: rest.value,
                timestamp_ms: rest.timestamp_ms,
            }),
        }
    }
    if open_metrics && !ended {
        return Err(PageError::MissingEof);
    }
    Ok(report)
}

/// The line without blanks around it and without the CR of a CRLF; none where nothing is left.
fn trim(line: &[u8]) -> Option<&[u8]> {
    // Nearly every line begins and ends in something else: look before walking.
    let trimmed = match (line.first()?, line.last()?) {
        (b' ' | b'\t', _) | (_, b' ' | b'\t' | b'\r') => line.trim_ascii(),
        _ => line,
    };
    (!trimmed.is_empty()).then_some(trimmed)
}

fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}

fn foreign_document(page: &[u8]) -> Option<PageError> {
    let start = page[..page.len().min(512)].trim_ascii_start();
    match start.first()? {
        b'<' => Some(PageError::Html),
        b'[' => Some(PageError::Json),
        // A quoted Prometheus 3 name begins `{"name"` too, but goes on with `,` or `}` and not with `:`.
        b'{' => {
            let object = start[1..].trim_ascii_start();
            let after_key = object.strip_prefix(b"\"").and_then(|key| key.split(|byte| *byte == b'"').nth(1));
            (object.starts_with(b"}") || after_key.is_some_and(|rest| rest.trim_ascii_start().starts_with(b":")))
                .then_some(PageError::Json)
        }
        _ => None,
    }
}
