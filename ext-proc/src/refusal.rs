//! A request that is not sent on, and how the gateway is to answer it.

use super::Immediate;

/// A request that is not sent on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// What the caller reads after the code.
    pub message: String,
    /// `x-llm-d-request-dropped-reason`, where a request was dropped.
    pub reason: Option<&'static str>,
    /// After how many seconds it is worth another try.
    pub retry_after: Option<u32>,
}

/// Codes of refusals, in the words of the Go picker.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Code {
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 413
    PayloadTooLarge,
    /// 429
    ResourceExhausted,
    /// 500
    Internal,
    /// 503
    ServiceUnavailable,
}

/// Which words begin a refusal's text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ErrorPrefix {
    /// `inference error:`, since v1.5.
    #[default]
    InferenceError,
    /// `inference gateway:`, up to v1.4.
    InferenceGateway,
}

/// The header that says why a request was dropped.
const REASON: &str = "x-llm-d-request-dropped-reason";

/// HTTP status, and the word in the answer's text.
fn told_as(code: Code) -> (u16, &'static str) {
    match code {
        Code::BadRequest => (400, "BadRequest"),
        Code::NotFound => (404, "NotFound"),
        Code::PayloadTooLarge => (413, "PayloadTooLarge"),
        Code::ResourceExhausted => (429, "ResourceExhausted"),
        Code::Internal => (500, "Internal"),
        Code::ServiceUnavailable => (503, "ServiceUnavailable"),
    }
}

/// The response that tells of a refusal.
pub fn immediate(refusal: &Refusal, prefix: ErrorPrefix) -> Immediate {
    let begin = match prefix {
        ErrorPrefix::InferenceError => "inference error",
        ErrorPrefix::InferenceGateway => "inference gateway",
    };
    let mut headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
    if let Some(reason) = refusal.reason {
        headers.push((REASON, reason.to_owned()));
    }
    if let Some(seconds) = refusal.retry_after {
        headers.push(("retry-after", seconds.to_string()));
    }
    let (status, word) = told_as(refusal.code);
    Immediate { status, headers, body: format!("{begin}: {word} - {}", refusal.message), details: word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_of_its_version() {
        let refusal = Refusal {
            code: Code::ServiceUnavailable,
            message: "nobody is here".into(),
            reason: Some("rejected-no-endpoints"),
            retry_after: Some(7),
        };
        let told = immediate(&refusal, ErrorPrefix::InferenceError);
        assert_eq!((told.status, told.body.as_str()), (503, "inference error: ServiceUnavailable - nobody is here"));
        assert!(told.headers.contains(&(REASON, "rejected-no-endpoints".into())));
        assert!(told.headers.contains(&("retry-after", "7".into())));
        let old = immediate(&Refusal { reason: None, retry_after: None, ..refusal }, ErrorPrefix::InferenceGateway);
        assert_eq!(old.body, "inference gateway: ServiceUnavailable - nobody is here");
        assert_eq!(old.headers.len(), 1);
    }
}
