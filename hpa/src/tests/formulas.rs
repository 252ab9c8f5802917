//! `Value` and `AverageValue` of External and Object metrics, tolerance, sums and caps.

use super::*;

fn external_value(target: i64) -> MetricSpec {
    MetricSpec::external("m", Target::Value(target))
}

fn external_average(target: i64) -> MetricSpec {
    MetricSpec::external("m", Target::AverageValue(target))
}

fn object(target: Target) -> MetricSpec {
    MetricSpec::object("m", "InferencePool", "pool", target)
}

#[test]
fn value_multiplies_ready_pods_by_the_ratio() {
    // 4 ready, mean 0.9, target 0.6: 1.5 × 4.
    for metric in [external_value(600), object(Target::Value(600))] {
        let answer = proposal(metric, &Replicas::settled(4), MetricReading::item(900));
        assert_eq!(answer.replicas, 6);
        assert_eq!(answer.ratio, 1.5);
        assert_eq!(answer.rule, Rule::RatioTimesPods { pods: 4 });
        assert_eq!(answer.status_milli, Some(900));
    }
}

#[test]
fn average_value_divides_a_total() {
    // Total queue 50, target 10, 4 pods: ratio 1.25, ceil(50 / 10).
    for metric in [external_average(units(10)), object(Target::AverageValue(units(10)))] {
        let reading = MetricReading::item(units(50));
        let answer = proposal(metric, &Replicas::settled(4), reading);
        assert_eq!(answer.replicas, 5);
        assert_eq!(answer.ratio, 1.25);
        assert_eq!(answer.rule, Rule::UsageOverTarget);
        assert_eq!(answer.status_milli, Some(12_500));
    }
}

#[test]
fn status_rounds_the_average_up() {
    let reading = MetricReading::item(units(50));
    let answer = proposal(external_average(units(10)), &Replicas::settled(3), reading);
    assert_eq!(answer.status_milli, Some(16_667));
}

#[test]
fn value_counts_ready_pods_not_asked_ones() {
    let reading = MetricReading::item(900);
    let answer = proposal(external_value(600), &Replicas::partly_ready(4, 2), reading.clone());
    // Above target, and yet fewer than asked for: two pods carry the load that is measured.
    assert_eq!(answer.replicas, 3);
    let none_ready = Replicas::partly_ready(4, 0);
    assert_eq!(proposal(external_value(600), &none_ready, reading).replicas, 0);
}

#[test]
fn value_counts_a_terminating_ready_pod() {
    let leaving = PodState { terminating: true, ..PodState::READY };
    let unready = PodState { ready: false, ..PodState::READY };
    let pods = [("a", PodState::READY), ("b", leaving), ("c", PodState::PENDING), ("d", unready)];
    let current = Replicas { spec: 3, status: 4, pods: Pods::Named(pods.map(|(name, pod)| (name.to_owned(), pod)).into()) };
    let answer = proposal(external_value(1000), &current, MetricReading::item(3000));
    assert_eq!(answer.replicas, 6);
}

#[test]
fn value_without_any_pod_is_an_error() {
    let current = Replicas { spec: 2, status: 0, pods: Pods::Counted { ready: 0, not_ready: 0 } };
    let error = try_proposal(external_value(600), &current, MetricReading::item(900));
    assert_eq!(error, Err(MetricError::NoPods));
    // Inside the tolerance the pods are not looked at.
    let answer = proposal(external_value(600), &current, MetricReading::item(600));
    assert_eq!(answer.replicas, 2);
    // AverageValue never looks at them.
    let reading = MetricReading::item(units(50));
    assert_eq!(proposal(external_average(units(10)), &current, reading).replicas, 5);
}

#[test]
fn tolerance_is_ten_percent_each_way_ends_included() {
    let current = Replicas::settled(10);
    let wanted = |milli| proposal(external_value(1000), &current, MetricReading::item(milli)).replicas;
    assert_eq!(wanted(1100), 10);
    assert_eq!(wanted(900), 10);
    assert_eq!(wanted(1101), 12);
    assert_eq!(wanted(899), 9);
    let average = |total| proposal(external_average(1000), &current, MetricReading::item(total)).replicas;
    assert_eq!(average(units(11)), 10);
    assert_eq!(average(units(9)), 10);
    assert_eq!(average(11_001), 12);
    assert_eq!(average(8_999), 9);
}

#[test]
fn tolerance_of_each_direction_is_its_own() {
    let with = |up, down| {
        let mut spec = spec_of(external_value(1000));
        let mut behavior = free_behavior();
        behavior.scale_up.tolerance = up;
        behavior.scale_down.tolerance = down;
        spec.behavior = Some(behavior);
        spec
    };
    let wanted = |spec: HpaSpec, milli| first_turn(spec, &Replicas::settled(10), MetricReading::item(milli)).wanted;
    assert_eq!(wanted(with(Some(0.0), None), 1001), Some(11));
    assert_eq!(wanted(with(Some(0.0), None), 900), Some(10));
    assert_eq!(wanted(with(None, Some(0.5)), 500), Some(10));
    assert_eq!(wanted(with(None, Some(0.5)), 499), Some(5));
    assert_eq!(wanted(with(None, Some(0.5)), 1101), Some(12));
    let mut flag = spec_of(external_value(1000));
    flag.tolerance = 0.3;
    assert_eq!(wanted(flag, 1300), Some(10));
}

#[test]
fn average_value_inside_tolerance_keeps_status_not_spec() {
    // Asked for 8, 4 exist so far, load for 4: the proposal falls back to 4.
    let current = Replicas { spec: 8, ..Replicas::settled(4) };
    let reading = MetricReading::item(units(41));
    let answer = proposal(external_average(units(10)), &current, reading);
    assert_eq!((answer.replicas, answer.rule), (4, Rule::WithinTolerance));
    // Value keeps what was asked for.
    let answer = proposal(external_value(units(10)), &current, MetricReading::item(units(10)));
    assert_eq!((answer.replicas, answer.rule), (8, Rule::WithinTolerance));
}

#[test]
fn value_from_zero_has_no_tolerance_and_no_pods() {
    let current = Replicas::settled(0);
    let metric = || MetricSpec::external("m", Target::Value(600));
    let from_zero = |milli| {
        let mut hpa = hpa(HpaSpec::new(0, 9, vec![metric()]));
        hpa.set_scaled_to_zero(true);
        let decision = hpa.sync(at(0), &current, &[MetricReading::item(milli)]);
        decision.wanted
    };
    assert_eq!(from_zero(0), Some(0));
    assert_eq!(from_zero(1), Some(1));
    assert_eq!(from_zero(600), Some(1));
    assert_eq!(from_zero(601), Some(2));
    assert_eq!(from_zero(1800), Some(3));
}

#[test]
fn average_value_at_zero_status_has_no_ratio() {
    let current = Replicas { status: 0, ..Replicas::settled(1) };
    let of = |milli| proposal(external_average(units(10)), &current, MetricReading::item(milli));
    assert_eq!(of(0).replicas, 0);
    assert_eq!(of(1).replicas, 1);
    assert_eq!(of(units(25)).replicas, 3);
    assert_eq!(of(units(25)).status_milli, None);
    assert!(!of(units(25)).ratio.is_finite());
}

#[test]
fn external_items_are_summed() {
    let items = MetricReading::Items(vec![units(10), units(15), units(25)]);
    let current = Replicas::settled(4);
    assert_eq!(proposal(external_average(units(10)), &current, items).replicas, 5);
    // Two series of a mean double it.
    let means = MetricReading::Items(vec![600, 600]);
    assert_eq!(proposal(external_value(600), &current, means).replicas, 8);
}

#[test]
fn empty_external_list_is_an_error() {
    let error = try_proposal(external_value(600), &Replicas::settled(1), MetricReading::Items(Vec::new())).unwrap_err();
    assert_eq!(error, MetricError::NoItems);
    assert_eq!(error.to_string(), "no metrics returned from external metrics API");
}

#[test]
fn object_takes_exactly_one_item() {
    for items in [vec![], vec![1, 2]] {
        let count = items.len();
        let error = try_proposal(object(Target::Value(600)), &Replicas::settled(1), MetricReading::Items(items)).unwrap_err();
        assert_eq!(error, MetricError::NotExactlyOne(count));
        assert_eq!(
            error.to_string(),
            format!("the custom metrics API server returned {count} results when we asked for exactly one")
        );
    }
}

#[test]
fn sums_and_replicas_are_capped() {
    let current = Replicas::settled(4);
    let huge = || MetricReading::Items(vec![i64::MAX, i64::MAX, i64::MAX]);
    for metric in [external_value(1), external_average(1)] {
        let answer = proposal(metric.clone(), &current, huge());
        assert_eq!(answer.usage_milli, i64::MAX);
        assert_eq!(answer.replicas, i32::MAX);
        let decision = first_turn(spec_of(metric), &current, huge());
        assert_eq!(decision.wanted, Some(i32::MAX as u32));
        assert_eq!(decision.desired, 8);
    }
    let answer = proposal(object(Target::Value(1)), &current, MetricReading::item(i64::MAX));
    assert_eq!(answer.replicas, i32::MAX);
}

#[test]
fn negative_values_are_not_rejected() {
    let current = Replicas::settled(4);
    let negative = || MetricReading::item(units(-5));
    assert_eq!(proposal(external_value(1000), &current, negative()).replicas, -20);
    assert_eq!(proposal(object(Target::AverageValue(1000)), &current, negative()).replicas, -5);
    let mut spec = spec_of(external_value(1000));
    spec.behavior = Some(free_behavior());
    let decision = first_turn(spec, &current, negative());
    assert_eq!((decision.wanted, decision.desired), (Some(0), 1));
    assert_eq!(decision.limit, Limit::TooFewReplicas);
}

#[test]
fn a_negative_external_total_is_taken_for_an_overflow() {
    let answer = proposal(external_average(1000), &Replicas::settled(4), MetricReading::item(-1));
    assert_eq!(answer.usage_milli, i64::MAX);
    assert_eq!(answer.replicas, i32::MAX);
}

#[test]
fn the_arithmetic_is_written_out() {
    let answer = proposal(external_value(600), &Replicas::settled(4), MetricReading::item(900));
    assert_eq!(answer.to_string(), "usage 900m, Value target 600m, ratio 1.500: ceil(1.500 x 4 pods) = 6");
    let answer = proposal(external_average(units(10)), &Replicas::settled(4), MetricReading::item(units(50)));
    assert_eq!(answer.to_string(), "usage 50, AverageValue target 10, ratio 1.250: ceil(50 / 10) = 5, whatever the size now");
}
