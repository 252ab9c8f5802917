//! Model servers that die, and such that speak TLS.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use rcgen::{CertificateParams, KeyPair};
use weir_serving::{Authentication, Server, Tls};
use weir_tests::{Folder, simulators};

use super::rig::Picker;
use super::{ask, blocking, client, start};

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_a_server_that_died_go_to_another_one() {
    let folder = Folder::new("dies");
    let (dies, first) = blocking(|| simulators(1)).await;
    let (_lives, second) = blocking(|| simulators(1)).await;
    let pools =
        format!("apiVersion: weir/v1\npools:\n- name: r\n  namespace: n\n  endpoints: [\"{}\", \"{}\"]\n", first[0], second[0]);
    let pools = folder.write("pools.yaml", &pools);
    let picker = Picker::start(&folder, "--pool-name r --pool-namespace n --http 127.0.0.1:0", &pools).await;
    picker.is_ready().await;
    picker.page_until("both pages", |page| page.contains("state=\"fresh\"} 2")).await;
    let (client, url) = (client(), format!("http://{}", picker.http.unwrap()));
    drop(dies);
    let body = r#"{"model":"meta-llama/Llama-3.1-8B-Instruct","prompt":"hi","max_tokens":1}"#;
    let requests = stream::iter(0..40).map(|_| async {
        let request = client.post(format!("{url}/v1/completions")).header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), weir_tests::text(answer).await.unwrap())
    });
    let answers: Vec<_> = requests.buffer_unordered(4).collect().await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    let page = picker.page().await;
    let unreached = super::rig::value(&page, "weir_epp_http_failures_total{reason=\"unreached\"}");
    assert!(unreached >= Some(1.0), "the one that died was tried: {page}");
    assert!(page.contains("kind=\"served_elsewhere\"} 0"), "{page}");
    picker.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn model_servers_may_speak_tls_under_a_name_of_their_own() {
    weir_serving::install_crypto_provider();
    let folder = Folder::new("tls");
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["model.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (crt, pem) = (folder.write("tls.crt", &certificate.pem()), folder.write("tls.key", &key.serialize_pem()));
    let (router, heads) = super::server::router();
    let server = Server::builder(router)
        .name("model")
        .listen("127.0.0.1:0".parse().unwrap())
        .authentication(Authentication::Everyone)
        .tls(Tls::files(&crt, &pem))
        .bind()
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    let leaving = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(server.serve(leaving.clone()));
    let client = client();
    for (name, line, status) in [
        ("named", format!("--http-backend-ca-file {} --http-backend-server-name model.example", crt.display()), 200),
        ("any", "--http-backend-insecure-skip-verify".to_owned(), 200),
        // The address is no name of its certificate.
        ("unnamed", format!("--http-backend-ca-file {}", crt.display()), 503),
    ] {
        let folder = Folder::new(&format!("tls-{name}"));
        let (picker, url) = start(&folder, &address, &format!("--http-backend-scheme https {line}"), &[]).await;
        let answer = ask(&client, &url).send().await.unwrap();
        let got = answer.status().as_u16();
        assert_eq!(got, status, "{name}: {}", weir_tests::text(answer).await.unwrap());
        picker.ends_well().await;
    }
    assert_eq!(heads.lock().unwrap().len(), 2);
    leaving.cancel();
    drop(tokio::time::timeout(Duration::from_secs(20), serving).await.unwrap().unwrap());
}
