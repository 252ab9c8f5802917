//! The one writer of a pool's pickers.
//!
//! What one source tells may change what another one counts, so all writers of a pool are kept together under a lock, which is held
//! for as long as a few numbers take to add up. Rises are written before falls: a request that changes its source may be counted
//! twice for a moment, never not at all.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use weir_datastore::stream::{HEARTBEAT, LatencyFrame, PickerFrame};
use weir_datastore::{FailureKind, PickerLoad, PickerWriter};

use super::attribution::{Attribution, Name, Share};

/// Pickers of one frame whose measurements are looked at.
const MOST_PICKERS: usize = 1024;

/// The pickers of one pool.
#[derive(Debug, Default)]
pub(crate) struct Book {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    attribution: Attribution,
    writers: BTreeMap<Name, Slot>,
}

#[derive(Debug)]
struct Slot {
    writer: PickerWriter,
    written: Option<PickerLoad>,
    /// When a picker behind the source was last written down as unreadable.
    complained_at: Option<Instant>,
}

impl Book {
    /// From now on these are the pool's sources.
    pub(crate) fn configure(&self, sources: impl Iterator<Item = Name>, now: Instant) {
        let mut inner = self.lock();
        inner.attribution.configure(sources);
        inner.write(now);
        let Inner { attribution, writers } = &mut *inner;
        writers.retain(|source, _| attribution.knows(source));
    }

    /// A source has its writer.
    pub(crate) fn add(&self, writer: PickerWriter) {
        let slot = Slot { writer, written: None, complained_at: None };
        self.lock().writers.insert(slot.writer.key().name.clone(), slot);
    }

    /// The page of the Go picker `source` was read; it is read again after `interval`.
    pub(crate) fn read(&self, source: &Name, load: PickerLoad, interval: Duration, now: Instant) {
        let mut inner = self.lock();
        // It may have been a stream before.
        inner.attribution.lost(source);
        if let Some(slot) = inner.writers.get_mut(source) {
            slot.writer.succeeded(load, interval);
            slot.written = None;
        }
        inner.write(now);
    }

    /// A frame of the stream `source` tells of `pickers`.
    pub(crate) fn told(&self, source: &Name, pickers: &[PickerFrame], now: Instant) {
        let mut loads: HashMap<Name, Option<PickerLoad>> = HashMap::with_capacity(pickers.len());
        for picker in pickers {
            loads.insert(picker.name.clone(), picker.load(now));
        }
        let mut inner = self.lock();
        inner.attribution.told(source, loads, now);
        inner.write(now);
    }

    /// A frame of the stream `source` tells what pickers measured; false where something of it cannot be true, and is passed over.
    pub(crate) fn measured(&self, source: &Name, told: Vec<LatencyFrame>, now: Instant) -> bool {
        if told.is_empty() {
            return true;
        }
        let inner = self.lock();
        let Some(slot) = inner.writers.get(source) else { return true };
        let mut sound = true;
        for frame in told.into_iter().take(MOST_PICKERS) {
            match frame.into_measured(now) {
                // One in this process writes for itself.
                Some((picker, measured)) => slot.writer.measured(&picker, measured),
                None => sound = false,
            }
        }
        sound
    }

    /// `source` cannot be read: what it told no longer counts.
    pub(crate) fn failed(&self, source: &Name, kind: FailureKind, message: &str, now: Instant) {
        let mut inner = self.lock();
        inner.attribution.lost(source);
        if let Some(slot) = inner.writers.get_mut(source) {
            slot.writer.failed(kind, message, now);
            slot.written = None;
        }
        inner.write(now);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes what has changed of the shares of streams.
    fn write(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for (source, slot) in &mut self.writers {
            match self.attribution.share(source, now) {
                Some(Share::Known(load)) if slot.written != Some(load) => changed.push((load, slot)),
                Some(Share::Known(_)) | None => {}
                Some(Share::Unreadable { picker, silent_for }) => {
                    // At most as often as a source that cannot be read itself would be written down.
                    if slot.complained_at.is_none_or(|at| now.saturating_duration_since(at) >= HEARTBEAT) {
                        let silence = match silent_for {
                            Some(age) => format!("has told nothing for {:.1} s", age.as_secs_f64()),
                            None => "has never told anything".to_owned(),
                        };
                        let message = format!(
                            "{source}: its picker {picker} {silence}: look at that picker, and at why {source} cannot read it"
                        );
                        slot.writer.failed(FailureKind::Timeout, &message, now);
                        slot.complained_at = Some(now);
                        slot.written = None;
                    }
                }
            }
        }
        let falls = |load: &PickerLoad, slot: &Slot| load.held < slot.written.and_then(|written| written.held);
        changed.sort_by_key(|(load, slot)| falls(load, slot));
        for (load, slot) in changed {
            slot.writer.succeeded(load, HEARTBEAT);
            slot.written = Some(load);
            slot.complained_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_datastore::latency::{Latency, ModelLatencies};
    use weir_datastore::{Datastore, PoolId, PoolSpec, Selector, datastore};

    use super::*;

    fn frame(name: &str, age_ms: u64, held: Option<u64>) -> PickerFrame {
        PickerFrame { name: name.into(), age_ms, held, in_flight: None, arrivals: 0, prompt_tokens: None }
    }

    fn held(store: &Datastore, now: Instant) -> Result<f64, String> {
        let snapshot = store.snapshot(&PoolId::new("default", "p"), &Selector::everything(), now).unwrap();
        snapshot.held.map(|held| held.value).map_err(|unknown| unknown.to_string())
    }

    fn book(sources: &[&str], now: Instant) -> (Datastore, weir_datastore::TopologyWriter, Book) {
        let (store, mut topology) = datastore();
        let pickers = Some(sources.iter().map(|source| Name::from(*source)).collect());
        let change = topology.replace_all(vec![PoolSpec { pickers, ..PoolSpec::empty(PoolId::new("default", "p")) }], now);
        let book = Book::default();
        book.configure(sources.iter().map(|source| Name::from(*source)), now);
        change.added_pickers.into_iter().for_each(|writer| book.add(writer));
        (store, topology, book)
    }

    #[tokio::test]
    async fn pages_and_streams_add_up_and_what_two_tell_counts_once() {
        let now = Instant::now() + Duration::from_secs(60);
        let (a, b, go) = (Name::from("a"), Name::from("b"), Name::from("go"));
        let (store, _topology, book) = book(&["a", "b", "go"], now);
        book.told(&a, &[frame("x", 100, Some(3)), frame("go", 5, Some(100))], now);
        book.told(&b, &[frame("x", 50, Some(4)), frame("y", 50, None)], now);
        assert!(held(&store, now).is_err(), "the Go picker has not been read");
        book.read(
            &go,
            PickerLoad { read_at: now, held: Some(20), in_flight: None, arrivals: 1, prompt_tokens: None },
            HEARTBEAT,
            now,
        );
        assert_eq!(held(&store, now), Ok(24.0));
        // A picker behind a stream falls silent.
        book.told(&b, &[frame("x", 50, Some(4)), frame("y", 3001, None)], now);
        let later = now + Duration::from_millis(2_980);
        book.told(&a, &[frame("x", 10, Some(1))], later);
        book.read(
            &go,
            PickerLoad { read_at: later, held: Some(20), in_flight: None, arrivals: 1, prompt_tokens: None },
            HEARTBEAT,
            later,
        );
        let unknown = held(&store, later).unwrap_err();
        assert!(unknown.contains("b: its picker y has told nothing for 6.0 s"), "{unknown}");
        // And the stream itself.
        book.failed(&b, FailureKind::Timeout, "b is silent", later);
        let unknown = held(&store, later + Duration::from_millis(100)).unwrap_err();
        assert!(unknown.contains("b is silent"), "{unknown}");
        book.told(&b, &[], later);
        assert_eq!(held(&store, later), Ok(21.0));
    }

    #[tokio::test]
    async fn a_picker_that_changes_its_source_is_never_missing_and_a_rise_is_told() {
        let now = Instant::now() + Duration::from_secs(60);
        let (store, _topology, book) = book(&["a", "b"], now);
        let mut changes = store.changes(&PoolId::new("default", "p")).unwrap();
        book.told(&"a".into(), &[frame("x", 0, Some(0))], now);
        book.told(&"b".into(), &[frame("x", 0, Some(0))], now);
        tokio::time::timeout(Duration::from_millis(10), changes.held_rose()).await.expect_err("nothing is held");
        book.told(&"b".into(), &[frame("x", 0, Some(6))], now + HEARTBEAT);
        tokio::time::timeout(Duration::from_millis(10), changes.held_rose()).await.expect("told at once, by whoever counts it");
        assert_eq!(held(&store, now + HEARTBEAT), Ok(6.0));
        // `a` no longer tells of it.
        book.told(&"a".into(), &[], now + HEARTBEAT);
        assert_eq!(held(&store, now + HEARTBEAT), Ok(6.0));
    }

    #[test]
    fn what_pickers_measured_is_written_once_each_and_what_cannot_be_is_told() {
        let now = Instant::now() + Duration::from_secs(60);
        let (store, _topology, book) = book(&["s", "t"], now);
        let frame = |picker: &str, age_ms, place| LatencyFrame {
            picker: picker.into(),
            age_ms,
            models: vec![ModelLatencies { model: "m".into(), ttft: vec![(place, 50)], ..ModelLatencies::default() }],
        };
        assert!(book.measured(&"s".into(), vec![frame("a", 2_000, 200)], now));
        assert!(book.measured(&"t".into(), vec![frame("a", 1_000, 250), frame("b", 1_000, 250)], now));
        assert!(book.measured(&"s".into(), vec![frame("a", 3_000, 10)], now), "older than what is known");
        assert!(!book.measured(&"s".into(), vec![frame("c", 0, 446)], now), "there is no such bucket");
        assert!(!book.measured(&"s".into(), vec![frame("c", 31_000, 1)], now), "of no use");
        let snapshot = store.snapshot(&PoolId::new("default", "p"), &Selector::everything(), now).unwrap();
        assert_eq!(snapshot.pickers_measured().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a", "b"]);
        let (median, as_of) = snapshot.latency(Latency::TimeToFirstToken, 0.5).unwrap();
        assert!((1.6..1.9).contains(&median.value), "{median:?}");
        assert_eq!(as_of, now - Duration::from_secs(1));
    }
}
