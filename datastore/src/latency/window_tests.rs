use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::latency::Quantile;

const BOUNDS: [f64; 4] = [0.1, 0.5, 1.0, 5.0];

/// A histogram of a server, filled by `values` since its start.
fn series(identity: u64, model: &str, values: &[f64]) -> LatencySeries {
    let at_most = |bound: f64| values.iter().filter(|value| **value <= bound).count() as u64;
    let cumulative = BOUNDS.iter().copied().chain([f64::INFINITY]).map(at_most).collect();
    LatencySeries { identity, model: Some(model.into()), signal: Latency::TimeToFirstToken, bounds: BOUNDS.to_vec(), cumulative }
}

fn page(series: Vec<LatencySeries>) -> LatencyPage {
    LatencyPage { series, refused: 0 }
}

fn sum(found: &EndpointLatencies, model: Option<&str>) -> Option<Histogram> {
    let mut all = ByBounds::default();
    found.add_to(&mut all, Latency::TimeToFirstToken, model);
    all.0.pop()
}

fn count(found: &EndpointLatencies) -> u64 {
    sum(found, None).map_or(0, |histogram| histogram.count())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn only_what_was_added_counts_and_only_for_a_minute() {
    let start = Instant::now();
    let mut window = EndpointWindow::default();
    assert!(window.is_due(start));
    assert_eq!(window.learn(page(vec![series(1, "m", &[9.0; 100])]), start), EndpointLatencies::default(), "of before it was seen");
    assert!(!window.is_due(start + seconds(9)) && window.is_due(start + APART));
    let values = [vec![9.0; 100], vec![0.3; 10]].concat();
    let found = window.learn(page(vec![series(1, "m", &values)]), start + APART);
    assert_eq!((found.as_of, found.seconds), (Some(start + APART), 10.0));
    let Quantile { value, at_least } = sum(&found, None).and_then(|sum| sum.quantile(0.5)).unwrap();
    assert!((value - 0.3).abs() < 1e-9 && !at_least, "{value}");
    let mut counts = Vec::new();
    for step in 2..9 {
        counts.push(count(&window.learn(page(vec![series(1, "m", &values)]), start + step * APART)));
    }
    assert_eq!(counts, [10, 10, 10, 10, 10, 0, 0]);
}

#[test]
fn a_count_that_fell_began_at_0() {
    let start = Instant::now();
    let mut window = EndpointWindow::default();
    window.learn(page(vec![series(1, "m", &[0.3; 100])]), start);
    let found = window.learn(page(vec![series(1, "m", &[2.0; 12])]), start + APART);
    assert_eq!((count(&found), sum(&found, None).and_then(|sum| sum.quantile(0.5)).map(|found| found.value)), (12, Some(3.0)));
}

#[test]
fn a_series_that_comes_began_at_0_unless_the_page_before_could_not_be_read_in_full() {
    let start = Instant::now();
    let (old, new) = (series(1, "m", &[0.3]), series(2, "n", &[0.3; 12]));
    let mut window = EndpointWindow::default();
    window.learn(page(vec![old.clone()]), start);
    let found = window.learn(page(vec![old.clone(), new.clone()]), start + APART);
    assert_eq!((count(&found), sum(&found, Some("m")).map(|sum| sum.count())), (12, Some(0)));
    assert_eq!(found.models().map(|model| &**model).collect::<Vec<_>>(), ["m", "n"]);
    let mut window = EndpointWindow::default();
    window.learn(LatencyPage { series: vec![old.clone()], refused: 1 }, start);
    assert_eq!(count(&window.learn(page(vec![old, new]), start + APART)), 0);
}

#[test]
fn a_series_that_is_missing_from_one_page_does_not_count_all_over() {
    let start = Instant::now();
    let series = series(1, "m", &[0.3; 1000]);
    let mut window = EndpointWindow::default();
    window.learn(page(vec![series.clone()]), start);
    window.learn(page(vec![]), start + APART);
    assert_eq!(count(&window.learn(page(vec![series]), start + 2 * APART)), 0);
}

#[test]
fn what_was_added_over_more_than_a_minute_is_left_out() {
    let start = Instant::now();
    let mut window = EndpointWindow::default();
    window.learn(page(vec![series(1, "m", &[])]), start);
    let found = window.learn(page(vec![series(1, "m", &[0.3; 50])]), start + seconds(61));
    assert_eq!(found, EndpointLatencies::default());
    let found = window.learn(page(vec![series(1, "m", &[0.3; 60])]), start + seconds(71));
    assert_eq!(count(&found), 10);
}

#[test]
fn ranks_with_equal_bounds_are_one_and_others_are_not() {
    let start = Instant::now();
    let mut window = EndpointWindow::default();
    let mut other = series(3, "m", &[0.3; 7]);
    other.bounds[3] = 6.0;
    window.learn(page(vec![]), start);
    let found = window.learn(page(vec![series(1, "m", &[0.3; 5]), series(2, "m", &[0.3; 6]), other]), start + APART);
    let mut all = ByBounds::default();
    found.add_to(&mut all, Latency::TimeToFirstToken, Some("m"));
    assert_eq!(all.0.iter().map(Histogram::count).collect::<Vec<_>>(), [11, 7]);
}

#[derive(Clone, Debug)]
enum Event {
    Observe(usize, f64),
    Restart(usize),
    Page,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2_usize, 0.01..8.0_f64).prop_map(|(server, value)| Event::Observe(server, value)),
        1 => (0..2_usize).prop_map(Event::Restart),
        3 => Just(Event::Page),
    ]
}

proptest! {
    /// The oracle keeps every observation with the page that it first showed on.
    #[test]
    fn the_window_is_what_an_oracle_with_every_observation_says(events in prop::collection::vec(event(), 1..120)) {
        let start = Instant::now();
        let mut window = EndpointWindow::default();
        // Two ranks: what each has counted since its start; what was observed since the last page; what each page brought.
        let mut servers = [Vec::new(), Vec::new()];
        let mut fresh: [Vec<f64>; 2] = Default::default();
        let mut shown: Vec<Vec<f64>> = Vec::new();
        // A rank that restarts and counts as much again before the next page cannot be told from one that did not.
        let mut ambiguous = false;
        let mut before: [Vec<u64>; 2] = Default::default();
        let mut restarted = [false; 2];
        for event in events {
            match event {
                Event::Observe(server, value) => {
                    servers[server].push(value);
                    fresh[server].push(value);
                }
                Event::Restart(server) => {
                    // What was counted since the last page is lost with it.
                    servers[server].clear();
                    fresh[server].clear();
                    restarted[server] = true;
                }
                Event::Page => {
                    let series = [series(1, "m", &servers[0]), series(2, "m", &servers[1])];
                    for server in 0..2 {
                        let no_less = before[server].iter().zip(&series[server].cumulative).all(|(before, after)| before <= after);
                        ambiguous |= restarted[server] && no_less && before[server].last().is_some_and(|count| *count > 0);
                        before[server].clone_from(&series[server].cumulative);
                    }
                    restarted = [false; 2];
                    let at = start + APART * u32::try_from(shown.len()).unwrap();
                    let found = window.learn(page(series.to_vec()), at);
                    let brought = std::mem::take(&mut fresh).concat();
                    shown.push(if shown.is_empty() { Vec::new() } else { brought });
                    if ambiguous {
                        return Ok(());
                    }
                    let expected: Vec<f64> = shown.iter().rev().take(SLOTS).flatten().copied().collect();
                    prop_assert_eq!(count(&found), expected.len() as u64);
                    let mut oracle = Histogram::empty(BOUNDS.into());
                    expected.iter().for_each(|value| oracle.count_in(BOUNDS.partition_point(|bound| bound < value), 1));
                    if let Some(sum) = sum(&found, None) {
                        prop_assert_eq!(sum, oracle);
                    }
                }
            }
        }
    }
}
