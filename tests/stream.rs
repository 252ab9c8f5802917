//! One `weir exporter` follows another one's stream, from outside.

#![allow(clippy::unwrap_used)]

use weir_tests::{Folder, Process, eventually, get, simulators};

/// A running `weir exporter`.
struct Exporter {
    process: Process,
    address: String,
}

impl Exporter {
    fn start(folder: &Folder, name: &str, pools: &str, listen: &str) -> Self {
        let pools = folder.write(&format!("{name}.yaml"), pools);
        let process = Process::weir(&["exporter", "--pools", pools.to_str().unwrap(), "--exporter-listen", listen]);
        let line = process.line("where it serves", |line| line.contains(" serving "));
        let address = line.split("address=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Self { process, address }
    }

    fn page(&self) -> Result<String, String> {
        get(&format!("http://{}/metrics", self.address))
    }

    /// The value of a series, none where the page leaves it out.
    fn value(&self, series: &str) -> Option<f64> {
        value(&self.page().unwrap(), series)
    }
}

fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(|value| value.parse().unwrap())
}

fn pools_file(endpoints: &[String], pickers: &[String]) -> String {
    let list = |items: &[String]| items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ");
    format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [{}]\n  pickers: [{}]\n", list(endpoints), list(pickers))
}

const FRESH: &str = "inference_pool_endpoints{name=\"llama\",namespace=\"default\",state=\"fresh\"}";
const INFLIGHT: &str = "inference_pool_total_inflight_requests{name=\"llama\",namespace=\"default\"}";
const SCRAPES: &str = "weir_scrapes_total{outcome=\"ok\"}";
const FALLBACKS: &str = "weir_stream_fallbacks_total";
const FOLLOWED: &str = "weir_streams_followed";
const FRAMES: &str = "weir_stream_frames_total";

#[test]
fn an_exporter_that_follows_another_says_the_same_and_goes_on_without_it() {
    let folder = Folder::new("stream");
    let (_simulator, servers) = simulators(3);
    let first = Exporter::start(&folder, "first", &pools_file(&servers, &[]), "127.0.0.1:0");
    let second_pools = pools_file(&servers, &[format!("http://{}", first.address)]);
    let second = Exporter::start(&folder, "second", &second_pools, "127.0.0.1:0");
    let both_fresh = |exporter: &Exporter| match exporter.page() {
        Ok(page) if value(&page, FRESH) == Some(3.0) => Ok(()),
        page => Err(format!("{page:?}")),
    };
    eventually("all endpoints on the first's page", || both_fresh(&first));
    eventually("all endpoints on the second's page", || both_fresh(&second));
    assert_eq!(second.value(FOLLOWED), Some(1.0));
    assert_eq!(first.value("weir_stream_served"), Some(1.0));

    // Fed: the second says what the first says, and asks no server.
    let frames = second.value(FRAMES).unwrap();
    eventually("it is fed", || second.value(FRAMES).filter(|now| *now > frames + 5.0).ok_or("not yet".to_owned()));
    let own = second.value(SCRAPES).unwrap();
    let by_first = first.value(SCRAPES).unwrap();
    eventually("further rounds", || first.value(SCRAPES).filter(|now| *now >= by_first + 9.0).ok_or("not yet".to_owned()));
    assert_eq!(second.value(SCRAPES), Some(own), "what is fed is not read");
    let of_pool = |exporter: &Exporter| -> Vec<String> {
        // How old the oldest page is, and how long nothing happened, goes on between the two pages.
        let varies = |line: &&str| !line.starts_with("inference_pool_metrics_age") && !line.starts_with("inference_pool_idle");
        let page = exporter.page().unwrap();
        page.lines().filter(|line| line.starts_with("inference_pool_")).filter(varies).map(str::to_owned).collect()
    };
    let (of_first, of_second) = (of_pool(&first), of_pool(&second));
    assert!(of_first.len() >= 14, "{of_first:?}");
    // Alone the first has no picker to tell of.
    let of_second: Vec<_> = of_second.into_iter().filter(|line| !line.starts_with("inference_pool_held")).collect();
    let of_first: Vec<_> = of_first.into_iter().filter(|line| !line.starts_with("inference_pool_held")).collect();
    assert_eq!(of_first, of_second);

    // Killed, not asked to end: dropping a process sends SIGKILL.
    let address = first.address.clone();
    drop(first.process);
    eventually("the second reads the servers itself", || {
        let page = second.page()?;
        assert!(value(&page, INFLIGHT).is_some(), "unknown for a moment:\n{page}");
        value(&page, FALLBACKS).filter(|fallbacks| *fallbacks == 3.0).ok_or(page)
    });
    second.process.line("what is wrong", |line| line.contains("picker cannot be read") && line.contains(&address));

    let first = Exporter::start(&folder, "first", &pools_file(&servers, &[]), &address);
    eventually("the stream is followed again", || {
        let page = second.page()?;
        assert!(value(&page, INFLIGHT).is_some(), "unknown for a moment:\n{page}");
        value(&page, FOLLOWED).filter(|followed| *followed == 1.0).ok_or(page)
    });
    second.process.line("that it is well", |line| line.contains("picker can be read again"));
    let frames = second.value(FRAMES).unwrap();
    eventually("it is fed again", || second.value(FRAMES).filter(|now| *now > frames + 10.0).ok_or("not yet".to_owned()));
    let (own, by_first) = (second.value(SCRAPES), first.value(SCRAPES).unwrap());
    eventually("further rounds", || first.value(SCRAPES).filter(|now| *now >= by_first + 6.0).ok_or("not yet".to_owned()));
    assert_eq!(second.value(SCRAPES), own, "what is fed is not read");

    // A server that drains ends its streams, and does not wait for their readers.
    let (ended_well, output) = first.process.terminate();
    assert!(ended_well, "{output}");
    let (ended_well, output) = second.process.terminate();
    assert!(ended_well, "{output}");
}
