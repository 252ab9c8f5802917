//! Stabilisation windows.

use super::*;

fn windows(up: u32, down: u32) -> Behavior {
    let mut behavior = free_behavior();
    behavior.scale_up.stabilization_window_seconds = Some(up);
    behavior.scale_down.stabilization_window_seconds = Some(down);
    behavior
}

#[test]
fn the_first_turn_counts_the_size_it_finds() {
    for behavior in [None, Some(Behavior::default())] {
        let mut hpa = follow(1, 100, behavior);
        let decision = turn(&mut hpa, 0, 8, 2);
        assert_eq!((decision.wanted, decision.desired), (Some(2), 8));
        assert_eq!(decision.stabilized, Some(Stabilized::Down));
    }
}

#[test]
fn down_takes_the_highest_of_the_window() {
    let mut hpa = follow(1, 100, Some(windows(0, 60)));
    assert_eq!(turn(&mut hpa, 0, 10, 10).desired, 10);
    assert_eq!(turn(&mut hpa, 15, 10, 7).desired, 10);
    assert_eq!(turn(&mut hpa, 30, 10, 3).desired, 10);
    // The 10 of second 0 has left, the 7 has not.
    assert_eq!(turn(&mut hpa, 60, 10, 2).desired, 7);
    assert_eq!(turn(&mut hpa, 75, 7, 2).desired, 3);
    assert_eq!(turn(&mut hpa, 90, 3, 2).desired, 2);
}

#[test]
fn up_takes_the_lowest_of_the_window() {
    let mut hpa = follow(1, 100, Some(windows(60, 0)));
    assert_eq!(turn(&mut hpa, 0, 4, 6).desired, 4);
    assert_eq!(turn(&mut hpa, 30, 4, 9).desired, 4);
    // The size found at second 0 has left, and the 6 with it; the lowest is now 9.
    let decision = turn(&mut hpa, 60, 4, 12);
    assert_eq!(decision.desired, 9);
    assert_eq!(decision.stabilized, Some(Stabilized::Up));
    assert_eq!(reason_of(&decision, ConditionKind::AbleToScale), Reason::SucceededRescale);
    let decision = turn(&mut hpa, 75, 9, 4);
    assert_eq!(decision.desired, 4);
}

#[test]
fn a_held_growth_says_so() {
    let mut hpa = follow(1, 100, Some(windows(60, 0)));
    let decision = turn(&mut hpa, 0, 4, 6);
    let able = decision.condition(ConditionKind::AbleToScale).unwrap();
    assert_eq!(able.reason, Reason::ScaleUpStabilized);
    assert_eq!(able.message, "recent recommendations were lower than current one, applying the lowest recent recommendation");
}

#[test]
fn a_spike_shorter_than_the_up_window_is_ignored() {
    let mut hpa = follow(1, 100, Some(windows(60, 0)));
    for (seconds, wish) in [(0, 4), (15, 30), (30, 30), (45, 4), (60, 4)] {
        assert_eq!(turn(&mut hpa, seconds, 4, wish).desired, 4);
    }
}

#[test]
fn without_behavior_only_shrinking_waits_five_minutes() {
    let mut hpa = follow(1, 100, None);
    assert_eq!(turn(&mut hpa, 0, 3, 5).desired, 5);
    let decision = turn(&mut hpa, 15, 5, 2);
    assert_eq!(decision.desired, 5);
    let able = decision.condition(ConditionKind::AbleToScale).unwrap();
    assert_eq!(able.reason, Reason::ScaleDownStabilized);
    assert_eq!(able.message, "recent recommendations were higher than current one, applying the highest recent recommendation");
    assert_eq!(turn(&mut hpa, 300, 5, 2).desired, 5);
    assert_eq!(turn(&mut hpa, 301, 5, 2).desired, 2);
}

#[test]
fn the_edge_of_the_window_differs_with_behavior() {
    let mut plain = follow(1, 100, None);
    turn(&mut plain, 0, 8, 8);
    assert_eq!(turn(&mut plain, 300, 8, 2).desired, 8);
    let mut with = follow(1, 100, Some(Behavior::default()));
    turn(&mut with, 0, 8, 8);
    assert_eq!(turn(&mut with, 299, 8, 2).desired, 8);
    let mut with = follow(1, 100, Some(Behavior::default()));
    turn(&mut with, 0, 8, 8);
    assert_eq!(turn(&mut with, 300, 8, 2).desired, 2);
}

#[test]
fn the_flag_is_the_default_of_the_down_window() {
    let mut hpa = follow(1, 100, Some(Behavior::default()));
    let mut spec = hpa.spec().clone();
    spec.downscale_stabilization = at(30);
    hpa.set_spec(spec).unwrap();
    assert_eq!(turn(&mut hpa, 0, 8, 2).desired, 8);
    assert_eq!(turn(&mut hpa, 30, 8, 2).desired, 2);
}

#[test]
fn a_size_cut_by_hand_comes_back_from_the_window() {
    let mut hpa = follow(1, 100, None);
    turn(&mut hpa, 0, 10, 10);
    // Someone sets 5, which the load now fits: the window still remembers 10.
    let decision = turn(&mut hpa, 15, 5, 5);
    assert_eq!(decision.desired, 10);
    assert_eq!(decision.events[0].message, "New size: 10; reason: ");
    assert!(decision.reason.contains("highest recent recommendation"));
}

#[test]
fn an_old_clock_is_survived() {
    let mut hpa = follow(1, 100, Some(windows(60, 60)));
    turn(&mut hpa, 1000, 8, 8);
    assert_eq!(turn(&mut hpa, 10, 8, 2).desired, 8);
}

#[test]
fn a_memory_is_taken_over() {
    let mut behavior = windows(0, 60);
    behavior.scale_up.policies = vec![ScalingPolicy::pods(2, 60)];
    let mut hpa = follow(1, 100, Some(behavior));
    let memory = Memory { recommendations: vec![(at(50), 7)], rescales: vec![(at(70), 4, 5)] };
    hpa.set_memory(&memory);
    assert_eq!(turn(&mut hpa, 100, 5, 9).desired, 6);
    // What is found does not count as recommended: the memory has begun.
    hpa.set_memory(&memory);
    assert_eq!(turn(&mut hpa, 100, 9, 2).desired, 7);
    assert_eq!(turn(&mut hpa, 120, 7, 2).desired, 2);
}
