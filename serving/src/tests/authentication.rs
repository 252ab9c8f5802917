use std::{sync::Arc, time::SystemTime};

use axum::{Router, routing::get};
use http::{HeaderMap, request::Parts};

use super::support::*;
use crate::{Authentication, Authenticator, BearerTokens, Caller, ClientCertificates, Decision, ServeError, Server, Tls, Verdict};

const UNAUTHORIZED: &str = "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"Unauthorized\",\"reason\":\"Unauthorized\",\"code\":401}\n";

fn tokens(files: &Files) -> Authentication {
    let tokens = BearerTokens::from_file(files.path("tokens")).unwrap();
    Authentication::AnyOf(vec![Arc::new(tokens)])
}

#[tokio::test]
async fn a_token_opens_until_it_is_rotated() {
    let files = Files::new();
    files.write("tokens", "first\n");
    let server = start(who(), |builder| builder.authentication(tokens(&files))).await;
    let ask = async |token: &str| {
        let request = plain_client().get(server.url("/who")).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), body(response).await)
    };
    assert_eq!(ask("first").await, (200, "token:1 system:authenticated".into()));
    assert_eq!(ask("second").await, (401, UNAUTHORIZED.into()));
    assert_eq!(status(&server.url("/who")).await, 401);

    files.write("tokens", "second\n");
    wait_until("the new token is accepted", async || ask("second").await.0 == 200).await;
    assert_eq!(ask("first").await.0, 401);
    for (result, least) in [("success", 2.0), ("error", 2.0), ("failure", 1.0)] {
        let series = format!(r#"authentication_attempts{{component="test",result="{result}"}}"#);
        assert!(server.metric(&series) >= least, "{result}");
    }
}

#[tokio::test]
async fn a_refused_client_gets_a_status_and_its_connection_ends() {
    let files = Files::new();
    files.write("tokens", "first\n");
    let server = start(who(), |builder| builder.authentication(tokens(&files))).await;

    // Two requests in one write: the second is never answered.
    let request = "GET /who HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
    let answer = exchange(server.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: application/json\r\n"));
    assert!(answer.ends_with(UNAUTHORIZED), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1);

    let closed = r#"weir_serving_closed_connections_total{component="test",reason="asked"}"#;
    let before = server.metric(closed);
    let h2 = http2_client();
    let response = h2.get(server.url("/who")).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(body(response).await, UNAUTHORIZED);
    // The client is still there, so it is the server that ended it.
    server.wait_for_metric(closed, before + 1.0).await;
    drop(h2);
}

#[tokio::test]
async fn health_is_open_and_nothing_else_is() {
    let files = Files::new();
    files.write("tokens", "first\n");
    let router = who().route("/", get(async || "page"));
    let server = start(router, |builder| builder.authentication(tokens(&files))).await;
    for path in ["/livez", "/healthz", "/readyz", "/readyz/ping", "/readyz?verbose"] {
        assert_eq!(status(&server.url(path)).await, 200, "{path}");
    }
    let answer = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        exchange(server.address, request.as_bytes()).await
    };
    for path in ["/", "/who", "/unknown", "/livezz", "//livez", "/LIVEZ"] {
        let answer = answer(path).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
    // A check that does not exist, not a way to the page beside it.
    let beside = answer("/livez/../who").await;
    assert!(beside.starts_with("HTTP/1.1 404 "), "{beside}");
}

#[tokio::test]
async fn handlers_never_see_the_secret() {
    let files = Files::new();
    files.write("tokens", "first\n");
    let router = Router::new().route("/", get(async |headers: HeaderMap| headers.contains_key("authorization").to_string()));
    let server = start(router, |builder| builder.authentication(tokens(&files))).await;
    let request = plain_client().get(server.url("/")).bearer_auth("first");
    assert_eq!(body(request.send().await.unwrap()).await, "false");
}

#[tokio::test]
async fn open_servers_stay_on_this_machine() {
    let bound = Server::builder(who()).listen("0.0.0.0:0".parse().unwrap()).bind().await;
    assert!(matches!(bound, Err(ServeError::OpenToOthers { .. })));

    let files = Files::new();
    files.write("tokens", "first\n");
    let bound = Server::builder(who()).listen("0.0.0.0:0".parse().unwrap()).authentication(tokens(&files)).bind().await;
    assert!(bound.is_ok());
}

/// What a further authenticator looks like: a name in a header, which only works from this machine.
struct NameInHeader;

impl Authenticator for NameInHeader {
    fn name(&self) -> &'static str {
        "name in header"
    }

    fn authenticate<'a>(&'a self, request: &'a Parts, _now: SystemTime) -> Decision<'a> {
        Box::pin(async {
            tokio::task::yield_now().await;
            match request.headers.get("x-name").map(|name| name.to_str()) {
                Some(Ok(name)) => Verdict::Accepted(Caller::new(name, [])),
                _ => Verdict::NoOpinion,
            }
        })
    }
}

#[tokio::test]
async fn ways_are_asked_in_order() {
    let files = Files::new();
    let now = SystemTime::now();
    let clients = authority();
    files.write("tokens", "first\n");
    files.write("ca.crt", clients.ca_pem());
    let all = Authentication::AnyOf(vec![
        Arc::new(NameInHeader),
        Arc::new(ClientCertificates),
        Arc::new(BearerTokens::from_file(files.path("tokens")).unwrap()),
    ]);
    let tls = Tls::self_made(authority(), [] as [&str; 0]).client_ca(files.path("ca.crt"));
    let server = start(who(), |builder| builder.tls(tls).authentication(all)).await;
    let issued = clients.issue_client("reader", None, now, 1).unwrap();
    let pem = issued.certificate_pem + &issued.key_pem;
    let ca_pem = server.ca_pem.clone().unwrap();
    let client = trusting(&ca_pem).identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap();
    let anonymous = trusting(&ca_pem).build().unwrap();
    let name = async |request: reqwest::RequestBuilder| {
        let text = body(request.send().await.unwrap()).await;
        text.split(' ').next().unwrap().to_owned()
    };
    let url = server.url("/who");
    let both = client.get(&url).bearer_auth("first");
    assert_eq!(name(both.try_clone().unwrap().header("x-name", "someone")).await, "someone");
    assert_eq!(name(both).await, "reader");
    assert_eq!(name(client.get(&url).bearer_auth("wrong")).await, "reader");
    assert_eq!(name(anonymous.get(&url).bearer_auth("first")).await, "token:1");
}
