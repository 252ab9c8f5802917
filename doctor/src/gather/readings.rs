//! An autoscaler's metrics, asked for as its controller asks.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::Value;
use weir_hpa::MetricReading;

use super::ask::{Asker, segment};
use crate::explain::Reading;
use crate::facts::Facts;
use crate::facts::scaling::{Metric, Quantity};
use crate::look::meta;

const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The newer version first, as the controller prefers it where both are there.
const CUSTOM: [&str; 2] = ["/apis/custom.metrics.k8s.io/v1beta2", "/apis/custom.metrics.k8s.io/v1beta1"];

/// One answer for each metric of the autoscaler; none where it is not known.
pub(super) async fn read(asker: &Asker, facts: &Facts, namespace: &str, name: &str, now: SystemTime) -> Vec<Reading> {
    let autoscaler = facts.autoscalers.iter().find(|autoscaler| meta(autoscaler.metadata.as_ref()).is(namespace, name));
    let Some(spec) = autoscaler.and_then(|autoscaler| autoscaler.spec.as_ref()) else { return Vec::new() };
    let target = spec.scale_target_ref.as_ref().and_then(|reference| facts.target(namespace, reference));
    let pods =
        target.and_then(|target| target.spec.as_ref()?.selector.as_ref()).map(|selector| selector.shown()).unwrap_or_default();
    let metrics: Vec<&Metric> = spec.metrics.iter().flatten().collect();
    futures_util::future::join_all(metrics.into_iter().map(|metric| one(asker, metric, namespace, &pods, now))).await
}

/// What is asked for, below the version of the API.
fn path(metric: &Metric, namespace: &str, pods: &str) -> Option<String> {
    let source = metric.source()?;
    let identifier = source.metric.as_ref()?;
    // GKE's names have bars, which a path takes encoded.
    let name = segment(identifier.name.as_deref()?);
    let selector = identifier.selector.as_ref().map(|selector| selector.shown()).filter(|selector| !selector.is_empty());
    let namespace = segment(namespace);
    let query = |key: &str| selector.as_deref().map_or_else(String::new, |selector| format!("{key}={}", segment(selector)));
    Some(match metric.r#type.as_deref()? {
        "External" => format!("/namespaces/{namespace}/{name}?{}", query("labelSelector")),
        "Pods" => format!("/namespaces/{namespace}/pods/*/{name}?labelSelector={}&{}", segment(pods), query("metricLabelSelector")),
        "Object" => {
            let described = source.described_object.as_ref()?;
            let group = described.api_version.as_deref().and_then(|version| version.split_once('/')).map(|(group, _)| group);
            // Kinds of one's own have plurals that the API server knows; those that are scaled on here end in s.
            let plural = format!("{}s", described.kind.as_deref()?.to_lowercase());
            let resource = group.map_or_else(|| plural.clone(), |group| format!("{plural}.{group}"));
            format!(
                "/namespaces/{namespace}/{resource}/{}/{name}?{}",
                segment(described.name.as_deref()?),
                query("metricLabelSelector")
            )
        }
        _ => return None,
    })
}

async fn one(asker: &Asker, metric: &Metric, namespace: &str, pods: &str, now: SystemTime) -> Reading {
    let failed = |error: String| Reading { reading: MetricReading::Error(error), age: None };
    let Some(path) = path(metric, namespace, pods) else {
        return failed("cannot be asked for: its type or name is not known".to_owned());
    };
    let path = path.trim_end_matches(['?', '&']);
    let mut answer = Err("no metrics API".to_owned());
    let apis = if metric.r#type.as_deref() == Some("External") { &[EXTERNAL][..] } else { &CUSTOM[..] };
    for api in apis {
        match asker.get(&format!("{api}{path}")).await {
            Ok(text) => {
                answer = Ok(text);
                break;
            }
            Err(problem) => {
                let absent = problem.status == Some(404);
                answer = Err(problem.message);
                if !absent {
                    break;
                }
            }
        }
    }
    match answer.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| format!("no JSON: {error}"))) {
        Ok(list) => understand(&list, metric.r#type.as_deref() == Some("Pods"), now),
        Err(error) => failed(error),
    }
}

fn understand(list: &Value, per_pod: bool, now: SystemTime) -> Reading {
    let mut values = Vec::new();
    let mut by_pod = BTreeMap::new();
    let mut oldest: Option<Duration> = None;
    for item in list["items"].as_array().into_iter().flatten() {
        let value = item["value"].as_str().and_then(|value| Quantity::Text(value.to_owned()).milli());
        let Some(value) = value else {
            return Reading { reading: MetricReading::Error("an item without a value".to_owned()), age: None };
        };
        values.push(value);
        by_pod.insert(item["describedObject"]["name"].as_str().unwrap_or("?").to_owned(), value);
        let at = item["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok()).map(SystemTime::from);
        let age = at.and_then(|at| now.duration_since(at).ok());
        oldest = oldest.max(age);
    }
    Reading { reading: if per_pod { MetricReading::PerPod(by_pod) } else { MetricReading::Items(values) }, age: oldest }
}
