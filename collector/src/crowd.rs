//! How often endpoints at work may be read while there are many of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The endpoints at work. Clones share their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    working: Arc<AtomicUsize>,
    most_reads: Option<NonZeroU32>,
}

impl Crowd {
    /// Nobody works yet. `most_reads`: how many pages of endpoints at work are to be read a second; none: as many as there are.
    pub(crate) fn new(most_reads: Option<NonZeroU32>) -> Self {
        Self { working: Arc::default(), most_reads }
    }

    /// How many intervals lie between two reads of one endpoint: 1 until all of them together would be too many reads.
    pub(crate) fn stretch(&self, interval: Duration) -> u32 {
        let Some(most) = self.most_reads else { return 1 };
        let within_one = f64::from(most.get()) * interval.as_secs_f64();
        (self.working.load(Ordering::Relaxed) as f64 / within_one).ceil().max(1.0) as u32
    }

    /// One more endpoint, which does not work.
    pub(crate) fn member(&self) -> Member {
        Member { crowd: self.clone(), works: false }
    }
}

/// An endpoint of the crowd, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    crowd: Crowd,
    works: bool,
}

impl Member {
    /// Whether it is at work.
    pub(crate) fn set(&mut self, works: bool) {
        match (std::mem::replace(&mut self.works, works), works) {
            (false, true) => drop(self.crowd.working.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.crowd.working.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_stretched_while_too_many_work() {
        let interval = Duration::from_millis(50);
        let crowd = Crowd::new(NonZeroU32::new(2_000));
        let mut members: Vec<_> = (0..1000).map(|_| crowd.member()).collect();
        assert_eq!(crowd.stretch(interval), 1);
        for (working, stretched) in [(100, 1), (101, 2), (200, 2), (1000, 10)] {
            members.iter_mut().take(working).for_each(|member| member.set(true));
            assert_eq!(crowd.stretch(interval), stretched, "{working}");
        }
        assert_eq!(Crowd::new(None).stretch(interval), 1);
        members.iter_mut().take(500).for_each(|member| member.set(false));
        members.iter_mut().take(500).for_each(|member| member.set(false));
        assert_eq!(crowd.stretch(interval), 5);
        drop(members);
        assert_eq!(crowd.stretch(interval), 1, "whoever goes works no more");
    }
}
