//! `--record`: what arrives, on its way from the servers' pages to a trace that `weir simulate` replays.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_tests::arrivals::{Arrivals, Phase};
use weir_tests::{Folder, Process, address, eventually, get, run, simulators, weir};

/// Servers, and an exporter that records what they get.
struct Setup {
    folder: Folder,
    _simulator: Process,
    servers: Vec<String>,
    exporter: Process,
    page: String,
    trace: PathBuf,
}

impl Setup {
    /// `wrapped`: what the exporter is started by.
    fn new(name: &str, wrapped: Option<&str>) -> Self {
        let folder = Folder::new(name);
        let (simulator, servers) = simulators(2);
        let endpoints: Vec<_> = servers.iter().map(|address| format!("\"{address}\"")).collect();
        let pool = |name: &str, endpoints: &str| format!("- name: {name}\n  endpoints: [{endpoints}]\n");
        let pools = format!("apiVersion: weir/v1\npools:\n{}{}", pool("llama", &endpoints.join(", ")), pool("other", ""));
        let pools = folder.write("pools.yaml", &pools);
        let trace = folder.file("trace.csv");
        let (exporter, page) = exporter(&pools, &trace, wrapped);
        let setup = Self { folder, _simulator: simulator, servers, exporter, page, trace };
        setup.page_until("the recording", "weir_record_active{", |value| value == 1.0);
        setup
    }

    fn load(&self, phases: &[Phase]) -> Arrivals {
        let servers: Vec<SocketAddr> = self.servers.iter().map(|address| address.parse().unwrap()).collect();
        Arrivals::start(servers, phases, 50, 20)
    }

    /// Waits until the series that begins so has a value as wanted.
    fn page_until(&self, what: &str, series: &str, wanted: impl Fn(f64) -> bool) {
        eventually(what, || {
            let page = get(&self.page)?;
            let value = value(&page, series);
            if value.is_some_and(&wanted) { Ok(()) } else { Err(format!("{value:?} {page}")) }
        });
    }

    /// The sum of a counter over the servers' pages.
    fn counted(&self, counter: &str) -> f64 {
        self.servers.iter().map(|server| value(&get(&format!("http://{server}/metrics")).unwrap(), counter).unwrap()).sum()
    }
}

fn exporter(pools: &Path, trace: &Path, wrapped: Option<&str>) -> (Process, String) {
    let mut command = match wrapped {
        Some(script) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]).arg(weir());
            command
        }
        None => Command::new(weir()),
    };
    command.arg("exporter").arg("--pools").arg(pools);
    command.args(["--exporter-listen", "127.0.0.1:0", "--record", &format!("llama={}", trace.display())]);
    let exporter = Process::start(command);
    let line = exporter.line("where it serves", |line| line.contains(" serving "));
    let page = format!("http://{}/metrics", address(&line));
    (exporter, page)
}

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find(|line| line.starts_with(series))?.rsplit(' ').next()?.parse().ok()
}

/// Seconds, prompt and answer of every request of a trace.
fn requests(trace: &str) -> Vec<(f64, f64, f64)> {
    let lines = trace.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let fields = lines.map(|line| line.split(',').map(|field| field.parse().unwrap()).collect::<Vec<f64>>());
    fields.map(|fields| (fields[0], fields[1], fields[2])).collect()
}

/// When it began, since the Unix epoch.
fn began(trace: &str) -> f64 {
    let since = trace.split("seconds since ").nth(1).unwrap_or_else(|| panic!("{trace}"));
    since.split(' ').next().unwrap().parse().unwrap()
}

/// Replays it, and says of how many requests.
fn replayed(trace: &Path) -> String {
    let output =
        run(&["simulate", "--servers", "played-small", "--start", "10s", "--cold", "--trace", &trace.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn near(what: &str, found: f64, expected: f64, share: f64) {
    eprintln!("{what}: {found} recorded, {expected} in truth");
    assert!((found - expected).abs() <= share * expected, "{what}: {found}, expected {expected} within {share}");
}

#[test]
fn a_load_comes_back_as_it_was() {
    let setup = Setup::new("record", None);
    // What is served before the first turn with all servers is before its beginning.
    eventually("some turns", || {
        let page = get(&setup.page)?;
        let known = |line: &&str| line.starts_with("weir_record_seconds_total{") && line.contains("state=\"known\"");
        let turns = page.lines().find(known).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        if turns.is_some_and(|turns| turns >= 2.0) { Ok(()) } else { Err(page) }
    });
    let load = setup.load(&[Phase { seconds: 6.0, rate: 3.0 }, Phase { seconds: 6.0, rate: 12.0 }]);
    let (served, failed) = eventually("all answers", || load.all_ended());
    assert_eq!(failed, 0);
    // What was served before the pages were read once more is on none of them.
    setup.page_until("all of it", "weir_record_requests_total{", |requests| requests >= served as f64 * 0.95);
    let (prompts, answers) = (setup.counted("vllm:prompt_tokens_total{"), setup.counted("vllm:generation_tokens_total{"));
    let (ended_well, output) = setup.exporter.terminate();
    assert!(ended_well, "{output}");

    let text = std::fs::read_to_string(&setup.trace).unwrap();
    assert!(text.contains("requests as the servers' counters and queues show them"), "{text}");
    let recorded = requests(&text);
    near("requests", recorded.len() as f64, served as f64, 0.05);
    near("prompt tokens", recorded.iter().map(|request| request.1).sum(), prompts, 0.1);
    near("answer tokens", recorded.iter().map(|request| request.2).sum(), answers, 0.1);
    // The curve of arrivals is that of those that were sent, within two readings and what a request waits.
    let began = UNIX_EPOCH + Duration::from_secs_f64(began(&text));
    let mut sent: Vec<f64> =
        load.sent().iter().map(|at| at.duration_since(began).map_or(0.0, |after: Duration| after.as_secs_f64())).collect();
    sent.sort_by(f64::total_cmp);
    let furthest = recorded.iter().zip(&sent).map(|((at, ..), sent)| (at - sent).abs()).fold(0.0, f64::max);
    eprintln!("furthest from when it was sent: {furthest:.1} s");
    assert!(furthest < 4.0, "{furthest}");
    assert!(replayed(&setup.trace).contains(&format!("{} requests in", recorded.len())));
}

#[test]
fn who_is_killed_leaves_a_trace_that_goes_on() {
    let setup = Setup::new("record-killed", None);
    let load = setup.load(&[Phase { seconds: 120.0, rate: 8.0 }]);
    setup.page_until("some requests", "weir_record_requests_total{", |requests| requests >= 10.0);
    let Setup { folder, trace, exporter: first, _simulator, .. } = setup;
    drop(first);
    let before = std::fs::read_to_string(&trace).unwrap();
    assert!(before.ends_with('\n') && requests(&before).len() >= 10, "{before}");
    replayed(&trace);
    let (second, page) = exporter(&folder.file("pools.yaml"), &trace, None);
    eventually("more of it", || {
        let page = get(&page)?;
        if value(&page, "weir_record_requests_total{").is_some_and(|requests| requests >= 10.0) { Ok(()) } else { Err(page) }
    });
    drop(load);
    assert!(second.terminate().0);
    let after = std::fs::read_to_string(&trace).unwrap();
    assert!(after.starts_with(&before) && after.contains(": unknown: nothing was recorded\n"), "{after}");
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() - began(&after);
    let times: Vec<f64> = requests(&after).iter().map(|request| request.0).collect();
    assert!(times.is_sorted() && times.iter().all(|at| *at <= passed), "{after}");
    replayed(&trace);
}

#[test]
fn a_full_disk_ends_neither_the_exporter_nor_the_trace() {
    // Files of this process end at a kilobyte.
    let setup = Setup::new("record-full", Some("trap '' XFSZ; ulimit -f 2"));
    let load = setup.load(&[Phase { seconds: 120.0, rate: 12.0 }]);
    setup.page_until("the end of the room", "weir_record_failures_total{", |failures| failures >= 2.0);
    setup.page_until("lost seconds", "weir_record_seconds_total{", |_| true);
    let page = get(&setup.page).unwrap();
    assert!(page.contains("state=\"lost\"") && page.contains("inference_pool_total_running_requests{name=\"llama\""), "{page}");
    drop(load);
    let (ended_well, output) = setup.exporter.terminate();
    assert!(ended_well && output.matches("(os error 27)").count() == 1, "{output}");
    let text = std::fs::read_to_string(&setup.trace).unwrap();
    assert!(text.len() <= 1024 && text.ends_with('\n'), "{text}");
    replayed(&setup.trace);
}

#[test]
fn a_file_of_others_is_left_alone_and_a_pool_must_be_named() {
    let folder = Folder::new("record-foreign");
    let pools = folder.write("pools.yaml", "apiVersion: weir/v1\npools:\n- {name: a, endpoints: []}\n- {name: b, endpoints: []}\n");
    let mine = folder.write("mine.csv", "mine\n");
    let exporter = Process::weir(&[
        "exporter",
        "--pools",
        &pools.display().to_string(),
        "--exporter-listen",
        "127.0.0.1:0",
        "--record",
        &format!("a={}", mine.display()),
        "--record",
        &folder.file("trace.csv").display().to_string(),
    ]);
    exporter.line("which pool", |line| line.contains("there are 2 such pools (default/a, default/b, …): name one"));
    let seen = exporter.output();
    if !seen.contains("holds something else than a recording") {
        exporter.line("whose file it is", |line| line.contains("holds something else than a recording of weir's"));
    }
    assert!(exporter.terminate().0);
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine\n");
    assert!(!folder.file("trace.csv").exists());
}
