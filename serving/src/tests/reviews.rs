//! Tokens and permissions, decided by the API server.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use futures_util::future::join_all;
use http::request::Parts;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    api_server::{Answer, ApiServer},
    support::*,
};
use crate::{
    AccessReviewSettings, AccessReviews, Attributes, Authentication, Authenticator, Authorization, Caller, RequestLimits,
    RequestReviews, ResourceAttributes, ServingMetrics, TokenReviewSettings, TokenReviews, Verdict,
};

/// Knows one token; allows `jane` everything.
fn script(review: &Value) -> Answer {
    if review["kind"] == "TokenReview" {
        return Answer::Status(match review["spec"]["token"].as_str() {
            Some("good") => json!({
                "authenticated": true,
                "audiences": review["spec"]["audiences"],
                "user": { "username": "jane", "uid": "7", "groups": ["people"], "extra": { "a": ["b"] } },
            }),
            Some("admin") => json!({ "authenticated": true, "user": { "username": "root", "groups": ["system:masters"] } }),
            _ => json!({ "authenticated": false, "error": "unknown" }),
        });
    }
    let allowed = review["spec"]["user"] == "jane";
    Answer::Status(json!({ "allowed": allowed, "reason": if allowed { "" } else { "no role" } }))
}

async fn api() -> ApiServer {
    let api = ApiServer::start().await;
    api.answer_reviews(script);
    api
}

fn tokens(api: &ApiServer, settings: TokenReviewSettings) -> TokenReviews {
    TokenReviews::new(api.client.clone(), settings, &ServingMetrics::default()).unwrap()
}

fn with_token(token: &str) -> Parts {
    let request = http::Request::builder().header("authorization", format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0
}

async fn judge(tokens: &TokenReviews, token: &str) -> Verdict {
    tokens.authenticate(&with_token(token), SystemTime::now()).await
}

fn metric_in(attributes: &http::request::Parts) -> Attributes {
    Attributes::Resource(ResourceAttributes {
        verb: "list".into(),
        group: "external.metrics.k8s.io".into(),
        resource: attributes.uri.path().trim_start_matches('/').into(),
        namespace: "ns".into(),
        ..ResourceAttributes::default()
    })
}

/// A server where `settings` reviews access and tokens come from the API server.
async fn reviewed(api: &ApiServer, settings: AccessReviewSettings, limits: RequestLimits) -> Running {
    let metrics = ServingMetrics::default();
    let reviews = RequestReviews::new(Arc::new(AccessReviews::new(api.client.clone(), settings, &metrics)));
    let ways = Authentication::AnyOf(vec![Arc::new(tokens(api, TokenReviewSettings::default()))]);
    let router = who().merge(Router::new().route("/{any}", get(async || "served")).route("/open/{any}", get(async || "open")));
    let reviews = reviews.describe(|parts| match parts.uri.path() {
        path if path.starts_with("/open/") || path == "/who" => Attributes::of_path(parts),
        _ => metric_in(parts),
    });
    let authorization = Authorization::Reviews(reviews.always_allow(["/open/*"]));
    start(router, |builder| builder.authentication(ways).authorization(authorization).request_limits(limits)).await
}

async fn ask(server: &Running, path: &str, token: Option<&str>) -> (u16, String) {
    let request = plain_client().get(server.url(path));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), body(response).await)
}

#[tokio::test]
async fn a_token_is_whose_the_api_server_says_and_is_remembered() {
    let api = api().await;
    let tokens = tokens(&api, TokenReviewSettings::default());
    for _ in 0..2 {
        let Verdict::Accepted(caller) = judge(&tokens, "good").await else { panic!() };
        let expected = Caller::new("jane", ["people".to_owned()]).with_uid(Some("7"));
        assert_eq!(caller, expected.with_extra([("a".to_owned(), vec!["b".to_owned()])].into()));
        assert!(matches!(judge(&tokens, "bad").await, Verdict::Rejected(_)));
    }
    assert_eq!(api.asked("TokenReview"), 2, "both answers are remembered");
    let (nothing, ()) = http::Request::new(()).into_parts();
    assert_eq!(tokens.authenticate(&nothing, SystemTime::now()).await, Verdict::NoOpinion);
}

#[tokio::test]
async fn a_token_is_asked_about_anew_when_its_time_is_over_and_failures_are_never_remembered() {
    let api = api().await;
    let forgetful = tokens(&api, TokenReviewSettings { keep: Duration::ZERO, ..TokenReviewSettings::default() });
    for _ in 0..2 {
        assert!(matches!(judge(&forgetful, "good").await, Verdict::Accepted(_)));
    }
    assert_eq!(api.asked("TokenReview"), 2);

    let tokens = tokens(&api, TokenReviewSettings::default());
    let failures: [fn(&Value) -> Answer; 4] = [
        |_| Answer::Failure(403),
        |_| Answer::Bytes(b"{\"kind\":".to_vec()),
        |_| Answer::Bytes(vec![b' '; 2 << 20]),
        |_| Answer::Status(json!({ "authenticated": true, "user": {} })),
    ];
    for (index, failure) in failures.into_iter().enumerate() {
        api.answer_reviews(failure);
        let token = if index == 3 { "nameless" } else { "good" };
        assert!(matches!(judge(&tokens, token).await, Verdict::Rejected(_)), "{index}");
    }
    api.answer_reviews(script);
    assert!(matches!(judge(&tokens, "good").await, Verdict::Accepted(_)));
}

#[tokio::test]
async fn one_question_for_all_who_ask_at_once() {
    let api = api().await;
    let released = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&released);
    api.answer_reviews(move |review| Answer::After(Arc::clone(&held), Box::new(script(review))));
    let tokens = tokens(&api, TokenReviewSettings::default());
    let all = join_all((0..20).map(|_| judge(&tokens, "good")));
    let release = async {
        // Polled after all twenty.
        wait_until("asked", async || api.asked("TokenReview") > 0).await;
        released.add_permits(20);
    };
    let (verdicts, ()) = tokio::join!(all, release);
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Accepted(_))));
    assert_eq!(api.asked("TokenReview"), 1);
}

#[tokio::test]
async fn a_token_must_be_meant_for_us_when_we_have_a_name() {
    let api = api().await;
    let ours = || TokenReviewSettings { audiences: vec!["weir".into()], ..TokenReviewSettings::default() };
    assert!(matches!(judge(&tokens(&api, ours()), "good").await, Verdict::Accepted(_)));
    assert_eq!(api.last_review()["spec"]["audiences"], json!(["weir"]));
    for audiences in [json!(["other"]), json!([]), Value::Null] {
        api.answer_reviews(move |_| {
            Answer::Status(json!({ "authenticated": true, "audiences": audiences, "user": { "username": "jane" } }))
        });
        assert!(matches!(judge(&tokens(&api, ours()), "good").await, Verdict::Rejected(_)));
    }
}

#[tokio::test]
async fn who_may_read_is_asked_once_and_told_in_kubernetes_words() {
    let api = api().await;
    let server = reviewed(&api, AccessReviewSettings::default(), RequestLimits::default()).await;
    assert_eq!(ask(&server, "/queue", Some("good")).await, (200, "served".into()));
    let spec = api.last_review()["spec"].clone();
    assert_eq!(
        spec,
        json!({
            "user": "jane", "uid": "7", "groups": ["people", "system:authenticated"], "extra": { "a": ["b"] },
            "resourceAttributes": { "verb": "list", "group": "external.metrics.k8s.io", "resource": "queue", "namespace": "ns" },
        })
    );
    let asked = api.asked("SubjectAccessReview");
    assert_eq!(ask(&server, "/queue", Some("good")).await.0, 200);
    assert_eq!(api.asked("SubjectAccessReview"), asked);

    let denied = "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"queue.external.metrics.k8s.io is forbidden: User \\\"system:anonymous\\\" cannot list resource \\\"queue\\\" in API group \\\"external.metrics.k8s.io\\\" in the namespace \\\"ns\\\": no role\",\"reason\":\"Forbidden\",\"details\":{\"group\":\"external.metrics.k8s.io\",\"kind\":\"queue\"},\"code\":403}\n";
    assert_eq!(ask(&server, "/queue", None).await, (403, denied.into()));
    assert_eq!(api.last_review()["spec"]["groups"], json!(["system:unauthenticated"]));
    let path = ask(&server, "/who", None).await;
    assert!(path.1.contains("forbidden: User \\\"system:anonymous\\\" cannot get path \\\"/who\\\": no role"), "{path:?}");
    let asked = api.asked("SubjectAccessReview");
    assert_eq!(ask(&server, "/queue", Some("bad")).await.0, 401, "a bad token is not nobody's");
    assert_eq!(ask(&server, "/queue", Some("admin")).await.0, 200, "system:masters may do everything");
    assert_eq!(ask(&server, "/open/x", None).await, (200, "open".into()));
    assert_eq!(api.asked("SubjectAccessReview"), asked);
}

#[tokio::test]
async fn a_refusal_ends_with_its_time_and_what_is_too_long_is_not_remembered() {
    let api = api().await;
    let settings = AccessReviewSettings { keep_denied: Duration::ZERO, ..AccessReviewSettings::default() };
    let server = reviewed(&api, settings, RequestLimits::default()).await;
    assert_eq!(ask(&server, "/queue", None).await.0, 403);
    api.answer_reviews(|review| match review["kind"].as_str() {
        Some("TokenReview") => script(review),
        _ => Answer::Status(json!({ "allowed": true })),
    });
    assert_eq!(ask(&server, "/queue", None).await.0, 200);
    api.answer_reviews(|review| match review["kind"].as_str() {
        Some("TokenReview") => script(review),
        _ => Answer::Status(json!({ "allowed": true, "denied": true })),
    });
    assert_eq!(ask(&server, "/queue", None).await.0, 200, "leave is remembered for ten seconds");
    assert_eq!(ask(&server, "/other", None).await.0, 403, "denied is denied");
    let long = format!("/{}", "x".repeat(10_000));
    let asked = api.asked("SubjectAccessReview");
    for _ in 0..2 {
        assert_eq!(ask(&server, &long, None).await.0, 403);
    }
    assert_eq!(api.asked("SubjectAccessReview"), asked + 2);
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_told_of_in_time() {
    let api = api().await;
    let limits = RequestLimits { deadline: Duration::from_millis(400), ..RequestLimits::default() };
    let settings = AccessReviewSettings { in_flight: 1, ..AccessReviewSettings::default() };
    let server = reviewed(&api, settings, limits).await;
    api.answer_reviews(|_| Answer::Silence);
    let (code, text) = ask(&server, "/queue", None).await;
    assert_eq!(code, 500);
    assert!(text.contains("\"message\":\"Internal error occurred: no answer from the Kubernetes API server within "), "{text}");
    assert_eq!(ask(&server, "/queue", Some("good")).await.0, 401);

    // Two different questions at once: one waits, the other is told so.
    let (one, two) = tokio::join!(ask(&server, "/one", None), ask(&server, "/two", None));
    assert_eq!((one.0, two.0), (500, 500));
    let waiting = "1 subjectaccessreviews wait for the Kubernetes API server already";
    assert_eq!([&one.1, &two.1].iter().filter(|text| text.contains(waiting)).count(), 1, "{one:?} {two:?}");

    api.answer_reviews(|_| Answer::Failure(403));
    let (code, text) = ask(&server, "/queue", None).await;
    assert_eq!(code, 500);
    assert!(text.contains("system:auth-delegator"), "{text}");
}
