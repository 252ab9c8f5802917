//! Whatever one server does, it is told with kind, words and metric, and the server beside it stays fresh.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::Instant;
use weir_datastore::{FailureKind, Scheme};

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server, page};

/// Runs a bad server of pool settings `change` beside a good one until it has failed twice.
async fn fails(bad: SocketAddr, scheme: Scheme, kind: FailureKind, words: &[&str]) {
    let good = Server::with(0).await;
    let mut bad_pool = pool(&[bad]);
    bad_pool.spec.id = weir_datastore::PoolId::new("default", "bad");
    bad_pool.spec.metrics.scheme = scheme;
    let rig = Rig::start(quick(), vec![pool(&[good.address]), bad_pool.clone()]);
    rig.until_running(good.address, 0.0).await;
    let failure = || {
        let snapshots = rig.datastore.snapshots(Instant::now());
        snapshots.iter().find(|snapshot| snapshot.id == bad_pool.spec.id)?.endpoints[0].status.failure.clone()
    };
    // The good server's page changes all the time, and each change must arrive.
    let mut shown = 0;
    eventually("the bad server fails twice, and the good one is read ten times", || {
        if rig.running(good.address) == Some(f64::from(shown)) {
            shown += 1;
            let next = shown;
            good.set(move |_| Answer::Page(page(next)));
        }
        let age = rig.load(good.address).unwrap().scraped_at.elapsed();
        assert!(age < Duration::from_millis(1900), "the good server's page is {age:?} old");
        shown >= 10 && failure().is_some_and(|failure| failure.attempts >= 2)
    })
    .await;
    let failure = failure().unwrap();
    assert_eq!(failure.kind, kind, "{}", failure.message);
    let url = format!("{}://{bad}/metrics: ", scheme.as_str());
    assert!(failure.message.starts_with(&url), "{}", failure.message);
    for word in words {
        assert!(failure.message.contains(word), "no `{word}` in: {}", failure.message);
    }
    assert!(rig.scrapes(kind.label()) >= 2.0);
    assert!(rig.scrapes("ok") >= 10.0);
    assert_eq!(rig.failure(good.address), None);
    rig.stop().await;
}

async fn answer_fails(answer: Answer, kind: FailureKind, words: &[&str]) {
    let server = Server::start(move |_| answer.clone()).await;
    fails(server.address, Scheme::Http, kind, words).await;
}

fn ok(content_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n").into_bytes()
}

fn packed(page: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(page).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_endless_page() {
    let words = ["larger than 262144 bytes"];
    answer_fails(Answer::Endless(ok("text/plain")), FailureKind::TooLarge, &words).await;
}

#[tokio::test]
async fn a_page_announced_too_large() {
    let answer = Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 262145\r\n\r\n".to_vec());
    answer_fails(answer, FailureKind::TooLarge, &["larger than 262144 bytes"]).await;
}

#[tokio::test]
async fn a_page_that_drips() {
    let words = ["not complete within 500ms", "bytes had come", "too slow"];
    answer_fails(Answer::Drip(ok("text/plain")), FailureKind::Timeout, &words).await;
}

#[tokio::test]
async fn headers_that_drip() {
    answer_fails(Answer::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), FailureKind::Timeout, &["no answer within 500ms"]).await;
}

#[tokio::test]
async fn a_stall_before_the_headers() {
    answer_fails(Answer::Hang, FailureKind::Timeout, &["no answer within 500ms", "hung or overloaded"]).await;
}

#[tokio::test]
async fn a_web_page_with_200() {
    let answer = Answer::http("200 OK", "Content-Type: text/html\r\n", "<!doctype html><p>hello");
    answer_fails(answer, FailureKind::NotMetrics, &["text/html", "a web page", "is the path right?"]).await;
    let mistyped = Answer::http("200 OK", "Content-Type: text/plain\r\n", "<!doctype html><p>hello\n");
    answer_fails(mistyped, FailureKind::NotMetrics, &["HTML", "are address, port and metrics path right?"]).await;
}

#[tokio::test]
async fn json_with_200() {
    let answer = Answer::http("200 OK", "Content-Type: application/json\r\n", "[]");
    answer_fails(answer, FailureKind::NotMetrics, &["application/json", "/prometheus/metrics"]).await;
}

#[tokio::test]
async fn another_programs_metrics() {
    let answer = Answer::http("200 OK", "", "go_goroutines 7\n");
    answer_fails(answer, FailureKind::NoEngine, &["1 samples", "another program's"]).await;
}

#[tokio::test]
async fn statuses() {
    for (status, words) in [
        ("500 Internal Server Error", ["HTTP 500", "look at its log"]),
        ("404 Not Found", ["HTTP 404", "is the metrics path right?"]),
        ("401 Unauthorized", ["HTTP 401", "`bearerTokenFile`"]),
        ("501 Not Implemented", ["HTTP 501", "--metrics"]),
        ("503 Service Unavailable", ["HTTP 503", "starting or overloaded"]),
    ] {
        answer_fails(Answer::http(status, "", ""), FailureKind::Status, &words).await;
    }
}

#[tokio::test]
async fn nobody_listens() {
    let address = Server::with(1).await.address;
    fails(address, Scheme::Http, FailureKind::Connect, &["connection refused", "is the server listening"]).await;
}

#[tokio::test]
async fn a_tls_port_asked_without_tls() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = Server::start_tls(&certificate, |_| Answer::Page(page(1))).await;
    fails(server.address, Scheme::Http, FailureKind::NotMetrics, &["not HTTP", "set `scheme: https`"]).await;
    // Other libraries just close, or say so in HTTP.
    let words = ["closed without an answer", "set `scheme: https`"];
    answer_fails(Answer::Bytes(Vec::new()), FailureKind::Transfer, &words).await;
    let spoken = Answer::http("400 Bad Request", "", "Client sent an HTTP request to an HTTPS server.\n");
    answer_fails(spoken, FailureKind::Status, &["HTTP 400", "set `scheme: https`"]).await;
}

#[tokio::test]
async fn a_plain_port_asked_with_tls() {
    // What an HTTP server makes of a TLS greeting.
    let server = Server::start(|_| Answer::Hang).await;
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    fails(address, Scheme::Https, FailureKind::Tls, &["not TLS", "set `scheme: http`"]).await;
    answering.abort();
    // One that waits for the end of a line it will never see.
    fails(server.address, Scheme::Https, FailureKind::Timeout, &["no connection within 500ms"]).await;
}

#[tokio::test]
async fn a_redirect_to_another_server() {
    let other = Server::with(9).await;
    let answer = Answer::http("302 Found", &format!("Location: http://{}/metrics\r\n", other.address), "");
    let words = ["another server", &format!("http://{}/metrics", other.address), "not followed"];
    answer_fails(answer, FailureKind::Redirect, &words).await;
    assert_eq!(other.requests(), 0);
}

#[tokio::test]
async fn redirects_that_lead_nowhere() {
    for (location, words) in [
        ("Location: /metrics\r\n", "redirects to itself"),
        ("Location: /elsewhere\r\n", "a second time"),
        ("Location: https:///metrics\r\n", "set `scheme: https`"),
        ("Location: http://[\r\n", "not a URL"),
        ("", "without a readable Location"),
    ] {
        answer_fails(Answer::http("307 Temporary Redirect", location, ""), FailureKind::Redirect, &[words]).await;
    }
}

#[tokio::test]
async fn a_gzip_bomb() {
    let bomb = packed(&vec![b'\n'; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let answer = Answer::http("200 OK", "Content-Encoding: gzip\r\n", bomb);
    answer_fails(answer, FailureKind::TooLarge, &["larger than 262144 bytes"]).await;
}

#[tokio::test]
async fn gzip_that_is_cut_off_or_none() {
    let whole = packed(page(1).as_bytes());
    let cut = Answer::http("200 OK", "Content-Encoding: gzip\r\n", &whole[..whole.len() - 10]);
    answer_fails(cut, FailureKind::Transfer, &["gzip body is broken or cut off"]).await;
    let plain = Answer::http("200 OK", "Content-Encoding: gzip\r\n", page(1));
    answer_fails(plain, FailureKind::Transfer, &["gzip body is broken or cut off"]).await;
    let unknown = Answer::http("200 OK", "Content-Encoding: zstd\r\n", page(1));
    answer_fails(unknown, FailureKind::NotMetrics, &["`zstd`", "identity was asked for"]).await;
}

#[tokio::test]
async fn a_body_shorter_than_announced() {
    let page = page(1);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len() + 10);
    let answer = Answer::Bytes(format!("{head}{page}").into_bytes());
    answer_fails(answer, FailureKind::Transfer, &["broke off after", &format!("{} bytes", page.len())]).await;
}

#[tokio::test]
async fn half_a_page() {
    let page = page(123);
    let cut = &page[..page.find("123").unwrap() + 1];
    answer_fails(Answer::http("200 OK", "", cut), FailureKind::Transfer, &["cut off", "half a page is not used"]).await;
    let open_metrics = Answer::http("200 OK", "Content-Type: application/openmetrics-text\r\n", &page);
    answer_fails(open_metrics, FailureKind::Transfer, &["# EOF"]).await;
}

#[tokio::test]
async fn headers_without_end() {
    let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20));
    answer_fails(Answer::Bytes(head.into_bytes()), FailureKind::NotMetrics, &["not HTTP", "too large"]).await;
}

#[tokio::test]
async fn a_failing_server_recovers_and_its_last_page_stays_meanwhile() {
    let server = Server::with(3).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    rig.until_running(server.address, 3.0).await;
    server.set(|_| Answer::http("503 Service Unavailable", "", ""));
    let failure = rig.until_failing(server.address).await;
    assert_eq!(failure.kind, FailureKind::Status);
    assert_eq!(rig.running(server.address), Some(3.0), "a failure does not take the last page away");
    server.set(|_| Answer::Page(page(4)));
    rig.until_running(server.address, 4.0).await;
    let status = rig.status(server.address).unwrap();
    assert_eq!((status.failure.as_ref(), status.interval), (None, quick().idle_interval));
    rig.stop().await;
}
