use proptest::prelude::*;

use super::*;

fn wanted() -> Wanted {
    Wanted::new(["a", "b:c", "requests_waiting"])
}

/// Family, line, labels, value and timestamp of a sample.
type Plain = (u16, u32, String, f64, Option<i64>);

fn read(page: &[u8], format: Format, effort: Effort) -> Result<(Vec<Plain>, PageReport), PageError> {
    let mut samples = Vec::new();
    let report = scan(page, format, &wanted(), effort, ScanLimits::default(), &mut samples)?;
    let plain = |sample: &Sample<'_>| {
        (sample.family, sample.line, sample.labels.as_written().to_owned(), sample.value, sample.timestamp_ms)
    };
    Ok((samples.iter().map(plain).collect(), report))
}

fn values(page: &str) -> Vec<f64> {
    let (samples, report) = read(page.as_bytes(), Format::Text, Effort::EveryLine).unwrap();
    assert_eq!(report.dropped, 0, "{:?}", report.named);
    samples.into_iter().map(|sample| sample.3).collect()
}

#[test]
fn whole_names_match_and_nothing_else() {
    let page = "a 1\nab 2\nrequests_waiting_total 3\nrequests_waiting{x=\"y\"} 4\nb:c\t5\nb 6\n";
    assert_eq!(values(page), [1.0, 4.0, 5.0]);
}

#[test]
fn labels_are_found_whatever_stands_in_their_values() {
    let page = "a { x = \"},{=#\" , y=\"q\\\"\\\\\\n\\z\" , } 1\n";
    let mut samples = Vec::new();
    scan(page.as_bytes(), Format::Text, &wanted(), Effort::WantedLines, ScanLimits::default(), &mut samples).unwrap();
    let labels: Vec<_> = samples[0].labels.iter().collect();
    assert_eq!(labels, [("x", "},{=#".into()), ("y", "q\"\\\n\\z".into())]);
    assert_eq!(samples[0].labels.get("y").as_deref(), Some("q\"\\\n\\z"));
    assert_eq!(samples[0].labels.get("z"), None);
}

#[test]
fn the_identity_of_a_label_set_has_no_order() {
    let page = "a{x=\"1\",y=\"2\"} 1\na{y=\"2\" , x=\"1\"} 1\na{x=\"2\",y=\"1\"} 1\na{x=\"1\"} 1\n";
    let mut samples = Vec::new();
    scan(page.as_bytes(), Format::Text, &wanted(), Effort::WantedLines, ScanLimits::default(), &mut samples).unwrap();
    let identities: Vec<_> = samples.iter().map(|sample| sample.labels.identity()).collect();
    assert_eq!(identities[0], identities[1]);
    assert_ne!(identities[0], identities[2]);
    assert_ne!(identities[0], identities[3]);
}

#[test]
fn broken_lines_are_numbered_and_the_rest_is_used() {
    let page = b"# c\na 1\na{x=1} 2\na{x=\"1\" 3\na\na{x=\"\xff\"} 4\na four\na 1 2 three\n\n\xd9 5\na 6\n";
    let (samples, report) = read(page, Format::Text, Effort::EveryLine).unwrap();
    assert_eq!(samples.iter().map(|sample| (sample.1, sample.3)).collect::<Vec<_>>(), [(2, 1.0), (11, 6.0)]);
    let named: Vec<_> = report.named.iter().map(|dropped| (dropped.line, dropped.reason)).collect();
    assert_eq!(
        named,
        [
            (3, DropReason::Labels),
            (4, DropReason::Labels),
            (5, DropReason::Name),
            (6, DropReason::NotUtf8),
            (7, DropReason::Value),
            (8, DropReason::Trailing),
            (10, DropReason::Name),
        ]
    );
}

#[test]
fn dropped_lines_are_all_counted_but_not_all_named() {
    let page = format!("a 1\n{}", "a x\n".repeat(1000));
    let (_, report) = read(page.as_bytes(), Format::Text, Effort::WantedLines).unwrap();
    assert_eq!((report.dropped, report.named.len()), (1000, PageReport::NAMED));
}

#[test]
fn open_metrics_has_an_end_and_seconds() {
    let page = b"a 1 1.5 # {t=\"x\"} 2 3\n# EOF\n";
    let (samples, _) = read(page, Format::OpenMetrics, Effort::EveryLine).unwrap();
    assert_eq!((samples[0].3, samples[0].4), (1.0, Some(1500)));
    assert_eq!(read(b"a 1\n", Format::OpenMetrics, Effort::EveryLine).unwrap_err(), PageError::MissingEof);
    assert_eq!(read(b"# EOF\na 1\n", Format::OpenMetrics, Effort::EveryLine).unwrap_err(), PageError::AfterEof { line: 2 });
    assert_eq!(read(b"# EOF\na 1\n", Format::Text, Effort::EveryLine).unwrap().0.len(), 1);
}

#[test]
fn more_wanted_samples_than_the_limit_are_refused() {
    let limits = ScanLimits { samples: 2, ..ScanLimits::default() };
    let mut samples = Vec::new();
    let outcome = scan(b"a 1\na 2\na 3\n", Format::Text, &wanted(), Effort::WantedLines, limits, &mut samples);
    assert_eq!(outcome.unwrap_err(), PageError::TooManySamples { limit: 2 });
}

/// A colon-free page that `prometheus-parse` reads right: simple label values, no escapes.
fn plain_page() -> impl Strategy<Value = String> {
    let name = "[a-z_][a-z0-9_]{0,12}";
    let label = ("[a-z_][a-z0-9_]{0,6}", "[a-zA-Z0-9 ./_-]{0,8}").prop_map(|(name, value)| format!("{name}=\"{value}\""));
    let labels = proptest::collection::vec(label, 0..4);
    let value = prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| value.to_string()),
        (0u32..100_000).prop_map(|value| format!("{value}.0")),
        Just("NaN".to_owned()),
        Just("+Inf".to_owned()),
    ];
    let line = (name, labels, value).prop_map(|(name, labels, value)| match labels.as_slice() {
        [] => format!("{name} {value}\n"),
        labels => format!("{name}{{{}}} {value}\n", labels.join(",")),
    });
    proptest::collection::vec(line, 1..30).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn the_scanner_reads_what_prometheus_parse_reads(page in plain_page()) {
        let names: Vec<&str> = page.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        let wanted = Wanted::new(names.iter().copied());
        let mut samples = Vec::new();
        scan(page.as_bytes(), Format::Text, &wanted, Effort::WantedLines, ScanLimits::default(), &mut samples).unwrap();
        let theirs = prometheus_parse::Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).unwrap();
        prop_assert_eq!(samples.len(), theirs.samples.len());
        for (ours, theirs) in samples.iter().zip(&theirs.samples) {
            let prometheus_parse::Value::Untyped(value) = theirs.value else { panic!("{:?}", theirs.value) };
            prop_assert_eq!(names[usize::from(ours.family)], theirs.metric.as_str());
            prop_assert!(ours.value == value || (ours.value.is_nan() && value.is_nan()));
            // A repeated label: the crate keeps the last, we read the first.
            let distinct = ours.labels.iter().map(|(name, _)| name).collect::<std::collections::HashSet<_>>();
            if distinct.len() == ours.labels.iter().count() {
                for (name, value) in ours.labels.iter() {
                    prop_assert_eq!(theirs.labels.get(name), Some(value.as_ref()));
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_an_answer_and_both_efforts_agree(page in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(read(&page, Format::OpenMetrics, Effort::EveryLine));
        let some = read(&page, Format::Text, Effort::WantedLines);
        if let Ok((samples, report)) = read(&page, Format::Text, Effort::EveryLine) {
            let (some_samples, some_report) = some.unwrap();
            prop_assert_eq!(format!("{samples:?}"), format!("{some_samples:?}"));
            prop_assert!(some_report.dropped <= report.dropped);
        }
    }

    #[test]
    fn near_pages_never_panic(words in proptest::collection::vec("(a|b:c|\\{|\\}|x=|\"|\\\\|,| |\n|1|1e999|NaN|#|EOF|é|\r)", 0..40)) {
        let page = words.concat();
        for format in [Format::Text, Format::OpenMetrics] {
            for effort in [Effort::WantedLines, Effort::EveryLine] {
                drop(read(page.as_bytes(), format, effort));
            }
        }
    }
}
