//! TLS and tokens: believed or not, and renewed under a running process.

use rcgen::{CertifiedKey, KeyPair};
use weir_datastore::{FailureKind, Scheme};

use super::rig::{Rig, pool, quick};
use super::server::{Answer, Server, page};
use crate::{Access, WantedPool};

fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

fn https(server: &Server, access: &Access) -> WantedPool {
    let mut pool = pool(&[server.address]);
    pool.spec.metrics.scheme = Scheme::Https;
    WantedPool { access: access.clone(), ..pool }
}

#[tokio::test]
async fn a_certificate_is_believed_once_its_issuer_is_known_and_its_name_fits() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate("vllm.internal");
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, certificate.cert.pem()).unwrap();
    let server = Server::start_tls(&certificate, |_| Answer::Page(page(5))).await;

    // Some issuer, but not this one: the system's may not even be there.
    let other = folder.path().join("other.pem");
    std::fs::write(&other, self::certificate("vllm.internal").cert.pem()).unwrap();
    let mut access = Access { ca_file: Some(other), ..Access::default() };
    let rig = Rig::start(quick(), vec![https(&server, &access)]);
    let unknown = rig.until_failing(server.address).await;
    assert_eq!(unknown.kind, FailureKind::Tls, "{}", unknown.message);
    assert!(unknown.message.contains("`caFile`"), "{}", unknown.message);

    // The cell stays while the way of reaching it changes.
    access.ca_file = Some(ca_file);
    rig.want(vec![https(&server, &access)]);
    super::eventually("the name is wrong now", || {
        rig.failure(server.address).is_some_and(|failure| failure.message.contains("`serverName`"))
    })
    .await;
    let misnamed = rig.failure(server.address).unwrap();
    assert_eq!((misnamed.kind, misnamed.since), (FailureKind::Tls, unknown.since));
    assert!(rig.scrapes("tls") >= 2.0);

    access.server_name = Some("vllm.internal".to_owned());
    rig.want(vec![https(&server, &access)]);
    rig.until_running(server.address, 5.0).await;
    assert_eq!(rig.failure(server.address), None);
    rig.stop().await;
}

#[tokio::test]
async fn without_verification_any_certificate_will_do() {
    let server = Server::start_tls(&certificate("whoever"), |_| Answer::Page(page(6))).await;
    let access = Access { insecure_skip_verify: true, ..Access::default() };
    let rig = Rig::start(quick(), vec![https(&server, &access)]);
    rig.until_running(server.address, 6.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let certificate = certificate("localhost");
    let server = Server::start_tls(&certificate, |_| Answer::Page(page(7))).await;
    let access = Access { ca_file: Some(ca_file.clone()), server_name: Some("localhost".to_owned()), ..Access::default() };
    let rig = Rig::start(quick(), vec![https(&server, &access)]);
    let missing = rig.until_failing(server.address).await;
    assert_eq!(missing.kind, FailureKind::Tls);
    assert!(missing.message.contains("ca.pem cannot be read"), "{}", missing.message);
    std::fs::write(&ca_file, certificate.cert.pem()).unwrap();
    rig.until_running(server.address, 7.0).await;
    // What was read stays in force when the file goes away.
    std::fs::remove_file(&ca_file).unwrap();
    server.set(|_| Answer::Page(page(8)));
    rig.until_running(server.address, 8.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_token_goes_with_each_request_and_is_read_again_but_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "first-secret\n").unwrap();
    let answer = |wanted: &'static str| {
        move |head: &str| match head.to_ascii_lowercase().contains(&format!("authorization: bearer {wanted}\r\n")) {
            true => Answer::Page(page(1)),
            false => Answer::http("401 Unauthorized", "", ""),
        }
    };
    let server = Server::start_tls(&certificate("localhost"), answer("first-secret")).await;
    let access = Access { bearer_token_file: Some(token_file.clone()), insecure_skip_verify: true, ..Access::default() };
    let rig = Rig::start(quick(), vec![https(&server, &access)]);
    rig.until_running(server.address, 1.0).await;
    server.set(answer("second-secret"));
    let failure = rig.until_failing(server.address).await;
    assert_eq!(failure.kind, FailureKind::Status);
    assert!(failure.message.contains("`bearerTokenFile`") && !failure.message.contains("secret"), "{}", failure.message);
    std::fs::write(&token_file, "second-secret").unwrap();
    super::eventually("the new token is used", || rig.failure(server.address).is_none()).await;
    rig.stop().await;
}
