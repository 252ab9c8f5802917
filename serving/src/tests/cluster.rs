//! Callers by certificate, as the cluster's configuration says.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use http::HeaderMap;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{api_server::ApiServer, support::*};
use crate::{
    Authentication, CertificateAuthority, ClientCertificates, ClusterCertificates, ClusterTrust, FrontProxy, Health, Issued,
    ServingMetrics, Tls,
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "extension-apiserver-authentication";
/// Changes in the cluster do not wait for the next look at files.
const NEVER: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn configuration(client_ca: &str, front_proxy_ca: &str) -> Value {
    let data = crate::kubernetes::published(client_ca, front_proxy_ca);
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data })
}

fn old_authority() -> CertificateAuthority {
    CertificateAuthority::new(SystemTime::now() - 20 * DAY).unwrap()
}

fn issue(authority: &CertificateAuthority, common_name: &str) -> Issued {
    authority.issue_client(common_name, Some("boards"), SystemTime::now(), 1).unwrap()
}

/// A server that trusts what the cluster does.
struct Cluster {
    api: ApiServer,
    health: Health,
    server: Running,
    registry: Registry,
    users: CertificateAuthority,
    proxies: CertificateAuthority,
}

impl Cluster {
    /// With what `prepare` leaves in the API server.
    async fn start(prepare: impl FnOnce(&ApiServer), tls: impl FnOnce(Tls) -> Tls) -> Self {
        let api = ApiServer::start().await;
        prepare(&api);
        let mut registry = Registry::default();
        let trust = ClusterTrust::new(ServingMetrics::register(&mut registry));
        let health = Health::new();
        let ways = Authentication::AnyOf(vec![
            Arc::new(FrontProxy::new(trust.clone())),
            Arc::new(ClusterCertificates::new(trust.clone())),
            Arc::new(ClientCertificates),
        ]);
        let proofs = get(async |headers: HeaderMap| headers.keys().any(|name| name.as_str().starts_with("x-remote")).to_string());
        let router = who().merge(Router::new().route("/proofs", proofs));
        let tls = tls(Tls::self_made(authority(), [] as [&str; 0]).cluster(trust.clone()));
        tokio::spawn(trust.follow(api.client.clone(), &health, CancellationToken::new()));
        assert_eq!(health.not_ready(), ["authentication-configuration"]);
        let server =
            start(router, |builder| builder.tls(tls).authentication(ways).health(health.clone()).reload_every(NEVER)).await;
        Self { api, health, server, registry, users: old_authority(), proxies: old_authority() }
    }

    /// With a good configuration that is loaded.
    async fn configured() -> Self {
        let cluster = Self::start(|_| (), |tls| tls).await;
        cluster.publish(cluster.proxies.ca_pem());
        cluster.ready().await;
        cluster
    }

    fn publish(&self, front_proxy_ca: &str) {
        self.api.put(CONFIG_MAPS, NAME, configuration(self.users.ca_pem(), front_proxy_ca));
    }

    async fn ready(&self) {
        wait_until("ready", async || self.health.not_ready().is_empty()).await;
    }

    async fn loaded(&self, times: f64) {
        let series = r#"weir_serving_reloads_total{component="kubernetes",subject="authentication_configuration",result="loaded"}"#;
        wait_until("loaded", async || self.metric(series) >= times).await;
    }

    fn metric(&self, series: &str) -> f64 {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }

    fn client(&self, identity: Option<&Issued>) -> reqwest::Client {
        let builder = trusting(self.server.ca_pem.as_ref().unwrap());
        let builder = match identity {
            None => builder,
            Some(Issued { certificate_pem, key_pem, .. }) => {
                builder.identity(reqwest::Identity::from_pem(format!("{certificate_pem}{key_pem}").as_bytes()).unwrap())
            }
        };
        builder.build().unwrap()
    }

    /// Status and answer of `/who`, with the headers of a front proxy.
    async fn proxied(&self, client: &reqwest::Client) -> (u16, String) {
        let request = client.get(self.server.url("/who")).header("x-remote-user", "jane").header("x-remote-group", "people");
        let response = request.send().await.unwrap();
        (response.status().as_u16(), body(response).await)
    }

    async fn bare(&self, client: &reqwest::Client) -> (u16, String) {
        let response = client.get(self.server.url("/who")).send().await.unwrap();
        (response.status().as_u16(), body(response).await)
    }
}

#[tokio::test]
async fn only_the_front_proxy_speaks_for_others() {
    let cluster = Cluster::configured().await;
    let now = SystemTime::now();
    let proxy = cluster.client(Some(&issue(&cluster.proxies, "front-proxy-client")));
    assert_eq!(cluster.proxied(&proxy).await, (200, "jane people,system:authenticated".into()));
    let proofs = proxy.get(cluster.server.url("/proofs")).header("x-remote-user", "jane").header("x-remote-extra-a", "b");
    assert_eq!(body(proofs.send().await.unwrap()).await, "false", "handlers never see them");

    let expired = cluster.proxies.issue_client("front-proxy-client", None, now - 10 * DAY, 1).unwrap();
    let for_servers = cluster.proxies.issue_server(&["front-proxy-client".into()], now).unwrap();
    for (what, identity) in [
        ("no certificate", None),
        ("another authority", Some(issue(&old_authority(), "front-proxy-client"))),
        ("expired", Some(expired)),
        ("for servers", Some(for_servers)),
        ("a name that is not allowed", Some(issue(&cluster.proxies, "someone"))),
    ] {
        let client = cluster.client(identity.as_ref());
        assert_eq!(cluster.proxied(&client).await.0, 401, "{what}");
    }
    assert_eq!(cluster.bare(&proxy).await.0, 401, "no user named, and no user's certificate");
}

#[tokio::test]
async fn a_user_s_own_certificate_names_the_user_whatever_headers_say() {
    let cluster = Cluster::configured().await;
    let user = cluster.client(Some(&issue(&cluster.users, "reader")));
    let expected = (200, "reader boards,system:authenticated".to_owned());
    assert_eq!(cluster.bare(&user).await, expected);
    assert_eq!(cluster.proxied(&user).await, expected);
    let impersonating = user.get(cluster.server.url("/who")).header("Impersonate-User", "admin").send().await.unwrap();
    assert_eq!(impersonating.status(), 403);
    assert!(body(impersonating).await.contains("impersonate-user is not served here"));
    let old = r#"authentication_attempts{component="test",result="success"}"#;
    assert!(cluster.server.metric(old) >= 3.0);
}

#[tokio::test]
async fn another_authority_counts_at_once_on_connections_old_and_new() {
    let cluster = Cluster::configured().await;
    let next = old_authority();
    let [old_proxy, new_proxy] =
        [&cluster.proxies, &next].map(|authority| cluster.client(Some(&issue(authority, "front-proxy-client"))));
    assert_eq!(cluster.proxied(&old_proxy).await.0, 200);
    assert_eq!(cluster.proxied(&new_proxy).await.0, 401);

    cluster.publish(&format!("{}{}", cluster.proxies.ca_pem(), next.ca_pem()));
    cluster.loaded(2.0).await;
    assert_eq!(cluster.proxied(&new_proxy).await.0, 200);
    let accepted = r#"weir_serving_connections_total{component="test",result="accepted"}"#;
    let connections = cluster.server.metric(accepted);
    assert_eq!(cluster.proxied(&old_proxy).await.0, 200);

    cluster.publish(next.ca_pem());
    cluster.loaded(3.0).await;
    assert_eq!(cluster.proxied(&old_proxy).await.0, 401, "a connection does not outlive the trust");
    assert!((cluster.server.metric(accepted) - connections).abs() < 0.5, "it was the old connection");
    assert_eq!(cluster.proxied(&new_proxy).await.0, 200);
    let told = cluster.metric(r#"weir_serving_authority_expiration_timestamp_seconds{authority="front_proxy_ca"}"#);
    assert!(told > 1e9, "{told}");
}

#[tokio::test]
async fn readiness_tells_what_is_missing_and_how_to_mend_it() {
    let cluster = Cluster::start(|api| api.forbid(CONFIG_MAPS), |tls| tls).await;
    let readyz = async || {
        let response = cluster.client(None).get(cluster.server.url("/readyz?verbose")).send().await.unwrap();
        (response.status().as_u16(), body(response).await)
    };
    wait_until("the way out is told", async || {
        readyz().await.1.contains("RoleBinding in namespace kube-system from Role extension-apiserver-authentication-reader")
    })
    .await;
    cluster.api.permit(CONFIG_MAPS);
    wait_until("its absence is told", async || readyz().await.1.contains("does not exist")).await;
    cluster.api.put(CONFIG_MAPS, NAME, configuration("nonsense", ""));
    wait_until("its defect is told", async || readyz().await.1.contains("client-ca-file: holds no PEM certificate")).await;
    assert_eq!(readyz().await.0, 500);
    cluster.publish(cluster.proxies.ca_pem());
    cluster.ready().await;
    assert_eq!(readyz().await.0, 200);

    // What broke later changes nothing.
    let refused = r#"weir_serving_reloads_total{component="kubernetes",subject="authentication_configuration",result="refused"}"#;
    let before = cluster.metric(refused);
    cluster.api.put(CONFIG_MAPS, NAME, json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "client-ca-file": "x" } }));
    wait_until("refused", async || cluster.metric(refused) > before).await;
    cluster.api.delete(CONFIG_MAPS, NAME);
    let proxy = cluster.client(Some(&issue(&cluster.proxies, "front-proxy-client")));
    assert_eq!(cluster.proxied(&proxy).await.0, 200);
    assert_eq!(readyz().await.0, 200);
}

#[tokio::test]
async fn authorities_of_a_file_count_beside_those_of_the_cluster() {
    let files = Files::new();
    let own = old_authority();
    files.write("ca.crt", own.ca_pem());
    let cluster = Cluster::start(|_| (), |tls| tls.client_ca(files.path("ca.crt"))).await;
    cluster.publish(cluster.proxies.ca_pem());
    cluster.ready().await;
    let of_file = cluster.client(Some(&issue(&own, "local")));
    assert_eq!(cluster.proxied(&of_file).await, (200, "local boards,system:authenticated".into()));
    let stranger = cluster.client(Some(&issue(&old_authority(), "local")));
    assert_eq!(cluster.bare(&stranger).await.0, 401);
    let user = cluster.client(Some(&issue(&cluster.users, "reader")));
    assert_eq!(cluster.bare(&user).await.0, 200);
}
