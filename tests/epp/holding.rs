//! Requests that wait for the pool's first endpoint, behind a real Envoy.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use weir_tests::{Folder, get, simulators, text};

use super::MODEL;
use super::rig::{self, Gateway, Picker, blocking};

const REQUESTS: usize = 40;
const STREAMED: usize = 10;
/// Longer than anything is held here.
const PATIENT: Duration = Duration::from_secs(400);

fn no_endpoints(folder: &Folder) {
    folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: []\n");
}

fn ask(gateway: &Gateway, streamed: bool) -> JoinHandle<reqwest::Response> {
    ask_at(gateway, "original", json!({ "model": MODEL, "prompt": "how are you?", "max_tokens": 3, "stream": streamed }))
}

fn ask_at(gateway: &Gateway, listener: &str, body: Value) -> JoinHandle<reqwest::Response> {
    let request = gateway.client.post(gateway.url_of(listener, "/v1/completions")).header("content-type", "application/json");
    let request = request.timeout(PATIENT).body(body.to_string()).send();
    tokio::spawn(async move { request.await.unwrap() })
}

async fn start(folder: &Folder, line: &str, name: &'static str, server: &str) -> (Picker, Gateway) {
    let pools = folder.file("pools.yaml");
    let line = format!("--pool-name r --pool-namespace n {line}");
    let picker = Picker::start(folder, &line, Path::new(&pools)).await;
    picker.is_ready().await;
    let gateway = Gateway::start(name, picker.ext_proc, server).await;
    (picker, gateway)
}

async fn held(picker: &Picker, wanted: usize) {
    picker
        .page_until(&format!("{wanted} held"), move |page| {
            let waiting = rig::value(page, "inference_extension_flow_control_queue_size{").unwrap_or(0.0);
            (waiting, rig::value(page, "inference_pool_held_requests{")) == (wanted as f64, Some(wanted as f64))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_endpoints_loses_no_request() {
    let folder = Folder::new("epp-holding");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let server = addresses[0].clone();
    no_endpoints(&folder);
    let (picker, gateway) = start(&folder, "--hold-empty always", "epp-holding", &server).await;

    let waiting: Vec<_> = (0..REQUESTS).map(|index| ask(&gateway, index < STREAMED)).collect();
    held(&picker, REQUESTS).await;
    // A client that goes frees its place.
    let leaving = ask(&gateway, false);
    held(&picker, REQUESTS + 1).await;
    leaving.abort();
    held(&picker, REQUESTS).await;
    picker
        .page_until("its outcome", |page| {
            let gone =
                "llm_d_epp_flow_control_requests_total{outcome=\"EvictedContextCancelled\",priority=\"0\",inference_pool=\"r\"}";
            rig::value(page, gone) == Some(1.0)
        })
        .await;
    assert!(waiting.iter().all(|request| !request.is_finished()));

    rig::pools_file(&folder, &server);
    for (index, request) in waiting.into_iter().enumerate() {
        let answer = tokio::time::timeout(Duration::from_secs(60), request).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let answer = text(answer).await.unwrap();
        if index < STREAMED {
            assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
        } else {
            assert!(answer.contains("\"completion_tokens\":3"), "{answer}");
        }
    }
    held(&picker, 0).await;
    picker
        .page_until("none lost, none doubled", |page| {
            let placed = rig::value(page, "inference_objective_request_total{");
            let dispatched = "llm_d_epp_flow_control_requests_total{outcome=\"Dispatched\",priority=\"0\",inference_pool=\"r\"}";
            (placed, rig::value(page, dispatched)) == (Some(REQUESTS as f64), Some(REQUESTS as f64))
        })
        .await;
    let url = format!("http://{server}/metrics");
    let page = blocking(move || get(&url)).await.unwrap();
    let ended: f64 = page
        .lines()
        .filter(|line| line.starts_with("vllm:request_success_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(ended, REQUESTS as f64, "what reached the server");
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_picker_is_told_to_go_may_come_again() {
    let folder = Folder::new("epp-held-end");
    no_endpoints(&folder);
    let (picker, gateway) = start(&folder, "--hold-empty always", "epp-held-end", "127.0.0.1:1").await;
    let waiting: Vec<_> = (0..3).map(|_| ask(&gateway, false)).collect();
    held(&picker, 3).await;
    picker.ends_well().await;
    for request in waiting {
        let answer = request.await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["x-llm-d-request-dropped-reason"], "rejected-shutting-down");
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(text(answer).await.unwrap(), "inference error: ServiceUnavailable - the picker is shutting down");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_where_nothing_will_come_and_no_more_than_the_limits_allow() {
    let folder = Folder::new("epp-held-limit");
    no_endpoints(&folder);
    let config = folder.write(
        "config.yaml",
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n",
    );
    let line = format!("--config-file {}", config.display());
    let (picker, gateway) = start(&folder, &line, "epp-held-limit", "127.0.0.1:1").await;
    let refused = ask(&gateway, false).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    assert_eq!(refused.headers()["x-llm-d-request-dropped-reason"], "rejected-no-endpoints");

    let text_of_config = std::fs::read_to_string(&config).unwrap();
    folder.write(
        "config.yaml",
        &format!("{text_of_config}flowControl: {{ holdEmpty: always, maxRequests: 2, noEndpointRequestTTL: 3s }}\n"),
    );
    picker.page_until("reloaded", |page| page.contains("weir_epp_config_reloads_total{outcome=\"ok\"} 1\n")).await;
    let waiting: Vec<_> = (0..2).map(|_| ask(&gateway, false)).collect();
    held(&picker, 2).await;
    let excess = ask(&gateway, false).await.unwrap();
    assert_eq!(excess.status(), 503);
    let words = text(excess).await.unwrap();
    assert!(words.ends_with("no endpoints available: request rejected pre-queue: queue at capacity"), "{words}");
    for request in waiting {
        let answer = request.await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
        assert!(text(answer).await.unwrap().ends_with("request evicted from queue: request TTL expired"));
    }
    held(&picker, 0).await;
    picker.ends_well().await;
}

/// What became of two requests for `tokens` tokens that were held for `hold`: by way of a gateway with the documented settings, and by
/// way of `listener`.
async fn held_for(name: &'static str, hold: Duration, listener: &str, tokens: u32) -> [(u16, Result<String, String>); 2] {
    let folder = Folder::new(name);
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    let server = addresses[0].clone();
    no_endpoints(&folder);
    // The picker itself holds for 5 minutes, unless it is told otherwise.
    let config = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: queue-scorer\n\
                  flowControl: { holdEmpty: always, noEndpointRequestTTL: 10m }\n";
    let config = folder.write("config.yaml", config);
    let (picker, gateway) = start(&folder, &format!("--config-file {}", config.display()), name, &server).await;
    let body = || json!({ "model": MODEL, "prompt": "go on", "max_tokens": tokens });
    let began = Instant::now();
    let requests = [ask_at(&gateway, "original", body()), ask_at(&gateway, listener, body())];
    held(&picker, 2).await;
    // The hold is what is tried.
    sleep_until(began + hold).await;
    rig::pools_file(&folder, &server);
    let mut answers = Vec::new();
    for request in requests {
        let answer = request.await.unwrap();
        answers.push((answer.status().as_u16(), text(answer).await));
    }
    eprintln!("held for {hold:?}, {tokens} tokens: documented settings {}, `{listener}` {:?}", answers[0].0, answers[1]);
    picker.ends_well().await;
    answers.try_into().unwrap()
}

/// The one with the documented settings is whole, the other one is cut with these words.
fn assert_cut([documented, cut]: [(u16, Result<String, String>); 2], tokens: u32, words: &str) {
    assert_eq!(documented.0, 200);
    assert!(documented.1.unwrap().contains(&format!("\"completion_tokens\":{tokens}")));
    assert_eq!(cut, (504, Ok(words.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_cuts_what_takes_longer_than_its_limits() {
    // Longer than a stream may idle (3 s); shorter, but with an answer that takes longer than one may (1.5 s).
    assert_cut(held_for("epp-limit-idle", Duration::from_secs(5), "impatient", 5).await, 5, "stream timeout");
    assert_cut(held_for("epp-limit-route", Duration::from_secs(1), "impatient", 120).await, 120, "upstream request timeout");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a hold of a minute and a half: make long"]
async fn a_hold_of_90_seconds_ends_well_and_a_route_of_envoys_own_limit_cuts_its_answer() {
    assert_cut(held_for("epp-limit-90", Duration::from_secs(90), "defaults", 800).await, 800, "upstream request timeout");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a hold of more than five minutes: make long"]
async fn a_hold_of_more_than_5_minutes_is_cut_by_envoys_own_limit_of_a_stream() {
    assert_cut(held_for("epp-limit-310", Duration::from_secs(310), "defaults", 5).await, 5, "stream timeout");
}
