//! Requests go to the pool of their model, to the fallback, or to nobody, and the answer says which.

use std::collections::BTreeMap;

use super::scene::{Pool, Scene};

const RULES: &str = "
names: { models: [gemma-3-4b, gemma-3-27b], prefixes: [{ prefix: google }], normalise: {} }
mappings: [{ baseModel: llama, adapters: [sql-lora, sql-lora-2] }]
";

#[tokio::test(flavor = "multi_thread")]
async fn three_pools_an_adapter_an_empty_pool_and_an_unknown_model() {
    let pools = || {
        vec![
            Pool::start("small", "gemma-3-4b", &[], 1, &[]),
            Pool::start("large", "gemma-3-27b", &[], 1, &[]),
            Pool::start("llama", "llama", &["sql-lora"], 1, &["--unknown-models=refuse"]),
            Pool::start("nobody", "nobody", &[], 0, &[]),
        ]
    };
    let scene = Scene::start("three", RULES, pools).await;
    for (asked, pod, served) in [
        ("gemma-3-4b", "small-0", "gemma-3-4b"),
        ("gemma-3-27b", "large-0", "gemma-3-27b"),
        ("llama", "llama-0", "llama"),
        // To the pool of its base model, under its own name.
        ("sql-lora", "llama-0", "sql-lora"),
        ("google/gemma-3-27b", "large-0", "gemma-3-27b"),
        ("google/google/Gemma3-4B", "small-0", "gemma-3-4b"),
    ] {
        let (status, by, model, _, text) = scene.ask(asked, "who?").await;
        assert_eq!((status, by.as_str(), model.as_str()), (200, pod, served), "{asked}: {text}");
    }
    // Routed to the pool of its base model, whose servers do not have it: the picker says so, and what is near.
    let wanted = "inference error: NotFound - no server of the pool lists the model `sql-lora-2`: near to it are `sql-lora`";
    // The servers are asked a moment after they are known: until then it is one of them that answers 404.
    let mut refusals = Vec::new();
    while refusals.last().is_none_or(|(_, _, text)| text != wanted) {
        let (status, pod, _, _, text) = scene.ask("sql-lora-2", "who?").await;
        assert!(status == 404 && refusals.len() < 2000, "{text}");
        refusals.push((status, pod, text));
    }
    assert_eq!(refusals.last().map(|(_, pod, _)| pod.as_str()), Some(""), "no server was asked");
    let (status, _, _, headers, text) = scene.ask("nobody", "who?").await;
    assert_eq!(status, 503, "{text}");
    assert_eq!(headers["x-llm-d-request-dropped-reason"], "rejected-no-endpoints");
    assert!(headers.contains_key("retry-after"));
    let (status, _, _, _, text) = scene.ask("gpt-9", "who?").await;
    assert_eq!((status, text.as_str()), (404, "no such model"));
    // What a client says itself routes nothing that has a body.
    let spoofed = scene.post("routed", "{\"prompt\":\"x\",\"model\":\"gpt-9\"}").header("x-gateway-base-model-name", "llama");
    assert_eq!(spoofed.send().await.unwrap().status(), 404);
    // Without a body the client chooses.
    let models = scene.post("routed", "").build().unwrap().url().join("/v1/models").unwrap();
    let models = scene.client.get(models).header("x-gateway-base-model-name", "llama").send().await.unwrap();
    assert_eq!(models.headers()["x-inference-pod"], "llama-0-0");
    let page = scene.router.page();
    for line in [
        "weir_bbr_unknown_models_total 7",
        "weir_bbr_named_total{rule=\"strip\"} 3",
        "weir_bbr_named_total{rule=\"normalise\"} 1",
        "weir_bbr_events_total{kind=\"spoofed_header\"} 1",
        "bbr_plugin_duration_seconds_count{extension_point=\"request\",plugin_type=\"base-model-to-header\",plugin_name=\"base-model-mapper\"} ",
    ] {
        assert!(page.lines().any(|known| known.starts_with(line)), "no {line} in {page}");
    }
    scene.router.page_until("weir_bbr_streams 0");
}

const CLASSIFIER: &str = "classifier: [{ name: gemma, models: [gemma], simple: gemma-3-4b, complex: gemma-3-27b }]\n";

#[tokio::test(flavor = "multi_thread")]
async fn simple_requests_go_to_the_small_model_and_complex_ones_to_the_large() {
    let pools = || vec![Pool::start("small", "gemma-3-4b", &[], 1, &[]), Pool::start("large", "gemma-3-27b", &[], 1, &[])];
    let scene = Scene::start("classifier", CLASSIFIER, pools).await;
    for (prompt, pod, told) in [
        ("who?".to_owned(), "small-0", "rule=gemma class=simple reason=none"),
        ("please Refactor this".to_owned(), "large-0", "rule=gemma class=complex reason=keyword:refactor"),
        ("word ".repeat(500), "large-0", "rule=gemma class=complex reason=tokens:625"),
    ] {
        let (status, by, model, headers, text) = scene.ask("gemma", &prompt).await;
        assert_eq!((status, by.as_str()), (200, pod), "{text}");
        assert_eq!(headers["x-weir-classifier"], told);
        assert_eq!(model, if pod == "small-0" { "gemma-3-4b" } else { "gemma-3-27b" }, "the body names the chosen model");
    }
    // Half of them are left alone, from the next look at the file on: nobody serves `gemma` itself.
    scene.rules(&CLASSIFIER.replace("models: [gemma]", "models: [gemma], share: 50"));
    scene.router.page_until("weir_bbr_rules_reloads_total{outcome=\"ok\"} 1");
    let mut by = BTreeMap::<u16, u32>::new();
    for _ in 0..100 {
        *by.entry(scene.ask("gemma", "who?").await.0).or_default() += 1;
    }
    assert!(by[&200] > 20 && by[&404] > 20, "{by:?}");
    let page = scene.router.page();
    let line = format!("weir_bbr_classified_total{{rule=\"gemma\",class=\"control\",reason=\"share\"}} {}", by[&404]);
    assert!(page.lines().any(|known| known == line), "no {line} in {page}");
    // A wrong file changes nothing.
    scene.rules("classifier: [{ name: gemma }]");
    scene.router.page_until("weir_bbr_rules_in_step 0");
    assert!(scene.ask("gemma", "debug it").await.0 != 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_a_hundred_requests_go_to_the_canary() {
    let pools = || vec![Pool::start("stable", "canary", &[], 1, &[]), Pool::start("canary", "canary", &[], 1, &[])];
    let scene = Scene::start("canary", "", pools).await;
    let mut by = BTreeMap::<String, u32>::new();
    for _ in 0..1000 {
        let (status, pod, _, _, text) = scene.ask("canary", "who?").await;
        assert_eq!(status, 200, "{text}");
        *by.entry(pod).or_default() += 1;
    }
    println!("of 1000 requests at 90/10: {by:?}");
    // Six standard deviations.
    assert!((43..=157).contains(&by["canary-0"]) && by["stable-0"] + by["canary-0"] == 1000, "{by:?}");
    // Each picker was asked for its own requests alone.
    for pool in &scene.pools {
        let served = by[&format!("{}-0", pool.name)];
        let page = pool.picker.page();
        let attempts =
            page.lines().find(|line| line.starts_with("inference_extension_scheduler_attempts_total{status=\"success\""));
        assert_eq!(attempts.and_then(|line| line.rsplit(' ').next()), Some(served.to_string().as_str()), "{page}");
    }
}

/// The endpoint with most of the prompt in its cache first, and the other after it.
const ORDERED: &str = "--config-text=apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: max-score-picker
  parameters: { maxNumOfEndpoints: 2 }
schedulingProfiles:
- name: default
  plugins: [{ pluginRef: prefix-cache-scorer }, { pluginRef: max-score-picker }]
";

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_is_followed_by_the_fallback() {
    let pools = || vec![Pool::start("ordered", "ordered", &[], 2, &[ORDERED, "--served-header=X-Inference-Served"])];
    let mut scene = Scene::start("ordered", "", pools).await;
    let prompt = "a prompt that one of the servers has in its cache ".repeat(20);
    let primary = scene.ask("ordered", &prompt).await.1;
    for _ in 0..20 {
        let (status, pod, ..) = scene.ask("ordered", &prompt).await;
        assert_eq!((status, &pod), (200, &primary), "the one with the prompt in its cache");
    }
    let index: usize = primary.rsplit('-').next().unwrap().parse().unwrap();
    // Killed while requests come: none of them fails.
    let servers: Vec<String> = scene.pools[0].servers.iter().map(|(_, at)| at.to_string()).collect();
    let mut by = BTreeMap::<String, u32>::new();
    for position in 0..100 {
        if position == 10 {
            drop(scene.pools[0].servers.remove(index));
        }
        let (status, pod, _, headers, text) = scene.ask("ordered", &prompt).await;
        assert_eq!(status, 200, "{position}: {text}");
        let server: usize = pod.rsplit('-').next().unwrap().parse().unwrap();
        let served = headers["x-inference-served"].to_str().unwrap();
        assert!(served.starts_with(&servers[server]), "{served} is told, {} served", servers[server]);
        *by.entry(pod).or_default() += 1;
    }
    assert_eq!((by[&primary], by.len(), by.values().sum::<u32>()), (10, 2, 100), "{by:?}");
    // The last one is killed, too: the picker sees it, and refuses with the reason.
    drop(scene.pools[0].servers.remove(0));
    let (status, .., text) = scene.ask("ordered", &prompt).await;
    assert_eq!(status, 503, "{text}");
    let line = "inference_pool_endpoints{name=\"ordered\",namespace=\"default\",state=\"unreachable\"} 2";
    scene.pools[0].picker.page_until(line);
}
