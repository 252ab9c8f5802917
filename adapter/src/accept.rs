//! Content negotiation: JSON is all there is, and whoever takes JSON in any of its clauses gets it.

use http::{HeaderMap, header};

/// Whether the caller takes plain JSON. Without an `Accept` header it does.
pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let mut clauses = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .peekable();
    clauses.peek().is_none() || clauses.any(takes_json)
}

fn takes_json(clause: &str) -> bool {
    let mut parts = clause.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let of_json = ["application/json", "application/*", "*/*"].iter().any(|known| media_type.eq_ignore_ascii_case(known));
    // A clause with `as=` asks for another object (a Table), which this is not; one with q=0 says "not this".
    let refused = parts.any(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key.trim().to_ascii_lowercase().as_str() {
            "as" => true,
            "q" => value.trim().parse::<f32>().is_ok_and(|quality| quality <= 0.0),
            _ => false,
        }
    });
    of_json && !refused
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_found_in_any_clause() {
        for (accept, expected) in [
            ("", true),
            ("application/json", true),
            ("application/json, */*", true),
            ("application/vnd.kubernetes.protobuf, */*", true),
            ("application/vnd.kubernetes.protobuf,application/json", true),
            ("APPLICATION/JSON ; q=0.5", true),
            ("application/*", true),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                true,
            ),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", false),
            ("application/vnd.kubernetes.protobuf", false),
            ("application/yaml", false),
            ("text/html", false),
            ("application/json;q=0", false),
            ("*/*;q=0.0", false),
            ("garbage", false),
            (";;;,=", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).unwrap())]);
            assert_eq!(accepts_json(&headers), expected, "{accept}");
        }
        assert!(accepts_json(&HeaderMap::new()));
    }
}
