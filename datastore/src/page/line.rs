//! One sample line: its labels, value and timestamp.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use memchr::memchr2;

use super::wanted::FamilyIndex;

/// One number off a page: a wanted line taken apart, borrowing from the page's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'page> {
    /// Which of the wanted names the line carries.
    pub family: FamilyIndex,
    /// Line number on the page, counted from 1.
    pub line: u32,
    /// The label set as written.
    pub labels: Labels<'page>,
    /// The value as written: NaN and infinities included.
    pub value: f64,
    /// Milliseconds since the Unix epoch, where the line carries a well-formed timestamp.
    pub timestamp_ms: Option<i64>,
}

/// A label set whose syntax has been checked: the text between the braces.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Labels<'page>(&'page str);

impl<'page> Labels<'page> {
    /// The label set as the page writes it, without the braces.
    pub fn as_written(&self) -> &'page str {
        self.0
    }

    /// Name and value of each label in page order; values with `\\`, `\"` and `\n` unescaped.
    pub fn iter(&self) -> impl Iterator<Item = (&'page str, Cow<'page, str>)> {
        self.raw().map(|(name, value)| (name, unescape(value)))
    }

    /// The value of `name`, unescaped; the first one where a page repeats a label.
    pub fn get(&self, name: &str) -> Option<Cow<'page, str>> {
        self.raw().find(|(label, _)| *label == name).map(|(_, value)| unescape(value))
    }

    /// A number that is equal for two label sets that say the same in any order.
    pub fn identity(&self) -> u64 {
        self.raw().fold(0, |sum, pair| {
            let mut hasher = DefaultHasher::new();
            pair.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    }

    fn raw(&self) -> RawLabels<'page> {
        RawLabels { rest: self.0 }
    }
}

impl fmt::Debug for Labels<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{}}}", self.0)
    }
}

/// Walks text that `parse_labels` accepted, hence no error cases.
struct RawLabels<'page> {
    rest: &'page str,
}

impl<'page> Iterator for RawLabels<'page> {
    type Item = (&'page str, &'page str);

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.trim_start_matches([' ', '\t', ',']);
        let equals = text.find('=')?;
        let quoted = text[equals + 1..].trim_start_matches([' ', '\t']).strip_prefix('"')?;
        let end = closing_quote(quoted.as_bytes())?;
        self.rest = &quoted[end + 1..];
        Some((text[..equals].trim_end_matches([' ', '\t']), &quoted[..end]))
    }
}

/// Why a line was not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DropReason {
    /// Longer than the limit for one line.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Does not begin with a metric name of the classic character set (Prometheus 3 quoted names included).
    Name,
    /// The label set does not follow `{name="value",…}`.
    Labels,
    /// No value, or one that is not a decimal floating-point number, or one too large for 64 bits.
    Value,
    /// Text after the value and timestamp that is not an exemplar.
    Trailing,
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLong => "line longer than the limit",
            Self::NotUtf8 => "not UTF-8",
            Self::Name => "does not begin with a plain metric name",
            Self::Labels => "malformed label set",
            Self::Value => "no readable number",
            Self::Trailing => "unexpected text after the value",
        })
    }
}

/// What follows the name on a sample line.
pub(super) struct Rest<'page> {
    pub(super) labels: Labels<'page>,
    pub(super) value: f64,
    pub(super) timestamp_ms: Option<i64>,
}

/// Takes apart what follows the metric name. `seconds`: timestamps are seconds (OpenMetrics), else milliseconds.
pub(super) fn parse_rest(after_name: &[u8], seconds: bool) -> Result<Rest<'_>, DropReason> {
    let text = std::str::from_utf8(after_name).map_err(|_| DropReason::NotUtf8)?;
    let text = trim_start(text);
    let (labels, text) = match text.strip_prefix('{') {
        Some(inside) => parse_labels(inside)?,
        None => (Labels::default(), text),
    };
    let (value, text) = next_token(text);
    let value = parse_value(value).ok_or(DropReason::Value)?;
    let (timestamp, text) = next_token(text);
    let (timestamp_ms, text) = match timestamp {
        "" => return Ok(Rest { labels, value, timestamp_ms: None }),
        "#" => return Ok(Rest { labels, value, timestamp_ms: None }),
        written => (parse_timestamp(written, seconds), trim_start(text)),
    };
    match text.as_bytes().first() {
        None | Some(b'#') => Ok(Rest { labels, value, timestamp_ms }),
        Some(_) => Err(DropReason::Trailing),
    }
}

fn parse_labels(inside: &str) -> Result<(Labels<'_>, &str), DropReason> {
    let mut rest = inside;
    loop {
        rest = trim_start(rest);
        if let Some(after) = rest.strip_prefix('}') {
            let length = inside.len() - rest.len();
            return Ok((Labels(&inside[..length]), after));
        }
        let name_length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        if name_length == 0 || rest.as_bytes()[0].is_ascii_digit() {
            return Err(DropReason::Labels);
        }
        let after_equals = trim_start(&rest[name_length..]).strip_prefix('=').ok_or(DropReason::Labels)?;
        let quoted = trim_start(after_equals).strip_prefix('"').ok_or(DropReason::Labels)?;
        let end = closing_quote(quoted.as_bytes()).ok_or(DropReason::Labels)?;
        rest = trim_start(&quoted[end + 1..]);
        rest = match rest.as_bytes().first() {
            Some(b',') => &rest[1..],
            Some(b'}') => rest,
            _ => return Err(DropReason::Labels),
        };
    }
}

/// Where the quote is that ends a label value, past any escaped ones.
fn closing_quote(value: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', value.get(at..)?)?;
        if value[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(escaped @ ('\\' | '"')) => plain.push(escaped),
                // Not an escape of the format: both characters are data, as the reference parsers read it.
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            (other, false) => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn next_token(text: &str) -> (&str, &str) {
    let text = trim_start(text);
    let end = memchr2(b' ', b'\t', text.as_bytes()).unwrap_or(text.len());
    text.split_at(end)
}

/// A decimal float, `NaN` or an infinity in any case. Overflow is an error: a count that became infinite is not a count.
fn parse_value(token: &str) -> Option<f64> {
    let value: f64 = token.parse().ok()?;
    let spelled_out = token.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    (value.is_finite() || value.is_nan() || spelled_out).then_some(value)
}

/// A malformed timestamp costs the timestamp, not the value.
fn parse_timestamp(token: &str, seconds: bool) -> Option<i64> {
    if !seconds {
        return token.parse().ok();
    }
    let milliseconds = token.parse::<f64>().ok()? * 1000.0;
    // 2^63 is exact as f64: beyond it the cast would saturate and lie.
    (milliseconds.abs() < 9.223_372_036_854_775e18).then_some(milliseconds as i64)
}
