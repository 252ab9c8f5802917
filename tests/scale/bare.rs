//! The bare scraper: a loop per endpoint, a client that asks as weir does, and every page thrown away.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// As weir's default.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the page of each address every `interval`, with `query` if it is not empty, until the process is ended.
pub(crate) fn scrape(addresses: Vec<String>, query: &str, interval: Duration) -> Result<(), Box<dyn Error>> {
    weir_serving::install_crypto_provider();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let client = reqwest::Client::builder().default_headers(headers).http1_only().no_proxy().tls_certs_only([]);
    let client = client.pool_idle_timeout(Duration::from_secs(4)).pool_max_idle_per_host(1).build()?;
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let origin = Instant::now();
        let mut loops = JoinSet::new();
        for (position, address) in addresses.iter().enumerate() {
            let url = reqwest::Url::parse(&format!("http://{address}/metrics{query}"))?;
            let first = origin + interval.mul_f64(position as f64 / addresses.len() as f64);
            loops.spawn(one(client.clone(), url, first, interval));
        }
        while loops.join_next().await.is_some() {}
        Ok(())
    })
}

async fn one(client: reqwest::Client, url: reqwest::Url, mut due: Instant, interval: Duration) {
    loop {
        sleep_until(due).await;
        // A page that fails is one that the page server does not see.
        drop(timeout(TIMEOUT, read(&client, &url)).await);
        // Due times that passed meanwhile are left out.
        let passed = (Instant::now() - due).as_nanos() / interval.as_nanos();
        due += interval * u32::try_from(passed + 1).unwrap_or(u32::MAX);
    }
}

async fn read(client: &reqwest::Client, url: &reqwest::Url) -> Result<(), reqwest::Error> {
    let mut response = client.get(url.clone()).send().await?;
    while response.chunk().await?.is_some() {}
    Ok(())
}
