//! A real OpenTelemetry collector, with Basic authentication over gRPC and HTTP.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use weir_tests::{Folder, Process, eventually, repository};

use super::collector::PROOF;
use super::server::ModelServer;
use super::traces::{CLIENT, TRACE, two_requests};
use super::{blocking, client, start};

fn program() -> PathBuf {
    let install = Command::new(repository().join("tests/otel-collector/install")).output().unwrap();
    assert!(install.status.success(), "tests/otel-collector/install: {}", String::from_utf8_lossy(&install.stderr));
    String::from_utf8_lossy(&install.stdout).trim().into()
}

/// Ports that nobody has at present: the collector does not say which it took.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_takes_the_traces_over_grpc_and_http() {
    let folder = Folder::new("otel");
    let ([grpc, http], taken) = (free_ports(), folder.file("taken.json"));
    let config = format!(
        "extensions:\n  basicauth/server: {{ htpasswd: {{ inline: \"weir:secret\" }} }}\n\
         receivers:\n  otlp:\n    protocols:\n\
         \x20     grpc: {{ endpoint: \"127.0.0.1:{grpc}\", auth: {{ authenticator: basicauth/server }} }}\n\
         \x20     http: {{ endpoint: \"127.0.0.1:{http}\", auth: {{ authenticator: basicauth/server }} }}\n\
         exporters:\n  file: {{ path: \"{}\", flush_interval: 100ms }}\n\
         service:\n  extensions: [basicauth/server]\n  telemetry: {{ metrics: {{ level: none }} }}\n\
         \x20 pipelines:\n    traces: {{ receivers: [otlp], exporters: [file] }}\n",
        taken.display()
    );
    let config = folder.write("collector.yaml", &config);
    let _collector = blocking(move || {
        let mut command = Command::new(program());
        command.arg("--config").arg(config);
        let process = Process::start(command);
        process.line("ready", |line| line.contains("Everything is ready"));
        process
    })
    .await;
    for (protocol, port) in [("grpc", grpc), ("http/protobuf", http)] {
        let folder = Folder::new(&format!("otel-{port}"));
        let server = ModelServer::start().await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={}", PROOF.replace(' ', "%20"))),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
            ("OTEL_SERVICE_NAME", protocol.to_owned()),
        ];
        let (picker, url) = start(&folder, &server.address.to_string(), "", &variables).await;
        let seen = two_requests(&client(), &url, &server).await;
        picker.ends_well().await;
        let file = taken.clone();
        let span = blocking(move || {
            eventually("the trace in the collector's file", || {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                request_span(&text, protocol).ok_or(text)
            })
        })
        .await;
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &CLIENT.into()), "{span}");
        assert_eq!(span["spanId"], seen, "what the model server saw belongs below it");
    }
}

/// The request's span of this service.
fn request_span(text: &str, service: &str) -> Option<Value> {
    let documents = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let resources = documents.flat_map(|document| document["resourceSpans"].as_array().cloned().unwrap_or_default());
    let of_service = resources.filter(|of| of["resource"]["attributes"][0]["value"]["stringValue"] == service);
    let scopes = of_service.flat_map(|of| of["scopeSpans"].as_array().cloned().unwrap_or_default());
    let mut spans = scopes.flat_map(|of| of["spans"].as_array().cloned().unwrap_or_default());
    spans.find(|span| span["name"] == "gateway.request")
}
