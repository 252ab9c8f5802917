//! Which API a path is for.

use super::grpc::Method;
use crate::Api;

/// What the path tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// JSON of this API, by the end of the path.
    Known(Api),
    /// A path of no known API.
    Unknown,
    /// No path was told: the shape of the body decides.
    Untold,
    /// SGLang's own JSON.
    Sglang,
    /// A call of gRPC.
    Grpc(Method),
    /// Nothing in the body or the answer is read.
    Raw,
}

impl Route {
    /// Of a path as in a request line, perhaps with a query.
    pub fn of(path: &[u8]) -> Self {
        let path = end(path);
        let api = if path.ends_with(b"/chat/completions") {
            Api::ChatCompletions
        } else if path.ends_with(b"/completions") {
            Api::Completions
        } else if path.ends_with(b"/responses") {
            Api::Responses
        } else if path.ends_with(b"/conversations") {
            Api::Conversations
        } else if path.ends_with(b"/embeddings") {
            Api::Embeddings
        } else {
            return Self::Unknown;
        };
        Self::Known(api)
    }
}

/// The path without query and closing slashes.
pub(super) fn end(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    let mut path = &path[..end];
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}
