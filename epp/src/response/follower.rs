//! Follows a JSON document fed in pieces, and tells where the values of two fields lie: `model` and `usage` (SGLang's `meta_info`), at
//! the top or within `response` or `message`, the objects that events of the responses API and of Anthropic wrap theirs in.
//!
//! It checks nothing: a document that is none leads it astray, but never out of its bounds.

use memchr::memchr2;

/// A field that is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Field {
    /// `model`, if its value is a string.
    Model,
    /// `usage`, if its value is an object.
    Usage,
}

/// What happened at a byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// The field's value begins with the byte at this position.
    Begins(Field, usize),
    /// It ended before the byte at this position.
    Ends(Field, usize),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Key {
    Model,
    Usage,
    Wrapper,
    #[default]
    Other,
}

/// The longest name that matters is `meta_info`.
const LONGEST_KEY: usize = 9;

/// The state between two pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    /// Brackets open.
    depth: u32,
    /// Depth of the object whose fields are looked at: 1, or 2 within `response` or `message`; 0 where there is none.
    level: u32,
    /// Within a string, and whether after a backslash in it.
    string: Option<bool>,
    /// Whether that string is a key of the object looked at.
    in_key: bool,
    /// Whether the next string there is a key.
    key_next: bool,
    /// The key as read so far.
    key: [u8; LONGEST_KEY],
    key_len: usize,
    /// The last key read, whose value follows.
    last: Key,
    /// Whether a value follows now.
    value_next: bool,
    /// The value being told, and the depth at which it ends.
    telling: Option<(Field, u32)>,
}

impl Follower {
    /// The next event of `bytes` from `position` on; nothing once they are used up.
    pub(super) fn next(&mut self, bytes: &[u8], mut position: usize) -> Option<Event> {
        while let Some(&byte) = bytes.get(position) {
            if let Some(escaped) = self.string {
                if escaped {
                    self.string = Some(false);
                    self.take_key(b'\\');
                    position += 1;
                    continue;
                }
                let rest = &bytes[position..];
                let run = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                if self.in_key {
                    rest[..run].iter().for_each(|byte| self.take_key(*byte));
                }
                position += run;
                match bytes.get(position) {
                    None => return None,
                    Some(b'\\') => self.string = Some(true),
                    Some(_) => {
                        self.string = None;
                        if let Some(event) = self.string_ended(position + 1) {
                            return Some(event);
                        }
                    }
                }
                position += 1;
                continue;
            }
            match byte {
                b'"' => {
                    if let Some(event) = self.string_begins(position) {
                        return Some(event);
                    }
                }
                b'{' | b'[' => {
                    if let Some(event) = self.opens(byte, position) {
                        return Some(event);
                    }
                }
                b'}' | b']' => {
                    if let Some(event) = self.closes(position + 1) {
                        return Some(event);
                    }
                }
                b':' if self.depth == self.level => self.value_next = true,
                b',' if self.depth == self.level => {
                    self.key_next = true;
                    self.value_next = false;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == self.level => self.value_next = false,
                _ => {}
            }
            position += 1;
        }
        None
    }

    fn take_key(&mut self, byte: u8) {
        if self.in_key {
            if let Some(place) = self.key.get_mut(self.key_len) {
                *place = byte;
            }
            // One longer than any that matters stays so.
            self.key_len = (self.key_len + 1).min(LONGEST_KEY + 1);
        }
    }

    fn string_begins(&mut self, position: usize) -> Option<Event> {
        self.string = Some(false);
        if self.depth != self.level || self.level == 0 {
            return None;
        }
        if self.key_next {
            self.in_key = true;
            self.key_next = false;
            self.key_len = 0;
            return None;
        }
        let value = std::mem::take(&mut self.value_next);
        (value && self.last == Key::Model).then(|| {
            self.telling = Some((Field::Model, self.depth));
            Event::Begins(Field::Model, position)
        })
    }

    fn string_ended(&mut self, after: usize) -> Option<Event> {
        if std::mem::take(&mut self.in_key) {
            self.last = match self.key.get(..self.key_len) {
                Some(b"model") => Key::Model,
                Some(b"usage" | b"meta_info") => Key::Usage,
                Some(b"response" | b"message") => Key::Wrapper,
                _ => Key::Other,
            };
            return None;
        }
        self.told(Field::Model, after)
    }

    fn opens(&mut self, bracket: u8, position: usize) -> Option<Event> {
        let value = std::mem::take(&mut self.value_next);
        let looked_at = self.depth == self.level;
        let object = bracket == b'{';
        self.depth = self.depth.saturating_add(1);
        if self.depth == 1 && object {
            self.enter();
        } else if looked_at && value && object && self.level > 0 {
            match self.last {
                Key::Usage => {
                    self.telling = Some((Field::Usage, self.depth - 1));
                    return Some(Event::Begins(Field::Usage, position));
                }
                Key::Wrapper if self.level == 1 => self.enter(),
                _ => {}
            }
        }
        None
    }

    fn enter(&mut self) {
        self.level = self.depth;
        self.key_next = true;
        self.last = Key::Other;
    }

    fn closes(&mut self, after: usize) -> Option<Event> {
        if self.depth == self.level {
            self.level = self.level.saturating_sub(1);
            self.value_next = false;
            self.key_next = false;
        }
        self.depth = self.depth.saturating_sub(1);
        self.told(Field::Usage, after)
    }

    fn told(&mut self, field: Field, after: usize) -> Option<Event> {
        let ended = self.telling == Some((field, self.depth));
        ended.then(|| {
            self.telling = None;
            Event::Ends(field, after)
        })
    }
}
