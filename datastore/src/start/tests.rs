use super::*;

fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

fn later() -> Instant {
    Instant::now() + seconds(10_000)
}

fn pod(uid: &str, start: PodStart) -> StartingPod {
    StartingPod { pod: format!("pod-{uid}").into(), uid: uid.into(), pending: false, start }
}

fn begun(at: Instant) -> PodStart {
    PodStart {
        times: StartTimes { created: Some(1000), ..StartTimes::default() },
        began: at,
        seen_from_creation: true,
        first: true,
        unready_since: Some(at),
        obstacle: None,
    }
}

fn ready(start: &PodStart, times: [Option<i64>; 5]) -> PodStart {
    let [created, scheduled, initialized, started, ready] = times;
    PodStart { times: StartTimes { created, scheduled, initialized, started, ready }, unready_since: None, ..start.clone() }
}

/// A start that took so long by this process' clock, and these times as told.
fn learn(memory: &StartMemory, uid: &str, took: u64, times: [Option<i64>; 5]) {
    let start = begun(later());
    memory.learn(&[pod(uid, start.clone())], start.began);
    memory.learn(&[pod(uid, ready(&start, times))], start.began + seconds(took));
    memory.learn(&[], start.began + seconds(took));
}

const TIMES: [Option<i64>; 5] = [Some(1000), Some(1002), Some(1010), Some(1070), Some(1120)];

fn sums(memory: &StartMemory) -> [(u64, f64); 7] {
    StartPhase::ALL.map(|phase| (memory.histogram(phase).count(), memory.histogram(phase).sum))
}

#[test]
fn each_phase_begins_where_the_one_before_ends() {
    let memory = StartMemory::default();
    assert_eq!(memory.expected(), None);
    learn(&memory, "a", 120, TIMES);
    assert_eq!(memory.expected(), Some(seconds(120)));
    assert_eq!(sums(&memory), [(1, 2.0), (1, 8.0), (1, 60.0), (1, 50.0), (0, 0.0), (0, 0.0), (1, 120.0)]);
    // 120 s are counted under 120, not above.
    assert_eq!(memory.histogram(StartPhase::All).counts[7], 1);
}

#[test]
fn clocks_that_do_not_agree_and_times_that_cannot_be_poison_nothing() {
    let all = |times, took| {
        let memory = StartMemory::default();
        learn(&memory, "a", took, times);
        (memory.expected(), sums(&memory).map(|(count, _)| count))
    };
    // The node is an hour ahead, or behind: the steps over its clock are left out, those on it stay.
    let node = |by: i64| [Some(1000), Some(1002), Some(1010 + by), Some(1070 + by), Some(1120 + by)];
    for by in [3600, -3600, i64::MAX / 2, i64::MIN / 2] {
        assert_eq!(all(node(by), 120), (Some(seconds(120)), [1, 0, 1, 1, 0, 0, 1]), "{by}");
    }
    assert_eq!(all([None; 5], 7), (Some(seconds(7)), [0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(all([Some(i64::MIN), Some(i64::MAX), None, Some(i64::MIN), Some(i64::MAX)], 7).1, [0, 0, 0, 0, 0, 0, 1]);
    // Longer than any start.
    assert_eq!(all(TIMES, 3601), (None, [0; 7]));
}

#[test]
fn a_pod_that_was_there_before_this_process_is_believed_if_it_can_be() {
    let memory = StartMemory::default();
    let listed = |times: [Option<i64>; 5], uid: &str| {
        let start = PodStart { seen_from_creation: false, ..begun(later()) };
        memory.learn(&[pod(uid, start.clone())], start.began);
        memory.learn(&[pod(uid, ready(&start, times))], start.began + seconds(5));
        memory.expected()
    };
    assert_eq!(listed([Some(1000), None, None, None, Some(900)], "negative"), None);
    assert_eq!(listed([Some(1000), None, None, None, Some(9000)], "too long"), None);
    assert_eq!(listed([None; 5], "unknown"), None);
    assert_eq!(listed(TIMES, "good"), Some(seconds(120)));
}

#[test]
fn only_starts_whose_beginning_was_seen_count_and_each_once() {
    let memory = StartMemory::default();
    let start = begun(later());
    let was_there = PodStart { seen_from_creation: false, ..ready(&start, TIMES) };
    memory.learn(&[pod("a", was_there)], start.began);
    let not_its_first = PodStart { first: false, ..start.clone() };
    memory.learn(&[pod("b", not_its_first.clone())], start.began);
    memory.learn(&[pod("b", ready(&not_its_first, TIMES))], start.began + seconds(9));
    assert_eq!(memory.expected(), None);
    // Ready when first seen, but seen to be created.
    let quick = pod("c", ready(&start, [None; 5]));
    memory.learn(&[quick.clone()], start.began + seconds(1));
    memory.learn(&[quick], start.began + seconds(500));
    assert_eq!((memory.expected(), memory.histogram(StartPhase::All).count()), (Some(seconds(1)), 1));
    assert!(memory.seen("c").is_some() && memory.seen("a").is_none());
    memory.learn(&[], start.began);
    assert!(memory.seen("c").is_none(), "what is gone is forgotten");
}

#[test]
fn ten_starts_count_alike_and_later_ones_for_a_tenth() {
    let memory = StartMemory::default();
    for number in 0..10 {
        learn(&memory, &number.to_string(), 100 + 10 * (number % 2), [None; 5]);
    }
    let ten = memory.expected().unwrap().as_secs_f64();
    assert!((ten - 105.0).abs() < 1e-9, "{ten}");
    learn(&memory, "x", 205, [None; 5]);
    let eleven = memory.expected().unwrap().as_secs_f64();
    assert!((eleven - 115.0).abs() < 1e-9, "{eleven}");
}

#[test]
fn a_page_read_before_the_pod_is_ready_takes_no_time_and_the_first_stream_is_one() {
    let memory = StartMemory::default();
    let start = begun(later());
    let pods = |ready_at: Option<[Option<i64>; 5]>| {
        ["early", "late"].map(|uid| pod(uid, ready_at.map_or(start.clone(), |times| ready(&start, times))))
    };
    memory.learn(&pods(None), start.began);
    let (early, late) = (memory.seen("early").unwrap(), memory.seen("late").unwrap());
    early.scraped(start.began + seconds(1));
    memory.learn(&pods(Some(TIMES)), start.began + seconds(3));
    late.scraped(start.began + seconds(5));
    late.scraped(start.began + seconds(50));
    let scraped = memory.histogram(StartPhase::Scraped);
    assert_eq!((scraped.count(), scraped.sum), (2, 2.0));
    assert!(late.is_first() && !late.is_first());
    late.first_token(seconds(4));
    late.first_token(Duration::MAX);
    assert_eq!(memory.histogram(StartPhase::FirstToken).count(), 1);
}

#[test]
fn a_pod_that_is_stuck_is_no_promise() {
    let now = later();
    let at = |waited: u64, obstacle: Option<&str>| {
        let start = PodStart { obstacle: obstacle.map(Into::into), ..begun(now - seconds(waited)) };
        pod("a", start)
    };
    assert_eq!(at(600, None).hindrance(None, now), None);
    assert_eq!(at(601, None).hindrance(None, now).unwrap(), "pod pod-a has not been ready for 10 minutes");
    assert_eq!(at(899, None).hindrance(Some(seconds(300)), now), None);
    assert!(at(901, None).hindrance(Some(seconds(300)), now).is_some());
    assert_eq!(at(1, Some("waits")).hindrance(None, now).unwrap(), "pod pod-a: waits");
    let ready = PodStart { unready_since: None, obstacle: Some("waits".into()), ..begun(now) };
    assert_eq!(pod("a", ready).hindrance(None, now), None);
}
