//! Starts the processes and measures them.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_tests::{Folder, repository};

use crate::process::{cpu_time, resident};

const SCRAPER_CORE: &str = "0";
const PAGES_CORE: &str = "1";

/// What to measure.
pub(crate) struct Plan {
    /// The binary; none: built.
    pub(crate) weir: Option<PathBuf>,
    pub(crate) endpoints: Vec<u64>,
    pub(crate) intervals: Vec<Duration>,
    pub(crate) answers: Vec<Answers>,
    pub(crate) repeat: u64,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
}

/// What the page server answers to `?name[]=`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answers {
    /// The full page, as to any question.
    Full,
    /// What was asked for.
    Restricted,
}

impl Answers {
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "full" => Ok(Self::Full),
            "restricted" => Ok(Self::Restricted),
            other => Err(format!("--answers {other}: there are full and restricted")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Restricted => "restricted",
        }
    }
}

/// One measurement, or the median of several.
#[derive(Clone, Debug)]
struct Measured {
    /// Processor time over time.
    cpu: f64,
    /// The page server's.
    pages_cpu: f64,
    /// Bytes.
    resident: f64,
    pages_per_second: f64,
    /// Of the pages, those asked for by name.
    restricted: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
}

/// Ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn pinned(core: &str, program: &std::path::Path, arguments: &[&str], piped: bool) -> Result<Self, Box<dyn Error>> {
        let pipe = || if piped { Stdio::piped() } else { Stdio::null() };
        // taskset becomes the program: its process is the one to look at.
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program).args(arguments).stdin(pipe()).stdout(pipe()).stderr(Stdio::inherit());
        Ok(Self(command.spawn().map_err(|error| format!("taskset (util-linux): {error}"))?))
    }
}

/// The page server.
struct Pages {
    process: Running,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    addresses: Vec<String>,
}

impl Pages {
    fn start(endpoints: u64, answers: Answers) -> Result<Self, Box<dyn Error>> {
        let arguments = ["pages", "--endpoints", &endpoints.to_string(), "--answers", answers.name()];
        let mut process = Running::pinned(PAGES_CORE, &std::env::current_exe()?, &arguments, true)?;
        let (asks, answers) = (process.0.stdin.take(), process.0.stdout.take());
        let (asks, answers) = (asks.ok_or("no pipe")?, BufReader::new(answers.ok_or("no pipe")?));
        let mut pages = Self { process, asks, answers, addresses: Vec::new() };
        pages.addresses = serde_json::from_value(pages.line()?)?;
        Ok(pages)
    }

    fn line(&mut self) -> Result<Value, Box<dyn Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// What was asked since the last call.
    fn seen(&mut self) -> Result<Value, Box<dyn Error>> {
        self.asks.write_all(b"\n")?;
        self.line()
    }

    /// Measures `scraper` over the window; also the last query that the pages were asked with.
    fn measure(&mut self, scraper: &Running, plan: &Plan) -> Result<(Measured, String), Box<dyn Error>> {
        std::thread::sleep(plan.warm_up);
        let pid = scraper.0.id();
        let pages_pid = self.process.0.id();
        let cpu_times = || Some([cpu_time(pid)?, cpu_time(pages_pid)?]);
        let (started, before) = (Instant::now(), cpu_times().ok_or("a process has ended")?);
        self.seen()?;
        std::thread::sleep(plan.window);
        let seen = self.seen()?;
        let passed = started.elapsed().as_secs_f64();
        let after = cpu_times().ok_or("a process has ended")?;
        let share = |of: usize| after[of].saturating_sub(before[of]).as_secs_f64() / passed;
        let number = |key: &str| seen[key].as_f64().ok_or_else(|| format!("no {key} in {seen}"));
        let pages = number("pages")?;
        let measured = Measured {
            cpu: share(0),
            pages_cpu: share(1),
            resident: resident(pid).ok_or("a process has ended")? as f64,
            pages_per_second: pages / passed,
            restricted: if pages > 0.0 { number("restricted")? / pages } else { 0.0 },
            p50: number("p50")? / 1000.0,
            p99: number("p99")? / 1000.0,
        };
        Ok((measured, seen["query"].as_str().unwrap_or_default().to_owned()))
    }
}

/// Measures everything in `plan` and prints a table.
pub(crate) fn run(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let weir = plan.weir.clone().map_or_else(release_build, Ok)?;
    let folder = Folder::new("scale");
    println!(
        "| endpoints | interval | pages | due/s | weir pages/s | CPU | RSS | gap p50 / p99 | bare pages/s | CPU | RSS | gap p50 / p99 | CPU a page, weir / bare | page server's CPU |"
    );
    println!("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for answers in &plan.answers {
        for endpoints in &plan.endpoints {
            for interval in &plan.intervals {
                let (mut of_weir, mut of_bare) = (Vec::new(), Vec::new());
                for _ in 0..plan.repeat.max(1) {
                    let mut pages = Pages::start(*endpoints, *answers)?;
                    let pools = format!(
                        "apiVersion: weir/v1\npools:\n- name: scale\n  endpoints: {}\n",
                        serde_json::to_string(&pages.addresses)?
                    );
                    let (pools, addresses) =
                        (folder.write("pools.yaml", &pools), folder.write("addresses", &pages.addresses.join("\n")));
                    let milliseconds = interval.as_millis().to_string();
                    let every = format!("{milliseconds}ms");
                    let (pools, addresses) = (pools.to_string_lossy(), addresses.to_string_lossy());
                    let arguments = ["exporter", "--log=error", "--pools", &pools, "--scrape-interval", &every];
                    let arguments = [&arguments[..], &["--exporter-listen", "127.0.0.1:0"]].concat();
                    let scraper = Running::pinned(SCRAPER_CORE, &weir, &arguments, false)?;
                    let (measured, query) = pages.measure(&scraper, plan)?;
                    of_weir.push(measured);
                    drop(scraper);
                    // The bare one asks as weir does.
                    let query = if *answers == Answers::Restricted { query } else { String::new() };
                    let arguments = ["bare", "--addresses", &addresses, "--interval", &milliseconds, "--query", &query];
                    let scraper = Running::pinned(SCRAPER_CORE, &std::env::current_exe()?, &arguments, false)?;
                    of_bare.push(pages.measure(&scraper, plan)?.0);
                }
                print_row(*endpoints, *interval, *answers, &median(&of_weir), &median(&of_bare));
                for (weir, bare) in of_weir.iter().zip(&of_bare) {
                    eprintln!("  weir {weir:?}\n  bare {bare:?}");
                }
            }
        }
    }
    Ok(())
}

/// weir as it is released, brought up to date.
fn release_build() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--locked", "-p", "weir"]).current_dir(repository()).status()?;
    if !built.success() {
        return Err("weir does not build".into());
    }
    Ok(repository().join("target/release/weir"))
}

fn print_row(endpoints: u64, interval: Duration, answers: Answers, weir: &Measured, bare: &Measured) {
    let pages = match answers {
        Answers::Full => "full".to_owned(),
        Answers::Restricted => format!("{:.0} % restricted", 100.0 * weir.restricted),
    };
    let of = |measured: &Measured| {
        let Measured { cpu, resident, pages_per_second, p50, p99, .. } = measured;
        format!("{pages_per_second:.0} | {:.1} % | {:.0} MiB | {p50:.1} / {p99:.1} ms", 100.0 * cpu, resident / (1024.0 * 1024.0))
    };
    let a_page = |measured: &Measured| 1e6 * measured.cpu / measured.pages_per_second;
    println!(
        "| {endpoints} | {} ms | {pages} | {:.0} | {} | {} | {:.0} / {:.0} µs = {:.2} | {:.0} / {:.0} % |",
        interval.as_millis(),
        endpoints as f64 / interval.as_secs_f64(),
        of(weir),
        of(bare),
        a_page(weir),
        a_page(bare),
        a_page(weir) / a_page(bare),
        100.0 * weir.pages_cpu,
        100.0 * bare.pages_cpu
    );
}

fn median(measured: &[Measured]) -> Measured {
    let of = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = measured.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
    };
    Measured {
        cpu: of(|one| one.cpu),
        pages_cpu: of(|one| one.pages_cpu),
        resident: of(|one| one.resident),
        pages_per_second: of(|one| one.pages_per_second),
        restricted: of(|one| one.restricted),
        p50: of(|one| one.p50),
        p99: of(|one| one.p99),
    }
}
