//! Properties over arbitrary inputs.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_rules() -> impl Strategy<Value = ScalingRules> {
    let policy = (any::<bool>(), 1_u32..=u32::MAX, 1_u32..=1800).prop_map(|(is_pods, value, period_seconds)| ScalingPolicy {
        kind: if is_pods { PolicyKind::Pods } else { PolicyKind::Percent },
        value,
        period_seconds,
    });
    let select = prop_oneof![Just(SelectPolicy::Max), Just(SelectPolicy::Min), Just(SelectPolicy::Disabled)];
    let window = prop::option::of(0_u32..=3600);
    let tolerance = prop::option::of(0.0_f64..3.0);
    (window, select, vec(policy, 1..4), tolerance).prop_map(|(stabilization_window_seconds, select_policy, policies, tolerance)| {
        ScalingRules { stabilization_window_seconds, select_policy, policies, tolerance }
    })
}

fn any_behavior() -> impl Strategy<Value = Option<Behavior>> {
    prop::option::of((any_rules(), any_rules()).prop_map(|(scale_up, scale_down)| Behavior { scale_up, scale_down }))
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![(1_i64..=i64::MAX).prop_map(Target::Value), (1_i64..=i64::MAX).prop_map(Target::AverageValue)]
}

fn any_metric() -> impl Strategy<Value = MetricSpec> {
    prop_oneof![
        any_target().prop_map(|target| MetricSpec::external("m", target)),
        any_target().prop_map(|target| MetricSpec::object("m", "InferencePool", "p", target)),
        (1_i64..=i64::MAX).prop_map(|target| MetricSpec::pods("m", target)),
    ]
}

fn any_spec() -> impl Strategy<Value = HpaSpec> {
    let bounds = (0_u32..=i32::MAX as u32, 1_u32..=i32::MAX as u32);
    let small = (0_u32..20, 1_u32..20);
    (prop_oneof![bounds, small], vec(any_metric(), 1..4), any_behavior())
        .prop_map(|((one, other), metrics, behavior)| {
            let mut spec = HpaSpec::new(one.min(other), one.max(other), metrics);
            spec.behavior = behavior;
            spec
        })
        .prop_map(|mut spec| {
            if !spec.has_object_or_external_metric() {
                spec.min_replicas = spec.min_replicas.max(1);
            }
            spec
        })
}

fn any_pods() -> impl Strategy<Value = Pods> {
    let phase = prop_oneof![Just(PodPhase::Pending), Just(PodPhase::Running), Just(PodPhase::Finished)];
    let pod = (phase, any::<bool>(), any::<bool>()).prop_map(|(phase, ready, terminating)| PodState { phase, ready, terminating });
    prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(ready, not_ready)| Pods::Counted { ready, not_ready }),
        prop::collection::btree_map("[abcd]", pod, 0..5).prop_map(Pods::Named),
    ]
}

fn any_replicas() -> impl Strategy<Value = Replicas> {
    let count = || prop_oneof![any::<u32>(), 0_u32..20];
    (count(), count(), any_pods()).prop_map(|(spec, status, pods)| Replicas { spec, status, pods })
}

fn any_reading() -> impl Strategy<Value = MetricReading> {
    prop_oneof![
        vec(any::<i64>(), 0..4).prop_map(MetricReading::Items),
        any::<i64>().prop_map(MetricReading::item),
        prop::collection::btree_map("[abcd]", any::<i64>(), 0..5).prop_map(MetricReading::PerPod),
        Just(MetricReading::Error("boom".to_owned())),
    ]
}

/// External metrics with usage and size of everyday magnitude, and Ready pods only.
fn everyday() -> impl Strategy<Value = (MetricSpec, u32)> {
    let target = prop_oneof![(1_i64..5_000).prop_map(Target::Value), (1_i64..5_000).prop_map(Target::AverageValue)];
    (target, 1_u32..50).prop_map(|(target, size)| (MetricSpec::external("m", target), size))
}

proptest! {
    /// No input panics, and every turn stays inside the bounds unless it leaves the size alone
    /// because it must.
    #[test]
    fn arbitrary_turns_stay_within_bounds(
        spec in any_spec(),
        turns in vec((any::<u64>(), any_replicas(), vec(any_reading(), 0..4)), 1..8),
        asleep in any::<bool>(),
    ) {
        let (min, max) = (spec.min_replicas, spec.max_replicas);
        let mut hpa = hpa(spec);
        hpa.set_scaled_to_zero(asleep);
        for (now, current, readings) in turns {
            let decision = hpa.sync(Duration::from_nanos(now), &current, &readings);
            match decision.outcome {
                Outcome::Disabled => prop_assert_eq!((current.spec, decision.desired), (0, 0)),
                Outcome::Held => prop_assert_eq!(decision.desired, current.spec),
                _ => prop_assert!((min..=max).contains(&decision.desired)),
            }
            let changed = decision.desired != current.spec;
            let rescaled = decision.events.iter().any(|e| e.reason == Reason::SuccessfulRescale);
            prop_assert_eq!(changed, rescaled);
            for proposal in &decision.proposals {
                if let Ok(answer) = &proposal.result {
                    prop_assert!(!answer.to_string().is_empty());
                }
            }
        }
    }

    /// A ratio inside the dead band of a settled target changes nothing.
    #[test]
    fn inside_tolerance_nothing_changes(
        (metric, size) in everyday(),
        share in 0.9_f64..1.1,
        behavior in any::<bool>(),
    ) {
        let on_target = match metric.target {
            Target::Value(target) => target as f64,
            Target::AverageValue(target) => target as f64 * f64::from(size),
        };
        let usage = (on_target * share).round() as i64;
        prop_assume!((0.9..=1.1).contains(&(usage as f64 / on_target)));
        let mut spec = HpaSpec::new(1, 100, vec![metric]);
        spec.behavior = behavior.then(free_behavior);
        let reading = MetricReading::item(usage);
        let decision = first_turn(spec, &Replicas::settled(size), reading);
        prop_assert_eq!(decision.desired, size);
        prop_assert!(decision.events.is_empty());
    }

    /// More usage never asks for fewer replicas of a settled target.
    #[test]
    fn desired_is_monotone_in_usage(
        (metric, size) in everyday(),
        one in 0_i64..500_000,
        other in 0_i64..500_000,
        behavior in any_behavior(),
    ) {
        let mut spec = HpaSpec::new(1, 60, vec![metric]);
        spec.behavior = behavior;
        // A dead band above 1 hides everything and proves nothing.
        if let Some(behavior) = &mut spec.behavior {
            behavior.scale_up.tolerance = None;
            behavior.scale_down.tolerance = None;
        }
        let desired = |usage| {
            let reading = MetricReading::item(usage);
            first_turn(spec.clone(), &Replicas::settled(size), reading).desired
        };
        prop_assert!(desired(one.min(other)) <= desired(one.max(other)));
    }

    /// Shrinking never goes below the highest proposal of the down window, the size found first
    /// included.
    #[test]
    fn shrinking_never_undercuts_the_window(
        window in 1_u32..600,
        wishes in vec((1_u64..90, 1_i64..50), 1..30),
        with_behavior in any::<bool>(),
    ) {
        let mut behavior = free_behavior();
        behavior.scale_down.stabilization_window_seconds = Some(window);
        let mut hpa = follow(1, 50, with_behavior.then_some(behavior));
        let mut spec = hpa.spec().clone();
        spec.downscale_stabilization = at(u64::from(window));
        hpa.set_spec(spec).unwrap();

        let mut size = 25;
        let mut now = 0;
        let mut past = Vec::new();
        for (step, wish) in wishes {
            if past.is_empty() {
                past.push((now, i64::from(size)));
            } else {
                now += step;
            }
            let decision = turn(&mut hpa, now, size, wish);
            past.push((now, wish));
            let highest = past
                .iter()
                .filter(|(at, _)| now - at < u64::from(window))
                .map(|(_, wish)| *wish)
                .max()
                .unwrap_or(wish);
            if decision.desired < size {
                prop_assert!(i64::from(decision.desired) >= highest);
            }
            size = decision.desired;
        }
    }

    /// One policy of N pods in a period: never more than N added within any period.
    #[test]
    fn growth_never_overshoots_its_policy(
        pods in 1_u32..10,
        period in 1_u32..120,
        steps in vec(1_u64..60, 1..40),
    ) {
        let mut behavior = free_behavior();
        behavior.scale_up.policies = vec![ScalingPolicy::pods(pods, period)];
        let mut hpa = follow(1, 10_000, Some(behavior));
        let mut size = 1;
        let mut now = 0;
        let mut past = vec![(0, size)];
        for step in steps {
            now += step;
            size = turn(&mut hpa, now, size, 9_000).desired;
            past.push((now, size));
            for (at, before) in past.iter().filter(|(at, _)| now - at < u64::from(period)) {
                prop_assert!(size <= before + pods, "{before} at {at}, {size} at {now}");
            }
        }
    }
}
