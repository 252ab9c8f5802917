//! What users see: `hey` through a real Envoy to simulated servers that can be filled, once with weir's picker, once round robin.
//!
//! ```sh
//! make hey
//! ```
//!
//! 250 workers send 45,000 streamed chat requests: most are short, some long, some are of an objective that may be shed. The same
//! load goes to both gateways, one after the other, in the order picker, round robin, picker, round robin; `--once` has one turn
//! each, `--short` sends a tenth. `--frontend` measures something else: `weir epp --http` beside Envoy with the same picker, and the
//! server alone, in turns ([`frontend`]).

#[path = "frontend.rs"]
mod frontend;
#[path = "../scale/process.rs"]
#[allow(dead_code)]
mod process;

use std::error::Error;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use weir_tests::envoy::Envoy;
use weir_tests::{Folder, Process, eventually, get, repository, weir};

type Failure = Box<dyn Error>;

/// Simulated servers, each with 8 sequences at once.
const SERVERS: usize = 16;
const MODEL: &str = "meta-llama/Llama-3.1-8B-Instruct";

/// An objective whose requests may be shed.
const RULES: &str = "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceObjective\nmetadata: { name: batch, namespace: n }\n\
                     spec: { priority: -1, poolRef: { name: r } }\n";

/// A part of the load.
struct Part {
    name: &'static str,
    workers: usize,
    requests: usize,
    /// Tokens of each answer.
    tokens: usize,
    sheddable: bool,
}

const LOAD: [Part; 3] = [
    Part { name: "short", workers: 150, requests: 33_000, tokens: 2, sheddable: false },
    Part { name: "long", workers: 50, requests: 3_000, tokens: 24, sheddable: false },
    Part { name: "sheddable", workers: 50, requests: 9_000, tokens: 2, sheddable: true },
];

fn main() -> Result<(), Failure> {
    let given = |flag: &str| std::env::args().any(|argument| argument == flag);
    let scale = if given("--short") { 10 } else { 1 };
    let turns = if given("--once") { 1 } else { 2 };
    let install = Command::new(repository().join("tests/hey/install")).stderr(Stdio::inherit()).output()?;
    if !install.status.success() {
        return Err("tests/hey/install failed".into());
    }
    let hey = PathBuf::from(String::from_utf8(install.stdout)?.trim());
    if given("--frontend") {
        return frontend::run(&hey, if given("--short") { 1 } else { 3 });
    }
    let folder = Folder::new("hey");
    let (_simulators, servers) = weir_tests::simulators(SERVERS);
    let picker = picker(&folder, &servers, &[])?;
    let servers: Vec<SocketAddr> = servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
    let envoy = Envoy::start("hey", &[picker.ext_proc], &servers);
    println!("| gateway | part | 200 | 429 | others | p50 ms | p99 ms | max ms | requests/s |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, listener) in [("weir", "known"), ("round robin", "round-robin")].repeat(turns) {
        for part in run(&hey, &folder, envoy.address(listener), scale)? {
            println!("| {name} | {part}");
        }
    }
    println!("\nTime to the first token as the picker measured it, over all of its turns:");
    let page = get(&format!("http://{}/metrics", picker.metrics))?;
    let of = |family: &str| page.lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect::<Vec<_>>();
    let value = |line: &String| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let all = of("inference_objective_request_ttft_seconds_count").first().map_or(f64::NAN, value);
    for line in of("inference_objective_request_ttft_seconds_bucket") {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        println!("- within {bound} s: {:.1} % of {all}", 100.0 * value(&line) / all);
        if value(&line) >= all {
            break;
        }
    }
    Ok(())
}

struct Picker {
    process: Process,
    ext_proc: SocketAddr,
    metrics: SocketAddr,
    http: Option<SocketAddr>,
}

fn picker(folder: &Folder, servers: &[String], more: &[&str]) -> Result<Picker, Failure> {
    let list: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let pools = format!("apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: [{}]\n", list.join(", "));
    let (pools, rules) = (folder.write("pools.yaml", &pools), folder.write("rules.yaml", RULES));
    let binary = folder.file("epp");
    symlink(weir(), &binary)?;
    let mut command = Command::new(&binary);
    command.arg("--pools").arg(&pools).arg("--rules").arg(&rules);
    command.args(["--bind-address", "127.0.0.1", "--grpc-port", "0", "--grpc-health-port", "0", "--metrics-port", "0"]);
    command.args(more);
    let process = Process::start(command);
    let line = process.line("where it listens", |line| line.contains("picking endpoints"));
    let at = |name: &str| -> Result<SocketAddr, Failure> {
        let after = line.split(&format!(" {name}=")).nth(1).ok_or_else(|| format!("no {name} in {line}"))?;
        Ok(after.split(' ').next().unwrap_or_default().parse()?)
    };
    let (ext_proc, metrics) = (at("ext_proc")?, at("metrics")?);
    eventually("all servers are read", || {
        let page = get(&format!("http://{metrics}/metrics"))?;
        let fresh = format!("state=\"fresh\"}} {}", servers.len());
        if page.contains(&fresh) { Ok(()) } else { Err(page) }
    });
    Ok(Picker { process, ext_proc, metrics, http: at("http").ok() })
}

/// All parts at once; a line for each.
fn run(hey: &Path, folder: &Folder, gateway: &str, scale: usize) -> Result<Vec<String>, Failure> {
    let start = |part: &'static Part| -> Result<(&'static Part, PathBuf, Child), Failure> {
        let body = format!(
            "{{\"model\":\"{MODEL}\",\"stream\":true,\"max_tokens\":{},\"messages\":[{{\"role\":\"user\",\"content\":\"how are you?\"}}]}}",
            part.tokens
        );
        let answers = folder.file(&format!("{}.csv", part.name));
        let mut command = Command::new(hey);
        command.args(["-n", &(part.requests / scale).to_string(), "-c", &part.workers.to_string(), "-t", "120", "-o", "csv"]);
        command.args(["-m", "POST", "-T", "application/json", "-d", &body]);
        if part.sheddable {
            command.args(["-H", "x-gateway-inference-objective: batch"]);
        }
        command.arg(format!("http://{gateway}/v1/chat/completions"));
        command.stdout(std::fs::File::create(&answers)?);
        Ok((part, answers, command.spawn()?))
    };
    let running: Vec<_> = LOAD.iter().map(start).collect::<Result<_, _>>()?;
    let mut lines = Vec::new();
    for (part, answers, mut child) in running {
        if !child.wait()?.success() {
            return Err(format!("hey failed: {}", part.name).into());
        }
        lines.push(summary(part, &std::fs::read_to_string(answers)?, part.requests / scale)?);
    }
    Ok(lines)
}

/// Columns of hey's page: the answer's whole time, its status, when it was sent.
const TIME: usize = 0;
const STATUS: usize = 6;
const SENT: usize = 7;

fn summary(part: &Part, csv: &str, sent: usize) -> Result<String, Failure> {
    let mut served = Vec::new();
    let (mut shed, mut others, mut until) = (0, 0, 0.0_f64);
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |column: usize| fields.get(column).copied().ok_or_else(|| format!("hey wrote {line}"));
        let (took, at): (f64, f64) = (field(TIME)?.parse()?, field(SENT)?.parse()?);
        until = until.max(at + took);
        match field(STATUS)? {
            "200" => served.push(took * 1000.0),
            "429" => shed += 1,
            _ => others += 1,
        }
    }
    // What had no answer at all is on no line.
    others += sent.saturating_sub(served.len() + shed + others);
    served.sort_by(f64::total_cmp);
    let at = |share: f64| {
        served.get(((served.len() as f64 * share) as usize).min(served.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    let rate = (served.len() + shed) as f64 / until;
    Ok(format!(
        "{} | {} | {shed} | {others} | {:.0} | {:.0} | {:.0} | {rate:.0} |",
        part.name,
        served.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    ))
}
