//! One turn: corrections, conditions, events, and specs that are refused.

use super::*;

fn average(target: i64) -> MetricSpec {
    MetricSpec::external("queue", Target::AverageValue(target))
}

#[test]
fn above_maximum_is_cut_without_reading_metrics() {
    let mut hpa = hpa(HpaSpec::new(2, 5, vec![average(1)]));
    let decision = hpa.sync(at(0), &Replicas::settled(9), &[]);
    assert_eq!((decision.desired, decision.outcome), (5, Outcome::CutToMaximum));
    assert!(decision.proposals.is_empty());
    assert_eq!(decision.events[0].message, "New size: 5; reason: Current number of replicas above Spec.MaxReplicas");
}

#[test]
fn below_minimum_is_raised_without_reading_metrics() {
    let mut hpa = hpa(HpaSpec::new(4, 5, vec![average(1)]));
    let decision = hpa.sync(at(0), &Replicas::settled(1), &[]);
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::RaisedToMinimum));
    assert_eq!(decision.reason, "Current number of replicas below Spec.MinReplicas");
    assert!(decision.condition(ConditionKind::ScalingActive).is_none());
}

#[test]
fn growth_names_the_metric_and_sets_the_conditions() {
    let selector = LabelSelector::labels([("name", "llama")]);
    let metric = average(units(10)).with_selector(selector);
    let reading = MetricReading::item(units(50));
    let decision = first_turn(spec_of(metric), &Replicas::settled(4), reading);
    assert_eq!(decision.desired, 5);
    let named = "external metric queue(&LabelSelector{MatchLabels:map[string]string{name: llama,},MatchExpressions:[]LabelSelectorRequirement{},})";
    assert_eq!(decision.reason, format!("{named} above target"));
    let event = &decision.events[0];
    assert!(!event.warning);
    assert_eq!(event.reason, Reason::SuccessfulRescale);
    assert_eq!(event.message, format!("New size: 5; reason: {named} above target"));
    let messages: Vec<(String, bool, String, String)> = decision
        .conditions
        .iter()
        .map(|condition| (condition.kind.to_string(), condition.status, condition.reason.to_string(), condition.message.clone()))
        .collect();
    let expected = [
        ("AbleToScale", true, "SucceededRescale", "the HPA controller was able to update the target scale to 5".to_owned()),
        (
            "ScalingActive",
            true,
            "ValidMetricFound",
            format!("the HPA was able to successfully calculate a replica count from {named}"),
        ),
        ("ScalingLimited", false, "DesiredWithinRange", "the desired count is within the acceptable range".to_owned()),
        ("ScaledToZero", false, "NotScaledToZero", "the HPA controller did not scale the workload to zero".to_owned()),
    ]
    .map(|(kind, status, reason, message)| (kind.to_owned(), status, reason.to_owned(), message));
    assert_eq!(messages, expected);
}

#[test]
fn nothing_to_do_is_ready_for_a_new_scale() {
    let reading = MetricReading::item(units(40));
    let decision = first_turn(spec_of(average(units(10))), &Replicas::settled(4), reading);
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::Computed));
    assert!(decision.events.is_empty());
    let able = decision.condition(ConditionKind::AbleToScale).unwrap();
    assert_eq!(able.reason, Reason::ReadyForNewScale);
    assert_eq!(able.message, "recommended size matches current size");
    assert_eq!(decision.reason, "recommended size matches current size");
}

#[test]
fn a_cut_growth_names_the_limit() {
    let mut hpa = follow(1, 10, Some(free_behavior()));
    let decision = turn(&mut hpa, 0, 8, 40);
    let limited = decision.condition(ConditionKind::ScalingLimited).unwrap();
    assert!(limited.status);
    assert_eq!(limited.reason, Reason::TooManyReplicas);
    assert_eq!(
        decision.reason,
        "external metric wish(nil) above target; the desired replica count is more than the maximum replica count"
    );
}

#[test]
fn object_and_pods_metrics_are_named_as_the_controller_does() {
    let object = |target| MetricSpec::object("m", "InferencePool", "p", target).described();
    assert_eq!(object(Target::Value(1)), "InferencePool metric m");
    assert_eq!(object(Target::AverageValue(1)), "external metric m(nil)");
    assert_eq!(MetricSpec::pods("m", 1).described(), "pods metric m");
}

#[test]
fn conditions_of_earlier_turns_stay() {
    let mut hpa = follow(1, 100, Some(free_behavior()));
    turn(&mut hpa, 0, 4, 200);
    let decision = turn(&mut hpa, 15, 200, 1);
    assert_eq!(decision.outcome, Outcome::CutToMaximum);
    assert_eq!(reason_of(&decision, ConditionKind::ScalingLimited), Reason::TooManyReplicas);
}

#[test]
fn refused_specs_say_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut HpaSpec)| {
        let mut spec = spec_of(average(1));
        spec.behavior = Some(Behavior::default());
        change(&mut spec);
        Hpa::new(spec).unwrap_err()
    };
    assert_eq!(refused(&|spec| spec.max_replicas = 0), SpecError::MaxReplicas(0));
    assert_eq!(refused(&|spec| spec.max_replicas = u32::MAX), SpecError::MaxReplicas(u32::MAX));
    assert_eq!(refused(&|spec| (spec.min_replicas, spec.max_replicas) = (3, 2)), SpecError::MinAboveMax { min: 3, max: 2 });
    assert_eq!(refused(&|spec| spec.metrics.clear()), SpecError::NoMetrics);
    for milli in [0, -5] {
        assert_eq!(
            refused(&|spec| spec.metrics[0].target = Target::Value(milli)),
            SpecError::TargetNotPositive { metric: "queue".to_owned(), milli }
        );
    }
    assert_eq!(
        refused(&|spec| {
            spec.metrics[0] = MetricSpec { target: Target::Value(1), ..MetricSpec::pods("p", 1) };
        }),
        SpecError::PodsNeedAverageValue("p".to_owned())
    );
    for value in [-0.1, f64::INFINITY] {
        let error = refused(&|spec| spec.tolerance = value);
        assert!(matches!(error, SpecError::Tolerance { .. }));
    }
    let behavior = |change: fn(&mut Behavior)| refused(&move |spec| change(spec.behavior.as_mut().unwrap()));
    assert!(matches!(behavior(|b| b.scale_up.tolerance = Some(f64::NAN)), SpecError::Tolerance { place: "scaleUp", .. }));
    assert_eq!(
        behavior(|b| b.scale_down.stabilization_window_seconds = Some(3601)),
        SpecError::WindowTooLong { direction: "scaleDown", seconds: 3601 }
    );
    assert_eq!(behavior(|b| b.scale_up.policies.clear()), SpecError::NoPolicies { direction: "scaleUp" });
    for policy in [ScalingPolicy::pods(0, 15), ScalingPolicy::pods(1, 0), ScalingPolicy::percent(1, 1801)] {
        let error = refused(&|spec| {
            spec.behavior.as_mut().unwrap().scale_up.policies = vec![policy];
        });
        assert!(matches!(error, SpecError::Policy { .. }));
    }
}

#[test]
fn a_refused_edit_leaves_the_old_spec() {
    let mut hpa = follow(1, 9, None);
    let before = hpa.spec().clone();
    let mut broken = before.clone();
    broken.min_replicas = 10;
    assert!(hpa.set_spec(broken).is_err());
    assert_eq!(hpa.spec(), &before);
}
