//! `weir epp` from outside: behind a real Envoy, and with the command lines of upstream's charts.

#![allow(clippy::unwrap_used)]

#[path = "epp/empty.rs"]
mod empty;
#[path = "epp/flood.rs"]
mod flood;
#[path = "epp/holding.rs"]
mod holding;
#[path = "epp/rig.rs"]
mod rig;
#[path = "epp/standalone.rs"]
mod standalone;

use rig::{Gateway, Picker, blocking};
use serde_json::json;
use weir_tests::{Folder, Process, eventually, get, run, simulators, text};

const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// An objective whose requests may be shed.
const RULES: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceObjective\nmetadata: { name: batch, namespace: n }\n\
                     spec: { priority: -1, poolRef: { name: r } }\n---\n\
                     apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModelRewrite\nmetadata: { name: alias, namespace: n }\n\
                     spec:\n  poolRef: { name: r }\n  rules:\n  - matches: [{ model: { value: alias } }]\n    targets: [{ modelRewrite: meta-llama/Llama-3.1-8B-Instruct }]\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_through_and_sheddable_ones_are_refused_while_the_pool_is_full() {
    let folder = Folder::new("epp-gateway");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let server = addresses[0].clone();
    let pools = rig::pools_file(&folder, &server);
    let rules = folder.write("rules.yaml", RULES);
    let picker = Picker::start(&folder, &format!("--pool-name r --pool-namespace n --rules {}", rules.display()), &pools).await;
    picker.is_ready().await;
    picker.page_until("the server on the page", |page| rig::value(page, "inference_pool_saturation{") == Some(0.0)).await;
    let gateway = Gateway::start("epp", picker.ext_proc, &server).await;

    let ask = |model: &str, objective: Option<&str>| {
        let body = json!({ "model": model, "prompt": "how are you?", "max_tokens": 2 });
        let request = gateway.client.post(gateway.url("/v1/completions")).header("content-type", "application/json");
        let request = match objective {
            Some(objective) => request.header("x-gateway-inference-objective", objective),
            None => request,
        };
        request.body(body.to_string()).send()
    };
    let answer = ask(MODEL, None).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(text(answer).await.unwrap().contains("\"completion_tokens\":2"));
    let aliased = ask("alias", None).await.unwrap();
    assert_eq!(aliased.status(), 200, "another name of the model");
    assert!(text(aliased).await.unwrap().contains("\"model\":\"alias\""));
    assert_eq!(ask(MODEL, Some("batch")).await.unwrap().status(), 200, "there is room");
    let counted = |target: &str, priority: &str| {
        format!(
            "inference_objective_request_total{{model_name=\"{target}\",target_model_name=\"{MODEL}\",priority=\"{priority}\"}} 1\n"
        )
    };
    let all = [counted(MODEL, "0"), counted("alias", "0"), counted(MODEL, "-1")];
    picker.page_until("three requests", move |page| all.iter().all(|line| page.contains(line))).await;

    // What fills the server does not come by way of the picker.
    let long = json!({ "model": MODEL, "prompt": "x", "max_tokens": 3000, "stream": true }).to_string();
    let load: Vec<_> = (0..40)
        .map(|_| {
            let request = gateway.client.post(format!("http://{server}/v1/completions")).header("content-type", "application/json");
            let request = request.body(long.clone());
            tokio::spawn(async move { text(request.send().await.unwrap()).await })
        })
        .collect();
    picker.page_until("a full pool", |page| rig::value(page, "inference_pool_saturation{") >= Some(1.0)).await;
    let shed = ask(MODEL, Some("batch")).await.unwrap();
    assert_eq!(shed.status(), 429);
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(text(shed).await.unwrap(), "inference error: ResourceExhausted - system saturated, sheddable request dropped");
    picker.page_until("the refusal counted", |page| {
        let refused = format!("inference_objective_request_error_total{{model_name=\"{MODEL}\",target_model_name=\"{MODEL}\",error_code=\"ResourceExhausted\"}}");
        rig::value(page, &refused) == Some(1.0)
    })
    .await;
    load.iter().for_each(tokio::task::JoinHandle::abort);
    picker.page_until("room again", |page| rig::value(page, "inference_pool_saturation{").is_some_and(|full| full < 1.0)).await;
    assert_eq!(ask(MODEL, Some("batch")).await.unwrap().status(), 200);
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_weir_follows_the_picker_and_knows_what_it_has_in_flight() {
    let folder = Folder::new("epp-stream");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let server = addresses[0].clone();
    let picker = Picker::start(&folder, "--pool-name r --pool-namespace n", &rig::pools_file(&folder, &server)).await;
    picker.is_ready().await;
    let gateway = Gateway::start("epp-stream", picker.ext_proc, &server).await;
    let pools = format!(
        "apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: [\"{server}\"]\n  pickers: [\"http://{}\"]\n",
        picker.metrics
    );
    let pools = folder.write("followed.yaml", &pools);
    let exporter = blocking(move || {
        let exporter = Process::weir(&["exporter", "--pools", pools.to_str().unwrap(), "--exporter-listen", "127.0.0.1:0"]);
        let line = exporter.line("where it serves", |line| line.contains(" serving "));
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let page = move || get(&format!("http://{address}/metrics"));
        eventually("it follows the picker", || {
            let page = page()?;
            let followed = rig::value(&page, "weir_streams_followed ") == Some(1.0);
            if followed && rig::value(&page, "inference_pool_held_requests{") == Some(0.0) { Ok(()) } else { Err(page) }
        });
        exporter
    })
    .await;

    let mut stream = gateway.client.get(format!("http://{}/api/v1/pools/n/r?watch=1", picker.metrics)).send().await.unwrap();
    let mut said = String::new();
    let body = json!({ "model": MODEL, "prompt": "x", "max_tokens": 3000, "stream": true }).to_string();
    let request = gateway.client.post(gateway.url("/v1/completions")).header("content-type", "application/json").body(body);
    let mut answer = request.send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    while !said.contains("\"inFlight\":1,\"arrivals\":1") {
        said.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    // Its client goes away: so has the request.
    drop(answer);
    said.clear();
    while !said.contains("\"inFlight\":0,\"arrivals\":1") {
        said.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    drop(exporter);
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_changes_while_it_runs_and_a_wrong_one_does_not_count() {
    const HEAD: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";
    let folder = Folder::new("epp-reload");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let pools = rig::pools_file(&folder, &addresses[0]);
    let config = folder.write("config.yaml", &format!("{HEAD}- type: queue-scorer\n"));
    let line = format!("--pool-name r --pool-namespace n --config-file {}", config.display());
    let picker = Picker::start(&folder, &line, &pools).await;
    let shown = |wanted: &'static str| {
        let url = format!("http://{}/debug/config", picker.metrics);
        blocking(move || {
            eventually(wanted, || {
                let shown = get(&url)?;
                if shown.contains(wanted) { Ok(shown) } else { Err(shown) }
            })
        })
    };
    shown("{\"pluginRef\":\"queue-scorer\",\"weight\":1.0}").await;
    folder.write("config.yaml", &format!("{HEAD}- type: load-aware-scorer\n  parameters: {{ threshold: 7 }}\n"));
    let now = shown("load-aware-scorer").await;
    assert!(now.contains("\"threshold\":7") && !now.contains("queue-scorer") && now.contains("\"problem\":null"), "{now}");
    folder.write("config.yaml", &format!("{HEAD}- type: load-unaware-scorer\n"));
    let now = shown("did you mean").await;
    assert!(now.contains("\"threshold\":7") && now.contains("plugins[0].type: unknown plugin type `load-unaware-scorer`"), "{now}");
    picker.page_until("out of step", |page| rig::value(page, "weir_epp_config_in_step ") == Some(0.0)).await;
    folder.write("config.yaml", &format!("{HEAD}- type: queue-scorer\n"));
    shown("\"problem\":null").await;
    picker
        .page_until("in step again", |page| {
            let counted = |outcome: &str| rig::value(page, &format!("weir_epp_config_reloads_total{{outcome=\"{outcome}\"}}"));
            rig::value(page, "weir_epp_config_in_step ") == Some(1.0)
                && (counted("ok"), counted("refused")) == (Some(2.0), Some(1.0))
        })
        .await;
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_served_is_told_where_a_plugin_asks_for_it_and_paths_go_to_their_parsers() {
    let folder = Folder::new("epp-served");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let server = addresses[0].clone();
    let pools = rig::pools_file(&folder, &server);
    let config = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: destination-endpoint-served-verifier\n\
                  - type: request-attribute-reporter\n  parameters: { attributes: [{ key: { name: cost }, expression: usage.total_tokens }] }\n\
                  requestHandler: { parsers: [{ pluginRef: openai-parser }] }\n";
    let config = folder.write("config.yaml", config);
    let picker =
        Picker::start(&folder, &format!("--pool-name r --pool-namespace n --config-file {}", config.display()), &pools).await;
    picker.is_ready().await;
    let gateway = Gateway::start("epp-served", picker.ext_proc, &server).await;
    let body = json!({ "model": MODEL, "prompt": "how are you?", "max_tokens": 2 }).to_string();
    // Envoy notes who served where it knows the endpoints, and not where it takes any address.
    for (listener, told) in [("known", server.as_str()), ("original", "fail: missing destination endpoint served metadata")] {
        let request = gateway.client.post(gateway.url_of(listener, "/v1/completions")).header("content-type", "application/json");
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-conformance-test-served-endpoint"], told, "{listener}");
        assert!(text(answer).await.unwrap().contains("\"completion_tokens\":2"));
    }
    let refused = gateway.client.post(gateway.url("/tokenize")).body("{}").send().await.unwrap();
    let told = "inference error: BadRequest - no parser registered matching path suffix for: /tokenize";
    assert_eq!((refused.status().as_u16(), text(refused).await.unwrap().as_str()), (400, told));
    picker.ends_well().await;
}

/// The plugins of the charts: those of v0.5, and those since.
const TREE: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: low-queue-filter\n  \
                    parameters: { threshold: 128 }\n- type: decision-tree-filter\n- type: random-picker\n- type: single-profile-handler\n\
                    schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: decision-tree-filter\n  - pluginRef: random-picker\n";
const SCORERS: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                       - type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\nschedulingProfiles:\n- name: default\n  plugins:\n  \
                       - pluginRef: queue-scorer\n    weight: 2\n  - pluginRef: kv-cache-utilization-scorer\n    weight: 2\n  \
                       - pluginRef: prefix-cache-scorer\n    weight: 3\n";

/// With the data layer written out, as the charts of v1.5.0 do.
const SOURCES: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                       - type: kv-cache-utilization-scorer\n- type: prefix-cache-scorer\n- type: metrics-data-source\n  parameters:\n    \
                       scheme: \"http\"\n    path: \"/metrics\"\n    insecureSkipVerify: true\n- type: core-metrics-extractor\n\
                       schedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: queue-scorer\n    weight: 2\n  \
                       - pluginRef: kv-cache-utilization-scorer\n    weight: 2\n  - pluginRef: prefix-cache-scorer\n    weight: 3\n";

/// The charts' command lines: version, line, its configuration.
const CHARTS: [(&str, &str, &str); 8] = [
    ("v0.4.0", "-poolName r -poolNamespace n -v 3 -grpcPort 9002 -grpcHealthPort 9003 -metricsPort 9090", TREE),
    (
        "v0.5.1",
        "-poolName r -poolNamespace n --v 3 --grpcPort 9002 -grpcHealthPort 9003 -metricsPort 9090 -configFile config/default-plugins.yaml \
         --enablePprof=true --modelServerMetricsPath=/metrics --modelServerMetricsScheme=http --modelServerMetricsHttpsInsecureSkipVerify=true",
        TREE,
    ),
    ("v1.0.0", "--pool-name r --pool-namespace n --zap-encoder json --config-file /config/default-plugins.yaml --v 1", SCORERS),
    (
        "v1.0.2",
        "--pool-name r --pool-namespace n --pool-group inference.networking.k8s.io --zap-encoder json --config-file \
         /config/default-plugins.yaml --v 1",
        SCORERS,
    ),
    (
        "v1.1.0",
        "--pool-name r --pool-namespace n --pool-group inference.networking.k8s.io --zap-encoder json --config-file \
         /config/default-plugins.yaml --v 1 --tracing false --metrics-endpoint-auth=false",
        SCORERS,
    ),
    (
        "v1.5.0",
        "--pool-name r --pool-namespace n --pool-group inference.networking.k8s.io --zap-encoder json --config-file \
         /config/default-plugins.yaml --v 1 --tracing=false",
        SOURCES,
    ),
    (
        "v1.5.0 for SGLang",
        "--pool-name r --pool-namespace n --pool-group inference.networking.k8s.io --zap-encoder json --config-file \
         /config/default-plugins.yaml --v 1 --total-queued-requests-metric=\"sglang:num_queue_reqs\" --tracing=false",
        SOURCES,
    ),
    (
        "llm-d-router",
        "--pool-name r --pool-namespace n --pool-group inference.networking.k8s.io --zap-encoder json --config-file \
         /config/default-plugins.yaml --grpc-health-port 9003 --tracing=false",
        SOURCES,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_charts_command_line_starts_a_picker_that_becomes_ready() {
    for (version, line, config) in CHARTS {
        let folder = Folder::new(&format!("epp-{}", version.replace(' ', "-")));
        std::fs::create_dir_all(folder.file("config")).unwrap();
        folder.write("config/default-plugins.yaml", config);
        let pools = rig::pools_file(&folder, "127.0.0.1:1");
        // The charts mount it at the root; what is relative is relative to there.
        let line = line.replace(" /config/", &format!(" {}/", folder.file("config").display()));
        let picker = Picker::start(&folder, &line, &pools).await;
        picker.is_ready().await;
        picker.ends_well().await;
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_way_out() {
    let folder = Folder::new("epp-refused");
    let pools = rig::pools_file(&folder, "127.0.0.1:1").display().to_string();
    let refused = |arguments: &[&str]| {
        let output = run(&[&["epp"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let flag = refused(&["--pool-nmae", "r"]);
    assert!(flag.contains("--pool-nmae: there is no such flag: did you mean --pool-name?"), "{flag}");
    let pool = refused(&["--pools", &pools, "--pool-name", "q", "--pool-namespace", "n"]);
    assert!(pool.contains("has no pool n/q, but n/r"), "{pool}");
    let config = refused(&["--pools", &pools, "--config-text", "kind: EndpointPickerConfig\nplugins: [{ type: queue-scorre }]"]);
    assert!(config.contains("--config-text:") && config.contains("queue-scorer"), "{config}");
    let rules = folder.write("rules.yaml", &RULES.replace("priority: -1", "priority: low"));
    let rules = refused(&["--pools", &pools, "--rules", rules.to_str().unwrap()]);
    assert!(rules.contains("InferenceObjective batch: spec.priority: `low` is no priority"), "{rules}");
    let help = run(&["epp", "--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--pool-name TEXT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_goes_takes_readiness_with_it_until_it_is_back() {
    let folder = Folder::new("epp-gone");
    let pools = rig::pools_file(&folder, "127.0.0.1:1");
    let picker = Picker::start(&folder, "--pool-name r --pool-namespace n", &pools).await;
    picker.is_ready().await;
    folder.write("pools.yaml", "apiVersion: weir/v1\npools: []\n");
    let url = format!("http://{}/readyz", picker.metrics);
    let reason = blocking(move || {
        eventually("not ready", || match get(&url)? {
            answer if answer.contains("[-]inference-pool failed") => Ok(answer),
            answer => Err(answer),
        })
    })
    .await;
    assert!(reason.contains("there is no pool n/r"), "{reason}");
    picker.page_until("the gauge", |page| page.contains("weir_epp_pool_known 0\n")).await;
    rig::pools_file(&folder, "127.0.0.1:1");
    picker.is_ready().await;
    picker.ends_well().await;
}
