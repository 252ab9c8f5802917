//! The picker behind a real Envoy, from `tests/envoy/install`.

#![allow(clippy::unwrap_used)]

#[path = "envoy/setup.rs"]
mod setup;

use futures_util::{StreamExt, stream};
use setup::{ALIAS, Gateway, HELD, document, event};
use weir_tests::text;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LISTENERS: [&str; 3] = ["known", "original", "buffered"];

fn prompt(model: &str, size: usize) -> String {
    format!("{{\"max_tokens\": 1e2, \"model\": \"{model}\", \"prompt\": \"{}\", \"x\": \"<\\u00e9é>\"}}", "p".repeat(size))
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_sizes_pass_byte_for_byte_both_ways() {
    let gateway = Gateway::start("bytes").await;
    for listener in LISTENERS {
        for size in [1, 1000, 65_536, 1 << 20, 5 << 20] {
            let body = prompt("llama", size);
            let response = gateway.post(listener, "/v1/completions?x=1", body.clone(), size).send().await.unwrap();
            assert_eq!(response.status(), 200, "{listener} {size}");
            assert_eq!(response.headers()["x-went-into-resp-headers"], "true");
            assert!(text(response).await.unwrap() == document("llama", size), "{listener} {size}: the answer differs");
            let received = gateway.take_received();
            assert!(received[0].body == body, "{listener} {size}: the body differs");
            assert_eq!(received[0].server, gateway.servers[0]);
            let log = gateway.take_log("ended");
            let told: Vec<&str> = log.iter().map(String::as_str).filter(|line| !line.starts_with("served")).collect();
            assert_eq!(told, ["started 200", "usage 3 4", "completed", "ended"], "{listener} {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_goes_where_the_picker_says() {
    let gateway = Gateway::start("apis").await;
    let chat = r#"{"model":"llama","messages":[{"role":"user","content":"hi"}]}"#;
    for listener in LISTENERS {
        for (path, body) in [
            ("/v1/completions", prompt("llama", 1)),
            ("/v1/chat/completions", chat.into()),
            ("/v1/embeddings", r#"{"model":"m","input":["a"]}"#.into()),
        ] {
            for index in [0, 1] {
                let request = gateway.post(listener, path, body.clone(), 10).header("test-epp-endpoint-selection", index);
                let request =
                    request.header("x-gateway-inference-objective", "o").header("x-gateway-destination-endpoint", "127.0.0.9:9");
                assert_eq!(request.send().await.unwrap().status(), 200);
                let received = gateway.take_received();
                assert_eq!((received.len(), received[0].server), (1, gateway.servers[index]), "{listener} {path}");
                let headers = &received[0].headers;
                assert!(!headers.contains_key("x-gateway-inference-objective"));
                assert!(headers.contains_key("x-request-id"));
                assert_eq!(headers["x-gateway-destination-endpoint"], gateway.servers[index].to_string());
                let served = format!("served by {}", gateway.servers[index]);
                let log = gateway.take_log("ended");
                // The buffering listener forwards no attributes, and its cluster sets no metadata.
                assert_eq!(log.contains(&served), listener != "buffered", "{log:?}");
            }
        }
        let response = gateway
            .client
            .get(gateway.url(listener, "/v1/models"))
            .header("test-epp-endpoint-selection", "1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(gateway.take_received()[0].server, gateway.servers[1]);
        gateway.take_log("ended");
        let head = gateway.client.head(gateway.url(listener, "/health")).send().await.unwrap();
        assert_eq!((head.status().as_u16(), gateway.take_received()[0].method.as_str()), (200, "HEAD"));
        gateway.take_log("ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_name_of_a_model_goes_in_and_comes_back_out() {
    let gateway = Gateway::start("names").await;
    for listener in LISTENERS {
        let response = gateway.post(listener, "/v1/completions", prompt(ALIAS[0], 3000), 100_000).send().await.unwrap();
        assert!(text(response).await.unwrap() == document(ALIAS[0], 100_000), "{listener}");
        let received = gateway.take_received();
        assert!(received[0].body == prompt(ALIAS[1], 3000), "{listener}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_the_client_as_they_come() {
    let gateway = Gateway::start("events").await;
    for listener in LISTENERS {
        gateway.gate.send_replace(false);
        let body = format!(r#"{{"stream":true,"model":"{}","prompt":"a"}}"#, ALIAS[0]);
        let mut response = gateway.post(listener, "/v1/completions", body, 0).send().await.unwrap();
        // The second event is not made before the first was read here.
        let mut read = Vec::new();
        while read.len() < event(ALIAS[0], 1).len() {
            read.extend_from_slice(&response.chunk().await.unwrap().unwrap());
        }
        gateway.gate.send_replace(true);
        while let Some(chunk) = response.chunk().await.unwrap() {
            read.extend_from_slice(&chunk);
        }
        let wanted = format!("{}{}data: [DONE]\n\n", event(ALIAS[0], 1), event(ALIAS[0], 2));
        assert_eq!(String::from_utf8(read).unwrap(), wanted, "{listener}");
        let log = gateway.take_log("ended");
        assert!(log.ends_with(&["usage 3 2".into(), "completed".into(), "ended".into()]), "{listener}: {log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_reach_the_client() {
    let gateway = Gateway::start("refusals").await;
    for listener in LISTENERS {
        let response = gateway.post(listener, "/v1/completions", r#"{"model":"m"}"#, 0).send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(
            text(response).await.unwrap(),
            "inference error: BadRequest - prompt not found in request: must have prompt field"
        );
        assert_eq!(gateway.take_log("refused BadRequest").len(), 1);
    }
    let response = gateway.post("known", "/v1/completions", prompt("llama", 17 << 20), 0).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert!(gateway.take_received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_is_served_once_there_is_room_and_let_go_once_its_client_is_gone() {
    let mut gateway = Gateway::start("hold").await;
    for listener in LISTENERS {
        gateway.gate.send_replace(false);
        let gone = tokio::spawn(gateway.post(listener, "/v1/completions", prompt(HELD, 1 << 18), 0).send());
        let stays = tokio::spawn(gateway.post(listener, "/v1/completions", prompt(HELD, 1 << 18), 0).send());
        gateway.waiting.wait_for(|waiting| *waiting == 2).await.unwrap();
        gone.abort();
        gateway.waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
        gateway.gate.send_replace(true);
        assert_eq!(stays.await.unwrap().unwrap().status(), 200, "{listener}");
        assert_eq!(gateway.take_received().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_that_dies_is_an_error_at_once() {
    let mut gateway = Gateway::start("death").await;
    let waits = tokio::spawn(gateway.post("known", "/v1/completions", prompt(HELD, 1), 0).send());
    gateway.waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    gateway.picker.abort();
    assert_eq!(waits.await.unwrap().unwrap().status(), 503, "the gateway's own, as configured");
    let after = gateway.post("known", "/v1/completions", prompt("llama", 1), 0).send().await.unwrap();
    assert_eq!(after.status(), 503);
    assert!(gateway.take_received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_envoy_resets_cost_nobody_a_request() {
    let gateway = Gateway::start("resets").await;
    let requests = stream::iter(0..2000).map(|_| gateway.post("known", "/v1/completions", prompt("llama", 100), 100).send());
    let answers: Vec<reqwest::Response> = requests.buffer_unordered(16).map(Result::unwrap).collect().await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    assert_eq!(gateway.take_received().len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_goes_both_ways() {
    let gateway = Gateway::start("upgrade").await;
    let mut stream = TcpStream::connect(gateway.address("original")).await.unwrap();
    let head =
        "GET /socket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\ntest-epp-endpoint-selection: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answered = Vec::new();
    while !answered.ends_with(b"\r\n\r\n") {
        answered.push(stream.read_u8().await.unwrap());
    }
    assert!(answered.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answered));
    for frame in [&b"one frame"[..], b"another one"] {
        stream.write_all(frame).await.unwrap();
        let mut echoed = vec![0; frame.len()];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_gateway_is_told_from_one_of_the_server() {
    let gateway = Gateway::start("failures").await;
    for (listener, told) in [("original", "gateway answered 503 Unreached"), ("buffered", "started 503")] {
        for (index, reason) in [(3, "remote connection failure"), (4, "connection termination")] {
            let request = gateway.post(listener, "/v1/completions", prompt("llama", 10), 0);
            let response = request.header("test-epp-endpoint-selection", index).send().await.unwrap();
            assert_eq!(response.status(), 503, "{listener}");
            assert!(text(response).await.unwrap().ends_with(reason));
            // Only the gateway's details tell the two apart, and the buffering listener forwards none.
            assert!(gateway.take_log("ended").contains(&told.to_owned()), "{listener} {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_sends_no_bodies_is_asked_for_them() {
    let mut gateway = Gateway::start("asked").await;
    let response = gateway.post("asked", "/v1/completions", prompt(ALIAS[0], 300_000), 100_000).send().await.unwrap();
    assert!(text(response).await.unwrap() == document(ALIAS[0], 100_000));
    assert!(gateway.take_received()[0].body == prompt(ALIAS[1], 300_000));
    assert!(gateway.take_log("ended").contains(&"usage 3 4".to_owned()));
    let held = tokio::spawn(gateway.post("asked", "/v1/completions", prompt(HELD, 1 << 18), 0).send());
    gateway.waiting.wait_for(|waiting| *waiting == 1).await.unwrap();
    gateway.gate.send_replace(true);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    let models = gateway.client.get(gateway.url("asked", "/v1/models")).send().await.unwrap();
    assert_eq!(models.status(), 200);
}
