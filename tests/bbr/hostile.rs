//! Bodies of all kinds through both modes of a real Envoy, to a server that tells what came.

use std::convert::Infallible;

use futures_util::stream;
use serde_json::json;
use weir_tests::text;

use super::scene::{Received, Running, Scene};

const LISTENERS: [&str; 2] = ["duplex", "unary"];
const RULES: &str =
    "names: { models: [glm-5], prefixes: [{ prefix: openai }] }\nmappings: [{ baseModel: llama, adapters: [sql-lora] }]\n";

impl Scene {
    /// What reaches the server of a request with this body; the refusal otherwise.
    async fn through(&self, listener: &str, request: reqwest::RequestBuilder) -> Result<Received, (u16, String)> {
        let answer = request.send().await.unwrap();
        let (status, told) = (answer.status().as_u16(), text(answer).await.unwrap());
        let mut received = self.take_received();
        if status != 200 {
            assert!(received.is_empty(), "{listener}: {received:?}");
            return Err((status, told));
        }
        assert_eq!(received.len(), 1, "{listener}");
        Ok(received.remove(0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_keep_their_bytes_but_for_the_model() {
    let scene = Scene::start("bytes", RULES, Vec::new).await;
    for listener in LISTENERS {
        for size in [1, 1000, 65_536, 1 << 20, 10 << 20] {
            let body = |model: &str| {
                format!(
                    "{{ \"max_tokens\": 1e2, \"model\" : \"{model}\", \"x\": \"<\\u00e9é>\", \"prompt\":\"{}\"}}",
                    "p".repeat(size)
                )
            };
            for (asked, sent, base) in
                [("sql-lora", "sql-lora", Some("llama")), ("openai/openai/glm-5", "glm-5", None), ("größe", "größe", None)]
            {
                let received = scene.through(listener, scene.post(listener, body(asked))).await.unwrap();
                assert!(received.body == body(sent), "{listener} {size} {asked}: the body differs");
                assert_eq!(received.header("x-gateway-model-name").as_deref(), Some(sent));
                assert_eq!(received.header("x-gateway-base-model-name").as_deref(), base, "an unknown model has no such header");
                if let Some(length) = received.header("content-length") {
                    assert_eq!(length, body(sent).len().to_string());
                }
            }
        }
    }
    scene.router.page_until("weir_bbr_streams 0");
    scene.router.page_until("weir_bbr_rewritten_total 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_is_read_whole() {
    let scene = Scene::start("pieces", RULES, Vec::new).await;
    let body = json!({ "stream": true, "model": "openai/glm-5", "prompt": "x".repeat(3000) }).to_string();
    for listener in LISTENERS {
        let pieces: Vec<Result<Vec<u8>, Infallible>> = body.as_bytes().chunks(7).map(|piece| Ok(piece.to_vec())).collect();
        let request = scene.post(listener, reqwest::Body::wrap_stream(stream::iter(pieces)));
        let received = scene.through(listener, request).await.unwrap();
        assert_eq!(received.body, body.replace("openai/", ""), "{listener}");
        assert_eq!(received.header("x-gateway-model-name").as_deref(), Some("glm-5"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_refused_with_the_reason_or_pass_without_headers() {
    let scene = Scene::start("hostile", RULES, Vec::new).await;
    let long = json!({ "model": "m".repeat(5000) }).to_string();
    let deep = format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for listener in LISTENERS {
        for (body, wanted) in [
            ("{\"model\":", "failed to parse request body: EOF while parsing a value at line 1 column 9"),
            ("[1]", "failed to parse request body: the body is not a JSON object"),
            ("{\"model\":\"a\",\"model\":\"b\"}", "failed to parse request body: duplicate field `model`"),
            ("{\"model\":\"a\\r\\nx-evil: 1\"}", "the value of `model` has the control character U+000D"),
            ("{\"model\":\"\\ud800\"}", "the value of `model` is no text"),
            (&long, "the value of `model` is no text of at most 4096 bytes"),
        ] {
            let refused = scene.through(listener, scene.post(listener, body.to_owned())).await.unwrap_err();
            assert!(refused.0 == 400 && refused.1.starts_with(&format!("inference error: BadRequest - {wanted}")), "{refused:?}");
        }
        // What is not read may be as deep as it likes.
        let received = scene.through(listener, scene.post(listener, deep.clone())).await.unwrap();
        assert!(received.body == deep && received.header("x-gateway-model-name").as_deref() == Some("m"));
        for body in ["{}", "{\"model\":null}", "{\"model\":{\"a\":1}}", "{\"model\":\"\"}"] {
            let spoofed = scene.post(listener, body).header("x-gateway-model-name", "mine");
            let received = scene.through(listener, spoofed).await.unwrap();
            assert_eq!((received.header("x-gateway-model-name"), &received.body[..]), (None, body.as_bytes()), "{listener}");
        }
        // Compressed bytes: refused by the header that says so, or as what they are.
        let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\xca\xcd\x4f\x49\xcd\x51\xb2\x52\xca\x55\xaa\x05\x00";
        let encoded = scene.post(listener, &gzip[..]).header("content-encoding", "gzip");
        let refused = scene.through(listener, encoded).await.unwrap_err();
        assert!(refused.0 == 400 && refused.1.contains("content-encoding is gzip: send it plain"), "{refused:?}");
        let refused = scene.through(listener, scene.post(listener, &gzip[..])).await.unwrap_err();
        assert!(refused.0 == 400 && refused.1.contains("the body is not UTF-8 text at byte 1"), "{refused:?}");
        // An upload is none of our business, and passes as it is.
        let mut upload = scene.post(listener, &gzip[..]).build().unwrap();
        upload.headers_mut().insert("content-type", "application/octet-stream".parse().unwrap());
        upload.headers_mut().insert("x-gateway-model-name", "mine".parse().unwrap());
        assert_eq!(scene.client.execute(upload).await.unwrap().status(), 200);
        let received = scene.take_received().remove(0);
        assert_eq!((received.header("x-gateway-model-name"), &received.body[..]), (None, &gzip[..]), "{listener}");
    }
    let too_long = scene.through("duplex", scene.post("duplex", "x".repeat(17 << 20))).await.unwrap_err();
    assert_eq!(too_long.0, 413, "{too_long:?}");
    // Nobody is left waiting, and it still works.
    scene.router.page_until("weir_bbr_streams 0");
    assert!(scene.through("duplex", scene.post("duplex", "{\"model\":\"m\"}")).await.is_ok());
}

#[test]
fn it_ends_when_told_and_says_what_is_wrong_with_its_rules() {
    let folder = weir_tests::Folder::new("bbr-ends");
    let rules = folder.write("rules.yaml", "apiVersion: weir/v1\n");
    let running = Running::router(&rules, &["--secure-serving=false"]);
    assert!(running.page().contains("bbr_info{commit=\""));
    assert_ne!(running.health, running.ext_proc);
    let (well, output) = running.process.terminate();
    assert!(well, "{output}");
    folder.write("rules.yaml", "apiVersion: weir/v1\nnames: { aliases: { a: a } }\n");
    let refused = weir_tests::run(&["bbr", "--rules", &rules.display().to_string(), "--bind-address=127.0.0.1"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("names.aliases.a: leads back to itself"), "{told}");
}
