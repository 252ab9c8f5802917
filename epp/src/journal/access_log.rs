//! Where lines go: a thread of its own writes them, since a full pipe or a slow disk would stop whoever waits for it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

/// Lines that may wait, about 0.7 kB each and 3 kB at most.
const WAITING: usize = 8192;
/// Lines that are written together, at most.
const TOGETHER: u64 = 256;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Outcome {
    outcome: &'static str,
}

const WRITTEN: Outcome = Outcome { outcome: "written" };
const DROPPED: Outcome = Outcome { outcome: "dropped" };
const FAILED: Outcome = Outcome { outcome: "failed" };

/// What lines are written to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// The end of this file.
    File(PathBuf),
}

impl AccessLogTarget {
    /// As the flag says it: `-`, `stdout`, else a path.
    pub fn of(text: &str) -> Self {
        if text == "-" || text == "stdout" { Self::Stdout } else { Self::File(text.into()) }
    }
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => formatter.write_str("standard output"),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

enum Item {
    Line(Vec<u8>),
    Flush(oneshot::Sender<()>),
}

/// Takes lines; cloning shares where they go.
#[derive(Clone, Debug)]
pub struct AccessLog {
    items: SyncSender<Item>,
    lines: Family<Outcome, Counter>,
    said: Arc<AtomicBool>,
}

/// What writes lines, before it does.
#[derive(Debug)]
pub struct AccessLogWriter {
    items: Receiver<Item>,
    place: AccessLogTarget,
    /// None: standard output.
    file: Option<File>,
    lines: Family<Outcome, Counter>,
}

impl AccessLog {
    /// A log to `target`, its metrics exposed by `registry`; nothing is written before the writer's thread is started.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn new(target: &AccessLogTarget, registry: &mut Registry) -> io::Result<(Self, AccessLogWriter)> {
        let file = match target {
            AccessLogTarget::Stdout => None,
            AccessLogTarget::File(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let lines = Family::<Outcome, Counter>::default();
        let help = "Lines of the access log; dropped: more waited than there is room for; failed: they could not be written";
        registry.register("weir_epp_access_log_lines", help, lines.clone());
        for outcome in [WRITTEN, DROPPED, FAILED] {
            let _exposed = lines.get_or_create(&outcome);
        }
        let (sender, items) = sync_channel(WAITING);
        let writer = AccessLogWriter { items, place: target.clone(), file, lines: lines.clone() };
        Ok((Self { items: sender, lines, said: Arc::default() }, writer))
    }

    /// Writes a line, soon. Never waits: where there is no room it is dropped and counted.
    pub(super) fn write(&self, line: Vec<u8>) {
        if self.items.try_send(Item::Line(line)).is_err() {
            self.lines.get_or_create(&DROPPED).inc();
            if !self.said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "lines of the access log are dropped: nobody reads them, or the disk is slow (said once: weir_epp_access_log_lines_total counts)"
                );
            }
        }
    }

    /// Waits until what was written before is out, no longer than `most`.
    pub async fn flush(&self, most: Duration) {
        let (sender, done) = oneshot::channel();
        let mut item = Item::Flush(sender);
        let flushed = async {
            while let Err(std::sync::mpsc::TrySendError::Full(back)) = self.items.try_send(item) {
                item = back;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // An error says that the writer has ended.
            drop(done.await);
        };
        if tokio::time::timeout(most, flushed).await.is_err() {
            tracing::warn!("the last lines of the access log could not be written in time");
        }
    }
}

impl AccessLogWriter {
    /// Starts the thread, which ends with the last clone of the log.
    ///
    /// # Errors
    /// No thread.
    pub fn start(self) -> io::Result<()> {
        std::thread::Builder::new().name("access-log".into()).spawn(move || self.run()).map(drop)
    }

    fn run(self) {
        let Self { items, place, file, lines } = self;
        let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match file {
            None => Box::new(io::stdout()),
            Some(file) => Box::new(file),
        });
        let mut failing = false;
        let mut pending = 0;
        let mut next = items.recv().ok();
        while let Some(item) = next {
            let mut outcome = Ok(());
            let flushed = match item {
                Item::Line(line) => {
                    pending += 1;
                    outcome = out.write_all(&line);
                    None
                }
                Item::Flush(sender) => Some(sender),
            };
            let more = items.try_recv().ok();
            let due = more.is_none() || flushed.is_some() || pending >= TOGETHER;
            if outcome.is_ok() && due {
                outcome = out.flush();
            }
            match outcome {
                // It is not known yet.
                Ok(()) if !due => {}
                Ok(()) => {
                    lines.get_or_create(&WRITTEN).inc_by(std::mem::take(&mut pending));
                    if std::mem::take(&mut failing) {
                        tracing::info!(%place, "the access log is written again");
                    }
                }
                Err(error) => {
                    lines.get_or_create(&FAILED).inc_by(std::mem::take(&mut pending));
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%place, %error, "the access log cannot be written (said once: weir_epp_access_log_lines_total counts)");
                    }
                }
            }
            if let Some(sender) = flushed {
                // Who waited may have given up.
                let _gone = sender.send(());
            }
            next = more.or_else(|| items.recv().ok());
        }
    }
}
