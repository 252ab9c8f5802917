//! Pods metrics: means, missing and pending pods, changes of direction.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Pods `p0`, `p1`, … in the given states; spec and status as given.
fn named(spec: u32, states: &[PodState]) -> Replicas {
    let pods: BTreeMap<String, PodState> = states.iter().enumerate().map(|(index, state)| (format!("p{index}"), *state)).collect();
    Replicas { spec, status: states.len() as u32, pods: Pods::Named(pods) }
}

/// Samples of `p0`, `p1`, … in units.
fn samples(values: &[i64]) -> MetricReading {
    MetricReading::per_pod(values.iter().enumerate().map(|(index, value)| (format!("p{index}"), units(*value))))
}

fn queue(target: i64) -> MetricSpec {
    MetricSpec::pods("queue", units(target))
}

const READY: PodState = PodState::READY;
const PENDING: PodState = PodState::PENDING;

#[test]
fn mean_over_pods_times_pods() {
    let answer = proposal(queue(15), &named(3, &[READY; 3]), samples(&[20, 10, 30]));
    assert_eq!(answer.replicas, 4);
    assert_eq!(answer.usage_milli, units(20));
    assert_eq!(answer.rule, Rule::RatioTimesPods { pods: 3 });
}

#[test]
fn mean_inside_tolerance_keeps_spec() {
    let answer = proposal(queue(10), &named(3, &[READY; 3]), samples(&[10, 11, 11]));
    assert_eq!((answer.replicas, answer.rule), (3, Rule::WithinTolerance));
}

#[test]
fn readiness_plays_no_part_only_the_phase() {
    let unready = PodState { ready: false, ..READY };
    let answer = proposal(queue(10), &named(2, &[READY, unready]), samples(&[20, 20]));
    assert_eq!(answer.replicas, 4);
}

#[test]
fn missing_pods_count_as_target_when_shrinking() {
    // (3 × 5 + 10) / 4 = 6.25; × 4 / 10 = 2.5. Without the rule it would be 2.
    let answer = proposal(queue(10), &named(4, &[READY; 4]), samples(&[5, 5, 5]));
    assert_eq!(answer.replicas, 3);
    assert_eq!(answer.rule, Rule::Recounted { missing: 1, pending: 0, pods: 4 });
}

#[test]
fn missing_pods_count_as_zero_when_growing() {
    // 75 / 4 = 18.75; × 4 / 10 = 7.5. Were the missing pod like the others, it would be 10.
    let answer = proposal(queue(10), &named(4, &[READY; 4]), samples(&[25, 25, 25]));
    assert_eq!(answer.replicas, 8);
    let answer = proposal(queue(10), &named(4, &[READY; 4]), samples(&[20, 20, 20]));
    assert_eq!(answer.replicas, 6);
}

#[test]
fn pending_pods_count_as_zero_when_growing() {
    let two_of_four = named(4, &[READY, READY, PENDING, PENDING]);
    // 40 over four pods is on target: the new pods are on their way.
    let answer = proposal(queue(10), &two_of_four, samples(&[20, 20]));
    assert_eq!(answer.replicas, 4);
    assert_eq!(answer.rule, Rule::RecountKeeps { missing: 0, pending: 2 });
    let answer = proposal(queue(10), &two_of_four, samples(&[40, 40]));
    assert_eq!(answer.replicas, 8);
}

#[test]
fn pending_pods_do_not_count_when_shrinking() {
    let two_of_four = named(4, &[READY, READY, PENDING, PENDING]);
    let answer = proposal(queue(10), &two_of_four, samples(&[5, 5]));
    assert_eq!((answer.replicas, answer.rule), (1, Rule::RatioTimesPods { pods: 2 }));
}

#[test]
fn samples_of_pending_and_leaving_pods_are_dropped() {
    let leaving = PodState { terminating: true, ..READY };
    let finished = PodState { phase: PodPhase::Finished, ready: false, terminating: false };
    let current = named(2, &[READY, READY, leaving, finished]);
    let answer = proposal(queue(10), &current, samples(&[20, 20, 900, 900]));
    assert_eq!((answer.usage_milli, answer.replicas), (units(20), 4));
    let answer = proposal(queue(10), &named(2, &[READY, PENDING]), samples(&[5, 900]));
    assert_eq!((answer.usage_milli, answer.replicas), (units(5), 1));
}

#[test]
fn a_sample_of_an_unlisted_pod_enters_the_mean_only() {
    let answer = proposal(queue(10), &named(1, &[READY]), samples(&[20, 40]));
    assert_eq!((answer.usage_milli, answer.replicas), (units(30), 3));
}

#[test]
fn a_turned_ratio_keeps_spec() {
    // One pod at 12 of 10, three without sample: growing would become shrinking.
    let answer = proposal(queue(10), &named(4, &[READY; 4]), samples(&[12]));
    assert_eq!(answer.replicas, 4);
    assert_eq!(answer.rule, Rule::RecountKeeps { missing: 3, pending: 0 });
}

#[test]
fn a_turned_count_keeps_spec() {
    // Shrinking over four listed pods would ask for 4 of the 2 asked for.
    let answer = proposal(queue(10), &named(2, &[READY; 4]), samples(&[7, 7, 7]));
    assert_eq!(answer.replicas, 2);
    // Growing over two listed pods would ask for 4 of the 8 asked for.
    let answer = proposal(queue(10), &named(8, &[READY; 3]), samples(&[20, 20]));
    assert_eq!(answer.replicas, 8);
}

#[test]
fn errors_of_pods_metrics() {
    let error = |current: &Replicas, reading| try_proposal(queue(10), current, reading).unwrap_err().to_string();
    assert_eq!(error(&named(1, &[READY]), samples(&[])), "no metrics returned from custom metrics API");
    assert_eq!(error(&named(1, &[]), samples(&[5])), "no pods returned by selector while calculating replica count");
    assert_eq!(error(&named(1, &[PENDING]), samples(&[5])), "did not receive metrics for targeted pods (pods might be unready)");
}

#[test]
fn sums_of_samples_do_not_overflow() {
    let reading = MetricReading::per_pod([("p0", i64::MAX), ("p1", i64::MAX)]);
    let answer = proposal(queue(10), &named(2, &[READY; 2]), reading);
    assert_eq!(answer.usage_milli, i64::MAX);
    assert_eq!(answer.replicas, i32::MAX);
}

proptest! {
    /// Numbers alone give the same answer as names, while samples belong to ready pods.
    #[test]
    fn counted_pods_agree_with_named_pods(
        values in prop::collection::vec(0_i64..50, 1..6),
        missing in 0_usize..4,
        pending in 0_usize..4,
        spec in 1_u32..12,
        target in 1_i64..40,
    ) {
        let mut states = vec![READY; values.len() + missing];
        states.extend(vec![PENDING; pending]);
        let by_name = named(spec, &states);
        let by_number = Replicas {
            pods: Pods::Counted {
                ready: (values.len() + missing) as u32,
                not_ready: pending as u32,
            },
            ..by_name.clone()
        };
        prop_assert_eq!(
            try_proposal(queue(target), &by_name, samples(&values)),
            try_proposal(queue(target), &by_number, samples(&values))
        );
    }
}
