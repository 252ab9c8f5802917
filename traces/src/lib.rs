//! Spans of requests, sent to an OpenTelemetry collector over OTLP, by gRPC or HTTP.
//!
//! 1. [`Settings`]: the variables `OTEL_*`, read without touching the process. Pure.
//! 2. [`Tracer`] and [`RequestSpan`]: begins spans, takes part in the trace that a client began.
//! 3. `queue`: what waits to be sent, bounded; what does not fit is counted.
//! 4. `transport`: one batch to the collector, and why it did not get there, with the way out.
//! 5. [`Exporter`]: batches, tries again, says once what is wrong, flushes at the end.

mod export;
mod metrics;
mod queue;
mod settings;
mod span;
mod transport;

pub use export::Exporter;
pub use opentelemetry::KeyValue;
pub use settings::{Protocol, SampleBy, Sampling, Settings};
pub use span::{Part, RequestSpan, Tracer};
pub use transport::TransportError;
