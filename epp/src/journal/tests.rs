//! Lines of requests that went through an exchange and a director of the test's own.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_serving::Health;

use super::*;
use crate::conversation::Conversation;
use crate::exchange::{Chunk, Head, Incoming, Message, Reply, Settings};
use crate::frontend::Frontend;
use crate::{Code, Director, InferenceRequest, NoTicket, Pick, Refusal};

const SECRET: &str = "nobody may read this";

/// Picks one endpoint; refuses the model `full`.
struct One;

impl Director for One {
    fn direct<'a>(&'a self, request: InferenceRequest) -> Pin<Box<dyn Future<Output = Result<Pick, Refusal>> + Send + 'a>> {
        Box::pin(async move {
            if let Some(trail) = &request.trail {
                trail.resolved(7, Some(&"llama-8b".into()));
                trail.waits(Instant::now());
                tokio::time::sleep(Duration::from_millis(250)).await;
                trail.waited(Instant::now());
            }
            if request.model.as_deref() == Some("full") {
                let reason = Some("rejected-saturated");
                return Err(Refusal { code: Code::ResourceExhausted, message: "full".into(), reason, retry_after: Some(1) });
            }
            let endpoints = vec!["10.0.0.1:8000".parse().unwrap()];
            let ticket = Box::new(NoTicket);
            Ok(Pick { endpoints, target_model: None, request_headers: vec![], response_headers: vec![], ticket })
        })
    }

    fn refused(&self, _model: Option<&str>, _refusal: &Refusal) {}

    fn ready(&self) -> bool {
        true
    }
}

struct Rig {
    frontend: Frontend,
    log: AccessLog,
    file: PathBuf,
}

impl Rig {
    fn start(name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("weir-access-{}-{name}.log", std::process::id()));
        let mut registry = Registry::default();
        let (log, writer) = AccessLog::new(&AccessLogTarget::File(file.clone()), &mut registry).unwrap();
        writer.start().unwrap();
        let (random, leaving) = (StdRng::seed_from_u64(1), CancellationToken::new());
        let frontend = Frontend::new(Arc::new(One), Settings::default(), random, Health::new(), leaving, &mut registry).unwrap();
        let journal = Journal { access_log: Some(log.clone()), tracer: None };
        Self { frontend: frontend.telling(journal), log, file }
    }

    async fn lines(&self) -> Vec<Value> {
        // A thread writes: the clock must not run away from it.
        tokio::time::resume();
        self.log.flush(Duration::from_secs(10)).await;
        let text = std::fs::read_to_string(&self.file).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A request on its way to the director.
    fn request(&self, headers: &[(&str, &str)], model: &str) -> Conversation {
        let mut conversation = self.frontend.conversation(Door::Http).unwrap();
        let own = [(":method", "POST"), (":path", "/v1/chat/completions?key=nobody may read this")];
        let headers = own.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        say(&mut conversation, Message::RequestHeaders(Head { headers, end: false }));
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{SECRET}"}}]}}"#).into_bytes();
        say(&mut conversation, Message::RequestBody(Chunk { body, end: true }));
        assert!(conversation.reply().is_none());
        conversation
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.file));
    }
}

fn say(conversation: &mut Conversation, message: Message) {
    conversation.message(Incoming { message: Some(message), ..Incoming::default() }, Instant::now());
}

async fn decided(conversation: &mut Conversation) -> Vec<Reply> {
    let outcome = conversation.decision().await;
    conversation.decided(outcome);
    std::iter::from_fn(|| conversation.reply()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_line_says_all_of_a_request_but_its_words() {
    let rig = Rig::start("whole");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("x-request-id", "r7"), ("traceparent", trace), ("x-gateway-inference-objective", "chat")];
    let mut conversation = rig.request(&headers, "llama");
    decided(&mut conversation).await;
    let head = Head { headers: vec![(":status".into(), "200".into())], end: false };
    say(&mut conversation, Message::ResponseHeaders(head));
    tokio::time::advance(Duration::from_millis(100)).await;
    let body = br#"{"usage":{"prompt_tokens":3,"completion_tokens":5}}"#.to_vec();
    let length = body.len();
    say(&mut conversation, Message::ResponseBody(Chunk { body, end: true }));
    drop(conversation);
    let lines = rig.lines().await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    for (name, wanted) in [
        ("frontend", Value::from("http")),
        ("request_id", "r7".into()),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("path", "/v1/chat/completions".into()),
        ("model", "llama".into()),
        ("target_model", "llama-8b".into()),
        ("objective", "chat".into()),
        ("priority", 7.into()),
        ("endpoint", "10.0.0.1:8000".into()),
        ("status", 200.into()),
        ("reason", Value::Null),
        ("response_bytes", length.into()),
        ("prompt_tokens", 3.into()),
        ("completion_tokens", 5.into()),
    ] {
        assert_eq!(line[name], wanted, "{name}: {line}");
    }
    let milliseconds = |name: &str| line[name].as_f64().unwrap();
    assert!(milliseconds("queue_ms") >= 250.0 && milliseconds("ttft_ms") >= milliseconds("queue_ms") + 100.0, "{line}");
    assert!(milliseconds("total_ms") >= milliseconds("ttft_ms"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_line_says_why_a_request_was_not_served() {
    let rig = Rig::start("not-served");
    let mut refused = rig.request(&[], "full");
    decided(&mut refused).await;
    drop(refused);
    // The client goes while it waits.
    drop(rig.request(&[], "llama"));
    let mut unread = rig.frontend.conversation(Door::ExtProc).unwrap();
    let headers = vec![(":method".into(), "POST".into()), (":path".into(), "/v1/completions".into())];
    say(&mut unread, Message::RequestHeaders(Head { headers, end: false }));
    say(&mut unread, Message::RequestBody(Chunk { body: b"no JSON".to_vec(), end: true }));
    while unread.reply().is_some() {}
    drop(unread);
    // No request at all.
    drop(rig.frontend.conversation(Door::ExtProc));
    let lines = rig.lines().await;
    let told: Vec<_> = lines.iter().map(|line| (line["status"].clone(), line["reason"].clone())).collect();
    let wanted =
        [(429.into(), "rejected-saturated".into()), (Value::Null, "gone_before_pick".into()), (400.into(), "BadRequest".into())];
    assert_eq!(told, wanted, "{lines:?}");
    assert_eq!((&lines[0]["priority"], &lines[2]["frontend"]), (&7.into(), &"ext_proc".into()));
}

#[tokio::test]
async fn lines_that_nobody_can_write_stop_nobody_and_are_counted() {
    let mut registry = Registry::default();
    // Its writer never starts: as if the disk stood still.
    let (log, _writer) = AccessLog::new(&AccessLogTarget::Stdout, &mut registry).unwrap();
    for _ in 0..10_000 {
        log.write(b"{}\n".to_vec());
    }
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    assert!(page.contains("weir_epp_access_log_lines_total{outcome=\"dropped\"} 1808"), "{page}");
    let missing = AccessLogTarget::File("/nowhere/at/all.log".into());
    assert!(AccessLog::new(&missing, &mut registry).is_err());
}

#[tokio::test]
async fn lines_on_a_full_disk_are_counted() {
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let mut registry = Registry::default();
    let (log, writer) = AccessLog::new(&AccessLogTarget::of("/dev/full"), &mut registry).unwrap();
    writer.start().unwrap();
    log.write(b"{}\n".to_vec());
    log.flush(Duration::from_secs(10)).await;
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    assert!(page.contains("{outcome=\"failed\"} 1") && page.contains("{outcome=\"written\"} 0"), "{page}");
}
