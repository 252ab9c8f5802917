//! Facts on file.

use super::world::World;
use crate::{Facts, examine};

#[test]
fn a_record_is_read_as_it_was_written() {
    let mut world = World::healthy();
    world.remove("grants/routes").set("jobs", serde_json::json!({"why": {"forbidden": "list jobs.batch in all namespaces"}}));
    let facts = world.facts();
    let text = serde_json::to_string(&facts).unwrap();
    let again = Facts::parse(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    let told = |facts: &Facts| crate::report::json(&examine(facts)).unwrap();
    assert_eq!(told(&again), told(&facts));
    assert!(told(&again).contains("list jobs.batch"));
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    for (text, reason) in [
        ("", "version"),
        ("hello", "no record of weir doctor"),
        ("[1, 2]", "no record of weir doctor"),
        ("{}", "version"),
        ("version: 99", "of form 99"),
        ("version: -1", "no record of weir doctor"),
        ("version: 1\npods: {items: [{metadata: 3}]}", "no record of weir doctor"),
        ("version: 1\npods: [", "no record of weir doctor"),
        ("version: 1\npods: {why: {forbidden: [1]}}", "no record of weir doctor"),
    ] {
        let error = Facts::parse(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let deep = format!("version: 1\npods: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Facts::parse(&deep).is_err());
    let aliases = "version: 1\na: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e]\ng: &g [*f, *f, *f, *f, *f, *f, *f, *f]\nh: [*g, *g, *g, *g, *g, *g, *g, *g, *g, *g]\n";
    let _bounded = Facts::parse(aliases);
    let missing = Facts::read(std::path::Path::new("/nowhere/facts.json")).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/facts.json: "), "{missing}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in ".{0,200}") {
        let _told = Facts::parse(&format!("version: 1\n{text}"));
    }
}
