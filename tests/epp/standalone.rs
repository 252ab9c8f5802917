//! Clients without a gateway.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{Folder, simulators, text};

use super::MODEL;
use super::rig::{self, Picker, blocking, pools_file};

fn client() -> reqwest::Client {
    weir_serving::install_crypto_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
}

async fn start(folder: &Folder, line: &str) -> (Picker, String) {
    let pools = folder.file("pools.yaml");
    let line = format!("--pool-name r --pool-namespace n --http 127.0.0.1:0 {line}");
    let picker = Picker::start(folder, &line, Path::new(&pools)).await;
    picker.is_ready().await;
    let url = format!("http://{}", picker.http.unwrap());
    (picker, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_without_a_gateway() {
    let folder = Folder::new("epp-http");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    pools_file(&folder, &addresses[0]);
    let (picker, url) = start(&folder, "").await;
    let client = client();
    let models: Value =
        serde_json::from_str(&text(client.get(format!("{url}/v1/models")).send().await.unwrap()).await.unwrap()).unwrap();
    assert_eq!(models["data"][0]["id"], MODEL);

    let ask = |streamed: bool| {
        let body = json!({ "model": MODEL, "prompt": "how are you?", "max_tokens": 3, "stream": streamed });
        client.post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body.to_string()).send()
    };
    let whole = text(ask(false).await.unwrap()).await.unwrap();
    assert!(whole.contains("\"completion_tokens\":3"), "{whole}");
    let streamed = ask(true).await.unwrap();
    assert_eq!(streamed.headers()["content-type"], "text/event-stream; charset=utf-8");
    let streamed = text(streamed).await.unwrap();
    assert!(streamed.ends_with("data: [DONE]\n\n"), "{streamed}");
    picker
        .page_until("both counted, none in flight", |page| {
            let has = |line: &str| page.lines().any(|known| known.starts_with(line));
            has("inference_objective_request_total{") && has("weir_ext_proc_streams 0")
        })
        .await;
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_first_server_hears_of_it_and_is_served() {
    let folder = Folder::new("epp-http-held");
    let (_simulator, addresses) = blocking(|| simulators(1)).await;
    folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: []\n");
    let (picker, url) = start(&folder, "--hold-empty always --http-keep-alive 100ms").await;
    let body = json!({ "model": MODEL, "prompt": "how are you?", "max_tokens": 3, "stream": true });
    let request = client().post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body.to_string());
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.chunk().await.unwrap().unwrap(), ": waiting for an endpoint\n\n");
    pools_file(&folder, &addresses[0]);
    let rest = text(answer).await.unwrap();
    assert!(rest.contains("data: {") && rest.ends_with("data: [DONE]\n\n") && !rest.contains("\"error\""), "{rest}");
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_when_the_picker_ends_is_told_so() {
    let folder = Folder::new("epp-http-end");
    folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: []\n");
    let (picker, url) = start(&folder, "--hold-empty always").await;
    let body = json!({ "model": MODEL, "prompt": "how are you?" });
    let request = client().post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body.to_string());
    let waiting = tokio::spawn(request.send());
    picker.page_until("one held", |page| rig::value(page, "inference_pool_held_requests{") == Some(1.0)).await;
    picker.ends_well().await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let told: Value = serde_json::from_str(&text(answer).await.unwrap()).unwrap();
    assert_eq!(told["error"]["message"], "inference error: ServiceUnavailable - the picker is shutting down");
}
