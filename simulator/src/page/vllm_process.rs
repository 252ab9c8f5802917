//! The parts of vLLM's page that are not vLLM's: the Python process before it, the HTTP instrumentation after it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::PageInput;
use super::text::{Labels, Layout, PageWriter};
use crate::model::Histogram;

static FINE_BOUNDS: LazyLock<Arc<[f64]>> = LazyLock::new(|| {
    Arc::from([0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0])
});
static COARSE_BOUNDS: LazyLock<Arc<[f64]>> = LazyLock::new(|| Arc::from([0.1, 0.5, 1.0]));

/// HTTP requests a replica has answered, as vLLM's instrumentation counts them.
#[derive(Clone, Debug)]
pub struct HttpStatistics {
    /// Handlers are route names: a small fixed set.
    handlers: BTreeMap<&'static str, Handler>,
    durations: Histogram,
}

#[derive(Clone, Debug)]
struct Handler {
    method: &'static str,
    by_status: BTreeMap<&'static str, u64>,
    request_bytes: u64,
    response_bytes: u64,
    durations: Histogram,
}

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct HttpExchange {
    /// The route, not the path.
    pub handler: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The status code.
    pub status: u16,
    /// Content-Length of the request, 0 if it had none.
    pub request_bytes: u64,
    /// Content-Length of the response, 0 if it had none.
    pub response_bytes: u64,
    /// From the request to the end of the response.
    pub duration: Duration,
}

impl Default for HttpStatistics {
    fn default() -> Self {
        Self { handlers: BTreeMap::new(), durations: Histogram::new(&FINE_BOUNDS) }
    }
}

impl HttpStatistics {
    /// Counts one request.
    pub fn record(&mut self, exchange: HttpExchange) {
        let handler = self.handlers.entry(exchange.handler).or_insert_with(|| Handler {
            method: exchange.method,
            by_status: BTreeMap::new(),
            request_bytes: 0,
            response_bytes: 0,
            durations: Histogram::new(&COARSE_BOUNDS),
        });
        let status_class = match exchange.status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        *handler.by_status.entry(status_class).or_default() += 1;
        handler.request_bytes += exchange.request_bytes;
        handler.response_bytes += exchange.response_bytes;
        let seconds = exchange.duration.as_secs_f64();
        handler.durations.observe(seconds);
        self.durations.observe(seconds);
    }
}

/// Memory of a Python API process that has loaded vLLM, in bytes. Fixed: the simulator's own would say nothing about one.
const VIRTUAL_MEMORY: f64 = 12_476_616_704.0;
const RESIDENT_MEMORY: f64 = 1_074_216_960.0;
const OPEN_FILES_IDLE: f64 = 46.0;
const OPEN_FILES_LIMIT: f64 = 1_048_576.0;
/// CPU time such a process spends before it serves, and while a step is under way.
const CPU_SECONDS_TO_START: f64 = 14.2;
const CPU_SHARE_WHILE_BUSY: f64 = 0.35;
/// Garbage collections of the start, by generation; then one of the youngest per this many steps, and a tenth as many of each older.
const COLLECTIONS_TO_START: [u64; 3] = [1410, 128, 11];
const STEPS_PER_COLLECTION: u64 = 50;
const OBJECTS_PER_COLLECTION: [u64; 3] = [10, 16, 78];

pub(super) fn render_process(writer: &mut PageWriter<'_>, input: &PageInput<'_>) {
    let generations: [Labels<'_>; 3] = [&[("generation", "0")], &[("generation", "1")], &[("generation", "2")]];
    let steps = input.view.last_step.number;
    let collections = [0, 1, 2].map(|generation: usize| {
        let rarer = [1, 10, 100][generation];
        COLLECTIONS_TO_START[generation] + steps / (STEPS_PER_COLLECTION * rarer)
    });
    let series = |value: &dyn Fn(usize) -> f64| [0, 1, 2].map(|generation| (generations[generation], value(generation)));
    // The collector's metrics come from a custom collector, so they have no `_created`.
    let layout = Layout::ManyProcesses;
    writer.counter(
        "python_gc_objects_collected",
        "Objects the garbage collector freed",
        layout,
        &series(&|generation| (collections[generation] * OBJECTS_PER_COLLECTION[generation]) as f64),
    );
    writer.counter("python_gc_objects_uncollectable", "Objects the garbage collector could not free", layout, &series(&|_| 0.0));
    writer.counter(
        "python_gc_collections",
        "Runs of the garbage collector per generation",
        layout,
        &series(&|generation| collections[generation] as f64),
    );
    let python: Labels<'_> =
        &[("implementation", "CPython"), ("major", "3"), ("minor", "12"), ("patchlevel", "11"), ("version", "3.12.11")];
    writer.gauge("python_info", "The Python interpreter", &[(python, 1.0)]);
    writer.gauge("process_virtual_memory_bytes", "Virtual memory of the process in bytes.", &[(&[], VIRTUAL_MEMORY)]);
    writer.gauge("process_resident_memory_bytes", "Resident memory of the process in bytes.", &[(&[], RESIDENT_MEMORY)]);
    let started_at = (input.started_at.as_secs_f64() * 100.0).round() / 100.0;
    writer.gauge("process_start_time_seconds", "Unix time of the start of the process in seconds.", &[(&[], started_at)]);
    let cpu = CPU_SECONDS_TO_START + CPU_SHARE_WHILE_BUSY * input.view.statistics.busy.as_secs_f64();
    writer.counter(
        "process_cpu_seconds",
        "CPU time of the process, user and system, in seconds.",
        layout,
        &[(&[], (cpu * 100.0).round() / 100.0)],
    );
    let open_files = OPEN_FILES_IDLE + f64::from(input.view.running) + f64::from(input.view.waiting);
    writer.gauge("process_open_fds", "File descriptors the process has open.", &[(&[], open_files)]);
    writer.gauge("process_max_fds", "File descriptors the process may open.", &[(&[], OPEN_FILES_LIMIT)]);
}

pub(super) fn render_http(writer: &mut PageWriter<'_>, http: &HttpStatistics, created_at: Duration) {
    let layout = Layout::OneProcess { created_at };
    let mut request_labels = Vec::new();
    for (name, handler) in &http.handlers {
        for (status, count) in &handler.by_status {
            request_labels.push(([("handler", *name), ("method", handler.method), ("status", *status)], *count as f64));
        }
    }
    let requests: Vec<(Labels<'_>, f64)> = request_labels.iter().map(|(labels, count)| (labels.as_slice(), *count)).collect();
    writer.counter("http_requests", "HTTP requests by handler, method and status class.", layout, &requests);

    let names: Vec<[(&str, &str); 1]> = http.handlers.keys().map(|name| [("handler", *name)]).collect();
    let sizes = |bytes: &dyn Fn(&Handler) -> u64| -> Vec<(Labels<'_>, f64, f64)> {
        let handlers = names.iter().zip(http.handlers.values());
        handlers.map(|(labels, handler)| (labels.as_slice(), handler.durations.count() as f64, bytes(handler) as f64)).collect()
    };
    writer.summary(
        "http_request_size_bytes",
        "Size of requests by handler, from their Content-Length header; those without one count as empty.",
        layout,
        &sizes(&|handler| handler.request_bytes),
    );
    writer.summary(
        "http_response_size_bytes",
        "Size of responses by handler, from their Content-Length header; those without one count as empty.",
        layout,
        &sizes(&|handler| handler.response_bytes),
    );
    writer.histogram(
        "http_request_duration_highr_seconds",
        "Duration of all requests together, with fine buckets for percentiles.",
        layout,
        &[(&[], &http.durations)],
    );
    let method_labels: Vec<_> =
        http.handlers.iter().map(|(name, handler)| [("handler", *name), ("method", handler.method)]).collect();
    let durations: Vec<(Labels<'_>, &Histogram)> =
        method_labels.iter().zip(http.handlers.values()).map(|(labels, handler)| (labels.as_slice(), &handler.durations)).collect();
    writer.histogram("http_request_duration_seconds", "Duration of requests by handler, with coarse buckets.", layout, &durations);
}
