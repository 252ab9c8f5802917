//! A model server's page: whatever the bytes, no panic; and both efforts, and both ways of reading, agree.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::time::Instant;
use weir_datastore::EndpointLoad;
use weir_datastore::engine::{Engine, PageClock, PageMemory, PageReader, ReadError, families};
use weir_datastore::page::{Effort, Format, PageError, PageReport, Sample, ScanLimits, Wanted, scan};

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let mut names: Vec<_> = Engine::DETECTED.into_iter().flat_map(families).map(|family| family.name).collect();
    names.sort();
    names.dedup();
    Wanted::new(names.iter().map(AsRef::as_ref))
});

/// Of whatever engine, and of each one.
static READERS: LazyLock<Vec<PageReader>> = LazyLock::new(|| {
    let engines = [None].into_iter().chain(Engine::DETECTED.into_iter().map(Some));
    engines.map(|engine| PageReader::new(engine, &[])).collect()
});

/// Small, so that the input reaches them.
const LIMITS: ScanLimits = ScanLimits { line_bytes: 512, samples: 16 };

type Scanned<'page> = Result<(PageReport, Vec<Sample<'page>>), PageError>;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, page)) = input.split_first() else { return };
    let format = if choice & 1 == 0 { Format::Text } else { Format::OpenMetrics };
    for limits in [ScanLimits::default(), LIMITS] {
        let scanned = |effort| -> Scanned<'_> {
            let mut samples = Vec::new();
            scan(page, format, &WANTED, effort, limits, &mut samples).map(|report| (report, samples))
        };
        efforts_agree(&scanned(Effort::WantedLines), &scanned(Effort::EveryLine));
    }
    let reader = &READERS[usize::from(choice >> 1) % READERS.len()];
    readings_agree(reader, page, format);
});

fn efforts_agree(wanted: &Scanned<'_>, every: &Scanned<'_>) {
    match (wanted, every) {
        (Ok((wanted_report, wanted)), Ok((every_report, every))) => {
            assert_eq!(wanted_report.lines, every_report.lines);
            assert_eq!(wanted_report.sample_lines, every_report.sample_lines);
            assert!(wanted_report.dropped <= every_report.dropped && every_report.dropped <= every_report.sample_lines);
            assert!(every_report.named.len() <= PageReport::NAMED);
            assert_eq!(told(wanted), told(every));
        }
        // Only who looks at every line sees that all of them are broken.
        (Ok((_, samples)), Err(PageError::NotMetrics { .. })) => assert!(samples.is_empty()),
        (Err(wanted), Err(every)) => assert_eq!(wanted, every),
        (wanted, every) => panic!("{wanted:?} but {every:?}"),
    }
}

/// Everything that samples say; NaN is equal to itself here.
fn told(samples: &[Sample<'_>]) -> Vec<String> {
    let labels = |sample: &Sample<'_>| -> Vec<_> {
        let pairs: Vec<_> = sample.labels.iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        for (name, _) in &pairs {
            let first = pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
            assert_eq!(sample.labels.get(name).map(|value| value.into_owned()), first);
        }
        pairs
    };
    samples.iter().map(|sample| format!("{sample:?} {:?} {}", labels(sample), sample.labels.identity())).collect()
}

fn readings_agree(reader: &PageReader, page: &[u8], format: Format) {
    let clock = PageClock { asked_at: Instant::now(), wall_ms: 1_700_000_000_000, stale_after_ms: 5_000 };
    let read = reader.read(page, format, clock, &mut PageMemory::default());
    match (read, reader.explain(page, format, clock)) {
        (Ok(load), Ok(reading)) => {
            let explained = reading.load.expect("a page that is read is explained");
            // Who looks at every line sees more broken ones.
            let seen = EndpointLoad { unused: load.unused, ..explained.clone() };
            assert_eq!(format!("{load:?}"), format!("{seen:?}"));
            assert!(load.unused.dropped_lines <= explained.unused.dropped_lines);
            assert_eq!(
                (load.unused.invalid, load.unused.duplicates, load.unused.outdated),
                (explained.unused.invalid, explained.unused.duplicates, explained.unused.outdated)
            );
            for series in &reading.series {
                assert!((1..=reading.report.lines).contains(&series.line));
            }
            can_be_true(&load);
        }
        (Err(ReadError::NoEngine { .. }), Ok(reading)) => assert!(reading.load.is_none(), "explained but not read"),
        (Err(ReadError::NoEngine { .. }), Err(PageError::NotMetrics { .. })) => {}
        (Err(ReadError::Page(read)), Err(explained)) => assert_eq!(read, explained),
        (Err(ReadError::Page(PageError::NotMetrics { .. })), Ok(_)) => panic!("all lines are broken for one and not for the other"),
        // An engine whose idle page has no family at all.
        (Ok(load), Err(PageError::NotMetrics { .. })) => can_be_true(&load),
        (read, explained) => panic!("{read:?} but {explained:?}"),
    }
}

fn can_be_true(load: &EndpointLoad) {
    for requests in [load.running, load.waiting].into_iter().flatten() {
        assert!(requests.value >= 0.0 && requests.value.is_finite() && requests.hottest <= requests.value, "{load:?}");
    }
    if let Some(ratio) = load.kv_cache_utilization {
        assert!((0.0..=1.0).contains(&ratio.value) && (0.0..=1.0).contains(&ratio.hottest), "{load:?}");
    }
}
