//! A mean with `AverageValue` is divided by the replica count once more.

use super::*;

fn mean_with_average_value(target: i64) -> MetricSpec {
    MetricSpec::external("inference_pool_average_kv_cache_utilization", Target::AverageValue(target))
}

#[test]
fn the_gke_example_forgets_the_size() {
    for size in [4, 20, 50] {
        let wanted = |target| {
            let metric = mean_with_average_value(target);
            proposal(metric, &Replicas::settled(size), MetricReading::item(800)).replicas
        };
        assert_eq!(wanted(800), 1, "at size {size}");
        assert_eq!(wanted(10), 80, "at size {size}");
    }
}

#[test]
fn the_same_mean_with_value_scales_the_size() {
    let metric = || MetricSpec::external("mean", Target::Value(400));
    let wanted = |size| proposal(metric(), &Replicas::settled(size), MetricReading::item(800)).replicas;
    assert_eq!(wanted(4), 8);
    assert_eq!(wanted(20), 40);
}

#[test]
fn mean_and_target_from_the_reference() {
    // Mean 0.6, target 0.1: 6, whether 2 or 20 pods produced it.
    for size in [2, 20] {
        let metric = mean_with_average_value(100);
        let answer = proposal(metric, &Replicas::settled(size), MetricReading::item(600));
        assert_eq!(answer.replicas, 6);
    }
}

#[test]
fn a_ratio_with_a_target_of_half_or_more_never_asks_for_more_than_two() {
    for size in 0..40 {
        for target in (500..=1000).step_by(50) {
            for mean in (0..=1000).step_by(25) {
                let current = Replicas { spec: 1, ..Replicas::settled(size) };
                let metric = mean_with_average_value(target);
                let answer = proposal(metric, &current, MetricReading::item(mean));
                assert!(answer.replicas <= 2, "mean {mean}m target {target}m size {size}: {answer}");
            }
        }
    }
}

#[test]
fn a_full_pool_shrinks_to_one() {
    // The whole loop: every pod full, and the HPA takes pods away until one is left.
    let mut spec = HpaSpec::new(1, 10, vec![mean_with_average_value(1000)]);
    spec.behavior = Some(free_behavior());
    let decision = first_turn(spec, &Replicas::settled(8), MetricReading::item(1000));
    assert_eq!(decision.desired, 1);
    assert_eq!(decision.reason, "All metrics below target");
}
