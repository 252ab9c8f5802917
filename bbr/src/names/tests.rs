use proptest::prelude::*;

use super::*;

fn rules(yaml: &str) -> NameRules {
    let rules: NameRules = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(rules.problems(), [] as [String; 0]);
    rules
}

fn names() -> Names {
    let rules = rules(
        "
models: [glm-5, openai/gpt-oss-20b, meta-llama/Llama-3.1-8B-Instruct]
prefixes: [{ prefix: openai }, { prefix: openrouter }, { prefix: openrouter/auto }, { prefix: anthropic, action: route }]
aliases: { gpt-4: fast, fast: glm-5, old: gone }
normalise: {}
",
    );
    Names::new(&rules, ["an-adapter"])
}

fn steps(effective: &Effective) -> Vec<&'static str> {
    effective.steps.iter().map(|step| step.rule.label()).collect()
}

#[test]
fn each_step_is_told() {
    let names = names();
    let effective = names.resolve(" openrouter/openai/GLM5");
    assert_eq!((&*effective.name, steps(&effective)), ("glm-5", vec!["trim", "strip", "strip", "normalise"]));
    let shown: Vec<String> = effective.steps.iter().map(ToString::to_string).collect();
    assert_eq!(shown[1], "strip      openrouter               openai/GLM5");
    let effective = names.resolve("GPT_4");
    assert_eq!((&*effective.name, steps(&effective)), ("glm-5", vec!["normalise", "alias"]));
}

#[test]
fn the_longest_prefix_counts_and_a_prefix_is_a_whole_word() {
    let names = names();
    assert_eq!(&*names.resolve("openrouter/auto/x").name, "x");
    assert_eq!(&*names.resolve("openaix/glm-5").name, "openaix/glm-5");
    assert_eq!(&*names.resolve("openai/").name, "openai/");
    assert_eq!(&*names.resolve("openai").name, "openai");
    assert_eq!(&*names.resolve("é").name, "é");
}

#[test]
fn a_provider_that_is_routed_on_stays() {
    let effective = names().resolve("Anthropic/claude");
    assert_eq!((&*effective.name, effective.provider.as_deref()), ("Anthropic/claude", Some("anthropic")));
}

#[test]
fn two_names_that_are_written_alike_are_left_alone() {
    let names = Names::new(&rules("{ models: [qwen2.5, qwen-25], normalise: {} }"), []);
    for (asked, wanted) in [("qwen2.5", vec![]), ("qwen-25", vec![]), ("Qwen25", vec!["ambiguous"])] {
        let effective = names.resolve(asked);
        assert_eq!((&*effective.name, steps(&effective)), (asked, wanted));
    }
    let strict = Names::new(&rules("{ models: [glm-5], normalise: { ignore: '-', anyCase: false } }"), []);
    assert_eq!((&*strict.resolve("glm5").name, &*strict.resolve("GLM5").name), ("glm-5", "GLM5"));
}

#[test]
fn near_names_are_found() {
    let names = names();
    assert_eq!(names.near("glm-51"), ["glm-5"]);
    assert_eq!(names.near("llama"), [] as [&str; 0]);
    assert_eq!(names.near("meta-llama/llama-3.1-8b"), ["meta-llama/Llama-3.1-8B-Instruct"]);
    assert!(names.knows("an-adapter") && !names.knows("old"));
}

#[test]
fn everything_that_is_wrong_is_told() {
    let rules: NameRules = serde_saphyr::from_str(
        "{ models: ['', a], prefixes: [{ prefix: x/ }, { prefix: X/ }], aliases: { a: b, c: d, d: c, e: \"f\\n\" } }",
    )
    .unwrap();
    let wrong = rules.problems().join("\n");
    for wanted in [
        "names.models[0]: a name is missing",
        "prefixes[0].prefix: `x/`: write it without the last /",
        "prefixes[1].prefix: `X/` is there twice",
        "names.aliases.a: is one of names.models too",
        "names.aliases.c: leads back to itself",
        "names.aliases.e: `f\\n` has space around it",
    ] {
        assert!(wrong.contains(wanted), "{wanted} in {wrong}");
    }
    assert!(serde_saphyr::from_str::<NameRules>("{ alias: {} }").unwrap_err().to_string().contains("alias"));
}

prop_compose! {
    fn any_name()(parts in prop::collection::vec(prop_oneof![
        Just("openai/".to_owned()), Just("OPENAI/".to_owned()), Just("anthropic/".to_owned()), Just("glm".to_owned()), Just("-".to_owned()),
        Just("5".to_owned()), Just("gpt-4".to_owned()), Just(" ".to_owned()), any::<String>(),
    ], 0..6)) -> String { parts.concat() }
}

proptest! {
    #[test]
    fn resolving_again_changes_nothing(
        asked in any_name(),
        models in prop::collection::vec(any_name(), 0..4),
        aliases in prop::collection::btree_map(any_name(), any_name(), 0..4),
        prefixes in prop::collection::vec((any_name(), any::<bool>()), 0..4),
        normalise in any::<bool>(),
        ignore in any::<String>(),
    ) {
        let action = |route| if route { PrefixAction::Route } else { PrefixAction::Strip };
        let prefixes = prefixes.into_iter().map(|(prefix, route)| PrefixRule { prefix, action: action(route) }).collect();
        let normalise = normalise.then_some(Normalise { ignore, any_case: true });
        let rules = NameRules { models, prefixes, aliases, normalise, rewrite_body: true };
        let sound = rules.problems().is_empty();
        let names = Names::new(&rules, []);
        let once = names.resolve(&asked);
        if sound {
            let again = names.resolve(&once.name);
            prop_assert_eq!((&again.name, &again.provider), (&once.name, &once.provider));
        }
        prop_assert!(names.near(&asked).len() <= 3);
    }
}
