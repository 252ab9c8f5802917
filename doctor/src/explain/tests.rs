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
    (explanation.lines.join("\n"), explanation.next)
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
            "wanted      3: the highest proposal, of external metric inference_pool_average_kv_cache_utilization",
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
