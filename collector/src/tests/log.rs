//! Transitions are logged, what is between is not.

use std::io;
use std::sync::{Arc, Mutex};

use super::eventually;
use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server, page};

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn lines(&self, words: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_first_failure_of_a_run_and_the_recovery_are_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // The runtime of this test has one thread, and it is this one.
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start(|_| Answer::http("503 Service Unavailable", "", "")).await;
    let rig = Rig::start(quick(), vec![pool(&[server.address])]);
    eventually("three failures", || rig.failure(server.address).is_some_and(|failure| failure.attempts >= 3)).await;
    server.set(|_| Answer::Page(page(1)));
    rig.until_running(server.address, 1.0).await;
    eventually("more pages", || rig.scrapes("ok") >= 3.0).await;
    rig.stop().await;

    let failed = log.lines("scrape failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let address = server.address;
    for part in ["WARN", "pool=default/llama", &format!("address={address}"), "kind=\"status\"", "HTTP 503"] {
        assert!(failed[0].contains(part), "no `{part}` in {}", failed[0]);
    }
    let recovered = log.lines("scrape recovered");
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert!(recovered[0].contains("INFO") && recovered[0].contains("attempts="), "{}", recovered[0]);
    assert_eq!(log.lines("").len(), 3, "and the endpoint that was added: {:?}", log.lines(""));
}
