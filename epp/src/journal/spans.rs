//! A request as spans: upstream's names where it has any, OpenTelemetry's attributes of generative AI.

use tokio::time::Instant;
use weir_traces::{KeyValue, RequestSpan};

use super::entry::Told;
use crate::Api;
use crate::scheduling::ExtensionPoint;

/// The request, from its head to its end.
pub(super) const REQUEST: &str = "gateway.request";
/// From the question where it goes to the answer.
const ORCHESTRATION: &str = "gateway.request_orchestration";
/// Its wait for room, or for an endpoint.
const WAIT: &str = "llm_d.epp.wait";
/// The choice.
const SCHEDULING: &str = "llm_d.epp.scheduling";

/// The first status that is an error of whoever answered, not of whoever asked.
const FIRST_SERVER_ERROR: u16 = 500;

/// Tells what is known, and ends the span.
pub(super) fn end(mut span: RequestSpan, told: &Told<'_>) {
    let Told { entry, steps, answer, ended, .. } = told;
    set_request(&mut span, told);
    if let Some(endpoint) = answer.endpoint {
        span.set(KeyValue::new("server.address", endpoint.ip().to_string()));
        span.set(KeyValue::new("server.port", i64::from(endpoint.port())));
    }
    if let Some(status) = answer.status {
        span.set(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(at) = answer.first_bytes {
        let seconds = at.saturating_duration_since(entry.began).as_secs_f64();
        span.set(KeyValue::new("gen_ai.latency.time_to_first_token", seconds));
    }
    if let Some(usage) = answer.usage {
        let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        span.set(KeyValue::new("gen_ai.usage.input_tokens", count(usage.prompt_tokens)));
        span.set(KeyValue::new("gen_ai.usage.output_tokens", count(usage.completion_tokens)));
        span.set(KeyValue::new("gen_ai.usage.cache_read.input_tokens", count(usage.cached_tokens)));
    }
    let reason = told.reason().map(str::to_owned);
    let server_failed = answer.status.is_some_and(|status| status >= FIRST_SERVER_ERROR);
    if let Some(reason) = reason.or_else(|| server_failed.then(|| answer.status.unwrap_or_default().to_string())) {
        span.set(KeyValue::new("error.type", reason.clone()));
        if server_failed || answer.status.is_none() || answer.completed.is_none() {
            span.failed(reason);
        }
    }
    let wall = |at: Instant| entry.wall(at);
    if let Some(request) = &entry.request {
        let until = entry.decided.unwrap_or(*ended);
        let mut attributes = Vec::new();
        if let Some(target) = steps.target_model.as_deref().or(request.model.as_deref()) {
            attributes.push(KeyValue::new("target_model", target.to_owned()));
        }
        if let Some(priority) = steps.priority {
            attributes.push(KeyValue::new("request_prio", i64::from(priority)));
        }
        span.part(ORCHESTRATION, (wall(request.at), wall(until)), attributes, |orchestration| {
            if let Some((since, until)) = steps.waited {
                let flow = request.flow.clone().map(|flow| KeyValue::new("llm_d.epp.flow", flow));
                orchestration.part(WAIT, (wall(since), wall(until.unwrap_or(*ended))), flow.into_iter().collect(), |_| {});
            }
            // What was before the choice, admission, and what learns of it stand beside it.
            let within = |from: Instant| steps.scheduled.is_some_and(|(began, ended, _)| began <= from && from <= ended);
            let runs = |of_choice: bool| steps.runs.iter().filter(move |run| within(run.took.0) == of_choice);
            let plugin = |part: &weir_traces::Part<'_>, run: &super::PluginRun| {
                let kind = word(run.point);
                let attributes = vec![
                    KeyValue::new(format!("llm_d.epp.{kind}.type"), run.plugin.kind),
                    KeyValue::new(format!("llm_d.epp.{kind}.name"), run.plugin.name.to_string()),
                ];
                let name = format!("llm_d.epp.{kind}.{}", run.plugin.kind);
                part.part(name, (wall(run.took.0), wall(run.took.1)), attributes, |_| {});
            };
            if let Some((from, until, candidates)) = steps.scheduled {
                let candidates = i64::try_from(candidates).unwrap_or(i64::MAX);
                let attributes = vec![KeyValue::new("llm_d.epp.scheduling.candidate_endpoints", candidates)];
                orchestration.part(SCHEDULING, (wall(from), wall(until)), attributes, |scheduling| {
                    runs(true).for_each(|run| plugin(scheduling, run));
                });
            }
            runs(false).for_each(|run| plugin(orchestration, run));
        });
    }
    span.end(wall(*ended));
}

fn set_request(span: &mut RequestSpan, told: &Told<'_>) {
    let entry = told.entry;
    span.set(KeyValue::new("http.request.method", entry.method.clone()));
    span.set(KeyValue::new("url.path", entry.path.clone()));
    let Some(request) = &entry.request else { return };
    span.set(KeyValue::new("gen_ai.request.id", request.id.clone()));
    span.set(KeyValue::new("gen_ai.operation.name", operation(request.api)));
    if let Some(model) = &request.model {
        span.set(KeyValue::new("gen_ai.request.model", model.clone()));
    }
    // The name that the server knows it by.
    if let Some(model) = told.steps.target_model.as_deref().or(request.model.as_deref()) {
        span.set(KeyValue::new("gen_ai.response.model", model.to_owned()));
    }
    span.set(KeyValue::new("gen_ai.request.stream", request.streaming));
    if let Some(objective) = &request.objective {
        span.set(KeyValue::new("llm_d.epp.objective", objective.clone()));
    }
}

/// OpenTelemetry's word for what is asked.
fn operation(api: Api) -> &'static str {
    match api {
        Api::ChatCompletions | Api::Responses | Api::Conversations | Api::Messages => "chat",
        Api::Completions | Api::Generate => "text_completion",
        Api::Embeddings => "embeddings",
        Api::Images => "generate_content",
        Api::Other => "other",
    }
}

fn word(point: ExtensionPoint) -> &'static str {
    match point {
        ExtensionPoint::Filter => "filter",
        ExtensionPoint::Scorer => "scorer",
        ExtensionPoint::Picker => "picker",
        ExtensionPoint::Admit => "admission",
        ExtensionPoint::PreRequest => "pre_request",
    }
}
