//! What every long-running subcommand has: its registry, its tasks, its end.

use std::time::Duration;

use anyhow::bail;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use weir_serving::{ServingMetrics, Shutdown};

/// How long the endpoints of a Service may take to be told everywhere that a pod goes.
pub(crate) const ENDPOINTS_TOLD: Duration = Duration::from_secs(15);

/// What everything registers with.
pub(crate) struct Base {
    pub(crate) registry: Registry,
    pub(crate) metrics: ServingMetrics,
}

impl Default for Base {
    fn default() -> Self {
        let mut registry = Registry::default();
        weir_serving::process_metrics::register(&mut registry);
        let metrics = ServingMetrics::register(&mut registry);
        Self { registry, metrics }
    }
}

/// Waits until all tasks have ended, which a signal makes them do; a second signal does not wait.
pub(crate) async fn until_ended(shutdown: &Shutdown, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    tokio::select! {
        code = shutdown.insisted() => bail!("ended at once by a second signal (exit code {code} in a shell)"),
        () = finished(tasks) => Ok(()),
    }
}

/// Waits until all tasks have ended.
pub(crate) async fn finished(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task failed");
        }
    }
}
