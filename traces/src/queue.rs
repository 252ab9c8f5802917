//! Spans that wait to be sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::metrics::{Outcome, TraceMetrics};

/// Puts what has ended where the exporter takes it; never waits.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) spans: mpsc::Sender<SpanData>,
    pub(crate) metrics: TraceMetrics,
    /// Whether it was said that spans are lost.
    pub(crate) said: AtomicBool,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans(Outcome::QueueFull, 1);
            if !self.said.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "spans are lost: more wait than OTEL_BSP_MAX_QUEUE_SIZE allows; raise it, or lower OTEL_TRACES_SAMPLER_ARG \
                     (said once: weir_trace_spans_total{{outcome=\"queue_full\"}} counts them)"
                );
            }
        }
    }

    /// The exporter flushes when it ends.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
