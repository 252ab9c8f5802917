//! What is known of a pool's servers, and what follows from it.

use weir_datastore::Thresholds;

use super::{ExplainError, Explanation};
use crate::facts::Facts;
use crate::facts::meta::labels_shown;
use crate::facts::observed::Page;
use crate::look::{meta, path, shown};

/// Explains a pool by the pages of its servers.
///
/// # Errors
/// [`ExplainError`] where it is not there.
pub fn explain_pool(facts: &Facts, namespace: &str, name: &str) -> Result<Explanation, ExplainError> {
    const KIND: &str = "InferencePool";
    let Some(pool) = facts.pool(namespace, name) else {
        let mut names: Vec<_> = facts.every_pool().map(path).take(8).collect();
        names.sort();
        let near = if names.is_empty() { String::new() } else { format!(" (there are {})", names.join(", ")) };
        return Err(ExplainError::Missing { kind: KIND, path: format!("{namespace}/{name}"), near });
    };
    let labels = pool.spec.as_ref().and_then(|spec| spec.selector.as_ref()?.labels()).unwrap_or_default();
    let ports: Vec<_> = pool.ports().iter().map(i64::to_string).collect();
    let pods = facts.pods_of(pool);
    let ready = pods.iter().filter(|pod| pod.ready() == Some(true)).count();
    let mut lines = vec![
        format!("InferencePool {}", path(pool)),
        format!("selects     {} on port {}: {} pods, {ready} Ready", labels_shown(&labels), ports.join(", "), pods.len()),
    ];
    if let Some(start) = facts.start_time(pool) {
        lines.push(format!("start       at least {} from scheduled to Ready", shown(start)));
    }
    let mut pages: Vec<&Page> = Vec::new();
    for pod in &pods {
        for page in facts.pages_of(pod) {
            lines.push(format!("server      {}", server(page)));
            if pod.ready() == Some(true) && page.engine.is_some() {
                pages.push(page);
            }
        }
    }
    lines.extend(sums(&pages, ready));
    for autoscaler in facts
        .autoscalers
        .iter()
        .filter(|autoscaler| facts.pool_of_autoscaler(autoscaler).is_some_and(|other| path(other) == path(pool)))
    {
        let own = meta(autoscaler.metadata.as_ref());
        lines.push(format!(
            "scaled by   HorizontalPodAutoscaler {}: weir explain hpa {} -n {}",
            own.path(),
            own.name(),
            own.namespace()
        ));
    }
    Ok(Explanation { object: format!("{KIND} {}", path(pool)), lines, prediction: None })
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned())
}

fn server(page: &Page) -> String {
    match (&page.engine, page.status, &page.failure) {
        (Some(engine), ..) => format!(
            "{}: {engine}, {} running, {} waiting, KV cache {}",
            page.place(),
            number(page.running),
            number(page.waiting),
            number(page.kv_cache_utilization)
        ),
        (None, Some(status), _) => {
            format!("{}: answers {status}, {}", page.place(), page.unreadable.as_deref().unwrap_or("no load on it"))
        }
        (None, None, failure) => {
            format!("{}: {}", page.place(), page.message.as_deref().or(failure.as_deref()).unwrap_or("not read"))
        }
    }
}

/// Totals, means and saturation, as weir serves them.
fn sums(pages: &[&Page], ready: usize) -> Vec<String> {
    if pages.is_empty() {
        return vec!["load        unknown: no page of a Ready server can be read (unknown is not zero)".to_owned()];
    }
    let count = pages.len() as f64;
    let mean = |of: fn(&Page) -> Option<f64>| pages.iter().map(|page| of(page)).sum::<Option<f64>>().map(|sum| sum / count);
    let total = |of: fn(&Page) -> Option<f64>| mean(of).map(|mean| mean * ready as f64);
    let Thresholds { queue, kv_cache_utilization: kv_cache } = Thresholds::default();
    let full = |page: &&&Page| Some((page.waiting? / queue).max(page.kv_cache_utilization? / kv_cache));
    let saturation = pages.iter().map(|page| full(&page)).sum::<Option<f64>>().map(|sum| sum / count);
    vec![
        format!("coverage    {} of {ready} Ready servers can be read", pages.len()),
        format!(
            "mean        {} running, {} waiting, KV cache {}",
            number(mean(|page| page.running)),
            number(mean(|page| page.waiting)),
            number(mean(|page| page.kv_cache_utilization))
        ),
        format!(
            "total       {} running, {} waiting in servers (what pickers hold comes on top)",
            number(total(|page| page.running)),
            number(total(|page| page.waiting))
        ),
        format!(
            "saturation  {} (1 is full: mean of the larger of waiting ÷ {queue} and KV cache ÷ {kv_cache})",
            number(saturation)
        ),
    ]
}
