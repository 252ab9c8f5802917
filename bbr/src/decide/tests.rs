use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::rules::{Loaded, Rules};

fn table(yaml: &str) -> Table {
    let rules = Rules::parse(&format!("apiVersion: weir/v1\n{yaml}")).unwrap();
    Table::new(&Loaded::of(rules).unwrap(), &[])
}

fn decide(routing: &Routing, table: &Table, body: &str) -> (Result<Plan, Refusal>, Vec<Fact>) {
    let now = Instant::now();
    let mut facts = Vec::new();
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let plan = routing.decide(&bytes, table, &mut StdRng::seed_from_u64(1), &|| now, &mut facts);
    facts.retain(|fact| !matches!(fact, Fact::Ran { .. }));
    (plan, facts)
}

fn set(plan: &Plan) -> Vec<(&str, &str)> {
    plan.set.iter().map(|(name, value)| (&**name, value.as_str())).collect()
}

#[test]
fn without_rules_headers_are_upstream_s_and_the_body_stays() {
    let routing = Routing::new(Plugin::defaults());
    let table = table("mappings: [{ baseModel: llama, adapters: [sql] }]");
    for (model, wanted) in [("sql", Some("llama")), ("llama", Some("llama")), ("other", None)] {
        let (plan, facts) = decide(&routing, &table, &format!("{{\"model\":\"{model}\"}}"));
        let plan = plan.unwrap();
        let mut headers = vec![("x-gateway-model-name", model)];
        headers.extend(wanted.map(|base| ("x-gateway-base-model-name", base)));
        assert_eq!((set(&plan), &plan.body), (headers, &None));
        assert_eq!(facts.contains(&Fact::UnknownModel), wanted.is_none());
    }
}

#[test]
fn what_is_no_name_is_counted_or_refused() {
    let routing = Routing::new(Plugin::defaults());
    let table = table("names: {}");
    let missing = vec![Fact::Missing("model".into())];
    for (body, wanted) in [
        ("{}", missing.clone()),
        ("{\"model\":null}", missing.clone()),
        ("{\"model\":[\"a\"]}", missing),
        ("{\"model\":\"\"}", vec![Fact::Empty("model".into())]),
        ("{\"model\":\" \"}", vec![Fact::Empty("model".into())]),
    ] {
        let (plan, facts) = decide(&routing, &table, body);
        assert_eq!((plan.unwrap(), facts), (Plan::default(), wanted), "{body}");
    }
    let (plan, _) = decide(&routing, &table, "{\"model\":5}");
    assert_eq!(set(&plan.unwrap()), [("x-gateway-model-name", "5")], "as upstream writes it");
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(5000));
    for (body, wanted) in [
        ("{\"model\":", "failed to parse request body: EOF"),
        ("[]", "failed to parse request body: the body is not a JSON object"),
        ("\u{1f}\u{fffd}", "failed to parse request body: expected value"),
        ("{\"model\":\"a\",\"model\":\"b\"}", "failed to parse request body: duplicate field `model`"),
        ("{\"model\":\"a\\r\\nx: y\"}", "the value of `model` has the control character U+000D"),
        (&long, "the value of `model` is no text of at most 4096 bytes"),
        ("{\"model\":\"\\ud800\"}", "the value of `model` is no text"),
    ] {
        let refusal = decide(&routing, &table, body).0.unwrap_err();
        assert!(refusal.code == Code::BadRequest && refusal.message.starts_with(wanted), "{body}: {}", refusal.message);
    }
}

#[test]
fn a_name_is_rewritten_in_its_place_alone() {
    let routing = Routing::new(Plugin::defaults());
    let rules = "names: { models: [glm-5], prefixes: [{ prefix: openai }, { prefix: anthropic, action: route }], normalise: {} }";
    let (plan, facts) = decide(&routing, &table(rules), "{ \"n\": 1e2, \"model\" : \"open\\u0061i/GLM5\" }");
    let plan = plan.unwrap();
    assert_eq!(set(&plan), [("x-gateway-model-name", "glm-5")]);
    assert_eq!(plan.body.unwrap(), "{ \"n\": 1e2, \"model\" : \"glm-5\" }");
    assert_eq!(facts, [Fact::Named(Rule::Strip), Fact::Named(Rule::Normalise), Fact::Rewritten, Fact::UnknownModel]);
    let (plan, _) = decide(&routing, &table(rules), "{\"model\":\"anthropic/claude\"}");
    let plan = plan.unwrap();
    assert_eq!(set(&plan), [("x-gateway-model-provider", "anthropic"), ("x-gateway-model-name", "anthropic/claude")]);
    assert_eq!(plan.body, None);
    let headers_alone = rules.replace("normalise: {}", "normalise: {}, rewriteBody: false");
    let (plan, _) = decide(&routing, &table(&headers_alone), "{\"model\":\"openai/glm-5\"}");
    let plan = plan.unwrap();
    assert_eq!((set(&plan), &plan.body), (vec![("x-gateway-model-name", "glm-5")], &None));
}

#[test]
fn the_classifier_s_model_goes_before_the_effective_name() {
    let routing = Routing::new(Plugin::defaults());
    let rules = "names: { aliases: { auto: gemma } }\nmappings: [{ baseModel: gemma-27b }]\n\
                 classifier: [{ name: g, models: [gemma], simple: gemma-4b, complex: gemma-27b }]";
    let (plan, facts) = decide(&routing, &table(rules), "{\"prompt\":\"debug it\",\"model\":\"auto\"}");
    let plan = plan.unwrap();
    let told = "rule=g class=complex reason=keyword:debug";
    assert_eq!(
        set(&plan),
        [("x-weir-classifier", told), ("x-gateway-model-name", "gemma-27b"), ("x-gateway-base-model-name", "gemma-27b")]
    );
    assert_eq!(
        (plan.told.as_deref(), plan.body.as_deref()),
        (Some(told), Some(&b"{\"prompt\":\"debug it\",\"model\":\"gemma-27b\"}"[..]))
    );
    let classified = Fact::Classified { rule: "g".into(), class: Class::Complex, reason: "keyword" };
    assert_eq!(facts, [Fact::Named(Rule::Alias), classified, Fact::Rewritten]);
}

#[test]
fn other_fields_become_headers() {
    let plugin = |text: &str| Plugin::parse(text).unwrap();
    let routing = Routing::new(vec![
        plugin(r#"body-field-to-header:a:{"fieldName":"user","headerName":"X-User"}"#),
        plugin(r#"body-field-to-header:b:{"fieldName":"stream","headerName":"X-Stream"}"#),
    ]);
    let (plan, facts) = decide(&routing, &table(""), "{\"user\":\"é\",\"stream\":true,\"model\":\"m\"}");
    assert_eq!((set(&plan.unwrap()), facts), (vec![("x-user", "é"), ("x-stream", "true")], vec![]));
    assert_eq!(routing.owned().len(), 4);
}
