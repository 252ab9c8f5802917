//! How weir does in a real control plane: how fresh its values are, what its replicas use, how long a decision takes.
//!
//! Each run has its own cluster (`tests/cluster/README.md`) with weir installed as docs/install.md says. The servers of its pools are
//! pods without processes; this program answers for them.
//!
//! - [`servers`]: those pods, and their pages;
//! - [`api`]: reads through the API server;
//! - [`freshness`], [`resources`], [`decision`]: the measurements.
//!
//! `target/release/cluster-bench --help`

mod api;
mod decision;
mod freshness;
#[path = "../scale/process.rs"]
mod process;
mod resources;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

use servers::Servers;
use weir_tests::cluster::{Cluster, Options};
use weir_tests::{installed, kubectl};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TOTAL: &str = "inference_pool_total_inflight_requests";

const HELP: &str = "\
Measures weir in a control plane of its own and prints tables. Needs root, or `unshare -rn`.

  --parts idle,freshness,decision,pools   what to measure
  --changes 120                           changes of a page whose way is timed
  --pools 1000                            how many pools, of one pod each
  --hpa-sync 2                            seconds between two rounds of the autoscaler
  --decisions 10                          of the autoscaler that are timed
  --weir target/release/weir              the binary to measure; without it the one beside this program
";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let number = |name: &str, default: usize| value(name).map_or(Ok(default), str::parse::<usize>);
    let parts: Vec<&str> = value("--parts").unwrap_or("idle,freshness,decision,pools").split(',').collect();
    if let Some(unknown) = parts.iter().find(|part| !["idle", "freshness", "decision", "pools"].contains(part)) {
        return Err(format!("--parts {unknown}: there are idle, freshness, decision, pools").into());
    }
    let (changes, pools, decisions) = (number("--changes", 120)?, number("--pools", 1000)?, number("--decisions", 10)?);
    let hpa_sync = Duration::from_secs(u64::try_from(number("--hpa-sync", 2)?)?);
    let weir = value("--weir")
        .map_or_else(|| Ok(std::env::current_exe()?.with_file_name("weir")), |path| PathBuf::from(path).canonicalize())?;
    if !weir.is_file() {
        return Err(format!("there is no {}: cargo build --release -p weir", weir.display()).into());
    }
    weir_tests::allow_many_files();
    let images = vec![("weir".to_owned(), weir), ("kubectl".to_owned(), kubectl())];
    // Not the default, which builds a binary for tests.
    let cluster = Cluster::start(&Options {
        images,
        crds: true,
        nodes: 2,
        scheduler: false,
        adopt_nodes: false,
        hpa_sync,
        apiserver_arguments: Vec::new(),
        controller_manager_arguments: Vec::new(),
    });
    // Its threads are in the cluster's network, as this one is.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        installed::by_kustomize(&cluster);
        let servers = Servers::start().await?;
        if parts.contains(&"idle") {
            println!("\n{}", resources::HEADINGS);
            resources::of_the_replicas(&cluster, 0).await?;
        }
        if parts.contains(&"freshness") {
            freshness::measure(&cluster, &servers, changes).await?;
        }
        if parts.contains(&"decision") {
            decision::measure(&cluster, &servers, hpa_sync, decisions).await?;
        }
        if parts.contains(&"pools") {
            println!("\n{}", resources::HEADINGS);
            resources::with_many_pools(&cluster, pools).await?;
        }
        Ok(())
    })
}

/// A line of a table: how many, median, 99th percentile, longest.
fn line(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| {
        times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default().as_secs_f64()
    };
    println!("| {what} | {} | {:.2} s | {:.2} s | {:.2} s |", times.len(), at(50), at(99), at(100));
}
