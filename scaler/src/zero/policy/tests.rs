use std::time::Duration;

use proptest::prelude::*;
use weir_datastore::PoolId;
use weir_k8s::{FieldManager, FieldProblem};

use super::*;
use crate::zero::testing::{IDLE_AFTER, autoscaler, target};

fn manager(name: &str, applied: bool, subresource: &str) -> FieldManager {
    FieldManager { name: name.into(), applied, subresource: subresource.into() }
}

fn ours() -> ScaleTarget {
    target(0, vec![manager(SCALER_MANAGER, true, "scale")])
}

fn pool(held: u64, idle: Result<u64, &str>, pods: usize) -> PoolView {
    PoolView { id: PoolId::new("n", "p"), held, idle: idle.map(Duration::from_secs).map_err(str::to_owned), pods }
}

fn decided(autoscaler: &Autoscaler, target: &ScaleTarget, pools: &[PoolView]) -> Decision {
    let now = Instant::now() + Duration::from_secs(86_400);
    let raised_at = now - Duration::from_secs(7200);
    decide(&Situation { now, autoscaler, rival: None, target, pools, raised_at, others_serve: false })
}

#[test]
fn an_idle_pool_sleeps_and_a_held_request_wakes_it() {
    let up = target(2, vec![manager("kube-controller-manager", false, "scale")]);
    let decision = decided(&autoscaler(), &up, &[pool(0, Ok(600), 2)]);
    assert_eq!((decision.action, decision.reason.label()), (Action::Sleep, "idle"));
    assert_eq!(
        decided(&autoscaler(), &up, &[pool(0, Ok(599), 2)]).reason,
        Reason::Resting(PoolId::new("n", "p"), Duration::from_secs(1))
    );
    assert_eq!(decided(&autoscaler(), &ours(), &[pool(0, Ok(9999), 0)]).reason, Reason::Asleep);
    // Whether the pool is idle need not be known for that: one picker that holds is enough.
    let decision = decided(&autoscaler(), &ours(), &[pool(3, Err("a picker is silent"), 0)]);
    assert_eq!((decision.action, decision.reason.to_string()), (Action::Wake(1), "3 requests are held for pool n/p".to_owned()));
}

#[test]
fn it_wakes_to_what_is_asked_within_the_bounds() {
    for (min, max, wake, expected) in [(1, 4, None, 1), (2, 4, None, 2), (1, 4, Some(3), 3), (2, 4, Some(9), 4), (3, 2, None, 2)] {
        let hpa = Autoscaler { min_replicas: min, max_replicas: max, wake_replicas: wake, ..autoscaler() };
        assert_eq!(decided(&hpa, &ours(), &[pool(1, Ok(0), 0)]).action, Action::Wake(expected), "{min} {max} {wake:?}");
    }
}

#[test]
fn one_busy_pool_keeps_a_target_of_two_and_any_held_request_wakes_it() {
    let up = target(1, Vec::new());
    let busy = PoolView { id: PoolId::new("n", "q"), ..pool(0, Ok(3), 1) };
    assert_eq!(decided(&autoscaler(), &up, &[pool(0, Ok(9999), 1), busy.clone()]).reason, Reason::Working(busy.id.clone()));
    let held = PoolView { held: 1, ..busy };
    assert_eq!(decided(&autoscaler(), &ours(), &[pool(0, Ok(9999), 0), PoolView { pods: 0, ..held }]).action, Action::Wake(1));
}

#[test]
fn who_raised_it_has_as_long_as_a_request() {
    let (hpa, up, pools) = (autoscaler(), target(1, Vec::new()), [pool(0, Ok(9999), 1)]);
    let now = Instant::now() + Duration::from_secs(86_400);
    let raised = |ago| Situation {
        now,
        autoscaler: &hpa,
        rival: None,
        target: &up,
        pools: &pools,
        raised_at: now - Duration::from_secs(ago),
        others_serve: false,
    };
    assert_eq!(decide(&raised(100)).reason, Reason::Resting(PoolId::new("n", "p"), Duration::from_secs(500)));
    assert_eq!(decide(&raised(600)).action, Action::Sleep);
}

#[test]
fn a_zero_of_ours_that_nobody_else_would_end_is_handed_back() {
    let without = Autoscaler { idle_after: None, min_replicas: 2, ..autoscaler() };
    let decision = decided(&without, &ours(), &[]);
    assert_eq!((decision.action, decision.reason.label()), (Action::Wake(2), "handed_back"));
    let by_itself = Autoscaler { min_replicas: 0, ..autoscaler() };
    assert_eq!(decided(&by_itself, &ours(), &[]).action, Action::Wake(1));
    // A broken annotation still asks for something: it stays, and wakes for a request.
    let broken = Autoscaler { idle_after: Some(Err(FieldProblem::new("f", "m"))), ..autoscaler() };
    assert_eq!(decided(&broken, &ours(), &[pool(0, Ok(1), 0)]).reason, Reason::Asleep);
    assert_eq!(decided(&broken, &ours(), &[pool(1, Ok(1), 0)]).action, Action::Wake(1));
}

#[test]
fn each_refusal_has_words_that_end_with_a_way_out() {
    let up = target(1, Vec::new());
    let idle = [pool(0, Ok(9999), 1)];
    let problem = FieldProblem::new("metadata.annotations[weir.internal/idle-after]", "`soon` is no duration: write 10m");
    for (hpa, target, pools, label, words) in [
        (Autoscaler { min_replicas: 0, ..autoscaler() }, &up, &idle[..], "min_replicas_zero", "set minReplicas to 1"),
        (Autoscaler { keda: Some("so".into()), ..autoscaler() }, &up, &idle, "keda", "ScaledObject so"),
        (Autoscaler { idle_after: Some(Err(problem)), ..autoscaler() }, &up, &idle, "broken_annotation", "`soon` is no duration"),
        (autoscaler(), &up, &[], "no_pool", "correct the pool's selector"),
        (
            autoscaler(),
            &up,
            &[pool(0, Err("connection refused"), 1)],
            "unknown",
            "not known, so it does not go to zero: connection refused",
        ),
        (
            autoscaler(),
            &target(0, vec![manager("gitops", true, ""), manager(SCALER_MANAGER, true, "scale")]),
            &idle,
            "foreign_zero",
            "at the zero of gitops, not at weir's",
        ),
        (autoscaler(), &target(0, Vec::new()), &idle, "foreign_zero", "not by weir"),
        (Autoscaler { deleting: true, ..autoscaler() }, &up, &idle, "deleting", "being deleted"),
    ] {
        let decision = decided(&hpa, target, pools);
        assert_eq!((decision.action, decision.reason.label()), (Action::Stay, label));
        assert!(decision.reason.to_string().contains(words), "{}", decision.reason);
        assert!(Reason::STATES.contains(&label), "{label}");
    }
}

fn managers() -> impl Strategy<Value = Vec<FieldManager>> {
    let name = prop_oneof![3 => Just(SCALER_MANAGER), 1 => Just("kubectl"), 1 => Just("kube-controller-manager")];
    let one = (name, any::<bool>(), prop_oneof![3 => Just("scale"), 1 => Just("")]);
    proptest::collection::vec(one.prop_map(|(name, applied, subresource)| manager(name, applied, subresource)), 0..3)
}

fn pools() -> impl Strategy<Value = Vec<PoolView>> {
    let idle = prop_oneof![3 => (0..1300u64).prop_map(Ok), 1 => Just(Err("unknown"))];
    let one = (prop_oneof![2 => Just(0), 1 => 1..50u64], idle, 0..3usize).prop_map(|(held, idle, pods)| pool(held, idle, pods));
    proptest::collection::vec(one, 0..3)
}

fn autoscalers() -> impl Strategy<Value = Autoscaler> {
    let annotation =
        prop_oneof![1 => Just(None), 1 => Just(Some(Err(FieldProblem::new("f", "m")))), 4 => Just(Some(Ok(IDLE_AFTER)))];
    let keda = prop_oneof![5 => Just(None), 1 => Just(Some("so".into()))];
    (annotation, keda, 0..4u32, 1..6u32, proptest::option::of(1..9u32), proptest::bool::weighted(0.1)).prop_map(
        |(idle_after, keda, min_replicas, max_replicas, wake_replicas, deleting)| Autoscaler {
            idle_after,
            keda,
            min_replicas,
            max_replicas,
            wake_replicas,
            deleting,
            ..autoscaler()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_rules_hold_whatever_the_situation(
        autoscaler in autoscalers(), managers in managers(), pools in pools(), replicas in 0..4u32, rival in any::<bool>(),
        raised in 0..1300u64, others_serve in any::<bool>(),
    ) {
        let target = target(replicas, managers);
        let now = Instant::now() + Duration::from_secs(86_400);
        let rival_name: Arc<str> = "b".into();
        let situation = Situation {
            now, autoscaler: &autoscaler, rival: rival.then_some(&rival_name), target: &target, pools: &pools,
            raised_at: now - Duration::from_secs(raised), others_serve,
        };
        let decision = decide(&situation);
        let acts = decision.action != Action::Stay;
        // Never beside KEDA, nor on what is being deleted.
        prop_assert!(!acts || (autoscaler.keda.is_none() && !autoscaler.deleting));
        match decision.action {
            Action::Stay => prop_assert!(Reason::STATES.contains(&decision.reason.label()) || decision.reason == Reason::NotAnnotated),
            Action::Sleep => {
                // Only what asks for it, alone, and is not at zero.
                prop_assert!(matches!(autoscaler.idle_after, Some(Ok(_))) && autoscaler.min_replicas > 0 && !rival && replicas > 0);
                // Never on unknown; never with anything held, running or arrived within idle-after, nor just raised.
                prop_assert!(!pools.is_empty() && raised >= IDLE_AFTER.as_secs());
                for pool in &pools {
                    prop_assert!(pool.held == 0 && pool.idle.as_ref().is_ok_and(|idle| *idle >= IDLE_AFTER));
                }
            }
            Action::Wake(to) => {
                // Only a zero of ours, which nobody else owns.
                prop_assert!(replicas == 0 && target.is_scaled_only_by(SCALER_MANAGER));
                // Never above the HPA's maximum, never nothing.
                prop_assert!(to >= 1 && to <= autoscaler.max_replicas);
                match decision.reason {
                    Reason::Held(..) => {
                        prop_assert!(pools.iter().any(|pool| pool.held > 0) && !others_serve && autoscaler.min_replicas > 0 && !rival);
                        prop_assert!(to >= autoscaler.min_replicas.min(autoscaler.max_replicas));
                    }
                    // Beside another's zero or another HPA only to give the target back.
                    _ => prop_assert!(autoscaler.idle_after.is_none() || autoscaler.min_replicas == 0 || rival),
                }
            }
        }
    }
}
