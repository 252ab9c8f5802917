//! APIServices and reviews, with an API server of one's own script behind a real client.

#[allow(dead_code, reason = "shared with the tests of another crate, which use the rest")]
#[path = "../../../serving/src/tests/api_server.rs"]
mod api_server;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use k8s_openapi::ByteString;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_serving::{AccessReviewSettings, AccessReviews, Caller, ServingMetrics, install_crypto_provider};

use super::{Registration, RegistrationSettings};
use crate::{AdapterConfig, Authorizer, ReviewedNamespaces};
use api_server::{Answer, ApiServer};

const APISERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const EXTERNAL: &str = "v1beta1.external.metrics.k8s.io";
const CUSTOM: &str = "v1beta2.custom.metrics.k8s.io";
const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const TWO: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

struct Registered {
    api: ApiServer,
    bundle: watch::Sender<Option<Arc<str>>>,
    registry: Registry,
}

/// Keeps the external version and the custom ones.
async fn registered(change: impl FnOnce(&mut RegistrationSettings), prepare: impl FnOnce(&ApiServer)) -> Registered {
    let api = ApiServer::start().await;
    prepare(&api);
    let mut settings = RegistrationSettings {
        service: "weir".into(),
        namespace: "inference".into(),
        port: 443,
        versions: AdapterConfig::default().versions(),
        take_over: false,
        create: false,
    };
    change(&mut settings);
    let (bundle, news) = watch::channel(None);
    let mut registry = Registry::default();
    let registration = Registration::new(settings, &mut registry);
    tokio::spawn(registration.run(api.client.clone(), Some(news), CancellationToken::new()));
    Registered { api, bundle, registry }
}

fn apiservice(name: &str, namespace: &str, service: &str) -> Value {
    let (version, group) = name.split_once('.').unwrap();
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": { "name": service, "namespace": namespace, "port": 443 },
        },
    })
}

fn encoded(bundle: &str) -> Value {
    json!(ByteString(bundle.as_bytes().to_vec()))
}

impl Registered {
    fn trusts(&self, bundle: &str) {
        self.bundle.send_replace(Some(bundle.into()));
    }

    fn spec(&self, name: &str) -> Value {
        self.api.get(APISERVICES, name).map(|object| object["spec"].clone()).unwrap_or_default()
    }

    async fn comes_to(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(), "never happened: {what}");
    }

    fn page(&self) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        page
    }

    fn is(&self, name: &str, state: &str) -> bool {
        let line = format!("weir_adapter_apiservice_state{{apiservice=\"{name}\",state=\"{state}\"}} 1");
        self.page().lines().any(|own| own == line)
    }
}

#[tokio::test]
async fn the_manifests_apiservice_is_made_to_trust_us_and_kept_so() {
    let registered = registered(|_| (), |api| api.put(APISERVICES, EXTERNAL, apiservice(EXTERNAL, "inference", "weir"))).await;
    registered.comes_to("outdated or ours", |own| own.is(EXTERNAL, "ours")).await;
    registered.trusts(ONE);
    registered.comes_to("patched", |own| own.spec(EXTERNAL)["caBundle"] == encoded(ONE)).await;
    assert_eq!(registered.spec(EXTERNAL)["versionPriority"], 100, "the rest is as it was applied");
    registered.trusts(&format!("{ONE}{TWO}"));
    registered.comes_to("both", |own| own.spec(EXTERNAL)["caBundle"] == encoded(&format!("{ONE}{TWO}"))).await;

    // Somebody replaces the whole object.
    registered.api.put(APISERVICES, EXTERNAL, apiservice(EXTERNAL, "inference", "weir"));
    registered.comes_to("repaired", |own| !own.spec(EXTERNAL)["caBundle"].is_null()).await;
    registered.comes_to("counted", |own| own.page().contains("result=\"written\"} 3")).await;
    registered.comes_to("absent ones are told of", |own| own.is(CUSTOM, "absent")).await;
    assert_eq!(registered.api.writes(&Method::POST), 0);
}

#[tokio::test]
async fn another_s_apiservice_is_left_alone() {
    let foreign = apiservice(EXTERNAL, "keda", "keda-operator-metrics-apiserver");
    let registered = registered(|_| (), |api| api.put(APISERVICES, EXTERNAL, foreign.clone())).await;
    registered.trusts(ONE);
    registered.comes_to("foreign", |own| own.is(EXTERNAL, "foreign") && own.is(CUSTOM, "absent")).await;
    assert_eq!(registered.spec(EXTERNAL), foreign["spec"]);
    assert_eq!(registered.api.writes(&Method::PATCH), 0);

    // Its owner goes, ours is applied.
    registered.api.put(APISERVICES, EXTERNAL, apiservice(EXTERNAL, "inference", "weir"));
    registered.comes_to("ours", |own| own.spec(EXTERNAL)["caBundle"] == encoded(ONE)).await;
}

#[tokio::test]
async fn taking_over_and_creating_have_to_be_asked_for() {
    let foreign = apiservice(EXTERNAL, "keda", "keda-operator-metrics-apiserver");
    let ask = |settings: &mut RegistrationSettings| (settings.take_over, settings.create) = (true, true);
    let registered = registered(ask, |api| api.put(APISERVICES, EXTERNAL, foreign)).await;
    registered.comes_to("seen", |own| own.is(EXTERNAL, "foreign") && own.is(CUSTOM, "absent")).await;
    let writes = registered.api.writes(&Method::PATCH) + registered.api.writes(&Method::POST);
    assert_eq!(writes, 0, "nobody is sent here before there is an authority");
    registered.trusts(ONE);
    registered.comes_to("taken over", |own| own.is(EXTERNAL, "ours")).await;
    let service = json!({ "name": "weir", "namespace": "inference", "port": 443 });
    assert_eq!(registered.spec(EXTERNAL)["service"], service);
    registered.comes_to("created", |own| own.is(CUSTOM, "ours")).await;
    assert_eq!(registered.spec(CUSTOM)["caBundle"], encoded(ONE));
    assert_eq!(registered.spec(CUSTOM)["service"], service);
}

#[tokio::test]
async fn a_missing_right_and_garbage_leave_it_unknown_until_mended() {
    let registered = registered(|_| (), |api| api.forbid(APISERVICES)).await;
    registered.trusts(ONE);
    registered.comes_to("unknown", |own| own.is(EXTERNAL, "unknown")).await;
    let mut garbage = apiservice(EXTERNAL, "inference", "weir");
    garbage["spec"]["groupPriorityMinimum"] = json!("many");
    registered.api.put(APISERVICES, EXTERNAL, garbage);
    registered.api.permit(APISERVICES);
    registered.comes_to("the others are known", |own| own.is(CUSTOM, "absent")).await;
    assert!(registered.is(EXTERNAL, "unknown"));
    registered.api.put(APISERVICES, EXTERNAL, apiservice(EXTERNAL, "inference", "weir"));
    registered.comes_to("ours", |own| own.is(EXTERNAL, "ours")).await;
}

#[tokio::test]
async fn another_namespace_is_read_by_those_who_may_list_the_metric_there() {
    let api = ApiServer::start().await;
    api.answer_reviews(|review| {
        let asked = &review["spec"]["resourceAttributes"];
        assert_eq!((&asked["verb"], &asked["group"]), (&json!("list"), &json!("external.metrics.k8s.io")));
        Answer::Status(json!({ "allowed": asked["namespace"] == "open" && asked["resource"] == "queue" }))
    });
    let reviews = AccessReviews::new(api.client.clone(), AccessReviewSettings::default(), &ServingMetrics::default());
    let reviewed = ReviewedNamespaces::new(Arc::new(reviews), Duration::from_millis(300));
    let jane = Caller::new("jane", []);
    assert!(reviewed.may_read(&jane, "open", "queue").await);
    assert!(!reviewed.may_read(&jane, "closed", "queue").await);
    assert!(!reviewed.may_read(&jane, "open", "other").await);
    api.answer_reviews(|_| Answer::Silence);
    assert!(!reviewed.may_read(&jane, "open", "unknown").await, "what cannot be decided is a no");
}
