//! What people and programs are told.

use serde_json::json;

use super::world::World;
use crate::report;

fn broken() -> World {
    let mut world = World::healthy();
    world.remove("grants/routes").set("serviceMonitors/weir/spec/endpoints/0/honorLabels", json!(false)).remove("pods/dcgm-0");
    world.set("jobs", json!({"why": {"forbidden": "list jobs.batch in all namespaces"}}));
    world
}

#[test]
fn the_worst_comes_first_and_decides_what_is_returned() {
    let mut world = broken();
    let examination = world.examine();
    let severities: Vec<_> = examination.findings.iter().map(|finding| finding.severity.as_str()).collect();
    assert_eq!(severities, ["error", "error", "warning", "note"]);
    assert_eq!(examination.exit_code(), 2);
    world.set("grants", World::healthy().0["grants"].clone());
    assert_eq!(world.examine().exit_code(), 1);
    world.set("serviceMonitors", json!({"items": []}));
    assert_eq!(world.examine().exit_code(), 0);
}

#[test]
fn people_are_told_what_by_what_and_how_to_mend_it() {
    let text = report::text(&broken().examine(), false);
    assert!(text.contains("error   HTTPRoute web/chat: may not point to pool team-a/chat: its requests get 500 and no picker is asked [route-no-grant]\n    no ReferenceGrant in namespace team-a\n    → kubectl apply -f - <<'END'\n"), "{text}");
    assert!(
        text.contains("unknown  jobs: forbidden: list jobs.batch in all namespaces\n    not or not wholly checked: job-stuck\n"),
        "{text}"
    );
    assert!(
        text.ends_with("2 pools, 74 checks: 2 errors, 1 warning, 1 note; one kind of facts could not be looked at\n"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
    assert!(report::text(&broken().examine(), true).contains("\u{1b}[31merror"));
    assert_eq!(report::text(&World::healthy().examine(), false), "2 pools, 74 checks: nothing found\n");
}

#[test]
fn names_do_not_move_the_cursor() {
    let mut world = World::healthy();
    world.set("gateways/edge/status/conditions/1", json!({"type": "Programmed", "status": "False", "message": "\u{1b}[2J\u{7}"}));
    let text = report::text(&world.examine(), false);
    assert!(text.contains("gateway") && !text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
}

#[test]
fn programs_are_told_the_same() {
    let told: serde_json::Value = serde_json::from_str(&report::json(&broken().examine()).unwrap()).unwrap();
    assert_eq!(told["findings"][0]["code"], "route-no-grant");
    assert_eq!(told["findings"][0]["severity"], "error");
    assert_eq!(told["findings"][0]["pool"], "team-a/chat");
    assert_eq!(told["not_known"][0]["checks"], json!(["job-stuck"]));
}

#[test]
fn one_pool_alone_may_be_asked_for() {
    let examination = broken().examine();
    let pools =
        |examination: crate::Examination| examination.findings.iter().map(|finding| finding.pool.clone()).collect::<Vec<_>>();
    let code = Some("team-a/code".to_owned());
    assert_eq!(pools(examination.clone().about("code")), [code.clone(), None, None]);
    assert_eq!(pools(examination.clone().about("team-a/code")), [code, None, None]);
    assert_eq!(pools(examination.about("team-b/code")), [None, None]);
}
