//! The page server: endpoints that answer as a vLLM server of one engine does, without its cost.
//!
//! Each endpoint is a listener. Its page is made once and only the digits of its gauges change. `?name[]=` is honoured as Python's
//! prometheus_client does in one process: of the page those families are left that have a sample with one of the names, with HELP
//! and TYPE, and of them those samples.

use std::collections::HashSet;
use std::error::Error;
use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// About the size of the page of a vLLM server with one engine.
const PAGE_BYTES: usize = 68_000;
/// The largest head of a request.
const LARGEST_HEAD: usize = 16 * 1024;
const LABELS: &str = "engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B-Instruct\"";

/// The page of one endpoint.
pub(crate) fn page() -> String {
    let mut page = String::new();
    // All with a fixed number of digits, so that they can change in place.
    for (name, value) in [("num_requests_running", "100.0"), ("num_requests_waiting", "100.0"), ("kv_cache_usage_perc", "0.100")] {
        page += &format!("# HELP vllm:{name} Of the engine.\n# TYPE vllm:{name} gauge\nvllm:{name}{{{LABELS}}} {value}\n");
    }
    for (name, value) in [
        ("prompt_tokens", "690249.0"),
        ("generation_tokens", "129926.0"),
        ("num_preemptions", "17.0"),
        ("prefix_cache_queries", "690249.0"),
        ("prefix_cache_hits", "220416.0"),
    ] {
        let name = format!("vllm:{name}_total");
        page += &format!("# HELP {name} Since the start.\n# TYPE {name} counter\n{name}{{{LABELS}}} {value}\n");
    }
    page += "# HELP vllm:cache_config_info Of the engine.\n# TYPE vllm:cache_config_info gauge\n";
    page += "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"14800\"} 1.0\n";
    for histogram in 0.. {
        if page.len() >= PAGE_BYTES {
            break;
        }
        let name = format!("vllm:request_phase_{histogram}_time_seconds");
        page += &format!("# HELP {name} Time spent in a phase of a request.\n# TYPE {name} histogram\n");
        for bound in 0..21 {
            page += &format!("{name}_bucket{{le=\"{bound}.5\",{LABELS}}} {bound}00.0\n");
        }
        page += &format!("{name}_count{{{LABELS}}} 900.0\n{name}_sum{{{LABELS}}} 210.59923337922766\n");
    }
    page
}

/// What is left of `page` for the names of a query: samples of other names are left out, and families without any.
fn restrict(page: &str, names: &HashSet<String>) -> String {
    let mut kept = String::new();
    let mut metadata = String::new();
    for line in page.lines() {
        if line.starts_with("# HELP ") {
            metadata.clear();
        }
        if line.starts_with('#') {
            metadata += &format!("{line}\n");
        } else if names.contains(&line[..line.find(['{', ' ']).unwrap_or(line.len())]) {
            kept += &std::mem::take(&mut metadata);
            kept += &format!("{line}\n");
        }
    }
    kept
}

/// The values of `name[]` in a query.
fn names(query: &str) -> HashSet<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let names = pairs.filter(|(key, _)| matches!(*key, "name[]" | "name%5B%5D" | "name%5b%5d"));
    names.map(|(_, value)| value.replace("%3A", ":").replace("%3a", ":")).collect()
}

/// An answer as it is sent, and where its digits are.
struct Answer {
    bytes: Vec<u8>,
    digits: Vec<usize>,
}

impl Answer {
    fn new(body: &str) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        let text = String::from_utf8_lossy(&bytes);
        let digits = ["num_requests_running{", "num_requests_waiting{", "kv_cache_usage_perc{"].iter().filter_map(|name| {
            let line = text.find(name)?;
            // 100.0 and 0.100: where the three digits that change begin.
            let value = line + text[line..].find("} ")? + 2;
            Some(if text[value..].starts_with("0.") { value + 2 } else { value })
        });
        let digits = digits.collect();
        Self { bytes, digits }
    }

    /// The next state of the server.
    fn next(&mut self, count: u64) -> &[u8] {
        for at in &self.digits {
            // Never with a leading zero.
            self.bytes[*at..at + 3].copy_from_slice((100 + count % 900).to_string().as_bytes());
        }
        &self.bytes
    }
}

/// What the endpoints saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Pages asked for.
    pub(crate) pages: u64,
    /// Those of them with `?name[]=`.
    pub(crate) restricted: u64,
    /// The last query.
    query: String,
    /// Microseconds between two questions to an endpoint.
    gaps: Vec<u64>,
    last: Vec<Option<Instant>>,
}

impl Seen {
    fn asked(&mut self, endpoint: usize, query: &str) {
        let now = Instant::now();
        self.pages += 1;
        if self.last.len() <= endpoint {
            self.last.resize(endpoint + 1, None);
        }
        if let Some(last) = self.last[endpoint].replace(now) {
            self.gaps.push(u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX));
        }
        if !names(query).is_empty() {
            self.restricted += 1;
            if self.query != query {
                self.query = query.to_owned();
            }
        }
    }

    fn report(&mut self) -> serde_json::Value {
        self.gaps.sort_unstable();
        let percentile = |share: usize| self.gaps.get(self.gaps.len() * share / 100).or(self.gaps.last()).copied().unwrap_or(0);
        serde_json::json!({
            "pages": self.pages, "restricted": self.restricted, "query": self.query,
            "p50": percentile(50), "p99": percentile(99), "max": self.gaps.last().copied().unwrap_or(0),
        })
    }
}

/// Endpoints that are served until this is dropped.
#[derive(Debug)]
pub(crate) struct Endpoints {
    /// host:port of each.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What they saw.
    pub(crate) seen: Arc<Mutex<Seen>>,
    _tasks: tokio::task::JoinSet<()>,
}

/// Starts `count` endpoints with this page. `honour`: they answer `?name[]=` with what was asked for.
pub(crate) async fn start(count: usize, page: &str, honour: bool) -> std::io::Result<Endpoints> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let page: Arc<str> = page.into();
    let (mut tasks, mut addresses) = (tokio::task::JoinSet::new(), Vec::new());
    for endpoint in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        let (page, seen) = (page.clone(), seen.clone());
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(connection(stream, endpoint, page.clone(), honour, seen.clone()));
                    },
                    // Ended ones are let go.
                    Some(_) = connections.join_next() => {}
                }
            }
        });
    }
    Ok(Endpoints { addresses, seen, _tasks: tasks })
}

async fn connection(mut stream: TcpStream, endpoint: usize, page: Arc<str>, honour: bool, seen: Arc<Mutex<Seen>>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut full = Answer::new(&page);
    let mut restricted: Option<(String, Answer)> = None;
    let mut received = Vec::with_capacity(LARGEST_HEAD);
    for count in endpoint as u64.. {
        received.clear();
        while !received.ends_with(b"\r\n\r\n") {
            // Nobody asks again before the answer is there: what ends in an empty line is one question.
            match stream.read_buf(&mut received).await {
                Ok(read) if read > 0 && received.len() < LARGEST_HEAD => {}
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&received);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        seen.lock().unwrap_or_else(PoisonError::into_inner).asked(endpoint, query);
        let answer = match query {
            "" => &mut full,
            _ if !honour => &mut full,
            query => {
                let known = restricted.take().filter(|(known, _)| known == query);
                let known = known.unwrap_or_else(|| (query.to_owned(), Answer::new(&restrict(&page, &names(query)))));
                &mut restricted.insert(known).1
            }
        };
        if stream.write_all(answer.next(count)).await.is_err() {
            return;
        }
    }
}

/// Serves `count` endpoints: prints their addresses, then on each line of input what they saw since the line before.
pub(crate) fn serve(count: usize, honour: bool) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoints = start(count, &page(), honour).await?;
        println!("{}", serde_json::json!(endpoints.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>()));
        let (sender, mut lines) = tokio::sync::mpsc::channel(1);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        // The end of the input is the end.
        while lines.recv().await.is_some() {
            let mut seen = std::mem::take(&mut *endpoints.seen.lock().unwrap_or_else(PoisonError::into_inner));
            println!("{}", seen.report());
        }
        Ok(())
    })
}
