//! One page over HTTP, bounded in time and bytes.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Response, StatusCode};
use hyper::body::{Body, Incoming};
use tokio::sync::SemaphorePermit;
use url::Url;
use weir_datastore::page::Format;
use weir_datastore::{FailureKind, Scheme};

use crate::access::Access;
use crate::body::{Bodies, BodyError, Encoding};
use crate::client::chunk;
use crate::connection::{Connection, ConnectionKey, Ready};
use crate::failure::{Progress, ScrapeFailure};

/// The time in which a page must have been read.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest page, in bytes, packed and unpacked.
pub(crate) const DEFAULT_MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Of the body of an error so much is looked at, for what tells a TLS port.
const ERROR_BODY: usize = 4096;

/// How [`fetch_page`] reads.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// For the whole of it: connecting, asking, reading. Default: 1 s.
    pub timeout: Duration,
    /// The largest page in bytes, packed and unpacked. Default: 16 MiB.
    pub max_body_bytes: usize,
    /// TLS and credentials. Default: none.
    pub access: Access,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, max_body_bytes: DEFAULT_MAX_BODY_BYTES, access: Access::default() }
    }
}

/// A page as it was sent.
#[derive(Clone, Debug)]
pub struct FetchedPage {
    /// The page, unpacked.
    pub bytes: Vec<u8>,
    /// How it is written, by its Content-Type.
    pub format: Format,
    /// Where it was in the end: not where it was looked for after a redirect.
    pub url: String,
}

/// Reads the page at `url` once, exactly as the collector reads an endpoint's.
///
/// # Errors
/// [`ScrapeFailure`] where there is no page within the limits.
pub async fn fetch_page(url: &str, config: &FetchConfig) -> Result<FetchedPage, ScrapeFailure> {
    let (url, scheme) = parse_url(url)?;
    let key = ConnectionKey { scheme, access: config.access.clone() };
    let timeout = config.timeout;
    let opened = tokio::task::spawn_blocking(move || Connection::open(key, timeout)).await;
    let connection = opened.map_err(|error| ScrapeFailure::new(FailureKind::Connect, url.as_str(), &error.to_string()))?;
    let bodies = Bodies::new(config.max_body_bytes);
    let page = fetch(&connection, &url, &bodies, timeout).await?;
    Ok(FetchedPage { bytes: page.bytes, format: page.format, url: page.url.into() })
}

/// `text` as a URL that can be fetched.
pub(crate) fn parse_url(text: &str) -> Result<(Url, Scheme), ScrapeFailure> {
    let fail = |what: &str| Err(ScrapeFailure::new(FailureKind::Connect, text, what));
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return fail(&format!("not a URL ({error}): write http://host:port/metrics")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it may hold a password.
        let what = "the URL names a user: credentials do not go in there, set `bearerTokenFile`";
        return Err(ScrapeFailure::new(FailureKind::Connect, url.host_str().unwrap_or_default(), what));
    }
    match (url.scheme(), url.host_str()) {
        ("http", Some(_)) => Ok((url, Scheme::Http)),
        ("https", Some(_)) => Ok((url, Scheme::Https)),
        _ => fail("neither an http nor an https URL: write http://host:port/metrics"),
    }
}

/// A page in a shared buffer.
#[derive(Debug)]
pub(crate) struct Page<'bodies> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: Format,
    pub(crate) url: Url,
    /// Held while the bytes are in use.
    _permit: Option<SemaphorePermit<'bodies>>,
}

/// Reads the page at `url`.
pub(crate) async fn fetch<'bodies>(
    connection: &Connection,
    url: &Url,
    bodies: &'bodies Bodies,
    timeout: Duration,
) -> Result<Page<'bodies>, ScrapeFailure> {
    let current = connection.current();
    let ready = current.as_ref().as_ref().map_err(|error| ScrapeFailure::new(FailureKind::Tls, url.as_str(), error))?;
    let mut progress = Progress::Asked;
    let attempt = Attempt { ready, bodies, timeout };
    match tokio::time::timeout(timeout, attempt.page(url, &mut progress)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ScrapeFailure::of_timeout(url, timeout, progress)),
    }
}

struct Attempt<'bodies, 'ready> {
    ready: &'ready Ready,
    bodies: &'bodies Bodies,
    timeout: Duration,
}

impl<'bodies> Attempt<'bodies, '_> {
    async fn page(&self, url: &Url, progress: &mut Progress) -> Result<Page<'bodies>, ScrapeFailure> {
        let first = self.ask(url).await?;
        if !first.status().is_redirection() {
            return self.read(first, url.clone(), progress).await;
        }
        let target = redirect_target(url, &first)?;
        drop(first);
        let second = self.ask(&target).await?;
        if second.status().is_redirection() {
            let what = format!("redirected a second time, from {target}: set the metrics path to where the page is");
            return Err(ScrapeFailure::new(FailureKind::Redirect, url.as_str(), &what));
        }
        self.read(second, target, progress).await
    }

    async fn ask(&self, url: &Url) -> Result<Response<Incoming>, ScrapeFailure> {
        let answer = self.ready.client.get(url, self.ready.authorization.as_ref()).await;
        answer.map_err(|error| ScrapeFailure::of_transport(url, &error, self.timeout, Progress::Asked))
    }

    async fn read(&self, response: Response<Incoming>, url: Url, progress: &mut Progress) -> Result<Page<'bodies>, ScrapeFailure> {
        if response.status() != StatusCode::OK {
            let status = response.status();
            let wants_tls = status == StatusCode::BAD_REQUEST && says_https(response.into_body()).await;
            return Err(ScrapeFailure::of_status(&url, status, wants_tls));
        }
        let fail = |kind, what: &str| ScrapeFailure::new(kind, url.as_str(), what);
        let format = format_of(response.headers()).map_err(|what| fail(FailureKind::NotMetrics, &what))?;
        let encoding = encoding_of(response.headers()).map_err(|what| fail(FailureKind::NotMetrics, &what))?;
        let too_large = || {
            let limit = self.bodies.limit();
            fail(FailureKind::TooLarge, &format!("the page is larger than {limit} bytes: is this a model server's page?"))
        };
        let mut transfer = response.into_body();
        if transfer.size_hint().lower() > self.bodies.limit() as u64 {
            return Err(too_large());
        }
        let refuse = |error: BodyError| match error {
            BodyError::TooLarge => too_large(),
            BodyError::Broken(error) => {
                let what = format!("the gzip body is broken or cut off ({error}): does a proxy in between change it?");
                fail(FailureKind::Transfer, &what)
            }
        };
        let mut bytes = 0;
        let mut body = self.bodies.begin(encoding);
        *progress = Progress::Reading { bytes };
        loop {
            match chunk(&mut transfer).await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len();
                    *progress = Progress::Reading { bytes };
                    body.push(&chunk).await.map_err(refuse)?;
                }
                Ok(None) => break,
                Err(error) => return Err(ScrapeFailure::of_transport(&url, &error, self.timeout, *progress)),
            }
        }
        let (bytes, permit) = body.finish().map_err(refuse)?;
        Ok(Page { bytes, format, url, _permit: permit })
    }
}

/// Where one redirect leads, if it may be followed: to another path of the same server, as `/metrics` to `/metrics/`. Elsewhere is
/// another server, whose numbers would be taken for this endpoint's.
fn redirect_target(from: &Url, response: &Response<Incoming>) -> Result<Url, ScrapeFailure> {
    let fail = |what: String| Err(ScrapeFailure::new(FailureKind::Redirect, from.as_str(), &what));
    let status = response.status();
    let Some(location) = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()) else {
        return fail(format!("HTTP {status} without a readable Location: are address and metrics path right?"));
    };
    let Ok(target) = from.join(location) else {
        return fail(format!("HTTP {status} to `{location}`, which is not a URL: are address and metrics path right?"));
    };
    let same_server = target.scheme() == from.scheme()
        && target.host() == from.host()
        && target.port_or_known_default() == from.port_or_known_default()
        && target.username().is_empty()
        && target.password().is_none();
    if same_server && target != *from {
        return Ok(target);
    }
    let what = match target.scheme() == from.scheme() {
        _ if target == *from => "redirects to itself: are address and metrics path right?".to_owned(),
        true => format!("redirects to another server, {target}, which is not followed: is the address right?"),
        false => format!("redirects to {target}, which is not followed: set `scheme: {}` and that path", target.scheme()),
    };
    fail(what)
}

fn format_of(headers: &HeaderMap) -> Result<Format, String> {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return Ok(Format::Text) };
    let essence = String::from_utf8_lossy(content_type.as_bytes()).to_ascii_lowercase();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    match essence {
        "application/openmetrics-text" => Ok(Format::OpenMetrics),
        "text/html" | "application/xhtml+xml" => Err(format!(
            "Content-Type {essence}: a web page, not a metrics page: is the address a proxy's or a dashboard's, is the path right?"
        )),
        _ if essence == "application/json" || essence.ends_with("+json") => {
            Err(format!("Content-Type {essence}: not a metrics page: trtllm-serve has its metrics at /prometheus/metrics"))
        }
        "application/vnd.google.protobuf" => {
            Err(format!("Content-Type {essence} was not asked for: does a proxy in between change the Accept header?"))
        }
        // Servers send odd types with good pages: the page itself tells.
        _ => Ok(Format::Text),
    }
}

fn encoding_of(headers: &HeaderMap) -> Result<Encoding, String> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match String::from_utf8_lossy(encoding.as_bytes()).to_ascii_lowercase().trim() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        other => {
            Err(format!("Content-Encoding `{other}`, though identity was asked for: does a proxy in between compress the page?"))
        }
    }
}

/// Whether the body of a 400 says what Go's servers and nginx say to a plain request on a TLS port.
async fn says_https(mut body: Incoming) -> bool {
    let mut said = Vec::new();
    while said.len() < ERROR_BODY {
        match chunk(&mut body).await {
            Ok(Some(chunk)) => said.extend_from_slice(&chunk[..chunk.len().min(ERROR_BODY)]),
            Ok(None) | Err(_) => break,
        }
    }
    let said = String::from_utf8_lossy(&said).to_ascii_lowercase();
    said.contains("https server") || said.contains("https port")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_content_type_says_how_a_page_is_written() {
        let format = |content_type| {
            let content_type = HeaderValue::from_bytes(content_type).unwrap();
            format_of(&HeaderMap::from_iter([(CONTENT_TYPE, content_type)]))
        };
        assert_eq!(format_of(&HeaderMap::new()), Ok(Format::Text));
        assert_eq!(format(b"text/plain; version=0.0.4; charset=utf-8"), Ok(Format::Text));
        assert_eq!(format(b"Application/OpenMetrics-Text; version=1.0.0"), Ok(Format::OpenMetrics));
        assert_eq!(format(b"application/octet-stream"), Ok(Format::Text));
        assert_eq!(format(b"\xff"), Ok(Format::Text));
        assert!(format(b"text/html; charset=utf-8").unwrap_err().contains("a web page"));
        assert!(format(b"application/problem+json").unwrap_err().contains("/prometheus/metrics"));
        assert!(format(b"application/vnd.google.protobuf; proto=x").unwrap_err().contains("Accept"));
    }

    #[test]
    fn only_identity_and_gzip_are_understood() {
        let encoding = |encoding| encoding_of(&HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(encoding))]));
        assert_eq!(encoding_of(&HeaderMap::new()), Ok(Encoding::Identity));
        assert_eq!(encoding("GZip"), Ok(Encoding::Gzip));
        assert!(encoding("br").unwrap_err().contains("`br`"));
        assert!(encoding("gzip, gzip").unwrap_err().contains("identity was asked for"));
    }

    #[test]
    fn a_url_that_cannot_be_fetched_says_so_without_its_password() {
        for (url, words) in [
            ("127.0.0.1:8000/metrics", "not a URL"),
            ("ftp://127.0.0.1/metrics", "neither an http nor an https URL"),
            ("http://", "not a URL"),
            ("http://user:secret@127.0.0.1/", "bearerTokenFile"),
        ] {
            let failure = parse_url(url).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
            assert!(!failure.message.contains("secret"), "{}", failure.message);
        }
    }

    #[tokio::test]
    async fn a_url_that_http_does_not_take_is_never_asked_for() {
        let url = format!("http://127.0.0.1:9/{}", "x".repeat(70_000));
        let failure = fetch_page(&url, &FetchConfig::default()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Connect, "{}", failure.message);
    }
}
