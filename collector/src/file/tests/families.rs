//! Families that a pool names itself, and pods whose labels name their engine.

use std::collections::BTreeMap;

use weir_datastore::LoadSignal;
use weir_datastore::engine::{CustomFamily, Engine, Several};

use super::{complaints, load, pool};
use crate::access::Restrict;

fn custom(families: &str) -> String {
    pool(&format!("  engine: custom\n  endpoints: []\n  metrics:\n    families:\n{families}"))
}

#[test]
fn families_are_read_with_what_follows_from_their_signal() {
    let text = custom(
        "    - {signal: running, name: \"my:requests\", labels: {state: active, code: 1.10}}\n    - {signal: waiting, name: my_queue, combine: max}\n    - {signal: kv_cache_utilization, name: my_kv}",
    );
    let pools = load(&text);
    let metrics = &pools[0].spec.metrics;
    let family = |signal, name: &str, several| CustomFamily { name: name.to_owned(), labels: BTreeMap::new(), signal, several };
    let labels = [("state", "active"), ("code", "1.10")].map(|(label, value)| (label.to_owned(), value.to_owned()));
    let expected = [
        CustomFamily { labels: BTreeMap::from(labels), ..family(LoadSignal::Running, "my:requests", Several::Sum) },
        family(LoadSignal::Waiting, "my_queue", Several::Max),
        family(LoadSignal::KvCacheUtilization, "my_kv", Several::Mean),
    ];
    assert_eq!((metrics.engine, &*metrics.families), (Some(Engine::Custom), &expected[..]));

    let in_place =
        load(&pool("  engine: vllm\n  endpoints: []\n  metrics: {families: [{signal: running, name: mine}], restrict: never}"));
    assert_eq!(in_place[0].spec.metrics.families.len(), 1);
    assert_eq!(in_place[0].access.restrict, Restrict::Never);
}

#[test]
fn families_of_one_signal_or_name_differ_by_a_label() {
    let one_name = custom(
        "    - {signal: running, name: m, labels: {state: active}}\n    - {signal: waiting, name: m, labels: {state: queued}}\n    - {signal: waiting, name: m, labels: {state: held}}",
    );
    assert_eq!(load(&one_name)[0].spec.metrics.families.len(), 3);
    let cases = [
        (
            "    - {signal: running, name: a}\n    - {signal: running, name: b}",
            "9:7: pools[0].metrics.families[1]: the signal has a family with the same labels on line 8: remove one, or tell them apart by `labels`",
        ),
        (
            "    - {signal: running, name: m, labels: {a: x}}\n    - {signal: waiting, name: m, labels: {b: y}}",
            "9:7: pools[0].metrics.families[1]: a series of `m` may belong to this family and to that on line 8: give both one label with different values",
        ),
        (
            "    - {signal: running, name: m, labels: {a: x}}\n    - {signal: running, name: m, labels: {a: y}, combine: max}",
            "9:7: pools[0].metrics.families[1]: the signal's family on line 8 combines its series in another way: write the same `combine`",
        ),
    ];
    for (families, expected) in cases {
        assert_eq!(complaints(custom(families)), [format!("pools.yaml:{expected}")], "{families}");
    }
}

#[test]
fn what_is_wrong_with_a_family_is_said_at_its_place() {
    let told = complaints(custom(
        "    - {signal: queued, name: \"a b\", labels: {1a: x}, combine: add}\n    - {name: x, sum: true}\n    - {signal: running, name: 3x}\n    - x",
    ));
    let expected = [
        "8:16: pools[0].metrics.families[0].signal: `queued` is not known: write running, waiting or kv_cache_utilization",
        "8:30: pools[0].metrics.families[0].name: `a b` is not a metric's name (letters, digits, `_` and `:`, no digit first; labels stand under `labels`)",
        "8:50: pools[0].metrics.families[0].labels.1a: `1a` is not a label of a metric (letters, digits and `_`, no digit first)",
        "8:63: pools[0].metrics.families[0].combine: `add` is not known: write sum, mean or max",
        "9:7: pools[0].metrics.families[1].signal: is missing: write running, waiting or kv_cache_utilization",
        "9:17: pools[0].metrics.families[1].sum: unknown field: there are signal, name, labels, combine",
        "10:31: pools[0].metrics.families[2].name: `3x` is not a metric's name (letters, digits, `_` and `:`, no digit first; labels stand under `labels`)",
        "11:7: pools[0].metrics.families[3]: is text: write a family, with `signal` and `name`",
    ];
    assert_eq!(told, expected.map(|line| format!("pools.yaml:{line}")));
    let many = "    - {signal: running, name: x, labels: {a: LINE}}\n".repeat(33);
    let many: String = many
        .split("LINE")
        .enumerate()
        .map(|(index, part)| if index == 0 { part.to_owned() } else { format!("{index}{part}") })
        .collect();
    assert_eq!(
        complaints(custom(&many)),
        ["pools.yaml:40:7: pools[0].metrics.families[32]: more than 32 families: three signals need fewer"]
    );
}

#[test]
fn families_and_engine_belong_together() {
    let cases = [
        (
            "  endpoints: []\n  metrics: {families: [{signal: running, name: x}]}",
            "5:23: pools[0].metrics.families: whose place they take depends on the engine: set the pool's `engine`, `custom` for one that is not known",
        ),
        (
            "  engine: auto\n  endpoints: []\n  metrics: {families: [{signal: running, name: x}]}",
            "6:23: pools[0].metrics.families: whose place they take depends on the engine: set the pool's `engine`, `custom` for one that is not known",
        ),
        (
            "  engine: custom\n  endpoints: []",
            "4:11: pools[0].engine: a custom engine has the families that its pool names, and none are named: write them under `metrics: families:`",
        ),
        (
            "  engine: custom\n  endpoints: []\n  metrics: {families: []}",
            "6:23: pools[0].metrics.families: is empty: leave it out, or write a family with `signal` and `name`",
        ),
        (
            "  endpoints: []\n  metrics: {restrict: yes}\n  restrict: never",
            "5:23: pools[0].metrics.restrict: `yes`: write auto (restricted pages where they are right) or never (whole pages always)",
        ),
    ];
    for (lines, expected) in cases {
        let told = complaints(pool(lines));
        assert_eq!(told[0], format!("pools.yaml:{expected}"), "{lines}");
    }
    let misplaced = complaints(pool("  endpoints: []\n  restrict: never\n  signal: running"));
    assert_eq!(misplaced[0], "pools.yaml:5:3: pools[0].restrict: does not belong here, but to a pool's `metrics`");
    assert_eq!(misplaced[1], "pools.yaml:6:3: pools[0].signal: does not belong here, but to a family of `metrics.families`");
}

#[test]
fn a_pod_label_names_an_engine_that_there_is() {
    let with = |label: &str, engine: &str| pool(&format!("  endpoints:\n  - {{address: a:1, labels: {{{label}: {engine}}}}}"));
    for label in Engine::POD_LABELS {
        let known = load(&with(label, "sglang"));
        assert_eq!(known[0].spec.endpoints[0].labelled_engine(), Some(Engine::Sglang));
        let told = complaints(with(label, "vlm"));
        assert_eq!(told.len(), 1);
        let expected =
            format!("pools[0].endpoints[0].labels.{label}: unknown engine `vlm`: the label names the pod's engine, one of vllm, ");
        assert!(told[0].contains(&expected), "{}", told[0]);
        assert!(!told[0].contains("auto") && !told[0].contains("custom"), "{}", told[0]);
        assert!(complaints(with(label, "custom"))[0].contains("set the pool's `engine: custom`"));
    }
    assert_eq!(load(&with("engine-type", "vlm")).len(), 1, "another label may say anything");
}
