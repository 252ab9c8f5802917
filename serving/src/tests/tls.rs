use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::*;
use crate::{Authentication, CertificateAuthority, ClientCertificates, Issued, ServeError, Server, Tls};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_client_that_trusts_the_self_made_authority_speaks_both_versions() {
    let tls = Tls::self_made(authority(), ["weir.default.svc"]);
    let server = start(who(), |builder| builder.tls(tls)).await;
    let ca_pem = server.ca_pem.clone().unwrap();
    let url = server.url("/who");

    let h2 = trusting(&ca_pem).build().unwrap();
    let response = h2.get(&url).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(body(response).await, "system:anonymous system:unauthenticated");
    let h1 = trusting(&ca_pem).http1_only().build().unwrap();
    let response = h1.get(&url).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);

    let named = trusting(&ca_pem).resolve("weir.default.svc", server.address);
    let port = server.address.port();
    let by_name = named.build().unwrap();
    let get = async |host: &str| by_name.get(format!("https://{host}:{port}/who")).send().await;
    assert_eq!(get("weir.default.svc").await.unwrap().status(), 200);

    let stranger = trusting(authority().ca_pem()).build().unwrap();
    assert!(stranger.get(&url).send().await.is_err());
    server.wait_for_metric(r#"weir_serving_tls_handshake_failures_total{component="test",reason="refused_by_client"}"#, 1.0).await;
    let year = SystemTime::now() + 365 * DAY;
    let expected = year.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let told = server.metric(r#"weir_serving_certificate_expiration_timestamp_seconds{component="test"}"#);
    assert!((told - expected.as_secs_f64()).abs() < 3600.0, "{told}");
}

#[tokio::test]
async fn tls_1_2_is_the_oldest_spoken() {
    let server = start(who(), |builder| builder.tls(Tls::self_made(authority(), [] as [&str; 0]))).await;
    let old = trusting(server.ca_pem.as_ref().unwrap()).tls_version_max(reqwest::tls::Version::TLS_1_2).build().unwrap();
    assert_eq!(old.get(server.url("/who")).send().await.unwrap().status(), 200);

    // A ClientHello of TLS 1.1: version 3.2, random, no session, one suite (ECDHE-ECDSA-AES128-CBC-SHA), no
    // compression, extensions supported_groups (P-256) and signature_algorithms (ECDSA with SHA-256).
    let extensions = [0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    let hello = [&[3, 2][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x09], &[1, 0], &extensions].concat();
    // In a record (22, 3.1) as a handshake message (1).
    let length = u8::try_from(hello.len()).unwrap();
    let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &hello[..]].concat();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut alert = [0; 7];
    tokio::time::timeout(LONG, stream.read_exact(&mut alert)).await.unwrap().unwrap();
    const ALERT: u8 = 21;
    const FATAL_PROTOCOL_VERSION: [u8; 2] = [2, 70];
    assert_eq!(alert[0], ALERT);
    assert_eq!(alert[5..], FATAL_PROTOCOL_VERSION);
    server.wait_for_metric(r#"weir_serving_tls_handshake_failures_total{component="test",reason="incompatible"}"#, 1.0).await;
}

#[tokio::test]
async fn files_are_reloaded_while_connections_live_and_bad_ones_are_refused() {
    let files = Files::new();
    let first = files.write_pair();
    let tls = Tls::files(files.path("tls.crt"), files.path("tls.key"));
    let server = start(who(), |builder| builder.tls(tls)).await;
    let url = format!("https://{}/who", server.address);
    let mut kept = connect(&server, &first).await;
    ask(&mut kept, "/who", "unauthenticated").await;

    let second = files.write_pair();
    // A client of its own each time: it must not reuse a connection.
    let served = async |authority: &CertificateAuthority| {
        let client = trusting(authority.ca_pem()).build().unwrap();
        client.get(&url).send().await.is_ok()
    };
    wait_until("the new certificate is served", async || served(&second).await).await;
    assert!(!served(&first).await, "the old one is not, for new connections");
    ask(&mut kept, "/who", "unauthenticated").await;

    files.write("tls.key", "nonsense");
    let refused = r#"weir_serving_reloads_total{component="test",subject="certificate",result="refused"}"#;
    let before = server.metric(refused);
    server.wait_for_metric(refused, before.max(1.0)).await;
    assert!(served(&second).await, "the last good one stays in use");
}

async fn connect(server: &Running, authority: &CertificateAuthority) -> tokio_rustls::client::TlsStream<TcpStream> {
    crate::install_crypto_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// A server that accepts client certificates of the authority in `ca.crt`.
async fn start_for_certificates(files: &Files, clients: &CertificateAuthority) -> Running {
    files.write("ca.crt", clients.ca_pem());
    let tls = Tls::self_made(authority(), [] as [&str; 0]).client_ca(files.path("ca.crt"));
    let certificates = Authentication::AnyOf(vec![Arc::new(ClientCertificates)]);
    start(who(), |builder| builder.tls(tls).authentication(certificates)).await
}

/// Status and body for a client with this certificate, none when no answer came.
async fn answer(server: &Running, certificate: Option<Issued>) -> Option<(u16, String)> {
    let mut client = trusting(server.ca_pem.as_ref()?);
    if let Some(Issued { certificate_pem, key_pem, .. }) = certificate {
        let pem = certificate_pem + &key_pem;
        client = client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    let client = client.build().unwrap();
    let response = client.get(server.url("/who")).send().await.ok()?;
    Some((response.status().as_u16(), body(response).await))
}

#[tokio::test]
async fn client_certificates_name_the_caller() {
    let files = Files::new();
    let now = SystemTime::now();
    let clients = CertificateAuthority::new(now).unwrap();
    let server = start_for_certificates(&files, &clients).await;

    let good = clients.issue_client("reader", Some("boards"), now, 1);
    assert_eq!(answer(&server, Some(good.unwrap())).await, Some((200, "reader boards,system:authenticated".into())));
    let (code, text) = answer(&server, None).await.unwrap();
    assert_eq!(code, 401, "{text}");

    let refused = r#"weir_serving_tls_handshake_failures_total{component="test",reason="client_certificate"}"#;
    let stranger = authority().issue_client("reader", Some("boards"), now, 1);
    assert_eq!(answer(&server, Some(stranger.unwrap())).await, None);
    server.wait_for_metric(refused, 1.0).await;
    let expired = clients.issue_client("reader", None, now - 3 * DAY, 1);
    assert_eq!(answer(&server, Some(expired.unwrap())).await, None);
    server.wait_for_metric(refused, 2.0).await;
    let for_servers = clients.issue_server(&[], now);
    assert_eq!(answer(&server, Some(for_servers.unwrap())).await, None, "not meant for clients");
}

#[tokio::test]
async fn the_client_authority_is_rotated() {
    let files = Files::new();
    let now = SystemTime::now();
    let [old, new] = [(); 2].map(|()| CertificateAuthority::new(now).unwrap());
    let server = start_for_certificates(&files, &old).await;
    let by = async |authority: &CertificateAuthority| {
        let issued = authority.issue_client("reader", None, now, 1).unwrap();
        answer(&server, Some(issued)).await.is_some()
    };
    assert!(by(&old).await && !by(&new).await);

    files.write("ca.crt", &(old.ca_pem().to_owned() + new.ca_pem()));
    wait_until("both are accepted", async || by(&new).await).await;
    assert!(by(&old).await);

    files.write("ca.crt", new.ca_pem());
    wait_until("the old one is refused", async || !by(&old).await).await;
    assert!(by(&new).await);

    files.write("ca.crt", "nonsense");
    let refused = r#"weir_serving_reloads_total{component="test",subject="client_ca",result="refused"}"#;
    server.wait_for_metric(refused, 1.0).await;
    assert!(by(&new).await && !by(&old).await);
}

#[tokio::test]
async fn unusable_files_stop_the_start() {
    let files = Files::new();
    let tls = Tls::files(files.path("tls.crt"), files.path("tls.key"));
    let bound = Server::builder(who()).tls(tls.clone()).bind().await;
    assert!(matches!(bound, Err(ServeError::File { what: "certificate", .. })));
    files.write_pair();
    files.write("tls.key", "");
    let bound = Server::builder(who()).tls(tls).bind().await;
    assert!(matches!(bound, Err(ServeError::File { what: "private key", .. })));
}
