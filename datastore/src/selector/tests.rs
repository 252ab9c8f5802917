//! Meaning, errors and whatever text.

use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    Selector::parse(text).expect_err(text).to_string()
}

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let selector = Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    selector.matches(|key| labels.iter().find(|(label, _)| *label == key).map(|(_, value)| *value))
}

#[test]
fn each_operator_means_what_kubernetes_means() {
    let labels = [("a", "1"), ("b", ""), ("n", "12")];
    for (selector, expected) in [
        ("", true),
        ("a", true),
        ("!a", false),
        ("!zz", true),
        ("a=1", true),
        ("a==1", true),
        ("a = 1 , n", true),
        ("a!=1", false),
        ("zz!=1", true),
        ("zz notin (1)", true),
        ("a in (0,1)", true),
        ("a notin (0,1)", false),
        ("b=", true),
        ("b in ()", true),
        ("b in (x,,y)", true),
        ("b in (x)", false),
        ("zz=", false),
        ("n>11", true),
        ("n > 12", false),
        ("n<13", true),
        ("in in (in)", false),
        ("a=in", false),
    ] {
        assert_eq!(matches(selector, &labels), expected, "{selector}");
    }
    assert!(matches("metric.labels.name=pool", &[("metric.labels.name", "pool")]));
    assert!(matches("weir.internal/gpu in (h100)", &[("weir.internal/gpu", "h100")]));
}

#[test]
fn errors_are_the_words_of_kubernetes() {
    for (selector, expected) in [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
    ] {
        assert_eq!(error(selector), expected, "{selector}");
    }
    let value = error("a=vllm:foo");
    assert!(
        value.starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"vllm:foo\": a valid label must be an empty string or \
             consist of alphanumeric characters"
        ),
        "{value}"
    );
}

#[test]
fn only_integers_are_ordered() {
    assert!(error("a<x").contains("the value must be an integer"), "{}", error("a<x"));
    assert!(!matches("n<13", &[("n", "twelve")]));
}

#[test]
fn what_kubernetes_refuses_is_refused() {
    let long = "x".repeat(64);
    for selector in [
        "a=google/gemma",
        "a=-x",
        &format!("a={long}"),
        &long,
        "a:b=c",
        "/a",
        "A_/x",
        "a in (",
        "a in (b",
        "a in (b c)",
        ",",
        "!",
        "!=a",
        "a=b=c",
        "a,,b",
        "(",
        "a>",
        "a>1.5",
    ] {
        assert!(Selector::parse(selector).is_err(), "{selector}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_answer_and_what_is_printed_reads_back(text in "[ -~]{0,60}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn words_of_the_grammar_never_panic(words in proptest::collection::vec("(a|b|in|notin|=|==|!=|!|,|\\(|\\)|<|>|7| |x/y|é|\u{0})", 0..12)) {
        let text = words.concat();
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }
}
