//! Spans of one request.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

/// Begins spans; cloning shares where they go.
#[derive(Clone, Debug)]
pub struct Tracer {
    pub(crate) tracer: SdkTracer,
    /// Its last clone ends it.
    pub(crate) _provider: SdkTracerProvider,
    pub(crate) propagates: bool,
}

/// A request's header, by its name in lower case.
struct Headers<'a>(&'a dyn Fn(&str) -> Option<&'a str>);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.0)(key)
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl Tracer {
    /// A request came at `at`, whose headers `header` reads: its span belongs to the trace that a sound `traceparent` names, else
    /// to a new one.
    pub fn request<'a>(&self, name: &'static str, header: &'a dyn Fn(&str) -> Option<&'a str>, at: SystemTime) -> RequestSpan {
        let nobody = Context::new();
        let parent =
            if self.propagates { TraceContextPropagator::new().extract_with_context(&nobody, &Headers(header)) } else { nobody };
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_start_time(at);
        RequestSpan { span: self.tracer.build_with_context(builder, &parent), tracer: self.clone() }
    }
}

/// The span of a request; sent, if its trace is sampled, once it ends or is dropped.
#[derive(Debug)]
pub struct RequestSpan {
    span: Span,
    tracer: Tracer,
}

impl RequestSpan {
    /// Whether its trace is kept: nothing needs to be known of one that is not.
    pub fn is_recorded(&self) -> bool {
        self.span.is_recording()
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.span.span_context().trace_id().to_string()
    }

    /// The header that makes what a server does for the request part of its trace; none where `OTEL_PROPAGATORS` does not want it.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.span.span_context();
        let flags = u8::from(context.is_sampled());
        (self.tracer.propagates && context.is_valid())
            .then(|| format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    }

    /// Adds an attribute.
    pub fn set(&mut self, attribute: KeyValue) {
        self.span.set_attribute(attribute);
    }

    /// It failed: `why` in few words.
    pub fn failed(&mut self, why: String) {
        self.span.set_status(Status::error(why));
    }

    /// A part of it, over already. Parts of it are told by `parts`.
    pub fn part(
        &self,
        name: impl Into<Cow<'static, str>>,
        (from, until): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        parts: impl FnOnce(&Part<'_>),
    ) {
        Part { tracer: &self.tracer, span: None, of: &self.span }.part(name, (from, until), attributes, parts);
    }

    /// It is over.
    pub fn end(mut self, at: SystemTime) {
        self.span.end_with_timestamp(at);
    }
}

/// A part of a request.
#[derive(Debug)]
pub struct Part<'a> {
    tracer: &'a Tracer,
    span: Option<Span>,
    of: &'a Span,
}

impl Part<'_> {
    /// A part of it, over already.
    pub fn part(
        &self,
        name: impl Into<Cow<'static, str>>,
        (from, until): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        parts: impl FnOnce(&Part<'_>),
    ) {
        let context = self.span.as_ref().unwrap_or(self.of).span_context().clone();
        let parent = Context::new().with_remote_span_context(context);
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_start_time(from).with_attributes(attributes);
        let span = self.tracer.tracer.build_with_context(builder, &parent);
        let mut part = Part { tracer: self.tracer, span: Some(span), of: self.of };
        parts(&part);
        if let Some(span) = &mut part.span {
            span.end_with_timestamp(until);
        }
    }
}
