use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use weir_ext_proc::body::fields;

use super::*;

fn rule(yaml: &str) -> ClassRule {
    let rule: ClassRule = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(rule.problems(0), [] as [String; 0]);
    rule
}

fn told(rules: &[(ClassRule, Vec<String>)], model: &str, body: &str, rng: &mut StdRng) -> Option<String> {
    let classifier = Classifier::new(rules.to_vec()).unwrap();
    let found = fields(body.as_bytes(), &FIELDS).unwrap();
    let decision = classifier.classify(model, &found, rng)?;
    Some(format!("{} -> {:?}", decision.told(), decision.model()))
}

const PLAIN: &str = "{ name: gemma, models: [gemma], simple: gemma-4b, complex: gemma-27b }";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let rule = rule(PLAIN);
    assert_eq!((rule.tokens, rule.turns, rule.share, rule.rewrite_body, rule.keywords.len()), (500, 5, 100.0, true, 11));
}

#[test]
fn length_turns_and_keywords_make_a_request_complex() {
    let rules = [(rule(PLAIN), vec!["überprüfen".to_owned()])];
    let rng = &mut StdRng::seed_from_u64(1);
    let user = json!({"role": "user", "content": "and?"});
    let turns = |count| json!({"messages": vec![user.clone(); count]}).to_string();
    for (body, wanted) in [
        (json!({"prompt": "who?"}).to_string(), "rule=gemma class=simple reason=none -> Some(\"gemma-4b\")"),
        (json!({"prompt": "REFACTOR it"}).to_string(), "rule=gemma class=complex reason=keyword:refactor -> Some(\"gemma-27b\")"),
        (json!({"prompt": "ÜBERPRÜFEN"}).to_string(), "rule=gemma class=complex reason=keyword:überprüfen -> Some(\"gemma-27b\")"),
        (json!({"prompt": "a".repeat(2000)}).to_string(), "rule=gemma class=simple reason=none -> Some(\"gemma-4b\")"),
        (json!({"prompt": "a".repeat(2001)}).to_string(), "rule=gemma class=complex reason=tokens:501 -> Some(\"gemma-27b\")"),
        (turns(5), "rule=gemma class=simple reason=none -> Some(\"gemma-4b\")"),
        (turns(6), "rule=gemma class=complex reason=turns:6 -> Some(\"gemma-27b\")"),
        (
            json!({"messages": [{"role": "system", "content": "review everything"}, user]}).to_string(),
            "rule=gemma class=simple reason=none -> Some(\"gemma-4b\")",
        ),
        ("{}".to_owned(), "rule=gemma class=simple reason=none -> Some(\"gemma-4b\")"),
    ] {
        assert_eq!(told(&rules, "gemma", &body, rng).as_deref(), Some(wanted), "{body}");
    }
    assert_eq!(told(&rules, "llama", "{}", rng), None);
}

#[test]
fn a_share_of_the_requests_is_left_as_it_is() {
    let half = rule("{ name: half, simple: s, complex: c, share: 25 }");
    let rules = [(half, Vec::new())];
    let rng = &mut StdRng::seed_from_u64(7);
    let kept = (0..1000).filter(|_| told(&rules, "any", "{}", rng).unwrap().ends_with("reason=share -> None")).count();
    assert!((700..800).contains(&kept), "{kept}");
}

#[test]
fn everything_that_is_wrong_is_told() {
    let rule: ClassRule =
        serde_saphyr::from_str("{ name: 'a b', simple: '', complex: \"x\\u0000\", keywords: [\"a\\nb\"], share: 101 }").unwrap();
    let wrong = rule.problems(3).join("\n");
    for wanted in
        ["classifier[3].name: give", "[3].simple: name", "[3].complex: has", "[3].keywords[0]: has", "[3].share: 101 is no"]
    {
        assert!(wrong.contains(wanted), "{wanted} in {wrong}");
    }
    assert!(serde_saphyr::from_str::<ClassRule>("{ name: a, simple: b, complex: c, words: [] }").is_err());
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<String>().prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let key = prop_oneof![Just("role"), Just("content"), Just("text"), Just("type"), Just("x")].prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_body_has_a_class_and_it_is_always_the_same(messages in any_json(), prompt in any_json(), word in any::<String>()) {
        let body = json!({"messages": messages, "prompt": prompt}).to_string();
        let rules = [(rule(PLAIN), vec![word])];
        let one = told(&rules, "gemma", &body, &mut StdRng::seed_from_u64(1));
        prop_assert!(one.is_some());
        prop_assert_eq!(one, told(&rules, "gemma", &body, &mut StdRng::seed_from_u64(2)));
    }
}
