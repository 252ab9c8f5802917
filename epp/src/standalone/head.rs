//! Heads of HTTP as the exchange has them, and its changes of them.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{request, response};

use crate::exchange::{Head, HeadReply};

/// What concerns one connection alone (RFC 9110 §7.6.1), and is not passed on.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The request's name, by which logs and traces of all parts can be joined.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request's head, as a gateway would tell it. `end`: it has no body.
pub(super) fn of_request(parts: &request::Parts, end: bool) -> Head {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let pseudo = [(":method", parts.method.as_str()), (":path", path)];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    Head { headers: pseudo.into_iter().chain(told(&parts.headers)).collect(), end }
}

/// A response's head. `end`: it has no body.
pub(super) fn of_response(parts: &response::Parts, end: bool) -> Head {
    let status = (":status".to_owned(), parts.status.as_str().as_bytes().to_vec());
    Head { headers: std::iter::once(status).chain(told(&parts.headers)).collect(), end }
}

fn told(headers: &HeaderMap) -> impl Iterator<Item = (String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
}

/// Takes out what concerns the client's connection alone; the host that it asked for stays.
pub(super) fn pass_on(parts: &mut request::Parts) {
    if let (None, Some(authority)) = (parts.headers.get(HOST), parts.uri.authority())
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    strip(&mut parts.headers);
}

/// Says for whom the request is sent: what proxies before said is kept, since only its reader knows whom of them to believe.
pub(super) fn forward(headers: &mut HeaderMap, client: Option<IpAddr>, scheme: &'static str) {
    if let Some(client) = client {
        let mut chain: Vec<u8> = Vec::new();
        for before in headers.get_all(FORWARDED_FOR) {
            chain.extend_from_slice(before.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(client.to_canonical().to_string().as_bytes());
        if let Ok(chain) = HeaderValue::from_bytes(&chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// Takes out what concerns one connection alone.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Changes a head as the exchange says. The length of a body is told by the body.
pub(super) fn change(headers: &mut HeaderMap, reply: &HeadReply) {
    for name in &reply.remove {
        headers.remove(*name);
    }
    let set = reply.set.iter().map(|(name, value)| (*name, value));
    let named = reply.set_named.iter().map(|(name, value)| (&**name, value));
    for (name, value) in set.chain(named) {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(CONTENT_LENGTH), _) => {
                headers.remove(CONTENT_LENGTH);
            }
            (Ok(name), Ok(value)) => {
                headers.insert(name, value);
            }
            (Err(_), _) | (_, Err(_)) => tracing::debug!(name, value, "no header, left out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_connection_alone_is_not_passed_on() {
        let mut request = http::Request::post("http://api.example/v1/completions?a=b").body(()).unwrap().into_parts().0;
        for (name, value) in [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("x-request-id", "7"),
        ] {
            request.headers.insert(name, value.parse().unwrap());
        }
        pass_on(&mut request);
        assert_eq!(request.headers.len(), 2, "{:?}", request.headers);
        assert_eq!(request.headers["x-request-id"], "7");
        assert_eq!(request.headers[HOST], "api.example");
        let head = of_request(&request, true);
        assert_eq!(head.get(":path"), Some(&b"/v1/completions?a=b"[..]));
        assert_eq!((head.get(":method"), head.end), (Some(&b"POST"[..]), true));
    }

    #[test]
    fn who_asks_is_added_to_what_proxies_before_said() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "api.example".parse().unwrap());
        forward(&mut headers, Some("::ffff:10.0.0.1".parse().unwrap()), "http");
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1");
        assert_eq!(
            (&headers[FORWARDED_PROTO], &headers[FORWARDED_HOST]),
            (&"http".parse().unwrap(), &"api.example".parse().unwrap())
        );
        headers.append(FORWARDED_FOR, "10.0.0.2".parse().unwrap());
        headers.insert(FORWARDED_PROTO, "https".parse().unwrap());
        forward(&mut headers, Some("2001:db8::1".parse().unwrap()), "http");
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 2001:db8::1");
        assert_eq!((headers.get_all(FORWARDED_FOR).iter().count(), &headers[FORWARDED_PROTO]), (1, &"https".parse().unwrap()));
    }

    #[test]
    fn a_head_is_changed_as_the_exchange_says() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 7.into());
        headers.insert("x-gateway-inference-objective", "a".parse().unwrap());
        let reply = HeadReply {
            set: vec![("x-request-id", "7".into()), ("content-length", "9".into()), ("x-broken", "a\nb".into())],
            remove: vec!["x-gateway-inference-objective"],
            ..HeadReply::default()
        };
        change(&mut headers, &reply);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["x-request-id"], "7");
    }
}
