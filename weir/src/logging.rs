//! Where log lines go.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::{LogArguments, LogFormat};

/// Sends log lines to standard error, as `arguments` say; `quiet`: only what goes wrong, where they say nothing.
pub(crate) fn init(arguments: &LogArguments, quiet: bool) {
    // kube repeats each refusal that is told here once, with the way out.
    let default = if quiet { "warn" } else { "info,kube_runtime=error,kube_client=error" };
    let filter = EnvFilter::builder().parse_lossy(arguments.log.as_deref().unwrap_or(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
