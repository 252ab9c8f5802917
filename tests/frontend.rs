//! `weir epp --http` from outside, and what a picker tells of each request: spans to a collector, lines of the access log.

#![allow(clippy::unwrap_used)]

#[path = "frontend/broken.rs"]
mod broken;
#[path = "frontend/collector.rs"]
mod collector;
#[path = "frontend/lines.rs"]
mod lines;
#[path = "frontend/otel.rs"]
mod otel;
#[path = "frontend/refused.rs"]
mod refused;
#[path = "epp/rig.rs"]
mod rig;
#[path = "frontend/server.rs"]
mod server;
#[path = "frontend/servers.rs"]
mod servers;
#[path = "frontend/traces.rs"]
mod traces;

use std::time::Duration;

use rig::{Picker, blocking, pools_file};
use serde_json::json;
use weir_tests::Folder;

const MODEL: &str = "llama";

fn client() -> reqwest::Client {
    weir_serving::install_crypto_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
}

/// A picker of one model server that serves clients, and where.
async fn start(folder: &Folder, endpoint: &str, line: &str, variables: &[(&str, String)]) -> (Picker, String) {
    let pools = pools_file(folder, endpoint);
    let line = format!("--pool-name r --pool-namespace n --http 127.0.0.1:0 {line}");
    let picker = Picker::start_with(folder, &line, &pools, variables).await;
    picker.is_ready().await;
    let url = format!("http://{}", picker.http.unwrap());
    (picker, url)
}

/// Asks for a completion.
fn ask(client: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
    let body = json!({ "model": MODEL, "prompt": "a prompt that nobody else may read", "max_tokens": 3 });
    client.post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body.to_string())
}
