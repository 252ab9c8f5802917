//! `weir epp --http` beside Envoy that asks the same picker process, and beside the server alone: the same small requests of `hey`,
//! in turns, answered at once by a server of this process. What each adds to a request, and the processor time that it takes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;
use weir_tests::Folder;
use weir_tests::envoy::Envoy;

use super::process::cpu_time;
use super::{Failure, MODEL, STATUS, TIME, picker};

const PAGE: &str = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n";
/// Requests of one turn, and how many are under way at once.
const TURNS: [(usize, usize); 2] = [(4_000, 1), (20_000, 16)];

/// What one turn showed.
struct Turn {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// Processor seconds of what is between, for 1,000 requests.
    cpu: f64,
}

/// Measures `rounds` times, and prints a table of the medians.
pub(super) fn run(hey: &Path, rounds: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = runtime.block_on(serve())?;
    let folder = Folder::new("hey-frontend");
    let access_log = folder.file("access.log");
    let log = access_log.display().to_string();
    let picker = picker(&folder, &[server.to_string()], &["--http", "127.0.0.1:0"])?;
    let logging = {
        let folder = Folder::new("hey-frontend-logging");
        super::picker(&folder, &[server.to_string()], &["--http", "127.0.0.1:0", "--access-log", &log])?
    };
    let envoy = Envoy::start("hey-frontend", &[picker.ext_proc], &[server]);
    let at = |address: Option<SocketAddr>| address.map(|address| address.to_string()).ok_or("no --http");
    let ways: [(&str, String, Vec<u32>); 4] = [
        ("the server alone", server.to_string(), vec![]),
        ("weir epp --http", at(picker.http)?, vec![picker.process.id()]),
        ("the same with --access-log", at(logging.http)?, vec![logging.process.id()]),
        ("Envoy and weir epp", envoy.address("known").to_owned(), vec![envoy.id(), picker.process.id()]),
    ];
    println!(
        "| way | at once | requests/s | p50 ms | p99 ms | added p50 ms | added p99 ms | CPU s per 1,000 | requests/s per core |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (requests, workers) in TURNS {
        // Connections, caches, trials of pages.
        for (_, address, _) in &ways {
            turn(hey, &folder, address, &[], requests / 4, workers)?;
        }
        let mut turns: Vec<Vec<Turn>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for ((_, address, processes), turns) in ways.iter().zip(&mut turns) {
                turns.push(turn(hey, &folder, address, processes, requests, workers)?);
            }
        }
        let medians: Vec<Turn> = turns.iter().map(|turns| median(turns)).collect();
        for ((name, ..), Turn { per_second, p50, p99, cpu }) in ways.iter().zip(&medians) {
            let (alone, rate) = (&medians[0], 1_000.0 / cpu);
            let (added50, added99) = (p50 - alone.p50, p99 - alone.p99);
            if *cpu > 0.0 {
                println!(
                    "| {name} | {workers} | {per_second:.0} | {p50:.2} | {p99:.2} | {added50:.2} | {added99:.2} | {cpu:.3} | {rate:.0} |"
                );
            } else {
                println!("| {name} | {workers} | {per_second:.0} | {p50:.2} | {p99:.2} | | | | |");
            }
        }
    }
    Ok(())
}

fn median(turns: &[Turn]) -> Turn {
    let of = |value: fn(&Turn) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Turn { per_second: of(|turn| turn.per_second), p50: of(|turn| turn.p50), p99: of(|turn| turn.p99), cpu: of(|turn| turn.cpu) }
}

/// A server that answers at once.
async fn serve() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = format!("{{\"model\":\"{MODEL}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":1}}}}");
    let page = || async { ([(header::CONTENT_TYPE, "text/plain")], PAGE) };
    let answer = move |_asked: axum::body::Bytes| async move { ([(header::CONTENT_TYPE, "application/json")], answer) };
    let router = Router::new().route("/metrics", get(page)).fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn turn(hey: &Path, folder: &Folder, address: &str, processes: &[u32], requests: usize, workers: usize) -> Result<Turn, Failure> {
    let prompt = "word ".repeat(400);
    let body = format!("{{\"model\":\"{MODEL}\",\"max_tokens\":1,\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}");
    let answers = folder.file("answers.csv");
    let used = || processes.iter().map(|process| cpu_time(*process).unwrap_or_default()).sum::<Duration>();
    let before = used();
    let mut command = Command::new(hey);
    command.args(["-n", &requests.to_string(), "-c", &workers.to_string(), "-t", "60", "-o", "csv", "-m", "POST"]);
    command.args(["-T", "application/json", "-d", &body]).arg(format!("http://{address}/v1/chat/completions"));
    let began = tokio::time::Instant::now();
    let status = command.stdout(std::fs::File::create(&answers)?).status()?;
    let took = began.elapsed();
    let cpu = used().saturating_sub(before);
    let csv = std::fs::read_to_string(&answers)?;
    let fields = |line: &str, column: usize| line.split(',').nth(column).map(str::to_owned).unwrap_or_default();
    let served: Vec<&str> = csv.lines().skip(1).filter(|line| fields(line, STATUS) == "200").collect();
    if !status.success() || served.len() < requests / workers * workers {
        return Err(format!("{address}: {} of {requests} requests were served", served.len()).into());
    }
    let mut times = served.iter().map(|line| fields(line, TIME).parse::<f64>()).collect::<Result<Vec<_>, _>>()?;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN) * 1000.0;
    let count = served.len() as f64;
    Ok(Turn { per_second: count / took.as_secs_f64(), p50: at(0.5), p99: at(0.99), cpu: cpu.as_secs_f64() / count * 1000.0 })
}
