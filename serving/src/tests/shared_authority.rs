//! One authority in a Secret, for several replicas.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{api_server::ApiServer, support::*};
use crate::{Health, ServingMetrics, SharedAuthority, SharedAuthoritySettings, Tls, service_names};

const SECRETS: &str = "/api/v1/namespaces/inference/secrets";
const NAME: &str = "weir-ca";
/// Changes in the cluster do not wait for the next look at files.
const NEVER: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Replica {
    authority: Arc<SharedAuthority>,
    health: Health,
    server: Running,
}

#[derive(Clone)]
struct Clock(Arc<Mutex<SystemTime>>);

impl Clock {
    fn at(time: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(time)))
    }

    fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap() = time;
    }
}

async fn replica(api: &ApiServer, clock: &Clock) -> Replica {
    let clock = clock.clone();
    let settings = SharedAuthoritySettings::new("inference", NAME);
    let authority = SharedAuthority::new(settings, move || *clock.0.lock().unwrap(), ServingMetrics::default()).unwrap();
    let authority = Arc::new(authority);
    let health = Health::new();
    tokio::spawn(authority.keep(api.client.clone(), &health, CancellationToken::new()));
    let tls = Tls::shared(Arc::clone(&authority), service_names("weir", "inference"));
    let server = start(who(), |builder| builder.tls(tls).health(health.clone()).reload_every(NEVER)).await;
    Replica { authority, health, server }
}

impl Replica {
    fn bundle(&self) -> String {
        self.authority.bundle().borrow().as_deref().unwrap_or_default().to_owned()
    }

    async fn ready(&self) {
        wait_until("ready", async || self.health.not_ready().is_empty()).await;
    }

    /// Whether a client of the Service that trusts `bundle` gets an answer.
    async fn is_trusted_by(&self, bundle: &str) -> bool {
        crate::install_crypto_provider();
        let certificates = reqwest::Certificate::from_pem_bundle(bundle.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(certificates).timeout(LONG).no_proxy();
        let client = client.resolve("weir.inference.svc", self.server.address).build().unwrap();
        let url = format!("https://weir.inference.svc:{}/who", self.server.address.port());
        client.get(url).send().await.is_ok()
    }

    async fn comes_to_be_trusted_by(&self, bundle: &str) {
        wait_until("trusted", async || self.is_trusted_by(bundle).await).await;
    }
}

/// As its next event, with nothing changed.
fn touch(api: &ApiServer) {
    api.put(SECRETS, NAME, api.get(SECRETS, NAME).unwrap());
}

#[tokio::test]
async fn replicas_that_start_together_share_one_authority() {
    let api = ApiServer::start().await;
    let clock = Clock::at(SystemTime::now());
    let (one, two) = tokio::join!(replica(&api, &clock), replica(&api, &clock));
    one.ready().await;
    two.ready().await;
    assert_eq!(one.bundle(), two.bundle());
    let bundle = one.bundle();
    for replica in [&one, &two] {
        replica.comes_to_be_trusted_by(&bundle).await;
    }
    let secret = api.get(SECRETS, NAME).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert!(!one.is_trusted_by(authority().ca_pem()).await);

    // Deleted by somebody: clients trust the old one, so it is put back.
    api.delete(SECRETS, NAME);
    wait_until("put back", async || api.get(SECRETS, NAME).is_some()).await;
    assert_eq!(api.get(SECRETS, NAME).unwrap()["data"], secret["data"]);

    // A third comes later.
    let three = replica(&api, &clock).await;
    three.ready().await;
    three.comes_to_be_trusted_by(&bundle).await;
}

#[tokio::test]
async fn an_empty_secret_is_filled_and_kept_as_it_is_otherwise() {
    let api = ApiServer::start().await;
    let empty = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": { "labels": { "a": "b" } } });
    api.put(SECRETS, NAME, empty);
    let one = replica(&api, &Clock::at(SystemTime::now())).await;
    one.ready().await;
    let secret = api.get(SECRETS, NAME).unwrap();
    assert_eq!((&secret["type"], &secret["metadata"]["labels"]["a"]), (&json!("Opaque"), &json!("b")));
    assert_eq!(api.writes(&Method::POST), 0, "no right to create is needed");
}

#[tokio::test]
async fn an_authority_is_replaced_without_anybody_losing_trust() {
    let api = ApiServer::start().await;
    let now = SystemTime::now();
    let clock = Clock::at(now - 300 * DAY);
    let (one, two) = tokio::join!(replica(&api, &clock), replica(&api, &clock));
    one.ready().await;
    two.ready().await;
    let old = one.bundle();
    one.comes_to_be_trusted_by(&old).await;

    clock.set(now);
    touch(&api);
    wait_until("both trust two", async || one.bundle() != old && one.bundle() == two.bundle()).await;
    let both = one.bundle();
    let new = both.replace(&old, "");
    assert!(both.starts_with(&old) && new.contains("BEGIN CERTIFICATE"));
    assert!(one.is_trusted_by(&old).await, "who has not heard of it yet is served as before");
    assert!(!one.is_trusted_by(&new).await);

    clock.set(now + Duration::from_secs(660));
    touch(&api);
    for replica in [&one, &two] {
        replica.comes_to_be_trusted_by(&new).await;
        assert!(replica.is_trusted_by(&both).await);
        assert_eq!(replica.bundle(), both);
    }
    assert!(!one.is_trusted_by(&old).await);
}

#[tokio::test]
async fn foreign_content_is_refused_and_left_alone() {
    let api = ApiServer::start().await;
    let foreign: Value = json!({ "apiVersion": "v1", "kind": "Secret", "data": { "password": "c2VjcmV0" } });
    api.put(SECRETS, NAME, foreign.clone());
    let one = replica(&api, &Clock::at(SystemTime::now())).await;
    let readyz = async || {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap();
        body(client.get(format!("https://{}/readyz", one.server.address)).send().await.unwrap()).await
    };
    wait_until("told", async || readyz().await.contains("Secret inference/weir-ca: tls.crt: is missing")).await;
    assert_eq!(api.get(SECRETS, NAME).unwrap()["data"], foreign["data"]);
    assert_eq!(api.writes(&Method::PUT) + api.writes(&Method::POST), 0);

    api.delete(SECRETS, NAME);
    one.ready().await;
    let bundle = one.bundle();
    api.put(SECRETS, NAME, foreign);
    one.comes_to_be_trusted_by(&bundle).await;
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let api = ApiServer::start().await;
    api.forbid(SECRETS);
    let one = replica(&api, &Clock::at(SystemTime::now())).await;
    let told = async || {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy().build().unwrap();
        body(client.get(format!("https://{}/readyz", one.server.address)).send().await.unwrap()).await
    };
    wait_until("told", async || told().await.contains("Role in namespace inference")).await;
    api.permit(SECRETS);
    one.ready().await;
}
