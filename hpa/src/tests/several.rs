//! Several metrics, failing metrics, texts of failures.

use super::*;

/// Two totals with `AverageValue` 1, free behaviour, bounds 1 and 100.
fn two() -> Hpa {
    let metric = |name: &str| MetricSpec::external(name, Target::AverageValue(units(1)));
    let mut spec = HpaSpec::new(1, 100, vec![metric("a"), metric("b")]);
    spec.behavior = Some(free_behavior());
    hpa(spec)
}

fn failing() -> MetricReading {
    MetricReading::Error("pool default/llama has no fresh data".to_owned())
}

fn wish(replicas: i64) -> MetricReading {
    MetricReading::item(units(replicas))
}

#[test]
fn the_highest_proposal_wins() {
    for readings in [[wish(7), wish(9)], [wish(9), wish(7)]] {
        let decision = two().sync(at(0), &Replicas::settled(4), &readings);
        assert_eq!(decision.desired, 9);
    }
    let decision = two().sync(at(0), &Replicas::settled(4), &[wish(7), wish(9)]);
    assert_eq!(decision.reason, "external metric b(nil) above target");
}

#[test]
fn of_equal_proposals_the_first_is_named() {
    let decision = two().sync(at(0), &Replicas::settled(4), &[wish(9), wish(9)]);
    assert_eq!(decision.reason, "external metric a(nil) above target");
}

#[test]
fn a_failing_metric_blocks_shrinking() {
    for readings in [[failing(), wish(2)], [wish(2), failing()]] {
        let decision = two().sync(at(0), &Replicas::settled(4), &readings);
        assert_eq!((decision.desired, decision.outcome), (4, Outcome::Held));
        assert_eq!(decision.wanted, None);
        let active = decision.condition(ConditionKind::ScalingActive).unwrap();
        assert!(!active.status);
        assert_eq!(active.reason, Reason::FailedGetExternalMetric);
    }
}

#[test]
fn a_failing_metric_permits_growing_and_staying() {
    let decision = two().sync(at(0), &Replicas::settled(4), &[failing(), wish(6)]);
    assert_eq!((decision.desired, decision.outcome), (6, Outcome::Computed));
    assert!(decision.error.is_some());
    assert_eq!(reason_of(&decision, ConditionKind::ScalingActive), Reason::ValidMetricFound);
    let decision = two().sync(at(0), &Replicas::settled(4), &[failing(), wish(4)]);
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::Computed));
}

#[test]
fn all_failing_hold() {
    let decision = two().sync(at(0), &Replicas::settled(4), &[failing(), failing()]);
    assert_eq!((decision.desired, decision.outcome), (4, Outcome::Held));
    assert!(decision.events.iter().all(|event| event.warning));
}

#[test]
fn a_held_turn_is_no_recommendation() {
    // Ten minutes of errors leave nothing in the window but do not shrink either.
    let mut hpa = follow(1, 100, None);
    for minute in 0..10 {
        let current = Replicas::settled(8);
        let decision = hpa.sync(at(minute * 60), &current, &[failing()]);
        assert_eq!(decision.desired, 8);
    }
    assert_eq!(turn(&mut hpa, 601, 8, 3).desired, 3);
}

#[test]
fn texts_of_a_failure() {
    let selector = LabelSelector::labels([("name", "llama")]);
    let metrics = vec![
        MetricSpec::external("q", Target::AverageValue(units(1))).with_selector(selector),
        MetricSpec::external("r", Target::Value(units(1))),
    ];
    let mut hpa = hpa(HpaSpec::new(1, 9, metrics));
    let readings = [failing(), MetricReading::Items(Vec::new())];
    let decision = hpa.sync(at(0), &Replicas::settled(2), &readings);
    let first = "unable to get external metric default/q/&LabelSelector{MatchLabels:map[string]string{name: llama,},MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: pool default/llama has no fresh data";
    let active = decision.condition(ConditionKind::ScalingActive).unwrap();
    assert_eq!(active.message, format!("the HPA was unable to compute the replica count: {first}"));
    let texts: Vec<(String, &str)> =
        decision.events.iter().map(|event| (event.reason.to_string(), event.message.as_str())).collect();
    assert_eq!(texts.len(), 3);
    assert_eq!(texts[0], ("FailedGetExternalMetric".to_owned(), first));
    assert_eq!(texts[1].1, "unable to get external metric default/r/nil: no metrics returned from external metrics API");
    let summary = format!(
        "invalid metrics (2 invalid out of 2), first error is: failed to get q external metric value: failed to get q external metric: {first}"
    );
    assert_eq!(texts[2], ("FailedComputeMetricsReplicas".to_owned(), summary.as_str()));
    assert_eq!(decision.error, Some(summary));
}

#[test]
fn texts_name_object_and_pods() {
    let condition = |metric: MetricSpec, reading| {
        let decision = first_turn(spec_of(metric), &Replicas::settled(2), reading);
        let active = decision.condition(ConditionKind::ScalingActive).unwrap();
        (active.reason, active.message.clone())
    };
    let metric = MetricSpec::object("q", "InferencePool", "llama", Target::Value(1));
    assert_eq!(
        condition(metric, MetricReading::Items(vec![1, 2, 3])),
        (
            Reason::FailedGetObjectMetric,
            "the HPA was unable to compute the replica count: unable to get metric q on InferencePool default/llama: unable to fetch metrics from custom metrics API: the custom metrics API server returned 3 results when we asked for exactly one".to_owned()
        )
    );
    assert_eq!(
        condition(MetricSpec::pods("q", 1), failing()),
        (
            Reason::FailedGetPodsMetric,
            "the HPA was unable to compute the replica count: unable to get metric q: unable to fetch metrics from custom metrics API: pool default/llama has no fresh data".to_owned()
        )
    );
}

#[test]
fn readings_missing_or_of_another_kind_fail_their_metric() {
    let decision = two().sync(at(0), &Replicas::settled(4), &[wish(2)]);
    assert_eq!(decision.outcome, Outcome::Held);
    assert_eq!(decision.proposals[1].result, Err(MetricError::NoReading));
    let per_pod = MetricReading::per_pod([("p0", 1)]);
    let decision = two().sync(at(0), &Replicas::settled(4), &[wish(9), per_pod]);
    assert_eq!(decision.desired, 9);
    assert_eq!(decision.proposals[1].result, Err(MetricError::NoReading));
}

#[test]
fn a_highest_of_zero_is_named_after_the_last() {
    let found = |readings: &[MetricReading]| {
        let decision = two().sync(at(0), &Replicas::settled(4), readings);
        let active = decision.condition(ConditionKind::ScalingActive).unwrap();
        active.message.clone()
    };
    let text = |metric| format!("the HPA was able to successfully calculate a replica count from {metric}");
    assert_eq!(found(&[wish(0), wish(0)]), text("external metric b(nil)"));
    assert_eq!(found(&[wish(2), wish(0)]), text("external metric a(nil)"));
}
