//! One row: both servers under one load, in turns, and what each used.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::load::{self, Load, Outcome};
use crate::process::{cpu_time, resident};
use crate::servers::{Pages, Server};
use crate::stream::{Shape, Traffic, one};

type Failure = Box<dyn Error + Send + Sync>;

/// How long an idle picker is watched.
const IDLE: Duration = Duration::from_secs(2);
/// How long a server may take until its first pick.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is measured in a row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) endpoints: usize,
    pub(crate) shape: Shape,
    pub(crate) tls: bool,
    /// Whether servers answer `?name[]=` with what was asked for.
    pub(crate) restricted: bool,
}

/// How rows are measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) weir: PathBuf,
    /// More arguments of it.
    pub(crate) extra: Vec<String>,
    pub(crate) bare: bool,
    pub(crate) picker: bool,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) connections: usize,
    pub(crate) seed: u64,
}

/// What one server did in a window.
#[derive(Debug, Default)]
struct Measured {
    outcome: Outcome,
    window: f64,
    /// Seconds of the server's processor time.
    cpu: f64,
    /// The shares of a core that generator and page server took.
    generator: f64,
    pages: f64,
    /// The server's share of its core before the load.
    idle: Option<f64>,
    resident: u64,
}

/// Prints the head of the table.
pub(crate) fn print_head() {
    println!(
        "| load | endpoints | prompt | answer | TLS | server | requests/s | of bare | pick p50 / p99 / p99.9 / max ms | stream p50 / p99 ms | CPU s per 1,000 | of bare | RSS MiB | idle | generator + pages | errors |"
    );
    println!("|---|---:|---:|---:|---|---|---:|---:|---|---|---:|---:|---:|---:|---:|---:|");
}

/// Measures `row` in turns and prints it.
pub(crate) async fn measure(row: &Row, plan: &Plan, folder: &Path) -> Result<(), Failure> {
    let certificate = row.tls.then(|| folder.join("certificate"));
    let certificate = certificate.as_deref();
    if let Some(directory) = certificate {
        crate::tls::issue(directory)?;
    }
    let pages = Pages::start(row.endpoints, row.restricted)?;
    let (mut of_weir, mut of_bare) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        if plan.picker {
            let server = Server::weir(&plan.weir, folder, &pages.addresses, certificate, &plan.extra)?;
            of_weir.push(one_server(&server, row, plan, &pages, certificate, round == 0).await?);
        }
        if plan.bare {
            let server = Server::bare(&pages.addresses[0], certificate)?;
            of_bare.push(one_server(&server, row, plan, &pages, certificate, false).await?);
        }
    }
    let bare = (!of_bare.is_empty()).then(|| Summary::of(of_bare));
    if !of_weir.is_empty() {
        Summary::of(of_weir).print("weir", row, bare.as_ref());
    }
    if let Some(bare) = bare {
        bare.print("bare", row, None);
    }
    Ok(())
}

/// Loads one picker for `minutes`, and prints its memory after each.
pub(crate) async fn long(row: &Row, plan: &Plan, minutes: u64, folder: &Path) -> Result<(), Failure> {
    let pages = Pages::start(row.endpoints, row.restricted)?;
    let server = Server::weir(&plan.weir, folder, &pages.addresses, None, &plan.extra)?;
    println!("| minute | requests/s | pick p99 ms | CPU s per 1,000 | RSS MiB | errors |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for minute in 1..=minutes {
        // Another seed each: prompts that were never seen.
        let plan = Plan { warm_up: Duration::ZERO, window: Duration::from_secs(60), seed: plan.seed + minute, ..plan.clone() };
        let measured = one_server(&server, row, &plan, &pages, None, false).await?;
        let resident = measured.resident >> 20;
        let of = Summary::of(vec![measured]);
        let errors = of.errors.values().sum::<u64>();
        println!(
            "| {minute} | {:.0} | {:.2} | {:.4} | {resident} | {errors} |",
            mean(&of.rates),
            percentile(&of.picks, 99.0),
            mean(&of.costs)
        );
    }
    Ok(())
}

async fn one_server(
    server: &Server,
    row: &Row,
    plan: &Plan,
    pages: &Pages,
    certificate: Option<&Path>,
    idles: bool,
) -> Result<Measured, Failure> {
    let connections = server.connect(plan.connections, certificate).await?;
    let traffic = Traffic::new(&row.shape, &pages.addresses, &server.address, plan.seed);
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = one(connections[0].clone(), &traffic).await {
        if Instant::now() > deadline {
            return Err(format!("no pick in {PATIENCE:?}: {error}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    let used = |pid: u32| cpu_time(pid).map(|time| time.as_secs_f64()).ok_or("a process has ended");
    let mut measured = Measured::default();
    if idles {
        sleep(Duration::from_secs(1)).await;
        let (before, since) = (used(server.pid())?, Instant::now());
        sleep(IDLE).await;
        measured.idle = Some((used(server.pid())? - before) / since.elapsed().as_secs_f64());
    }
    let mut marks = Vec::new();
    let processes = [server.pid(), std::process::id(), pages.pid()];
    measured.outcome = load::run(row.load, &connections, &traffic, plan.warm_up, plan.window, || {
        marks.push((Instant::now(), processes.map(|pid| used(pid).unwrap_or(f64::NAN))));
    })
    .await?;
    let [(began, before), (ended, after)] = marks.as_slice() else { return Err("the load has two ends".into()) };
    measured.window = (*ended - *began).as_secs_f64();
    measured.cpu = after[0] - before[0];
    measured.generator = (after[1] - before[1]) / measured.window;
    measured.pages = (after[2] - before[2]) / measured.window;
    measured.resident = resident(server.pid()).ok_or("a process has ended")?;
    Ok(measured)
}

/// All rounds of one server together.
struct Summary {
    picks: Vec<u32>,
    wholes: Vec<u32>,
    errors: BTreeMap<String, u64>,
    /// Of each round.
    rates: Vec<f64>,
    costs: Vec<f64>,
    generator: f64,
    idle: Option<f64>,
    resident: u64,
}

impl Summary {
    fn of(rounds: Vec<Measured>) -> Self {
        let count = rounds.len() as f64;
        let mut all = Self {
            picks: Vec::new(),
            wholes: Vec::new(),
            errors: BTreeMap::new(),
            rates: Vec::new(),
            costs: Vec::new(),
            generator: 0.0,
            idle: None,
            resident: 0,
        };
        for round in rounds {
            let requests = round.outcome.ended as f64;
            all.rates.push(requests / round.window);
            all.costs.push(1000.0 * round.cpu / requests);
            all.generator += (round.generator + round.pages) / count;
            all.idle = all.idle.or(round.idle);
            all.resident = all.resident.max(round.resident);
            all.picks.extend(round.outcome.picks);
            all.wholes.extend(round.outcome.wholes);
            for (error, times) in round.outcome.errors {
                *all.errors.entry(error).or_default() += times;
            }
        }
        all.picks.sort_unstable();
        all.wholes.sort_unstable();
        all
    }

    fn print(&self, name: &str, row: &Row, bare: Option<&Self>) {
        let of = |mine: &[f64], theirs: Option<&[f64]>| {
            theirs.map_or_else(String::new, |theirs| format!("{:.0} %", 100.0 * mean(mine) / mean(theirs)))
        };
        println!(
            "| {} | {} | {} KB | {} | {} | {name} | {:.0} | {} | {:.2} / {:.2} / {:.2} / {:.2} | {:.2} / {:.2} | {:.4} | {} | {:.0} | {} | {:.0} % | {} |",
            row.load,
            row.endpoints,
            row.shape.prompt / 1024,
            row.shape.chunks,
            if row.tls { "yes" } else { "no" },
            mean(&self.rates),
            of(&self.rates, bare.map(|bare| bare.rates.as_slice())),
            percentile(&self.picks, 50.0),
            percentile(&self.picks, 99.0),
            percentile(&self.picks, 99.9),
            percentile(&self.picks, 100.0),
            percentile(&self.wholes, 50.0),
            percentile(&self.wholes, 99.0),
            mean(&self.costs),
            of(&self.costs, bare.map(|bare| bare.costs.as_slice())),
            self.resident >> 20,
            self.idle.map_or_else(String::new, |idle| format!("{:.1} %", 100.0 * idle)),
            100.0 * self.generator,
            self.errors.values().sum::<u64>(),
        );
        for (error, times) in &self.errors {
            eprintln!("  {name}: {times} × {error}");
        }
        eprintln!("  {name}: rounds {:.0?} requests/s, {:.4?} CPU s per 1,000", self.rates, self.costs);
        if self.generator > 0.95 {
            eprintln!("  {name}: the other core was full: the generator is the limit");
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Milliseconds.
fn percentile(sorted: &[u32], percent: f64) -> f64 {
    let position = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(position.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
}
