//! What is sent, what comes, what is kept between scrapes.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use weir_datastore::FailureKind;
use weir_datastore::page::Format;

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server, page};
use crate::{FetchConfig, fetch_page};

#[tokio::test]
async fn one_page_is_fetched_with_the_headers_that_servers_need() {
    let server = Server::with(1).await;
    let url = format!("http://{}/metrics?x=1", server.address);
    let fetched = fetch_page(&url, &FetchConfig::default()).await.unwrap();
    assert_eq!((fetched.bytes, fetched.format, fetched.url), (page(1).into_bytes(), Format::Text, url));
    let head = server.heads().remove(0);
    assert!(head.starts_with("GET /metrics?x=1 HTTP/1.1\r\n"), "{head}");
    let mut lines: Vec<_> = head.trim_end().lines().skip(1).map(str::to_ascii_lowercase).collect();
    lines.sort();
    let expected = [
        "accept-encoding: identity".to_owned(),
        "accept: text/plain;version=0.0.4".to_owned(),
        format!("host: {}", server.address),
        format!("user-agent: weir/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn gzip_is_unpacked_and_the_content_type_told() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(page(2).as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let headers = "Content-Type: application/openmetrics-text; version=1.0.0\r\nContent-Encoding: gzip\r\n";
    let server = Server::start(move |_| Answer::http("200 OK", headers, &body)).await;
    let fetched = fetch_page(&format!("http://{}/", server.address), &FetchConfig::default()).await.unwrap();
    assert_eq!((fetched.bytes, fetched.format), (page(2).into_bytes(), Format::OpenMetrics));
}

#[tokio::test]
async fn a_single_fetch_keeps_its_limits() {
    let server = Server::start(|_| Answer::Hang).await;
    let url = format!("http://{}/metrics", server.address);
    let config = FetchConfig { timeout: Duration::from_millis(100), ..FetchConfig::default() };
    let hung = fetch_page(&url, &config).await.unwrap_err();
    assert_eq!(hung.kind, FailureKind::Timeout);
    assert_eq!(hung.to_string(), hung.message);
    assert!(hung.message.starts_with(&format!("{url}: no answer within 100ms")), "{hung}");
    server.set(|_| Answer::Page(page(1)));
    let small = FetchConfig { max_body_bytes: page(1).len() - 1, ..FetchConfig::default() };
    assert_eq!(fetch_page(&url, &small).await.unwrap_err().kind, FailureKind::TooLarge);
    let unresolved = fetch_page("http://no-such-host.invalid:80/metrics", &FetchConfig::default()).await.unwrap_err();
    assert!(matches!(unresolved.kind, FailureKind::Connect | FailureKind::Timeout), "{unresolved}");
}

#[tokio::test]
async fn what_a_server_says_cannot_break_the_line() {
    let server = Server::start(|_| Answer::http("302 Found", &format!("Location: http://x/{}\r\n", "y".repeat(5000)), "")).await;
    let failure = fetch_page(&format!("http://{}/", server.address), &FetchConfig::default()).await.unwrap_err();
    assert!(failure.message.chars().count() <= 601 && failure.message.ends_with('…'), "{failure}");
    assert!(!failure.message.contains(char::is_control));
}

#[tokio::test]
async fn a_redirect_to_another_path_is_followed_and_remembered_as_long_as_it_leads_somewhere() {
    let server = Server::start(|head| match head.starts_with("GET /metrics/ ") {
        true => Answer::Page(page(2)),
        false => Answer::http("307 Temporary Redirect", "Location: /metrics/\r\n", ""),
    })
    .await;
    let once = fetch_page(&format!("http://{}/metrics", server.address), &FetchConfig::default()).await.unwrap();
    assert_eq!(once.url, format!("http://{}/metrics/", server.address));
    let before = server.requests();
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    rig.until_running(server.address, 2.0).await;
    eventually("it is read often", || server.requests() >= before + 6).await;
    assert_eq!(server.paths()[before..before + 6], ["/metrics", "/metrics/", "/metrics/", "/metrics/", "/metrics/", "/metrics/"]);
    // Another server takes its place, without the redirect.
    server.set(|head| match head.starts_with("GET /metrics ") {
        true => Answer::Page(page(3)),
        false => Answer::http("404 Not Found", "", ""),
    });
    rig.until_running(server.address, 3.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::with(1).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    eventually("it is read often", || server.requests() >= 10).await;
    assert_eq!(server.accepted(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_large_page_is_read_and_what_is_wrong_on_it_is_counted() {
    let filler = "some_other_family{label=\"value\"} 1\n".repeat(20_000);
    let labels = "{engine=\"0\",model_name=\"llama\"}";
    let broken = format!(
        "vllm:num_requests_running{labels} 9\nvllm:kv_cache_usage_perc{{engine=\"1\"}} 73.4\nvllm:num_requests_waiting{{\n"
    );
    let large = format!("{filler}{}{broken}", page(4));
    assert!(large.len() > 600_000);
    let served = large.clone();
    let server = Server::start(move |_| Answer::Page(served.clone())).await;
    let config = crate::CollectorConfig { max_body_bytes: 1 << 20, ..quick() };
    let rig = Rig::start(config, vec![pool(&[server.address])]);
    rig.until_running(server.address, 4.0).await;
    eventually("it is read twice", || rig.scrapes("ok") >= 2.0).await;
    rig.want(Vec::new());
    eventually("reading ends", || rig.metric("weir_endpoints_watched") == 0.0).await;
    let scrapes = rig.scrapes("ok");
    assert_eq!(rig.metric("weir_scrape_body_bytes_total"), scrapes * large.len() as f64);
    assert_eq!(rig.metric("weir_scrape_dropped_lines_total"), scrapes);
    assert_eq!(rig.metric("weir_scrape_invalid_samples_total"), scrapes);
    assert_eq!(rig.metric("weir_scrape_duplicate_samples_total"), scrapes);
    assert_eq!(rig.metric("weir_scrape_duration_seconds_count"), scrapes);
    rig.stop().await;
}

#[tokio::test]
async fn times_that_pass_during_a_slow_read_are_counted_and_left_out() {
    let server = Server::start(|_| {
        // As a server that is busy; other tests do not share this runtime.
        std::thread::sleep(Duration::from_millis(120));
        Answer::Page(page(1))
    })
    .await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    eventually("some reads", || rig.scrapes("ok") >= 5.0).await;
    assert!(rig.metric("weir_scrape_overdue_total") >= 5.0);
    rig.stop().await;
}
