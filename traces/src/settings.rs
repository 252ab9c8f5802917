//! What the variables of OpenTelemetry say. Flags and defaults are those of the Go picker where it has any, else the specification's.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// Where a collector is that nobody names.
const LOCAL: &str = "http://localhost:4317";
/// The port of OTLP over HTTP.
const HTTP_PORT: &str = ":4318";
/// What a collector takes traces at, below the address that is given for all signals.
const TRACES_PATH: &str = "v1/traces";
/// The share of traces that is kept where nobody says: the Go picker's.
const RATIO: f64 = 0.1;
/// Spans that wait may take no more memory than this many do.
const LONGEST_QUEUE: usize = 1 << 20;

/// How spans are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    Http,
}

/// Which traces are kept (`OTEL_TRACES_SAMPLER`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether a client that takes part in a trace has decided already.
    pub parent_decides: bool,
    /// Otherwise.
    pub by: SampleBy,
}

/// How it is decided where nobody did before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampleBy {
    /// Every trace.
    All,
    /// None.
    None,
    /// This share of them, 0 to 1, by their ids.
    Ratio(f64),
}

/// Headers of every export. Their values are not shown.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How they are sent.
    pub protocol: Protocol,
    /// Where to: for HTTP the whole URL.
    pub endpoint: String,
    pub(crate) headers: Headers,
    /// How long one export may take, 10 s.
    pub timeout: Duration,
    /// An authority (PEM) that the collector's certificate is of, in place of the system's.
    pub authority: Option<PathBuf>,
    /// Which traces are kept: with a client's decision, else one in ten.
    pub sampling: Sampling,
    /// `service.name`, and further attributes of the process.
    pub resource: Vec<(String, String)>,
    /// Spans that may wait, 2048; further ones are dropped and counted.
    pub queue: usize,
    /// Spans that are sent together, at most, 512.
    pub batch: usize,
    /// How long the first of them waits for others, 5 s.
    pub delay: Duration,
    /// Whether `traceparent` is read and written.
    pub propagates: bool,
}

impl Settings {
    /// What the variables of `env` ask for; nothing where spans are not to be sent. `wanted`: what the flag `--tracing` says.
    /// What is passed over is added to `notes`, with what happens instead.
    pub fn of(env: &dyn Fn(&str) -> Option<String>, wanted: Option<bool>, service: &str, notes: &mut Vec<String>) -> Option<Self> {
        let mut reader = Reader { env, notes };
        if wanted == Some(false) || reader.variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return None;
        }
        let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].map(|name| reader.variable(name));
        reader.wants(wanted, named.iter().any(Option::is_some)).then(|| reader.settings(named, service))
    }
}

struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    notes: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Of traces alone, else of all signals.
    fn of_traces(&self, name: &str) -> Option<(String, String)> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
        names.into_iter().find_map(|name| self.variable(&name).map(|value| (name, value)))
    }

    fn unreadable(&mut self, name: &str, value: &str, instead: &str) {
        let shown: String = value.chars().take(64).collect();
        self.notes.push(format!("the variable {name} is `{}`: {instead}", shown.escape_debug()));
    }

    /// Whether spans are to be sent.
    fn wants(&mut self, wanted: Option<bool>, has_endpoint: bool) -> bool {
        const WAY_OUT: &str = "set OTEL_TRACES_EXPORTER=otlp and OTEL_EXPORTER_OTLP_ENDPOINT to send spans to a collector";
        let Some(exporter) = self.variable("OTEL_TRACES_EXPORTER") else {
            if wanted == Some(true) && !has_endpoint {
                self.notes.push(format!("--tracing: no spans are sent, since no collector is named: {WAY_OUT}"));
            }
            return has_endpoint;
        };
        let mut names = exporter.split(',').map(str::trim);
        if names.clone().any(|name| name == "otlp") {
            return true;
        }
        if names.any(|name| name != "none") {
            self.unreadable("OTEL_TRACES_EXPORTER", &exporter, &format!("no spans are sent or printed: {WAY_OUT}"));
        }
        false
    }

    fn settings(&mut self, named: [Option<String>; 2], service: &str) -> Settings {
        let (protocol, endpoint) = self.destination(named);
        for name in ["COMPRESSION", "CLIENT_CERTIFICATE", "CLIENT_KEY"] {
            if let Some((name, value)) = self.of_traces(name).filter(|(_, value)| value != "none") {
                self.unreadable(&name, &value, "it has no effect: spans are sent uncompressed, without a certificate of their own");
            }
        }
        let milliseconds = |reader: &mut Self, name: &str, usual: u64| {
            Duration::from_millis(reader.number(name, usual as usize, 1..=3_600_000) as u64)
        };
        let timeout = self.of_traces("TIMEOUT").map_or_else(|| "OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), |(name, _)| name);
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", 2048, 1..=LONGEST_QUEUE);
        Settings {
            protocol,
            endpoint,
            headers: self.headers(),
            timeout: milliseconds(self, &timeout, 10_000),
            authority: self.of_traces("CERTIFICATE").map(|(_, path)| path.into()),
            sampling: self.sampling(),
            resource: self.resource(service),
            queue,
            batch: self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, 1..=LONGEST_QUEUE).min(queue),
            delay: milliseconds(self, "OTEL_BSP_SCHEDULE_DELAY", 5_000),
            propagates: self.propagates(),
        }
    }

    /// How, and where to. An address with a path, or with OTLP's port of HTTP, is one of HTTP unless the protocol is named.
    fn destination(&mut self, [of_traces, of_all]: [Option<String>; 2]) -> (Protocol, String) {
        let whole = of_traces.is_some();
        let given = of_traces.or(of_all).unwrap_or_else(|| LOCAL.to_owned());
        let insecure = self.of_traces("INSECURE").is_none_or(|(_, value)| !value.eq_ignore_ascii_case("false"));
        let given = match given.split_once("://") {
            Some(_) => given,
            None => format!("{}://{given}", if insecure { "http" } else { "https" }),
        };
        let address = given.split_once("://").map_or("", |(_, rest)| rest);
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let speaks_http = !path.is_empty() || host.ends_with(HTTP_PORT);
        let untold = if speaks_http { Protocol::Http } else { Protocol::Grpc };
        let protocol = match self.of_traces("PROTOCOL") {
            None => untold,
            Some((name, value)) => match value.as_str() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::Http,
                "http/json" => {
                    self.unreadable(&name, &value, "spans are sent as http/protobuf, which every collector takes");
                    Protocol::Http
                }
                _ => {
                    self.unreadable(&name, &value, "give grpc or http/protobuf; the address decides");
                    untold
                }
            },
        };
        let endpoint = match protocol {
            Protocol::Grpc => given,
            Protocol::Http if whole => given,
            Protocol::Http => format!("{}/{TRACES_PATH}", given.trim_end_matches('/')),
        };
        (protocol, endpoint)
    }

    fn number(&mut self, name: &str, usual: usize, within: std::ops::RangeInclusive<usize>) -> usize {
        let Some(value) = self.variable(name) else { return usual };
        match value.parse() {
            Ok(number) if within.contains(&number) => number,
            _ => {
                let (least, most) = (within.start(), within.end());
                self.unreadable(name, &value, &format!("give {least} to {most}; {usual} is taken"));
                usual
            }
        }
    }

    /// `name=value` with commas between, values percent-encoded. What is wrong is told without the values: they are secrets.
    fn headers(&mut self) -> Headers {
        let Some((variable, text)) = self.of_traces("HEADERS") else { return Headers::default() };
        let mut headers = Vec::new();
        for (index, pair) in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
            match pair.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some((name, value)) if !name.is_empty() => {
                    let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
                    headers.push((name.to_ascii_lowercase(), value));
                }
                _ => self.notes.push(format!(
                    "the variable {variable}: entry {} is no header and is not sent: write name=value,name=value",
                    index + 1
                )),
            }
        }
        Headers(headers)
    }

    fn sampling(&mut self) -> Sampling {
        let usual = Sampling { parent_decides: true, by: SampleBy::Ratio(self.ratio(RATIO)) };
        let Some(name) = self.variable("OTEL_TRACES_SAMPLER") else { return usual };
        let (parent_decides, by) = name.strip_prefix("parentbased_").map_or((false, name.as_str()), |by| (true, by));
        let by = match by {
            "always_on" => SampleBy::All,
            "always_off" => SampleBy::None,
            // The specification's share where none is given.
            "traceidratio" => SampleBy::Ratio(self.ratio(if parent_decides { RATIO } else { 1.0 })),
            _ => {
                self.unreadable("OTEL_TRACES_SAMPLER", &name, "it is not known; parentbased_traceidratio is taken");
                return usual;
            }
        };
        Sampling { parent_decides, by }
    }

    fn ratio(&mut self, usual: f64) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(value) = self.variable(NAME) else { return usual };
        match value.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                // Read once for each way that may need it.
                if !self.notes.iter().any(|note| note.contains(NAME)) {
                    self.unreadable(NAME, &value, &format!("give a share from 0 to 1; {usual} is taken"));
                }
                usual
            }
        }
    }

    /// The service's name goes before one among the attributes.
    fn resource(&mut self, service: &str) -> Vec<(String, String)> {
        let mut attributes = Vec::new();
        for pair in self.variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty())
        {
            match pair.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => {
                    let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
                    attributes.push((name.trim().to_owned(), value));
                }
                _ => self.unreadable("OTEL_RESOURCE_ATTRIBUTES", pair, "it is left out: write key=value,key=value"),
            }
        }
        const SERVICE: &str = "service.name";
        if let Some(name) = self.variable("OTEL_SERVICE_NAME") {
            attributes.retain(|(known, _)| known != SERVICE);
            attributes.insert(0, (SERVICE.to_owned(), name));
        } else if !attributes.iter().any(|(known, _)| known == SERVICE) {
            attributes.insert(0, (SERVICE.to_owned(), service.to_owned()));
        }
        attributes
    }

    fn propagates(&mut self) -> bool {
        let Some(list) = self.variable("OTEL_PROPAGATORS") else { return true };
        for name in list.split(',').map(str::trim).filter(|name| !["tracecontext", "baggage", "none"].contains(name)) {
            self.unreadable("OTEL_PROPAGATORS", name, "it is passed over: tracecontext is spoken, baggage goes through as it came");
        }
        list.split(',').any(|name| name.trim() == "tracecontext")
    }
}

#[cfg(test)]
mod tests;
