//! Requests from strangers: broken, overlong, odd.

use proptest::prelude::*;

use super::*;

const QUEUE: &str = "inference_pool_average_queue_size";

fn one_pool() -> Bench {
    let mut bench = Bench::new();
    bench.pool("default/a", &["10.0.0.1:80"]).shows("10.0.0.1:80", 1, 1, 0.5);
    bench
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_is_a_bad_request() {
    let bench = one_pool();
    for (target, problem) in [
        ("m%00", "it contains a control character: \"m%00\""),
        ("m%zz", "`%` must be followed by two hexadecimal digits: \"m%zz\""),
        ("m%", "`%` must be followed by two hexadecimal digits: \"m%\""),
        ("%C3%28", "it is not UTF-8: \"%C3%28\""),
        (&format!("{QUEUE}?labelSelector=%FF%FE"), "it is not UTF-8: \"%FF%FE\""),
        (&format!("{QUEUE}?labelSelector=name%3"), "`%` must be followed by two hexadecimal digits: \"name%3\""),
        (&format!("{QUEUE}?%zz=1"), "`%` must be followed by two hexadecimal digits: \"%zz\""),
    ] {
        let message = format!("the URL cannot be decoded: {problem}");
        assert_failure(&bench.metric(target).await, 400, "BadRequest", &message);
    }
    assert_eq!(bench.metric(&format!("{QUEUE}?labelSelector=name%3Da%00")).await.code, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_refused_in_few_words() {
    let bench = one_pool();
    let reply = bench.metric(&"x".repeat(60_000)).await;
    let message = format!("the URL cannot be decoded: a path segment has at most 1024 characters: \"{}…\"", "x".repeat(128));
    assert_failure(&reply, 400, "BadRequest", &message);

    let selector = format!("name+in+({})", vec!["x"; 32_000].join(","));
    assert!(selector.len() > 63_000);
    let reply = bench.metric(&format!("{QUEUE}?labelSelector={selector}")).await;
    let message = format!("the label selector has {} bytes, at most 16384 are read: select fewer pools at a time", selector.len());
    assert_failure(&reply, 400, "BadRequest", &message);

    // One word of nearly the longest selector: the message repeats it, but not whole.
    let reply = bench.metric(&format!("{QUEUE}?labelSelector={}", "x".repeat(16_000))).await;
    assert_eq!(reply.code, StatusCode::BAD_REQUEST);
    assert!(reply.body.len() < 5000 && reply.body.contains('…'), "{}", reply.body.len());

    let many = bench.metric(&format!("{QUEUE}?labelSelector=name%3Da{}", ",name%21%3Db".repeat(1000))).await;
    assert_eq!(many.code, StatusCode::OK);

    let deep = bench.send("GET", &"/x".repeat(30_000), &[]).await;
    assert_eq!(deep.code, StatusCode::NOT_FOUND);
    assert!(deep.body.len() < 1000);
}

#[tokio::test(start_paused = true)]
async fn a_selector_is_read_once_and_the_first_one_counts() {
    let mut bench = one_pool();
    bench.pool("default/b", &["10.0.0.2:80"]).shows("10.0.0.2:80", 1, 7, 0.5);
    for (query, expected) in [
        ("?labelSelector=name%3Db&labelSelector=name%3Da", "7"),
        ("?limit=1&labelSelector=name%3Db&fieldSelector=x&resourceVersion=0&timeoutSeconds=abc&unknown", "7"),
        ("?labelSelector=++name%09%3D%0A+b+", "7"),
        ("?labelSelector=name+in+%28b%2Cz%29%2Cname%2Cpool%2C%21pod.d%2Cmetric.labels.name%3Db", "7"),
    ] {
        let reply = bench.metric(&format!("{QUEUE}{query}")).await;
        assert!(reply.body.ends_with(&format!("\"value\":\"{expected}\"}}]}}\n")), "{query}: {}", reply.body);
    }
    // Encoded twice it is another selector.
    assert_eq!(bench.metric(&format!("{QUEUE}?labelSelector=name%253Db")).await.code, StatusCode::BAD_REQUEST);
    // `#` ends a URL: what follows is never sent.
    assert_eq!(bench.metric(&format!("{QUEUE}?labelSelector=name%3Db%23")).await.code, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn head_answers_as_get_without_the_body() {
    let bench = one_pool();
    for (path, code) in [
        (format!("{API}/namespaces/default/{QUEUE}"), 200),
        (API.to_owned(), 200),
        ("/openapi/v2".to_owned(), 200),
        ("/nowhere".to_owned(), 404),
    ] {
        let get = bench.send("GET", &path, &[]).await;
        let head = bench.send("HEAD", &path, &[]).await;
        assert_eq!((get.code.as_u16(), head.code.as_u16()), (code, code), "{path}");
        assert_eq!(head.body, "");
        assert!(!get.body.is_empty());
        assert_eq!(head.headers["content-length"], get.body.len().to_string().as_str());
        assert_eq!(head.headers["content-type"], "application/json");
    }
}

#[tokio::test(start_paused = true)]
async fn people_get_indented_bodies() {
    let bench = one_pool();
    let path = format!("{API}/namespaces/default/{QUEUE}");
    let plain = bench.send("GET", &path, &[]).await.body;
    let indented = r#"{
  "kind": "ExternalMetricValueList",
  "apiVersion": "external.metrics.k8s.io/v1beta1",
  "metadata": {},
  "items": [
    {
      "metricName": "inference_pool_average_queue_size",
      "metricLabels": {
        "name": "a",
        "namespace": "default"
      },
      "timestamp": "2026-01-01T00:01:00Z",
      "value": "1"
    }
  ]
}
"#;
    for (query, user_agent, expected) in [
        ("", "kubectl/v1.35.4", &*plain),
        ("", "curl/8.9.1", indented),
        ("", "Wget/1.24", indented),
        ("", "Mozilla/5.0 (X11; Linux x86_64)", indented),
        ("?pretty=true", "kubectl/v1.35.4", indented),
        ("?pretty=1", "", indented),
        ("?pretty=false", "curl/8.9.1", &plain),
        ("?pretty=0", "Mozilla/5.0", &plain),
    ] {
        let reply = bench.send("GET", &format!("{path}{query}"), &[("user-agent", user_agent)]).await;
        assert_eq!(reply.body, expected, "{query} {user_agent}");
    }
    let failure = bench.send("GET", "/nowhere?pretty=1", &[]).await.body;
    assert!(failure.starts_with("{\n  \"kind\": \"Status\",\n") && failure.ends_with("}\n"), "{failure}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #[test]
    fn any_request_is_answered_with_an_object(
        method in prop_oneof!["GET", "HEAD", "POST", "[A-Z]{1,8}"],
        path in "(/apis)?(/external[.]metrics[.]k8s[.]io/v1beta1|/custom[.]metrics[.]k8s[.]io/v1beta[12]|/openapi/v[23])?(/namespaces/default/)?(pods/|inferencepools/|metrics/|[*]/|a/)?(inference_pool_average_queue_size|inference_pod_queue_size|prometheus[.]googleapis[.]com%7C|[!-~]{0,20}|%[0-9A-F]{2}|é){0,4}",
        query in "(\\?(labelSelector=|metricLabelSelector=|fieldSelector=metadata[.]name%3D|includeObject=None|hash=|watch|pretty=1|&|=|%[0-9A-F]{2}|%|\\+|name%3Da|pod\\.|reducer%3DREDUCE_SUM|[!-~]){0,8})?",
        header in "[ -~]{0,20}",
    ) {
        // What is no URL or no request never gets here.
        let target: Result<http::Uri, _> = format!("/{}{query}", path.trim_start_matches('/')).parse();
        prop_assume!(target.is_ok() && method != "CONNECT");
        let target = target.unwrap().to_string();
        let reply = runtime().block_on(async {
            one_pool().send(&method, &target, &[("accept", &header), ("user-agent", &header)]).await
        });
        prop_assert!([200, 301, 400, 403, 404, 405, 406, 501].contains(&reply.code.as_u16()), "{} {}: {:?}", method, target, reply);
        if method != "HEAD" && reply.code != StatusCode::MOVED_PERMANENTLY {
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            prop_assert_eq!(body["kind"] == "Status", reply.code != StatusCode::OK);
            prop_assert!(reply.body.ends_with('\n'));
        }
    }
}
