//! One trace from the client to the model server, and what of it reaches a collector.

use std::collections::BTreeSet;

use axum::http::HeaderMap;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use weir_tests::Folder;

use super::collector::{Collector, PROOF, Protocol, attribute, text};
use super::rig::{Gateway, Picker, pools_file};
use super::server::ModelServer;
use super::{MODEL, ask, client, start};

pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const CLIENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traceparent(head: &HeaderMap) -> Vec<&str> {
    head["traceparent"].to_str().unwrap().split('-').collect()
}

/// Two requests, of traces that are kept and that are not; below which span the model server was to go on with the first.
pub(crate) async fn two_requests(client: &reqwest::Client, url: &str, server: &ModelServer) -> String {
    for flags in ["01", "00"] {
        let request = ask(client, url).header("traceparent", format!("00-{TRACE}-{CLIENT}-{flags}")).header("tracestate", "a=b");
        let answer = request.header("x-request-id", format!("r-{flags}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(weir_tests::text(answer).await.unwrap().contains("completion_tokens"));
    }
    let heads = server.heads();
    let [kept, other] = &heads[..] else { panic!("{heads:?}") };
    for (head, flags) in [(kept, "01"), (other, "00")] {
        let parent = traceparent(head);
        assert_eq!((parent[1], parent[3], &head["tracestate"]), (TRACE, flags, &"a=b".parse().unwrap()), "{head:?}");
        assert_ne!(parent[2], CLIENT, "the model server's spans are below the picker's");
    }
    traceparent(kept)[2].to_owned()
}

/// The trace is whole: one root below the client's span, the others below it.
fn is_whole(spans: &[Span], seen: &str) {
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let named = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        let [span] = found[..] else { panic!("{name}: {spans:#?}") };
        span
    };
    let request = named("gateway.request");
    assert_eq!((hex(&request.parent_span_id).as_str(), hex(&request.span_id).as_str()), (CLIENT, seen));
    let orchestration = named("gateway.request_orchestration");
    assert_eq!(orchestration.parent_span_id, request.span_id);
    let scheduling = named("llm_d.epp.scheduling");
    assert_eq!(scheduling.parent_span_id, orchestration.span_id);
    for name in ["llm_d.epp.scorer.queue-scorer", "llm_d.epp.picker.max-score-picker"] {
        assert_eq!(named(name).parent_span_id, scheduling.span_id, "{name}");
    }
    let ids: BTreeSet<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len());
    for span in spans {
        let within =
            |of: &Span| of.start_time_unix_nano <= span.start_time_unix_nano && span.end_time_unix_nano <= of.end_time_unix_nano;
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano && within(request), "{span:#?} in {request:#?}");
    }
    let of = &request.attributes;
    assert_eq!((text(of, "gen_ai.request.model"), text(of, "gen_ai.request.id")), (Some(MODEL), Some("r-01")));
    assert_eq!((text(of, "gen_ai.operation.name"), text(of, "url.path")), (Some("text_completion"), Some("/v1/completions")));
    for (name, number) in [("http.response.status_code", 200), ("gen_ai.usage.input_tokens", 8), ("gen_ai.usage.output_tokens", 3)]
    {
        assert_eq!(attribute(of, name), Some(&Value::IntValue(number)), "{name}");
    }
    assert_eq!(text(&orchestration.attributes, "target_model"), Some(MODEL));
    assert_eq!(attribute(&orchestration.attributes, "request_prio"), Some(&Value::IntValue(0)));
    assert!(!format!("{spans:?}").contains("nobody else may read"));
}

async fn without_a_gateway(name: &str, protocol: Protocol) {
    let folder = Folder::new(name);
    let (server, collector) = (ModelServer::start().await, Collector::start(protocol).await);
    let (picker, url) = start(&folder, &server.address.to_string(), "", &collector.variables(PROOF)).await;
    picker.page_until("the server's page", |page| page.contains("state=\"fresh\"} 1")).await;
    let seen = two_requests(&client(), &url, &server).await;
    assert_eq!(collector.taken().len(), 0, "nothing is due yet");
    picker.ends_well().await;
    let taken = collector.taken();
    let resource = taken[0].resource.as_ref().unwrap();
    assert_eq!(text(&resource.attributes, "service.name"), Some("the-picker"));
    is_whole(&collector.spans(), &seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_reaches_a_collector_over_grpc_by_the_end_at_the_latest() {
    without_a_gateway("traces-grpc", Protocol::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_reaches_a_collector_over_http_by_the_end_at_the_latest() {
    without_a_gateway("traces-http", Protocol::Http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_envoy_the_model_server_is_part_of_the_same_trace() {
    let folder = Folder::new("traces-envoy");
    let (server, collector) = (ModelServer::start().await, Collector::start(Protocol::Grpc).await);
    let address = server.address.to_string();
    let pools = pools_file(&folder, &address);
    let line = "--pool-name r --pool-namespace n";
    let picker = Picker::start_with(&folder, line, &pools, &collector.variables(PROOF)).await;
    picker.is_ready().await;
    picker.page_until("the server's page", |page| page.contains("state=\"fresh\"} 1")).await;
    let gateway = Gateway::start("traces", picker.ext_proc, &address).await;
    let seen = two_requests(&gateway.client, &gateway.url(""), &server).await;
    picker.page_until("no stream open", |page| page.contains("weir_ext_proc_streams 0")).await;
    picker.ends_well().await;
    is_whole(&collector.spans(), &seen);
}
