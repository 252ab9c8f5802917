//! One count and one log line per request, also when its client goes away before the answer.

use axum::{
    extract::{MatchedPath, Request},
    response::Response,
};
use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::{AuditId, Caller, RequestLabels, ServingMetrics, connection::ConnectionInfo, request_metrics::CountedAs};

/// Longest address in a log line, in characters.
const MAX_LOGGED_URI: usize = 512;
/// Query keys containing one of these carry secrets as values.
const SECRET_KEYS: [&str; 8] = ["token", "key", "secret", "password", "auth", "code", "sig", "credential"];
/// What a request whose client went away counts as, by nginx's custom.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What observing needs.
pub(crate) struct Observer {
    pub(crate) metrics: ServingMetrics,
    pub(crate) component: &'static str,
}

/// Counts and logs a request.
pub(crate) async fn observe<F>(observer: &Observer, request: Request, next: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let extensions = request.extensions();
    let matched = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let mut record = Record {
        counted: CountedAs::route(request.method(), matched),
        method: request.method().clone(),
        uri: request.uri().clone(),
        peer: extensions.get::<ConnectionInfo>().map(ConnectionInfo::peer),
        audit_id: extensions.get::<AuditId>().cloned(),
        caller: None,
        status: None,
        started: Instant::now(),
        observer,
    };
    let mut response = next(request).await;
    record.status = Some(response.status());
    record.caller = response.extensions_mut().remove::<Caller>();
    if let Some(labels) = response.extensions_mut().remove::<RequestLabels>() {
        record.counted = CountedAs::resource(labels);
    }
    response
}

/// Written when dropped: an abandoned request is dropped, not answered.
struct Record<'a> {
    observer: &'a Observer,
    counted: CountedAs,
    method: Method,
    uri: Uri,
    peer: Option<std::net::SocketAddr>,
    audit_id: Option<AuditId>,
    caller: Option<Caller>,
    status: Option<StatusCode>,
    started: Instant,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let status = self.status.unwrap_or_else(|| StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST));
        let Observer { metrics, component } = self.observer;
        metrics.count_request(component, &self.counted, status, took);
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!(
                component,
                method = %self.method,
                uri = loggable(&self.uri),
                status = status.as_u16(),
                user = self.caller.as_ref().map(|caller| &*caller.name),
                peer = self.peer.map(tracing::field::display),
                duration_ms = took.as_secs_f64() * 1e3,
                audit_id = self.audit_id.as_ref().map(AuditId::as_str),
                "request"
            );
        }
    }
}

/// Path and query, without values that are secrets, of bounded length.
fn loggable(uri: &Uri) -> String {
    let mut text = uri.path().to_owned();
    if let Some(query) = uri.query() {
        let mut separator = '?';
        for pair in query.split('&') {
            text.push(separator);
            separator = '&';
            match pair.split_once('=') {
                Some((key, _)) if is_secret(key) => {
                    text += key;
                    text += "=redacted";
                }
                _ => text += pair,
            }
        }
    }
    match text.char_indices().nth(MAX_LOGGED_URI) {
        Some((end, _)) => {
            text.truncate(end);
            text + "…"
        }
        None => text,
    }
}

/// A key written with escapes is a secret too: it has no other reason to be.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains('%') || SECRET_KEYS.iter().any(|secret| key.contains(secret))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_not_logged() {
        let loggable = |uri: &str| loggable(&uri.parse().unwrap());
        assert_eq!(
            loggable("https://host/apis/x?labelSelector=a%3Db&Access_Token=abc&watch"),
            "/apis/x?labelSelector=a%3Db&Access_Token=redacted&watch"
        );
        assert_eq!(loggable("/?%74oken=abc"), "/?%74oken=redacted");
        assert_eq!(loggable("/plain"), "/plain");
    }

    proptest! {
        #[test]
        fn lines_are_bounded_and_tell_no_token(path in "[a-z/é]{0,700}", value in "[A-Z]{6,40}") {
            let Ok(uri) = format!("/{path}?token={value}").parse::<Uri>() else { return Ok(()) };
            let text = loggable(&uri);
            prop_assert!(text.chars().count() <= MAX_LOGGED_URI + 1);
            prop_assert!(!text.contains(&value));
        }
    }
}
