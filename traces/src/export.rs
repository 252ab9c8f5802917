//! Sends what has ended, in batches.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, ShouldSample, SpanData};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Outcome, TraceMetrics};
use crate::queue::Queue;
use crate::settings::{SampleBy, Sampling, Settings};
use crate::span::Tracer;
use crate::transport::{Failure, Reason, Transport, TransportError};

/// How long what is left may take to be sent once everything ends.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a batch waits before each further try; after the last it is lost.
const PAUSES: [Duration; 4] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Sends spans until it is told to end.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    transport: Transport,
    resource: ResourceAttributesWithSchema,
    batch: usize,
    delay: Duration,
    endpoint: String,
    metrics: TraceMetrics,
    /// Why the last export failed.
    failing: Option<Reason>,
}

impl Exporter {
    /// What begins spans, and what sends them; `version` is this program's. Within a runtime.
    ///
    /// # Errors
    /// A setting that cannot be followed: an address, a header, an authority.
    pub fn new(settings: &Settings, version: &'static str, registry: &mut Registry) -> Result<(Tracer, Self), TransportError> {
        let transport = Transport::new(settings)?;
        let metrics = TraceMetrics::register(registry);
        let (sender, spans) = mpsc::channel(settings.queue);
        let attributes = settings.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(attributes).build();
        let queue = Queue { spans: sender, metrics: metrics.clone(), said: AtomicBool::new(false) };
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.sampling))
            .with_resource(resource.clone())
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder("weir").with_version(version).build();
        let tracer = Tracer { tracer: provider.tracer_with_scope(scope), _provider: provider, propagates: settings.propagates };
        let exporter = Self {
            spans,
            transport,
            resource: (&resource).into(),
            batch: settings.batch,
            delay: settings.delay,
            endpoint: settings.endpoint.clone(),
            metrics,
            failing: None,
        };
        Ok((tracer, exporter))
    }

    /// Sends until `ended`, then what is left, 5 s at most.
    pub async fn run(mut self, ended: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                () = self.fill(&mut batch) => {}
            }
            if batch.is_empty() {
                // Nobody begins spans any more.
                return;
            }
            self.send(std::mem::take(&mut batch), &ended).await;
        }
        self.flush(batch).await;
    }

    /// A batch, whole or as much as came in its time; empty once nothing will come.
    async fn fill(&mut self, batch: &mut Vec<SpanData>) {
        if self.spans.recv_many(batch, self.batch).await == 0 {
            return;
        }
        let due = Instant::now() + self.delay;
        while batch.len() < self.batch {
            let room = self.batch - batch.len();
            tokio::select! {
                more = self.spans.recv_many(batch, room) => {
                    if more == 0 {
                        return;
                    }
                }
                () = sleep_until(due) => return,
            }
        }
    }

    fn message(&self, batch: Vec<SpanData>) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, &self.resource) }
    }

    /// Sends a batch, again where that may help; counts what became of it.
    async fn send(&mut self, batch: Vec<SpanData>, ended: &CancellationToken) {
        let spans = batch.len() as u64;
        let message = self.message(batch);
        for pause in PAUSES.iter().map(Some).chain([None]) {
            let Some(reason) = self.attempt(message.clone(), spans).await else { return };
            let Some(pause) = pause.filter(|_| reason.passes()) else { break };
            tokio::select! {
                () = sleep_until(Instant::now() + *pause) => {}
                // Once more, with what is left.
                () = ended.cancelled() => {
                    let last = Instant::now() + FLUSH;
                    if let Ok(None) = timeout_at(last, self.attempt(message, spans)).await {
                        return;
                    }
                    break;
                }
            }
        }
        self.metrics.spans(Outcome::Failed, spans);
    }

    /// Everything ends: what is left, `batch` first, is tried once.
    async fn flush(&mut self, mut batch: Vec<SpanData>) {
        let last = Instant::now() + FLUSH;
        self.spans.close();
        loop {
            while batch.len() < self.batch
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let spans = batch.len() as u64;
            let message = self.message(std::mem::take(&mut batch));
            match timeout_at(last, self.attempt(message, spans)).await {
                Ok(None) => {}
                Ok(Some(_reason)) => self.metrics.spans(Outcome::Failed, spans),
                Err(_elapsed) => {
                    self.metrics.spans(Outcome::Failed, spans + self.spans.len() as u64);
                    tracing::warn!(
                        lost = spans + self.spans.len() as u64,
                        "spans are lost: the collector did not take them in time"
                    );
                    return;
                }
            }
        }
    }

    /// Sends once; why it failed.
    async fn attempt(&mut self, message: ExportTraceServiceRequest, spans: u64) -> Option<Reason> {
        let endpoint = &self.endpoint;
        match self.transport.send(message).await {
            Ok(accepted) => {
                if self.failing.take().is_some() {
                    tracing::info!(%endpoint, "traces are exported again");
                }
                let rejected = accepted.rejected.min(spans);
                self.metrics.spans(Outcome::Exported, spans - rejected);
                self.metrics.spans(Outcome::Rejected, rejected);
                if rejected > 0 {
                    tracing::warn!(%endpoint, rejected, spans, words = accepted.words, "the collector rejected spans");
                }
                None
            }
            Err(Failure { reason, what }) => {
                self.metrics.failed(reason);
                if self.failing.replace(reason) != Some(reason) {
                    let way_out = reason.way_out();
                    tracing::warn!(
                        %endpoint,
                        "traces cannot be exported: {what}; {way_out} (said once: weir_trace_export_failures_total counts)"
                    );
                }
                Some(reason)
            }
        }
    }
}

fn sampler(sampling: Sampling) -> Box<dyn ShouldSample> {
    let by = match sampling.by {
        SampleBy::All => Sampler::AlwaysOn,
        SampleBy::None => Sampler::AlwaysOff,
        SampleBy::Ratio(share) => Sampler::TraceIdRatioBased(share),
    };
    if sampling.parent_decides { Box::new(Sampler::ParentBased(Box::new(by))) } else { Box::new(by) }
}
