//! Whether pickers speak TLS: their ports are dialled through the API server's pod proxy, which tells a handshake from none.

use super::ask::{Answer, Asker, segment};
use super::pages::failure;
use crate::facts::observed::{Dial, NOT_ALLOWED, REFUSED};
use crate::facts::workload::{IntOrName, Pod};
use crate::facts::{Facts, Listing, Reason};

/// Most pods.
const PODS: usize = 200;

/// Dials the picker port of every pool's running picker pods.
pub(super) async fn read(asker: &Asker, facts: &Facts) -> Listing<Dial> {
    let mut places: Vec<(&Pod, i64)> = Vec::new();
    for pool in facts.every_pool() {
        let Some(port) = pool.picker().map(|picker| picker.port()) else { continue };
        let service = facts.picker_service(pool).and_then(|service| service.spec.as_ref()?.ports.as_ref());
        let Some(port) = service.into_iter().flatten().find(|own| own.port == Some(port)) else { continue };
        for pod in facts.picker_pods(pool).into_iter().filter(|pod| pod.phase() == Some("Running")) {
            let ports = || pod.containers().flat_map(|container| container.ports.iter().flatten());
            let number = match &port.target_port {
                None => port.port,
                Some(IntOrName::Number(number)) => Some(*number),
                Some(IntOrName::Name(name)) => {
                    ports().find(|own| own.name.as_ref() == Some(name)).and_then(|own| own.container_port)
                }
            };
            places.extend(number.filter(|number| (1..=65535).contains(number)).map(|number| (pod, number)));
        }
    }
    places.sort_by_key(|(pod, port)| (pod.meta().path(), *port));
    places.dedup_by_key(|(pod, port)| (pod.meta().path(), *port));
    let cut = places.len() > PODS;
    places.truncate(PODS);
    let dials = futures_util::future::join_all(places.into_iter().map(|(pod, port)| dial(asker, pod, port))).await;
    let refused = dials.iter().any(|dial| dial.failure.as_deref() == Some(NOT_ALLOWED));
    Listing { cut, why: refused.then(|| Reason::Forbidden("get pods/proxy".to_owned())), ..Listing::of(dials) }
}

async fn dial(asker: &Asker, pod: &Pod, port: i64) -> Dial {
    let (namespace, name) = (pod.meta().namespace(), pod.meta().name());
    let path = format!("/api/v1/namespaces/{}/pods/https:{}:{port}/proxy/", segment(namespace), segment(name));
    let mut dial = Dial { namespace: Some(namespace.to_owned()), pod: Some(name.to_owned()), port: Some(port), ..Dial::default() };
    match asker.ask(&path, "*/*").await {
        // A picker that says nothing to HTTP may be waiting: nothing is known.
        Err(_) => {}
        Ok(answer) => (dial.tls, dial.failure) = judge(&answer),
    }
    dial
}

/// Whether TLS was spoken, and why nothing was.
fn judge(answer: &Answer) -> (Option<bool>, Option<String>) {
    let Some((kind, message)) = failure(answer) else {
        // The picker itself answered, over TLS.
        return (Some(true), None);
    };
    if matches!(kind, REFUSED | NOT_ALLOWED) {
        return (None, Some(kind.to_owned()));
    }
    let plain = message.contains("does not look like a TLS handshake");
    // After a handshake a gRPC server and an HTTP client may not get on.
    let spoken = ["no application protocol", "malformed HTTP", "http2:", "GOAWAY"].iter().any(|sign| message.contains(sign));
    (if plain { Some(false) } else { spoken.then_some(true) }, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_server_says_of_a_handshake_is_told_apart() {
        let said = |status: u16, message: &str| {
            let body = json!({"kind": "Status", "apiVersion": "v1", "message": message}).to_string().into_bytes();
            judge(&Answer { status, content_type: "application/json".into(), body })
        };
        let trying = |what: &str| format!("error trying to reach service: {what}");
        assert_eq!(said(503, &trying("tls: first record does not look like a TLS handshake")), (Some(false), None));
        assert_eq!(said(503, &trying("remote error: tls: no application protocol")), (Some(true), None));
        assert_eq!(said(503, &trying("dial tcp 10.0.0.1:9002: connect: connection refused")), (None, Some("refused".into())));
        assert_eq!(said(403, "pods is forbidden").1.as_deref(), Some("forbidden"));
        assert_eq!(said(503, &trying("EOF")), (None, None));
        let own = Answer { status: 415, content_type: "application/grpc".into(), body: Vec::new() };
        assert_eq!(judge(&own), (Some(true), None));
    }
}
