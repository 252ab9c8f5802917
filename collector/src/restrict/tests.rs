//! Each transition, and what holds whatever a server does.

use proptest::prelude::*;
use weir_datastore::engine::Engine;
use weir_datastore::page::Format;

use super::*;

fn names() -> std::sync::Arc<Names> {
    NamesInUse::default().of(Engine::Vllm, &std::sync::Arc::default())
}

/// A page with these lines and `filler` bytes of others.
fn page(lines: &[&str], filler: usize) -> Sighting {
    let page = format!("{}\n{}", lines.join("\n"), "#\n".repeat(filler / 2));
    names().sighting(page.as_bytes(), Format::Text).unwrap()
}

const RUNNING: &str = "vllm:num_requests_running 1";
const WAITING: &str = "vllm:num_requests_waiting 1";
const STARTED: &str = "process_start_time_seconds 100";

fn whole() -> Sighting {
    page(&[RUNNING, WAITING, STARTED], 10_000)
}

fn restricted() -> Sighting {
    page(&[RUNNING, WAITING, STARTED], 0)
}

fn empty() -> Sighting {
    names().sighting(b"", Format::Text).unwrap()
}

fn tokens(count: u32) -> Counters {
    Counters { prompt_tokens: Some(f64::from(count)), ..Counters::default() }
}

fn waiting_family() -> FamilyIndex {
    let alone = page(&[WAITING], 0);
    *alone.glance.families.first().unwrap()
}

/// A server whose trial agreed, and when.
fn trusted() -> (Restriction, Instant) {
    let now = Instant::now();
    let mut restriction = Restriction::default();
    assert!(!restriction.asks_restricted(now), "nothing is trusted untried");
    assert!(restriction.whole_page(tokens(5), now), "the first whole page is tried against");
    assert_eq!(restriction.tried(&whole(), Ok(restricted()), now), Ok(()));
    assert!(restriction.asks_restricted(now));
    (restriction, now)
}

fn refused() -> (Restriction, Instant) {
    let now = Instant::now();
    let mut restriction = Restriction::default();
    assert!(restriction.whole_page(tokens(5), now));
    assert_eq!(restriction.tried(&whole(), Ok(empty()), now), Err(Flaw::Empty));
    (restriction, now)
}

#[test]
fn a_trial_that_disagrees_is_not_repeated_at_once() {
    let first = "vllm:num_requests_running{engine=\"0\"} 1";
    let second = "vllm:num_requests_running{engine=\"1\"} 1";
    let running = *page(&[RUNNING], 0).glance.families.first().unwrap();
    for (whole, tried, flaw) in [
        (whole(), Ok(empty()), Flaw::Empty),
        (whole(), Ok(page(&[RUNNING, STARTED], 0)), Flaw::Missing(waiting_family())),
        (page(&[first, second], 10_000), Ok(page(&[first], 0)), Flaw::Missing(running)),
        (whole(), Ok(whole()), Flaw::NotSmaller),
        (whole(), Err(Flaw::Failed), Flaw::Failed),
        (whole(), Err(Flaw::UrlTooLong), Flaw::UrlTooLong),
    ] {
        let now = Instant::now();
        let mut restriction = Restriction::default();
        assert!(restriction.whole_page(tokens(5), now));
        assert_eq!(restriction.tried(&whole, tried, now), Err(flaw.clone()));
        assert!(!restriction.asks_restricted(now), "{flaw:?}");
        assert!(!restriction.whole_page(tokens(6), now + RETEST / 2), "{flaw:?}");
        assert!(restriction.whole_page(tokens(6), now + RETEST), "{flaw:?}: tried again when it is due");
    }
}

#[test]
fn values_may_move_and_series_may_come_between_the_two_pages_of_a_trial() {
    let now = Instant::now();
    let mut restriction = Restriction::default();
    assert!(restriction.whole_page(tokens(5), now));
    let moved = page(&["vllm:num_requests_running 9", WAITING, "vllm:num_requests_waiting{engine=\"1\"} 3", STARTED], 0);
    assert_eq!(restriction.tried(&whole(), Ok(moved), now), Ok(()));
    assert!(restriction.asks_restricted(now));
}

#[test]
fn a_trusted_page_with_everything_keeps_trust_until_the_next_trial_is_due() {
    let (mut restriction, now) = trusted();
    for count in 6..20 {
        assert_eq!(restriction.restricted_page(Ok((&restricted().glance, Some(tokens(count))))), Ok(()));
    }
    assert!(restriction.asks_restricted(now + RETEST - Duration::from_millis(1)));
    assert!(!restriction.asks_restricted(now + RETEST));
    assert!(restriction.whole_page(tokens(20), now + RETEST), "and is then tried again");
    assert_eq!(restriction.tried(&whole(), Ok(restricted()), now + RETEST), Ok(()));
    assert!(restriction.asks_restricted(now + RETEST));
}

#[test]
fn any_flaw_of_a_trusted_page_means_the_whole_page_next_and_a_trial_after_it() {
    let without = page(&[RUNNING, STARTED], 0);
    for (page, flaw) in [
        (Ok((&empty().glance, None)), Flaw::Empty),
        (Ok((&without.glance, Some(tokens(6)))), Flaw::Missing(waiting_family())),
        (Ok((&restricted().glance, None)), Flaw::Failed),
        (Err(Flaw::Failed), Flaw::Failed),
    ] {
        let (mut restriction, now) = trusted();
        assert_eq!(restriction.restricted_page(page), Err(flaw.clone()));
        assert!(!restriction.asks_restricted(now), "{flaw:?}");
        assert!(restriction.whole_page(tokens(6), now), "{flaw:?}");
    }
}

#[test]
fn a_family_that_came_later_is_expected_from_then_on() {
    let (mut restriction, _) = trusted();
    let adapters = page(&[RUNNING, WAITING, STARTED, "vllm:lora_requests_info{max_lora=\"1\"} 1"], 0);
    assert_eq!(restriction.restricted_page(Ok((&adapters.glance, Some(tokens(6))))), Ok(()));
    let outcome = restriction.restricted_page(Ok((&restricted().glance, Some(tokens(7)))));
    assert!(matches!(outcome, Err(Flaw::Missing(_))), "{outcome:?}");
}

#[test]
fn trust_that_is_lost_again_and_again_is_refused_until_the_next_trial_is_due() {
    let (mut restriction, now) = trusted();
    for _ in 1..MOST_FALLS {
        assert!(restriction.restricted_page(Err(Flaw::Failed)).is_err());
        assert!(restriction.whole_page(tokens(6), now));
        assert_eq!(restriction.tried(&whole(), Ok(restricted()), now), Ok(()));
    }
    assert!(restriction.restricted_page(Err(Flaw::Failed)).is_err());
    assert!(!restriction.whole_page(tokens(6), now));
    assert!(!restriction.asks_restricted(now) && !restriction.whole_page(tokens(6), now + RETEST / 2));
    assert!(restriction.whole_page(tokens(6), now + RETEST));
    assert_eq!(restriction.tried(&whole(), Ok(restricted()), now + RETEST), Ok(()));
    assert!(restriction.restricted_page(Err(Flaw::Failed)).is_err());
    assert!(restriction.whole_page(tokens(6), now + RETEST), "the count began anew");
}

#[test]
fn a_server_that_started_anew_is_tried_again() {
    let later = page(&[RUNNING, WAITING, "process_start_time_seconds 200"], 0);
    for (page, counters) in [(&later, tokens(6)), (&restricted(), tokens(4)), (&page(&[RUNNING, WAITING], 0), tokens(6))] {
        let (mut restriction, now) = trusted();
        let outcome = restriction.restricted_page(Ok((&page.glance, Some(counters))));
        if page.glance.started.is_some() {
            assert_eq!(outcome, Ok(()), "such a page is right all the same");
        }
        assert!(!restriction.asks_restricted(now));
        assert!(restriction.whole_page(counters, now));
    }
    let (mut restriction, now) = refused();
    assert!(!restriction.whole_page(tokens(6), now));
    assert!(restriction.whole_page(tokens(3), now), "counters that fell");
}

#[test]
fn a_server_that_was_out_of_reach_is_tried_again_and_one_that_stalled_is_not() {
    for (mut restriction, now) in [trusted(), refused()] {
        restriction.whole_page_failed(FailureKind::Connect);
        assert!(!restriction.asks_restricted(now));
        assert!(restriction.whole_page(tokens(6), now));
    }
    for kind in [FailureKind::Timeout, FailureKind::Status, FailureKind::Transfer] {
        let (mut restriction, now) = refused();
        restriction.whole_page_failed(kind);
        assert!(!restriction.whole_page(tokens(6), now), "{kind:?}");
    }
    // A restricted page that failed together with the whole one says nothing of restricted pages.
    let (mut restriction, now) = trusted();
    for _ in 0..2 * MOST_FALLS {
        assert!(restriction.restricted_page(Err(Flaw::Failed)).is_err());
        restriction.whole_page_failed(FailureKind::Timeout);
        assert!(restriction.whole_page(tokens(6), now));
        assert_eq!(restriction.tried(&whole(), Ok(restricted()), now), Ok(()));
    }
}

#[test]
fn flaws_name_the_family() {
    let names = names();
    let told = Flaw::Missing(waiting_family()).told(&names);
    assert_eq!(told, "vllm:num_requests_waiting is missing, or a series of it");
    assert!(Flaw::Empty.told(&names).contains("several processes"));
}

/// What a server does when it is asked.
#[derive(Clone, Copy, Debug)]
enum Does {
    Right,
    Empty,
    WithoutWaiting,
    Ignores,
    Fails,
    Unreachable,
    StartsAnew,
}

fn does() -> impl Strategy<Value = Does> {
    use Does::*;
    prop_oneof![
        Just(Right),
        Just(Right),
        Just(Empty),
        Just(WithoutWaiting),
        Just(Ignores),
        Just(Fails),
        Just(Unreachable),
        Just(StartsAnew)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_two_restricted_pages_fail_in_a_row_and_trials_are_rare(turns in proptest::collection::vec((does(), does(), 1_u64..60), 1..150)) {
        let mut now = Instant::now();
        let mut restriction = Restriction::default();
        let (mut count, mut bad_in_a_row, mut trials_of_reachable) = (1000_u32, 0, 0);
        let start = now;
        let (good, large, nothing, partial) = (restricted(), whole(), empty(), page(&[RUNNING, STARTED], 0));
        for (server, trial, seconds) in turns {
            now += Duration::from_secs(seconds);
            count = if matches!(server, Does::StartsAnew) { 0 } else { count + 1 };
            let answer = |does| match does {
                Does::Right | Does::StartsAnew => Ok(good.clone()),
                Does::Empty => Ok(nothing.clone()),
                Does::WithoutWaiting => Ok(partial.clone()),
                Does::Ignores => Ok(large.clone()),
                Does::Fails | Does::Unreachable => Err(Flaw::Failed),
            };
            if restriction.asks_restricted(now) {
                let answer = answer(server);
                let used = restriction.restricted_page(answer.as_ref().map(|page| (&page.glance, Some(tokens(count)))).map_err(Clone::clone));
                if used.is_ok() {
                    prop_assert!(answer.unwrap().glance.families.contains(&waiting_family()), "a page without a wanted family was used");
                    bad_in_a_row = 0;
                    continue;
                }
                bad_in_a_row += 1;
                prop_assert!(bad_in_a_row <= 1, "two bad restricted pages without a whole one between");
                prop_assert!(!restriction.asks_restricted(now));
            }
            // The whole page, in the same turn.
            bad_in_a_row = 0;
            match server {
                Does::Unreachable => {
                    restriction.whole_page_failed(FailureKind::Connect);
                    trials_of_reachable = 0;
                }
                Does::Fails => restriction.whole_page_failed(FailureKind::Timeout),
                _ => {
                    if restriction.whole_page(tokens(count), now) {
                        trials_of_reachable += 1;
                        let agreed = restriction.tried(&large, answer(trial), now);
                        prop_assert_eq!(agreed.is_ok(), matches!(trial, Does::Right | Does::StartsAnew));
                    }
                }
            }
            // One after it was found, one per loss of trust or restart, one per hour.
            let hours = (now - start).as_secs() / RETEST.as_secs() + 1;
            prop_assert!(trials_of_reachable <= hours * u64::from(1 + 2 * MOST_FALLS), "{trials_of_reachable} trials in {hours} h");
        }
    }
}
