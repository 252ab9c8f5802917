//! The pools' pods themselves: their metrics pages and `/v1/models`, through the API server's pod proxy.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::Instant;
use weir_datastore::FRESH_AT_MOST;
use weir_datastore::engine::{PageClock, PageReader};
use weir_datastore::page::Format;

use super::GatherOptions;
use super::ask::{Answer, Asker, Problem, segment};
use crate::facts::observed::{FAILED, NOT_ALLOWED, Page, REFUSED, ServedModels, TIMEOUT};
use crate::facts::{Facts, Listing, Reason, scrub};
use crate::look::meta;

/// Where trtllm-serve has its page.
const OTHER_PATH: &str = "/prometheus/metrics";
/// Most names of models that one server may tell.
const MODELS: usize = 1_000;

/// A place to ask.
#[derive(Clone)]
struct Place {
    namespace: String,
    pod: String,
    port: i64,
    path: String,
    /// Whether the pool's requests go there, and not its metrics alone.
    serves: bool,
}

impl Place {
    fn url(&self, path: &str) -> String {
        let (namespace, pod) = (segment(&self.namespace), segment(&self.pod));
        format!("/api/v1/namespaces/{namespace}/pods/{pod}:{}/proxy{path}", self.port)
    }
}

/// Reads the pages and models of all pools' running pods.
pub(super) async fn read(asker: &Asker, facts: &Facts, options: &GatherOptions) -> (Listing<Page>, Listing<ServedModels>) {
    let (places, cut) = places(facts, options.pods);
    let pages = futures_util::future::join_all(places.iter().map(|place| page(asker, place)));
    let serving = || places.iter().filter(|place| place.serves);
    let models = futures_util::future::join_all(serving().map(|place| models(asker, place)));
    let (pages, models) = tokio::join!(pages, models);
    let refused = pages.iter().any(|page| page.failure.as_deref() == Some(NOT_ALLOWED));
    let why = refused.then(|| Reason::Forbidden("get pods/proxy".to_owned()));
    (Listing { cut, why: why.clone(), ..Listing::of(pages) }, Listing { cut, why, ..Listing::of(models) })
}

fn places(facts: &Facts, most: usize) -> (Vec<Place>, bool) {
    let mut places: Vec<Place> = Vec::new();
    let mut pods = 0;
    for pool in facts.every_pool() {
        let annotation = |name: &str| meta(pool.metadata.as_ref()).annotation(&format!("{}{name}", weir_k8s::ANNOTATION_PREFIX));
        let path = annotation("metrics-path").filter(|path| path.starts_with('/') && path.is_ascii() && !path.contains([' ', '#']));
        let other_port = annotation("metrics-port").and_then(|port| port.parse::<u16>().ok()).map(i64::from);
        for pod in facts.pods_of(pool) {
            if pod.phase() != Some("Running") {
                continue;
            }
            if pods == most {
                return (places, true);
            }
            pods += 1;
            let served = pool.ports();
            let ports = served.iter().copied().chain(other_port.filter(|port| !served.contains(port)));
            for port in ports.filter(|port| (1..=65535).contains(port)) {
                let place = Place {
                    namespace: pod.meta().namespace().to_owned(),
                    pod: pod.meta().name().to_owned(),
                    port,
                    path: path.unwrap_or("/metrics").to_owned(),
                    serves: served.contains(&port),
                };
                // Two pools may select one pod.
                if !places
                    .iter()
                    .any(|other| other.namespace == place.namespace && other.pod == place.pod && other.port == place.port)
                {
                    places.push(place);
                }
            }
        }
    }
    // Where metrics have a port of their own, that of the requests need not have a page.
    let own: Vec<(String, String)> =
        places.iter().filter(|place| !place.serves).map(|place| (place.namespace.clone(), place.pod.clone())).collect();
    places.retain(|place| !place.serves || !own.contains(&(place.namespace.clone(), place.pod.clone())) || place.path.is_empty());
    (places, false)
}

/// What kind of refusal the API server tells of, where the pod itself did not answer.
pub(super) fn failure(answer: &Answer) -> Option<(&'static str, String)> {
    let status: Value = serde_json::from_slice(&answer.body).ok()?;
    if status["kind"].as_str() != Some("Status") || status["apiVersion"].as_str() != Some("v1") {
        return None;
    }
    let message = status["message"].as_str().unwrap_or("");
    let kind = match answer.status {
        401 | 403 => NOT_ALLOWED,
        _ if message.contains("connection refused") => REFUSED,
        504 => TIMEOUT,
        _ if message.contains("timeout") || message.contains("deadline exceeded") => TIMEOUT,
        _ => FAILED,
    };
    Some((kind, scrub::text(message)))
}

fn unanswered(problem: Problem) -> (&'static str, String) {
    (if problem.late { TIMEOUT } else { FAILED }, problem.message)
}

async fn page(asker: &Asker, place: &Place) -> Page {
    let first = page_at(asker, place, &place.path).await;
    // Metrics elsewhere by default: trtllm-serve.
    let elsewhere = first.status == Some(404) || first.unreadable.as_deref().is_some_and(|reason| reason.contains(OTHER_PATH));
    if place.path == "/metrics" && elsewhere {
        let second = page_at(asker, place, OTHER_PATH).await;
        if second.engine.is_some() {
            return second;
        }
    }
    first
}

async fn page_at(asker: &Asker, place: &Place, path: &str) -> Page {
    let mut page = Page {
        namespace: Some(place.namespace.clone()),
        pod: Some(place.pod.clone()),
        port: Some(place.port),
        path: Some(path.to_owned()),
        ..Page::default()
    };
    let asked_at = Instant::now();
    match asker.ask(&place.url(path), "text/plain;version=0.0.4").await {
        Err(problem) => (page.failure, page.message) = fields(unanswered(problem)),
        Ok(answer) => match failure(&answer) {
            Some(failed) => (page.failure, page.message) = fields(failed),
            None => {
                page.status = Some(i64::from(answer.status));
                page.bytes = i64::try_from(answer.body.len()).ok();
                if answer.status == 200 {
                    understand(&mut page, &answer, asked_at);
                }
            }
        },
    }
    page
}

fn fields((kind, message): (&'static str, String)) -> (Option<String>, Option<String>) {
    (Some(kind.to_owned()), Some(message))
}

/// What the page says.
fn understand(page: &mut Page, answer: &Answer, asked_at: Instant) {
    let format = if answer.content_type.starts_with("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text };
    let wall_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let stale_after_ms = i64::try_from(FRESH_AT_MOST.as_millis()).unwrap_or(i64::MAX);
    let reading = PageReader::new(None, &[]).explain(&answer.body, format, PageClock { asked_at, wall_ms, stale_after_ms });
    let reading = match reading {
        Ok(reading) => reading,
        Err(error) => {
            page.unreadable = Some(scrub::text(&error.to_string()));
            return;
        }
    };
    page.samples = Some(i64::from(reading.report.sample_lines));
    let newest = reading.series.iter().filter_map(|series| series.timestamp_ms).max();
    page.sample_age_seconds = newest.map(|newest| wall_ms.saturating_sub(newest) as f64 / 1000.0);
    let Some(load) = reading.load else {
        if reading.report.sample_lines > 0 {
            page.unreadable = Some(format!("none of {} samples is a load signal of a known engine", reading.report.sample_lines));
        }
        return;
    };
    page.engine = Some(load.engine.name().to_owned());
    page.waiting = load.waiting.map(|signal| signal.value);
    page.running = load.running.map(|signal| signal.value);
    page.kv_cache_utilization = load.kv_cache_utilization.map(|signal| signal.value);
    page.ranks = i64::try_from(load.units.len()).ok();
    let max_running: Vec<f64> = load.units.iter().filter_map(|unit| unit.max_running).collect();
    page.max_running = (!max_running.is_empty()).then(|| max_running.iter().sum());
    let missing: Vec<_> = load.lacks().into_iter().map(str::to_owned).collect();
    // Signals whose samples are of the past are not missing: that is another finding.
    if !missing.is_empty() && page.sample_age_seconds.is_none() {
        page.missing = Some(missing);
    }
}

async fn models(asker: &Asker, place: &Place) -> ServedModels {
    let mut models = ServedModels {
        namespace: Some(place.namespace.clone()),
        pod: Some(place.pod.clone()),
        port: Some(place.port),
        ..ServedModels::default()
    };
    let answer = match asker.ask(&place.url("/v1/models"), "application/json").await {
        Ok(answer) => answer,
        Err(problem) => {
            models.failure = Some(unanswered(problem).0.to_owned());
            return models;
        }
    };
    if let Some((kind, _)) = failure(&answer) {
        models.failure = Some(kind.to_owned());
        return models;
    }
    models.status = Some(i64::from(answer.status));
    let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if let Some(data) = list["data"].as_array().filter(|_| answer.status == 200) {
        let names = data.iter().take(MODELS).filter_map(|model| model["id"].as_str());
        models.ids = Some(names.map(scrub::text).collect());
    }
    models
}
