//! How long after a change on a server's page the new value can be read: weir through the API server, and Prometheus.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::time::Instant;
use weir_tests::cluster::Cluster;
use weir_tests::workload::MODEL_PORT;
use weir_tests::{Folder, eventually, get, repository};

use crate::api::{Api, Connections};
use crate::servers::{self, Servers};
use crate::{Failure, TOTAL, line};

/// Between two reads of a value that is to change.
const PAUSE: Duration = Duration::from_millis(5);

/// Reads with the new value in a row, after which no replica counts as behind: reads go to either.
const SETTLED: u32 = 20;

/// Servers whose changes are looked for in Prometheus, at the same time.
const SLOW: usize = 8;

/// Between scrapes of Prometheus, as most installations have it.
const SCRAPE_SECONDS: u64 = 15;

/// A change may not take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// `changes` changes of one server, read through the API server over one connection; meanwhile changes of others, read from a
/// Prometheus that scrapes them.
pub(crate) async fn measure(cluster: &Cluster, servers: &Servers, changes: usize) -> Result<(), Failure> {
    let namespace = cluster.namespace("freshness");
    cluster.apply(&namespace, &servers::pools("server", SLOW + 1));
    let pods = cluster.wait_for_pods(&namespace, "part=server", SLOW + 1);
    let mut addresses = Vec::new();
    for (name, address) in pods {
        addresses.push((name, address.parse::<IpAddr>()?));
    }
    addresses.sort();
    let api = Api::new(cluster, Connections::Kept)?;
    let (pool, fast) = addresses.remove(0);
    until("a value", async || api.external(&namespace, TOTAL, &pool).await.is_ok().then_some(())).await?;
    let prometheus = Prometheus::start(cluster, &addresses)?;
    let watched = addresses.iter().zip(1..).map(|((_, address), seed)| {
        let (api, address, servers) = (prometheus.api.clone(), *address, servers.clone());
        tokio::spawn(async move { in_prometheus(&api, address, &servers, StdRng::seed_from_u64(seed)).await })
    });
    let watched: Vec<_> = watched.collect();

    let mut random = StdRng::seed_from_u64(0);
    let (mut first, mut settled) = (Vec::new(), Vec::new());
    for change in 0..changes {
        // At any moment between two reads of the page.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1000))).await;
        // Never the one before, never one that is written with a suffix.
        let wanted = 100 + i64::try_from(change % 800)?;
        servers.set(fast, u64::try_from(wanted)?);
        let changed = Instant::now();
        let (mut seen, mut since, mut in_a_row) = (None, changed, 0);
        while in_a_row < SETTLED {
            let value = api.external(&namespace, TOTAL, &pool).await?;
            let now = Instant::now();
            if value == wanted {
                seen.get_or_insert(now);
                since = if in_a_row == 0 { now } else { since };
                in_a_row += 1;
            } else {
                in_a_row = 0;
            }
            if changed.elapsed() > PATIENCE {
                return Err(format!("{wanted} was not read for {PATIENCE:?}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        first.push(seen.map_or(PATIENCE, |seen| seen - changed));
        settled.push(since - changed);
    }
    let mut prometheus_delays = Vec::new();
    for task in watched {
        prometheus_delays.extend(task.await??);
    }
    println!("\n| from a change on the page until | changes | p50 | p99 | longest |\n|---|---:|---:|---:|---:|");
    line("a read through the API server has it", first);
    line("every read through the API server has it (two replicas)", settled);
    line(&format!("a query of Prometheus has it, scraping every {SCRAPE_SECONDS} s"), prometheus_delays);
    println!();
    Ok(())
}

/// The same for one server in Prometheus, a dozen times.
async fn in_prometheus(api: &str, address: IpAddr, servers: &Servers, mut random: StdRng) -> Result<Vec<Duration>, String> {
    const CHANGES: u64 = 12;
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let query = format!("sum(vllm:num_requests_running{{instance=\"{address}:{MODEL_PORT}\"}})");
    let url = reqwest::Url::parse_with_params(&format!("{api}/query"), [("query", query)]).map_err(|error| error.to_string())?;
    let mut delays = Vec::new();
    for change in 0..=CHANGES {
        let pause = random.random_range(0..1000 * SCRAPE_SECONDS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let wanted = 100 + change;
        servers.set(address, wanted);
        let changed = Instant::now();
        while queried(&client, &url).await != Some(wanted as f64) {
            if changed.elapsed() > PATIENCE {
                return Err(format!("Prometheus has no {wanted} of {address} after {PATIENCE:?}"));
            }
            tokio::time::sleep(4 * PAUSE).await;
        }
        // The first scrape of all is no change.
        if change > 0 {
            delays.push(changed.elapsed());
        }
    }
    Ok(delays)
}

/// The one value of a query.
async fn queried(client: &reqwest::Client, url: &reqwest::Url) -> Option<f64> {
    let mut response = client.get(url.clone()).send().await.ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
    }
    let answer: Value = serde_json::from_slice(&body).ok()?;
    answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
}

async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not in {PATIENCE:?}").into());
        }
        tokio::time::sleep(4 * PAUSE).await;
    }
}

/// The real one, in the cluster's network; ends with this.
struct Prometheus {
    process: Child,
    api: String,
    _folder: Folder,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Prometheus {
    fn start(cluster: &Cluster, servers: &[(String, IpAddr)]) -> Result<Self, Failure> {
        let install = Command::new(repository().join("tests/debian-tool")).args(["prometheus", "prometheus"]).output()?;
        if !install.status.success() {
            return Err(format!("tests/debian-tool: {}", String::from_utf8_lossy(&install.stdout)).into());
        }
        let unpacked = repository().join("target/tools/prometheus");
        let folder = Folder::new("cluster-bench-prometheus");
        let targets: Vec<String> = servers.iter().map(|(_, address)| format!("{address}:{MODEL_PORT}")).collect();
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": format!("{SCRAPE_SECONDS}s")},
            "scrape_configs": [{"job_name": "servers", "static_configs": [{"targets": targets}]}],
        });
        let config = folder.write("prometheus.yml", &config.to_string());
        // The network is the cluster's own: nobody else listens there.
        let address = "127.0.0.1:9091";
        let mut command = Command::new(if unpacked.is_file() { unpacked } else { "prometheus".into() });
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.file("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.file("log"))?);
        let process = cluster.network().within(|| command.spawn())?;
        let started = Self { process, api: format!("http://{address}/api/v1"), _folder: folder };
        cluster.network().within(|| {
            eventually("Prometheus is ready", || {
                let said = get(&format!("http://{address}/-/ready"))?;
                if said.contains("Ready") { Ok(()) } else { Err(said) }
            });
        });
        Ok(started)
    }
}
