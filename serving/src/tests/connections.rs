use std::time::Duration;

use axum::{Extension, Router, body::Body, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;
use crate::{ConnectionInfo, ConnectionLimits, Tls};

const SHORT: Duration = Duration::from_millis(300);

fn closed(reason: &str) -> String {
    format!(r#"weir_serving_closed_connections_total{{component="test",reason="{reason}"}}"#)
}

fn page() -> Router {
    Router::new().route("/", get(async || "page"))
}

async fn start_with(limits: ConnectionLimits) -> Running {
    start(page(), |builder| builder.connection_limits(limits)).await
}

#[tokio::test]
async fn a_trickling_head_is_cut_also_on_a_connection_that_asked_before() {
    let server = start_with(ConnectionLimits { header_read: SHORT, ..ConnectionLimits::default() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, "");

    for asked_before in [false, true] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if asked_before {
            ask(&mut stream, "/", "page").await;
        }
        let (mut reader, mut writer) = stream.into_split();
        let trickle = tokio::spawn(async move {
            while writer.write_all(b"G").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let mut rest = Vec::new();
        let end = tokio::time::timeout(LONG, reader.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "never cut, asked before: {asked_before}");
        trickle.abort();
    }
    server.wait_for_metric(&closed("header_timeout"), 3.0).await;
}

#[tokio::test]
async fn a_kept_connection_outlives_the_header_timeout_and_ends_when_idle() {
    let server = start_with(ConnectionLimits { header_read: SHORT, idle: 4 * SHORT, ..ConnectionLimits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let asked = tokio::time::Instant::now();
    ask(&mut stream, "/", "page").await;
    assert_eq!(read_to_end(&mut stream).await, "");
    assert!(asked.elapsed() >= 4 * SHORT, "{:?}", asked.elapsed());
    server.wait_for_metric(&closed("idle"), 1.0).await;
    assert_eq!(server.metric(&closed("header_timeout")), 0.0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_to_go() {
    let server = start_with(ConnectionLimits { idle: SHORT, ..ConnectionLimits::default() }).await;
    let h2 = http2_client();
    let get = async || h2.get(server.url("/")).send().await.unwrap().status();
    assert_eq!(get().await, 200);
    server.wait_for_metric(&closed("idle"), 1.0).await;
    assert_eq!(get().await, 200, "the client opens another");
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let limits = ConnectionLimits { handshake: SHORT, ..ConnectionLimits::default() };
    let tls = Tls::self_made(authority(), [] as [&str; 0]);
    let server = start(page(), |builder| builder.connection_limits(limits).tls(tls)).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(&mut silent).await, "");
    let series = r#"weir_serving_tls_handshake_failures_total{component="test",reason="timeout"}"#;
    server.wait_for_metric(series, 1.0).await;
    let answer = exchange(server.address, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1 200"), "plain text gets no page");
}

#[tokio::test]
async fn huge_heads_are_refused_by_both_versions() {
    let server = start(page(), |builder| builder).await;
    let limit = ConnectionLimits::default().header_bytes as usize;
    let value = |length: usize| "x".repeat(length);
    let client = plain_client();
    let h2 = http2_client();
    for client in [client, h2] {
        let get = |length: usize| client.get(server.url("/")).header("x-a", value(length));
        assert_eq!(get(limit / 2).send().await.unwrap().status(), 200);
        // Either the answer, or the connection ended while the client was still writing.
        if let Ok(response) = get(2 * limit).send().await {
            assert_eq!(response.status(), 431);
        }
    }
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let answer = exchange(server.address, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(
        server.metric(
            r#"apiserver_request_total{component="test",verb="GET",group="",version="",resource="",subresource="/",code="200"}"#
        ),
        2.0,
        "no handler saw a huge head"
    );
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_until_there_is_room() {
    let server = start_with(ConnectionLimits { connections: 2, ..ConnectionLimits::default() }).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask(&mut stream, "/", "page").await;
        kept.push(stream);
    }
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(read_to_end(&mut refused).await, "");
    let series = r#"weir_serving_connections_total{component="test",result="refused"}"#;
    assert_eq!(server.metric(series), 1.0);
    ask(&mut kept[0], "/", "page").await;
    kept.pop();
    wait_until("there is room again", async || {
        let answer = exchange(server.address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        answer.ends_with("page")
    })
    .await;
}

#[tokio::test]
async fn silent_connections_make_room_for_those_who_ask() {
    const LIMIT: usize = 4;
    let server = start_with(ConnectionLimits { connections: LIMIT, ..ConnectionLimits::default() }).await;
    let mut proven = TcpStream::connect(server.address).await.unwrap();
    ask(&mut proven, "/", "page").await;
    let mut silent = Vec::new();
    for _ in 0..5 * LIMIT {
        silent.push(TcpStream::connect(server.address).await.unwrap());
        ask(&mut proven, "/", "page").await;
    }
    let answer = exchange(server.address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("page"), "a newcomer who asks is answered: {answer}");
    assert_eq!(read_to_end(&mut silent[0]).await, "", "the oldest silent one went");
    server.wait_for_metric(&closed("evicted"), (4 * LIMIT + 2) as f64).await;
    ask(&mut proven, "/", "page").await;
}

#[tokio::test]
async fn old_connections_are_told_to_go_and_streams_end() {
    let limits = ConnectionLimits { age: (SHORT, 2 * SHORT), ..ConnectionLimits::default() };
    // A stream that ends only because its connection should.
    let stream = |Extension(connection): Extension<ConnectionInfo>| async move {
        let closing = connection.closing().clone();
        Body::new(UntilCancelled(Box::pin(closing.cancelled_owned())))
    };
    let router = page().route("/stream", get(stream));
    let server = start(router, |builder| builder.connection_limits(limits)).await;
    let h2 = http2_client();
    for client in [plain_client(), h2] {
        let response = client.get(server.url("/stream")).send().await.unwrap();
        assert_eq!(body(response).await, "");
    }
    server.wait_for_metric(&closed("age"), 2.0).await;
}

/// A body without bytes that ends when the future does.
struct UntilCancelled(std::pin::Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>);

impl hyper::body::Body for UntilCancelled {
    type Data = axum::body::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
        self.0.as_mut().poll(context).map(|()| None)
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut() {
    let limits = ConnectionLimits { write_stall: SHORT, ..ConnectionLimits::default() };
    let router = Router::new().route("/", get(async || "x".repeat(64 << 20)));
    let server = start(router, |builder| builder.connection_limits(limits)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    server.wait_for_metric(&closed("stalled"), 1.0).await;
    drop(stream);
}

/// Runs itself with few file descriptors: they run out, accepting pauses, and goes on once there are some again.
#[test]
fn running_out_of_descriptors_pauses_accepting() {
    const CHILD: &str = "WEIR_SERVING_FEW_DESCRIPTORS";
    const NAME: &str = "tests::connections::running_out_of_descriptors_pauses_accepting";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(exhaust_descriptors());
    }
    let output = std::process::Command::new("sh")
        .args(["-c", r#"ulimit -n 64 && exec "$0" --exact "$1" --nocapture"#])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

async fn exhaust_descriptors() {
    let server = start(page(), |builder| builder).await;
    // Each connection takes two descriptors here: the client's and the server's. One is set aside for a last client,
    // so that it is the server that finds none.
    let spare = std::fs::File::open("/dev/null").unwrap();
    let mut clients = Vec::new();
    while let Ok(stream) = TcpStream::connect(server.address).await {
        clients.push(stream);
        tokio::task::yield_now().await;
    }
    drop(spare);
    clients.push(TcpStream::connect(server.address).await.unwrap());
    let errors = r#"weir_serving_accept_errors_total{component="test"}"#;
    server.wait_for_metric(errors, 3.0).await;
    let taken = clients.len();
    clients.truncate(taken / 2);
    wait_until("accepting goes on", async || {
        let Ok(mut stream) = TcpStream::connect(server.address).await else {
            return false;
        };
        ask(&mut stream, "/", "page").await.ends_with("page")
    })
    .await;
    assert!(server.metric(errors) < 100.0, "paused, not spinning: {}", server.metric(errors));
}
