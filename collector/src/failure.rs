//! Why a page could not be had, in words that name the address, what happened and the way out.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::time::Duration;

use http::StatusCode;
use http::uri::InvalidUri;
use hyper_util::client::legacy::Error as ClientError;
use rustls::{AlertDescription, CertificateError};
use thiserror::Error;
use url::Url;
use weir_datastore::engine::ReadError;
use weir_datastore::page::PageError;
use weir_datastore::{FailureKind, codes};

use crate::client::ConnectTimeout;

/// The longest message, in characters: parts of it (a redirect's target, a certificate's names) are the server's.
const LONGEST_MESSAGE: usize = 600;

/// A page that could not be had.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{message}")]
pub struct ScrapeFailure {
    /// What kind of failure: bounded, a label on our own page.
    pub kind: FailureKind,
    /// What an operator has to mend: the same name in logs, metrics and `weir doctor`.
    pub code: &'static str,
    /// One line for people: the URL, what happened, the way out.
    pub message: String,
}

impl ScrapeFailure {
    pub(crate) fn new(kind: FailureKind, url: &str, what: &str) -> Self {
        let printable = |character: char| if character.is_control() { ' ' } else { character };
        let mut message: String = format!("{url}: {what}").chars().take(LONGEST_MESSAGE).map(printable).collect();
        if message.chars().count() == LONGEST_MESSAGE {
            message.push('…');
        }
        let code = match kind {
            FailureKind::NotMetrics | FailureKind::NoEngine => codes::PAGE_ENGINE_UNKNOWN,
            _ => codes::PAGE_UNREACHABLE,
        };
        Self { kind, code, message }
    }

    fn coded(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    pub(crate) fn of_page(url: &Url, error: &ReadError) -> Self {
        let (kind, hint) = match error {
            ReadError::NoEngine { .. } => (FailureKind::NoEngine, ""),
            ReadError::Page(PageError::Truncated | PageError::MissingEof) => {
                (FailureKind::Transfer, "; half a page is not used, the server or a proxy before it breaks off")
            }
            ReadError::Page(PageError::TooManySamples { .. }) => (FailureKind::TooLarge, "; is this a model server's page?"),
            ReadError::Page(_) => (FailureKind::NotMetrics, "; are address, port and metrics path right?"),
        };
        let failure = Self::new(kind, url.as_str(), &format!("{error}{hint}"));
        match error {
            ReadError::NoEngine { sample_lines: 0, .. } => failure.coded(codes::PAGE_EMPTY),
            _ => failure,
        }
    }

    pub(crate) fn of_status(url: &Url, status: StatusCode, wants_tls: bool) -> Self {
        let hint = match status.as_u16() {
            400 if wants_tls => "this port speaks TLS: set `scheme: https`",
            401 | 403 => "the server wants credentials: set `bearerTokenFile` (scheme https), or let weir in",
            404 => {
                "is the metrics path right? most servers have /metrics, trtllm-serve /prometheus/metrics, SGLang only with --enable-metrics"
            }
            405 => "this path does not answer GET: is the metrics path right?",
            501 => "metrics are off: start llama.cpp's server with --metrics",
            429 => "the server limits how often it is asked: is something else scraping it?",
            502..=504 => "the server is starting or overloaded, or a proxy before it has no backend",
            500..=599 => "the server failed to write its page: look at its log",
            _ => "only 200 is a page: are address, port and metrics path right?",
        };
        let failure = Self::new(FailureKind::Status, url.as_str(), &format!("HTTP {status}: {hint}"));
        match status.as_u16() {
            401 => failure.coded(codes::PAGE_UNAUTHORIZED),
            403 => failure.coded(codes::PAGE_FORBIDDEN),
            404 | 405 | 501 => failure.coded(codes::PAGE_ABSENT),
            _ => failure,
        }
    }

    pub(crate) fn of_timeout(url: &Url, limit: Duration, progress: Progress) -> Self {
        let what = match progress {
            Progress::Asked => {
                format!("no answer within {limit:?}: the server is hung or overloaded, or something between drops packets")
            }
            Progress::Reading { bytes } => format!(
                "the page was not complete within {limit:?}, {bytes} bytes had come: the server or the network is too slow, or the page has no end"
            ),
        };
        Self::new(FailureKind::Timeout, url.as_str(), &what)
    }

    pub(crate) fn of_transport(url: &Url, error: &(dyn StdError + 'static), limit: Duration, progress: Progress) -> Self {
        let (kind, what) = transport(url.scheme() == "https", error, limit, progress);
        let failure = Self::new(kind, url.as_str(), &what);
        let is_refused = |cause: &io::Error| cause.kind() == ErrorKind::ConnectionRefused;
        match causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_refused) {
            true => failure.coded(codes::SERVER_PORT_REFUSED),
            false => failure,
        }
    }
}

/// How far a request got.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    /// No headers came yet.
    Asked,
    /// The body is coming.
    Reading {
        /// So much of it, as transferred.
        bytes: usize,
    },
}

fn transport(https: bool, error: &(dyn StdError + 'static), limit: Duration, progress: Progress) -> (FailureKind, String) {
    if causes(error).any(|cause| cause.is::<InvalidUri>()) {
        return (FailureKind::Connect, format!("this cannot be asked for ({}): is the metrics path right?", innermost(error)));
    }
    // The error of that name is nobody else's to have.
    if causes(error).any(|cause| cause.to_string() == "dns error") {
        return (FailureKind::Connect, format!("the host name cannot be resolved ({}): is it right?", innermost(error)));
    }
    if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return (FailureKind::Tls, tls_failure(tls));
    }
    let io = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last().map(io::Error::kind);
    let mut of_client = causes(error).filter_map(|cause| cause.downcast_ref::<ClientError>());
    if of_client.any(ClientError::is_connect) {
        return connecting(https, io, error, limit);
    }
    if io == Some(ErrorKind::TimedOut) {
        return (FailureKind::Timeout, format!("no answer within {limit:?}: the server is hung or overloaded"));
    }
    let hyper = causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let transfer = |what: String| (FailureKind::Transfer, what);
    let plain_hint = if https { "" } else { "; if this port speaks TLS, set `scheme: https`" };
    match progress {
        Progress::Reading { bytes } => {
            let why = innermost(error);
            transfer(format!("the transfer broke off after {bytes} bytes ({why}): the server or a proxy before it closed it"))
        }
        // An alert record is what a TLS server answers to a plain request.
        Progress::Asked if hyper.is_some_and(hyper::Error::is_parse) => {
            let hint = if https { ": are address and port right?" } else { ": this port may speak TLS: set `scheme: https`" };
            (FailureKind::NotMetrics, format!("the answer is not HTTP ({}){hint}", innermost(error)))
        }
        Progress::Asked => {
            let why = innermost(error);
            transfer(format!("the connection was closed without an answer ({why}): the server may be restarting{plain_hint}"))
        }
    }
}

fn connecting(https: bool, io: Option<ErrorKind>, error: &(dyn StdError + 'static), limit: Duration) -> (FailureKind, String) {
    let what = match io {
        Some(ErrorKind::ConnectionRefused) => "connection refused: is the server listening on this address and port?".to_owned(),
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "no route to the host: is the address right, and may weir reach its network?".to_owned()
        }
        Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) if https => {
            let what = "the connection was closed in the TLS handshake: if the port speaks plain HTTP, set `scheme: http`";
            return (FailureKind::Tls, what.to_owned());
        }
        _ if io == Some(ErrorKind::TimedOut) || causes(error).any(|cause| cause.is::<ConnectTimeout>()) => {
            let what = format!("no connection within {limit:?}: is the address right, and does a firewall drop packets?");
            return (FailureKind::Timeout, what);
        }
        _ => format!("no connection: {}", innermost(error)),
    };
    (FailureKind::Connect, what)
}

fn tls_failure(error: &rustls::Error) -> String {
    let hint = match error {
        rustls::Error::InvalidMessage(_) => {
            return "the answer is not TLS: this port speaks plain HTTP, set `scheme: http`".to_owned();
        }
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "set `caFile` to the certificate that signed the server's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "set `serverName` to a name in the certificate"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew the server's certificate",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "are the clocks right?",
            // What `openssl req -x509` makes by default; rustls' name for it is inside an opaque error.
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server uses a CA's certificate as its own: make one with basicConstraints CA:FALSE"
            }
            _ => "the server's certificate cannot be used; `insecureSkipVerify: true` leaves it unchecked",
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => {
            "the server asks for a client certificate, which weir does not have: serve metrics on a port without"
        }
        _ => "do both sides share a TLS version (1.2 or 1.3)?",
    };
    format!("the TLS handshake failed ({error}): {hint}")
}

/// The error and what it was made of, down to the first cause. TLS errors travel inside I/O errors, whose `source` leaves them out.
fn causes<'error>(error: &'error (dyn StdError + 'static)) -> impl Iterator<Item = &'error (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = match cause.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
        Some(cause)
    })
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod code_tests {
    use super::*;

    #[test]
    fn each_failure_has_the_code_of_what_is_to_be_mended() {
        let url: Url = "http://a/metrics".parse().unwrap();
        let of_status = |status: u16| ScrapeFailure::of_status(&url, StatusCode::from_u16(status).unwrap(), false).code;
        let statuses = [401, 403, 404, 405, 501, 503].map(of_status);
        assert_eq!(
            statuses,
            [
                codes::PAGE_UNAUTHORIZED,
                codes::PAGE_FORBIDDEN,
                codes::PAGE_ABSENT,
                codes::PAGE_ABSENT,
                codes::PAGE_ABSENT,
                codes::PAGE_UNREACHABLE
            ]
        );
        let no_engine = |sample_lines| ReadError::NoEngine { expected: "vLLM".into(), hint: String::new(), sample_lines };
        assert_eq!(ScrapeFailure::of_page(&url, &no_engine(0)).code, codes::PAGE_EMPTY);
        assert_eq!(ScrapeFailure::of_page(&url, &no_engine(3)).code, codes::PAGE_ENGINE_UNKNOWN);
        assert_eq!(ScrapeFailure::of_page(&url, &ReadError::Page(PageError::Html)).code, codes::PAGE_ENGINE_UNKNOWN);
        let refused = io::Error::from(ErrorKind::ConnectionRefused);
        let told = ScrapeFailure::of_transport(&url, &refused, Duration::from_secs(1), Progress::Asked);
        assert_eq!(told.code, codes::SERVER_PORT_REFUSED);
    }
}
