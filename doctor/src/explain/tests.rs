//! What the next turn brings, and that the text says why.

use std::time::Duration;

use serde_json::json;
use weir_hpa::MetricReading;

use super::{ExplainError, Reading, explain_autoscaler, explain_pool};
use crate::Facts;
use crate::tests::World;

fn value(milli: i64) -> Reading {
    Reading { reading: MetricReading::item(milli), age: Some(Duration::from_millis(400)) }
}

fn error(text: &str) -> Reading {
    Reading { reading: MetricReading::Error(text.to_owned()), age: None }
}

fn explain(world: &World, readings: &[Reading]) -> (String, Option<u32>) {
    let explanation = explain_autoscaler(&world.facts(), "team-a", "chat", readings).unwrap();
    (explanation.lines.join("\n"), explanation.prediction.map(|prediction| prediction.next))
}

#[test]
fn each_situation_ends_as_the_controller_would_end_it() {
    type Case = (&'static str, fn(&mut World), [Reading; 2], u32, &'static str);
    let nothing: fn(&mut World) = |_| ();
    let cases: [Case; 11] = [
        ("on target", nothing, [value(128_000), value(600)], 2, "next        2 stays"),
        ("in tolerance", nothing, [value(140_000), value(300)], 2, "within tolerance, stays 2"),
        ("in flight asks for more", nothing, [value(256_000), value(300)], 4, "next        2 → 4 within 15 s"),
        (
            "the cache asks for more",
            nothing,
            [value(64_000), value(900)],
            3,
            "wanted      3: the highest proposal, of inference_pool_average_kv_cache_utilization",
        ),
        ("policies cut", nothing, [value(6_400_000), value(300)], 6, "limit       cut to 6 by the scale-up policies"),
        (
            "the window holds",
            nothing,
            [value(10_000), value(100)],
            2,
            "window      held at 2: down to the highest recommendation of the last 10 min",
        ),
        (
            "one fails and the other would shrink",
            nothing,
            [error("503 of the adapter"), value(100)],
            2,
            "next        2 stays: a metric fails",
        ),
        (
            "one fails and the other grows",
            nothing,
            [error("503 of the adapter"), value(900)],
            3,
            "failing     invalid metrics (1 invalid out of 2)",
        ),
        (
            "no window",
            |world| {
                world.set("autoscalers/chat/spec/behavior/scaleDown/stabilizationWindowSeconds", json!(0));
            },
            [value(10_000), value(100)],
            1,
            "next        2 → 1 within 15 s: All metrics below target",
        ),
        (
            "max",
            |world| {
                world.set("autoscalers/chat/spec/maxReplicas", json!(3));
            },
            [value(640_000), value(100)],
            3,
            "cut to 3 by maxReplicas 3",
        ),
        (
            "below min",
            |world| {
                world.set("autoscalers/chat/spec/minReplicas", json!(4));
            },
            [value(10_000), value(100)],
            4,
            "2 → 4 within 15 s: below minReplicas",
        ),
    ];
    for (case, change, readings, next, said) in cases {
        let mut world = World::healthy();
        world.set("deployments/chat/spec/selector", json!({"matchLabels": {"app": "chat"}}));
        change(&mut world);
        let (text, desired) = explain(&world, &readings);
        assert_eq!(desired, Some(next), "{case}\n{text}");
        assert!(text.contains(said), "{case}\n{text}");
    }
}

#[test]
fn the_text_has_every_number() {
    let (text, _) = explain(&World::healthy(), &[value(256_000), value(300)]);
    for part in [
        "replicas    2 asked for, 2 there, 2 Running and Ready; between 1 and 10",
        "metric      inference_pool_total_inflight_requests{name=chat}",
        "target type AverageValue",
        "  value     256, 0.4 s old",
        "usage 256, AverageValue target 64, ratio 2.000: ceil(256 / 64) = 4",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let world = World::healthy();
    let missing = explain_autoscaler(&world.facts(), "team-a", "chta", &[]).unwrap_err().to_string();
    assert_eq!(
        missing,
        "there is no HorizontalPodAutoscaler team-a/chta (there are team-a/chat, team-a/code): kubectl get horizontalpodautoscaler -A"
    );
    let mut dark = World::healthy();
    dark.remove("deployments/chat");
    assert!(matches!(explain_autoscaler(&dark.facts(), "team-a", "chat", &[]), Err(ExplainError::Unknown { .. })));
    let mut cpu = World::healthy();
    cpu.push("autoscalers/chat/spec/metrics", json!({"type": "Resource"}));
    let told = explain_autoscaler(&cpu.facts(), "team-a", "chat", &[]).unwrap_err().to_string();
    assert!(told.contains("metrics.k8s.io"), "{told}");
    assert!(explain_pool(&Facts::default(), "n", "p").is_err());
    // At zero by another's hand.
    let explanation = explain_autoscaler(&world.facts(), "team-a", "code", &[]).unwrap();
    assert!(explanation.lines.last().unwrap().contains("at zero replicas by another's hand"), "{explanation:?}");
}

#[test]
fn a_pool_is_its_servers_and_what_follows() {
    let text = explain_pool(&World::healthy().facts(), "team-a", "chat").unwrap().lines.join("\n");
    for part in [
        "selects     app=chat on port 8000: 2 pods, 2 Ready",
        "start       at least 4 min from scheduled to Ready",
        "server      team-a/chat-0:8000/metrics: vllm, 30 running, 1 waiting, KV cache 0.4",
        "coverage    2 of 2 Ready servers can be read",
        "mean        25 running, 0.5 waiting, KV cache 0.35",
        "total       50 running, 1 waiting",
        "saturation  0.438",
        "scaled by   HorizontalPodAutoscaler team-a/chat",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let mut unread = World::healthy();
    unread.set("pages", json!({"items": []}));
    assert!(explain_pool(&unread.facts(), "team-a", "chat").unwrap().lines.join("\n").contains("unknown is not zero"));
}

/// An explanation of `chat` with these Events about changes of size: seconds ago, message.
fn explained_after(world: &World, events: &[(&str, i64, &str)], readings: &[Reading]) -> super::Prediction {
    let mut world = world.clone();
    world.set("recordedAt", json!("2026-11-21T12:00:00Z"));
    let mut facts = world.facts();
    let now: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let event = |(kind, ago, message): &(&str, i64, &str)| {
        let at = now.checked_sub(jiff::SignedDuration::from_secs(*ago)).unwrap();
        serde_json::from_value(json!({
            "involvedObject": {"kind": kind, "namespace": "team-a", "name": "chat"}, "message": message, "lastTimestamp": at.to_string(),
        }))
        .unwrap()
    };
    facts.rescales = crate::facts::Listing::of(events.iter().map(event).collect());
    explain_autoscaler(&facts, "team-a", "chat", readings).unwrap().prediction.unwrap()
}

fn selected(world: &mut World) -> &mut World {
    world.set("deployments/chat/spec/selector", json!({"matchLabels": {"app": "chat"}}))
}

#[test]
fn what_policies_allow_follows_from_the_changes_that_events_tell() {
    let mut world = World::healthy();
    selected(&mut world).set(
        "autoscalers/chat/spec/behavior",
        json!({"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}),
    );
    let far_up = [value(6_400_000), value(300)];
    let grown = |ago: i64| {
        [
            ("HorizontalPodAutoscaler", ago, "New size: 2; reason: x"),
            ("Deployment", ago, "Scaled up replica set chat-1 from 1 to 2"),
        ]
    };
    let prediction = explained_after(&world, &grown(20), &far_up);
    assert_eq!((prediction.next, prediction.limit, &prediction.otherwise[..]), (2, Some("scaleUp"), &[][..]));
    // It leaves its period within the next turn.
    let prediction = explained_after(&world, &grown(50), &far_up);
    assert_eq!((prediction.next, prediction.otherwise[0].next), (2, 3));
    assert_eq!(explained_after(&world, &grown(70), &far_up).next, 3);
    // The status tells of a change, and no Event how large it was.
    world.set("autoscalers/chat/status/lastScaleTime", json!("2026-11-21T11:59:40Z"));
    let prediction = explained_after(&world, &[], &far_up);
    assert!(prediction.otherwise.iter().any(|other| other.next == 2 && other.when.contains("no Event")), "{prediction:?}");
}

#[test]
fn what_a_window_holds_is_sure_only_where_the_last_turn_is_known() {
    let mut world = World::healthy();
    selected(&mut world);
    let down = [value(10_000), value(100)];
    let prediction = explained_after(&world, &[], &down);
    assert_eq!((prediction.next, prediction.stabilized, prediction.otherwise.len()), (2, Some("down"), 0));
    world.set("autoscalers/chat/status/conditions/0/reason", json!("ScaleDownStabilized"));
    let prediction = explained_after(&world, &[], &down);
    assert_eq!((prediction.next, prediction.otherwise[0].next), (2, 1));
    assert!(prediction.otherwise[0].when.contains("10 min at the latest"), "{prediction:?}");
    // It grew to that size two minutes ago: that recommendation counts for eight more.
    let grown = [
        ("Deployment", 120, "Scaled up replica set chat-1 from 1 to 2"),
        ("HorizontalPodAutoscaler", 119, "New size: 2; reason: x"),
    ];
    assert_eq!(explained_after(&world, &grown, &down).otherwise, []);
    // No turn yet: the size that is found counts.
    world.remove("autoscalers/chat/status");
    assert_eq!(explained_after(&world, &[], &down).next, 2);
}

#[test]
fn of_two_autoscalers_with_the_same_pods_neither_is_followed() {
    let mut world = World::healthy();
    selected(&mut world);
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"});
    world.set("autoscalers/code/spec/scaleTargetRef", target);
    let prediction = explained_after(&world, &[], &[value(6_400_000), value(300)]);
    assert_eq!((prediction.next, prediction.outcome), (2, "ambiguous"));
    assert!(prediction.reason.contains("also those of code"), "{}", prediction.reason);
}
