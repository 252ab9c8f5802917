//! From streams to the loops of endpoints.
//!
//! Every endpoint has a place where streams leave the youngest sample they heard; its loop, the only writer of the endpoint, takes
//! it from there. A loop that is fed does not ask the server; once samples stay away, it does, before the last one is too old.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;
use weir_datastore::stream::SILENCE;
use weir_datastore::{EndpointAddress, EndpointLoad, EndpointWriter, FRESH_AT_LEAST, FRESH_AT_MOST};

use super::metrics::StreamMetrics;

/// A sample that is younger than the known one by no more than this is not written: it may be the same one, told by a weir that
/// heard of it from us, and would go round between the two of us.
const ECHO: Duration = Duration::from_millis(20);
/// Intervals that a stream may name: those that a collector may be given.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(1600));

/// What a stream told of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The sample, with the time at which the page was asked for.
    pub(crate) load: EndpointLoad,
    /// How often the endpoint is read where it is read.
    pub(crate) interval: Duration,
    /// When the frame arrived.
    pub(crate) heard_at: Instant,
}

/// A place for the youngest sample of one endpoint.
type Place = watch::Sender<Option<Arc<Heard>>>;

/// The places of a pool's endpoints.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    places: Mutex<HashMap<EndpointAddress, Place>>,
}

impl Feeds {
    /// What is left for the endpoint at `address`.
    pub(crate) fn of(&self, address: &EndpointAddress) -> watch::Receiver<Option<Arc<Heard>>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(address.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    /// Forgets all places but those of the endpoints at `addresses`.
    pub(crate) fn retain(&self, addresses: &HashSet<&EndpointAddress>) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).retain(|address, _| addresses.contains(address));
    }

    /// Leaves a sample for the endpoint at `address`, if there is one and the sample is younger than what is left there.
    pub(crate) fn leave(&self, address: &EndpointAddress, heard: Heard) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = places.get(address) else { return };
        place.send_if_modified(|left| {
            let younger = left.as_ref().is_none_or(|left| heard.load.scraped_at > left.load.scraped_at);
            if younger {
                *left = Some(Arc::new(heard));
            }
            younger
        });
    }
}

/// The end of a feed at an endpoint's loop.
pub(crate) struct Feed {
    place: watch::Receiver<Option<Arc<Heard>>>,
    /// Before a sample is too old, so much time is left to read the endpoint here.
    lead: Duration,
    /// Whether the last word was a stream's.
    fed: bool,
    complained: bool,
    metrics: StreamMetrics,
}

impl Feed {
    /// The feed at `place`, of an endpoint whose page may take `timeout`.
    pub(crate) fn new(place: watch::Receiver<Option<Arc<Heard>>>, timeout: Duration, metrics: StreamMetrics) -> Self {
        Self { place, lead: timeout, fed: false, complained: false, metrics }
    }

    /// The next sample that a stream leaves. Nothing is lost where the future is dropped.
    pub(crate) async fn next(&mut self) -> Arc<Heard> {
        loop {
            if self.place.changed().await.is_err() {
                // The endpoint is being removed.
                std::future::pending::<()>().await;
            }
            if let Some(heard) = self.place.borrow_and_update().clone() {
                return heard;
            }
        }
    }

    /// Writes what was heard, if it is of use. The time until which the endpoint need not be read here; none where it has to be
    /// read as if nothing had been heard.
    pub(crate) fn take(&mut self, heard: &Heard, writer: &mut EndpointWriter, now: Instant) -> Option<Instant> {
        let key = writer.key();
        if let Some(engine) = key.metrics.engine.filter(|engine| *engine != heard.load.engine) {
            if !std::mem::replace(&mut self.complained, true) {
                let (configured, told) = (engine.name(), heard.load.engine.name());
                warn!(pool = %key.pool, address = %key.address, configured, told, "a stream tells of another engine, its samples are not used: configure both weirs alike");
            }
            return None;
        }
        let known = writer.status().load.as_ref().map(|load| load.scraped_at);
        let interval = heard.interval.clamp(INTERVALS.0, INTERVALS.1);
        let sample = Sample { read_at: heard.load.scraped_at, interval, heard_at: heard.heard_at };
        let verdict = sample.judge(known, self.lead, now);
        if verdict.write {
            writer.succeeded(heard.load.clone(), interval);
        }
        if verdict.until.is_some() {
            self.fed = true;
        }
        verdict.until
    }

    /// The endpoint is asked here.
    pub(crate) fn asking(&mut self) {
        if std::mem::take(&mut self.fed) {
            self.metrics.fallbacks.inc();
        }
    }
}

/// When a sample was made and heard of.
#[derive(Clone, Copy, Debug)]
struct Sample {
    read_at: Instant,
    interval: Duration,
    heard_at: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Verdict {
    /// It is younger than what is known.
    write: bool,
    /// So long it is good enough for the endpoint not to be asked.
    until: Option<Instant>,
}

impl Sample {
    /// What to do with it where the youngest sample is the `known` one.
    fn judge(self, known: Option<Instant>, lead: Duration, now: Instant) -> Verdict {
        let fresh = (3 * self.interval).clamp(FRESH_AT_LEAST, FRESH_AT_MOST);
        if now.saturating_duration_since(self.read_at) >= fresh {
            return Verdict { write: false, until: None };
        }
        // Also a sample that is older than ours tells that somebody else reads the endpoint: we need not go on.
        let until = (self.read_at + fresh - lead.min(fresh / 2)).min(self.heard_at + SILENCE);
        Verdict { write: known.is_none_or(|known| self.read_at > known + ECHO), until: Some(until).filter(|until| *until > now) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_datastore::engine::{PageClock, PageMemory, PageReader};
    use weir_datastore::page::Format;
    use weir_datastore::{EndpointSpec, PoolId, PoolSpec, datastore};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn heard(read_at: Instant, running: u32) -> Heard {
        let page = format!("vllm:num_requests_running {running}\n");
        let clock = PageClock { asked_at: read_at, wall_ms: 0, stale_after_ms: 1000 };
        let reader = PageReader::new(None, &[]);
        let load = reader.read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        Heard { load, interval: SECOND, heard_at: read_at }
    }

    #[test]
    fn a_sample_keeps_the_server_from_being_asked_until_shortly_before_it_is_stale() {
        let start = Instant::now();
        let sample = Sample { read_at: start, interval: SECOND, heard_at: start + SECOND / 10 };
        let good = sample.judge(None, SECOND, start + SECOND / 10);
        assert_eq!(good, Verdict { write: true, until: Some(start + 2 * SECOND) });
        let often = Sample { interval: SECOND / 20, ..sample };
        assert_eq!(often.judge(None, SECOND, start + SECOND / 10).until, Some(start + SECOND));
        let seldom = Sample { interval: 8 * SECOND / 5, heard_at: start, ..sample };
        assert_eq!(seldom.judge(None, SECOND, start).until, Some(start + SILENCE), "3 s without a word are the most");
        let late = sample.judge(None, SECOND, start + 5 * SECOND / 2);
        assert_eq!(late, Verdict { write: true, until: None }, "of use, but the endpoint is asked meanwhile");
        assert_eq!(sample.judge(None, SECOND, start + 3 * SECOND), Verdict { write: false, until: None });
    }

    #[test]
    fn what_comes_back_to_where_it_was_read_is_not_written_but_somebody_reads_it() {
        let start = Instant::now();
        let sample = Sample { read_at: start + ECHO, interval: SECOND, heard_at: start + SECOND / 10 };
        let until = Some(start + ECHO + 2 * SECOND);
        let judged = |known| sample.judge(Some(known), SECOND, start + SECOND / 10);
        assert_eq!(judged(start), Verdict { write: false, until });
        assert_eq!(judged(start + SECOND / 20), Verdict { write: false, until }, "ours is younger");
        assert_eq!(judged(start - Duration::from_millis(1)), Verdict { write: true, until });
    }

    #[tokio::test]
    async fn of_two_streams_the_youngest_sample_wins_and_no_older_one_follows_it() {
        let (store, mut topology) = datastore();
        let id = PoolId::new("default", "p");
        let address: EndpointAddress = "10.0.0.1:8000".parse().unwrap();
        let start = Instant::now();
        let spec = PoolSpec { endpoints: vec![EndpointSpec::standalone(address.clone())], ..PoolSpec::empty(id.clone()) };
        let mut writer = topology.replace_all(vec![spec], start).added.remove(0);
        let feeds = Feeds::default();
        let mut feed = Feed::new(feeds.of(&address), SECOND, StreamMetrics::register(&mut Default::default()));
        let running = || {
            let snapshot = store.snapshot(&id, &weir_datastore::Selector::everything(), Instant::now()).unwrap();
            snapshot.endpoints[0].status.load.as_ref().unwrap().running.unwrap().value
        };
        feeds.leave(&address, heard(start, 1));
        feeds.leave(&address, heard(start + SECOND / 2, 2));
        feeds.leave(&address, heard(start + SECOND / 4, 3));
        let now = start + SECOND;
        let taken = feed.next().await;
        assert!(feed.take(&taken, &mut writer, now).is_some());
        assert_eq!(running(), 2.0);
        assert!(feed.take(&heard(start + SECOND / 4, 4), &mut writer, now).is_some());
        assert_eq!(running(), 2.0, "an older sample is not written over a younger one");
        assert_eq!(feed.metrics.fallbacks.get(), 0);
        feed.asking();
        feed.asking();
        assert_eq!(feed.metrics.fallbacks.get(), 1, "counted once for each time the streams fail");
        feeds.retain(&HashSet::new());
        feeds.leave(&address, heard(now, 5));
        tokio::time::timeout(Duration::from_millis(10), feed.next()).await.expect_err("the endpoint is gone");
    }

    proptest! {
        #[test]
        fn what_is_written_only_gets_younger_and_no_pause_outlasts_it(
            samples in prop::collection::vec((0_u64..6000, 1_u64..2000, 0_u64..4000), 1..40), lead in 1_u64..5000,
        ) {
            let start = Instant::now();
            let at = |milliseconds| start + Duration::from_millis(milliseconds);
            let mut known = None;
            for (read, interval, took) in samples {
                let (read_at, now) = (at(read), at(read + took));
                let sample = Sample { read_at, interval: Duration::from_millis(interval), heard_at: now };
                let verdict = sample.judge(known, Duration::from_millis(lead), now);
                if verdict.write {
                    prop_assert!(known.is_none_or(|known| read_at > known));
                    known = Some(read_at);
                }
                if let Some(until) = verdict.until {
                    let fresh = (3 * sample.interval).clamp(FRESH_AT_LEAST, FRESH_AT_MOST);
                    prop_assert!(until > now && until < read_at + fresh && until <= now + SILENCE);
                }
            }
        }
    }
}
