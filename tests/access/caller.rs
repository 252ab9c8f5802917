//! Who asks a replica of weir directly, and the certificates that such callers bring.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use reqwest::tls::TlsInfo;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The name by which the API server knows weir.
const NAME: &str = "weir.weir-system.svc";

/// A certificate with its key, PEM.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

/// Who issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    pub(crate) key: String,
}

impl Authority {
    /// One that was made by somebody else.
    pub(crate) fn of(certificate: &Path, key: &Path) -> Self {
        let (pem, key) = (std::fs::read_to_string(certificate).unwrap(), std::fs::read_to_string(key).unwrap());
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&key).unwrap()).unwrap();
        Self { issuer, pem, key }
    }

    /// A new one, valid from and to.
    pub(crate) fn new(name: &str, from: SystemTime, to: SystemTime) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = parameters(name, None, from, to);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        let text = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key: text }
    }

    /// A certificate for a client, valid until `to`.
    pub(crate) fn client(&self, name: &str, group: Option<&str>, to: SystemTime) -> Issued {
        let mut params = parameters(name, group, to - 30 * DAY, to);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    /// A certificate for weir's Service.
    pub(crate) fn server(&self) -> Issued {
        let now = SystemTime::now();
        let mut params = parameters("weir", None, now - DAY, now + DAY);
        params.subject_alt_names = CertificateParams::new([NAME.to_owned()]).unwrap().subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().to_vec() }
    }
}

fn parameters(name: &str, group: Option<&str>, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = from.into();
    params.not_after = to.into();
    params
}

/// A client of one replica's metrics API, by the name that the API server uses.
pub(crate) struct Caller {
    client: reqwest::Client,
    // After the client: what is left of it is cleaned up in here.
    runtime: Runtime,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The certificate of the connection.
    pub(crate) certificate: Vec<u8>,
}

impl Answer {
    /// The status, and the words of a failure: the message of a `Status`, which holds nothing else; the body otherwise.
    pub(crate) fn refusal(&self) -> String {
        let status: Option<Value> = serde_json::from_str(&self.body).ok();
        let status = status.filter(|status| {
            status["kind"] == "Status"
                && status["status"] == "Failure"
                && status["metadata"] == Value::Object(serde_json::Map::new())
        });
        let message = status.as_ref().and_then(|status| status["message"].as_str()).unwrap_or(&self.body);
        format!("{} {message}", self.status)
    }
}

impl Caller {
    /// Trusts these authorities alone, and brings a certificate if it has one. The calling thread is in the cluster's network.
    pub(crate) fn new(trusted: &str, address: &str, identity: Option<&Issued>) -> Self {
        weir_serving::install_crypto_provider();
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        let trusted = reqwest::Certificate::from_pem_bundle(trusted.as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder().tls_certs_only(trusted).tls_info(true).resolve(NAME, address).no_proxy();
        builder = builder.timeout(weir_tests::PATIENCE);
        if let Some(Issued { certificate, key, .. }) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { client: builder.build().unwrap(), runtime }
    }

    /// Reads a path of the metrics API.
    pub(crate) fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        self.ask_url(&format!("https://{NAME}:6443{path}"), headers)
    }

    /// Reads the exporter's page.
    pub(crate) fn page(&self, headers: &[(&str, &str)]) -> Result<Answer, String> {
        self.ask_url(&format!("http://{NAME}:9090/metrics"), headers)
    }

    fn ask_url(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
        self.runtime.block_on(async {
            let mut request = self.client.get(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let certificate =
                response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).unwrap_or_default().to_vec();
            let (status, mut body) = (response.status().as_u16(), Vec::new());
            while let Some(chunk) = response.chunk().await.map_err(|error| format!("{error:?}"))? {
                body.extend_from_slice(&chunk);
            }
            Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned(), certificate })
        })
    }
}
