//! The last lines of pickers' logs, for the few signs that name a cause. No line is kept.

use super::ask::{Asker, segment};
use crate::facts::observed::LogSign;
use crate::facts::workload::Pod;
use crate::facts::{Facts, Listing, Reason};

/// Lines looked at.
const LINES: usize = 200;
/// How far back: what was mended before is no sign.
const SECONDS: usize = 600;
/// Bytes of a log.
const BYTES: usize = 256 << 10;
/// Most pods.
const PODS: usize = 200;
/// Most signs of one pod.
const SIGNS: usize = 20;

/// Reads the logs of all pickers, and of pods that run one for a pool that is not there.
pub(super) async fn read(asker: &Asker, facts: &Facts) -> Listing<LogSign> {
    let mut pods: Vec<&Pod> = facts.every_pool().flat_map(|pool| facts.picker_pods(pool)).collect();
    pods.extend(
        facts.pods.iter().filter(|pod| pod.counts() && (pod.flag("pool-name").is_some() || pod.flag("poolName").is_some())),
    );
    pods.sort_by_key(|pod| pod.meta().path());
    pods.dedup_by_key(|pod| pod.meta().path());
    let mut listing = Listing { cut: pods.len() > PODS, ..Listing::of(Vec::new()) };
    pods.truncate(PODS);
    let answers = pods.into_iter().map(|pod| async move {
        let named = |container: &&crate::facts::workload::Container| {
            container.args.iter().flatten().any(|argument| argument.contains("pool-name") || argument.contains("poolName"))
        };
        let container =
            pod.containers().find(named).or_else(|| pod.containers().next()).and_then(|container| container.name.as_deref());
        let container = container.map_or_else(String::new, |name| format!("&container={}", segment(name)));
        let (namespace, name) = (segment(pod.meta().namespace()), segment(pod.meta().name()));
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{name}/log?tailLines={LINES}&sinceSeconds={SECONDS}&limitBytes={BYTES}{container}"
        );
        (pod, asker.get_as(&path, "*/*").await)
    });
    for (pod, log) in futures_util::future::join_all(answers).await {
        match log {
            Ok(log) => {
                let mut signs: Vec<LogSign> = Vec::new();
                for sign in log.lines().filter_map(sign) {
                    let sign = LogSign {
                        namespace: Some(pod.meta().namespace().to_owned()),
                        pod: Some(pod.meta().name().to_owned()),
                        ..sign
                    };
                    let key = |sign: &LogSign| {
                        (sign.kind.clone(), sign.verb.clone(), sign.resource.clone(), sign.within.clone(), sign.status)
                    };
                    if signs.len() < SIGNS && !signs.iter().any(|other| key(other) == key(&sign)) {
                        signs.push(sign);
                    }
                }
                listing.items.get_or_insert_default().extend(signs);
            }
            Err(problem) if matches!(problem.status, Some(401 | 403)) => {
                listing.why = Some(Reason::Forbidden(format!("get pods/log in namespace {}", pod.meta().namespace())));
            }
            // A container that has not started has no log, nor has a pod that is gone.
            Err(problem) if matches!(problem.status, Some(400 | 404)) => {}
            Err(problem) => listing.why = Some(Reason::Failed(format!("log of {}: {}", pod.meta().path(), problem.message))),
        }
    }
    listing
}

/// What a line of a log says.
pub(super) fn sign(line: &str) -> Option<LogSign> {
    // In JSON lines quotes are escaped.
    let line = line.replace("\\\"", "\"");
    if line.contains("is forbidden") {
        let verb = before(after(&line, " cannot ")?, " resource ")?;
        let rest = after(&line, " resource \"")?;
        let resource = before(rest, "\"")?;
        let group = after(rest, "in API group \"").and_then(|rest| before(rest, "\"")).unwrap_or("");
        let within = after(rest, "in the namespace \"").and_then(|rest| before(rest, "\"")).unwrap_or("");
        let plain = |text: &str| {
            text.len() <= 100 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'/'))
        };
        if ![verb, resource, group, within].into_iter().all(plain) {
            return None;
        }
        let own = |text: &str| Some(text.to_owned());
        return Some(LogSign {
            kind: own("forbidden"),
            verb: own(verb),
            resource: own(resource),
            group: own(group),
            within: own(within),
            ..LogSign::default()
        });
    }
    let lower = line.to_ascii_lowercase();
    let of_traces = lower.contains("trace") && (lower.contains("export") || lower.contains("otlp") || lower.contains("/v1/traces"));
    if !of_traces {
        return None;
    }
    let has = |number: &str| lower.split(|character: char| !character.is_ascii_alphanumeric()).any(|word| word == number);
    let status = if has("401") || has("unauthenticated") || has("unauthorized") {
        401
    } else if has("403") || has("permissiondenied") {
        403
    } else if has("404") || has("unimplemented") {
        404
    } else {
        return None;
    };
    Some(LogSign { kind: Some("traces".to_owned()), status: Some(status), ..LogSign::default() })
}

fn after<'line>(line: &'line str, mark: &str) -> Option<&'line str> {
    line.split_once(mark).map(|(_, after)| after)
}

fn before<'line>(line: &'line str, mark: &str) -> Option<&'line str> {
    line.split_once(mark).map(|(before, _)| before)
}
