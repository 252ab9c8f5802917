//! The head of a request: its control headers.

use std::str;
use std::sync::Arc;

use super::{DESTINATION, Parsers, Route, SERVED, SUBSET, bad_request};
use crate::exchange::Head;
use crate::{NamedValue, Refusal};

/// A control header may be this long; gateways allow about 60 KiB for a whole head.
const MAX_VALUE: usize = 8 << 10;

/// Names of one control header: the Inference Extension's, then llm-d's.
const OBJECTIVE: [&str; 2] = ["x-gateway-inference-objective", "x-llm-d-inference-objective"];
const FAIRNESS: [&str; 2] = ["x-gateway-inference-fairness-id", "x-llm-d-inference-fairness-id"];
const REWRITE: [&str; 2] = ["x-gateway-model-name-rewrite", "x-llm-d-model-name-rewrite"];
const TEST_SELECTION: &str = "test-epp-endpoint-selection";
const REQUEST_ID: &str = "x-request-id";

/// Headers that are between gateway and picker, taken out before the model server.
const CONTROL: [&str; 8] = [OBJECTIVE[0], OBJECTIVE[1], FAIRNESS[0], FAIRNESS[1], REWRITE[0], REWRITE[1], SUBSET, SERVED];

/// What is read from a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Which API.
    pub route: Route,
    /// `x-request-id`, where it came with one that can be used.
    pub id: Option<Arc<str>>,
    /// The name of an InferenceObjective.
    pub objective: Option<Arc<str>>,
    /// Whose request it is.
    pub fairness: Option<Arc<str>>,
    /// The model asked for by header.
    pub model_rewrite: Option<Arc<str>>,
    /// For conformance tests.
    pub test_selection: Option<Arc<str>>,
    /// Control headers that are there, to be removed.
    pub control: Vec<&'static str>,
    /// Whether a pick header came along: the client's own, worth nothing.
    pub spoofed: bool,
    /// Whether `:method` came: gateways that leave out pseudo-headers half-close for another reason.
    pub has_method: bool,
    /// Whether the body never ends by itself, or ends with the response: an upgraded connection, CONNECT, a gRPC
    /// method that is not read.
    pub open_ended: bool,
    /// Whether the body may be JSON, by its content type.
    pub json: bool,
}

impl RequestHead {
    /// Reads it.
    ///
    /// # Errors
    /// 400 for a control header that is no text or too long, and for a body that no parser claims.
    pub fn read(head: &Head, parsers: &Parsers) -> Result<Self, Refusal> {
        let path = [":path", "x-original-path", "x-forwarded-path"].iter().find_map(|name| head.get(name));
        let method = head.get(":method");
        let kind = head.get("content-type").map(<[u8]>::to_ascii_lowercase);
        let upgraded = method == Some(b"CONNECT") || head.get("upgrade").is_some();
        let route = match parsers.route(path) {
            Ok(route) => route,
            // Without a body of its own there is nothing to parse.
            Err(_) if head.end || upgraded => Route::Raw,
            Err(refusal) => return Err(refusal),
        };
        let grpc = || kind.as_ref().is_some_and(|kind| kind.starts_with(b"application/grpc"));
        let open_ended = upgraded || (grpc() && !matches!(route, Route::Grpc(_)));
        Ok(Self {
            route,
            // Made anew rather than refused: it is only a name.
            id: text(head, REQUEST_ID).ok().flatten(),
            objective: either(head, OBJECTIVE)?,
            fairness: either(head, FAIRNESS)?,
            model_rewrite: either(head, REWRITE)?,
            test_selection: text(head, TEST_SELECTION)?,
            control: CONTROL.into_iter().filter(|name| head.get(name).is_some()).collect(),
            spoofed: head.get(DESTINATION).is_some(),
            has_method: method.is_some(),
            open_ended,
            json: kind.as_ref().is_none_or(|kind| memchr::memmem::find(kind, b"json").is_some()),
        })
    }
}

/// Those of `names`, in lower case, that came.
///
/// # Errors
/// 400 for a value that is no text or too long.
pub(crate) fn named(head: &Head, names: &[Arc<str>]) -> Result<Vec<NamedValue>, Refusal> {
    let mut found = Vec::new();
    for name in names {
        if let Some(value) = text(head, name)? {
            found.push((name.clone(), value));
        }
    }
    Ok(found)
}

fn either(head: &Head, names: [&'static str; 2]) -> Result<Option<Arc<str>>, Refusal> {
    match text(head, names[0])? {
        Some(value) => Ok(Some(value)),
        None => text(head, names[1]),
    }
}

/// A header's value; an empty one is none.
fn text(head: &Head, name: &str) -> Result<Option<Arc<str>>, Refusal> {
    let Some(value) = head.get(name).map(<[u8]>::trim_ascii).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.len() > MAX_VALUE {
        return Err(bad_request(format!("header {name} is {} bytes long: at most {MAX_VALUE} are read", value.len())));
    }
    match str::from_utf8(value) {
        Ok(value) => Ok(Some(value.into())),
        Err(_) => Err(bad_request(format!("header {name} is not UTF-8 text"))),
    }
}
