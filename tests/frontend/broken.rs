//! Clients that do not keep to the rules: each is answered or cut off, and nothing of them stays.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_tests::Folder;

use super::server::ModelServer;
use super::{Picker, ask, client, start};

/// Writes `sent`, reads until the other side ends, or has told a whole head.
async fn talk(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have heard enough before the end.
    drop(stream.write_all(sent).await);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        heard.extend_from_slice(&buffer[..bytes]);
        if heard.windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

fn head(headers: &str) -> Vec<u8> {
    format!("POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}\r\n").into_bytes()
}

async fn nothing_stays(picker: &Picker) {
    let all = |page: &str| {
        ["weir_ext_proc_streams 0", "weir_ext_proc_waiting_requests 0", "weir_ext_proc_waiting_bytes 0"]
            .iter()
            .all(|line| page.lines().any(|known| known == *line))
    };
    picker.page_until("nothing of them stays", all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_clients_are_answered_or_cut_off_and_hurt_nobody_else() {
    let folder = Folder::new("broken");
    let server = ModelServer::start().await;
    let (picker, url) = start(&folder, &server.address.to_string(), "--http-body-timeout 300ms", &[]).await;
    let address = picker.http.unwrap();
    let begins = |answer: &str, wanted: &str| assert!(answer.starts_with(wanted), "{wanted}: {answer}");

    begins(&talk(address, b"nonsense\r\n\r\n").await, "HTTP/1.1 400");
    let long = format!("x-long: {}\r\n", "a".repeat(100 << 10));
    begins(&talk(address, &head(&long)).await, "HTTP/1.1 431");
    let many: String = (0..300).map(|index| format!("x-{index}: a\r\n")).collect();
    begins(&talk(address, &head(&many)).await, "HTTP/1.1 431");
    begins(&talk(address, &head("content-length: 5\r\ncontent-length: 6\r\n")).await, "HTTP/1.1 400");
    // A body that stands still, whole or in pieces.
    let slow = talk(address, &[&head("content-length: 1000\r\n")[..], b"{\"model\""].concat()).await;
    begins(&slow, "HTTP/1.1 408");
    assert!(slow.to_ascii_lowercase().contains("connection: close"), "{slow}");
    begins(&talk(address, &[&head("transfer-encoding: chunked\r\n")[..], b"3\r\n{\"m\r\n"].concat()).await, "HTTP/1.1 408");
    begins(&talk(address, &[&head("transfer-encoding: chunked\r\n")[..], b"zz\r\n"].concat()).await, "HTTP/1.1 400");
    // An upload that nobody reads on the way stands still, too: the client's fault, not the server's.
    let upload = b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-type: application/octet-stream\r\ncontent-length: 1000\r\n\r\nabc";
    begins(&talk(address, upload).await, "HTTP/1.1 408");
    begins(
        &talk(address, b"GET /v1/realtime HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await,
        "HTTP/1.1 501",
    );
    begins(&talk(address, b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").await, "HTTP/1.1 501");

    // Some go in the middle of what they say.
    for part in [&head("content-length: 1000\r\n")[..20], &head("content-length: 1000\r\n"), b"\x16\x03\x01\x00"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(part).await.unwrap();
    }
    nothing_stays(&picker).await;
    let page = picker.page().await;
    for (series, least) in [
        ("weir_epp_http_refusals_total{reason=\"slow_body\"}", 2.0),
        ("weir_epp_http_refusals_total{reason=\"not_spoken\"}", 2.0),
        ("weir_epp_http_failures_total{reason=\"client\"}", 1.0),
    ] {
        assert!(super::rig::value(&page, series) >= Some(least), "{series}: {page}");
    }
    assert!(page.lines().filter(|line| line.starts_with("weir_epp_ejections_total")).all(|line| line.ends_with(" 0")), "{page}");
    assert_eq!(ask(&client(), &url).send().await.unwrap().status(), 200);
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_within_an_answer_free_their_places() {
    let folder = Folder::new("broken-streams");
    let (_simulator, addresses) = super::blocking(|| weir_tests::simulators(1)).await;
    let (picker, url) = start(&folder, &addresses[0], "", &[]).await;
    let client = client();
    for _ in 0..20 {
        let body = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","prompt":"hi","max_tokens":3000,"stream":true}"#;
        let request = client.post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body);
        let mut answer = request.send().await.unwrap();
        assert!(answer.chunk().await.unwrap().is_some());
        drop(answer);
    }
    nothing_stays(&picker).await;
    picker.page_until("20 counted as gone", |page| page.contains("kind=\"gone_in_response\"} 20")).await;
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_end() {
    let folder = Folder::new("broken-idle");
    let server = ModelServer::start().await;
    let (picker, _url) = start(&folder, &server.address.to_string(), "", &[]).await;
    let address = picker.http.unwrap();
    // Heads that never end and connections that say nothing: 10 s.
    let silent = talk(address, b"");
    let slow = talk(address, b"POST /v1/completions HTTP/1.1\r\nhost");
    let (silent, slow) = tokio::join!(silent, slow);
    assert_eq!(silent, "");
    assert!(slow.is_empty() || slow.starts_with("HTTP/1.1 408"), "{slow}");
    picker.ends_well().await;
}
