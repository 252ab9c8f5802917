//! To zero, at zero, from zero.

use super::*;

fn idle_behavior() -> Behavior {
    let mut behavior = Behavior::default();
    behavior.scale_down.stabilization_window_seconds = Some(0);
    behavior
}

/// An HPA with `AverageValue` 10 that has just gone from 3 to 0 by itself.
fn asleep() -> Hpa {
    let metric = MetricSpec::external("queue", Target::AverageValue(units(10)));
    let mut spec = HpaSpec::new(0, 3, vec![metric]);
    spec.behavior = Some(idle_behavior());
    let mut hpa = hpa(spec);
    let decision = turn(&mut hpa, 0, 3, 0);
    assert_eq!(decision.desired, 0);
    hpa
}

#[test]
fn the_proven_round_of_a_real_cluster() {
    // Deployment with 1 replica, min 0, max 3: 25 → 3 pods, 0 → none, 5 → 1.
    let metric = MetricSpec::external("queue", Target::AverageValue(units(10)));
    let mut spec = HpaSpec::new(0, 3, vec![metric]);
    spec.behavior = Some(idle_behavior());
    let mut hpa = hpa(spec);
    assert_eq!(turn(&mut hpa, 0, 1, 25).desired, 3);
    let decision = turn(&mut hpa, 2, 3, 0);
    assert_eq!(decision.desired, 0);
    assert_eq!(decision.reason, "All metrics below target");
    let zero = decision.condition(ConditionKind::ScaledToZero).unwrap();
    assert!(zero.status);
    assert_eq!(zero.message, "the HPA controller scaled the workload to zero");
    assert_eq!(turn(&mut hpa, 4, 0, 0).desired, 0);
    assert!(hpa.is_scaled_to_zero());
    let decision = turn(&mut hpa, 6, 0, 5);
    assert_eq!(decision.desired, 1);
    assert_eq!(reason_of(&decision, ConditionKind::ScaledToZero), Reason::NotScaledToZero);
}

#[test]
fn going_to_zero_needs_exactly_zero() {
    let metric = MetricSpec::external("mean", Target::Value(600));
    let mut spec = HpaSpec::new(0, 3, vec![metric]);
    spec.behavior = Some(idle_behavior());
    let desired = |milli| first_turn(spec.clone(), &Replicas::settled(2), MetricReading::item(milli)).desired;
    assert_eq!(desired(1), 1);
    assert_eq!(desired(0), 0);
}

#[test]
fn going_to_zero_needs_every_metric_at_zero() {
    let metric = |name: &str| MetricSpec::external(name, Target::AverageValue(units(10)));
    let mut spec = HpaSpec::new(0, 3, vec![metric("a"), metric("b")]);
    spec.behavior = Some(idle_behavior());
    let readings = [MetricReading::item(0), MetricReading::item(1)];
    let decision = hpa(spec).sync(at(0), &Replicas::settled(2), &readings);
    assert_eq!(decision.desired, 1);
}

#[test]
fn waking_uses_the_whole_need_at_once() {
    assert_eq!(turn(&mut asleep(), 15, 0, 30).desired, 3);
    assert_eq!(turn(&mut asleep(), 15, 0, 1).desired, 1);
}

#[test]
fn a_failing_metric_at_zero_stays_asleep_and_may_wake_later() {
    let mut hpa = asleep();
    let failing = [MetricReading::Error("503".to_owned())];
    let decision = hpa.sync(at(15), &Replicas::settled(0), &failing);
    assert_eq!((decision.desired, decision.outcome), (0, Outcome::Held));
    assert_eq!(turn(&mut hpa, 30, 0, 20).desired, 2);
}

#[test]
fn manual_zero_stays_disabled_and_reads_nothing() {
    for min in [0, 1] {
        let mut hpa = follow(min, 9, None);
        let decision = turn(&mut hpa, 0, 0, 50);
        assert_eq!((decision.desired, decision.outcome), (0, Outcome::Disabled));
        assert!(decision.proposals.is_empty());
        let active = decision.condition(ConditionKind::ScalingActive).unwrap();
        assert!(!active.status);
        assert_eq!(active.reason, Reason::ScalingDisabled);
        assert_eq!(active.message, "scaling is disabled since the replica count of the target is zero");
    }
}

#[test]
fn manual_zero_after_a_wake_is_manual() {
    let mut hpa = asleep();
    assert_eq!(turn(&mut hpa, 15, 0, 30).desired, 3);
    assert_eq!(turn(&mut hpa, 30, 0, 30).outcome, Outcome::Disabled);
}

#[test]
fn minimum_raised_at_zero_jumps_to_it() {
    for behavior in [None, Some(idle_behavior())] {
        let mut hpa = asleep();
        let mut spec = hpa.spec().clone();
        spec.min_replicas = 2;
        spec.behavior = behavior;
        // One pod in 15 s: the jump does not care.
        if let Some(behavior) = &mut spec.behavior {
            behavior.scale_up.policies = vec![ScalingPolicy::pods(1, 15)];
        }
        hpa.set_spec(spec).unwrap();
        let decision = turn(&mut hpa, 301, 0, 0);
        assert_eq!(decision.desired, 2);
        let event = &decision.events[0].message;
        assert!(event.starts_with("New size: 2; reason: "));
        // Without behaviour the minimum is an ordinary limit, and the controller gives no reason.
        assert_eq!(event.ends_with("Current number of replicas below Spec.MinReplicas"), hpa.spec().behavior.is_some());
        assert!(!hpa.is_scaled_to_zero());
    }
}

#[test]
fn minimum_raised_after_a_manual_zero_does_nothing() {
    let mut hpa = follow(0, 9, None);
    assert_eq!(turn(&mut hpa, 0, 0, 5).outcome, Outcome::Disabled);
    let mut spec = hpa.spec().clone();
    spec.min_replicas = 2;
    hpa.set_spec(spec).unwrap();
    assert_eq!(turn(&mut hpa, 15, 0, 5).outcome, Outcome::Disabled);
}

#[test]
fn a_known_condition_is_taken_over() {
    let mut hpa = follow(0, 9, None);
    hpa.set_scaled_to_zero(true);
    assert_eq!(turn(&mut hpa, 0, 0, 2).desired, 2);
}

#[test]
fn without_behavior_zero_grows_to_four_at_most() {
    let mut hpa = follow(0, 9, None);
    hpa.set_scaled_to_zero(true);
    let decision = turn(&mut hpa, 0, 0, 8);
    assert_eq!((decision.desired, decision.limit), (4, Limit::ScaleUpLimit));
}

#[test]
fn a_percent_policy_alone_cannot_leave_zero() {
    let mut behavior = idle_behavior();
    behavior.scale_up.policies = vec![ScalingPolicy::percent(900, 15)];
    let mut hpa = follow(0, 9, Some(behavior));
    hpa.set_scaled_to_zero(true);
    let decision = turn(&mut hpa, 0, 0, 8);
    assert_eq!((decision.desired, decision.limit), (0, Limit::ScaleUpLimit));
    assert!(hpa.is_scaled_to_zero());
}

#[test]
fn zero_waits_for_the_window() {
    let mut hpa = follow(0, 9, None);
    assert_eq!(turn(&mut hpa, 0, 2, 0).desired, 2);
    assert_eq!(turn(&mut hpa, 300, 2, 0).desired, 2);
    assert_eq!(turn(&mut hpa, 301, 2, 0).desired, 0);
}

#[test]
fn minimum_zero_needs_a_metric_that_lives_without_pods() {
    let error = Hpa::new(HpaSpec::new(0, 3, vec![MetricSpec::pods("q", 1)])).unwrap_err();
    assert_eq!(error, SpecError::ZeroNeedsObjectOrExternal);
    let metrics = vec![MetricSpec::pods("q", 1), MetricSpec::object("q", "InferencePool", "p", Target::Value(1))];
    assert!(Hpa::new(HpaSpec::new(0, 3, metrics)).is_ok());
}

#[test]
fn a_failing_metric_keeps_a_raised_minimum_waiting() {
    let mut hpa = asleep();
    let mut spec = hpa.spec().clone();
    spec.min_replicas = 2;
    hpa.set_spec(spec).unwrap();
    let failing = [MetricReading::Error("503".to_owned())];
    let decision = hpa.sync(at(15), &Replicas::settled(0), &failing);
    assert_eq!((decision.desired, decision.outcome), (0, Outcome::Held));
    assert_eq!(turn(&mut hpa, 30, 0, 0).desired, 2);
}

#[test]
fn negative_usage_goes_to_zero_and_no_further() {
    let metric = MetricSpec::external("mean", Target::Value(600));
    let mut spec = HpaSpec::new(0, 3, vec![metric]);
    spec.behavior = Some(free_behavior());
    let decision = first_turn(spec, &Replicas::settled(2), MetricReading::item(-900));
    assert_eq!((decision.wanted, decision.desired), (Some(0), 0));
    assert_eq!(decision.limit, Limit::WithinRange);
}
