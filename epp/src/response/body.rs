//! A response's body as it passes.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memchr;

use super::follower::{Event, Field, Follower};
use super::frames::Frames;
use super::usage::{Counts, counts_of};
use crate::Usage;
use crate::request::Method;

/// A `usage` object longer than this is passed over; real ones take a few hundred bytes.
const MAX_USAGE: usize = 16 << 10;
/// What begins the lines of a stream of events that matter.
const DATA: &[u8] = b"data:";

/// How a body is to be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// One JSON document.
    Document,
    /// `text/event-stream`, a JSON document in each `data:` line.
    Events,
    /// Frames of gRPC, of answers to this method.
    Frames(Method),
    /// Not at all: compressed, or of another kind.
    #[default]
    Opaque,
}

impl Framing {
    /// By the headers of a response. `streaming`: what the request asked for, where the response does not say.
    pub fn of(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>, streaming: bool) -> Self {
        let has = |part: &[u8]| content_type.is_some_and(|kind| memchr::memmem::find(&kind.to_ascii_lowercase(), part).is_some());
        if content_encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
            Self::Opaque
        } else if has(b"text/event-stream") || (content_type.is_none() && streaming) {
            Self::Events
        } else if has(b"json") || content_type.is_none() {
            Self::Document
        } else {
            Self::Opaque
        }
    }
}

/// A model's name to be put back: the server's for the one that was asked for.
#[derive(Clone, Debug)]
pub struct ModelBack {
    served: Arc<str>,
    /// The other one as a JSON string.
    asked: Vec<u8>,
    /// No way to write the served one takes more bytes.
    longest: usize,
}

impl ModelBack {
    /// Where a server says `served`, the client is to read `asked`.
    pub fn new(served: Arc<str>, asked: &str) -> Self {
        let longest = 6 * served.len() + 2;
        Self { served, asked: serde_json::Value::from(asked).to_string().into_bytes(), longest }
    }

    /// Whether this JSON string is the served model.
    fn is_served(&self, raw: &[u8]) -> bool {
        raw.len() <= self.longest && serde_json::from_slice::<Cow<'_, str>>(raw).is_ok_and(|name| *name == *self.served)
    }
}

/// Where a line of events is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    /// So many bytes of `data:` were seen.
    Begin(usize),
    Data,
    Other,
}

/// Follows a body.
#[derive(Clone, Debug)]
pub struct ResponseBody {
    framing: Framing,
    line: Line,
    follower: Follower,
    model_back: Option<ModelBack>,
    /// The beginning of a model's name that goes on in the next piece.
    held: Vec<u8>,
    holding: bool,
    /// The beginning of a `usage` object that goes on in the next piece.
    counting: Vec<u8>,
    is_counting: bool,
    counts: Counts,
    frames: Option<Frames>,
}

/// One piece on its way.
struct Passing<'a> {
    piece: &'a [u8],
    /// What is passed on, if the piece does not pass as it is.
    edited: Option<Vec<u8>>,
    /// Bytes of the piece before this are in `edited` or held.
    settled: usize,
    /// Where the `usage` object goes on in this piece.
    counted_from: usize,
}

impl Passing<'_> {
    /// Makes what is passed on differ from the piece from `to` on.
    fn settle(&mut self, to: usize) -> &mut Vec<u8> {
        let edited = self.edited.get_or_insert_default();
        edited.extend_from_slice(&self.piece[self.settled..to]);
        self.settled = to;
        edited
    }
}

impl ResponseBody {
    /// Follows a body of this framing. `model_back`: whether a name is to be put back in it.
    pub fn new(framing: Framing, model_back: Option<ModelBack>) -> Self {
        Self {
            framing,
            line: Line::Begin(0),
            follower: Follower::default(),
            model_back,
            held: Vec::new(),
            holding: false,
            counting: Vec::new(),
            is_counting: false,
            counts: Counts::default(),
            frames: match framing {
                Framing::Frames(method) => Some(Frames::new(method)),
                _ => None,
            },
        }
    }

    /// The server's count of tokens, the last one told.
    pub fn usage(&self) -> Option<Usage> {
        self.counts.usage()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether pieces may come out changed.
    pub fn replaces(&self) -> bool {
        self.model_back.is_some()
    }

    /// The next piece, and what is passed on for it. At the end of the body [`Self::rest`] must follow.
    pub fn pass(&mut self, piece: Vec<u8>) -> Vec<u8> {
        if self.framing == Framing::Opaque || piece.is_empty() {
            return piece;
        }
        if let Some(frames) = &mut self.frames {
            frames.follow(&piece, &mut self.counts);
            return piece;
        }
        let mut passing = Passing { piece: &piece, edited: self.holding.then(Vec::new), settled: 0, counted_from: 0 };
        match self.framing {
            Framing::Events => self.follow_lines(&mut passing),
            _ => self.follow(&mut passing, 0, piece.len()),
        }
        if self.holding {
            self.held.extend_from_slice(&piece[passing.settled..]);
            passing.settled = piece.len();
            if self.model_back.as_ref().is_none_or(|back| self.held.len() > back.longest) {
                self.release(&mut passing);
            }
        }
        if self.is_counting {
            self.count(&piece[passing.counted_from..]);
        }
        if passing.edited.is_none() {
            return piece;
        }
        std::mem::take(passing.settle(piece.len()))
    }

    /// What was held at the end of the body: the beginning of a name that never ended.
    pub fn rest(&mut self) -> Vec<u8> {
        self.holding = false;
        std::mem::take(&mut self.held)
    }

    /// Bytes kept from one piece to the next.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len() + self.counting.len() + self.frames.as_ref().map_or(0, Frames::held_bytes)
    }

    fn follow_lines(&mut self, passing: &mut Passing<'_>) {
        let piece = passing.piece;
        let mut position = 0;
        while position < piece.len() {
            match self.line {
                Line::Begin(seen) => {
                    let byte = piece[position];
                    self.line = match () {
                        () if byte == b'\n' => Line::Begin(0),
                        () if byte != DATA[seen] => Line::Other,
                        () if seen + 1 == DATA.len() => {
                            self.follower = Follower::default();
                            Line::Data
                        }
                        () => Line::Begin(seen + 1),
                    };
                    position += 1;
                }
                Line::Data | Line::Other => {
                    let newline = memchr(b'\n', &piece[position..]).map(|at| position + at);
                    if self.line == Line::Data {
                        self.follow(passing, position, newline.unwrap_or(piece.len()));
                    }
                    let Some(newline) = newline else { return };
                    // No document goes on over lines.
                    self.release(passing);
                    self.is_counting = false;
                    self.line = Line::Begin(0);
                    position = newline + 1;
                }
            }
        }
    }

    /// Follows the document within `piece[from..to]`.
    fn follow(&mut self, passing: &mut Passing<'_>, from: usize, to: usize) {
        let mut position = from;
        while let Some(event) = self.follower.next(&passing.piece[..to], position) {
            position = match event {
                Event::Begins(Field::Model, at) => {
                    if self.model_back.is_some() {
                        passing.settle(at);
                        self.holding = true;
                    }
                    at + 1
                }
                Event::Ends(Field::Model, at) => {
                    if self.holding {
                        self.put_back(passing, at);
                    }
                    at
                }
                Event::Begins(Field::Usage, at) => {
                    self.counting.clear();
                    self.is_counting = true;
                    passing.counted_from = at;
                    at + 1
                }
                Event::Ends(Field::Usage, at) => {
                    if self.is_counting {
                        self.count(&passing.piece[passing.counted_from..at]);
                    }
                    if std::mem::take(&mut self.is_counting) {
                        self.counts.update(counts_of(&self.counting));
                    }
                    at
                }
            };
        }
    }

    /// The model's value has ended before `at`.
    fn put_back(&mut self, passing: &mut Passing<'_>, at: usize) {
        self.held.extend_from_slice(&passing.piece[passing.settled..at]);
        passing.settled = at;
        if let Some(back) = self.model_back.as_ref().filter(|back| back.is_served(&self.held)) {
            self.held.clone_from(&back.asked);
        }
        self.release(passing);
    }

    /// Passes on what was held.
    fn release(&mut self, passing: &mut Passing<'_>) {
        if std::mem::take(&mut self.holding) {
            passing.edited.get_or_insert_default().append(&mut self.held);
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        if self.counting.len() + bytes.len() > MAX_USAGE {
            self.is_counting = false;
            self.counting.clear();
        } else {
            self.counting.extend_from_slice(bytes);
        }
    }
}
