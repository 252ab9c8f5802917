//! Ten thousand connections, rapid resets, huge heads: others go on being served.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use weir_tests::{Folder, Serving, TOKEN, eventually, simulators};

/// Connections that the flood opens, where the machine allows so many descriptors.
const FLOOD: usize = 10_000;

/// What every read of the patient caller must end within: far below the 60 s after which Kubernetes gives up on one.
const LONGEST: Duration = Duration::from_secs(5);

/// Reads a value again and again until told to stop, over one connection and over a new one each time; the slowest of each.
struct Caller {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(u32, Duration, Duration)>,
}

impl Caller {
    fn start(serving: &Serving) -> Self {
        let url = format!(
            "https://{}/apis/external.metrics.k8s.io/v1beta1/namespaces/default/inference_pool_total_inflight_requests",
            serving.adapter
        );
        let ca = std::fs::read(&serving.ca_file).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            weir_serving::install_crypto_provider();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = || {
                let authority = reqwest::Certificate::from_pem(&ca).unwrap();
                reqwest::Client::builder().no_proxy().tls_certs_only([authority]).timeout(LONGEST).build().unwrap()
            };
            let ask = async |client: &reqwest::Client| {
                let asked = tokio::time::Instant::now();
                let answer = client.get(&url).bearer_auth(TOKEN).send().await;
                assert_eq!(answer.expect("a read during the flood").status(), 200);
                asked.elapsed()
            };
            let kept = client();
            let (mut reads, mut slowest_kept, mut slowest_new) = (0, Duration::ZERO, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                slowest_kept = slowest_kept.max(runtime.block_on(ask(&kept)));
                slowest_new = slowest_new.max(runtime.block_on(ask(&client())));
                reads += 2;
            }
            (reads, slowest_kept, slowest_new)
        });
        Self { stop, thread }
    }

    fn end(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let (reads, kept, new) = self.thread.join().expect("every read succeeded");
        println!("{during}: {reads} reads, the slowest {kept:?} over one connection, {new:?} over a new one");
        assert!(reads > 0);
    }
}

fn serving(folder: &Folder) -> (weir_tests::Process, Serving) {
    let (simulators, addresses) = simulators(1);
    let pools = format!("apiVersion: weir/v1\npools:\n- name: llama\n  endpoints: [\"{}\"]\n", addresses[0]);
    let pools = folder.write("pools.yaml", &pools);
    let serving = Serving::start(folder, &pools);
    eventually("a value", || match serving.page()? {
        page if page.contains("inference_pool_total_inflight_requests{") => Ok(()),
        page => Err(page),
    });
    (simulators, serving)
}

#[test]
fn ten_thousand_silent_connections_keep_nobody_out() {
    let folder = Folder::new("flood");
    let (_simulators, serving) = serving(&folder);
    let caller = Caller::start(&serving);
    let started = tokio::time::Instant::now();
    let mut flood = Vec::new();
    for _ in 0..FLOOD {
        match TcpStream::connect(&serving.adapter) {
            Ok(stream) => flood.push(stream),
            // This side has no more descriptors: what there is must do.
            Err(error) => {
                println!("{} connections, then {error}", flood.len());
                break;
            }
        }
    }
    println!("{} connections in {:?}", flood.len(), started.elapsed());
    assert!(flood.len() > 500, "too few descriptors for a flood: ulimit -n");
    caller.end("ten thousand silent connections");
    assert!(serving.page().unwrap().contains("reason=\"evicted\""), "{}", serving.page().unwrap());
}

#[test]
fn torn_handshakes_garbage_and_endless_heads_keep_nobody_out() {
    let folder = Folder::new("torn");
    let (_simulators, serving) = serving(&folder);
    let caller = Caller::start(&serving);
    for attack in 0..600 {
        let Ok(mut stream) = TcpStream::connect(&serving.adapter) else { continue };
        // The other side may be gone already: that is its good right.
        drop(match attack % 3 {
            // A TLS record that announces more than comes.
            0 => stream.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01]),
            1 => stream.write_all(b"GET /apis HTTP/1.1\r\nhost: x\r\n\r\n"),
            _ => stream.write_all(&[b'x'; 100_000]),
        });
    }
    let mut plain = TcpStream::connect(&serving.exporter).unwrap();
    plain.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut written = 0;
    let line = format!("x-{}: y\r\n", "a".repeat(1000));
    while written < 10 << 20 && plain.write_all(line.as_bytes()).is_ok() {
        written += line.len();
    }
    let mut answer = String::new();
    // A reset after the refusal is as good an answer.
    drop(plain.read_to_string(&mut answer));
    assert!(written < 10 << 20 && (answer.is_empty() || answer.contains(" 431 ")), "{written} bytes of head: {answer}");
    caller.end("torn handshakes, garbage, endless heads");
    assert!(serving.page().unwrap().contains("weir_serving_"), "the exporter still answers");
}

#[test]
fn rapid_resets_keep_nobody_out() {
    /// Requests that each of a few connections begins and takes back.
    const RESETS: usize = 20_000;
    let folder = Folder::new("resets");
    let (_simulators, serving) = serving(&folder);
    let caller = Caller::start(&serving);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let authority = rustls_pki_types::CertificateDer::from_pem_file(&serving.ca_file).unwrap();
    roots.add(authority).unwrap();
    weir_serving::install_crypto_provider();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let resets = runtime.block_on(async {
        let mut total = 0;
        for _ in 0..4 {
            let stream = tokio::net::TcpStream::connect(&serving.adapter).await.unwrap();
            let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            for _ in 0..RESETS {
                // Sooner or later the server has had enough of this connection.
                let Ok(ready) = client.ready().await else { break };
                client = ready;
                let request = http::Request::get("https://127.0.0.1/apis").body(()).unwrap();
                let Ok((_answer, mut stream)) = client.send_request(request, true) else { break };
                stream.send_reset(h2::Reason::CANCEL);
                total += 1;
                tokio::task::yield_now().await;
            }
            connection.abort();
        }
        total
    });
    println!("{resets} requests begun and taken back");
    assert!(resets > 0);
    caller.end("rapid resets");
}
