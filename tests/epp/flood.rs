//! More requests than may wait, from outside: the excess is refused at once, memory stays within the limit, the rest goes by priority
//! and fairly between flows.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;
use weir_tests::{Folder, allow_many_files, simulators, text};

use super::rig::{self, Picker, blocking, pools_file};
use super::{MODEL, RULES};

const BODY: usize = 64 << 10;
/// Requests that begin together.
const WAVE: usize = 500;
const REFUSED: &str = "llm_d_epp_flow_control_requests_total{outcome=\"RejectedNoEndpoints\"";

/// What became of a request.
struct Ended {
    urgent: bool,
    flow: usize,
    status: u16,
    reason: Option<String>,
    at: Instant,
}

/// Memory of the picker, in MiB.
fn memory(page: &str) -> f64 {
    rig::value(page, "process_resident_memory_bytes ").unwrap() / f64::from(1 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_requests_those_wait_that_the_limit_allows() {
    flood("epp-flood", 2_000, 800).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute and a gigabyte: `make long`"]
async fn of_ten_thousand_requests_those_wait_that_the_limit_allows() {
    flood("epp-flood-long", 10_000, 4_096).await;
}

/// So many requests where the limit allows the bodies of `fit` to wait.
async fn flood(name: &str, requests: usize, fit: usize) {
    let limit = fit * BODY;
    allow_many_files();
    weir_serving::install_crypto_provider();
    let folder = Folder::new(name);
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: []\n");
    let rules = folder.write("rules.yaml", &RULES.replace("name: batch", "name: urgent").replace("priority: -1", "priority: 10"));
    let config = folder.write(
        "config.yaml",
        &format!(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins:\n\
             - type: queue-scorer\nflowControl:\n  maxBytes: {limit}\n  noEndpointRequestTTL: 10m\n  defaultRequestTTL: 10m\n  \
             defaultPriorityBand: {{ fairnessPolicyRef: round-robin-fairness-policy }}\n"
        ),
    );
    let line = format!(
        "--pool-name r --pool-namespace n --http 127.0.0.1:0 --config-file {} --rules {}",
        config.display(),
        rules.display()
    );
    let pools = folder.file("pools.yaml");
    let picker = Picker::start(&folder, &line, std::path::Path::new(&pools)).await;
    picker.is_ready().await;
    let before = memory(&picker.page().await);

    let frame = json!({ "model": MODEL, "prompt": "hi", "max_tokens": 1, "user": "" }).to_string();
    let body = frame.replace("\"user\":\"\"", &format!("\"user\":\"{}\"", "x".repeat(BODY - frame.len())));
    assert_eq!(body.len(), BODY);
    let body = Bytes::from(body);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url: Arc<str> = format!("http://{}/v1/completions", picker.http.unwrap()).into();
    let ask = |index: usize| {
        let (urgent, flow) = (index.is_multiple_of(4), index / 4 % 2);
        let request = client.post(&*url).header("content-type", "application/json").body(body.clone());
        let request = request.header("x-gateway-inference-fairness-id", format!("flow-{flow}"));
        let request = if urgent { request.header("x-gateway-inference-objective", "urgent") } else { request };
        tokio::spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let reason = answer.headers().get("x-llm-d-request-dropped-reason").map(|reason| reason.to_str().unwrap().to_owned());
            let body = text(answer).await.unwrap();
            assert!(status != 200 || body.contains("\"completion_tokens\":1"), "{body}");
            Ended { urgent, flow, status, reason, at: Instant::now() }
        })
    };
    let mut asked = Vec::new();
    // In waves, since a connection that says nothing for ten seconds is closed, and the client shares the machine.
    while asked.len() < requests {
        asked.extend((asked.len()..requests.min(asked.len() + WAVE)).map(ask));
        let wait = asked.len().min(fit);
        let refused = asked.len() - wait;
        picker
            .page_until("as many as fit wait, the others are refused", move |page| {
                let lines = page.lines().filter(|line| line.starts_with(REFUSED));
                let counted: f64 = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
                (rig::value(page, "inference_pool_held_requests{"), counted) == (Some(wait as f64), refused as f64)
            })
            .await;
    }
    let full = memory(&picker.page().await);
    eprintln!("{fit} of {requests} requests of 64 KiB wait: {before:.0} MiB before, {full:.0} MiB now");
    // The bodies, and what is kept for each connection that was read from.
    let most = (limit + 2 * requests * BODY) as f64 / f64::from(1 << 20);
    assert!(full - before < most, "{before} MiB before, {full} MiB now: more than {most} MiB");

    pools_file(&folder, &addresses[0]);
    let mut ended = Vec::new();
    for request in asked {
        ended.push(request.await.unwrap());
    }
    let refused: Vec<_> = ended.iter().filter(|ended| ended.status != 200).collect();
    let statuses = refused.iter().fold(std::collections::BTreeMap::new(), |mut counts, ended| {
        *counts.entry((ended.status, ended.reason.clone())).or_insert(0) += 1;
        counts
    });
    assert_eq!(refused.len(), requests - fit, "none lost: {statuses:?}");
    assert!(refused.iter().all(|ended| (ended.status, ended.reason.as_deref()) == (503, Some("rejected-no-endpoints"))));
    let mut served: Vec<_> = ended.into_iter().filter(|ended| ended.status == 200).collect();
    served.sort_by_key(|ended| ended.at);
    let urgent = served.iter().filter(|ended| ended.urgent).count();
    let early = served[..urgent].iter().filter(|ended| ended.urgent).count();
    eprintln!("{urgent} urgent ones, of which {early} were among the first {urgent} answers");
    assert!(early * 10 >= urgent * 8, "what is urgent goes first: {early} of {urgent}");
    let others: Vec<_> = served.iter().filter(|ended| !ended.urgent).collect();
    let half = &others[..others.len() / 2];
    let of_first = half.iter().filter(|ended| ended.flow == 0).count();
    let all_of_first = others.iter().filter(|ended| ended.flow == 0).count();
    eprintln!(
        "of the first half of the others {of_first} of {} are of one of two flows, which had {all_of_first} of {}",
        half.len(),
        others.len()
    );
    assert!(
        of_first * 10 >= half.len() * 4 && of_first * 10 <= half.len() * 6,
        "two flows take turns: {of_first} of {}",
        half.len()
    );
    picker
        .page_until("none served twice", move |page| {
            let placed: f64 = page
                .lines()
                .filter(|line| line.starts_with("inference_objective_request_total{"))
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
                .sum();
            placed == fit as f64
        })
        .await;
    picker.ends_well().await;
}
