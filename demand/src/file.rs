//! Documents in a file, for where there is no cluster: one JSON object, a document under each key.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::documents::Texts;
use crate::ledger::Ledger;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Between two writes.
const APART: Duration = Duration::from_secs(30);
/// A larger file is none of weir's.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Why the file is not used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{path}: {error}: what is learned is not kept: mend it, or name another file with --learned")]
    Io {
        /// Which file.
        path: String,
        /// What is wrong.
        error: std::io::Error,
    },
    /// It is no such file.
    #[error("{path}: {problem}: it is left as it is, and nothing is kept: delete it, or name another file with --learned")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Keeps a ledger's documents in a file.
#[derive(Debug)]
pub struct FileKeeper {
    path: PathBuf,
    ledger: Ledger,
    written_at: Option<Instant>,
    failure: Option<String>,
}

impl FileKeeper {
    /// Keeps what `ledger` learns in the file at `path`, which need not exist.
    pub fn new(path: PathBuf, ledger: Ledger) -> Self {
        ledger.kept_in(format!("file {}", path.display()));
        Self { path, ledger, written_at: None, failure: None }
    }

    /// Reads every change within two seconds, and writes at most every 30 s what says something new, and at the end, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                () = stop.cancelled() => true,
                _ = looks.tick() => false,
            };
            let outcome = self.keep(last).await;
            self.ledger.metrics().readable(!matches!(outcome, Err(FileError::Content { .. })));
            self.tell(outcome.err().map(|error| error.to_string()));
            if last {
                return;
            }
        }
    }

    async fn keep(&mut self, last: bool) -> Result<(), FileError> {
        let texts = read(&self.path).await?;
        self.ledger.read(&texts);
        if !last && self.written_at.is_some_and(|at| at.elapsed() < APART) {
            return Ok(());
        }
        let Some(texts) = self.ledger.to_write() else { return Ok(()) };
        self.written_at = Some(Instant::now());
        let written = write(&self.path, &texts).await;
        self.ledger.metrics().wrote(if written.is_ok() { "written" } else { "failed" });
        written?;
        self.ledger.wrote(&texts);
        Ok(())
    }

    fn tell(&mut self, failure: Option<String>) {
        match (&failure, &self.failure) {
            (Some(problem), before) if before.as_ref() != Some(problem) => error!("{problem}"),
            (None, Some(_)) => info!(file = %self.path.display(), "what was learned can be read and written again"),
            _ => {}
        }
        self.failure = failure;
    }
}

/// The documents of the file at `path`; none where it does not exist.
async fn read(path: &Path) -> Result<Texts, FileError> {
    let io = |error| FileError::Io { path: path.display().to_string(), error };
    let content = |problem: String| FileError::Content { path: path.display().to_string(), problem };
    match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Texts::new()),
        Err(error) => return Err(io(error)),
        Ok(metadata) if metadata.len() > LARGEST => return Err(content(format!("{} bytes", metadata.len()))),
        Ok(_) => {}
    }
    let bytes = tokio::fs::read(path).await.map_err(io)?;
    let documents: BTreeMap<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| content(format!("no JSON object of documents: {error}")))?;
    Ok(documents.into_iter().map(|(key, document)| (key, document.to_string())).collect())
}

/// Replaces the file at `path` as a whole: a reader never sees half of it.
async fn write(path: &Path, texts: &Texts) -> Result<(), FileError> {
    let io = |error| FileError::Io { path: path.display().to_string(), error };
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let documents: BTreeMap<&String, Value> = texts.iter().map(|(key, text)| (key, value(text))).collect();
    let mut bytes = serde_json::to_vec_pretty(&documents).map_err(|error| io(error.into()))?;
    bytes.push(b'\n');
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    tokio::fs::write(&beside, &bytes).await.map_err(io)?;
    tokio::fs::rename(&beside, path).await.map_err(io)
}
