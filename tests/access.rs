//! Who may read what, asked of weir's pods directly: past the API server, as anyone in a cluster's network can. And that certificates
//! change under way.

#![allow(clippy::unwrap_used)]

#[path = "access/caller.rs"]
mod caller;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};
use weir_tests::cluster::{Cluster, Options, skipped};
use weir_tests::installed::{self, API_SERVICES, NAMESPACE, wait_until_it_answers};
use weir_tests::repository;
use weir_tests::workload::model_servers;

use self::caller::{Answer, Authority, Caller, DAY};

const METRIC: &str = "inference_pool_total_inflight_requests";
const POOL: &str = "vllm-llama3";

/// Names of the front proxy, as the API server brings them.
const USER: &str = "X-Remote-User";
const GROUP: &str = "X-Remote-Group";

/// A namespace with a pool whose metrics are known.
fn pool(cluster: &Cluster, name: &str) -> String {
    let namespace = cluster.namespace(name);
    cluster.apply(&namespace, &model_servers(POOL, 1, &[]));
    cluster.wait_for("a value", || installed::external(cluster, &namespace, METRIC, POOL));
    namespace
}

fn path(namespace: &str) -> String {
    format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{METRIC}?labelSelector=name%3D{POOL}")
}

/// What the API server trusts of an APIService.
fn bundle(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&["get", "apiservice", name, "-o", "go-template={{.spec.caBundle | base64decode}}"]).unwrap()
}

fn address_of_one(cluster: &Cluster) -> String {
    installed::pods(cluster).unwrap().remove(0).1
}

/// A service account and its token.
fn account(cluster: &Cluster, namespace: &str, name: &str) -> String {
    cluster.kubectl(&["create", "serviceaccount", name, "-n", namespace]).unwrap();
    let token = cluster.kubectl(&["create", "token", name, "-n", namespace]).unwrap();
    format!("Bearer {}", token.trim())
}

/// Lets an account view the metrics of a namespace.
fn may_view(cluster: &Cluster, namespace: &str, account: &str) {
    let account = format!("--serviceaccount={account}");
    cluster.kubectl(&["create", "rolebinding", "viewer", "--clusterrole=weir:view", &account, "-n", namespace]).unwrap();
}

/// How the metrics API says no.
fn denied(user: &str, namespace: &str) -> String {
    format!(
        "403 {METRIC}.external.metrics.k8s.io is forbidden: User \"{user}\" cannot list resource \"{METRIC}\" in API group \
         \"external.metrics.k8s.io\" in the namespace \"{namespace}\""
    )
}

fn is_a_value(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.contains("\"kind\":\"ExternalMetricValueList\"") && answer.body.contains("\"value\":\"0\"")
}

#[test]
fn what_proves_nothing_opens_nothing() {
    if skipped("callers") {
        return;
    }
    let cluster = installed::shared();
    let namespace = pool(cluster, "callers");
    let (trusted, address, path) = (bundle(cluster, API_SERVICES[0]), address_of_one(cluster), path(&namespace));
    let token = account(cluster, &namespace, "nobody");
    let user = format!("system:serviceaccount:{namespace}:nobody");
    let headers = [(USER, "system:admin"), (GROUP, "system:masters")];

    let without = Caller::new(&trusted, &address, None);
    let refused =
        |headers: &[(&str, &str)]| (without.ask(&path, headers).unwrap().refusal(), without.page(headers).unwrap().refusal());
    let page = |user: &str| format!("403 forbidden: User \"{user}\" cannot get path \"/metrics\"");
    assert_eq!(refused(&[]), (denied("system:anonymous", &namespace), page("system:anonymous")));
    assert_eq!(refused(&headers), (denied("system:anonymous", &namespace), page("system:anonymous")));
    assert_eq!(refused(&[("Authorization", &token)]), (denied(&user, &namespace), page(&user)));
    let unauthorized = || ("401 Unauthorized".to_owned(), "401 Unauthorized".to_owned());
    assert_eq!(refused(&[("Authorization", &token[..token.len() - 8])]), unauthorized());
    assert_eq!(refused(&[("Authorization", "Bearer nonsense"), (USER, "system:admin"), (GROUP, "system:masters")]), unauthorized());

    let (now, later) = (SystemTime::now(), SystemTime::now() + DAY);
    let front_proxy = Authority::of(cluster.path("front_proxy_ca_certificate"), cluster.path("front_proxy_ca_key"));
    let clients = Authority::of(cluster.path("client_ca_certificate"), cluster.path("client_ca_key"));
    let stranger = Authority::new("front-proxy-ca", now - DAY, later);
    let proxy = "front-proxy-client";
    for (what, identity, answer) in [
        ("an authority that nobody knows", stranger.client(proxy, None, later), "401 Unauthorized".to_owned()),
        ("a front proxy that ended", front_proxy.client(proxy, None, now - DAY), "401 Unauthorized".to_owned()),
        ("a name that is not the front proxy's", front_proxy.client("somebody", None, later), "401 Unauthorized".to_owned()),
        ("an administrator that ended", clients.client("admin", Some("system:masters"), now - DAY), "401 Unauthorized".to_owned()),
        ("a user who forges headers", clients.client("somebody", None, later), denied("somebody", &namespace)),
    ] {
        let caller = Caller::new(&trusted, &address, Some(&identity));
        assert_eq!(caller.ask(&path, &headers).unwrap().refusal(), answer, "{what}");
    }

    // What is right gets in by the same ways.
    let caller = Caller::new(&trusted, &address, Some(&front_proxy.client(proxy, None, later)));
    let vouched = caller.ask(&path, &headers).unwrap();
    assert!(is_a_value(&vouched), "{}", vouched.body);
    let user = [(USER, "somebody"), (GROUP, "system:authenticated")];
    assert_eq!(caller.ask(&path, &user).unwrap().refusal(), denied("somebody", &namespace));
    let administrator = Caller::new(&trusted, &address, Some(&clients.client("admin", Some("system:masters"), later)));
    let own = administrator.ask(&path, &[]).unwrap();
    assert!(is_a_value(&own), "{}", own.body);
}

#[test]
fn a_role_and_a_token_count_as_long_as_they_exist() {
    if skipped("roles and tokens") {
        return;
    }
    let cluster = installed::shared();
    let namespace = pool(cluster, "tokens");
    let (trusted, address, path) = (bundle(cluster, API_SERVICES[0]), address_of_one(cluster), path(&namespace));
    let token = account(cluster, &namespace, "viewer");
    let user = format!("{namespace}:viewer");
    let caller = Caller::new(&trusted, &address, None);
    let headers = [("Authorization", token.as_str())];
    assert_eq!(caller.ask(&path, &headers).unwrap().refusal(), denied(&format!("system:serviceaccount:{user}"), &namespace));
    assert_eq!(caller.page(&headers).unwrap().status, 403);
    may_view(cluster, &namespace, &user);
    let account = format!("--serviceaccount={user}");
    cluster.kubectl(&["create", "clusterrolebinding", &namespace, "--clusterrole=weir:metrics-reader", &account]).unwrap();
    let began = SystemTime::now();
    cluster.wait_for("the role to count", || {
        let (answer, page) = (caller.ask(&path, &headers)?, caller.page(&headers)?);
        let measured = page.status == 200
            && page.body.contains(&format!("inference_pool_ready_pods{{name=\"{POOL}\",namespace=\"{namespace}\"}} 1"));
        if is_a_value(&answer) && measured { Ok(()) } else { Err(format!("{} {}", answer.refusal(), page.refusal())) }
    });
    eprintln!("a role counted after {:?}", began.elapsed().unwrap());
    cluster.kubectl(&["delete", "serviceaccount", "viewer", "-n", &namespace]).unwrap();
    let began = SystemTime::now();
    cluster.wait_for("the token to end", || {
        let (answer, page) = (caller.ask(&path, &headers)?.refusal(), caller.page(&headers)?.refusal());
        if answer == "401 Unauthorized" && page == "401 Unauthorized" { Ok(()) } else { Err(format!("{answer} {page}")) }
    });
    eprintln!("a token ended after {:?}", began.elapsed().unwrap());
}

#[test]
fn pools_of_another_namespace_stay_closed() {
    if skipped("another namespace") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    installed::by_kustomize(&cluster);
    let (theirs, ours) = (pool(&cluster, "theirs"), cluster.namespace("ours"));
    cluster.kubectl(&["create", "serviceaccount", "reader", "-n", &ours]).unwrap();
    may_view(&cluster, &ours, &format!("{ours}:reader"));
    let user = format!("system:serviceaccount:{ours}:reader");
    let path = format!("{}%2Cnamespace%3D{theirs}", path(&ours));
    let read = || cluster.kubectl(&["get", "--raw", &path, &format!("--as={user}")]);
    let closed = format!(
        "{METRIC}.external.metrics.k8s.io is forbidden: the selector asks for pools of namespace \"{theirs}\", but the request is for \
         namespace \"{ours}\": ask in the pool's own namespace, or let the adapter allow selectors across namespaces"
    );
    // Not even for an administrator.
    assert!(cluster.raw(&path).unwrap_err().contains(&closed));
    cluster.wait_for("weir's words", || match read() {
        Err(error) if error.contains(&closed) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let argument = r#"[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--allow-cross-namespace"}]"#;
    cluster.kubectl(&["patch", "deployment", "weir", "-n", NAMESPACE, "--type=json", "-p", argument]).unwrap();
    wait_until_it_answers(&cluster);
    // Now it is a question of rights in either namespace.
    let denied = format!(
        "{METRIC}.external.metrics.k8s.io is forbidden: User \"{user}\" cannot list resource \"{METRIC}\" in API group \
         \"external.metrics.k8s.io\" in the namespace \"{theirs}\""
    );
    cluster.wait_for("weir's words", || match read() {
        Err(error) if error.contains(&denied) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    may_view(&cluster, &theirs, &format!("{ours}:reader"));
    cluster.wait_for("the role to count", || {
        let list = read()?;
        if list.contains(&format!("\"namespace\":\"{theirs}\"")) { Ok(()) } else { Err(list) }
    });
}

/// Does something while the metrics API is read over and over; no read may fail.
///
/// That weir itself answers that a value is not known is no failure here: certificates and trust held, and pages may come late while
/// the machine is busy.
fn while_it_is_read(cluster: &Cluster, namespace: &str, act: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stopped, values, unknown) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let failures = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match installed::external(cluster, namespace, METRIC, POOL) {
                    Ok(_) => drop(values.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.contains(" is not known: ") => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => failures.push(error),
                }
            }
            failures
        });
        let stop = Stop(&stopped);
        act();
        drop(stop);
        reader.join().unwrap()
    });
    eprintln!("{values:?} values read, {unknown:?} not known");
    assert_eq!(failures, Vec::<String>::new(), "beside {values:?} values, {unknown:?} not known");
    assert!(values.load(Ordering::Relaxed) > 1, "nothing was read");
}

/// A Secret's entry, decoded.
fn entry(cluster: &Cluster, secret: &str, key: &str) -> Result<String, String> {
    let template = format!("go-template={{{{with index .data \"{key}\"}}}}{{{{. | base64decode}}}}{{{{end}}}}");
    cluster.kubectl(&["get", "secret", secret, "-n", NAMESPACE, "-o", &template])
}

fn write(cluster: &Cluster, secret: &str, entries: Value) {
    let patch = json!({"stringData": entries}).to_string();
    cluster.kubectl(&["patch", "secret", secret, "-n", NAMESPACE, "--type=merge", "-p", &patch]).unwrap();
}

/// Waits until all APIServices trust these certificates.
fn wait_for_trust(cluster: &Cluster, certificates: &[&str]) -> String {
    cluster.wait_for("all APIServices to trust", || {
        let bundles = API_SERVICES.map(|name| bundle(cluster, name));
        let right = bundles.iter().all(|bundle| certificates.iter().all(|one| bundle.contains(one.trim())));
        let [first, ..] = bundles;
        if right { Ok(first) } else { Err(first) }
    })
}

#[test]
fn the_serving_authority_is_kept_and_rotated_without_a_read_that_fails() {
    if skipped("the serving authority") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    // One that has 60 of its 360 days left.
    let now = SystemTime::now();
    let old = Authority::new("old authority", now - 300 * DAY, now + 60 * DAY);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "weir-ca"}, "type": "Opaque",
        "stringData": {"tls.crt": old.pem, "tls.key": old.key, "ca.crt": old.pem},
    });
    cluster.kubectl(&["create", "namespace", NAMESPACE]).unwrap();
    cluster.kubectl_reading(&["create", "-n", NAMESPACE, "-f", "-"], &secret.to_string()).unwrap();
    installed::by_kustomize(&cluster);
    let namespace = pool(&cluster, "rotation");
    // The next one is trusted, and issues nothing yet.
    let next = cluster.wait_for("the next authority", || match entry(&cluster, "weir-ca", "next.crt")? {
        none if none.is_empty() => Err(none),
        next => Ok(next),
    });
    let both = wait_for_trust(&cluster, &[&old.pem, &next]);
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2, "{both}");
    let issued_by = |authority: &str| {
        for (pod, address) in installed::pods(&cluster)? {
            Caller::new(authority, &address, None).ask("/readyz", &[]).map_err(|error| format!("{pod}: {error}"))?;
        }
        Ok::<_, String>(())
    };
    issued_by(&old.pem).unwrap();
    assert!(issued_by(&next).is_err());

    while_it_is_read(&cluster, &namespace, || {
        // Deleted, the Secret is what it was once weir may write it.
        let before = entry(&cluster, "weir-ca", "ca.crt").unwrap();
        cluster.kubectl(&["delete", "secret", "weir-ca", "-n", NAMESPACE]).unwrap();
        cluster.wait_for("weir's words", || {
            let log = installed::log_of_all(&cluster);
            let said = |line: &str| {
                line.contains("Secret weir-system/weir-ca cannot be written: ")
                    && line.contains("or bring an empty Secret of this name")
            };
            if log.lines().any(said) { Ok(()) } else { Err(log) }
        });
        let manifest = repository().join("manifests/base/certificate-authority.yaml").display().to_string();
        cluster.kubectl(&["apply", "-f", &manifest]).unwrap();
        let same = || entry(&cluster, "weir-ca", "ca.crt").and_then(|now| if now == before { Ok(()) } else { Err(now) });
        cluster.wait_for("the same authorities", same);

        // Ten minutes later, in so far as the certificate says so; clients know it already.
        let second = Authority::new("second authority", now - 2 * DAY, now + 300 * DAY);
        write(&cluster, "weir-ca", json!({"ca.crt": format!("{before}{}", second.pem)}));
        wait_for_trust(&cluster, &[&old.pem, &next, &second.pem]);
        write(&cluster, "weir-ca", json!({"next.crt": second.pem, "next.key": second.key}));
        cluster.wait_for("certificates of the second authority", || issued_by(&second.pem));
        wait_for_trust(&cluster, &[&old.pem, &second.pem]);
    });
    wait_until_it_answers(&cluster);
}

#[test]
fn certificate_files_are_read_again_while_connections_go_on() {
    if skipped("certificate files") {
        return;
    }
    let cluster = Cluster::start(&Options::default());
    installed::by_kustomize(&cluster);
    let now = SystemTime::now();
    let authority = Authority::new("an authority of the company", now - DAY, now + 30 * DAY);
    let (first, second) = (authority.server(), authority.server());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "weir-tls"},
        "stringData": {"tls.crt": first.certificate, "tls.key": first.key, "ca.crt": authority.pem},
    });
    cluster.apply(NAMESPACE, &secret.to_string());
    let container = "/spec/template/spec/containers/0";
    let patch = json!([
        {"op": "add", "path": "/spec/template/spec/volumes", "value": [{"name": "tls", "secret": {"secretName": "weir-tls"}}]},
        {"op": "add", "path": format!("{container}/volumeMounts"), "value": [{"name": "tls", "mountPath": "/tls", "readOnly": true}]},
        {"op": "add", "path": format!("{container}/args/-"), "value": "--tls-cert-file=/tls/tls.crt"},
        {"op": "add", "path": format!("{container}/args/-"), "value": "--tls-private-key-file=/tls/tls.key"},
    ]);
    cluster.kubectl(&["patch", "deployment", "weir", "-n", NAMESPACE, "--type=json", "-p", &patch.to_string()]).unwrap();
    // Whose certificates are given, writes the bundle, once nobody with the old arguments does.
    let pods = cluster.wait_for("pods with files, and no others", || {
        let pods = cluster.get(NAMESPACE, "pods")?;
        let with_files = |pod: &Value| pod.pointer("/spec/volumes/0/name").is_some_and(|name| name == "tls");
        let ready = installed::pods(&cluster)?;
        match pods["items"].as_array() {
            Some(all) if all.len() == 2 && all.iter().all(with_files) && ready.len() == 2 => Ok(ready),
            _ => Err(cluster.describe(NAMESPACE, "pods")),
        }
    });
    let data = cluster.get(NAMESPACE, "secret/weir-tls").unwrap();
    let bundle = json!({"spec": {"caBundle": data["data"]["ca.crt"]}}).to_string();
    for name in API_SERVICES {
        cluster.kubectl(&["patch", "apiservice", name, "--type=merge", "-p", &bundle]).unwrap();
    }
    wait_until_it_answers(&cluster);
    let namespace = pool(&cluster, "files");

    let clients = Authority::of(cluster.path("client_ca_certificate"), cluster.path("client_ca_key"));
    let administrator = clients.client("admin", Some("system:masters"), now + DAY);
    let address = &pods[0].1;
    let connected = Caller::new(&authority.pem, address, Some(&administrator));
    let answer = connected.ask(&path(&namespace), &[]).unwrap();
    assert!(is_a_value(&answer) && answer.certificate == first.der, "{}", answer.body);
    while_it_is_read(&cluster, &namespace, || {
        write(&cluster, "weir-tls", json!({"tls.crt": second.certificate, "tls.key": second.key}));
        cluster.wait_for("the second certificate", || {
            let answer = Caller::new(&authority.pem, address, Some(&administrator)).ask(&path(&namespace), &[])?;
            if is_a_value(&answer) && answer.certificate == second.der { Ok(()) } else { Err(answer.body) }
        });
    });
    // The same connection as before.
    let answer = connected.ask(&path(&namespace), &[]).unwrap();
    assert!(is_a_value(&answer) && answer.certificate == first.der, "{}", answer.body);
}
