//! How many reads of the metrics API one core answers, beside a bare TLS server of the same libraries.
//!
//! ```sh
//! cargo build --release -p weir -p weir-tests && target/release/api-load
//! ```
//!
//! Each server runs pinned to core 0, this program to core 1, one after the other in the same run. The servers that the pools name are
//! simulated, also on core 1. Two loads: as fast as 16 callers get answers (closed), and 1,000 requests a second (open). A request is
//! what an HPA asks: one metric of one pool, chosen by name, over HTTP/2 and TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;
use weir_serving::CertificateAuthority;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Callers of the closed load.
const CALLERS: usize = 16;

/// Requests a second of the open load.
const OPEN_RATE: u32 = 1000;

/// How long each load is measured, after as long again as warm-up for the first second of it.
const WINDOW: Duration = Duration::from_secs(5);

const TOKEN: &str = "a-token-of-the-load-run-0123456789";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    weir_serving::install_crypto_provider();
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, folder] = arguments.as_slice()
        && mode == "bare"
    {
        return bare(Path::new(folder)).await;
    }
    let folder = std::env::temp_dir().join(format!("weir-api-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    pin_self(1)?;
    println!("| server | pools | load | requests/s | p50 ms | p99 ms | requests per CPU second | of bare | RSS MiB |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let outcome = measure_all(&folder).await;
    std::fs::remove_dir_all(&folder)?;
    outcome
}

async fn measure_all(folder: &Path) -> Result<(), Failure> {
    let binary = std::env::current_exe()?;
    let weir = binary.with_file_name("weir");
    std::fs::write(folder.join("tokens"), format!("{TOKEN}\n"))?;
    // Of the bare server under each load.
    let mut bare_rates = std::collections::HashMap::new();
    for pools in [0, 10, 100, 1000] {
        let bare = pools == 0;
        let mut simulators = None;
        let mut server = if bare {
            Server::start(pinned(0, &binary).arg("bare").arg(folder), folder)?
        } else {
            let (process, addresses) = simulate(&weir)?;
            simulators = Some(process);
            write_pools(folder, pools, &addresses)?;
            let mut command = pinned(0, &weir);
            command.arg("adapter").arg("--pools").arg(folder.join("pools.yaml")).args(["--adapter-listen", "127.0.0.1:0"]);
            command.arg("--token-file").arg(folder.join("tokens")).arg("--tls-ca-out").arg(folder.join("ca.crt"));
            Server::start(&mut command, folder)?
        };
        let client = client(folder)?;
        let url = |number: usize| {
            let pool = if bare { 0 } else { number % pools };
            format!(
                "https://{}/apis/external.metrics.k8s.io/v1beta1/namespaces/default/inference_pool_total_inflight_requests?labelSelector=name%3Dpool-{pool}",
                server.address
            )
        };
        ready(&client, &url).await?;
        for (load, answers) in
            [("closed", closed(&client, &url, server.child.id()).await?), ("open", open(&client, &url, server.child.id()).await?)]
        {
            let name = if bare { "bare axum, TLS" } else { "weir adapter" };
            let per_cpu = answers.latencies.len() as f64 / answers.cpu.as_secs_f64();
            if bare {
                bare_rates.insert(load, per_cpu);
            }
            println!(
                "| {name} | {} | {load} | {:.0} | {:.2} | {:.2} | {per_cpu:.0} | {:.0} % | {:.0} |",
                if bare { "-".to_owned() } else { pools.to_string() },
                answers.latencies.len() as f64 / WINDOW.as_secs_f64(),
                answers.percentile(50.0),
                answers.percentile(99.0),
                100.0 * per_cpu / bare_rates.get(load).unwrap_or(&per_cpu),
                resident_mib(server.child.id())?,
            );
        }
        server.stop()?;
        drop(simulators);
    }
    Ok(())
}

/// A server process and where it listens.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts `command` and reads from its log where it listens.
    fn start(command: &mut Command, folder: &Path) -> Result<Self, Failure> {
        let log = folder.join("server.log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log)?).spawn()?;
        let mut server = Self { child, address: String::new() };
        for _ in 0..200 {
            let text = std::fs::read_to_string(&log)?;
            if let Some(after) = text.split("address=").nth(1) {
                server.address = after.split_whitespace().next().unwrap_or_default().to_owned();
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("the server did not start: {}", std::fs::read_to_string(&log)?).into())
    }

    fn stop(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ten simulated servers; their process ends with the value.
fn simulate(weir: &Path) -> Result<(Server, Vec<String>), Failure> {
    use std::io::BufRead;
    let mut command = pinned(1, weir);
    command.args(["simulate-server", "--listen", "127.0.0.1:0", "--replicas", "10"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let lines = std::io::BufReader::new(child.stdout.take().ok_or("piped")?).lines();
    let addresses: Result<Vec<_>, _> =
        lines.take(10).map(|line| line.map(|line| line.rsplit("//").next().unwrap_or_default().to_owned())).collect();
    Ok((Server { child, address: String::new() }, addresses?))
}

fn write_pools(folder: &Path, pools: usize, addresses: &[String]) -> Result<(), Failure> {
    let mut file = "apiVersion: weir/v1\npools:\n".to_owned();
    for pool in 0..pools {
        file += &format!("- name: pool-{pool}\n  endpoints: [\"{}\"]\n", addresses[pool % addresses.len()]);
    }
    Ok(std::fs::write(folder.join("pools.yaml"), file)?)
}

fn client(folder: &Path) -> Result<reqwest::Client, Failure> {
    let authority = reqwest::Certificate::from_pem(&std::fs::read(folder.join("ca.crt"))?)?;
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([authority]).timeout(Duration::from_secs(5)).build()?)
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<(), Failure> {
    let mut response = client.get(url).bearer_auth(TOKEN).send().await?.error_for_status()?;
    while response.chunk().await?.is_some() {}
    Ok(())
}

/// Waits until every pool has a value.
async fn ready(client: &reqwest::Client, url: &impl Fn(usize) -> String) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut pool = 0;
    while pool < 1000 {
        match ask(client, &url(pool)).await {
            Ok(()) => pool += 1,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    Ok(())
}

/// What one load saw.
struct Answers {
    latencies: Vec<Duration>,
    cpu: Duration,
}

impl Answers {
    fn new(mut latencies: Vec<Duration>, cpu: Duration) -> Self {
        latencies.sort();
        Self { latencies, cpu }
    }

    fn percentile(&self, percent: f64) -> f64 {
        let position = (self.latencies.len() as f64 * percent / 100.0) as usize;
        self.latencies.get(position.min(self.latencies.len().saturating_sub(1))).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// As fast as the callers get answers.
async fn closed(client: &reqwest::Client, url: &impl Fn(usize) -> String, server: u32) -> Result<Answers, Failure> {
    let before = cpu_time(server)?;
    let end = Instant::now() + WINDOW;
    let callers = (0..CALLERS).map(|caller| async move {
        let mut latencies = Vec::new();
        let mut number = caller;
        while Instant::now() < end {
            let asked = Instant::now();
            ask(client, &url(number)).await?;
            latencies.push(asked.elapsed());
            number += CALLERS;
        }
        Ok::<_, Failure>(latencies)
    });
    let mut latencies = Vec::new();
    for answers in futures_util::future::join_all(callers).await {
        latencies.extend(answers?);
    }
    Ok(Answers::new(latencies, cpu_time(server)? - before))
}

/// At a fixed rate, whatever the answers take: a latency counts from when the request was due.
async fn open(client: &reqwest::Client, url: &impl Fn(usize) -> String, server: u32) -> Result<Answers, Failure> {
    let before = cpu_time(server)?;
    let start = Instant::now();
    let count = OPEN_RATE * u32::try_from(WINDOW.as_secs())?;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..count {
        let due = start + number * Duration::from_secs(1) / OPEN_RATE;
        tokio::time::sleep_until(due).await;
        let (client, url) = (client.clone(), url(number as usize));
        requests.spawn(async move { ask(&client, &url).await.map(|()| due.elapsed()) });
    }
    let mut latencies = Vec::new();
    while let Some(answer) = requests.join_next().await {
        latencies.push(answer??);
    }
    Ok(Answers::new(latencies, cpu_time(server)? - before))
}

/// The least that answers the same question: accept, TLS, HTTP, a body of the same size.
async fn bare(folder: &Path) -> Result<(), Failure> {
    let authority = CertificateAuthority::new(std::time::SystemTime::now())?;
    std::fs::write(folder.join("ca.crt"), authority.ca_pem())?;
    let issued = authority.issue_server(&["127.0.0.1".into()], std::time::SystemTime::now())?;
    let config = tls_config(&issued.certificate_pem, &issued.key_pem)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    eprintln!("serving address={}", listener.local_addr()?);
    const BODY: &str = "{\"kind\":\"ExternalMetricValueList\",\"apiVersion\":\"external.metrics.k8s.io/v1beta1\",\"metadata\":{},\"items\":[{\"metricName\":\"inference_pool_total_inflight_requests\",\"metricLabels\":{\"name\":\"pool-0\",\"namespace\":\"default\"},\"timestamp\":\"2026-01-01T00:00:00Z\",\"value\":\"0\"}]}\n";
    let router = Router::new().fallback(get(|| async { ([("content-type", "application/json")], BODY) }));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                // A client that goes away is how each measurement ends.
                drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
            }
        });
    }
}

fn tls_config(certificate: &str, key: &str) -> Result<rustls::ServerConfig, Failure> {
    use rustls_pki_types::pem::PemObject;
    let certificates = rustls_pki_types::CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Starts `program` on `core`: one that is moved there later has made threads for all cores, which then get in each other's way.
fn pinned(core: u32, program: &Path) -> Command {
    // taskset becomes the program: its process is the one to look at.
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Moves this process, which has one thread.
fn pin_self(core: u32) -> Result<(), Failure> {
    let (core, own) = (core.to_string(), std::process::id().to_string());
    let moved = Command::new("taskset").args(["-a", "-p", "-c", &core, &own]).stdout(Stdio::null()).status()?;
    if moved.success() { Ok(()) } else { Err("taskset (util-linux) could not pin this process".into()) }
}

/// CPU time that the process has used.
fn cpu_time(process: u32) -> Result<Duration, Failure> {
    /// The kernel's unit here, as on every Linux of the last decades.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{process}/stat")))?;
    let after_name = stat.rsplit(") ").next().ok_or("no process name")?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

fn resident_mib(process: u32) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<f64>()? / 1024.0)
}
