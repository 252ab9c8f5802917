//! Bodies of pages, bounded in memory.
//!
//! Nothing limits how many scrapes wait at a time: a task that waits for a connection or for headers costs a few kilobytes, and any
//! shared limit on waiting would let hung endpoints use it up while healthy ones queue behind them. What costs memory are bodies,
//! and there are two kinds. A page up to [`SMALL`] takes part in nothing shared, so no other endpoint can delay it; that is every
//! model server's (57 to 180 KB, 350 KB with many ranks). One that grows larger needs one of [`LARGE_AT_ONCE`] permits and waits for
//! it within its own time: large pages delay only each other, each for no longer than one scrape may take. So bodies are at most
//! `endpoints × SMALL + LARGE_AT_ONCE × limit`, and in practice one page per scrape under way.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use flate2::write::GzDecoder;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Pages up to this many bytes are read without a permit.
const SMALL: usize = 512 * 1024;
/// Pages larger than [`SMALL`] that are read at a time.
const LARGE_AT_ONCE: usize = 8;
/// Buffers kept for the next page, none larger than [`SMALL`].
const SPARE_BUFFERS: usize = 32;
/// Compressed bytes that are unpacked at a time; deflate makes at most 1,032 bytes of one.
const COMPRESSED_STEP: usize = 256;
const DEFLATE_RATIO: usize = 1032;

/// What all bodies share.
#[derive(Debug)]
pub(crate) struct Bodies {
    limit: usize,
    large: Semaphore,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

/// Why a body cannot be used.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Larger than the limit, packed or unpacked.
    TooLarge,
    /// The packed bytes are broken or cut off.
    Broken(io::Error),
}

impl Bodies {
    /// Bodies of at most `limit` bytes each.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, large: Semaphore::new(LARGE_AT_ONCE), spare: Mutex::new(Vec::new()) }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn begin(&self, encoding: Encoding) -> Body<'_> {
        let bytes = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let page = Bounded { bytes, limit: self.limit, overflown: false };
        let unpacking = match encoding {
            Encoding::Identity => Unpacking::Identity(page),
            Encoding::Gzip => Unpacking::Gzip(Box::new(GzDecoder::new(page))),
        };
        Body { bodies: self, unpacking, permit: None, packed: 0 }
    }

    /// Gives the buffer of a page back.
    pub(crate) fn end(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.capacity() <= SMALL && spare.len() < SPARE_BUFFERS {
            spare.push(bytes);
        }
    }
}

/// A body that is being read.
#[derive(Debug)]
pub(crate) struct Body<'bodies> {
    bodies: &'bodies Bodies,
    unpacking: Unpacking,
    permit: Option<SemaphorePermit<'bodies>>,
    packed: usize,
}

impl<'bodies> Body<'bodies> {
    /// Adds what came; waits where the page is large and too many large ones are being read.
    pub(crate) async fn push(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        self.packed += chunk.len();
        if self.packed > self.bodies.limit {
            return Err(BodyError::TooLarge);
        }
        let (step, growth) = match self.unpacking {
            Unpacking::Identity(_) => (chunk.len().max(1), 1),
            Unpacking::Gzip(_) => (COMPRESSED_STEP, DEFLATE_RATIO),
        };
        for part in chunk.chunks(step) {
            if self.permit.is_none() && self.unpacking.page().bytes.len() + part.len() * growth > SMALL {
                // Never closed: there is always an answer.
                self.permit = self.bodies.large.acquire().await.ok();
            }
            let written = match &mut self.unpacking {
                Unpacking::Identity(page) => page.write_all(part),
                Unpacking::Gzip(decoder) => decoder.write_all(part),
            };
            self.unpacking.settle(written)?;
        }
        Ok(())
    }

    /// The whole body, and the permit that it needs while it is in use.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Option<SemaphorePermit<'bodies>>), BodyError> {
        if let Unpacking::Gzip(decoder) = &mut self.unpacking {
            let finished = decoder.try_finish();
            self.unpacking.settle(finished)?;
        }
        Ok((std::mem::take(&mut self.unpacking.page_mut().bytes), self.permit))
    }
}

#[derive(Debug)]
enum Unpacking {
    Identity(Bounded),
    Gzip(Box<GzDecoder<Bounded>>),
}

impl Unpacking {
    fn page(&self) -> &Bounded {
        match self {
            Self::Identity(page) => page,
            Self::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn page_mut(&mut self) -> &mut Bounded {
        match self {
            Self::Identity(page) => page,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }

    fn settle(&self, written: io::Result<()>) -> Result<(), BodyError> {
        match written {
            _ if self.page().overflown => Err(BodyError::TooLarge),
            Ok(()) => Ok(()),
            Err(error) => Err(BodyError::Broken(error)),
        }
    }
}

#[derive(Debug)]
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    overflown: bool,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            self.overflown = true;
            return Err(io::Error::other("larger than the limit"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn both_encodings_give_the_same_page_whatever_the_chunks() {
        let page: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let bodies = Bodies::new(page.len());
        for (encoding, sent) in [(Encoding::Identity, page.clone()), (Encoding::Gzip, packed(&page))] {
            for size in [1000, 4096, 1 << 20] {
                let mut body = bodies.begin(encoding);
                for chunk in sent.chunks(size) {
                    body.push(chunk).await.unwrap();
                }
                assert_eq!(body.finish().unwrap().0, page, "{encoding:?} {size}");
            }
        }
    }

    #[tokio::test]
    async fn a_byte_over_the_limit_is_too_large() {
        let page = vec![b'x'; 100_000];
        let bodies = Bodies::new(page.len() - 1);
        for (encoding, sent) in [(Encoding::Identity, page.clone()), (Encoding::Gzip, packed(&page))] {
            let mut body = bodies.begin(encoding);
            let pushed = body.push(&sent).await;
            let outcome = pushed.and_then(|()| body.finish().map(drop));
            assert!(matches!(outcome, Err(BodyError::TooLarge)), "{encoding:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn cut_off_and_broken_gzip_is_refused() {
        let bodies = Bodies::new(1 << 20);
        let sent = packed(&vec![b'x'; 10_000]);
        let mut cut = bodies.begin(Encoding::Gzip);
        cut.push(&sent[..sent.len() - 9]).await.unwrap();
        assert!(matches!(cut.finish(), Err(BodyError::Broken(_))));
        let mut plain = bodies.begin(Encoding::Gzip);
        let pushed = plain.push(b"vllm:num_requests_running 1\n").await;
        assert!(matches!(pushed, Err(BodyError::Broken(_))), "{pushed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn large_pages_wait_for_each_other_and_small_ones_for_nobody() {
        let bodies = Bodies::new(16 << 20);
        let mut large = Vec::new();
        for _ in 0..LARGE_AT_ONCE {
            let mut body = bodies.begin(Encoding::Identity);
            body.push(&vec![0; SMALL + 1]).await.unwrap();
            large.push(body);
        }
        let mut small = bodies.begin(Encoding::Identity);
        small.push(&vec![0; SMALL]).await.unwrap();
        let mut one_more = bodies.begin(Encoding::Identity);
        let chunk = vec![0; SMALL + 1];
        let waiting = tokio::time::timeout(Duration::from_secs(1), one_more.push(&chunk)).await;
        assert!(waiting.is_err(), "a ninth large page must wait");
        drop(large.pop());
        let mut another = bodies.begin(Encoding::Identity);
        tokio::time::timeout(Duration::from_secs(1), another.push(&chunk)).await.unwrap().unwrap();
    }

    #[test]
    fn few_and_small_buffers_are_kept() {
        let bodies = Bodies::new(1);
        (0..100).for_each(|_| bodies.end(Vec::with_capacity(SMALL)));
        bodies.end(Vec::with_capacity(SMALL + 1));
        let spare = bodies.spare.lock().unwrap();
        assert_eq!(spare.len(), SPARE_BUFFERS);
        assert!(spare.iter().all(|buffer| buffer.capacity() <= SMALL));
    }
}
