//! What clients find out before they ask: groups, resources, documents.

use serde_json::{Value, json};
use weir_datastore::catalog::FAMILIES;

use super::*;
use crate::POD_FAMILIES;

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const EXTERNAL: &str = r#""name":"external.metrics.k8s.io","versions":[{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}"#;
const CUSTOM: &str = r#""name":"custom.metrics.k8s.io","versions":[{"groupVersion":"custom.metrics.k8s.io/v1beta2","version":"v1beta2"},{"groupVersion":"custom.metrics.k8s.io/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"custom.metrics.k8s.io/v1beta2","version":"v1beta2"}"#;

async fn get(bench: &Bench, path: &str) -> String {
    let reply = bench.send("GET", path, &[]).await;
    assert_eq!(reply.code, StatusCode::OK, "{path}");
    assert_eq!(reply.headers["content-type"], "application/json", "{path}");
    reply.body
}

fn object(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn legacy_discovery_lists_both_groups_and_each_metric_once() {
    // Without a pool: it does not depend on data.
    let bench = Bench::new();
    let groups = format!("{{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[{{{EXTERNAL}}},{{{CUSTOM}}}]}}\n");
    assert_eq!(get(&bench, "/apis").await, groups);
    assert_eq!(get(&bench, "/apis/").await, groups);
    for (name, group) in [("external", EXTERNAL), ("custom", CUSTOM)] {
        let expected = format!("{{\"kind\":\"APIGroup\",\"apiVersion\":\"v1\",{group}}}\n");
        assert_eq!(get(&bench, &format!("/apis/{name}.metrics.k8s.io")).await, expected);
    }
    let resource = |name: &str, namespaced: bool, kind: &str| {
        format!(r#"{{"name":"{name}","singularName":"","namespaced":{namespaced},"kind":"{kind}","verbs":["get"]}}"#)
    };
    let list = |version: &str, resources: Vec<String>| {
        let resources = resources.join(",");
        format!(
            "{{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":\"{version}\",\"resources\":[{resources}]}}\n"
        )
    };
    let external =
        FAMILIES.iter().map(|family| resource(family.name, true, &crate::groups::discovered_kind(family.name))).collect();
    assert_eq!(get(&bench, API).await, list("external.metrics.k8s.io/v1beta1", external));
    let of_pools = |parent: &str, namespaced| {
        FAMILIES
            .iter()
            .map(|family| resource(&format!("{parent}/{}", family.name), namespaced, "MetricValueList"))
            .collect::<Vec<_>>()
    };
    let mut custom = of_pools("inferencepools.inference.networking.k8s.io", true);
    custom.extend(POD_FAMILIES.iter().map(|family| resource(&format!("pods/{}", family.name), true, "MetricValueList")));
    custom.extend(of_pools("namespaces", false));
    for version in ["custom.metrics.k8s.io/v1beta1", "custom.metrics.k8s.io/v1beta2"] {
        assert_eq!(get(&bench, &format!("/apis/{version}")).await, list(version, custom.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn aggregated_discovery_is_the_document_of_the_api_server() {
    let bench = Bench::new();
    for (accept, version) in [(V2, "v2"), (V2BETA1, "v2beta1")] {
        let reply = bench.send("GET", "/apis", &[("accept", accept)]).await;
        assert_eq!(reply.code, StatusCode::OK);
        assert_eq!(reply.headers["content-type"], accept);
        assert_eq!(reply.headers["vary"], "Accept");
        let kind = |version: &str, group: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
        let external: Vec<_> = FAMILIES
            .iter()
            .map(|family| {
                json!({
                    "resource": family.name, "responseKind": kind("v1beta1", "external.metrics.k8s.io", &crate::groups::discovered_kind(family.name)),
                    "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
                })
            })
            .collect();
        let of_pools: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        let of_pods: Vec<_> = POD_FAMILIES.iter().map(|family| family.name).collect();
        let custom = |version: &str| {
            let parent = |resource: &str, scope: &str, metrics: &[&str]| {
                let subresource = |metric: &&str| {
                    json!({
                        "subresource": metric, "responseKind": kind(version, "custom.metrics.k8s.io", "MetricValueList"),
                        "verbs": ["get"],
                    })
                };
                json!({
                    "resource": resource, "responseKind": kind("", "", ""), "scope": scope, "singularResource": "", "verbs": [],
                    "subresources": metrics.iter().map(subresource).collect::<Vec<_>>(),
                })
            };
            let resources = [
                parent("inferencepools.inference.networking.k8s.io", "Namespaced", &of_pools),
                parent("pods", "Namespaced", &of_pods),
                parent("namespaces", "Cluster", &of_pools),
            ];
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        };
        let expected = json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
            "items": [
                {
                    "metadata": { "name": "external.metrics.k8s.io" },
                    "versions": [{ "version": "v1beta1", "resources": external, "freshness": "Current" }],
                },
                { "metadata": { "name": "custom.metrics.k8s.io" }, "versions": [custom("v1beta2"), custom("v1beta1")] },
            ],
        });
        assert_eq!(object(&reply.body), expected);
        // The order in which Kubernetes writes the fields.
        let start = format!(
            "{{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/{version}\",\"metadata\":{{}},\"items\":[{{\"metadata\":{{\"name\":\"external.metrics.k8s.io\"}},\"versions\":[{{\"version\":\"v1beta1\",\"resources\":[{{\"resource\":\"inference_pool_average_kv_cache_utilization\",\"responseKind\":{{\"group\":\"external.metrics.k8s.io\",\"version\":\"v1beta1\",\"kind\":\"InferencePoolAverageKvCacheUtilization\"}},\"scope\":\"Namespaced\",\"singularResource\":\"\",\"verbs\":[\"get\"]}},"
        );
        assert!(reply.body.starts_with(&start), "{}", reply.body);
    }
}

#[tokio::test(start_paused = true)]
async fn discovery_etag_304() {
    let bench = Bench::new();
    let first = bench.send("GET", "/apis", &[("accept", V2)]).await;
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &first.bytes);
    let expected: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(etag, format!("\"{expected}\""));
    for (known, code) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"x\", {etag}"), 304),
        ("*".to_owned(), 304),
        (etag.to_lowercase(), 200),
        ("\"x\"".to_owned(), 200),
        (String::new(), 200),
    ] {
        let reply = bench.send("GET", "/apis", &[("accept", V2), ("if-none-match", &known)]).await;
        assert_eq!(reply.code.as_u16(), code, "{known}");
        assert_eq!(reply.headers["etag"], etag.as_str());
        assert_eq!(reply.headers["vary"], "Accept");
        assert_eq!(reply.body.is_empty(), code == 304);
    }
    // Another edition has another tag; the legacy document has none and is never "not modified".
    let beta = bench.send("GET", "/apis", &[("accept", V2BETA1), ("if-none-match", &etag)]).await;
    assert_eq!(beta.code, StatusCode::OK);
    let legacy = bench.send("GET", "/apis", &[("if-none-match", &etag)]).await;
    assert_eq!((legacy.code, legacy.headers.contains_key("etag")), (StatusCode::OK, false));
    assert_eq!(legacy.headers["vary"], "Accept");
}

#[tokio::test(start_paused = true)]
async fn v2_v1_switch() {
    let bench = Bench::new();
    let client_go = format!("{V2},{V2BETA1},application/json");
    for (accept, expected) in [
        (&*client_go, V2),
        (&format!("{V2BETA1},application/json"), V2BETA1),
        ("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json", "application/json"),
        ("application/json", "application/json"),
        ("application/vnd.kubernetes.protobuf, */*", "application/json"),
        ("application/vnd.kubernetes.protobuf", "application/json"),
        ("application/yaml", "application/yaml"),
    ] {
        let reply = bench.send("GET", "/apis", &[("accept", accept)]).await;
        assert_eq!(reply.headers["content-type"], expected, "{accept}");
    }
    // The resources of one group have no aggregated form.
    let reply = bench.send("GET", API, &[("accept", V2)]).await;
    assert_eq!(reply.headers["content-type"], "application/json");
    let reply = bench.send("GET", "/apis/external.metrics.k8s.io", &[("accept", "application/yaml")]).await;
    assert_eq!(
        reply.body,
        "apiVersion: v1\nkind: APIGroup\nname: external.metrics.k8s.io\npreferredVersion:\n  groupVersion: external.metrics.k8s.io/v1beta1\n  \
         version: v1beta1\nversions:\n- groupVersion: external.metrics.k8s.io/v1beta1\n  version: v1beta1\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_switched_off_is_nowhere() {
    for (config, on, off) in [
        (AdapterConfig { custom: false, ..AdapterConfig::default() }, "external", "custom"),
        (AdapterConfig { external: false, ..AdapterConfig::default() }, "custom", "external"),
    ] {
        let mut bench = Bench::with(config);
        bench.pool("default/a", &[]);
        for accept in ["", V2, V2BETA1] {
            let groups = bench.send("GET", "/apis", &[("accept", accept)]).await.body;
            assert!(
                groups.contains(&format!("{on}.metrics.k8s.io")) && !groups.contains(&format!("{off}.metrics.k8s.io")),
                "{groups}"
            );
        }
        for path in ["/openapi/v2", "/openapi/v3"] {
            let document = get(&bench, path).await;
            assert!(document.contains(&format!("{on}.metrics")) && !document.contains(&format!("{off}.metrics")), "{document}");
        }
        for tail in [
            "",
            "/v1beta1",
            "/v1beta1/namespaces/default/inference_pool_held_requests",
            "/v1beta1/namespaces/default/metrics/inference_pool_held_requests",
        ] {
            let reply = bench.send("GET", &format!("/apis/{off}.metrics.k8s.io{tail}"), &[]).await;
            assert_eq!(reply.code, StatusCode::NOT_FOUND, "{tail}");
            assert!(!reply.body.contains(&format!("are at /apis/{off}")), "{}", reply.body);
        }
        assert_eq!(
            get(&bench, &format!("/apis/{on}.metrics.k8s.io")).await,
            bench.send("GET", &format!("/apis/{on}.metrics.k8s.io/"), &[]).await.body
        );
    }
}

#[tokio::test(start_paused = true)]
async fn openapi_only_for_installed_groups_and_found_by_hash() {
    let bench = Bench::new();
    let index = object(&get(&bench, "/openapi/v3").await);
    let paths = index["paths"].as_object().unwrap();
    assert_eq!(
        paths.keys().collect::<Vec<_>>(),
        ["apis/custom.metrics.k8s.io/v1beta1", "apis/custom.metrics.k8s.io/v1beta2", "apis/external.metrics.k8s.io/v1beta1"]
    );
    for (name, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let (path, hash) = url.split_once("?hash=").unwrap();
        assert_eq!(path, format!("/openapi/v3/{name}"));
        let document = bench.send("GET", url, &[]).await;
        assert_eq!(document.headers["etag"], format!("\"{hash}\"").as_str());
        assert_eq!(document.headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(object(&document.body)["openapi"], "3.0.0");
        // Without the hash it is the same, but may change; with another it is elsewhere.
        let plain = bench.send("GET", path, &[]).await;
        assert_eq!((plain.body, plain.headers.contains_key("cache-control")), (document.body, false));
        let moved = bench.send("GET", &format!("{path}?hash=OLD"), &[]).await;
        assert_eq!(
            (moved.code, &moved.headers["location"]),
            (StatusCode::MOVED_PERMANENTLY, &http::HeaderValue::from_str(url).unwrap())
        );
        let known = bench.send("GET", path, &[("if-none-match", &format!("\"{hash}\""))]).await;
        assert_eq!((known.code, &*known.body), (StatusCode::NOT_MODIFIED, ""));
    }
    let v2 = bench.send("GET", "/openapi/v2", &[("accept", "application/json")]).await;
    let etag = v2.headers["etag"].to_str().unwrap();
    assert_eq!(bench.send("GET", "/openapi/v2", &[("if-none-match", etag)]).await.code, StatusCode::NOT_MODIFIED);
    let document = object(&v2.body);
    assert_eq!(document["swagger"], "2.0");
    assert_eq!(
        document["paths"].as_object().unwrap().keys().collect::<Vec<_>>(),
        [
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/{namespace}/metrics/{metric}",
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/{namespace}/{resource}/{name}/{metric}",
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/metrics/{metric}",
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{resource}/{name}/{metric}",
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}",
        ]
    );
    // What Go's client asks for, and by its new name.
    for name in ["v2@v1.0", "v2.v1.0"] {
        let accept = format!("application/com.github.proto-openapi.spec.{name}+protobuf");
        let reply = bench.send("GET", "/openapi/v2", &[("accept", &accept)]).await;
        assert_eq!(reply.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        assert_eq!(crate::protobuf::tests::at(&reply.bytes, &[1]), b"2.0");
        assert_ne!(reply.headers["etag"], etag);
        assert_eq!(reply.headers["vary"], "Accept");
    }
    let of_go = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let reply = bench.send("GET", "/openapi/v2", &[("accept", of_go)]).await;
    assert_failure(&reply, 406, "NotAcceptable", "only the following media types are accepted: application/json");
    assert_eq!(bench.send("GET", "/openapi/v2", &[("accept", &format!("{of_go}, */*"))]).await.code, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_version_is_the_one_of_the_build() {
    let version = object(&get(&Bench::new(), "/version").await);
    assert_eq!(version["gitVersion"], concat!("v", env!("CARGO_PKG_VERSION")));
    let keys: Vec<_> = version.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "major", "minor", "platform"]
    );
    assert!(version.as_object().unwrap().values().all(Value::is_string));
}

#[tokio::test(start_paused = true)]
async fn a_client_finds_its_way_from_resource_to_kind_and_back() {
    let resources = object(&get(&Bench::new(), API).await);
    let resources = resources["resources"].as_array().unwrap();
    let mut kinds: Vec<_> = resources.iter().map(|resource| resource["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"InferencePoolSaturation"), "{kinds:?}");
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), resources.len());
}
