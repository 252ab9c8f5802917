use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::scheduling::testing::request;

fn rng() -> StdRng {
    StdRng::seed_from_u64(2)
}

fn target(model: &str, weight: impl Into<Option<u32>>) -> Target {
    Target { model: model.into(), weight: weight.into() }
}

fn rewrite(name: &str, created: i64, rules: &[(&[&str], &str)]) -> ModelRewrite {
    let rule = |(models, served): &(&[&str], &str)| RewriteRule {
        models: models.iter().map(|model| (*model).into()).collect(),
        targets: vec![target(served, None)],
    };
    ModelRewrite { name: name.into(), created, rules: rules.iter().map(rule).collect() }
}

fn resolved(resources: &Resources, model: &str) -> (Option<String>, Option<String>) {
    let mut request = request();
    request.model = Some(model.into());
    let resolution = resources.resolve(&request, &mut rng());
    (resolution.target.map(|target| target.to_string()), resolution.rewritten_by.map(|name| name.to_string()))
}

fn answer(target: &str, name: &str) -> (Option<String>, Option<String>) {
    (Some(target.to_owned()), Some(name.to_owned()))
}

#[test]
fn exact_beats_generic_and_the_oldest_beats_the_younger() {
    let resources = Resources::new(
        Vec::new(),
        vec![
            rewrite("young", 9, &[(&["m", "n"], "young-exact")]),
            rewrite("oldest", 1, &[(&[], "generic"), (&[], "never")]),
            rewrite("older", 5, &[(&["m"], "first"), (&["m"], "second")]),
            rewrite("also-older", 5, &[(&["k"], "by-name")]),
            rewrite("later", 6, &[(&["k"], "never"), (&[], "never")]),
        ],
        Vec::new(),
    );
    assert_eq!(resolved(&resources, "m"), answer("first", "older"));
    assert_eq!(resolved(&resources, "n"), answer("young-exact", "young"));
    assert_eq!(resolved(&resources, "k"), answer("by-name", "also-older"));
    assert_eq!(resolved(&resources, "anything"), answer("generic", "oldest"));
    assert_eq!(resolved(&resources, "generic"), (None, Some("oldest".to_owned())), "the same model is no change");
    assert_eq!(resolved(&Resources::default(), "m"), (None, None));
}

#[test]
fn a_rule_beats_the_header_and_the_header_beats_the_model() {
    let model = InferenceModel {
        name: "im".into(),
        created: 0,
        model_name: "m".into(),
        criticality: Criticality::Critical,
        targets: vec![target("by-model", None)],
    };
    let mut request = request();
    request.model = Some("m".into());
    let models = Resources::new(Vec::new(), Vec::new(), vec![model.clone()]);
    assert_eq!(models.resolve(&request, &mut rng()).target.as_deref(), Some("by-model"));
    request.model_rewrite = Some("by-header".into());
    assert_eq!(models.resolve(&request, &mut rng()).target.as_deref(), Some("by-header"));
    let both = Resources::new(Vec::new(), vec![rewrite("r", 0, &[(&["m"], "by-rule")])], vec![model]);
    assert_eq!(both.resolve(&request, &mut rng()).target.as_deref(), Some("by-rule"));
    request.model = None;
    assert_eq!(both.resolve(&request, &mut rng()), Resolution::default(), "nothing names a model");
    assert_eq!(both.model_names().map(|name| &**name).collect::<Vec<_>>(), ["m", "by-model", "m", "by-rule"]);
}

#[test]
fn priorities() {
    let model = |name: &str, created, model_name: &str, criticality| InferenceModel {
        name: name.into(),
        created,
        model_name: model_name.into(),
        criticality,
        targets: Vec::new(),
    };
    let resources = Resources::new(
        vec![Objective { name: "batch".into(), priority: -7 }, Objective { name: "chat".into(), priority: 3 }],
        Vec::new(),
        vec![
            model("b", 5, "m", Criticality::Critical),
            model("a", 5, "m", Criticality::Sheddable),
            model("c", 1, "n", Criticality::Critical),
            model("d", 2, "n", Criticality::Sheddable),
        ],
    );
    let priority = |model: &str, objective: Option<&str>| {
        let mut request = request();
        (request.model, request.objective) = (Some(model.into()), objective.map(Into::into));
        resources.resolve(&request, &mut rng()).priority
    };
    assert_eq!((priority("x", Some("batch")), priority("x", Some("chat")), priority("x", Some("typo"))), (-7, 3, 0));
    assert_eq!((priority("m", None), priority("n", None), priority("n", Some("batch"))), (-1, 1, -7));
    assert_eq!(Criticality::default().priority(), DEFAULT_PRIORITY);
}

#[test]
fn targets_are_drawn_by_weight() {
    const DRAWS: usize = 20_000;
    let shares = |targets: &[Target]| {
        let mut rng = rng();
        let mut counts = HashMap::new();
        for _ in 0..DRAWS {
            *counts.entry(Target::draw(targets, &mut rng).unwrap().to_string()).or_insert(0.0) += 1.0 / DRAWS as f64;
        }
        counts
    };
    // Five standard deviations of a share of one half are 0.018.
    let skewed = shares(&[target("a", 1), target("b", 3), target("never", None)]);
    assert!(skewed.len() == 2 && (skewed["a"] - 0.25).abs() < 0.018, "{skewed:?}");
    let uniform = shares(&[target("a", None), target("b", 0)]);
    assert!((uniform["a"] - 0.5).abs() < 0.018, "{uniform:?}");
    assert_eq!(Target::draw(&[], &mut rng()), None);
    let most = target("big", u32::MAX);
    assert_eq!(Target::draw(&[most.clone(), most], &mut rng()).as_deref(), Some("big"));
}
