//! What is told of each request by itself: its spans, its line in the access log. Where neither is wanted, nothing of this exists.
//!
//! 1. [`Trail`]: what the director notes of a request on its way.
//! 2. `entry`: all that is known of one request, from its head to its end.
//! 3. `spans`, `line`: told as spans, as a line.
//! 4. [`AccessLog`]: where lines go; never waits.

mod access_log;
mod entry;
mod line;
mod spans;
#[cfg(test)]
mod tests;
mod trail;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use weir_traces::Tracer;

pub use access_log::{AccessLog, AccessLogTarget, AccessLogWriter};
pub(crate) use entry::Entry;
pub(crate) use trail::Followed;
pub use trail::{PluginRun, Trail};

/// Where a request came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    /// By a gateway.
    ExtProc,
    /// From a client.
    Http,
}

impl Door {
    fn label(self) -> &'static str {
        match self {
            Self::ExtProc => "ext_proc",
            Self::Http => "http",
        }
    }
}

/// What is to be told of requests; cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// As spans.
    pub tracer: Option<Tracer>,
    /// As lines.
    pub access_log: Option<AccessLog>,
}

impl Journal {
    /// None where nothing is to be told.
    pub(crate) fn shared(self) -> Option<Arc<Self>> {
        (self.tracer.is_some() || self.access_log.is_some()).then(|| Arc::new(self))
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>, door: Door) -> Box<Entry> {
        Box::new(Entry::new(self.clone(), door, Instant::now(), SystemTime::now()))
    }
}
