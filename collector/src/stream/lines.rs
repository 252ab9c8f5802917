//! Bytes to lines, bounded in memory.

/// Bytes that are kept for the next line, whatever the last one took.
const KEPT: usize = 64 * 1024;

/// Collects bytes until a line is complete.
#[derive(Debug)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Where the first line that was not taken begins.
    start: usize,
    /// Up to here there is no further end of a line.
    searched: usize,
    limit: usize,
}

/// A line is longer than the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooLong;

impl Lines {
    /// Lines of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, searched: 0, limit }
    }

    /// Adds what came. To be called when [`Lines::next`] has nothing more.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.is_empty() {
            // What one long line took is given back.
            self.bytes.shrink_to(KEPT);
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// The next complete line, without its end; none where more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n').map(|offset| self.searched + offset);
        let start = self.start;
        if end.unwrap_or(self.bytes.len()) - start > self.limit {
            return Err(TooLong);
        }
        match end {
            Some(end) => {
                self.start = end + 1;
                self.searched = self.start;
                Ok(Some(&self.bytes[start..end]))
            }
            None => {
                self.searched = self.bytes.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(chunks: &[&[u8]], limit: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next()? {
                found.push(line.to_vec());
            }
        }
        Ok(found)
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        assert_eq!(lines_of(&[b"1234", b"5\n"], 5), Ok(vec![b"12345".to_vec()]));
        assert_eq!(lines_of(&[b"1234", b"56\n"], 5), Err(TooLong));
        assert_eq!(lines_of(&[b"123456"], 5), Err(TooLong), "told before its end comes");
        assert_eq!(lines_of(&[b"\n\n1"], 5), Ok(vec![Vec::new(), Vec::new()]));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_they_are_cut(text in "[ab\n]{0,60}", size in 1_usize..20) {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let whole: Vec<Vec<u8>> = match text.rsplit_once('\n') {
                Some((complete, _)) => complete.split('\n').map(|line| line.as_bytes().to_vec()).collect(),
                None => Vec::new(),
            };
            prop_assert_eq!(lines_of(&chunks, 100).unwrap(), whole);
        }
    }
}
