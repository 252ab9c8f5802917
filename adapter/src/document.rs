//! Documents that are written once, when the adapter starts, and given out as often as they are asked for.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA512, digest};
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::accept::Form;
use crate::yaml;

/// A document in its forms.
#[derive(Debug)]
pub(crate) struct Document {
    media_type: &'static str,
    json: Bytes,
    pretty: Bytes,
    yaml: Bytes,
    hash: String,
}

impl Document {
    /// A document of plain JSON.
    pub(crate) fn json(object: &impl Serialize) -> Self {
        Self::of(object, Form::Json.media_type())
    }

    /// A document that has one form only.
    pub(crate) fn bytes(bytes: Vec<u8>, media_type: &'static str) -> Self {
        let bytes = Bytes::from(bytes);
        Self { media_type, json: bytes.clone(), pretty: bytes.clone(), hash: hash(&bytes), yaml: bytes }
    }

    /// A document whose JSON is called `media_type`.
    pub(crate) fn of(object: &impl Serialize, media_type: &'static str) -> Self {
        let with_end = |text: Result<Vec<u8>, serde_json::Error>| {
            // What is written here has string keys only, so there is nothing to fail.
            let mut text = text.unwrap_or_default();
            text.push(b'\n');
            Bytes::from(text)
        };
        let json = with_end(serde_json::to_vec(object));
        let pretty = with_end(serde_json::to_vec_pretty(object));
        Self { media_type, hash: hash(&json), json, pretty, yaml: yaml::document(object).unwrap_or_default().into() }
    }

    /// The SHA-512 of the JSON, in hexadecimal.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The document in a form.
    pub(crate) fn response(&self, form: Form, pretty: bool) -> Response {
        let (media_type, body) = match (form, pretty) {
            (Form::Yaml, _) => (Form::Yaml.media_type(), &self.yaml),
            (_, true) => (self.media_type, &self.pretty),
            (_, false) => (self.media_type, &self.json),
        };
        let mut response = Response::new(Body::from(body.clone()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        response
    }

    /// The document as JSON with its ETag, or 304 where the request names that.
    pub(crate) fn unless_known(&self, request: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let is_known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag);
        let mut response = match is_known {
            true => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            false => self.response(Form::Json, false),
        };
        if let Ok(etag) = HeaderValue::try_from(etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

/// The SHA-512 of a body, in hexadecimal.
fn hash(body: &[u8]) -> String {
    let mut hash = String::with_capacity(128);
    for byte in digest(&SHA512, body).as_ref() {
        // Into a string, which takes everything.
        write!(hash, "{byte:02X}").ok();
    }
    hash
}
