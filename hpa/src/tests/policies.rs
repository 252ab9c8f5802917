//! Rate limits.

use super::*;

fn up(policies: Vec<ScalingPolicy>, select_policy: SelectPolicy) -> Option<Behavior> {
    let mut behavior = free_behavior();
    behavior.scale_up.policies = policies;
    behavior.scale_up.select_policy = select_policy;
    Some(behavior)
}

fn down(policies: Vec<ScalingPolicy>, select_policy: SelectPolicy) -> Option<Behavior> {
    let mut behavior = free_behavior();
    behavior.scale_down.policies = policies;
    behavior.scale_down.select_policy = select_policy;
    Some(behavior)
}

const MAX: SelectPolicy = SelectPolicy::Max;

#[test]
fn without_behavior_growth_is_capped_at_double_or_four() {
    for (size, most) in [(1, 4), (2, 4), (3, 6), (10, 20)] {
        let decision = turn(&mut follow(1, 1000, None), 0, size, 500);
        assert_eq!((decision.desired, decision.limit), (most, Limit::ScaleUpLimit));
    }
    // Per turn, not per period.
    let mut hpa = follow(1, 1000, None);
    assert_eq!(turn(&mut hpa, 0, 10, 500).desired, 20);
    assert_eq!(turn(&mut hpa, 1, 20, 500).desired, 40);
}

#[test]
fn default_behavior_grows_by_four_or_double_in_a_period() {
    for (size, most) in [(1, 5), (3, 7), (4, 8), (10, 20)] {
        let mut hpa = follow(1, 1000, Some(Behavior::default()));
        let decision = turn(&mut hpa, 0, size, 500);
        assert_eq!((decision.desired, decision.limit), (most, Limit::ScaleUpLimit));
    }
}

#[test]
fn a_period_counts_what_was_added_in_it() {
    let mut hpa = follow(1, 1000, Some(Behavior::default()));
    assert_eq!(turn(&mut hpa, 0, 10, 500).desired, 20);
    // Start of the period is still 10.
    let decision = turn(&mut hpa, 14, 20, 500);
    assert_eq!((decision.desired, decision.limit), (20, Limit::ScaleUpLimit));
    assert_eq!(turn(&mut hpa, 15, 20, 500).desired, 40);
}

#[test]
fn a_period_counts_what_was_removed_in_it() {
    let mut behavior = free_behavior();
    behavior.scale_up.policies = vec![ScalingPolicy::pods(2, 60)];
    let mut hpa = follow(1, 1000, Some(behavior));
    assert_eq!(turn(&mut hpa, 0, 10, 6).desired, 6);
    // 6 + 4 removed + 2.
    assert_eq!(turn(&mut hpa, 30, 6, 100).desired, 12);
}

#[test]
fn what_was_added_too_fast_is_not_taken_back() {
    let mut hpa = follow(1, 1000, up(vec![ScalingPolicy::pods(20, 60)], MAX));
    assert_eq!(turn(&mut hpa, 0, 10, 30).desired, 30);
    let mut spec = hpa.spec().clone();
    spec.behavior = up(vec![ScalingPolicy::pods(1, 60)], MAX);
    hpa.set_spec(spec).unwrap();
    // The limit is now 10 + 1, below the size.
    let decision = turn(&mut hpa, 30, 30, 40);
    assert_eq!((decision.desired, decision.limit), (30, Limit::ScaleUpLimit));
}

#[test]
fn percent_rounds_up_growing_and_down_shrinking() {
    let grow = |size, percent| {
        let behavior = up(vec![ScalingPolicy::percent(percent, 60)], MAX);
        turn(&mut follow(1, 1000, behavior), 0, size, 500).desired
    };
    assert_eq!(grow(1, 10), 2);
    assert_eq!(grow(5, 10), 6);
    assert_eq!(grow(10, 50), 15);
    let shrink = |size, percent| {
        let behavior = down(vec![ScalingPolicy::percent(percent, 60)], MAX);
        turn(&mut follow(1, 1000, behavior), 0, size, 1).desired
    };
    assert_eq!(shrink(5, 50), 2);
    assert_eq!(shrink(10, 10), 9);
    assert_eq!(shrink(3, 10), 2);
    assert_eq!(shrink(10, 100), 1);
    assert_eq!(shrink(10, 250), 1);
}

#[test]
fn shrinking_by_pods_in_a_period() {
    let mut hpa = follow(1, 1000, down(vec![ScalingPolicy::pods(2, 60)], MAX));
    let decision = turn(&mut hpa, 0, 10, 1);
    assert_eq!((decision.desired, decision.limit), (8, Limit::ScaleDownLimit));
    assert_eq!(turn(&mut hpa, 59, 8, 1).desired, 8);
    assert_eq!(turn(&mut hpa, 60, 8, 1).desired, 6);
}

#[test]
fn select_policy_takes_the_widest_or_the_narrowest() {
    let policies = || vec![ScalingPolicy::pods(3, 60), ScalingPolicy::percent(100, 60)];
    let grow = |select| turn(&mut follow(1, 1000, up(policies(), select)), 0, 10, 500).desired;
    assert_eq!(grow(SelectPolicy::Max), 20);
    assert_eq!(grow(SelectPolicy::Min), 13);
    assert_eq!(grow(SelectPolicy::Disabled), 10);
    let policies = || vec![ScalingPolicy::pods(3, 60), ScalingPolicy::percent(50, 60)];
    let shrink = |select| turn(&mut follow(1, 1000, down(policies(), select)), 0, 10, 1).desired;
    assert_eq!(shrink(SelectPolicy::Max), 5);
    assert_eq!(shrink(SelectPolicy::Min), 7);
    assert_eq!(shrink(SelectPolicy::Disabled), 10);
}

#[test]
fn disabled_names_the_rate_limit() {
    let policies = || vec![ScalingPolicy::pods(3, 60)];
    let mut hpa = follow(1, 1000, up(policies(), SelectPolicy::Disabled));
    assert_eq!(turn(&mut hpa, 0, 10, 20).limit, Limit::ScaleUpLimit);
    let mut hpa = follow(1, 1000, down(policies(), SelectPolicy::Disabled));
    assert_eq!(turn(&mut hpa, 0, 10, 5).limit, Limit::ScaleDownLimit);
}

#[test]
fn bounds_beat_wider_policies() {
    let mut hpa = follow(3, 12, Some(free_behavior()));
    let decision = turn(&mut hpa, 0, 10, 50);
    assert_eq!((decision.desired, decision.limit), (12, Limit::TooManyReplicas));
    let decision = turn(&mut hpa, 15, 12, 1);
    assert_eq!((decision.desired, decision.limit), (3, Limit::TooFewReplicas));
    let mut hpa = follow(1, 6, None);
    let decision = turn(&mut hpa, 0, 5, 50);
    assert_eq!((decision.desired, decision.limit), (6, Limit::TooManyReplicas));
}

#[test]
fn huge_policies_do_not_overflow() {
    let policies = || vec![ScalingPolicy::pods(u32::MAX, 1800), ScalingPolicy::percent(u32::MAX, 1800)];
    let mut hpa = follow(1, i32::MAX as u32, up(policies(), MAX));
    assert_eq!(turn(&mut hpa, 0, 10, 1_000_000).desired, 1_000_000);
    let mut hpa = follow(1, i32::MAX as u32, down(policies(), MAX));
    assert_eq!(turn(&mut hpa, 0, 10, 1).desired, 1);
}

#[test]
fn an_event_serves_the_other_direction_until_its_slot_is_taken() {
    let mut behavior = free_behavior();
    behavior.scale_up.policies = vec![ScalingPolicy::pods(4, 15)];
    behavior.scale_down.policies = vec![ScalingPolicy::pods(1, 600)];
    let mut hpa = follow(1, 1000, Some(behavior));
    assert_eq!(turn(&mut hpa, 0, 10, 14).desired, 14);
    // Start of the down period is 14 - 4, so 9 would be allowed.
    assert_eq!(turn(&mut hpa, 20, 14, 9).desired, 9);
    // The second growth takes the slot of the first.
    assert_eq!(turn(&mut hpa, 30, 9, 10).desired, 10);
    // 10 - 1 added + 5 removed - 1 allowed: nothing may go.
    assert_eq!(turn(&mut hpa, 40, 10, 1).desired, 10);
}
