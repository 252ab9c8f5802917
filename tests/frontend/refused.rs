//! Collectors that take nothing: requests go on, one line says why, and the page counts.

use weir_tests::{Folder, eventually};

use super::collector::{Collector, Protocol};
use super::server::ModelServer;
use super::{ask, blocking, client, start};

/// A picker with these variables serves, and its page and its log say what is wrong with its traces.
async fn goes_on(name: &str, mut variables: Vec<(&'static str, String)>, reason: &str, words: &'static [&'static str]) {
    let folder = Folder::new(name);
    let server = ModelServer::start().await;
    variables.retain(|(name, _)| *name != "OTEL_BSP_SCHEDULE_DELAY");
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", "50".into()));
    let (picker, url) = start(&folder, &server.address.to_string(), "", &variables).await;
    let client = client();
    let failed = format!("weir_trace_export_failures_total{{reason=\"{reason}\"}}");
    for times in 1..=2 {
        assert_eq!(ask(&client, &url).send().await.unwrap().status(), 200);
        let failed = failed.clone();
        picker.page_until("the failure counted", move |page| super::rig::value(page, &failed) >= Some(f64::from(times))).await;
    }
    let said = |output: &str| output.lines().filter(|line| line.contains("traces cannot be exported")).count();
    let output = blocking({
        let output = picker.output();
        move || eventually("the log", || if said(&output) > 0 { Ok(output.clone()) } else { Err(output.clone()) })
    })
    .await;
    assert_eq!(said(&output), 1, "said once: {output}");
    for word in words {
        assert!(output.contains(word), "{word}: {output}");
    }
    assert!(!output.contains("d3Jvbmc="), "a secret in the log: {output}");
    picker.ends_well().await;
}

/// `weir:wrong`
const WRONG: &str = "Basic d2VpcjpzZWNyZXQd3Jvbmc=";

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_over_grpc() {
    let collector = Collector::start(Protocol::Grpc).await;
    let words = &["Unauthenticated", "OTEL_EXPORTER_OTLP_HEADERS"];
    goes_on("refused-grpc", collector.variables(WRONG), "unauthorized", words).await;
    assert_eq!(collector.taken().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_over_http() {
    let collector = Collector::start(Protocol::Http).await;
    let words = &["401 Unauthorized", "OTEL_EXPORTER_OTLP_HEADERS"];
    goes_on("refused-http", collector.variables(WRONG), "unauthorized", words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_is_told_with_the_variable_that_mends_it() {
    let collector = Collector::start(Protocol::Http).await;
    let mut variables = collector.variables(super::collector::PROOF);
    variables[1].1.push_str("/somewhere");
    goes_on("refused-path", variables, "not_found", &["404 Not Found", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_protocol_is_told() {
    let collector = Collector::start(Protocol::Http).await;
    let mut variables = collector.variables(super::collector::PROOF);
    variables[2].1 = "grpc".into();
    // It speaks HTTP/2, and has no such path.
    goes_on("refused-protocol", variables, "not_found", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_stops_nothing_not_even_the_end() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (protocol, name) in [("grpc", "absent-grpc"), ("http/protobuf", "absent-http")] {
        let variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.into()),
            ("OTEL_TRACES_SAMPLER", "always_on".into()),
        ];
        goes_on(name, variables, "unreachable", &["Connection refused", "OTEL_TRACES_EXPORTER=none"]).await;
    }
}
