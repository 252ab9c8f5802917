//! Endpoints that come and go, as many dead as alive, under one `weir exporter`: the living stay fresh, and what is gone leaves
//! neither memory nor connections behind. `WEIR_CHURN=full`: 1,000 of each and 30 rewrites, about a minute; else a tenth, and 12.

#![allow(clippy::unwrap_used)]

#[path = "scale/pages.rs"]
#[allow(dead_code)]
mod pages;
#[path = "scale/process.rs"]
#[allow(dead_code)]
mod process;

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;
use weir_tests::{Folder, Process, eventually, get};

const PAGE: &str = "vllm:num_requests_running 3.0\nvllm:num_requests_waiting 2.0\nvllm:kv_cache_usage_perc 0.5\n";

struct Size {
    /// Living endpoints at one time, and as many dead ones.
    each: usize,
    rewrites: usize,
    /// Memory is compared from this rewrite on: the pages, pools and connections of the first ones are there.
    warm_after: usize,
    /// What may be added to resident memory from then on, in bytes. In full it rises for some 70 rewrites (7 MiB from the 10th to the
    /// 30th) and is level from then on, over 100. To be found, each endpoint that came and went would have to leave 3 KiB behind; in
    /// the small size 26 KiB.
    most_growth: u64,
}

impl Size {
    fn chosen() -> Self {
        match std::env::var("WEIR_CHURN").as_deref() {
            Ok("full") => Self { each: 1000, rewrites: 30, warm_after: 10, most_growth: 12 << 20 },
            Ok(other) => panic!("WEIR_CHURN={other}: there is `full`"),
            Err(_) => Self { each: 100, rewrites: 12, warm_after: 4, most_growth: 4 << 20 },
        }
    }
}

/// Endpoints of one kind, half of them more than are in the file at one time.
struct Ring(Vec<SocketAddr>);

impl Ring {
    /// Those in the file at rewrite `number`: each time a tenth leaves and another tenth comes.
    fn window(&self, number: usize, length: usize) -> Vec<SocketAddr> {
        (0..length).map(|position| self.0[(number * length / 10 + position) % self.0.len()]).collect()
    }
}

/// A server that takes connections and says nothing: whoever connects waits in its queue.
fn hung(count: usize) -> (Vec<TcpListener>, Vec<SocketAddr>) {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    (listeners, addresses)
}

/// Addresses that refuse connections: of this machine, and with a port that nobody listens on.
fn refused(count: usize) -> Vec<SocketAddr> {
    let address = |index: usize| SocketAddr::from(([127, 77, (index / 250) as u8, (index % 250 + 1) as u8], 9));
    let refusal = TcpStream::connect_timeout(&address(0), Duration::from_secs(5)).map(drop).unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::ConnectionRefused);
    (0..count).map(address).collect()
}

/// The exporter under test.
struct Exporter {
    process: Process,
    address: String,
    pid: u32,
}

impl Exporter {
    fn start(pools: &str) -> Self {
        let process = Process::weir(&["exporter", "--pools", pools, "--exporter-listen", "127.0.0.1:0"]);
        let line = process.line("where it serves", |line| line.contains(" serving "));
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        // The path of its pools file is in no other command line.
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_it = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).split('\0').any(|argument| argument == pools)
        };
        let pid = pids.into_iter().find(is_it).expect("the exporter runs");
        Self { process, address, pid }
    }

    /// The pools by name, as the exporter shows them.
    fn pools(&self) -> HashMap<String, Value> {
        let body = get(&format!("http://{}/api/v1/pools", self.address)).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let pools = body["pools"].as_array().unwrap();
        pools.iter().map(|pool| (pool["name"].as_str().unwrap().to_owned(), pool.clone())).collect()
    }

    fn resident(&self) -> u64 {
        process::resident(self.pid).unwrap()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }
}

/// The states of a pool's endpoints by address.
fn states(pool: &Value) -> HashMap<SocketAddr, String> {
    let state = |endpoint: &Value| {
        let address = endpoint["address"].as_str().unwrap().parse().unwrap();
        (address, endpoint["state"].as_str().unwrap().to_owned())
    };
    pool["endpoints"].as_array().unwrap().iter().map(state).collect()
}

fn file(pools: &[(&str, &[SocketAddr])]) -> String {
    let mut file = "apiVersion: weir/v1\npools:\n".to_owned();
    for (name, endpoints) in pools {
        writeln!(file, "- name: {name}\n  endpoints: {}", serde_json::to_string(endpoints).unwrap()).unwrap();
    }
    file
}

#[test]
fn the_living_stay_fresh_and_the_gone_leave_nothing_behind() {
    weir_tests::allow_many_files();
    weir_serving::install_crypto_provider();
    let Size { each, rewrites, warm_after, most_growth } = Size::chosen();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoints = runtime.block_on(pages::start(each * 3 / 2, PAGE, false)).unwrap();
    let live = Ring(endpoints.addresses.clone());
    let (_listeners, hung) = hung(each * 3 / 4);
    let dead = Ring(hung.into_iter().zip(refused(each * 3 / 4)).flat_map(|(hung, refused)| [hung, refused]).collect());

    let folder = Folder::new("churn");
    let pools = folder.write("pools.yaml", "apiVersion: weir/v1\npools: []\n").to_str().unwrap().to_owned();
    let exporter = Exporter::start(&pools);
    assert!(exporter.pools().is_empty());
    let files_before = exporter.open_files();

    let mut windows: Vec<HashSet<SocketAddr>> = Vec::new();
    let (mut memory, mut files) = (Vec::new(), Vec::new());
    for number in 0..rewrites {
        let (living, dying) = (live.window(number, each), dead.window(number, each));
        let everyone = [&living[..], &dying[..]].concat();
        // A second pool comes and goes too.
        let other = live.window(number + 10, 10);
        let written = [("churn", &everyone[..]), ("sometimes", &other[..])];
        folder.write("pools.yaml", &file(&written[..1 + number % 2]));

        // In the file for two rewrites and more: fresh at every look until the new version is in force.
        let settled: Vec<_> = living
            .iter()
            .filter(|address| number >= 3 && windows[number - 3..].iter().all(|window| window.contains(address)))
            .collect();
        assert!(number < 3 || settled.len() >= each * 7 / 10);
        let wanted: HashSet<_> = everyone.iter().copied().collect();
        eventually("the new version is in force", || {
            let shown = exporter.pools();
            let Some(states) = shown.get("churn").map(states) else { return Err("the pool is not there yet".to_owned()) };
            for address in &settled {
                assert_eq!(states[address], "fresh", "{address} at rewrite {number}: {}", shown["churn"]["coverage"]);
            }
            let wrong = dying.iter().find(|address| states.get(address).is_some_and(|state| state == "fresh"));
            assert_eq!(wrong, None, "a dead endpoint is fresh");
            let in_force = states.keys().copied().collect::<HashSet<_>>() == wanted && shown.len() == 1 + number % 2;
            if in_force { Ok(()) } else { Err(format!("{} endpoints", states.len())) }
        });
        windows.push(living.into_iter().collect());
        memory.push(exporter.resident());
        files.push(exporter.open_files());
    }
    let coverage = eventually("all that live are fresh, and the others known as dead", || {
        let coverage = exporter.pools()["churn"]["coverage"].clone();
        if coverage["fresh"] == each && coverage["unreachable"] == each { Ok(coverage) } else { Err(coverage.to_string()) }
    });
    let mebibytes: Vec<_> = memory.iter().map(|bytes| bytes / 1024 / 1024).collect();
    println!("memory in MiB after each rewrite: {mebibytes:?}\nopen files, {files_before} before: {files:?}\ncoverage: {coverage}");
    let grown = memory[rewrites - 1].saturating_sub(memory[warm_after - 1]);
    assert!(grown <= most_growth, "{grown} bytes more after rewrite {rewrites} than after rewrite {warm_after}: {mebibytes:?}");
    // Connections to what is gone are kept for some seconds: a few rewrites' worth, not ever more.
    assert!(files[rewrites - 1] <= files[warm_after - 1] + each / 2, "open files: {files:?}");

    folder.write("pools.yaml", &file(&[("churn", &[])]));
    eventually("connections are closed", || match exporter.open_files() {
        open if open <= files_before + 2 => Ok(()),
        open => Err(format!("{open} files are open, {files_before} were before the first endpoint")),
    });
    let (ended_well, output) = exporter.process.terminate();
    assert!(ended_well, "{output}");
    assert!(!output.contains("panicked"), "{output}");
}
